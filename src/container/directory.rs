//! State directories, held open, so that late operations reach the same container even if its path has since
//! been reused.
//!
//! Creating a container (until it is recorded) and removing one require the lock on the directory itself
//! (flock(2)). The lock is released when its owner exits for any reason. Nothing else waits for it: processes
//! that update a recorded container serialise on a lock of their own (`lock.rs`).
//!
//! A new directory is locked under a temporary name that is not a valid container ID, then renamed with
//! renameat2(2) and RENAME_NOREPLACE. So it is locked from the moment it becomes visible, and the process
//! that created it knows that it owns it. A `create` killed before the rename leaves an empty directory
//! behind, which [`Directory::clear_unnamed`] removes.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use rustix::event::{Timespec, poll};
use rustix::fs::{
    Access, AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags, accessat, flock, fstat, mkdirat, openat,
    renameat, renameat_with, statat, unlinkat,
};
use rustix::io::{Errno, retry_on_intr};

use super::files::{CGROUP, EXCERPT, FIFO, LOCK_FILE, OOM_COUNTS, OOM_REPORT, PREPARED, TRACER, UNIT};
use crate::bundle::input;
use crate::container::state;

/// The prefix of the temporary names of new directories. Container IDs cannot contain `@`.
const UNNAMED: &str = ".new@";

/// How often to retry when a new directory is removed before it has its final name.
const TRIES: u32 = 100;

/// The shortest and longest pause between attempts to take the lock; flock(2) has no timeout.
const BETWEEN_LOOKS: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(20));

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

#[derive(Debug, Default)]
pub(super) struct Directory {
    path: PathBuf,
    /// `None` once [`Self::let_go`] has closed it; then only the path is known.
    held: Option<OwnedFd>,
}

impl Directory {
    /// Creates and locks the directory of a new container.
    ///
    /// # Errors
    /// `EEXIST` if the name is already in use.
    pub(super) fn make(root: &Path, name: &str) -> Result<Self, Errno> {
        let path = root.join(name);
        let mut tries = 0;
        loop {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos());
            let unnamed = root.join(format!("{UNNAMED}{}.{now}", std::process::id()));
            let made = mkdirat(CWD, &unnamed, Mode::from_raw_mode(0o711));
            tries += 1;
            match made.and_then(|()| lock_and_name(&unnamed, &path)) {
                Ok(held) => return Ok(Self { path, held: Some(held) }),
                // Another process took it for the leftover of a killed `create`. If the root itself is
                // missing, mkdir has failed and there is no retry.
                Err(Errno::NOENT | Errno::WOULDBLOCK) if made.is_ok() && tries < TRIES => {}
                // The name is taken: the clock has not advanced, or a process in another pid namespace has
                // the same pid.
                Err(Errno::EXIST) if made.is_err() && tries < TRIES => {}
                Err(errno) => {
                    if made.is_ok() {
                        let _ = unlinkat(CWD, &unnamed, AtFlags::REMOVEDIR);
                    }
                    return Err(errno);
                }
            }
        }
    }

    /// Opens an existing directory.
    ///
    /// # Errors
    /// `ENOENT` or `ENOTDIR` if it does not exist.
    pub(super) fn open(path: PathBuf) -> Result<Self, Errno> {
        let held = openat(CWD, &path, OPEN, Mode::empty())?;
        Ok(Self { path, held: Some(held) })
    }

    /// Removes the leftovers of any `create` that was killed before it renamed its directory. A `create` that
    /// loses its directory to this just before locking it makes another.
    pub(super) fn clear_unnamed(root: &Path) {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(UNNAMED)) {
                if let Ok(directory) = Self::open(entry.path()) {
                    if directory.lock(Duration::ZERO).is_ok_and(|is_locked| is_locked) {
                        let _ = unlinkat(CWD, entry.path(), AtFlags::REMOVEDIR);
                    }
                }
            }
        }
    }

    /// Duplicates the descriptor; the duplicate shares the lock.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { path: self.path.clone(), held: self.held.as_ref().map(OwnedFd::try_clone).transpose()? })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A path that refers to this directory as long as it is held open, even after a rename.
    pub(super) fn held_path(&self) -> PathBuf {
        self.held
            .as_ref()
            .map_or_else(|| self.path.clone(), |held| format!("/proc/self/fd/{}", held.as_raw_fd()).into())
    }

    /// Closes the descriptor, for commands that only list containers and could otherwise run out of
    /// descriptors.
    pub(super) fn let_go(&mut self) {
        self.held = None;
    }

    /// The directory descriptor and path to use for `name` in an `*at` system call.
    pub(super) fn way(&self, name: &str) -> (BorrowedFd<'_>, PathBuf) {
        match &self.held {
            Some(held) => (held.as_fd(), name.into()),
            None => (CWD, self.path.join(name)),
        }
    }

    pub(super) fn open_file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let (from, way) = self.way(name);
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(from, way, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    pub(super) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        input::opened_record(self.open_file(name, input::RECORD)?.into())
    }

    pub(super) fn write(&self, name: &str, text: &[u8]) -> io::Result<()> {
        self.open_file(name, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)?.write_all(text)
    }

    pub(super) fn exists(&self, name: &str) -> bool {
        let (from, way) = self.way(name);
        accessat(from, way, Access::EXISTS, AtFlags::empty()).is_ok()
    }

    pub(super) fn unlink(&self, name: &str) -> Result<(), Errno> {
        let (from, way) = self.way(name);
        unlinkat(from, way, AtFlags::empty())
    }

    /// Tries to take the lock for up to `patience`. It is held until [`Self::unlock`] or until this process
    /// exits.
    ///
    /// Returns `false` if the lock is still taken, or if the directory has been let go.
    pub(super) fn lock(&self, patience: Duration) -> Result<bool> {
        let Some(held) = &self.held else { return Ok(false) };
        let (mut pause, longest) = BETWEEN_LOOKS;
        let deadline = Instant::now() + patience;
        loop {
            match retry_on_intr(|| flock(held, FlockOperation::NonBlockingLockExclusive)) {
                Ok(()) => return Ok(true),
                Err(Errno::WOULDBLOCK) if patience.is_zero() || Instant::now() >= deadline => {
                    return Ok(false);
                }
                Err(Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(errno).with_context(|| format!("lock {}", self.path.display())),
            }
            let _ = poll(&mut [], Timespec::try_from(pause).ok().as_ref());
            pause = (pause * 2).min(longest);
        }
    }

    pub(super) fn unlock(&self) {
        if let Some(held) = &self.held {
            let _ = flock(held, FlockOperation::Unlock);
        }
    }

    /// Checks the owner.
    ///
    /// # Errors
    /// If the directory belongs to a user who could have put anything into it; see [`input::is_trusted`].
    pub(super) fn require_trusted(&self) -> Result<()> {
        let owner = match &self.held {
            Some(held) => fstat(held).with_context(|| format!("stat {}", self.path.display()))?.st_uid,
            None => return Ok(()),
        };
        match input::is_trusted(owner) {
            true => Ok(()),
            false => bail!("{} is owned by untrusted user {owner}", self.path.display()),
        }
    }

    /// Whether the path still refers to this directory. While the lock is held, the answer cannot change.
    pub(super) fn is_current(&self) -> Result<bool> {
        let Some(held) = &self.held else { return Ok(false) };
        let look = || Ok((fstat(held)?, statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW)?));
        match look() {
            Ok((own, found)) => Ok((own.st_dev, own.st_ino) == (found.st_dev, found.st_ino)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(errno) => Err(errno).with_context(|| format!("stat {}", self.path.display())),
        }
    }

    /// Removes the directory, which must be locked and current: first the usual files by name, which is
    /// faster, then whatever else is in it.
    ///
    /// The state file is the last of the files that every container has: if removal fails before that, the
    /// leftovers still have a record.
    pub(super) fn remove(&self) -> Result<()> {
        for name in [EXCERPT, FIFO, CGROUP, state::FILE] {
            let _ = self.unlink(name);
        }
        let remove = || unlinkat(CWD, &self.path, AtFlags::REMOVEDIR);
        let removed = match remove() {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                // Not every container has these.
                for name in [UNIT, TRACER, OOM_COUNTS, OOM_REPORT, PREPARED, LOCK_FILE] {
                    let _ = self.unlink(name);
                }
                let all = || fs::remove_dir_all(&self.path);
                // Retry in case an update that is being recorded creates a file meanwhile.
                remove().map_err(io::Error::from).or_else(|_| all()).or_else(|_| all())
            }
            removed => removed.map_err(io::Error::from),
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.with_context(|| format!("remove {}", self.path.display())),
        }
    }
}

