//! Signals: their names, and receiving them synchronously; signal(7).

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::str::FromStr;
use std::{error, fmt};

use anyhow::{Context as _, Result};
use nix::sys::signal::SigSet;

use crate::sys;
use crate::sys::Errno;

/// The names of signals 1 to 31, without "SIG", as numbered on x86 and ARM.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Aliases, each with the usual name.
const ALIASES: [(&str, &str); 4] = [("IOT", "ABRT"), ("CLD", "CHLD"), ("POLL", "IO"), ("UNUSED", "SYS")];

/// The first and the last real-time signal as glibc counts them, and so the stop signals of images
/// (`SIGRTMIN+3` is 37); the kernel's own first is 32.
const RT_MIN: i32 = 34;
const RT_MAX: i32 = 64;

/// A signal, 1 to 64, or 0, which only checks whether a process exists; kill(2).
///
/// Written as a number or as a name in any case, with or without "SIG": `9`, `kill`, `SIGKILL`, `RTMIN+3`,
/// `SIGRTMAX-1`. 0 is accepted, as in runc. Other numbers outside 1 to 64 are refused here, while runc leaves
/// them to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(i32);

impl Signal {
    pub const HUP: Self = Self(libc::SIGHUP);
    pub const INT: Self = Self(libc::SIGINT);
    pub const QUIT: Self = Self(libc::SIGQUIT);
    pub const KILL: Self = Self(libc::SIGKILL);
    pub const TERM: Self = Self(libc::SIGTERM);
    pub const CHLD: Self = Self(libc::SIGCHLD);
    pub const CONT: Self = Self(libc::SIGCONT);
    pub const TSTP: Self = Self(libc::SIGTSTP);
    pub const WINCH: Self = Self(libc::SIGWINCH);

    /// The kernel's number, 0 to 64.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// Sends this signal to the process of `pidfd`.
    ///
    /// # Errors
    /// `ESRCH` if the process has exited and been reaped; `EPERM`.
    pub fn send(self, pidfd: BorrowedFd<'_>) -> Result<(), Errno> {
        sys::signal::send(pidfd, self.0)
    }

    pub fn from_number(number: i32) -> Option<Self> {
        (0..=RT_MAX).contains(&number).then_some(Self(number))
    }

    fn from_name(name: &str) -> Option<Self> {
        if let Some(offset) = name.strip_prefix("RTMIN") {
            return Self::real_time(RT_MIN.checked_add(offset_of(offset, '+')?)?);
        }
        if let Some(offset) = name.strip_prefix("RTMAX") {
            return Self::real_time(RT_MAX.checked_sub(offset_of(offset, '-')?)?);
        }
        let first = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, first)| first);
        (1..).zip(NAMES).find(|(_, known)| *known == first).map(|(number, _)| Self(number))
    }

    fn real_time(number: i32) -> Option<Self> {
        (RT_MIN..=RT_MAX).contains(&number).then_some(Self(number))
    }
}

/// Parses the offset after `sign`; 0 if `text` is empty.
fn offset_of(text: &str, sign: char) -> Option<i32> {
    match text.strip_prefix(sign) {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
        None if text.is_empty() => Some(0),
        _ => None,
    }
}

impl FromStr for Signal {
    type Err = UnknownSignal;

    fn from_str(text: &str) -> Result<Self, UnknownSignal> {
        let signal = match text.parse() {
            Ok(number) => Self::from_number(number),
            Err(_) => {
                let name = text.to_ascii_uppercase();
                Self::from_name(name.strip_prefix("SIG").unwrap_or(&name))
            }
        };
        signal.ok_or_else(|| UnknownSignal(text.to_owned()))
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((_, name)) = (1..).zip(NAMES).find(|(number, _)| *number == self.0) {
            return write!(f, "SIG{name}");
        }
        match self.0.checked_sub(RT_MIN) {
            Some(0) => f.write_str("SIGRTMIN"),
            Some(offset @ 1..) => write!(f, "SIGRTMIN+{offset}"),
            _ => write!(f, "{}", self.0),
        }
    }
}

/// The error for a text that is neither the name nor the number of a signal; same wording as runc.
#[derive(Debug)]
pub struct UnknownSignal(String);

impl fmt::Display for UnknownSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown signal {:?}", self.0)
    }
}

impl error::Error for UnknownSignal {}

