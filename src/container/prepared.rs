//! Writes the state file atomically: a reader finds the old one or the complete new one.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};

use super::files::PREPARED;
use crate::container::state;
use crate::container::state::State;

/// A state file written under its temporary name; removed on drop, unless published.
#[derive(Debug)]
pub struct Prepared<'a> {
    directory: BorrowedFd<'a>,
    is_published: bool,
    /// The path of the final state file, for messages.
    path: PathBuf,
}

impl<'a> Prepared<'a> {
    /// Writes `state` in `directory`, whose `path` is only for messages.
    pub(super) fn write(directory: BorrowedFd<'a>, path: &Path, state: &State) -> Result<Self> {
        let text = serde_json::to_vec(state).context("encode the state")?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(directory, PREPARED, flags, Mode::RUSR | Mode::WUSR);
        let path = path.join(state::FILE);
        let doing = || format!("write {}", path.display());
        let mut made: File = made.with_context(doing)?.into();
        let prepared = Self { directory, is_published: false, path };
        made.write_all(&text).with_context(|| format!("write {}", prepared.path.display()))?;
        Ok(prepared)
    }

    /// Renames it to the state file.
    pub fn publish(mut self) -> Result<()> {
        let renamed = renameat(self.directory, PREPARED, self.directory, state::FILE);
        self.is_published = renamed.is_ok();
        renamed.with_context(|| format!("write {}", self.path.display()))
    }
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        if !self.is_published {
            let _ = unlinkat(self.directory, PREPARED, AtFlags::empty());
        }
    }
}
