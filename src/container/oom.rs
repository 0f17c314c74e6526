//! Records about a container's OOM kills, beyond the counters of its cgroup.

use std::fs::File;
use std::io::Write as _;

use anyhow::{Context as _, Result};
use rustix::fs::OFlags;

use super::directory::Directory;
use super::files::{OOM_COUNTS, OOM_REPORT, OOM_WATCH};
use super::{Container, NewContainer};
use crate::cgroup;
use crate::cgroup::{OomCounts, OomReport, OomSnapshot};
use crate::container::state;

impl NewContainer {
    /// Records what its cgroup has already counted.
    pub fn note_ooms(&self, counts: OomCounts) -> Result<()> {
        write_counts(&self.directory, counts)
    }
}

impl Container {
    /// The report of an OOM kill in the container, unless it happened before [`Self::note_kill`]. `None` if
    /// there was none, or if systemd has removed the cgroup and no report was saved before that.
    pub fn shortage(&self) -> Option<OomReport> {
        match self.state.cgroup() {
            Some(cgroup) => cgroup::shortage(cgroup, self.known_ooms()),
            None => serde_json::from_slice(&self.directory.read(OOM_REPORT).ok()?).ok(),
        }
    }

    /// Like [`Self::shortage`], from counters read earlier.
    pub fn shortage_in(&self, seen: &OomSnapshot) -> Option<OomReport> {
        seen.shortage(self.known_ooms())
    }

    fn known_ooms(&self) -> OomCounts {
        parse_counts(&String::from_utf8_lossy(&self.directory.read(OOM_COUNTS).unwrap_or_default()))
    }

    /// Saves the report for when the cgroup is gone. On failure, it is lost.
    pub fn note_shortage(&self, shortage: &OomReport) {
        if let Ok(text) = serde_json::to_vec(shortage) {
            let _ = self.directory.write(OOM_REPORT, &text);
        }
    }

    /// Records that the container is about to be killed, so that its end is not attributed to an earlier OOM
    /// kill. A failure does not prevent the kill.
    pub fn note_kill(&self) {
        let counts = self.state.cgroup().and_then(cgroup::oom_counts).unwrap_or_default();
        // With systemd the cgroup may be gone before its counters can be read, so record the request even if
        // they are zero.
        if counts != OomCounts::default() || self.state.systemd.is_some() {
            let _ = write_counts(&self.directory, counts);
        }
    }

    /// For a container in a systemd unit: whether it was killed on request or has been deleted.
    pub fn is_asked_to_end(&self) -> bool {
        self.directory.exists(OOM_COUNTS) || !self.directory.exists(state::FILE)
    }

    /// Opens the file that [`Self::tell_oom_kills`] writes to; it stays readable after the container has been
    /// deleted. `None` if this process may not create it.
    pub fn oom_news(&self) -> Option<File> {
        self.directory.open_file(OOM_WATCH, OFlags::RDWR | OFlags::CREATE).ok()
    }

    /// Tells a watching process how many OOM kills there were, before the cgroup is removed.
    pub fn tell_oom_kills(&self, count: u64) {
        // Usually there is no watcher. If there is one and this fails, it still sees the container exit.
        if let Ok(mut news) = self.directory.open_file(OOM_WATCH, OFlags::WRONLY) {
            let _ = write!(news, "{count}");
        }
    }
}

fn write_counts(directory: &Directory, counts: OomCounts) -> Result<()> {
    let text = format!("{} {}", counts.kills, counts.own);
    let written = directory.write(OOM_COUNTS, text.as_bytes());
    written.with_context(|| format!("write {}", directory.path().join(OOM_COUNTS).display()))
}

/// Older versions wrote only the first of the two numbers.
fn parse_counts(text: &str) -> OomCounts {
    let mut counts = text.split_ascii_whitespace().map(|count| count.parse().unwrap_or(0));
    let mut next = || counts.next().unwrap_or(0);
    OomCounts { kills: next(), own: next() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_as_they_were_written() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::make(root.path(), "c").unwrap();
        let counts = OomCounts { kills: 7, own: 3 };
        write_counts(&directory, counts).unwrap();
        let text = String::from_utf8(directory.read(OOM_COUNTS).unwrap()).unwrap();
        assert_eq!(parse_counts(&text), counts);
        assert_eq!(parse_counts("7"), OomCounts { kills: 7, own: 0 });
        assert_eq!(parse_counts(""), OomCounts::default());
    }
}