/// All signals, blocked and received through this value.
///
/// They stay blocked for the rest of the process, so that nothing interrupts the cleanup of a container. The
/// init process and any other program started from here must be given an empty signal mask.
#[derive(Debug)]
pub struct Signals(());

impl Signals {
    /// Blocks every signal that can be blocked. Must be called before clone, or the exit of a short-lived
    /// init process could be missed.
    ///
    /// Signals ignored by the caller (nohup(1), shells without job control) are received, too: the kernel
    /// does not discard blocked signals. A fault of our own still kills the process.
    pub fn block() -> Result<Self> {
        // An ignored SIGCHLD is inherited, and the kernel would then discard exit statuses; wait(2).
        sys::signal::default_sigchld().context("reset the action of SIGCHLD")?;
        sys::signal::block_all().context("block signals")?;
        Ok(Self(()))
    }

    /// Waits for the next signal.
    pub fn wait(&self) -> Result<Signal> {
        loop {
            match sys::signal::wait() {
                Err(Errno::INTR) => {}
                taken => return taken.map(Signal).context("wait for a signal"),
            }
        }
    }

    /// Stops this process until it is continued, as Ctrl-Z does by default. If no shell could continue it,
    /// the kernel does not stop it at all; setpgid(2), "orphaned process group".
    pub fn stop(&self) -> Result<()> {
        let stop = nix::sys::signal::Signal::SIGTSTP;
        let only = [stop].into_iter().collect::<SigSet>();
        // The signal is blocked, so it stays pending until it is unblocked here.
        let stopped = nix::sys::signal::raise(stop).and_then(|()| only.thread_unblock());
        stopped.and_then(|()| only.thread_block()).context("stop")
    }

    /// A queue of the signals that ask this process to end, for commands not yet responsible for a container.
    pub fn interrupts(&self) -> Result<SignalQueue> {
        sys::signal::interrupts().map(SignalQueue).context("open the signal descriptor")
    }

    /// A queue of all signals, for use with poll(2).
    pub fn queue(&self) -> Result<SignalQueue> {
        sys::signal::descriptor().map(SignalQueue).context("open the signal descriptor")
    }
}

/// A signalfd: blocked signals as a descriptor that is readable while one is pending.
#[derive(Debug)]
pub struct SignalQueue(OwnedFd);

impl SignalQueue {
    /// Returns the next pending signal, if any.
    pub fn take(&self) -> Result<Option<Signal>> {
        let mut details = [0; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut details)) {
            Ok(_) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(errno).context("read the signal descriptor"),
        }
        // The number is the first field of the record; signalfd(2).
        let number = details.first_chunk().map(|number| i32::from_ne_bytes(*number));
        Ok(number.and_then(Signal::from_number))
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_known_by_number_and_by_name_in_any_case() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("sigkill", 9),
            ("SigTerm", 15),
            ("iot", 6),
            ("SIGCLD", 17),
            ("POLL", 29),
            ("64", 64),
            ("32", 32),
            ("0", 0),
            ("RTMIN", 34),
            ("sigrtmin+3", 37),
            ("RTMAX-1", 63),
            ("SIGRTMAX", 64),
        ] {
            assert_eq!(text.parse::<Signal>().unwrap().number(), number, "{text}");
        }
    }

    #[test]
    fn what_is_no_signal_is_refused_by_its_text() {
        for text in [
            "FOO",
            "",
            "SIG",
            "SIGSIGKILL",
            "65",
            "-1",
            "99999999999",
            "9x",
            " 9",
            "RTMIN-1",
            "RTMIN+31",
            "RTMAX-31",
            "RTMIN+-1",
            "RTMIN+",
        ] {
            let error = text.parse::<Signal>().unwrap_err();
            assert_eq!(error.to_string(), format!("unknown signal {text:?}"));
        }
    }

    #[test]
    fn every_signal_is_read_back_from_what_it_is_shown_as() {
        for number in 0..=64 {
            let signal = Signal(number);
            assert_eq!(signal.to_string().parse::<Signal>().unwrap(), signal, "{signal}");
        }
        assert_eq!(Signal::TERM.to_string(), "SIGTERM");
        assert_eq!(Signal(37).to_string(), "SIGRTMIN+3");
        assert_eq!(Signal(33).to_string(), "33");
    }
}
