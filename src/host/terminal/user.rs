//! The user's terminal: its size and its raw mode; termios(3).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::stdio;
use rustix::termios::{OptionalActions, OutputModes, Termios, Winsize};

/// The terminal that the user looks at: the first of standard error, output and input that is a terminal, or
/// else the controlling terminal of the session, since all three may be redirected.
pub(super) fn screen() -> Option<OwnedFd> {
    [stdio::stderr(), stdio::stdout(), stdio::stdin()]
        .into_iter()
        .find(|stream| rustix::termios::isatty(stream))
        .and_then(|stream| rustix::io::fcntl_dupfd_cloexec(stream, 0).ok())
        .or_else(|| {
            rustix::fs::open("/dev/tty", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).ok()
        })
}

/// The size of `screen`; `None` if it is unknown, as on a serial line.
pub(super) fn size(screen: impl AsFd) -> Option<Winsize> {
    rustix::termios::tcgetwinsize(screen).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0)
}

/// Which terminal converts line feeds to CR LF: exactly one must do so on the way to a screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Newlines {
    /// The container's, whose modes programs inside can see: bytes are passed on unchanged.
    Inside,
    /// The user's, if there is one: output redirected to a file gets plain line feeds, as with runc.
    Outside,
}

impl Newlines {
    /// Inside, if both input and output are terminals.
    pub(super) fn plan(input: impl AsFd, output: impl AsFd) -> Self {
        if rustix::termios::isatty(input) && rustix::termios::isatty(output) {
            Self::Inside
        } else {
            Self::Outside
        }
    }
}

/// Raw mode of the keyboard until this is dropped: every byte is passed on as typed, including Ctrl-C.
#[derive(Debug)]
pub(super) struct RawMode {
    keyboard: OwnedFd,
    newlines: Newlines,
    /// The modes to restore; `None` if the terminal has never been made raw.
    saved: Option<Termios>,
}

impl RawMode {
    /// Puts `input` in raw mode if it is a terminal. If it is not, Ctrl-C must continue to generate a signal,
    /// because nobody would read the byte.
    pub(super) fn enter(input: BorrowedFd<'_>, newlines: Newlines) -> Option<Self> {
        if !rustix::termios::isatty(input) {
            return None;
        }
        let keyboard = rustix::io::fcntl_dupfd_cloexec(input, 0).ok()?;
        let mut mode = Self { keyboard, newlines, saved: None };
        mode.renew();
        Some(mode)
    }

    /// Puts the terminal in raw mode again; while we were stopped, the shell has set its own modes.
    ///
    /// Does nothing in the background: another job owns the terminal then, and since SIGTTOU is blocked, the
    /// kernel would let us change its modes; setpgid(2), tty_ioctl(4).
    pub(super) fn renew(&mut self) {
        if self.is_in_background() {
            return;
        }
        let Ok(mut modes) = rustix::termios::tcgetattr(&self.keyboard) else { return };
        if self.saved.is_none() {
            self.saved = Some(modes.clone());
        }
        modes.make_raw();
        modes.output_modes.set(OutputModes::OPOST, self.newlines == Newlines::Outside);
        // A failure means that the terminal is gone, which reading from the keyboard will report.
        let _ = rustix::termios::tcsetattr(&self.keyboard, OptionalActions::Now, &modes);
    }

    /// Whether the terminal has never been put in raw mode, because we were started in the background.
    pub(super) fn is_pending(&self) -> bool {
        self.saved.is_none()
    }

    /// Whether another job owns the terminal; without job control, no job does.
    pub(super) fn is_in_background(&self) -> bool {
        let owner = rustix::termios::tcgetpgrp(&self.keyboard);
        owner.is_ok_and(|group| group != rustix::process::getpgrp())
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            let _ = rustix::termios::tcsetattr(&self.keyboard, OptionalActions::Now, saved);
        }
    }
}
