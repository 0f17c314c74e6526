//! State directories, held open: what is done late there is done to the same container, whatever its path
//! leads to by then.
//!
//! The lock on the directory itself (flock(2)) belongs to whoever makes a container, until it is recorded,
//! and to whoever removes one. It ends with its owner, however that ends. Nobody else waits for it: those who
//! change a container that is recorded take turns by a lock of their own (`lock.rs`).
//!
//! A new directory gets its name when it is locked, with renameat2(2): whoever finds it finds it locked, and
//! whoever makes one knows that it is their own. Until then its name is one that no container can have. A
//! `create` that is killed in between leaves an empty directory there, which [`Directory::clear_unnamed`]
//! removes.

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

use super::files::{CGROUP, EXCERPT, FIFO, OOM_COUNTS, PREPARED, SHORTAGE, TRACER, TURNS, UNIT};
use crate::bundle::input;
use crate::container::state;

/// How the names of directories begin that are about to become those of new containers. No container's name
/// holds an `@`.
const UNNAMED: &str = ".new@";

/// How often a new directory may be cleared away before it has its name.
const TRIES: u32 = 100;

/// How long to wait at least and at most before it is looked again whether a lock is free: of that, nobody
/// tells.
const BETWEEN_LOOKS: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(20));

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

#[derive(Debug, Default)]
pub(super) struct Directory {
    path: PathBuf,
    /// `None` once it has been let go: then its path is all that is known.
    held: Option<OwnedFd>,
}

impl Directory {
    /// Makes the one of a new container, and locks it.
    ///
    /// # Errors
    /// `EEXIST` if there is something of that name.
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
                // Somebody took it for what a `create` had left that was killed. A root that is not there says so at once.
                Err(Errno::NOENT | Errno::WOULDBLOCK) if made.is_ok() && tries < TRIES => {}
                // The clock stands still, or another pid namespace has the same numbers.
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

    /// # Errors
    /// `ENOENT` or `ENOTDIR` if there is none.
    pub(super) fn open(path: PathBuf) -> Result<Self, Errno> {
        let held = openat(CWD, &path, OPEN, Mode::empty())?;
        Ok(Self { path, held: Some(held) })
    }

    /// Removes what a `create` has left that was killed before its directory had a name. Whoever is just
    /// about to give it one makes another.
    pub(super) fn clear_unnamed(root: &Path) {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(UNNAMED))
                && let Ok(directory) = Self::open(entry.path())
                && directory.lock(Duration::ZERO).is_ok_and(|is_locked| is_locked)
            {
                let _ = unlinkat(CWD, entry.path(), AtFlags::REMOVEDIR);
            }
        }
    }

    /// The same, held once more; with the lock, if it is locked.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { path: self.path.clone(), held: self.held.as_ref().map(OwnedFd::try_clone).transpose()? })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A path that leads there as long as this is held, wherever the directory is by then.
    pub(super) fn held_path(&self) -> PathBuf {
        self.held
            .as_ref()
            .map_or_else(|| self.path.clone(), |held| format!("/proc/self/fd/{}", held.as_raw_fd()).into())
    }

    /// Closes it: for whoever only shows containers, and perhaps more of them than there may be open files.
    pub(super) fn let_go(&mut self) {
        self.held = None;
    }

    /// From where and by which way `name` in it is reached.
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

    /// Locks it, if that is possible within this time, until [`Self::unlock`] or the end of this process.
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

    /// # Errors
    /// If it belongs to a user who could have put anything into it; [`input::is_trusted`].
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

    /// Whether its path leads to it. If it is locked, that stays so.
    pub(super) fn is_current(&self) -> Result<bool> {
        let Some(held) = &self.held else { return Ok(false) };
        let look = || Ok((fstat(held)?, statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW)?));
        match look() {
            Ok((own, found)) => Ok((own.st_dev, own.st_ino) == (found.st_dev, found.st_ino)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(errno) => Err(errno).with_context(|| format!("stat {}", self.path.display())),
        }
    }

    /// Removes it, which must be locked and current: the usual files one by one, which is quicker, and
    /// whatever else is there.
    ///
    /// The record goes after what every container has: if something keeps it from that, there is one of what is left.
    pub(super) fn remove(&self) -> Result<()> {
        for name in [EXCERPT, FIFO, CGROUP, state::FILE] {
            let _ = self.unlink(name);
        }
        let remove = || unlinkat(CWD, &self.path, AtFlags::REMOVEDIR);
        let removed = match remove() {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                // Not every container has these.
                for name in [UNIT, TRACER, OOM_COUNTS, SHORTAGE, PREPARED, TURNS] {
                    let _ = self.unlink(name);
                }
                let all = || fs::remove_dir_all(&self.path);
                // What an update that is being recorded puts there meanwhile needs another try.
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
        // Some network file systems cannot do that. Renaming replaces the empty directory that was not there before.
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
