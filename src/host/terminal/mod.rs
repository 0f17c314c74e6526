//! The terminal of a container in the foreground: its pty, connected to standard input and output of the
//! runtime.
//!
//! The two directions are independent and nothing here blocks: the caller waits with poll(2) for the
//! descriptors returned by [`Terminal::polled`] and passes those that are ready to [`Terminal::advance`]. The
//! file status flags of standard input and output are not changed, because the open files are shared with the
//! shell. The keyboard is in raw mode as long as the `Terminal` exists.
//!
//! At the end of standard input, programs in the container that read lines get an end of file, as with
//! script(1); runc leaves them waiting. When standard output is closed, the caller drops the `Terminal`,
//! which hangs up the container's terminal.

pub mod console_socket;
pub mod keys;
mod loan;
mod pty;
pub mod screen;
mod stream;
mod user;

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::stdio;

use self::pty::{Outcome, Pty};
use self::stream::Buffer;
use self::user::{Newlines, RawMode};
use crate::sys::Errno;

/// One of the descriptors between which bytes are relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Input,
    Output,
    Pty,
}

#[derive(Debug)]
pub struct Terminal {
    pty: Pty,
    /// `None` after end of file.
    input: Option<OwnedFd>,
    /// The input is a terminal owned by another job: poll(2) reports it as readable, but reading fails;
    /// SIGTTIN, signal(7).
    in_background: bool,
    output: OwnedFd,
    to_pty: Buffer,
    to_output: Buffer,
    /// The terminal whose size is used.
    screen: Option<OwnedFd>,
    keyboard: Option<RawMode>,
}

impl Terminal {
    /// Connects the pty of `master` to standard input and output, sets its size to that of the user's
    /// terminal, and puts the user's terminal in raw mode. Without one, bytes are relayed all the same.
    ///
    /// All signals must be blocked ([`crate::host::signals::Signals::block`]), or a background job would be
    /// stopped here. Must be called before the container's program runs, so that the program finds the final
    /// modes and size. Only processes of the container may have the other end open, and the init process must
    /// have it open when relaying begins.
    pub fn attach(master: OwnedFd) -> Result<Self> {
        let input = stream::own(stdio::stdin(), OFlags::RDONLY).context("open standard input")?;
        let output = stream::own(stdio::stdout(), OFlags::WRONLY).context("open standard output")?;
        let newlines = Newlines::plan(stdio::stdin(), stdio::stdout());
        let mut terminal = Self::between(master, input, output, newlines)?;
        terminal.screen = user::screen();
        terminal.resize();
        terminal.keyboard = RawMode::enter(stdio::stdin(), newlines);
        Ok(terminal)
    }

    fn between(master: OwnedFd, input: OwnedFd, output: OwnedFd, newlines: Newlines) -> Result<Self> {
        Ok(Self {
            pty: Pty::new(master, newlines).context("set up the container's terminal")?,
            input: Some(input),
            in_background: false,
            output,
            to_pty: Buffer::new(),
            to_output: Buffer::new(),
            screen: None,
            keyboard: None,
        })
    }

    /// Sets the size of the container's terminal to that of the user's. The kernel sends SIGWINCH to the
    /// programs inside.
    pub fn resize(&self) {
        if let Some(size) = self.screen.as_ref().and_then(user::size) {
            self.pty.resize(size);
        }
    }

    /// After SIGCONT: takes the user's terminal again, if we are in the foreground.
    pub fn resume(&mut self) {
        self.in_background = false;
        if let Some(keyboard) = &mut self.keyboard {
            keyboard.renew();
        }
        self.resize();
    }

