//! Taking away what a container was: its cgroup, its unit, its directory.
//!
//! Whoever does has the lock of the directory (`directory.rs`) and has found its path leading to it since: then there is
//! no other container of this name, and none comes until the directory is gone.

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

/// How long another process may take to finish creating or deleting a container.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How long the last moments of a directory may be, in which it has no record any more.
const LAST_MOMENTS: Duration = Duration::from_millis(20);

/// What is found of a name by whoever wants to delete it.
#[derive(Debug)]
pub enum Found {
    Recorded(Container),
    /// Somebody makes it just now; with what is known of it, if that is anything.
    InTheMaking(Option<Container>),
    Abandoned(Abandoned),
    Nothing,
}

/// What an aborted `create` has left. Nobody else touches it as long as this is there.
#[derive(Debug)]
pub struct Abandoned {
    directory: Directory,
    state: Option<State>,
}

impl Root {
    /// What there is of `id` to be deleted.
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
            // It has gone since, and there may be another.
            if !directory.is_current()? {
                continue;
            }
            // What it names is about to be removed.
            directory.require_trusted()?;
            // Whoever made it may have recorded it since.
            return Ok(match record(&directory)? {
                Some(state) => Found::Recorded(Container { directory, state }),
                None => Found::Abandoned(Abandoned { state: prepared_record(&directory), directory }),
            });
        }
    }
}

/// What `create` has got ready to record.
fn prepared_record(directory: &Directory) -> Option<State> {
    serde_json::from_slice(&directory.read(PREPARED).ok()?).ok()
}

impl Abandoned {
    /// The container that `create` had got ready to record when it was aborted, if there is such a one.
    pub fn container(&self) -> Result<Option<Container>> {
        let Some(state) = &self.state else { return Ok(None) };
        Ok(Some(Container { directory: self.directory.try_clone()?, state: state.clone() }))
    }

    /// Removes it. A cgroup that is used is another's.
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
    /// Removes the cgroup and the directory of a container whose init process has ended. What lives on in the cgroup is
    /// killed, unless it cannot be the container's: with a pid namespace of its own, nothing outlives its init process.
    ///
    /// Gives back the record, to one of all who do this: to the others, or if the container is not there any more, `None`.
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
            // Somebody has removed it, and what is there now is another's.
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

/// That a container cannot be deleted, because [`PATIENCE`] was not enough.
pub fn busy(id: &str) -> anyhow::Error {
    anyhow!(
        "cannot delete container {id}: another process is still creating or deleting it after {PATIENCE:?}"
    )
}

/// Ends a unit and its cgroup, which was at `path`. One that is still used goes with what uses it, unless that `may_be_anothers`.
/// Where there is nothing left of it, its name may be another's by now, and nobody has to be there to be asked.
pub(super) fn end_unit(path: &Path, unit: &cgroup::Unit, may_be_anothers: bool) -> Result<()> {
    if unit.has(path) {
        if may_be_anothers && cgroup::is_used(path)? {
            return Ok(());
        }
        // systemd would ask its processes to end, and give them a long time for that.
        cgroup::kill(path)?;
    }
    if !unit.has(path) {
        unit.forget();
        return Ok(());
    }
    let stopped = unit.stop();
    // What systemd has not done, or has nobody to do.
    let removed = if unit.has(path) { cgroup::remove(path) } else { Ok(()) };
    removed.or_else(|error| stopped.and(Err(error)))
}
