//! Moves network devices as soon as there is a namespace to move them to, and before the init process can set
//! their sysctls.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result};

use crate::launch::net_devices::{Moved, move_into};
use crate::plan::linux::namespaces::Join;
use crate::plan::linux::net_devices::NetDevice;

/// The devices for the container. They return to the host if it is not created.
#[derive(Default)]
pub(super) struct NetDevices {
    wanted: Vec<NetDevice>,
    moved: Option<Moved>,
}

impl NetDevices {
    pub(super) fn of(wanted: Vec<NetDevice>) -> Self {
        Self { wanted, moved: None }
    }

    /// Moves them into the network namespace, if one is joined.
    pub(super) fn join(&mut self, namespaces: &[(Join, OwnedFd)]) -> Result<()> {
        match namespaces.iter().find(|(join, _)| join.kind == libc::CLONE_NEWNET) {
            Some((_, namespace)) => self.move_into(namespace.as_fd()),
            None => Ok(()),
        }
    }

    pub(super) fn are_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Moves them into the network namespace that process `pid` has made in its new user namespace.
    pub(super) fn follow(&mut self, pid: i32) -> Result<()> {
        let path = format!("/proc/{pid}/ns/net");
        let namespace = File::open(&path).with_context(|| format!("open {path}"))?;
        self.move_into(namespace.as_fd())
    }

    pub(super) fn move_into(&mut self, namespace: BorrowedFd<'_>) -> Result<()> {
        if !self.wanted.is_empty() {
            self.moved = Some(move_into(namespace, &self.wanted)?);
        }
        Ok(())
    }

    /// Leaves them to the container.
    pub(super) fn keep(self) {
        if let Some(moved) = self.moved {
            moved.keep();
        }
    }
}
