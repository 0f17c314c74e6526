//! The user's terminal as something that pictures are painted on, one after the other in the same place.
//!
//! Nothing here blocks, whoever has stopped the terminal's output. Keys come one by one and unseen, but Ctrl-C, Ctrl-Z and
//! Ctrl-\ go on making signals, which are taken here. However it is left, the terminal is as it was. In the background nothing is
//! painted: the terminal is another job's.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::stdio;

use super::keys::Key;
use super::loan::Loan;
use super::{keys, user};
use crate::host::signals::{Signal, SignalQueue, Signals};
use crate::sys::Errno;

/// How long a key that begins like another's beginning waits for the rest.
const PATIENCE_WITH_KEYS: Duration = Duration::from_millis(50);

/// Which screen of the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScreenBuffer {
    /// The usual one, where the last picture stays. A picture must leave a row free.
    Usual,
    /// The other one, behind which the usual one comes to light again.
    Alternate,
}

impl ScreenBuffer {
    fn enter(self) -> String {
        match self {
            // What is there moves up and can be scrolled back to.
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
    /// No wider than the terminal, and nothing in it but letters.
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

/// How many letters the terminal has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub columns: usize,
    pub rows: usize,
}

/// The size of the terminal that standard output is.
pub fn size() -> Size {
    match user::size(stdio::stdout()) {
        Some(size) => Size { columns: size.ws_col.into(), rows: size.ws_row.into() },
        // A serial line does not know.
        None => Size { columns: 80, rows: 24 },
    }
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The time that was named has come.
    Due,
    /// One of the other descriptors is readable.
    Ready,
    Key(Key),
    /// The picture must be painted anew: the terminal has another size, has missed one, or is ours again.
    Spoilt,
    /// Somebody wants this process to end.
    End(Signal),
    /// There is no terminal any more.
    Gone,
}

#[derive(Debug)]
pub struct Screen {
    place: ScreenBuffer,
    terminal: Arc<Loan>,
    signals: Signals,
    queue: SignalQueue,
    /// What has not been written yet.
    pending: VecDeque<u8>,
    /// Whether there is a picture in it.
    is_behind: bool,
    /// Whether another was to be shown meanwhile.
    has_missed: bool,
    /// Bytes of the keyboard that have not become keys, and since when the first of them waits.
    typed: Vec<u8>,
    typed_at: Instant,
}

impl Screen {
    /// Standard output, which must be a terminal. All signals are blocked from now on.
    pub fn open(place: ScreenBuffer) -> Result<Self> {
        let signals = Signals::block()?;
        let queue = signals.queue()?;
        let mut screen = Self {
            place,
            terminal: Loan::new(place)?,
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

    /// Takes the terminal, unless it is another job's at present.
    fn enter(&mut self) {
        if self.terminal.take() {
            self.pending.extend(self.place.enter().bytes());
        }
    }

    /// Gives the terminal back.
    fn leave(&mut self) {
        self.terminal.give_back(&mut self.pending);
        self.is_behind = false;
    }

    /// Shows this picture instead of the last one. A terminal that has not taken the last one yet misses this one, and is
    /// [`Event::Spoilt`] when it has.
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

    /// Waits for the next event, until `deadline` at the latest. `others` are waited for, too. However late it is, signals and keys
    /// are heard.
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
            // Even when nothing is to be written, its end is told.
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
        // A hang-up is told as a signal, too, which says more.
        if is_ready.first() == Some(&true)
            && let Some(event) = self.answer()?
        {
            return Ok(Some(event));
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
                // The shell has had the terminal meanwhile, and may have it still.
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

    /// Whether there is a keyboard still.
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
            // It became another job's just now.
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

/// What paints these lines from the top on, over what is there; what is below them goes.
fn picture(lines: &[Line], size: Size) -> String {
    let mut text = String::from("\x1b[H");
    let shown = lines.len().min(size.rows);
    for (row, line) in lines.iter().take(shown).enumerate() {
        // Cleared first: a terminal that has just written its last column would clear that.
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
        // The last row is not ended, or everything would move up.
        assert_eq!(picture(&lines, size(2)), "\x1b[H\x1b[2K\x1b[1ma\x1b[m\r\n\x1b[2K\x1b[7mb\x1b[m");
    }
}
