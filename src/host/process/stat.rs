//! What `/proc/PID/stat` says about a process, and whether it is alive; proc_pid_stat(5).
//!
//! The state in that file is the main thread's, which can be a zombie while other threads run: after
//! pthread_exit(3), or for a moment whenever another thread calls execve(2), which kills all others and then
//! takes the main thread's place. So state Z alone does not mean that the process has exited.

use anyhow::{Context as _, Result};
use rustix::fs::{Dir, Mode, OFlags, open};

use crate::sys::Errno;

/// Task flags; linux/sched.h.
const PF_EXITING: u64 = 0x4;
const PF_FORKNOEXEC: u64 = 0x40;
const PF_SIGNALED: u64 = 0x400;

/// What /proc says about the main thread of a process, or about another thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStat {
    /// The thread has exited: state Z or X.
    is_zombie: bool,
    /// The number of threads of the process. An exited main thread counts until it has been reaped; then the
    /// number is 0.
    threads: u64,
    /// The start time of the process in clock ticks since boot.
    pub start: u64,
    /// The process was forked and has never called execve(2): PF_FORKNOEXEC.
    pub never_executed: bool,
    /// The thread is exiting: PF_EXITING.
    is_exiting: bool,
    /// SIGKILL is pending, a fatal signal has been dequeued (PF_SIGNALED), or the thread is exiting.
    is_dying: bool,
    /// It has had no page faults, so it has not run outside the kernel, or only for an instant.
    has_not_run: bool,
}

impl ProcessStat {
    /// For a process cloned just now: whether it was killed before it could run.
    pub fn was_killed_at_birth(&self) -> bool {
        self.is_dying && self.never_executed && self.has_not_run
    }

    /// Whether it seems to be alive and has not run yet.
    fn may_be_newborn(&self) -> bool {
        !self.is_dying && self.never_executed && self.has_not_run
    }

    /// Whether the process has exited: only its main thread is left, as a zombie. This is when its pidfd
    /// becomes readable.
    pub fn has_ended(&self) -> bool {
        self.is_zombie && self.threads <= 1
    }

    /// Whether the main thread was released while the kernel was writing this file (it writes the state
    /// before the number of threads): its parent has reaped it, or another thread has taken its place in
    /// execve(2).
    fn is_outdated(&self) -> bool {
        self.is_zombie && self.threads == 0
    }

    /// Whether `is_so` holds for every thread of process `pid`, whose main thread this is.
    fn every_thread(&self, pid: i32, is_so: impl Fn(&Self) -> bool) -> Result<bool> {
        if !is_so(self) || self.threads <= 1 {
            return Ok(is_so(self));
        }
        let directory = format!("/proc/{pid}/task");
        let context = || format!("read {directory}");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let threads = match open(&directory, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::SRCH) => return Ok(true),
            threads => Dir::new(threads.with_context(context)?).with_context(context)?,
        };
        for thread in threads {
            let name = thread.with_context(context)?.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.')
                && read_stat(&format!("{directory}/{name}/stat"))?.is_some_and(|thread| !is_so(&thread))
            {
                return Ok(false);
            }
        }
        // After execve(2) in another thread, a thread that has disappeared may be the main thread now.
        Ok(process_stat(pid)?.is_none_or(|main| is_so(&main)))
    }

    /// Whether process `pid`, whose main thread this is, is about to exit: every thread has been killed or is
    /// exiting.
    pub fn is_dying(&self, pid: i32) -> Result<bool> {
        self.every_thread(pid, |thread| thread.is_dying)
    }

    /// Whether every thread of process `pid`, whose main thread this is, is exiting, so that it runs no code
    /// of its program any more.
    pub fn is_exiting(&self, pid: i32) -> Result<bool> {
        self.every_thread(pid, |thread| thread.is_exiting)
    }

    /// Whether the main thread (this one) of process `pid` has exited while other threads continue.
    pub fn outlives_main_thread(&self, pid: i32) -> Result<bool> {
        Ok(self.is_zombie && self.threads > 1 && !self.is_dying(pid)?)
    }
}

/// The result of looking at a process cloned just now.
#[derive(Clone, Copy, Debug)]
pub struct Birth {
    /// The start time in clock ticks since boot; 0 if the process no longer exists.
    pub start: u64,
    /// Whether the kernel killed it at once.
    pub was_killed: bool,
}

/// Looks at process `pid`, which was cloned just now.
pub fn birth(pid: i32) -> Result<Birth> {
    let mut stat = process_stat(pid)?;
    // The kernel writes the flags before the pending signals. If the process dequeues SIGKILL in between,
    // neither shows it; a second read finds it in the flags.
    if stat.is_some_and(|stat| stat.may_be_newborn()) {
        stat = process_stat(pid)?;
    }
    Ok(Birth {
        start: stat.map_or(0, |stat| stat.start),
        was_killed: stat.is_some_and(|stat| stat.was_killed_at_birth()),
    })
}

/// How often to retry after [`ProcessStat::is_outdated`]. Once is enough, except in repeated races.
const ATTEMPTS: u32 = 8;

/// Reads `/proc/PID/stat`; `None` if there is no such process.
pub fn process_stat(pid: i32) -> Result<Option<ProcessStat>> {
    let path = format!("/proc/{pid}/stat");
    let mut stat = read_stat(&path)?;
    for _ in 1..ATTEMPTS {
        if !stat.is_some_and(|stat| stat.is_outdated()) {
            break;
        }
        stat = read_stat(&path)?;
    }
    Ok(stat)
}

