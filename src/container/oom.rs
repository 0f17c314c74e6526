//! What is known of a container's being killed for want of memory beside what its cgroup counts.

use std::fs::File;
use std::io::Write as _;

use anyhow::{Context as _, Result};
use rustix::fs::OFlags;

use super::directory::Directory;
use super::files::{OOM_COUNTS, OOM_NEWS, SHORTAGE};
use super::{Container, NewContainer};
use crate::cgroup;
use crate::cgroup::{OomCounts, OomReport, OomSeen};
use crate::container::state;

impl NewContainer {
    /// Notes what its cgroup has counted already.
    pub fn note_ooms(&self, counts: OomCounts) -> Result<()> {
        write_counts(&self.directory, counts)
    }
}

impl Container {
    /// Why the kernel has killed a process of the container for want of memory, if it has, unless it was before somebody asked
    /// for the container's end with [`Self::note_kill`]. If systemd has taken its cgroup away, that is known only if somebody has
    /// noted it.
    pub fn shortage(&self) -> Option<OomReport> {
        match self.state.cgroup() {
            Some(cgroup) => cgroup::shortage(cgroup, self.known_ooms()),
            None => serde_json::from_slice(&self.directory.read(SHORTAGE).ok()?).ok(),
        }
    }

    /// The same, by what was seen in its cgroup.
    pub fn shortage_in(&self, seen: &OomSeen) -> Option<OomReport> {
        seen.shortage(self.known_ooms())
    }

    fn known_ooms(&self) -> OomCounts {
        parse_counts(&String::from_utf8_lossy(&self.directory.read(OOM_COUNTS).unwrap_or_default()))
    }

    /// Notes it for later, when its cgroup is gone. If that fails nothing is known then.
    pub fn note_shortage(&self, shortage: &OomReport) {
        if let Ok(text) = serde_json::to_vec(shortage) {
            let _ = self.directory.write(SHORTAGE, &text);
        }
    }

    /// Notes that the container is about to be killed, so that its end is not put down to what the kernel has killed before. If
    /// that cannot be noted it is killed all the same.
    pub fn note_kill(&self) {
        let counts = self.state.cgroup().and_then(cgroup::oom_counts).unwrap_or_default();
        // Where what is counted later may not be there to be seen, that somebody asked says something, too.
        if counts != OomCounts::default() || self.state.systemd.is_some() {
            let _ = write_counts(&self.directory, counts);
        }
    }

    /// Of a container of systemd's: whether somebody has asked for its end, or has deleted it.
    pub fn is_asked_to_end(&self) -> bool {
        self.directory.exists(OOM_COUNTS) || !self.directory.exists(state::FILE)
    }

    /// Where [`Self::tell_oom_kills`] tells it, also after everything else is gone; `None` if this process may not ask.
    pub fn oom_news(&self) -> Option<File> {
        self.directory.open_file(OOM_NEWS, OFlags::RDWR | OFlags::CREATE).ok()
    }

    /// Tells whoever watches how many kills there were, before the cgroup that counts them is removed.
    pub fn tell_oom_kills(&self, count: u64) {
        // Nearly always nobody watches. Whoever does hears of the end in any case.
        if let Ok(mut news) = self.directory.open_file(OOM_NEWS, OFlags::WRONLY) {
            let _ = write!(news, "{count}");
        }
    }
}

fn write_counts(directory: &Directory, counts: OomCounts) -> Result<()> {
    let text = format!("{} {}", counts.kills, counts.own);
    let written = directory.write(OOM_COUNTS, text.as_bytes());
    written.with_context(|| format!("write {}", directory.path().join(OOM_COUNTS).display()))
}

/// Older versions of this program have written the first of the two alone.
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
