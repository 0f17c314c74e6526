//! The terminal of a container in the foreground: its pty, joined to standard input and output of the runtime.
//!
//! One direction never waits for the other, and nothing here blocks: the caller waits with poll(2) for what
//! [`Terminal::polled`] names and hands to [`Terminal::advance`] what is ready. Standard input and output keep their modes,
//! for their open files are the shell's too; the keyboard is raw for as long as a `Terminal` lives.
//!
//! Ends: at the end of standard input, programs inside that read lines get an end of file, as script(1) does it; runc
//! leaves them waiting. When standard output is closed, the caller drops the `Terminal`, which hangs the container's up.

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

/// One of the descriptors between which bytes are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Input,
    Output,
    Pty,
}

#[derive(Debug)]
pub struct Terminal {
    pty: Pty,
    /// None after its end.
    input: Option<OwnedFd>,
    /// The input is a terminal on which another job runs: it says that it can be read, and then cannot; SIGTTIN, signal(7).
    in_background: bool,
    output: OwnedFd,
    to_pty: Buffer,
    to_output: Buffer,
    /// Where the size comes from.
    screen: Option<OwnedFd>,
    keyboard: Option<RawMode>,
}

impl Terminal {
    /// Joins the pty of `master` to standard input and output, gives it the size of the user's terminal and makes that
    /// raw. Without a terminal of the user's, bytes are relayed all the same.
    ///
    /// All signals must be blocked ([`crate::host::signals::Signals::block`]), or a background job would be stopped here. To be
    /// done before the container's program runs, so that it finds the terminal's modes and size. Nobody but the
    /// container's processes may have the other side open, and the init process must when relaying begins.
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

    /// Gives the container's terminal the size that the user's has now. The kernel tells the programs inside.
    pub fn resize(&self) {
        if let Some(size) = self.screen.as_ref().and_then(user::size) {
            self.pty.resize(size);
        }
    }

    /// After a stop (SIGCONT): takes the user's terminal again, if we are in the foreground.
    pub fn resume(&mut self) {
        self.in_background = false;
        if let Some(keyboard) = &mut self.keyboard {
            keyboard.renew();
        }
        self.resize();
    }

    /// How long to wait at most for what [`Terminal::polled`] names, before [`Terminal::look_for_foreground`]: a shell's
    /// `fg` tells a job that was not stopped nothing.
    pub fn patience(&self) -> Option<&'static Timespec> {
        const LOOK_EVERY: &Timespec = &Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
        self.in_background.then_some(LOOK_EVERY)
    }

    /// Goes on with the input if the user's terminal is ours again.
    pub fn look_for_foreground(&mut self) {
        if self.in_background && self.keyboard.as_ref().is_some_and(|keyboard| !keyboard.is_in_background()) {
            self.resume();
        }
    }

    /// What to wait for at present.
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
            // With nothing to do there, even a hang-up must wait: poll(2) reports it unasked.
            Some((Side::Pty, PollFd::from_borrowed_fd(pty, events))).filter(|_| !interest.is_empty()),
        ]
        .into_iter()
        .flatten()
    }

    /// Moves bytes at `side`, which poll(2) has reported.
    ///
    /// # Errors
    /// Nobody takes the output any more, as `EPIPE` and `EIO`. It is over then; dropping hangs the container's
    /// terminal up.
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
            // Errors of the input are its end; the container goes on.
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

    /// Inside a line, the byte only hands over what there is of it: a second one is needed.
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

    /// Whether there is something for the user that has not been written yet.
    pub fn has_output(&self) -> bool {
        !self.to_output.is_empty()
    }

    /// Reads more of what the container has left in its terminal; false if there is nothing more.
    ///
    /// For after the init process's end: the kernel finishes moving what was written before it says that there is
    /// nothing, so nothing is missed without waiting.
    pub fn pull(&mut self) -> bool {
        self.pty.read(&mut self.to_output) == Ok(Outcome::Moved)
    }
}

#[cfg(test)]
mod tests;
