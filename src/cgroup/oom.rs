//! Detecting OOM kills in a cgroup: `memory.events`, which can be polled for changes; cgroup-v2.rst § Memory
//! Interface Files.
//!
//! Its `oom_kill` counts the processes that were killed in this cgroup and below it, whichever cgroup's limit
//! was hit. In `memory.events.local`, `oom` counts how often this cgroup's own limit was hit.

use std::fmt;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, pread};
use serde::{Deserialize, Serialize};

use super::control_file;
use crate::error::Hint;

const EVENTS: &str = "memory.events";
const LOCAL: &str = "memory.events.local";
const MAX: &str = "memory.max";
const POPULATED: &str = "cgroup.events";

/// The kernel's OOM counters of a cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OomCounts {
    /// How many processes were OOM-killed in the cgroup and below it.
    pub kills: u64,
    /// How often the cgroup's own `memory.max` was hit and nothing could be reclaimed. A process is not
    /// killed every time.
    pub own: u64,
}

/// A report of OOM kills.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomReport {
    /// How many processes were killed in all, as counted by the cgroup.
    pub kills: u64,
    /// How many of them since the counters were last read.
    new: u64,
    /// The cgroup's `memory.max`, if it was hit. Otherwise it was the limit of an ancestor or descendant, or
    /// the host ran out of memory.
    limit: Option<String>,
}

impl fmt::Display for OomReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.limit {
            Some(limit) => write!(f, "out of memory: memory.max = {limit}"),
            None => f.write_str("out of memory: the container's own memory.max was not reached"),
        }
    }
}

impl OomReport {
    /// The error for an init process that was killed before it started the program. runc's wording.
    pub fn of_init(&self) -> anyhow::Error {
        let doing = "container init was OOM-killed (memory limit too low?)";
        anyhow::anyhow!("{self}").context(Hint(doing.to_owned(), self.hint().to_owned()))
    }

    /// The message for a container whose first process was killed by SIGKILL. The kernel reports only in its
    /// log which processes were OOM-killed.
    pub fn of_killed(&self) -> String {
        let (count, hint) = (counted(self.new), self.hint());
        format!(
            "container init was killed, probably by the OOM killer, which killed {count} in the \
             container: {self} ({hint})"
        )
    }

    /// What to do about it.
    fn hint(&self) -> &'static str {
        match self.limit {
            Some(_) => "raise /linux/resources/memory/limit, or reduce the program's memory usage",
            None => "the limit of a parent or child cgroup was reached, or the host is out of memory",
        }
    }
}

/// Reads the counters; `None` without the memory controller, or if the cgroup is gone.
pub fn oom_counts(path: &Path) -> Option<OomCounts> {
    counts(control_file::open_dir(path).ok()?.as_fd())
}

fn counts(dir: BorrowedFd<'_>) -> Option<OomCounts> {
    let text = control_file::read(dir, EVENTS).ok()?;
    // This counts descendants, too. It is usually zero, and then there is no need to read the local file.
    let own = match count(&text, "oom") {
        0 => 0,
        _ => control_file::read(dir, LOCAL).map_or(0, |text| count(&text, "oom")),
    };
    Some(OomCounts { kills: count(&text, "oom_kill"), own })
}

/// Returns a report if there were OOM kills in the cgroup or below it since `known` was read.
pub fn shortage(path: &Path, known: OomCounts) -> Option<OomReport> {
    let dir = control_file::open_dir(path).ok()?;
    let counts = counts(dir.as_fd())?;
    let limit = if counts.own > known.own { control_file::read(dir.as_fd(), MAX).ok() } else { None };
    OomSnapshot { counts, limit, is_last: false }.shortage(known)
}

/// The counters of one cgroup, held open so that they can be read quickly: systemd removes a scope's cgroup
/// when its last process has exited. Both learn of that from `cgroup.events`: poll(2) at once, systemd's
/// inotify(7) through a kernel worker.
#[derive(Debug)]
pub struct OomFiles {
    populated: OwnedFd,
    local: OwnedFd,
    max: OwnedFd,
    events: OwnedFd,
}

/// A snapshot of [`OomFiles`].
#[derive(Clone, Debug)]
pub struct OomSnapshot {
    counts: OomCounts,
    limit: Option<String>,
    /// Whether the cgroup was empty, so that nothing could be killed any more.
    is_last: bool,
}

