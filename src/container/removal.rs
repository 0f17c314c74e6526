//! Taking away what a container was: its cgroup, its unit, its directory.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{CGROUP, Container, EXCERPT, FIFO, UNIT, oom};
use crate::cgroup;
use crate::intel_rdt;
use crate::state::{self, State};

impl Container {
    /// Removes the cgroup and the directory of a container whose init process has ended. What lives on in the cgroup is
    /// killed, unless it cannot be the container's: with a pid namespace of its own, nothing outlives its init process.
    ///
    /// Gives back the record.
    pub fn remove(self) -> Result<State> {
        let may_be_anothers = self.state.private_pid_namespace;
        match (self.state.recorded_cgroup(), &self.state.systemd) {
            (Some(cgroup), Some(unit)) => end_unit(cgroup, unit, may_be_anothers)?,
            (Some(cgroup), None) if may_be_anothers => cgroup::remove_unless_used(cgroup)?,
            (Some(cgroup), None) => cgroup::remove(cgroup)?,
            (None, _) => {}
        }
        if let Some(rdt) = self.state.intel_rdt() {
            intel_rdt::remove(&rdt)?;
        }
        remove_directory(&self.directory)?;
        Ok(self.state)
    }
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

/// Removes a state directory: the usual files one by one, which is quicker, and whatever else is there.
pub(super) fn remove_directory(path: &Path) -> Result<()> {
    for name in [state::FILE, EXCERPT, FIFO, CGROUP] {
        let _ = fs::remove_file(path.join(name));
    }
    let removed = match fs::remove_dir(path) {
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
            // Not every container has these.
            for name in [UNIT, oom::OOM_COUNTS, oom::SHORTAGE] {
                let _ = fs::remove_file(path.join(name));
            }
            // What an update that is being recorded puts there meanwhile needs another try.
            fs::remove_dir(path).or_else(|_| fs::remove_dir_all(path)).or_else(|_| fs::remove_dir_all(path))
        }
        removed => removed,
    };
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.with_context(|| format!("remove {}", path.display())),
    }
}
