//! Removes what is left of a container: its cgroup, its systemd unit and its state directory.
//!
//! This needs the lock of the directory (`directory.rs`) and a check, under that lock, that its path still
//! leads to it: then no other container has this name, and none can be created until the directory is gone.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use rustix::io::Errno;

use super::directory::Directory;
use super::files::{CGROUP, PREPARED, UNIT};
use super::{Container, ContainerId, Root, record};
use crate::cgroup;
use crate::cgroup::intel_rdt;
use crate::container::state::State;

/// How long to wait for another process to finish creating or deleting a container.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait for a directory that has no record any more because it is being removed.
const LAST_MOMENTS: Duration = Duration::from_millis(20);

/// What `delete` finds under a name.
#[derive(Debug)]
pub enum Found {
    Recorded(Container),
    /// Another process is creating it; with what is known of it, if anything.
    InTheMaking(Option<Container>),
    Abandoned(Abandoned),
    Nothing,
}

/// What an aborted `create` has left, locked against other processes.
#[derive(Debug)]
pub struct Abandoned {
    directory: Directory,
    state: Option<State>,
}

impl Root {
    /// Finds what there is to delete under the name `id`.
    pub fn find(&self, id: &ContainerId) -> Result<Found> {
        let path = self.directory(id);
        loop {
            let directory = match Directory::open(path.clone()) {
                Err(Errno::NOENT) => {
                    Directory::clear_unnamed(&self.path);
                    return Ok(Found::Nothing);
                }
                directory => directory.with_context(|| format!("open {}", path.display()))?,
            };
            let state = match record(&directory)? {
                Some(state) if !state.creating => return Ok(Found::Recorded(Container { directory, state })),
                state => state,
            };
            if !directory.lock(LAST_MOMENTS)? {
                let state = state.or_else(|| prepared_record(&directory));
                return Ok(Found::InTheMaking(state.map(|state| Container { directory, state })));
            }
            // It was removed meanwhile, and may have been created anew.
            if !directory.is_current()? {
                continue;
            }
            // The cgroup that it names is about to be removed.
            directory.require_trusted()?;
            // Its creator may have recorded it before the lock was taken.
            return Ok(match record(&directory)? {
                Some(state) => Found::Recorded(Container { directory, state }),
                None => Found::Abandoned(Abandoned { state: prepared_record(&directory), directory }),
            });
        }
    }
}

/// The state that `create` had prepared but not published.
fn prepared_record(directory: &Directory) -> Option<State> {
    serde_json::from_slice(&directory.read(PREPARED).ok()?).ok()
}

impl Abandoned {
    /// The container whose state an aborted `create` had prepared, if it got that far.
    pub fn container(&self) -> Result<Option<Container>> {
        let Some(state) = &self.state else { return Ok(None) };
        Ok(Some(Container { directory: self.directory.try_clone()?, state: state.clone() }))
    }

    /// Removes the directory and the cgroup. A cgroup that is still in use belongs to something else and
    /// stays.
    pub fn sweep(self) -> Result<()> {
        let (from, way) = self.directory.way(CGROUP);
        if let Ok(cgroup) = rustix::fs::readlinkat(from, way, Vec::new()) {
            let cgroup = Path::new(OsStr::from_bytes(cgroup.as_bytes()));
            let unit = self.directory.read(UNIT).ok();
            let unit: Option<cgroup::Unit> = unit.and_then(|text| serde_json::from_slice(&text).ok());
            match unit {
                Some(unit) => end_unit(cgroup, &unit, false)?,
                None => cgroup::remove_abandoned(cgroup)?,
            }
        }
        self.directory.remove()
    }
}

impl Container {
    /// Removes the cgroup and the directory of a container whose init process has exited. Processes left in
    /// the cgroup are killed, unless the container has a pid namespace of its own: then they cannot belong to
    /// it, because none outlives its init process.
    ///
    /// Returns the state to exactly one caller. Any other caller, or one that comes after the container is
    /// gone, gets `None`.
    pub fn remove(self) -> Result<Option<State>> {
        if !self.directory.lock(PATIENCE)? {
            return Err(busy(&self.state.id));
        }
        if !self.directory.is_current()? {
            return Ok(None);
        }
        let may_be_anothers = self.state.private_pid_namespace;
        match (self.state.recorded_cgroup(), &self.state.systemd) {
            (Some(cgroup), Some(unit)) => end_unit(cgroup, unit, may_be_anothers)?,
            // It has been removed, and the cgroup at that path now belongs to something else.
            (Some(_), None) if self.state.cgroup().is_none() => {}
            (Some(cgroup), None) if may_be_anothers => cgroup::remove_unless_used(cgroup)?,
            (Some(cgroup), None) => cgroup::remove(cgroup)?,
            (None, _) => {}
        }
        if let Some(rdt) = self.state.intel_rdt() {
            intel_rdt::remove(&rdt)?;
        }
        self.directory.remove()?;
        Ok(Some(self.state))
    }
}

/// The error if the lock was not released within [`PATIENCE`].
pub fn busy(id: &str) -> anyhow::Error {
    anyhow!(
        "cannot delete container {id}: another process is still creating or deleting it after {PATIENCE:?}"
    )
}

/// Kills the processes of a unit's cgroup at `path`, stops the unit and removes the cgroup. With
/// `may_be_anothers`, a cgroup that is in use is left alone. If the unit no longer has that cgroup, systemd
/// is not asked to stop it: the name may have been reused, and systemd may not even be running.
pub(super) fn end_unit(path: &Path, unit: &cgroup::Unit, may_be_anothers: bool) -> Result<()> {
    if unit.has(path) {
        if may_be_anothers && cgroup::is_used(path)? {
            return Ok(());
        }
        // systemd would send SIGTERM and wait for a long time before SIGKILL.
        cgroup::kill(path)?;
    }
    if !unit.has(path) {
        unit.forget();
        return Ok(());
    }
    let stopped = unit.stop();
    // In case systemd has not removed it, or is not running.
    let removed = if unit.has(path) { cgroup::remove(path) } else { Ok(()) };
    removed.or_else(|error| stopped.and(Err(error)))
}
