//! Writing the state file, so that a reader finds the one before or the new one, and a whole one.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};

use crate::state::{self, State};

/// What is to be the state file.
pub(super) const NAME: &str = ".state.json";

/// A state file that has been written and that nobody finds yet; removed on drop, unless published.
#[derive(Debug)]
pub struct Prepared<'a> {
    /// From where the two names lead to their files.
    from: BorrowedFd<'a>,
    /// `None` once it is published.
    temporary: Option<PathBuf>,
    file: PathBuf,
    /// The path of that file, for messages.
    path: PathBuf,
}

impl<'a> Prepared<'a> {
    /// In the directory at `path`, to which `way` leads from `from`.
    pub(super) fn write(from: BorrowedFd<'a>, way: &Path, path: &Path, state: &State) -> Result<Self> {
        let (temporary, file) = (way.join(NAME), way.join(state::FILE));
        let text = serde_json::to_vec(state).context("encode the state")?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(from, &temporary, flags, Mode::RUSR | Mode::WUSR);
        let path = path.join(state::FILE);
        let doing = || format!("write {}", path.display());
        let mut made: File = made.with_context(doing)?.into();
        let prepared = Self { from, temporary: Some(temporary), file, path };
        made.write_all(&text).with_context(|| format!("write {}", prepared.path.display()))?;
        Ok(prepared)
    }

    /// Makes it the state file.
    pub fn publish(mut self) -> Result<()> {
        let Some(temporary) = self.temporary.take() else { return Ok(()) };
        let renamed = renameat(self.from, &temporary, self.from, &self.file);
        if renamed.is_err() {
            let _ = unlinkat(self.from, &temporary, AtFlags::empty());
        }
        renamed.with_context(|| format!("write {}", self.path.display()))
    }
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            let _ = unlinkat(self.from, temporary, AtFlags::empty());
        }
    }
}
