//! Finds out why the child ended before it became the program, as far as possible.

use std::fs;
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result, anyhow};
use rustix::process::{WaitId, WaitIdOptions};

use super::conversation::Conversation;
use crate::cgroup;
use crate::cgroup::OomFiles;
use crate::error::{Hint, Stage};
use crate::host::process;
use crate::host::process::process_stat;

/// What the user can do if a seccomp filter kept the program from starting.
const FILTER_HINT: &str = "the seccomp profile must allow execve";

impl Conversation<'_> {
    /// The error for a child that closed the socket and ended before `what`, with the reason if one is found.
    pub(super) fn ended_before(&self, what: &str) -> anyhow::Error {
        let why = self.ended_early().err();
        why.unwrap_or_else(|| anyhow!("{} exited before {what}", self.who()))
    }

    /// Called when the process has closed the socket.
    ///
    /// # Errors
    /// If the process ends without having become the program: a signal killed it, or its filter kept it from
    /// reporting.
    pub(super) fn ended_early(&self) -> Result<()> {
        let has_filter = self.program.has_filter();
        // An exiting process loses its executable before its descriptors, so one that still has it has become
        // the program; this is the cheaper check. With a filter a failed execve is common, so the shortcut is
        // skipped.
        if !has_filter && fs::read_link(format!("/proc/{}/exe", self.process.pid)).is_ok() {
            return Ok(());
        }
        // Read before it has ended; the kernel has counted an OOM kill already.
        let seen = self.context.oom_files.as_ref().map(OomFiles::look);
        if !process_stat(self.process.pid)?.is_some_and(|stat| stat.never_executed) {
            return Ok(());
        }
        // It is ending, but may not have ended yet.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = rustix::process::waitid(WaitId::PidFd(self.process.pidfd.as_fd()), options)
            .context("wait for the init process")?;
        let Some(signal) = status.map(|status| status.terminating_signal()) else { return Ok(()) };
        if !has_filter && signal.is_none() {
            return Ok(());
        }
        let who = self.who();
        let (ended, hint) = match signal {
            None => (format!("{who} failed without reporting a reason"), FILTER_HINT.to_owned()),
            // SIGSEGV: the filter allowed nothing at all, not even exit.
            Some(signal @ (libc::SIGSYS | libc::SIGSEGV)) if has_filter => {
                (format!("{who} was killed by signal {signal}"), FILTER_HINT.to_owned())
            }
            Some(signal) => {
                let known = self.context.earlier_ooms;
                let shortage = match seen {
                    _ if signal != libc::SIGKILL => None,
                    Some(seen) => seen.and_then(|seen| seen.shortage(known.unwrap_or_default())),
                    None => self
                        .context
                        .cgroup
                        .as_deref()
                        .and_then(|path| cgroup::shortage(path, known.unwrap_or_default())),
                };
                let hint = match (shortage, known) {
                    (Some(shortage), Some(_)) => return Err(shortage.of_init().context(Stage::Alive)),
                    // runc's wording.
                    (Some(shortage), None) => format!("possibly OOM-killed: {shortage}"),
                    (None, _) => self.killer(signal).to_owned(),
                };
                (format!("{who} was killed by signal {signal}"), hint)
            }
        };
        Err(anyhow!(ended).context(Hint("start the container's program".into(), hint)))
    }

    pub(super) fn who(&self) -> &'static str {
        // Only `create` reads the counters before the clone.
        if self.context.earlier_ooms.is_some() { "the init process" } else { "the new process" }
    }

    /// Names the likely sender of this signal if no OOM kill was counted.
    fn killer(&self, signal: i32) -> &'static str {
        // `exec` does not check this while it could still clone elsewhere.
        if signal == libc::SIGKILL && self.was_killed_at_clone() {
            return "killed by another process or by the kernel, which may kill processes cloned out of a \
                    cgroup that was ever killed with cgroup.kill";
        }
        let is_counted = || self.context.cgroup.as_deref().and_then(cgroup::oom_counts).is_some();
        match signal != libc::SIGKILL || is_counted() {
            true => "killed by another process",
            false => "killed by another process or by the OOM killer",
        }
    }

    fn was_killed_at_clone(&self) -> bool {
        process::birth(self.process.pid).is_ok_and(|birth| birth.was_killed)
    }
}
