//! Draws full-screen pictures on the user's terminal, each replacing the previous one.
//!
//! Nothing here blocks, even if the terminal's output is stopped. Line buffering and echo are off, but
//! Ctrl-C, Ctrl-Z and Ctrl-\ still generate signals, which are handled here. However the program exits, the
//! terminal is restored. In the background nothing is drawn, because another job owns the terminal.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::stdio;

use super::keys::Key;
use super::loan::TerminalGuard;
use super::{keys, user};
use crate::host::signals::{Signal, SignalQueue, Signals};
use crate::sys::Errno;

/// How long to wait for the rest of an incomplete key sequence.
const PATIENCE_WITH_KEYS: Duration = Duration::from_millis(50);

/// Which buffer of the terminal to draw on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScreenBuffer {
    /// The normal buffer, on which the last picture remains. A picture must leave one row free.
    Usual,
    /// The alternate buffer; on exit, the normal one reappears.
    Alternate,
}

impl ScreenBuffer {
    fn enter(self) -> String {
        match self {
            // Existing contents scroll up and stay in the scrollback.
            Self::Usual => "\x1b[?25l".to_owned() + &"\r\n".repeat(size().rows),
            Self::Alternate => "\x1b[?1049h\x1b[?25l".to_owned(),
        }
    }

    pub(super) const fn leave(self) -> &'static str {
        match self {
            Self::Usual => "\x1b[?25h",
            Self::Alternate => "\x1b[?25h\x1b[?1049l",
        }
    }
}

/// A line of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// No wider than the terminal, and without control characters.
    pub text: String,
    pub style: Style,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    Bold,
    Inverse,
}

impl Line {
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), style: Style::Plain }
    }

    pub fn bold(text: impl Into<String>) -> Self {
        Self { text: text.into(), style: Style::Bold }
    }
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub columns: usize,
    pub rows: usize,
}

/// The size of the terminal at standard output.
pub fn size() -> Size {
    match user::size(stdio::stdout()) {
        Some(size) => Size { columns: size.ws_col.into(), rows: size.ws_row.into() },
        // A serial line does not know its size.
        None => Size { columns: 80, rows: 24 },
    }
}

/// Something that happened while waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The deadline has passed.
    Due,
    /// One of the other descriptors is readable.
    Ready,
    Key(Key),
    /// The picture must be drawn again: the size has changed, a picture was skipped, or the terminal is ours
    /// again.
    Spoilt,
    /// A signal asks this process to end.
    End(Signal),
    /// The terminal is gone.
    Gone,
}

#[derive(Debug)]
pub struct Screen {
    place: ScreenBuffer,
    terminal: Arc<TerminalGuard>,
    signals: Signals,
    queue: SignalQueue,
    /// Bytes not written yet.
    pending: VecDeque<u8>,
    /// Whether they include a picture.
    is_behind: bool,
    /// Whether a picture was skipped because of that.
    has_missed: bool,
    /// Keyboard bytes that do not form a key yet, and when the first of them arrived.
    typed: Vec<u8>,
    typed_at: Instant,
}

impl Screen {
    /// Opens standard output, which must be a terminal. Blocks all signals from now on.
    pub fn open(place: ScreenBuffer) -> Result<Self> {
        let signals = Signals::block()?;
        let queue = signals.queue()?;
        let mut screen = Self {
            place,
            terminal: TerminalGuard::new(place)?,
            signals,
            queue,
            pending: VecDeque::new(),
            is_behind: false,
            has_missed: false,
            typed: Vec::new(),
            typed_at: Instant::now(),
        };
        screen.enter();
        Ok(screen)
    }

    /// Takes the terminal, unless another job owns it.
    fn enter(&mut self) {
        if self.terminal.take() {
            self.pending.extend(self.place.enter().bytes());
        }
    }

    /// Restores the terminal.
    fn leave(&mut self) {
        self.terminal.give_back(&mut self.pending);
        self.is_behind = false;
    }

    /// Replaces the picture. If the terminal has not accepted the previous one yet, this one is skipped, and
    /// [`Event::Spoilt`] follows once it has.
    pub fn paint(&mut self, lines: &[Line]) {
        self.has_missed = self.is_behind;
        if self.terminal.is_taken() && !self.is_behind {
            self.pending.extend(picture(lines, size()).bytes());
            self.is_behind = true;
        }
    }

    fn flush(&mut self) -> Result<(), Errno> {
        self.terminal.write(&mut self.pending)?;
        self.is_behind &= !self.pending.is_empty();
        Ok(())
    }