impl OomFiles {
    /// Opens the files; `None` without the memory controller, or if the cgroup is gone.
    pub fn open(path: &Path) -> Option<Self> {
        let dir = control_file::open_dir(path).ok()?;
        let open = |name| openat(&dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok();
        let [populated, local, max, events] = [POPULATED, LOCAL, MAX, EVENTS].map(open);
        Some(Self { populated: populated?, local: local?, max: max?, events: events? })
    }

    /// Reads the counters; `None` if the cgroup is gone, and its counts with it.
    pub fn look(&self) -> Option<OomSnapshot> {
        // The order matters: nothing is killed after the last process has exited, and if the last file can be
        // read, so could the others.
        let is_last = control_file::value(&text(&self.populated).ok()?, "populated") == Some("0");
        let own = count(&text(&self.local).ok()?, "oom");
        let limit = text(&self.max).ok()?;
        let kills = count(&text(&self.events).ok()?, "oom_kill");
        Some(OomSnapshot { counts: OomCounts { kills, own }, limit: Some(limit), is_last })
    }
}

/// Watches a cgroup that may be removed as soon as its last process has exited.
///
/// The parent cgroup, which stays, counts the same kills, but also those of sibling cgroups.
#[derive(Debug)]
pub struct OomMonitor {
    /// `None` once the cgroup is gone.
    files: Option<OomFiles>,
    seen: Option<OomSnapshot>,
    /// `memory.events` of the parent, unless that is the root, which has none.
    above: Option<OwnedFd>,
    seen_above: u64,
}

impl OomMonitor {
    /// Starts watching the cgroup at `path`, whose files these are.
    pub fn new(files: OomFiles, path: &Path) -> Self {
        let above = path.parent().and_then(|above| {
            openat(CWD, above.join(EVENTS), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
        });
        let mut witness = Self { files: Some(files), seen: None, above, seen_above: 0 };
        // A file that has never been read polls as changed.
        witness.look();
        witness
    }

    /// The descriptors to poll for POLLPRI, after which [`Self::look`] is due.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let files = self.files.iter().flat_map(|files| [&files.populated, &files.events]);
        // The parent's, too, so that kills in sibling cgroups are not counted as missed ones later.
        files.chain(self.above.iter().filter(|_| self.files.is_some())).map(|file| file.as_fd())
    }

    pub fn look(&mut self) {
        // First, so that kills between the two reads are not missed.
        let above = self.count_above();
        match self.files.as_ref().and_then(OomFiles::look) {
            Some(seen) => {
                self.seen = Some(seen);
                self.seen_above = above.unwrap_or(0);
            }
            None => self.files = None,
        }
    }

    fn count_above(&self) -> Option<u64> {
        Some(count(&text(self.above.as_ref()?).ok()?, "oom_kill"))
    }

    /// Returns the last snapshot. There may have been kills after it.
    pub fn seen(&self) -> Option<&OomSnapshot> {
        self.seen.as_ref()
    }

    /// Returns how many kills may have been missed, provided that [`Self::look`] was called after the first
    /// process had exited: the kills below the parent cgroup since the last successful look. `None` if
    /// unknown.
    pub fn missed(&self) -> Option<u64> {
        match self.files.is_some() || self.seen.as_ref().is_some_and(|seen| seen.is_last) {
            true => Some(0),
            false => self.count_above().map(|count| count.saturating_sub(self.seen_above)),
        }
    }
}

impl OomSnapshot {
    /// Returns a report if there were OOM kills since `known` was read.
    pub fn shortage(&self, known: OomCounts) -> Option<OomReport> {
        let Self { counts, limit, .. } = self;
        let new = counts.kills.checked_sub(known.kills).filter(|new| *new > 0)?;
        let limit = limit.as_ref().filter(|_| counts.own > known.own).map(|limit| limit.trim().to_owned());
        Some(OomReport { kills: counts.kills, new, limit })
    }
}

/// Reads a control file; the ones read here are short.
fn text(file: &OwnedFd) -> Result<String, Errno> {
    let mut buffer = [0; 512];
    let length = pread(file, &mut buffer, 0)?;
    Ok(String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned())
}

/// Formats a number of processes.
pub fn counted(count: u64) -> String {
    match count {
        1 => "1 process".to_owned(),
        count => format!("{count} processes"),
    }
}

fn count(text: &str, key: &str) -> u64 {
    control_file::value(text, key).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Counts the OOM kills in a cgroup and below it.
#[derive(Debug)]
pub struct OomWatch {
    /// `None` without the memory controller, or if the cgroup is gone.
    file: Option<OwnedFd>,
    /// Polled as well, because systemd removes an empty cgroup, and the kernel delays notifications for the
    /// other file by up to 10 ms.
    populated: Option<OwnedFd>,
    seen: u64,
}

impl OomWatch {
    /// Starts watching. Without the memory controller, no kill is ever reported.
    pub fn new(path: &Path) -> Result<Self> {
        let open = |name| {
            let path = path.join(name);
            match openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
                Ok(file) => Ok(Some(file)),
                Err(Errno::NOENT) => Ok(None),
                Err(errno) => Err(errno).with_context(|| format!("open {}", path.display())),
            }
        };
        let mut watch = Self { file: open(EVENTS)?, populated: open(POPULATED)?, seen: 0 };
        watch.has_killed()?;
        Ok(watch)
    }

    /// The descriptors to poll for POLLPRI, after which [`Self::has_killed`] is due.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.file.iter().chain(&self.populated).map(|file| file.as_fd())
    }

