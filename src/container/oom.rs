//! What is known of a container's being killed for want of memory beside what its cgroup counts.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Container, NewContainer};
use crate::cgroup::{self, Shortage};

/// How many of the kills for want of memory that its cgroup counts are no reason for the container's end; missing for none.
pub(super) const OOM_KILLS: &str = "oom-kills";

/// There if somebody wants to hear of kills for want of memory: how many there were, from whoever takes the cgroup away.
const OOM_NEWS: &str = "oom-news";

impl NewContainer {
    /// Notes how many kills for want of memory its cgroup counts already.
    pub fn note_oom_kills(&self, count: u64) -> Result<()> {
        write_oom_kills(&self.path, count)
    }
}

impl Container {
    /// Why the kernel has killed a process of the container for want of memory, if it has, unless it was before somebody asked
    /// for the container's end with [`Self::note_kill`].
    pub fn shortage(&self) -> Option<Shortage> {
        let cgroup = self.state.cgroup()?;
        let known = fs::read_to_string(self.directory.join(OOM_KILLS)).unwrap_or_default();
        cgroup::shortage(cgroup, known.parse().unwrap_or(0))
    }

    /// Notes that the container is about to be killed, so that its end is not put down to what the kernel has killed before. If
    /// that cannot be noted it is killed all the same.
    pub fn note_kill(&self) {
        let count = self.state.cgroup().map_or(0, cgroup::oom_kills);
        if count > 0 {
            let _ = write_oom_kills(&self.directory, count);
        }
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

fn write_oom_kills(directory: &Path, count: u64) -> Result<()> {
    let path = directory.join(OOM_KILLS);
    fs::write(&path, count.to_string()).with_context(|| format!("write {}", path.display()))
}
