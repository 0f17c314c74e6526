//! Taking turns at a container.
//!
//! Only those who change its record do: `delete` does not wait for them, so that a container can be ended and deleted whatever
//! becomes of whoever is about to change it. So it may be deleted in their turn, and another of its name made. They come
//! to none of the other's: the record is read and written in the directory that is held open, wherever that is by now, and what is
//! found by a path of the record counts only if the container is there still ([`Lock::check`]).
//!
//! The lock is that of a file in the directory. That of the directory itself is another one: whoever makes or removes a
//! container has it (`directory.rs`), and nobody of those who take turns waits for it.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, AtFlags, FlockOperation, OFlags, accessat, flock};
use rustix::io::{Errno, retry_on_intr};

use super::directory::Directory;
use super::files::{NOTE, TURNS};
use super::{Container, ContainerId, Prepared, Root};
use crate::bundle::input;
use crate::container::state;
use crate::container::state::State;
use crate::error::Refusal;
use crate::host::signals::{Signal, SignalQueue};

/// How often whoever takes signals instead of being ended by them looks whether it is its turn: of that, nobody tells.
const BETWEEN_LOOKS: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// It was still another's turn when this signal came.
#[derive(Debug)]
pub struct Interrupted(pub Signal);

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "interrupted by {} while waiting for another update to finish", self.0)
    }
}

impl std::error::Error for Interrupted {}

/// For whoever changes the state file of a container that has been recorded: reads it, and writes it again.
#[derive(Debug)]
pub struct Lock {
    id: ContainerId,
    directory: Directory,
    /// Locked until it is closed.
    _turn: File,
}

impl Root {
    /// Keeps all others that ask for it, too, from `id` until the lock is dropped; waits until it is to be had. `signals` are those
    /// that this process takes and that end the waiting.
    ///
    /// # Errors
    /// [`Refusal::NoSuchContainer`]; [`Interrupted`].
    pub fn lock(&self, id: &ContainerId, signals: Option<&SignalQueue>) -> Result<Lock> {
        loop {
            let directory = self.load(id)?.directory;
            let path = directory.path().join(TURNS);
            let turn = match directory.open_file(TURNS, OFlags::RDWR | OFlags::CREATE) {
                // It has been deleted meanwhile, and another may have been made.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                turn => turn.with_context(|| format!("open {}", path.display()))?,
            };
            wait_for_turn(&turn, &path, signals)?;
            // While this waited, the container may have been deleted, and another of its name made.
            if directory.is_current()? {
                return Ok(Lock { id: id.clone(), directory, _turn: turn });
            }
        }
    }
}

impl Root {
    /// What somebody who changes `id`, or was killed then, has noted.
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
    /// The container, as it is recorded.
    ///
    /// # Errors
    /// [`Refusal::NoSuchContainer`] if it has been deleted.
    pub fn container(&self) -> Result<Container> {
        Container::recorded(self.directory.try_clone()?, &self.id)
    }

    /// Makes sure that the container has not been deleted. Then no other has been made of its name, and what is open by now was its
    /// own: its directory goes last and comes first.
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

    /// What was noted last, unless it has been removed.
    pub fn note(&self) -> Result<Option<Vec<u8>>> {
        match self.directory.read(NOTE) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            text => text.map(Some).with_context(|| format!("read {}", self.note_path().display())),
        }
    }

    /// Writes what is to be found after this process, however it ends.
    pub fn write_note(&self, text: &[u8]) -> Result<()> {
        self.directory.write(NOTE, text).with_context(|| format!("write {}", self.note_path().display()))
    }

    pub fn remove_note(&self) -> Result<()> {
        self.directory.unlink(NOTE).with_context(|| format!("remove {}", self.note_path().display()))
    }

    pub fn note_path(&self) -> PathBuf {
        self.directory.path().join(NOTE)
    }

    /// Writes the state file, so that a reader finds the old one or the new one. `state` has been read since this lock is held.
    pub fn save(&self, state: &State) -> Result<()> {
        Prepared::write(self.directory.way("").0, self.directory.path(), state)?.publish()
    }
}
