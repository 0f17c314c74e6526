//! What is known of a container's being killed for want of memory beside what its cgroup counts.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Container, NewContainer};
use crate::cgroup::{self, OomCounts, OomSeen, Shortage};
use crate::input;

/// What its cgroup had counted, [`OomCounts`], when that was no reason for the container's end; missing for nothing.
pub(super) const OOM_COUNTS: &str = "oom-kills";

/// Why the kernel has killed processes, from whoever saw it before the cgroup went.
pub(super) const SHORTAGE: &str = "oom.json";

/// There if somebody wants to hear of kills for want of memory: how many there were, from whoever takes the cgroup away.
const OOM_NEWS: &str = "oom-news";

impl NewContainer {
    /// Notes what its cgroup has counted already.
    pub fn note_ooms(&self, counts: OomCounts) -> Result<()> {
        write_counts(&self.path, counts)
    }
}

impl Container {
    /// Why the kernel has killed a process of the container for want of memory, if it has, unless it was before somebody asked
    /// for the container's end with [`Self::note_kill`]. If systemd has taken its cgroup away, that is known only if somebody has
    /// noted it.
    pub fn shortage(&self) -> Option<Shortage> {
        match self.state.cgroup() {
            Some(cgroup) => cgroup::shortage(cgroup, self.known_ooms()),
            None => serde_json::from_slice(&input::record(&self.directory.join(SHORTAGE)).ok()?).ok(),
        }
    }

    /// The same, by what was seen in its cgroup.
    pub fn shortage_in(&self, seen: &OomSeen) -> Option<Shortage> {
        seen.shortage(self.known_ooms())
    }

    fn known_ooms(&self) -> OomCounts {
        let known = input::record(&self.directory.join(OOM_COUNTS)).unwrap_or_default();
        parse_counts(&String::from_utf8_lossy(&known))
    }

    /// Notes it for later, when its cgroup is gone. If that fails nothing is known then.
    pub fn note_shortage(&self, shortage: &Shortage) {
        if let Ok(text) = serde_json::to_vec(shortage) {
            let _ = fs::write(self.directory.join(SHORTAGE), text);
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
        self.directory.join(OOM_COUNTS).exists() || !self.directory.exists()
    }

    /// Where [`Self::tell_oom_kills`] tells it, also after everything else is gone; `None` if this process may not ask.
    pub fn oom_news(&self) -> Option<File> {
        let path = self.directory.join(OOM_NEWS);
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).ok()
    }

    /// Tells whoever watches how many kills there were, before the cgroup that counts them is removed.
    pub fn tell_oom_kills(&self, count: u64) {
        // Nearly always nobody watches. Whoever does hears of the end in any case.
        if let Ok(mut news) = OpenOptions::new().write(true).open(self.directory.join(OOM_NEWS)) {
            let _ = write!(news, "{count}");
        }
    }
}

fn write_counts(directory: &Path, counts: OomCounts) -> Result<()> {
    let path = directory.join(OOM_COUNTS);
    let text = format!("{} {}", counts.kills, counts.own);
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
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
        let directory = tempfile::tempdir().unwrap();
        let counts = OomCounts { kills: 7, own: 3 };
        write_counts(directory.path(), counts).unwrap();
        let text = fs::read_to_string(directory.path().join(OOM_COUNTS)).unwrap();
        assert_eq!(parse_counts(&text), counts);
        assert_eq!(parse_counts("7"), OomCounts { kills: 7, own: 0 });
        assert_eq!(parse_counts(""), OomCounts::default());
    }
}
