//! The user's terminal: its size and its raw mode; termios(3).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::stdio;
use rustix::termios::{OptionalActions, OutputModes, Termios, Winsize};

/// The terminal that the user looks at: the first of standard error, output and input that is one, else the
/// controlling terminal of the session, since all three may be redirected.
pub(super) fn screen() -> Option<OwnedFd> {
    [stdio::stderr(), stdio::stdout(), stdio::stdin()]
        .into_iter()
        .find(|stream| rustix::termios::isatty(stream))
        .and_then(|stream| rustix::io::fcntl_dupfd_cloexec(stream, 0).ok())
        .or_else(|| {
            rustix::fs::open("/dev/tty", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).ok()
        })
}

/// The size of `screen`, unless it does not know: a serial line has none.
pub(super) fn size(screen: impl AsFd) -> Option<Winsize> {
    rustix::termios::tcgetwinsize(screen).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0)
}

/// Who makes a line feed into carriage return and line feed: somebody must, on the way to a screen, and only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Newlines {
    /// The container's terminal, of which programs inside know: all bytes pass as they are.
    Inside,
    /// The user's, if there is one: what is redirected to a file gets plain line feeds, as with runc.
    Outside,
}

impl Newlines {
    /// Inside, if what the user types and sees is one raw terminal.
    pub(super) fn plan(input: impl AsFd, output: impl AsFd) -> Self {
        if rustix::termios::isatty(input) && rustix::termios::isatty(output) {
            Self::Inside
        } else {
            Self::Outside
        }
    }
}

/// The keyboard, which hands on every byte as it is typed, Ctrl-C too, until this is dropped.
#[derive(Debug)]
pub(super) struct RawMode {
    keyboard: OwnedFd,
    newlines: Newlines,
    /// How it was before.
    saved: Option<Termios>,
}

impl RawMode {
    /// If `input` is a terminal. When it is not, the user's Ctrl-C must go on making a signal, for there would be
    /// nobody to read the byte.
    pub(super) fn enter(input: BorrowedFd<'_>, newlines: Newlines) -> Option<Self> {
        if !rustix::termios::isatty(input) {
            return None;
        }
        let keyboard = rustix::io::fcntl_dupfd_cloexec(input, 0).ok()?;
        let mut mode = Self { keyboard, newlines, saved: None };
        mode.renew();
        Some(mode)
    }

    /// Makes the terminal raw if it is not; after a stop, the shell has set its own modes in between.
    ///
    /// Not while we are in the background: the terminal belongs to another job then, and since SIGTTOU is blocked the
    /// kernel would let us spoil it; setpgid(2), tty_ioctl(4).
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
        // It worked or the terminal is gone, which the reader of the keyboard finds out.
        let _ = rustix::termios::tcsetattr(&self.keyboard, OptionalActions::Now, &modes);
    }

    /// Whether the terminal has never been made raw: we were started in the background.
    pub(super) fn is_pending(&self) -> bool {
        self.saved.is_none()
    }

    /// Whether the terminal is at present another job's; without job control it is nobody's.
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
