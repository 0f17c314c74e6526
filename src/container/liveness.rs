//! Checks whether a container's init process is alive, and waits for its exit.

use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Container;
use crate::cgroup;
use crate::container::state::Status;
use crate::host::process::{ProcessStat, process_stat};

/// How often to check on a dying init process: its pidfd does not become readable while it waits for zombies.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

impl Container {
    /// Reads `/proc/PID/stat` of the init process; `None` if the pid now belongs to another process.
    fn init_stat(&self) -> Result<Option<ProcessStat>> {
        let stat = process_stat(self.state.init_process_pid)?;
        Ok(stat.filter(|stat| stat.start == self.state.init_process_start))
    }

    /// Returns the init process unless it has exited or its pid now belongs to another process.
    ///
    /// When the first process of a pid namespace exits, it waits until all other processes of the namespace
    /// have been reaped; pid_namespaces(7). Processes added by `exec --detach` have a parent outside of it.
    /// If that parent never reaps them (`sleep infinity` as process 1 of a CI container), the init process
    /// never becomes a zombie. It runs no code any more, so it counts as exited as soon as no other process
    /// of the container is alive.
    pub(super) fn living(&self) -> Result<Option<ProcessStat>> {
        let Some(stat) = self.init_stat()?.filter(|stat| !stat.has_ended()) else { return Ok(None) };
        let lives = !stat.is_exiting(self.state.init_process_pid)? || self.others_live()?;
        Ok(lives.then_some(stat))
    }

    /// Whether the init process is alive; see [`Self::living`].
    pub(super) fn is_alive(&self) -> Result<bool> {
        Ok(self.living()?.is_some())
    }

    /// Whether any process of the container other than the exiting init process is alive.
    fn others_live(&self) -> Result<bool> {
        if self.state.recorded_cgroup().is_some() {
            return Ok(self.state.cgroup().is_some_and(cgroup::is_populated));
        }
        if !self.state.private_pid_namespace {
            return Ok(true);
        }
        for pid in self.in_pid_namespace()? {
            let is_init = pid == self.state.init_process_pid;
            if !is_init && process_stat(pid)?.is_some_and(|stat| !stat.has_ended()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The pids of all processes in the init process's pid namespace, zombies included.
    pub fn in_pid_namespace(&self) -> Result<Vec<i32>> {
        let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = namespace(self.state.init_process_pid);
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").context("read /proc")? {
            let name = entry.context("read /proc")?.file_name();
            let number = name.to_str().and_then(|name| name.parse().ok());
            found.extend(number.filter(|pid| own.is_some() && namespace(*pid) == own));
        }
        Ok(found)
    }

    /// Whether the init process has been killed, is exiting or has exited.
    fn is_dying(&self) -> Result<bool> {
        self.init_stat()?.map_or(Ok(true), |stat| stat.is_dying(self.state.init_process_pid))
    }

    /// Returns the status. If the init process is dying, first waits up to `patience` for its exit.
    pub fn settled_status(&self, patience: Duration) -> Result<Status> {
        let deadline = Instant::now() + patience;
        loop {
            let status = self.status()?;
            // Checked twice because /proc/PID/stat is not a snapshot: a pending SIGKILL may be dequeued
            // between its fields.
            let is_over = status == Status::Stopped || Instant::now() >= deadline;
            if is_over || !(self.is_dying()? || self.is_dying()?) {
                return Ok(status);
            }
            if let Some(init) = self.init()? {
                wait_for_end(init.as_fd(), BETWEEN_LOOKS)?;
            }
        }
    }

    /// Waits up to `patience` for `init`, the init process, to exit. Returns `false` on timeout.
    pub fn wait_for_end(&self, init: BorrowedFd<'_>, patience: Duration) -> Result<bool> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if wait_for_end(init, left.min(BETWEEN_LOOKS))? || !self.is_alive()? {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }
}

/// Waits up to `at_most` for the process to exit. Returns `false` on timeout.
fn wait_for_end(process: BorrowedFd<'_>, at_most: Duration) -> Result<bool> {
    let context = "wait for the init process";
    let timeout = Timespec::try_from(at_most).context(context)?;
    let mut waiting = [PollFd::from_borrowed_fd(process, PollFlags::IN)];
    let ended = rustix::io::retry_on_intr(|| poll(&mut waiting, Some(&timeout))).context(context)?;
    Ok(ended > 0)
}
