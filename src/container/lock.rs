//! Taking turns at a container.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result};
use rustix::fs::FlockOperation;

use super::{ContainerId, Root};
use crate::error::Refusal;

/// For whoever changes the state file of a container that has been recorded: reads it, and writes it again.
#[derive(Debug)]
pub struct Lock {
    _directory: File,
}

impl Root {
    /// Keeps all others that ask for it, too, from `id` until the lock is dropped; waits until it is to be had.
    ///
    /// # Errors
    /// [`Refusal::NoSuchContainer`].
    pub fn lock(&self, id: &ContainerId) -> Result<Lock> {
        let path = self.directory(id);
        let open = || match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Refusal::NoSuchContainer(id.as_str().to_owned()).into())
            }
            opened => opened.with_context(|| format!("open {}", path.display())),
        };
        let place = |directory: &File| directory.metadata().map(|found| (found.dev(), found.ino())).ok();
        loop {
            let directory = open()?;
            rustix::io::retry_on_intr(|| rustix::fs::flock(&directory, FlockOperation::LockExclusive))
                .with_context(|| format!("lock {}", path.display()))?;
            // While this waited, the container may have been deleted, and another of its name made.
            if place(&directory) == place(&open()?) {
                return Ok(Lock { _directory: directory });
            }
        }
    }
}
