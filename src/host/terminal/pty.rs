//! The master of the container's pty; pty(7).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFlags, Timespec, epoll};
use rustix::fs::OFlags;
use rustix::termios::{LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Winsize};

use super::stream::Buffer;
use super::user::Newlines;
use crate::sys::Errno;

/// What the last attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Bytes have gone over.
    Moved,
    /// Not now.
    Nothing,
}

#[derive(Debug)]
pub(super) struct Pty {
    master: OwnedFd,
    /// Nobody inside has the terminal open. That may pass: a getty closes and opens it. Meanwhile poll(2) would report
    /// it without end; `edges` only when something changes. Having it open ourselves is no way out: the kernel would
    /// then hang it up when the init process ends, and throw unread output away.
    hung_up: bool,
    /// The master in edge-triggered form, made at the first hang-up; epoll(7).
    edges: Option<OwnedFd>,
}

impl Pty {
    /// Takes `master`, which nobody else may have open, and sets the terminal up before anything is written to it.
    pub(super) fn new(master: OwnedFd, newlines: Newlines) -> Result<Self, Errno> {
        let flags = rustix::fs::fcntl_getfl(&master)?;
        rustix::fs::fcntl_setfl(&master, flags | OFlags::NONBLOCK)?;
        if newlines == Newlines::Outside {
            let mut modes = rustix::termios::tcgetattr(&master)?;
            modes.output_modes.remove(OutputModes::ONLCR);
            rustix::termios::tcsetattr(&master, OptionalActions::Now, &modes)?;
        }
        Ok(Self { master, hung_up: false, edges: None })
    }

    /// What to wait for in order to do `interest`: the descriptor and its events.
    pub(super) fn polled(&self, interest: PollFlags) -> (BorrowedFd<'_>, PollFlags) {
        match &self.edges {
            Some(edges) if self.hung_up => (edges.as_fd(), PollFlags::IN),
            _ => (self.master.as_fd(), interest),
        }
    }

    pub(super) fn is_hung_up(&self) -> bool {
        self.hung_up
    }

    /// To be called when what [`Pty::polled`] named is ready.
    pub(super) fn wake(&mut self) -> Result<(), Errno> {
        if let Some(edges) = &self.edges
            && self.hung_up
        {
            let mut events = Vec::with_capacity(1);
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            rustix::io::retry_on_intr(|| epoll::wait(edges, spare_capacity(&mut events), Some(&now)))?;
        }
        self.hung_up = false;
        Ok(())
    }

    /// Reads what the container has written, once.
    pub(super) fn read(&mut self, into: &mut Buffer) -> Result<Outcome, Errno> {
        match into.fill(&self.master) {
            Ok(0) | Err(Errno::IO) => self.hang_up(),
            Ok(_) => Ok(Outcome::Moved),
            Err(Errno::AGAIN) => Ok(Outcome::Nothing),
            Err(errno) => Err(errno),
        }
    }

    /// Writes what is for the container, as much as goes.
    pub(super) fn write(&mut self, from: &mut Buffer) -> Result<Outcome, Errno> {
        match from.drain(&self.master) {
            Err(Errno::IO) => self.hang_up(),
            Ok(()) => Ok(Outcome::Moved),
            Err(Errno::AGAIN) => Ok(Outcome::Nothing),
            Err(errno) => Err(errno),
        }
    }

    fn hang_up(&mut self) -> Result<Outcome, Errno> {
        self.hung_up = true;
        if self.edges.is_none() {
            let edges = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            // Reports the present state once, so that a terminal opened again meanwhile is not missed.
            let events = epoll::EventFlags::IN | epoll::EventFlags::ET;
            epoll::add(&edges, &self.master, epoll::EventData::new_u64(0), events)?;
            self.edges = Some(edges);
        }
        Ok(Outcome::Nothing)
    }

    pub(super) fn resize(&self, size: Winsize) {
        // The terminal may be gone by now, and then needs no size.
        let _ = rustix::termios::tcsetwinsize(&self.master, size);
    }

    /// The byte that means the end of the input to who reads lines; none if bytes are read as they come, or if there is
    /// no such byte; termios(3).
    pub(super) fn end_of_input(&self) -> Option<u8> {
        // The master's modes are the terminal's.
        let modes = rustix::termios::tcgetattr(&self.master).ok()?;
        let byte = modes.special_codes[SpecialCodeIndex::VEOF];
        (modes.local_modes.contains(LocalModes::ICANON) && byte != 0).then_some(byte)
    }
}
