//! Learning that the kernel has killed a process of a cgroup for want of memory: `memory.events`, which wakes its poll(2)ers when
//! it changes; cgroup-v2.rst § Memory Interface Files.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, pread};

use super::control_file;

/// Counts the kills in one cgroup and in those below it.
#[derive(Debug)]
pub struct OomWatch {
    /// `None` without the memory controller, and when the cgroup is gone.
    file: Option<OwnedFd>,
    seen: u64,
}

impl OomWatch {
    /// From now on. Without the memory controller there is nothing to watch, and no kill is ever seen.
    pub fn new(path: &Path) -> Result<Self> {
        let name = path.join("memory.events");
        let file = match openat(CWD, &name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => Some(file),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno).with_context(|| format!("open {}", name.display())),
        };
        let mut watch = Self { file, seen: 0 };
        watch.has_killed()?;
        Ok(watch)
    }

    /// What becomes ready with an exceptional condition, POLLPRI, when [`Self::has_killed`] may have another answer.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(|file| file.as_fd())
    }

    /// Whether there was a kill since this was asked last.
    pub fn has_killed(&mut self) -> Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        let mut buffer = [0; 512];
        let length = match pread(file, &mut buffer, 0) {
            Ok(length) => length,
            Err(Errno::NODEV) => {
                self.file = None;
                return Ok(false);
            }
            Err(errno) => return Err(errno).context("read memory.events"),
        };
        let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
        let kills = control_file::value(&text, "oom_kill").and_then(|count| count.parse().ok()).unwrap_or(0);
        let seen = std::mem::replace(&mut self.seen, kills);
        Ok(kills > seen)
    }
}
