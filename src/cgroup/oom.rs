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

/// What the kernel has counted up to now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OomCounts {
    /// How many processes of the cgroup and of those below it were killed for want of memory.
    pub kills: u64,
    /// How often the cgroup's own `memory.max` was reached and there was nothing to give up. Not always a process is killed then.
    pub own: u64,
}

/// That the kernel has killed processes for want of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// How many processes it has killed as far as the cgroup has counted.
    pub kills: u64,
    /// How many of them since somebody has asked for the counts.
    new: u64,
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

    /// Of a container whose first process was ended by SIGKILL. Whom it has killed the kernel tells nobody but its log.
    pub fn of_killed(&self) -> String {
        let count = match self.new {
            1 => "a process".to_owned(),
            count => format!("{count} processes"),
        };
        format!(
            "the container's process was killed, probably by the kernel, which has killed {count} of the container: {self} ({})",
            self.hint()
        )
    }

    /// What to do about it.
    fn hint(&self) -> &'static str {
        match self.limit {
            Some(_) => "raise /linux/resources/memory/limit, or let the program use less",
            None => "the limit of a cgroup above it or below it was reached, or the machine has no more",
        }
    }
}

/// What is counted for this cgroup by now; `None` without the memory controller, or when the cgroup is gone.
pub fn oom_counts(path: &Path) -> Option<OomCounts> {
    counts(control_file::open_dir(path).ok()?.as_fd())
}

fn counts(dir: BorrowedFd<'_>) -> Option<OomCounts> {
    let text = control_file::read(dir, EVENTS).ok()?;
    // There, those of the cgroups below are counted, too: mostly there is none, and no need to look any further.
    let own = match count(&text, "oom") {
        0 => 0,
        _ => control_file::read(dir, "memory.events.local").map_or(0, |text| count(&text, "oom")),
    };
    Some(OomCounts { kills: count(&text, "oom_kill"), own })
}

/// Why the kernel has killed processes in the cgroup or in those below it, if it has since these were its counts.
pub fn shortage(path: &Path, known: OomCounts) -> Option<Shortage> {
    let dir = control_file::open_dir(path).ok()?;
    let now = counts(dir.as_fd())?;
    if now.kills <= known.kills {
        return None;
    }
    let limit = control_file::read(dir.as_fd(), "memory.max").ok().filter(|_| now.own > known.own);
    Some(Shortage {
        kills: now.kills,
        new: now.kills - known.kills,
        limit: limit.map(|limit| limit.trim().to_owned()),
    })
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
        let own = Shortage { kills: 1, new: 1, limit: Some("65536".to_owned()) };
        assert_eq!(own.to_string(), "out of memory: memory.max = 65536");
        assert!(!Shortage { limit: None, ..own }.to_string().contains('='));
        assert_eq!(shortage(Path::new("/nowhere"), OomCounts::default()), None);
    }

    #[test]
    fn what_was_counted_before_is_no_reason() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        let short = |kills, own| shortage(directory.path(), OomCounts { kills, own });
        assert_eq!(oom_counts(directory.path()), None);
        write("memory.events", "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\n");
        write("memory.events.local", "low 0\nhigh 0\nmax 9\noom 1\noom_kill 0\n");
        write("memory.max", "65536\n");
        assert_eq!(oom_counts(directory.path()), Some(OomCounts { kills: 2, own: 1 }));
        let limit = Some("65536".to_owned());
        assert_eq!(short(0, 0), Some(Shortage { kills: 2, new: 2, limit }));
        assert_eq!(short(1, 1), Some(Shortage { kills: 2, new: 1, limit: None }));
        assert_eq!(short(2, 0), None);
    }

    #[test]
    fn who_was_killed_is_not_claimed_to_be_known() {
        let one = Shortage { kills: 3, new: 1, limit: None };
        assert!(
            one.of_killed().contains("probably by the kernel, which has killed a process of the container: ")
        );
        assert!(Shortage { new: 2, ..one }.of_killed().contains("has killed 2 processes of"));
    }
}
