//! Runs a hook. Used by the init process, and by the parent, so that hooks in both places follow the same
//! rules.
//!
//! The hook runs in a session of its own with descriptors 0 to 2 only. It may read the state from its
//! standard input, a pipe. Its output is read while it runs, and the last part of it is kept. A background
//! process that the hook leaves behind is not waited for, even if it keeps the pipe open or continues to
//! write to it.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::step::{Ended, Failure, Filter, Hook, Outputs, Part, RunHook, Within};
use super::{Init, reason, take_no_signals};
use crate::init::protocol::{SAID_MOST, send_said};
use crate::sys::process::Cloned;
use crate::sys::{process, seccomp};

/// The umask of hooks outside of the container.
const USUAL_MASK: Mode = Mode::WGRP.union(Mode::WOTH);

/// How many more times to read output after the hook has exited, up to a page each: enough for a full pipe,
/// but bounded, in case a process left behind keeps writing.
const LAST_READS: usize = 16;

/// The environment in which a hook runs.
#[derive(Debug)]
pub struct Around<'a> {
    /// Its standard input, in parts that are concatenated.
    pub state: [&'a [u8]; 3],
    pub outputs: &'a Outputs,
    /// Its working directory; `None`: that of the calling process.
    pub directory: Option<BorrowedFd<'a>>,
    /// Its umask; `None`: that of the calling process.
    pub mask: Option<Mode>,
    /// One more environment variable, if the hook's `envp` has room for it.
    pub variable: Option<&'a CStr>,
    pub filter: Option<&'a Filter>,
    /// The hook is killed when poll(2) reports one of these events, or POLLHUP, on this descriptor.
    pub interrupt: Option<(BorrowedFd<'a>, PollFlags)>,
}

/// The last output of a hook.
#[derive(Debug)]
pub struct HookOutput {
    bytes: [u8; 2 * SAID_MOST],
    length: usize,
}

impl HookOutput {
    pub const fn nothing() -> Self {
        Self { bytes: [0; 2 * SAID_MOST], length: 0 }
    }

    /// The last output, at most [`SAID_MOST`] bytes.
    pub fn last(&self) -> &[u8] {
        self.bytes.get(self.length.saturating_sub(SAID_MOST)..self.length).unwrap_or_default()
    }

    /// Reads once and returns the number of bytes, 0 at end of file.
    fn read(&mut self, from: BorrowedFd<'_>) -> Result<usize, Errno> {
        if self.length == self.bytes.len() {
            self.bytes.copy_within(SAID_MOST.., 0);
            self.length = SAID_MOST;
        }
        let room = self.bytes.get_mut(self.length..).unwrap_or_default();
        let count = rustix::io::read(from, room)?;
        self.length = self.length.saturating_add(count);
        Ok(count)
    }
}

/// Runs `hook` to its end and stores its last output in `said`, unless the output is redirected. SIGPIPE must
/// be ignored or blocked.
///
/// # Errors
/// If the hook could not be started: `ENOENT`, `EACCES` and other errors of execve(2), or of the
/// preparations.
pub fn run(hook: &Hook, around: &Around<'_>, said: &mut HookOutput) -> Result<Ended, Errno> {
    let (stdin, state) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (output, stdout) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (refusal, refused) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    // Does not affect the hook: the two ends of a pipe have separate status flags.
    rustix::fs::fcntl_setfl(&state, OFlags::NONBLOCK)?;
    rustix::fs::fcntl_setfl(&output, OFlags::NONBLOCK)?;
    let timer = hook.timeout.map(timer).transpose()?;
    let (pid, pidfd) = match process::fork()? {
        Cloned::Child => {
            let errno = become_hook(hook, around, &stdin, &stdout);
            let _ = rustix::io::write(&refused, &errno.raw_os_error().to_ne_bytes());
            process::exit_now(1)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop((stdin, stdout, refused));
    let mut watch = Watch { pidfd: pidfd.as_fd(), timer, state: Some(state), sent: 0, output: Some(output) };
    let watched = watch.until_it_ends(around, said);
    if watched != Ok(None) {
        // Kills everything the hook has started, except what has left its process group. The group ID cannot
        // be reused before the hook has been reaped.
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
        let _ = crate::sys::signal::send(pidfd.as_fd(), libc::SIGKILL);
    }
    let status = wait(pidfd.as_fd())?;
    let early = watched?;
    watch.drain(said);
    let mut errno = [0; size_of::<i32>()];
    if early.is_none() && rustix::io::read(&refusal, &mut errno) == Ok(errno.len()) {
        return Err(Errno::from_raw_os_error(i32::from_ne_bytes(errno)));
    }
    Ok(early.unwrap_or(status))
}

fn timer(seconds: i64) -> Result<OwnedFd, Errno> {
    let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let value = Itimerspec { it_interval: zero, it_value: Timespec { tv_sec: seconds, ..zero } };
    rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &value)?;
    Ok(timer)
}

/// Executes the hook in the forked child; returns only on failure.
fn become_hook(hook: &Hook, around: &Around<'_>, stdin: &OwnedFd, stdout: &OwnedFd) -> Errno {
    let prepare = || {
        // So that the hook's process group can be killed as a whole, and Ctrl-C reaches only the calling
        // process, which then kills the hook.
        rustix::process::setsid()?;
        // A hook must not outlive the process that runs it.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        take_no_signals();
        if let Some(mask) = around.mask {
            rustix::process::umask(mask);
        }
        if let Some(directory) = around.directory {
            rustix::process::fchdir(directory)?;
        }
        rustix::stdio::dup2_stdin(stdin)?;
        rustix::stdio::dup2_stdout(around.outputs.stdout.as_ref().unwrap_or(stdout))?;
        rustix::stdio::dup2_stderr(around.outputs.stderr.as_ref().unwrap_or(stdout))?;
        process::close_on_exec_from(3)?;
        around.filter.map_or(Ok(()), |filter| seccomp::load(&filter.program, filter.flags))
    };
    match prepare() {
        Ok(()) => process::execve(&hook.path, &hook.argv, &hook.envp, around.variable),
        Err(errno) => errno,
    }
}

/// A running hook.
struct Watch<'a> {
    pidfd: BorrowedFd<'a>,
    timer: Option<OwnedFd>,
    /// The pipe to its standard input; `None` once everything has been written.
    state: Option<OwnedFd>,
    sent: usize,
    /// The pipe from its output; `None` after end of file.
    output: Option<OwnedFd>,
}

impl Watch<'_> {
    /// Waits until the hook has exited (`None`), or must be killed (the reason).
    fn until_it_ends(&mut self, around: &Around<'_>, said: &mut HookOutput) -> Result<Option<Ended>, Errno> {
        loop {
            let [ended, interrupted, late, writable, readable] = self.poll(around.interrupt)?;
            if writable {
                self.write(around.state);
            }
            if let Some(output) = self.output.as_ref().filter(|_| readable) {
                match said.read(output.as_fd()) {
                    Ok(0) => self.output = None,
                    Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(errno) => return Err(errno),
                }
            }
            if ended {
                return Ok(None);
            }
            if interrupted {
                return Ok(Some(Ended::Interrupted));
            }
            if late {
                return Ok(Some(Ended::TimedOut));
            }
        }
    }

    /// Which of process, interrupt, timer, state and output are ready.
    fn poll(&self, interrupt: Option<(BorrowedFd<'_>, PollFlags)>) -> Result<[bool; 5], Errno> {
        let timer = self.timer.as_ref().map(|timer| timer.as_fd());
        let state = self.state.as_ref().map(|state| state.as_fd());
        let output = self.output.as_ref().map(|output| output.as_fd());
        let sources = [
            (Some(self.pidfd), PollFlags::IN),
            (interrupt.map(|(source, _)| source), interrupt.map_or(PollFlags::IN, |(_, events)| events)),
            (timer, PollFlags::IN),
            (state, PollFlags::OUT),
            (output, PollFlags::IN),
        ];
        // poll(2) needs a descriptor for each slot: use the pidfd, with no events, for missing ones.
        let mut polled = sources.map(|(source, events)| match source {
            Some(source) => PollFd::from_borrowed_fd(source, events),
            None => PollFd::from_borrowed_fd(self.pidfd, PollFlags::empty()),
        });
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, None))?;
        let mut ready = polled.map(|fd| !fd.revents().is_empty());
        for (ready, (source, _)) in ready.iter_mut().zip(sources) {
            *ready &= source.is_some();
        }
        Ok(ready)
    }

    /// Writes as much as the pipe takes. It is no error if the hook does not read it.
    fn write(&mut self, parts: [&[u8]; 3]) {
        let Some(pipe) = &self.state else { return };
        match rustix::io::write(pipe, rest(parts, self.sent)) {
            Ok(count) => self.sent = self.sent.saturating_add(count),
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => self.state = None,
        }
        if rest(parts, self.sent).is_empty() {
            self.state = None;
        }
    }

    fn drain(&mut self, said: &mut HookOutput) {
        let Some(output) = &self.output else { return };
        for _ in 0..LAST_READS {
            if !matches!(said.read(output.as_fd()), Ok(1..)) {
                return;
            }
        }
    }
}

