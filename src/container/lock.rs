//! Serialises changes to a container's record.
//!
//! Only commands that change the record take this lock. `delete` does not, so that a container can be killed
//! and deleted even if an update hangs. A container may therefore be deleted, and another one created under
//! the same name, while an update holds the lock. The update cannot affect the new container: it reads and
//! writes the record through the directory it holds open, and uses a path from the record only if the
//! container still exists ([`Lock::check`]).
//!
//! The lock is on a file in the directory. The lock on the directory itself is a different one: it is for
//! creating and removing containers (`directory.rs`), and updates never wait for it.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, AtFlags, FlockOperation, OFlags, accessat, flock};
use rustix::io::{Errno, retry_on_intr};

use super::directory::Directory;
use super::files::{LOCK_FILE, NOTE};
use super::{Container, ContainerId, Prepared, Root};
use crate::bundle::input;
use crate::container::state;
use crate::container::state::State;
use crate::error::Refusal;
use crate::host::signals::{Signal, SignalQueue};

/// How often a process that reads signals from a queue retries the lock: flock(2) cannot be polled.
const BETWEEN_LOOKS: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// The signal that arrived while waiting for the lock.
#[derive(Debug)]
pub struct Interrupted(pub Signal);

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "interrupted by {} while waiting for another update to finish", self.0)
    }
}

impl std::error::Error for Interrupted {}

/// The lock on a recorded container, with access to its record.
#[derive(Debug)]
pub struct Lock {
    id: ContainerId,
    directory: Directory,
    /// The flock is released when this is closed.
    _turn: File,
}

impl Root {
    /// Locks `id` against other updates until the result is dropped; waits as long as another update holds
    /// the lock. With `signals`, a signal from that queue ends the wait.
    ///
    /// # Errors
    /// [`Refusal::NoSuchContainer`]; [`Interrupted`].
    pub fn lock(&self, id: &ContainerId, signals: Option<&SignalQueue>) -> Result<Lock> {
        loop {
            let directory = self.load(id)?.directory;
            let path = directory.path().join(LOCK_FILE);
            let turn = match directory.open_file(LOCK_FILE, OFlags::RDWR | OFlags::CREATE) {
                // The container has been deleted meanwhile, and another may have been created.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                turn => turn.with_context(|| format!("open {}", path.display()))?,
            };
            wait_for_turn(&turn, &path, signals)?;
            // The container may have been deleted during the wait, and another created under its name.
            if directory.is_current()? {
                return Ok(Lock { id: id.clone(), directory, _turn: turn });
            }
        }
    }
}

impl Root {
    /// Reads the note of an update of `id` that is in progress or was killed.
    pub fn note(&self, id: &ContainerId) -> Result<Option<Vec<u8>>> {
        let path = self.directory(id).join(NOTE);
        match input::record(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            text => text.map(Some).with_context(|| format!("read {}", path.display())),
        }
    }
}

fn wait_for_turn(turn: &File, path: &Path, signals: Option<&SignalQueue>) -> Result<()> {
    let context = || format!("lock {}", path.display());
    let Some(signals) = signals else {
        return retry_on_intr(|| flock(turn, FlockOperation::LockExclusive)).with_context(context);
    };
    loop {
        match flock(turn, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            locked => return locked.with_context(context),
        }
        let mut waiting = [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
        retry_on_intr(|| poll(&mut waiting, Some(&BETWEEN_LOOKS))).with_context(context)?;
        if let Some(signal) = signals.take()? {
            return Err(Interrupted(signal).into());
        }
    }
}

impl Lock {
    /// Reads the container's record.
    ///
    /// # Errors
    /// [`Refusal::NoSuchContainer`] if it has been deleted.
    pub fn container(&self) -> Result<Container> {
        Container::recorded(self.directory.try_clone()?, &self.id)
    }

    /// Checks that the container has not been deleted. As long as it exists, no other container can have its
    /// name, so what has been opened so far belongs to this one: the directory is created first and removed
    /// last.
    ///
    /// # Errors
    /// [`Refusal::NoSuchContainer`].
    pub fn check(&self) -> Result<()> {
        let (from, way) = self.directory.way(state::FILE);
        match accessat(from, way, Access::EXISTS, AtFlags::empty()) {
            Err(Errno::NOENT) => Err(Refusal::NoSuchContainer(self.id.as_str().to_owned()).into()),
            found => {
                found.with_context(|| format!("stat {}", self.directory.path().join(state::FILE).display()))
            }
        }
    }

    /// Reads the note; `None` if there is none.
    pub fn note(&self) -> Result<Option<Vec<u8>>> {
        match self.directory.read(NOTE) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            text => text.map(Some).with_context(|| format!("read {}", self.note_path().display())),
        }
    }

    /// Writes a note that survives this process, however it exits.
    pub fn write_note(&self, text: &[u8]) -> Result<()> {
        self.directory.write(NOTE, text).with_context(|| format!("write {}", self.note_path().display()))
    }

    pub fn remove_note(&self) -> Result<()> {
        self.directory.unlink(NOTE).with_context(|| format!("remove {}", self.note_path().display()))
    }

    pub fn note_path(&self) -> PathBuf {
        self.directory.path().join(NOTE)
    }

    /// Replaces the state file atomically. `state` must have been read while this lock was held.
    pub fn save(&self, state: &State) -> Result<()> {
        Prepared::write(self.directory.way("").0, self.directory.path(), state)?.publish()
    }
}
