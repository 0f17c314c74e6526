//! The parent while its container runs in the foreground: one loop that waits for signals, the terminal,
//! `sd_notify` messages and cgroup events.
//!
//! Every signal is forwarded to the init process, except SIGCHLD, and SIGWINCH when there is a terminal. That
//! includes stop signals: without a container terminal, Ctrl-Z reaches the init process, which ignores it as
//! any process 1 without a handler does, and does not stop the runtime; runc and crun do the same. With a
//! terminal, Ctrl-C, Ctrl-Z and Ctrl-\ are bytes that raise signals inside the container.

use std::os::fd::BorrowedFd;

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{WaitOptions, WaitStatus};

use crate::cgroup::OomMonitor;
use crate::host::notify::NotifySocket;
use crate::host::signals::{Signal, SignalQueue, Signals};
use crate::host::terminal::{Side, Terminal};
use crate::sys::Errno;

/// Maximum number of reads from the terminal after the init process has ended, up to 4 KiB each. That is far
/// more than the kernel buffers, but bounded, so that a process which outlives init and keeps writing cannot
/// keep the runtime.
const LAST_READS: usize = 256;

/// How the init process ended.
#[derive(Clone, Copy, Debug)]
pub struct End(WaitStatus);

impl End {
    /// The exit status as shells report it: the exit code, or 128+N if signal N killed the process. Both are
    /// below 256: exit codes have 8 bits, and there are 64 signals.
    pub fn exit_status(self) -> u8 {
        let number = self.0.exit_status().or_else(|| self.0.terminating_signal().map(|signal| 128 + signal));
        number.and_then(|number| u8::try_from(number).ok()).unwrap_or(u8::MAX)
    }

    /// Whether SIGKILL ended it; the sender may have been the OOM killer.
    pub fn is_killed(self) -> bool {
        self.0.terminating_signal() == Some(libc::SIGKILL)
    }
}

/// Waits until the init process, a child of this process, has ended.
///
/// Reaps every other child, too. With a terminal, all output has been written and the user's terminal is
/// restored when this returns, even on error. `oom` reads the cgroup's counters before the cgroup is removed.
pub fn supervise(
    pid: i32,
    pidfd: BorrowedFd<'_>,
    signals: &Signals,
    terminal: Option<Terminal>,
    notify: Option<NotifySocket>,
    oom: Option<&mut OomMonitor>,
) -> Result<End> {
    let mut foreground = Foreground { pid, pidfd, terminal, notify, oom };
    if foreground.terminal.is_none() && foreground.notify.is_none() && foreground.oom.is_none() {
        // The shortest path: two system calls between the init process's end and its status.
        loop {
            if let Some(end) = foreground.answer(signals.wait()?)? {
                return Ok(end);
            }
        }
    }
    let queue = signals.queue()?;
    loop {
        if let Some(terminal) = &mut foreground.terminal {
            terminal.look_for_foreground();
        }
        for source in foreground.wait(&queue)? {
            match source {
                Source::Signals => {
                    while let Some(signal) = queue.take()? {
                        if let Some(end) = foreground.answer(signal)? {
                            foreground.write_last_output(&queue)?;
                            return Ok(end);
                        }
                    }
                }
                Source::Terminal(side) => foreground.relay(side),
                Source::Notify => foreground.forward_notification(),
                Source::Cgroup => foreground.look(),
            }
        }
    }
}

/// What the loop waits for.
#[derive(Clone, Copy, Debug)]
enum Source {
    Signals,
    Terminal(Side),
    Notify,
    /// The cgroup's OOM counters or its populated state may have changed.
    Cgroup,
}

struct Foreground<'a> {
    pid: i32,
    pidfd: BorrowedFd<'a>,
    terminal: Option<Terminal>,
    notify: Option<NotifySocket>,
    oom: Option<&'a mut OomMonitor>,
}

