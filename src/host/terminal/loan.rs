//! The user's terminal while the runtime draws on it, and the state to restore afterwards.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::retry_on_intr;
use rustix::stdio;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios};

use super::screen::ScreenBuffer;
use super::stream;
use crate::sys::Errno;

/// How long to wait for the terminal to accept the sequences that restore it.
const PATIENCE_AT_THE_END: Duration = Duration::from_millis(500);

/// Standard input and output for drawing. The owner restores the terminal at the end; a panic hook does so,
/// too, because release builds abort without dropping anything.
#[derive(Debug)]
pub(super) struct TerminalGuard {
    place: ScreenBuffer,
    output: OwnedFd,
    keyboard: Option<OwnedFd>,
    is_taken: AtomicBool,
    /// The keyboard's modes to restore, while the terminal is taken.
    saved: Mutex<Option<Termios>>,
}

impl TerminalGuard {
    /// Opens the terminal without taking it. Also installs a panic hook that restores it before the message
    /// is printed.
    pub(super) fn new(place: ScreenBuffer) -> Result<Arc<Self>> {
        let keyboard =
            rustix::termios::isatty(stdio::stdin()).then(|| stream::own(stdio::stdin(), OFlags::RDONLY));
        let loan = Arc::new(Self {
            place,
            output: stream::own(stdio::stdout(), OFlags::WRONLY).context("open standard output")?,
            keyboard: keyboard.transpose().context("open standard input")?,
            is_taken: AtomicBool::new(false),
            saved: Mutex::new(None),
        });
        let (shared, tell) = (Arc::clone(&loan), panic::take_hook());
        panic::set_hook(Box::new(move |panic| {
            shared.give_back(&mut VecDeque::new());
            tell(panic);
        }));
        Ok(loan)
    }

    pub(super) fn output(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }

    /// The keyboard; `None` if standard input is not a terminal.
    pub(super) fn keyboard(&self) -> Option<BorrowedFd<'_>> {
        self.keyboard.as_ref().map(|keyboard| keyboard.as_fd())
    }

    pub(super) fn is_taken(&self) -> bool {
        self.is_taken.load(Ordering::Relaxed)
    }

    /// Turns off line buffering and echo. Returns false if another job owns the terminal.
    pub(super) fn take(&self) -> bool {
        if self.is_in_background() {
            return false;
        }
        if let Some(keyboard) = &self.keyboard {
            if let Ok(mut modes) = rustix::termios::tcgetattr(keyboard) {
                if let Ok(mut saved) = self.saved.try_lock() {
                    // Do not save our own modes, which are still set if the process was stopped by SIGSTOP.
                    if saved.is_none() || modes.local_modes.contains(LocalModes::ICANON) {
                        *saved = Some(modes.clone());
                    }
                    modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
                    // Make read(2) return single bytes, whatever the settings for non-canonical mode were.
                    modes.special_codes[SpecialCodeIndex::VMIN] = 1;
                    modes.special_codes[SpecialCodeIndex::VTIME] = 0;
                    // A failure means that the terminal is gone, which reading from it will report.
                    let _ = rustix::termios::tcsetattr(keyboard, OptionalActions::Now, &modes);
                }
            }
        }
        self.is_taken.store(true, Ordering::Relaxed);
        true
    }

    /// Notes that another process has the terminal now.
    pub(super) fn lose(&self) {
        self.is_taken.store(false, Ordering::Relaxed);
    }

    /// Restores the terminal after writing what is `pending`, as far as the terminal accepts that in time.
    pub(super) fn give_back(&self, pending: &mut VecDeque<u8>) {
        if !self.is_taken.swap(false, Ordering::Relaxed) {
            return;
        }
        pending.extend(self.place.leave().bytes());
        let deadline = Instant::now() + PATIENCE_AT_THE_END;
        while self.write(pending).is_ok() && !pending.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(left) = Timespec::try_from(left) else { break };
            let output = PollFd::new(&self.output, PollFlags::OUT);
            if !matches!(retry_on_intr(|| poll(&mut [output.clone()], Some(&left))), Ok(1..)) {
                break;
            }
        }
        pending.clear();
        let saved = self.saved.try_lock().ok().and_then(|mut saved| saved.take());
        // In the background, the modes are the shell's.
        if let (Some(keyboard), Some(saved)) = (&self.keyboard, saved) {
            if !self.is_in_background() {
                let _ = rustix::termios::tcsetattr(keyboard, OptionalActions::Now, &saved);
            }
        }
    }

    /// Whether another job owns the terminal. Without job control, no job does.
    pub(super) fn is_in_background(&self) -> bool {
        let owner = rustix::termios::tcgetpgrp(&self.output);
        owner.is_ok_and(|group| group != rustix::process::getpgrp())
    }

    /// Writes as much of `pending` as possible without blocking.
    pub(super) fn write(&self, pending: &mut VecDeque<u8>) -> Result<(), Errno> {
        while !pending.is_empty() {
            let (bytes, _) = pending.as_slices();
            match retry_on_intr(|| rustix::io::write(&self.output, bytes)) {
                Ok(length) => drop(pending.drain(..length)),
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;
    use std::process::{Command, Stdio};

    use rustix::pty::OpenptFlags;

    use crate::host::terminal::screen::{Event, Screen};

    use super::*;

    const PEER: OpenptFlags = OpenptFlags::RDWR.union(OpenptFlags::NOCTTY).union(OpenptFlags::CLOEXEC);
    const NAME: &str = "host::terminal::loan::tests::a_panic_gives_the_terminal_back_before_it_is_told";
    /// Set in the process that panics.
    const PANICS: &str = "TEST_PANICS_WHILE_IT_PAINTS";

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        if std::env::var_os(PANICS).is_some() {
            // As in a release build, which drops nothing on panic.
            let mut screen = std::mem::ManuallyDrop::new(Screen::open(ScreenBuffer::Alternate).unwrap());
            assert_eq!(screen.next(Instant::now(), &[]).unwrap(), Event::Due);
            panic!("a mistake of ours");
        }
        let master = rustix::pty::openpt(PEER).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let inside = rustix::pty::ioctl_tiocgptpeer(&master, PEER).unwrap();
        let stdio = || Stdio::from(inside.try_clone().unwrap());
        let mut panics = Command::new(std::env::current_exe().unwrap());
        panics.args(["--exact", NAME, "--nocapture"]).env(PANICS, "");
        let status = panics.stdin(stdio()).stdout(stdio()).stderr(stdio()).status().unwrap();
        assert!(!status.success());
        let (mut master, mut written) = (File::from(master), [0; 4096]);
        let length = master.read(&mut written).unwrap();
        let written = String::from_utf8_lossy(&written[..length]).into_owned();
        let (_, painted) = written.split_once("\x1b[?1049h").unwrap();
        let (painted, after) = painted.split_once("\x1b[?25h\x1b[?1049l").unwrap();
        assert!(!painted.contains("mistake") && after.contains("a mistake of ours"), "{written:?}");
        let modes = rustix::termios::tcgetattr(&inside).unwrap();
        assert!(modes.local_modes.contains(LocalModes::ICANON | LocalModes::ECHO), "{modes:?}");
    }
}
