//! Waiting for changes of a cgroup: poll(2) on `cgroup.events`; cgroup-v2.rst § Core Interface Files.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, pread};

use super::control_file;

/// The open `cgroup.events` of a cgroup.
#[derive(Debug)]
pub(super) struct Events(OwnedFd);

impl Events {
    /// Opens the file; `None` if the cgroup is gone.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, Errno> {
        match openat(CWD, path.join("cgroup.events"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => Ok(Some(Self(file))),
            Err(Errno::NOENT | Errno::NODEV) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Waits until `key` has this value; returns false if it does not before the deadline. Returns true at
    /// once if the cgroup is gone.
    pub(super) fn wait_until(&self, key: &str, value: &str, deadline: Instant) -> Result<bool, Errno> {
        loop {
            let mut buffer = [0; 256];
            let length = match pread(&self.0, &mut buffer, 0) {
                Ok(length) => length,
                Err(Errno::NODEV) => return Ok(true),
                Err(errno) => return Err(errno),
            };
            let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
            if control_file::value(&text, key).is_none_or(|now| now == value) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.wait(left)?;
        }
    }

    /// Waits at most this long for a change since the last read.
    pub(super) fn wait(&self, at_most: Duration) -> Result<(), Errno> {
        let timeout = Timespec::try_from(at_most).map_err(|_| Errno::OVERFLOW)?;
        match poll(&mut [PollFd::new(&self.0, PollFlags::PRI)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}