    /// Waits until `deadline` for the next event, including readability of `others`. Signals and keys are
    /// handled even if the deadline has already passed.
    pub fn next(&mut self, deadline: Instant, others: &[BorrowedFd<'_>]) -> Result<Event> {
        let mut has_waited = false;
        loop {
            if !self.terminal.is_taken() && !self.terminal.is_in_background() {
                self.enter();
                return Ok(Event::Spoilt);
            }
            if self.flush().is_err() {
                return Ok(Event::Gone);
            }
            if !self.is_behind && std::mem::take(&mut self.has_missed) {
                return Ok(Event::Spoilt);
            }
            if let Some(key) = self.key() {
                return Ok(Event::Key(key));
            }
            let now = Instant::now();
            if now >= deadline && std::mem::replace(&mut has_waited, true) {
                return Ok(Event::Due);
            }
            let until = if self.typed.is_empty() {
                deadline
            } else {
                deadline.min(self.typed_at + PATIENCE_WITH_KEYS)
            };
            if let Some(event) = self.wait(until.saturating_duration_since(now), others)? {
                return Ok(event);
            }
        }
    }

    fn wait(&mut self, at_most: Duration, others: &[BorrowedFd<'_>]) -> Result<Option<Event>> {
        let timeout = Timespec::try_from(at_most).context("wait for the terminal")?;
        let wanted = if self.pending.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let keyboard = self.terminal.keyboard().filter(|_| self.terminal.is_taken());
        let mut polled = vec![
            PollFd::from_borrowed_fd(self.queue.as_fd(), PollFlags::IN),
            // Polled even if there is nothing to write, to notice a hang-up.
            PollFd::from_borrowed_fd(self.terminal.output(), wanted),
        ];
        polled.extend(keyboard.map(|keyboard| PollFd::from_borrowed_fd(keyboard, PollFlags::IN)));
        let first_other = polled.len();
        polled.extend(others.iter().map(|other| PollFd::from_borrowed_fd(*other, PollFlags::IN)));
        retry_on_intr(|| poll(&mut polled, Some(&timeout))).context("wait for the terminal")?;
        let is_ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        let is_gone =
            polled.get(1).is_some_and(|output| output.revents().intersects(PollFlags::HUP | PollFlags::ERR));
        drop(polled);
        // First, because SIGHUP is more specific than a hang-up seen by poll(2).
        if is_ready.first() == Some(&true) {
            if let Some(event) = self.answer()? {
                return Ok(Some(event));
            }
        }
        if is_gone {
            return Ok(Some(Event::Gone));
        }
        if first_other == 3 && is_ready.get(2) == Some(&true) && !self.read_keyboard() {
            return Ok(Some(Event::Gone));
        }
        Ok(is_ready.get(first_other..).is_some_and(|others| others.contains(&true)).then_some(Event::Ready))
    }

    fn answer(&mut self) -> Result<Option<Event>> {
        let mut event = None;
        while let Some(signal) = self.queue.take()? {
            match signal {
                Signal::HUP | Signal::INT | Signal::QUIT | Signal::TERM => {
                    return Ok(Some(Event::End(signal)));
                }
                Signal::WINCH => event = Some(Event::Spoilt),
                Signal::TSTP => {
                    self.leave();
                    self.signals.stop()?;
                }
                // The shell has had the terminal in the meantime, and may still have it.
                Signal::CONT => {
                    self.terminal.lose();
                    self.enter();
                    event = Some(Event::Spoilt);
                }
                _ => {}
            }
        }
        Ok(event)
    }

    /// Reads from the keyboard; returns false if it is gone.
    fn read_keyboard(&mut self) -> bool {
        let Some(keyboard) = self.terminal.keyboard() else { return true };
        let mut buffer = [0; 256];
        match retry_on_intr(|| rustix::io::read(keyboard, &mut buffer)) {
            Ok(length @ 1..) => {
                if self.typed.is_empty() {
                    self.typed_at = Instant::now();
                }
                self.typed.extend(buffer.iter().take(length));
                true
            }
            Err(Errno::AGAIN) => true,
            // Another job has just taken the terminal.
            Err(Errno::IO) if self.terminal.is_in_background() => {
                self.terminal.lose();
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    fn key(&mut self) -> Option<Key> {
        while let Some((key, length)) = keys::first(&self.typed) {
            self.typed.drain(..length);
            if key.is_some() {
                return key;
            }
        }
        if !self.typed.is_empty() && self.typed_at.elapsed() >= PATIENCE_WITH_KEYS {
            return keys::alone(&std::mem::take(&mut self.typed));
        }
        None
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The sequences that draw these lines from the top over the previous picture and clear the rows below them.
fn picture(lines: &[Line], size: Size) -> String {
    let mut text = String::from("\x1b[H");
    let shown = lines.len().min(size.rows);
    for (row, line) in lines.iter().take(shown).enumerate() {
        // Clear the row before writing: after the last column has been written, clearing would erase that
        // column.
        text.push_str("\x1b[2K");
        match line.style {
            Style::Plain => text.push_str(&line.text),
            Style::Bold => text.extend(["\x1b[1m", &line.text, "\x1b[m"]),
            Style::Inverse => text.extend(["\x1b[7m", &line.text, "\x1b[m"]),
        }
        if row + 1 < size.rows {
            text.push_str("\r\n");
        }
    }
    if shown < size.rows {
        text.push_str("\x1b[J");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_replaces_the_last_one() {
        let lines = [Line::bold("a"), Line { text: "b".into(), style: Style::Inverse }, Line::plain("c")];
        let size = |rows| Size { columns: 9, rows };
        assert_eq!(
            picture(&lines, size(4)),
            "\x1b[H\x1b[2K\x1b[1ma\x1b[m\r\n\x1b[2K\x1b[7mb\x1b[m\r\n\x1b[2Kc\r\n\x1b[J"
        );
        // The last row has no newline, which would scroll the picture.
        assert_eq!(picture(&lines, size(2)), "\x1b[H\x1b[2K\x1b[1ma\x1b[m\r\n\x1b[2K\x1b[7mb\x1b[m");
    }
}