fn lock_and_name(unnamed: &Path, path: &Path) -> Result<OwnedFd, Errno> {
    let held = openat(CWD, unnamed, OPEN, Mode::empty())?;
    flock(&held, FlockOperation::NonBlockingLockExclusive)?;
    match renameat_with(CWD, unnamed, CWD, path, RenameFlags::NOREPLACE) {
        // Some network file systems do not support RENAME_NOREPLACE. rename(2) replaces the empty directory
        // that mkdir has just created.
        Err(Errno::INVAL) => {
            mkdirat(CWD, path, Mode::from_raw_mode(0o700))?;
            renameat(CWD, unnamed, CWD, path)?;
        }
        renamed => renamed?,
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_is_locked_when_it_is_found_and_there_is_one_of_a_name() {
        let root = tempfile::tempdir().unwrap();
        let made = Directory::make(root.path(), "c").unwrap();
        let found = Directory::open(root.path().join("c")).unwrap();
        assert!(!found.lock(Duration::ZERO).unwrap());
        assert_eq!(Directory::make(root.path(), "c").unwrap_err(), Errno::EXIST);
        assert_eq!(Directory::make(&root.path().join("none"), "c").unwrap_err(), Errno::NOENT);
        made.unlock();
        assert!(found.lock(Duration::ZERO).unwrap());
        let names: Vec<_> =
            fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["c"]);
    }

    #[test]
    fn a_directory_that_was_replaced_is_not_current_and_its_files_are_not_those_of_the_other() {
        let root = tempfile::tempdir().unwrap();
        let old = Directory::make(root.path(), "c").unwrap();
        assert!(old.is_current().unwrap());
        old.remove().unwrap();
        assert!(!old.is_current().unwrap());
        let new = Directory::make(root.path(), "c").unwrap();
        new.write(state::FILE, b"{}").unwrap();
        assert!(!old.is_current().unwrap() && new.is_current().unwrap());
        assert!(old.read(state::FILE).is_err() && old.write(state::FILE, b"").is_err());
        assert!(old.unlink(state::FILE).is_err() && new.exists(state::FILE));
    }

    #[test]
    fn what_has_no_name_yet_is_cleared_away_unless_it_is_locked() {
        let root = tempfile::tempdir().unwrap();
        let names = [".new@1.2", ".new@3.4", ".news"].map(|name| root.path().join(name));
        names.iter().for_each(|path| fs::create_dir(path).unwrap());
        let own = Directory::open(names[1].clone()).unwrap();
        assert!(own.lock(Duration::ZERO).unwrap());
        Directory::clear_unnamed(root.path());
        assert_eq!(names.map(|path| path.exists()), [false, true, true]);
    }
}