    /// Returns how many kills there were at the last [`Self::has_killed`].
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Whether there was a kill since the last call.
    pub fn has_killed(&mut self) -> Result<bool> {
        // Reading the file makes poll(2) wait for the next change.
        self.populated.take_if(|file| text(file).is_err());
        let Some(file) = &self.file else { return Ok(false) };
        let text = match text(file) {
            Ok(text) => text,
            Err(Errno::NODEV) => {
                self.file = None;
                return Ok(false);
            }
            Err(errno) => return Err(errno).context("read memory.events"),
        };
        let kills = count(&text, "oom_kill");
        let seen = std::mem::replace(&mut self.seen, kills);
        Ok(kills > seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes the files of a cgroup and its parent, with these numbers of kills; returns the cgroup's path.
    fn write(above: &Path, populated: u32, kills: u32, kills_above: u32) -> std::path::PathBuf {
        let path = above.join("c");
        std::fs::create_dir_all(&path).unwrap();
        for (name, text) in [
            ("c/cgroup.events", format!("populated {populated}\nfrozen 0\n")),
            ("c/memory.events.local", format!("oom {kills}\n")),
            ("c/memory.max", "4096\n".to_owned()),
            ("c/memory.events", format!("oom {kills}\noom_kill {kills}\n")),
            ("memory.events", format!("oom_kill {kills_above}\n")),
        ] {
            // Written in place, because the files are open.
            std::fs::write(above.join(name), text).unwrap();
        }
        path
    }

    #[test]
    fn a_witness_has_missed_nothing_that_it_saw_and_asks_above_for_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let path = write(directory.path(), 1, 0, 5);
        let mut witness = OomMonitor::new(OomFiles::open(&path).unwrap(), &path);
        let shortage =
            |witness: &OomMonitor| witness.seen().and_then(|seen| seen.shortage(OomCounts::default()));
        assert_eq!((shortage(&witness), witness.fds().count(), witness.missed()), (None, 3, Some(0)));
        write(directory.path(), 1, 1, 6);
        witness.look();
        let expected = OomReport { kills: 1, new: 1, limit: Some("4096".to_owned()) };
        assert_eq!((shortage(&witness), witness.missed()), (Some(expected), Some(0)));
        // Now the cgroup disappears before it has been looked at.
        write(directory.path(), 1, 2, 8);
        witness.files = None;
        assert_eq!((witness.fds().count(), witness.missed()), (0, Some(2)));
        witness.above = None;
        assert_eq!(witness.missed(), None);
        // At the last look, the last process had exited.
        write(directory.path(), 0, 2, 8);
        let mut witness = OomMonitor::new(OomFiles::open(&path).unwrap(), &path);
        witness.files = None;
        write(directory.path(), 0, 2, 9);
        assert_eq!(witness.missed(), Some(0));
    }

    #[test]
    fn an_oom_is_no_kill() {
        let text = "low 0\nhigh 0\nmax 6\noom 3\noom_kill 1\noom_group_kill 2\n";
        assert_eq!((count(text, "oom"), count(text, "oom_kill"), count(text, "nothing")), (3, 1, 0));
    }

    #[test]
    fn only_the_own_limit_is_blamed() {
        let own = OomReport { kills: 1, new: 1, limit: Some("65536".to_owned()) };
        assert_eq!(own.to_string(), "out of memory: memory.max = 65536");
        assert!(!OomReport { limit: None, ..own }.to_string().contains('='));
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
        assert_eq!(short(0, 0), Some(OomReport { kills: 2, new: 2, limit }));
        assert_eq!(short(1, 1), Some(OomReport { kills: 2, new: 1, limit: None }));
        assert_eq!(short(2, 0), None);
    }

    #[test]
    fn who_was_killed_is_not_claimed_to_be_known() {
        let one = OomReport { kills: 3, new: 1, limit: None };
        assert!(
            one.of_killed().contains("probably by the OOM killer, which killed 1 process in the container: ")
        );
        assert!(OomReport { new: 2, ..one }.of_killed().contains("killed 2 processes in"));
    }
}
