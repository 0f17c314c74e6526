//! Bytes on their way from one descriptor to another, with a bounded buffer between.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags};

use crate::sys::Errno;

/// Bytes in a buffer at most: what a pipe that poll(2) calls writable takes without blocking; PIPE_BUF, pipe(7).
const CAPACITY: usize = 4096;

/// A descriptor of our own for standard stream `fd`, to be used after poll(2) says so.
///
/// The stream's open file is shared with the user's shell and must not become non-blocking. A terminal is therefore
/// opened anew, with `access`: a write to it could block after poll(2), even a read if somebody else reads too. Other
/// kinds take and give [`CAPACITY`] bytes once they are ready.
pub(super) fn own(fd: BorrowedFd<'_>, access: OFlags) -> Result<OwnedFd, Errno> {
    if rustix::termios::isatty(fd) {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // Another user's terminal, as after su(1), cannot be opened; then it may block.
        if let Ok(opened) = rustix::fs::open(path, flags, Mode::empty()) {
            return Ok(opened);
        }
    }
    rustix::io::fcntl_dupfd_cloexec(fd, 0)
}

/// The bytes that have been read and not yet been written.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    written: usize,
    /// Whether the last byte that was ever read did not end a line.
    within_line: bool,
}

impl Buffer {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::with_capacity(CAPACITY), written: 0, within_line: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.written >= self.bytes.len()
    }

    /// Reads once; to be called when it is empty. Returns how much there was: 0 at the end of the file.
    pub(super) fn fill(&mut self, from: impl AsFd) -> Result<usize, Errno> {
        self.bytes.clear();
        self.written = 0;
        let length = rustix::io::retry_on_intr(|| rustix::io::read(&from, spare_capacity(&mut self.bytes)))?;
        self.within_line = self.bytes.last().map_or(self.within_line, |byte| *byte != b'\n');
        Ok(length)
    }

    /// Writes once, as much as goes.
    pub(super) fn drain(&mut self, to: impl AsFd) -> Result<(), Errno> {
        let pending = self.bytes.get(self.written..).unwrap_or_default();
        self.written =
            self.written.saturating_add(rustix::io::retry_on_intr(|| rustix::io::write(&to, pending))?);
        Ok(())
    }

    /// Adds a byte of our own, to be written after the others.
    pub(super) fn push(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// Whether what has been read so far ends inside a line.
    pub(super) fn ends_within_line(&self) -> bool {
        self.within_line
    }
}