/// The part that follows the first `sent` bytes of all `parts`, up to the end of that part.
fn rest(parts: [&[u8]; 3], mut sent: usize) -> &[u8] {
    for part in parts {
        match part.get(sent..) {
            Some(rest) if !rest.is_empty() => return rest,
            _ => sent = sent.saturating_sub(part.len()),
        }
    }
    &[]
}

fn wait(pidfd: BorrowedFd<'_>) -> Result<Ended, Errno> {
    let wait = || rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED);
    let status = rustix::io::retry_on_intr(wait)?;
    let signal = status.as_ref().and_then(WaitIdStatus::terminating_signal);
    let code = status.as_ref().and_then(WaitIdStatus::exit_status);
    let number = |number: Option<i32>| number.and_then(|number| u8::try_from(number).ok());
    Ok(match number(signal) {
        Some(signal) => Ended::Killed(signal),
        None => Ended::Exited(number(code).unwrap_or(u8::MAX)),
    })
}

impl Init<'_> {
    #[inline(never)]
    pub(super) fn run_hook(&self, what: &RunHook) -> Result<(), Failure> {
        let mut digits = [0; 10];
        let pid = decimal(rustix::process::getpid().as_raw_pid().unsigned_abs(), &mut digits);
        let (directory, mask, interrupt) = match what.within {
            // A container that is still being created is unknown to anyone else, so the hook must end with
            // the runtime.
            Within::Rootfs => (Some(self.root()?), Some(USUAL_MASK), Some((self.parent, PollFlags::empty()))),
            // The runtime may have exited after `create`.
            Within::Container => (None, None, None),
        };
        let around = Around {
            state: [&what.state, pid, b"}"],
            outputs: &what.outputs,
            directory,
            mask,
            variable: self.home.variable(),
            filter: what.filter.as_ref(),
            interrupt,
        };
        let mut said = HookOutput::nothing();
        // Writing to a hook that does not read must not kill the init process.
        let _ = process::ignore_signal(libc::SIGPIPE);
        let ended = run(&what.hook, &around, &mut said);
        let _ = process::default_signal(libc::SIGPIPE);
        // Reap orphans that the hook has left to process 1, so that the container's program does not inherit
        // them.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        while matches!(rustix::process::waitid(WaitId::All, options), Ok(Some(_))) {}

        let failure = match ended {
            Ok(Ended::Exited(0)) => return Ok(()),
            Ok(ended) => Failure { errno: Errno::CANCELED, part: Part::Hook(ended) },
            Err(errno) => errno.into(),
        };
        // After `start`, nobody reads the socket, so report to the user directly.
        if send_said(self.parent, said.last()).is_err() {
            self.complain_of_hook(what, ended, said.last());
        }
        Err(failure)
    }

    /// Reports the failure in the same words as `hooks::reason`, followed by the hook's last output.
    fn complain_of_hook(&self, what: &RunHook, ended: Result<Ended, Errno>, said: &[u8]) {
        let mut digits = [0; 10];
        let (what_happened, number): (&[u8], &[u8]) = match ended {
            Ok(Ended::Exited(status)) => (b"exit status ", decimal(status.into(), &mut digits)),
            Ok(Ended::Killed(signal)) => (b"killed by signal ", decimal(signal.into(), &mut digits)),
            Ok(Ended::TimedOut) => (b"timed out and was killed", b""),
            Ok(Ended::Interrupted) => (b"killed because the runtime exited", b""),
            Err(errno) => (b"exec: ", reason(errno)),
        };
        let line = [what.complaint.to_bytes(), b": ", what_happened, number];
        self.complain(&line, said.trim_ascii_end());
    }
}

/// `number` in decimal.
fn decimal(number: u32, digits: &mut [u8; 10]) -> &[u8] {
    let mut rest = number;
    let mut length = 0_usize;
    for place in digits.iter_mut().rev() {
        if rest == 0 && length > 0 {
            break;
        }
        *place = b'0' | u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        length = length.saturating_add(1);
    }
    digits.get(digits.len().saturating_sub(length)..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_written_in_decimal() {
        let numbers = [(0, "0"), (7, "7"), (10, "10"), (4_194_304, "4194304"), (u32::MAX, "4294967295")];
        for (number, digits) in numbers {
            assert_eq!(decimal(number, &mut [0; 10]), digits.as_bytes());
        }
    }

    #[test]
    fn the_parts_follow_each_other() {
        let parts: [&[u8]; 3] = [b"ab", b"", b"c"];
        let all = [b"ab".as_slice(), b"b", b"c", b"", b""];
        for (sent, expected) in all.into_iter().enumerate() {
            assert_eq!(rest(parts, sent), expected, "{sent}");
        }
    }
}
