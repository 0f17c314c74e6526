//! The master of the container's pty; pty(7).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFlags, Timespec, epoll};
use rustix::fs::OFlags;
use rustix::termios::{LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Winsize};

use super::stream::Buffer;
use super::user::Newlines;
use crate::sys::Errno;

/// The result of an attempt to read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Bytes were transferred.
    Moved,
    /// Nothing can be transferred now.
    Nothing,
}

#[derive(Debug)]
pub(super) struct Pty {
    master: OwnedFd,
    /// No process inside has the terminal open. This can be temporary: a getty closes and reopens it.
    /// Meanwhile, poll(2) would return immediately all the time; `edges` reports only changes. Keeping the
    /// other end open ourselves is no solution: the kernel would then hang up the terminal when the init
    /// process exits, and discard unread output.
    hung_up: bool,
    /// An edge-triggered epoll instance for the master, made at the first hang-up; epoll(7).
    edges: Option<OwnedFd>,
}

impl Pty {
    /// Takes `master`, which no other process may have open, and sets the terminal's modes before anything is
    /// written to it.
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

    /// The descriptor and events to poll for `interest`.
    pub(super) fn polled(&self, interest: PollFlags) -> (BorrowedFd<'_>, PollFlags) {
        match &self.edges {
            Some(edges) if self.hung_up => (edges.as_fd(), PollFlags::IN),
            _ => (self.master.as_fd(), interest),
        }
    }

    pub(super) fn is_hung_up(&self) -> bool {
        self.hung_up
    }

    /// Must be called when the descriptor from [`Pty::polled`] is ready.
    pub(super) fn wake(&mut self) -> Result<(), Errno> {
        if let Some(edges) = &self.edges {
            if self.hung_up {
                let mut events = Vec::with_capacity(1);
                let now = Timespec { tv_sec: 0, tv_nsec: 0 };
                rustix::io::retry_on_intr(|| epoll::wait(edges, spare_capacity(&mut events), Some(&now)))?;
            }
        }
        self.hung_up = false;
        Ok(())
    }

    /// Reads output of the container once.
    pub(super) fn read(&mut self, into: &mut Buffer) -> Result<Outcome, Errno> {
        match into.fill(&self.master) {
            Ok(0) | Err(Errno::IO) => self.hang_up(),
            Ok(_) => Ok(Outcome::Moved),
            Err(Errno::AGAIN) => Ok(Outcome::Nothing),
            Err(errno) => Err(errno),
        }
    }

    /// Writes as much input for the container as possible.
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
            // Reports the current state once, so that a reopen in the meantime is not missed.
            let events = epoll::EventFlags::IN | epoll::EventFlags::ET;
            epoll::add(&edges, &self.master, epoll::EventData::new_u64(0), events)?;
            self.edges = Some(edges);
        }
        Ok(Outcome::Nothing)
    }

    pub(super) fn resize(&self, size: Winsize) {
        // Fails if the terminal is gone, and then needs no size.
        let _ = rustix::termios::tcsetwinsize(&self.master, size);
    }

    /// The end-of-file character for programs that read lines; `None` in non-canonical mode or if it is
    /// disabled; termios(3).
    pub(super) fn end_of_input(&self) -> Option<u8> {
        // The master returns the modes of the terminal.
        let modes = rustix::termios::tcgetattr(&self.master).ok()?;
        let byte = modes.special_codes[SpecialCodeIndex::VEOF];
        (modes.local_modes.contains(LocalModes::ICANON) && byte != 0).then_some(byte)
    }
}
