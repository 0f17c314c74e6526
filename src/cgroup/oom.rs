//! Learning that the kernel has killed a process of a cgroup for want of memory: `memory.events`, which wakes its poll(2)ers when
//! it changes; cgroup-v2.rst § Memory Interface Files.
//!
//! There, `oom_kill` counts the processes that were killed, of this cgroup and of those below it, whoever's limit it was that
//! was reached; `memory.events.local` has in `oom` how often it was this cgroup's own.

use std::fmt;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, pread};

use super::control_file;
use crate::error::Hint;

const EVENTS: &str = "memory.events";

/// That the kernel has killed processes for want of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// How many processes it has killed.
    pub kills: u64,
    /// The cgroup's `memory.max`, if that was reached; otherwise it was the limit of a cgroup above it or below it, or all of the
    /// machine's memory.
    limit: Option<String>,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.limit {
            Some(limit) => write!(f, "out of memory: memory.max = {limit}"),
            None => f.write_str("out of memory: not for the container's own memory.max"),
        }
    }
}

impl Shortage {
    /// As an error: it was the init process that was killed, before it was the program. The words are runc's.
    pub fn of_init(&self) -> anyhow::Error {
        let doing = "container init was OOM-killed (memory limit too low?)";
        anyhow::anyhow!("{self}").context(Hint(doing.to_owned(), self.hint().to_owned()))
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self.limit {
            Some(_) => "raise /linux/resources/memory/limit, or let the program use less",
            None => "the limit of a cgroup above it or below it was reached, or the machine has no more",
        }
    }
}

/// How many processes the kernel has killed so far in the cgroup and in those below it for want of memory. None without the
/// memory controller, or when the cgroup is gone.
pub fn kills(path: &Path) -> u64 {
    let text = control_file::open_dir(path).and_then(|dir| control_file::read(dir.as_fd(), EVENTS));
    text.map_or(0, |text| count(&text, "oom_kill"))
}

/// Why the kernel has killed processes in the cgroup or in those below it, if it has killed more than these many.
pub fn shortage(path: &Path, known: u64) -> Option<Shortage> {
    let dir = control_file::open_dir(path).ok()?;
    let read = |name| control_file::read(dir.as_fd(), name);
    let kills = count(&read(EVENTS).ok()?, "oom_kill");
    if kills <= known {
        return None;
    }
    let is_own = read("memory.events.local").is_ok_and(|text| count(&text, "oom") > 0);
    let limit = read("memory.max").ok().filter(|_| is_own).map(|limit| limit.trim().to_owned());
    Some(Shortage { kills, limit })
}

fn count(text: &str, key: &str) -> u64 {
    control_file::value(text, key).and_then(|count| count.parse().ok()).unwrap_or(0)
}

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
        let name = path.join(EVENTS);
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

    /// How many kills there were when [`Self::has_killed`] was asked last.
    pub fn seen(&self) -> u64 {
        self.seen
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
        let kills = count(&text, "oom_kill");
        let seen = std::mem::replace(&mut self.seen, kills);
        Ok(kills > seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_oom_is_no_kill() {
        let text = "low 0\nhigh 0\nmax 6\noom 3\noom_kill 1\noom_group_kill 2\n";
        assert_eq!((count(text, "oom"), count(text, "oom_kill"), count(text, "nothing")), (3, 1, 0));
    }

    #[test]
    fn only_the_own_limit_is_blamed() {
        let own = Shortage { kills: 1, limit: Some("65536".to_owned()) };
        assert_eq!(own.to_string(), "out of memory: memory.max = 65536");
        assert!(!Shortage { kills: 1, limit: None }.to_string().contains('='));
        assert_eq!(shortage(Path::new("/nowhere"), 0), None);
    }
}
