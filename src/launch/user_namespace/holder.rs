//! A short-lived process that is in a user namespace, so that the kernel can be asked about it or told its maps.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result};

use super::{Unwritten, Writer};
use crate::error::Pointer;
use crate::host::placeholder;
use crate::plan::linux::id_maps::IdMaps;

/// Ends when it is dropped.
#[derive(Debug)]
pub struct Holder(placeholder::Placeholder);

impl Holder {
    /// A process in an existing user namespace.
    pub fn joined(namespace: BorrowedFd<'_>) -> Result<Self> {
        placeholder::Placeholder::start(0, Some(namespace)).map(Self)
    }

    /// A process in a new user namespace, which maps `maps`; what is wrong with them stands at `at`.
    pub fn with(maps: &IdMaps, writer: Writer, at: &Pointer) -> Result<Self> {
        let holder = Self(placeholder::Placeholder::start(libc::CLONE_NEWUSER, None)?);
        Unwritten::by(writer, maps.clone()).write(holder.pid(), at)?;
        Ok(holder)
    }

    /// Its user namespace, which outlives it.
    pub fn namespace(&self) -> Result<OwnedFd> {
        let path = format!("/proc/{}/ns/user", self.pid());
        Ok(File::open(&path).with_context(|| format!("open {path}"))?.into())
    }

    pub fn pid(&self) -> i32 {
        self.0.pid()
    }
}