impl Foreground<'_> {
    fn wait(&self, queue: &SignalQueue) -> Result<Vec<Source>> {
        let notify = self.notify.as_ref();
        let notify =
            notify.map(|notify| (Source::Notify, PollFd::from_borrowed_fd(notify.as_fd(), PollFlags::IN)));
        let terminal = self.terminal.iter().flat_map(Terminal::polled);
        // First, because the cgroup may be gone in a moment.
        let cgroup = self.oom.iter().flat_map(|oom| oom.fds());
        let cgroup = cgroup.map(|fd| (Source::Cgroup, PollFd::from_borrowed_fd(fd, PollFlags::PRI)));
        let signals = (Source::Signals, PollFd::from_borrowed_fd(queue.as_fd(), PollFlags::IN));
        let (sources, mut polled): (Vec<_>, Vec<_>) = cgroup
            .chain(terminal.map(|(side, fd)| (Source::Terminal(side), fd)))
            .chain(notify)
            .chain([signals])
            .unzip();
        wait_for(&mut polled, self.terminal.as_ref().and_then(Terminal::patience))?;
        let ready = sources.into_iter().zip(polled).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|(source, _)| source).collect())
    }

    /// Handles `signal`; returns how the init process ended if it has.
    fn answer(&mut self, signal: Signal) -> Result<Option<End>> {
        match (signal, &mut self.terminal) {
            (Signal::CHLD, _) => {
                let end = reap(self.pid)?;
                if end.is_some() {
                    self.look();
                }
                return Ok(end);
            }
            (Signal::WINCH, Some(terminal)) => terminal.resize(),
            (Signal::CONT, Some(terminal)) => {
                terminal.resume();
                self.forward(signal);
            }
            _ => self.forward(signal),
        }
        Ok(None)
    }

    fn look(&mut self) {
        if let Some(oom) = &mut self.oom {
            oom.look();
        }
    }

    fn forward(&self, signal: Signal) {
        // The init process may just have ended, or we may not signal it because it runs as another user
        // without a user namespace of its own. The sender cannot be told.
        let _ = signal.send(self.pidfd);
    }

    fn relay(&mut self, side: Side) {
        if let Some(terminal) = &mut self.terminal {
            if terminal.advance(side).is_err() {
                // As when a terminal window is closed: the programs inside get SIGHUP.
                self.terminal = None;
            }
        }
    }

    fn forward_notification(&mut self) {
        // This process stays and passes on the exit status, so it is the one for the service manager to
        // watch. If the manager is gone, that is no reason to end the container.
        let main_pid = rustix::process::getpid().as_raw_pid();
        if self.notify.as_ref().is_some_and(|notify| notify.forward(main_pid).is_err()) {
            self.notify = None;
        }
    }

    /// Writes what is left in the container's terminal. Waits for a slow reader until a signal asks us to
    /// end.
    fn write_last_output(&mut self, queue: &SignalQueue) -> Result<()> {
        let Some(terminal) = &mut self.terminal else { return Ok(()) };
        for _ in 0..LAST_READS {
            while terminal.has_output() {
                if !output_is_ready(terminal, queue)? || terminal.advance(Side::Output).is_err() {
                    return Ok(());
                }
            }
            if !terminal.pull() {
                break;
            }
        }
        Ok(())
    }
}

/// Waits until output can be written; returns false if a signal asks us to end first.
fn output_is_ready(terminal: &Terminal, queue: &SignalQueue) -> Result<bool> {
    loop {
        let output = terminal.polled().filter_map(|(side, fd)| (side == Side::Output).then_some(fd));
        let signals = PollFd::from_borrowed_fd(queue.as_fd(), PollFlags::IN);
        let mut polled: Vec<_> = [signals].into_iter().chain(output).collect();
        wait_for(&mut polled, None)?;
        if polled.iter().skip(1).any(|output| !output.revents().is_empty()) {
            return Ok(true);
        }
        while let Some(signal) = queue.take()? {
            if matches!(signal, Signal::HUP | Signal::INT | Signal::QUIT | Signal::TERM) {
                return Ok(false);
            }
        }
    }
}

fn wait_for(polled: &mut [PollFd<'_>], at_most: Option<&Timespec>) -> Result<()> {
    rustix::io::retry_on_intr(|| rustix::event::poll(polled, at_most))
        .map(drop)
        .context("wait for the container")
}

/// Reaps all children that have ended: several SIGCHLDs may have been merged into one.
fn reap(init: i32) -> Result<Option<End>> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            // Any others are left to our caller or to the next subreaper.
            Ok(Some((pid, status))) if pid.as_raw_pid() == init => return Ok(Some(End(status))),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(None),
            Err(errno) => return Err(errno).context("wait for the init process"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::process::{Pid, waitpid};

    use super::*;

    fn end_of(script: &str) -> End {
        let mut shell = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let (_, status) = waitpid(Some(Pid::from_child(&shell)), WaitOptions::empty()).unwrap().unwrap();
        // Always fails: already reaped above.
        let _ = shell.wait();
        End(status)
    }

    #[test]
    fn a_code_is_handed_on_and_a_signal_added_to_128() {
        let status_of = |script| end_of(script).exit_status();
        assert_eq!(status_of("exit 0"), 0);
        assert_eq!(status_of("exit 7"), 7);
        assert_eq!(status_of("exit 255"), 255);
        assert_eq!(status_of("kill -TERM $$"), 143);
        assert_eq!(status_of("kill -KILL $$"), 137);
    }

    #[test]
    fn a_code_of_137_is_no_kill() {
        assert!(end_of("kill -KILL $$").is_killed());
        assert!(!end_of("exit 137").is_killed());
        assert!(!end_of("kill -TERM $$").is_killed());
    }
}
