//! A short-lived process in a user namespace, needed to read the namespace's id maps or to write them.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result};

use super::{Unwritten, Writer};
use crate::error::Pointer;
use crate::host::placeholder;
use crate::plan::linux::id_maps::IdMaps;

/// The process is killed on drop.
#[derive(Debug)]
pub struct Holder(placeholder::Placeholder);

impl Holder {
    /// Starts a process in an existing user namespace.
    pub fn joined(namespace: BorrowedFd<'_>) -> Result<Self> {
        placeholder::Placeholder::start(0, Some(namespace)).map(Self)
    }

    /// Starts a process in a new user namespace with the id maps `maps`; errors in them point at `at`.
    pub fn with(maps: &IdMaps, writer: Writer, at: &Pointer) -> Result<Self> {
        let holder = Self(placeholder::Placeholder::start(libc::CLONE_NEWUSER, None)?);
        Unwritten::by(writer, maps.clone()).write(holder.pid(), at)?;
        Ok(holder)
    }

    /// Opens its user namespace, which then outlives the process.
    pub fn namespace(&self) -> Result<OwnedFd> {
        let path = format!("/proc/{}/ns/user", self.pid());
        Ok(File::open(&path).with_context(|| format!("open {path}"))?.into())
    }

    pub fn pid(&self) -> i32 {
        self.0.pid()
    }
}