/// Longer than the file, a single line with a name of at most 64 bytes and 52 numbers.
const STAT: usize = 2048;

fn read_stat(path: &str) -> Result<Option<ProcessStat>> {
    let mut buffer = [0; STAT];
    let read = |buffer: &mut [u8; STAT]| {
        let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut buffer[..]))
    };
    match read(&mut buffer) {
        Ok(length) => {
            let text = buffer.get(..length).unwrap_or_default();
            parse_stat(text).map(Some).with_context(|| format!("parse {path}"))
        }
        Err(Errno::NOENT | Errno::SRCH) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("read {path}")),
    }
}

/// Parses the file. The name in parentheses may contain anything, so fields are counted from the last
/// parenthesis.
pub fn parse_stat(text: &[u8]) -> Option<ProcessStat> {
    let end = text.iter().rposition(|&byte| byte == b')')?;
    let mut fields = text.get(end + 1..)?.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    let state = fields.next()?;
    let number = |field: Option<&[u8]>| std::str::from_utf8(field?).ok()?.parse::<u64>().ok();
    // Fields: 3 state, 9 flags, 10 minor faults, 20 number of threads, 22 start time, 31 pending signals.
    let flags = number(fields.nth(5))?;
    let faults = number(fields.next())?;
    let threads = number(fields.nth(9))?;
    let start = number(fields.nth(1))?;
    let pending = number(fields.nth(8)).unwrap_or(0);
    let is_zombie = matches!(state, b"Z" | b"X" | b"x");
    let is_exiting = is_zombie || flags & PF_EXITING != 0;
    let is_killed = flags & PF_SIGNALED != 0 || pending & 1 << (libc::SIGKILL - 1) != 0;
    Some(ProcessStat {
        is_zombie,
        threads,
        start,
        never_executed: flags & PF_FORKNOEXEC != 0,
        is_exiting,
        is_dying: is_exiting || is_killed,
        has_not_run: faults == 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(state: char, flags: u64, threads: u64, after: &str) -> ProcessStat {
        let text = format!(
            "7 (a) Z 1 (b)) {state} 1 7 7 0 -1 {flags} 1 0 0 0 0 0 0 0 20 0 {threads} 0 12345 0 0 {after}"
        );
        parse_stat(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_process_may_have_any_name() {
        let expected = ProcessStat {
            is_zombie: false,
            threads: 3,
            start: 12_345,
            never_executed: false,
            is_exiting: false,
            is_dying: false,
            has_not_run: false,
        };
        assert_eq!(parsed('S', 4_194_560, 3, "18446744073709551615"), expected);
        assert_eq!(parse_stat(b"7 (a) Z"), None);
    }

    #[test]
    fn a_process_that_was_killed_before_its_program_began_is_recognised() {
        let stat = parsed('Z', 4_194_372, 1, "");
        assert!(stat.has_ended() && stat.never_executed && stat.is_dying && !stat.has_not_run, "{stat:?}");
    }

    #[test]
    fn a_process_that_was_killed_at_birth_is_recognised() {
        let text = b"7 (a) R 1 7 7 0 -1 4194368 0 0 0 0 0 0 0 0 20 0 1 0 12345 9 9 18446744073709551615 1 1 1 0 0 256 0 0 0";
        let stat = parse_stat(text).unwrap();
        assert!(stat.was_killed_at_birth() && !stat.has_ended(), "{stat:?}");
    }

    #[test]
    fn a_process_has_ended_with_its_last_thread() {
        assert!(!parsed('S', 0, 1, "").has_ended());
        assert!(!parsed('Z', PF_EXITING, 2, "").has_ended());
        assert!(parsed('Z', PF_EXITING, 1, "").has_ended());
        // Another thread may have become the main thread.
        assert!(parsed('X', PF_EXITING, 0, "").is_outdated() && parsed('Z', PF_EXITING, 0, "").is_outdated());
        assert!(!parsed('X', PF_EXITING, 1, "").is_outdated());
    }

    #[test]
    fn a_process_is_dying_from_the_moment_of_the_signal_on() {
        let is_dying = |stat: ProcessStat| stat.is_dying(7).unwrap();
        let killed = "18446744073709551615 1 1 1 0 0 256 0 0 0";
        assert!(is_dying(parsed('S', 0, 1, killed)) && !parsed('S', 0, 1, killed).is_exiting(7).unwrap());
        // The signal has been dequeued, but do_exit() has not been reached.
        assert!(is_dying(parsed('R', PF_SIGNALED, 1, "")));
        assert!(
            is_dying(parsed('S', PF_EXITING, 1, "")) && parsed('S', PF_EXITING, 1, "").is_exiting(7).unwrap()
        );
        assert!(!is_dying(parsed('S', 0, 1, "")));
    }

    #[test]
    fn of_a_process_of_several_threads_each_counts() {
        let own = i32::try_from(std::process::id()).unwrap();
        // As if the main thread of this process had exited.
        let stat = parsed('Z', PF_EXITING, 2, "");
        assert!(!stat.is_dying(own).unwrap() && !stat.is_exiting(own).unwrap());
        assert!(stat.outlives_main_thread(own).unwrap());
        assert!(stat.is_dying(i32::MAX).unwrap());
    }
}
