//! Relays bytes from one descriptor to another through a bounded buffer.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags};

use crate::sys::Errno;

/// The size of a buffer in bytes: what a pipe accepts without blocking if poll(2) reports it as writable;
/// PIPE_BUF, pipe(7).
const CAPACITY: usize = 4096;

/// Returns a descriptor of our own for standard stream `fd`, to be used when poll(2) reports it as ready.
///
/// The open file is shared with the user's shell and must not become non-blocking. A terminal is therefore
/// reopened with `access`: a write to it could block even after poll(2), and so could a read if another
/// process reads, too. Other kinds of files transfer [`CAPACITY`] bytes without blocking once they are ready.
pub(super) fn own(fd: BorrowedFd<'_>, access: OFlags) -> Result<OwnedFd, Errno> {
    if rustix::termios::isatty(fd) {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // Another user's terminal, as after su(1), cannot be opened; then reads and writes may block.
        if let Ok(opened) = rustix::fs::open(path, flags, Mode::empty()) {
            return Ok(opened);
        }
    }
    rustix::io::fcntl_dupfd_cloexec(fd, 0)
}

/// Bytes that have been read but not written yet.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    written: usize,
    /// Whether the last byte read so far was not a newline.
    within_line: bool,
}

impl Buffer {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::with_capacity(CAPACITY), written: 0, within_line: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.written >= self.bytes.len()
    }

    /// Reads once into the empty buffer. Returns the number of bytes, 0 at end of file.
    pub(super) fn fill(&mut self, from: impl AsFd) -> Result<usize, Errno> {
        self.bytes.clear();
        self.written = 0;
        let length = rustix::io::retry_on_intr(|| rustix::io::read(&from, spare_capacity(&mut self.bytes)))?;
        self.within_line = self.bytes.last().map_or(self.within_line, |byte| *byte != b'\n');
        Ok(length)
    }

    /// Writes once, as much as possible.
    pub(super) fn drain(&mut self, to: impl AsFd) -> Result<(), Errno> {
        let pending = self.bytes.get(self.written..).unwrap_or_default();
        self.written =
            self.written.saturating_add(rustix::io::retry_on_intr(|| rustix::io::write(&to, pending))?);
        Ok(())
    }

    /// Appends a byte of our own.
    pub(super) fn push(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// Whether the bytes read so far end in the middle of a line.
    pub(super) fn ends_within_line(&self) -> bool {
        self.within_line
    }
}