    /// The poll timeout before [`Terminal::look_for_foreground`] must be called: a job that was not stopped
    /// is not notified when the shell's `fg` makes it the foreground job.
    pub fn patience(&self) -> Option<&'static Timespec> {
        const LOOK_EVERY: &Timespec = &Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
        self.in_background.then_some(LOOK_EVERY)
    }

    /// Resumes reading input if we own the user's terminal again.
    pub fn look_for_foreground(&mut self) {
        if self.in_background && self.keyboard.as_ref().is_some_and(|keyboard| !keyboard.is_in_background()) {
            self.resume();
        }
    }

    /// The descriptors to poll at present.
    pub fn polled(&self) -> impl Iterator<Item = (Side, PollFd<'_>)> {
        let reads_input = self.to_pty.is_empty() && !self.in_background && !self.pty.is_hung_up();
        let input = self.input.as_ref().filter(|_| reads_input);
        let output = Some(&self.output).filter(|_| self.has_output());
        let mut interest = PollFlags::empty();
        interest.set(PollFlags::IN, self.to_output.is_empty());
        interest.set(PollFlags::OUT, !self.to_pty.is_empty());
        let (pty, events) = self.pty.polled(interest);
        [
            input.map(|input| (Side::Input, PollFd::new(input, PollFlags::IN))),
            output.map(|output| (Side::Output, PollFd::new(output, PollFlags::OUT))),
            // Leave it out if there is nothing to do there: poll(2) reports a hang-up unasked.
            Some((Side::Pty, PollFd::from_borrowed_fd(pty, events))).filter(|_| !interest.is_empty()),
        ]
        .into_iter()
        .flatten()
    }

    /// Relays bytes at `side`, which poll(2) has reported as ready.
    ///
    /// # Errors
    /// `EPIPE` or `EIO` if the output is closed. The caller should then drop this, which hangs up the
    /// container's terminal.
    pub fn advance(&mut self, side: Side) -> Result<(), Errno> {
        match side {
            Side::Input => self.read_input(),
            Side::Output => self.write_output(),
            Side::Pty => {
                self.pty.wake()?;
                if !self.to_pty.is_empty() {
                    self.pty.write(&mut self.to_pty)?;
                }
                if self.to_output.is_empty() {
                    self.pty.read(&mut self.to_output)?;
                }
                Ok(())
            }
        }
    }

    fn read_input(&mut self) -> Result<(), Errno> {
        let Some(input) = &self.input else { return Ok(()) };
        if let Some(keyboard) = self.keyboard.as_mut().filter(|keyboard| keyboard.is_pending()) {
            keyboard.renew();
        }
        match self.to_pty.fill(input) {
            Ok(1..) => {}
            Err(Errno::AGAIN) => return Ok(()),
            Err(Errno::IO) if self.keyboard.as_ref().is_some_and(RawMode::is_in_background) => {
                self.in_background = true;
                return Ok(());
            }
            // Errors of the input count as its end; the container continues.
            Ok(0) | Err(_) => {
                self.input = None;
                self.push_end_of_input();
            }
        }
        if !self.to_pty.is_empty() {
            self.pty.write(&mut self.to_pty)?;
        }
        Ok(())
    }

    /// Sends the end-of-file character. In the middle of a line, the first one only flushes the line, so a
    /// second is needed.
    fn push_end_of_input(&mut self) {
        let Some(byte) = self.pty.end_of_input() else { return };
        if self.to_pty.ends_within_line() {
            self.to_pty.push(byte);
        }
        self.to_pty.push(byte);
    }

    fn write_output(&mut self) -> Result<(), Errno> {
        match self.to_output.drain(&self.output) {
            Err(Errno::AGAIN) => Ok(()),
            outcome => outcome,
        }
    }

    /// Whether there is unwritten output for the user.
    pub fn has_output(&self) -> bool {
        !self.to_output.is_empty()
    }

    /// Reads more of the container's remaining output; returns false if there is none.
    ///
    /// For use after the init process has exited: the kernel reports an empty pty only after all earlier
    /// writes have arrived, so nothing is missed and no wait is needed.
    pub fn pull(&mut self) -> bool {
        self.pty.read(&mut self.to_output) == Ok(Outcome::Moved)
    }
}

#[cfg(test)]
mod tests;
