//! The container's cgroup: its path, its limits and its device filter. cgroup v2 only.
//!
//! [`plan`] decides without touching the host. [`CgroupPlan::create`] makes the directory, writes every limit
//! and attaches the device filter *before* there is a process in it, because the init process is cloned
//! straight into the cgroup (CLONE_INTO_CGROUP). A limit that cannot be set is an error that names its place
//! in `config.json`.
//!
//! There are two drivers, which decide where the cgroup is and how it is made: `fs.rs` uses the file system
//! alone, `systemd/` asks systemd for a scope. The rest does not depend on the driver: what a limit means
//! (`resources`, `devices.rs`, `filter`), how it is written (`apply.rs`), how a cgroup is removed
//! (`removal.rs`) and frozen (`freeze.rs`).
//!
//! Sources: config-linux.md § Control groups; the kernel's admin-guide/cgroup-v2.rst; cgroups(7).

mod apply;
pub mod change;
mod control_file;
mod controllers;
mod devices;
mod events;
mod filter;
mod freeze;
mod fs;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod intel_rdt;
mod joining;
mod oom;
mod ownership;
mod removal;
mod resources;
mod stats;
mod systemd;
mod update;
mod usage;

use crate::host::environment::SystemdInstance;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use oci_spec::runtime::Linux;

use crate::error::{Fault, Pointer, errno};
use crate::host::rootless::Rootless;

use resources::WhenRefused;

pub use freeze::{Freezing, freeze, thaw};
pub use joining::{Below, Destination};
pub use oom::{
    OomCounts, OomFiles, OomMonitor, OomReport, OomSnapshot, OomWatch, counted, oom_counts, shortage,
};
pub use removal::{is_populated, is_used, kill, remove, remove_abandoned, remove_unless_used};
pub use stats::{Stats, stats};
pub use systemd::{ScopeRequest, Unit};
pub use update::{Planned, Source, Update};
#[cfg(test)]
pub use usage::Memory;
pub use usage::{Limit, Pressure, Transfers, Usage, avg10, usage};

/// The hint for users who have no cgroup of their own; systemd-run(1).
const DELEGATE: &str =
    "run this in a cgroup delegated to the user, e.g. with `systemd-run --user --scope -p Delegate=yes`";

/// The cgroup driver: who makes the cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The runtime makes it, on the file system.
    Cgroupfs,
    Systemd(SystemdInstance),
}

/// The plan for a container's cgroup.
#[derive(Debug)]
pub struct CgroupPlan {
    /// `None` if the container gets no cgroup of its own.
    place: Option<DriverPlan>,
    /// Whether the bundle sets `cgroupsPath`.
    is_named: bool,
    limits: resources::Limits,
    /// `None` if every device is allowed.
    filter: Option<filter::Filter>,
    /// Deviations from what the bundle asks for that are not errors.
    pub warnings: Vec<String>,
    /// The host user id that will own the cgroup; `None` if it stays with the caller.
    owner: Option<u32>,
}

#[derive(Debug)]
enum DriverPlan {
    Directory(fs::CgroupPath),
    Scope(systemd::ScopePlan),
}

/// Plans the cgroup of container `id`; `at` is the pointer of `linux`.
///
/// # Errors
/// A value that is invalid on any host. Whether this host has the controllers is checked by
/// [`CgroupPlan::create`].
pub fn plan<'a>(
    linux: Option<&Linux>,
    id: &str,
    driver: Driver,
    annotations: impl Iterator<Item = (&'a String, &'a String)>,
    at: &Pointer,
) -> Result<CgroupPlan> {
    let path = linux.and_then(|linux| linux.cgroups_path().as_deref());
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let resources_at = at.field("resources");
    let rules = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
    let mut warnings = Vec::new();
    let rules = devices::plan(rules, &resources_at.field("devices"), |warning| warnings.push(warning))?;
    let mut limits = resources.map(|r| resources::plan(r, &resources_at)).transpose()?.unwrap_or_default();
    let place = match driver {
        Driver::Cgroupfs => DriverPlan::Directory(fs::CgroupPath::plan(path, id, &at.field("cgroupsPath"))?),
        Driver::Systemd(whose) => {
            DriverPlan::Scope(systemd::ScopePlan::plan(path, id, whose, annotations, &mut limits)?)
        }
    };
    Ok(CgroupPlan {
        place: Some(place),
        is_named: path.is_some_and(|path| !path.as_os_str().is_empty()),
        limits,
        filter: filter::compile(&rules, &resources_at.field("devices"))?,
        warnings,
        owner: None,
    })
}

impl CgroupPlan {
    /// Returns the plan with the cgroup to be owned by this host user id, if there is one.
    pub fn owned_by(self, uid: Option<u32>) -> Self {
        Self { owner: uid, ..self }
    }

    /// Returns the plan without a cgroup: the container stays in its caller's. As in crun, device rules and
    /// `cgroupsPath` then have no effect.
    ///
    /// # Errors
    /// A limit was asked for, which needs a cgroup; `way_out` is the hint.
    pub fn without_limits(self, way_out: &str) -> Result<Self> {
        if let Some(limit) = self.limits.writes.iter().find(|write| write.refused != WhenRefused::Unneeded) {
            let message = format!("{} = {:?} requires a cgroup for the container", limit.file, limit.value);
            return Err(limit.at.error_with_hint(message, way_out));
        }
        Ok(Self { place: None, ..self })
    }

    /// Creates the cgroup with limits and device filter in force, ready for a process to be cloned into it.
    ///
    /// An existing cgroup is used if it is empty. On error, everything is undone. If `rootless` is enabled
    /// and this process may not create cgroups, there is none as long as the bundle sets neither a limit nor
    /// `cgroupsPath`; if it may not attach a device filter, the device rules have no effect. `before` gets
    /// the path before the cgroup is made; `asking` is for systemd.
    pub fn create(
        &self,
        rootless: Rootless,
        asking: ScopeRequest<'_>,
        before: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Cgroup> {
        let place = match &self.place {
            None => return Ok(Cgroup::default()),
            Some(DriverPlan::Directory(place)) => place,
            Some(DriverPlan::Scope(scope)) => {
                let mount = fs::Mount::find()?;
                let mut scope = scope.start(asking, &mount, before)?;
                let made = fs::Made::found(&scope.path)?;
                let place = scope.path.strip_prefix(&mount.path)?.to_owned();
                self.apply_limits(&mount, &place, &made, rootless, Some(&mut scope))?;
                return Ok(Cgroup { made: Some(made), scope: Some(scope), attaches_late: false });
            }
        };
        let is_excused = || !self.is_named && rootless.is_enabled();
        let found = fs::Mount::find().and_then(|mount| Ok((mount, place.resolve()?)));
        let (mount, place) = match found {
            Err(error) if is_excused() => return self.do_without(error),
            found => found?,
        };
        before(&mount.path_of(&place))?;
        let made = match fs::make(&mount, &place) {
            Err(error) if is_not_permitted(&error) && is_excused() => return self.do_without(error),
            // runc's wording.
            Err(error) if is_not_permitted(&error) && self.is_named && rootless.is_enabled() => {
                return Err(error.context(Fault {
                    pointer: Pointer::root().field("linux").field("cgroupsPath"),
                    message: "unable to apply cgroup configuration".into(),
                    hint: Some(DELEGATE.into()),
                }));
            }
            made => made?,
        };
        self.apply_limits(&mount, &place, &made, rootless, None)?;
        Ok(Cgroup { made: Some(made), scope: None, attaches_late: false })
    }

    fn apply_limits(
        &self,
        mount: &fs::Mount,
        place: &Path,
        made: &fs::Made,
        rootless: Rootless,
        mut scope: Option<&mut systemd::Scope>,
    ) -> Result<()> {
        let enabled = controllers::enable(mount, place, made.dir.as_fd(), &self.limits)?;
        let target = apply::CgroupDir { dir: made.dir.as_fd(), path: &made.path, fresh: made.fresh };
        let write = |file: &str, value: &str| {
            let other = scope.as_deref_mut().and_then(|scope| scope.meanwhile(file, value));
            control_file::write(target.dir, file, other.as_deref().unwrap_or(value))
        };
        apply::limits(&self.limits, &target, mount, &enabled, write)?;
        match apply::filter(self.filter.as_ref(), &target) {
            // As in runc: the user can do no more with devices in the container than outside of it.
            Err(_) if rootless.is_enabled() => {}
            result => result?,
        }
        match self.owner {
            Some(uid) => ownership::give(made, uid),
            None => Ok(()),
        }
    }
}

impl CgroupPlan {
    /// Returns the empty [`Cgroup`] of a rootless container.
    ///
    /// # Errors
    /// `error`, if the bundle sets a limit.
    fn do_without(&self, error: anyhow::Error) -> Result<Cgroup> {
        let Some(limit) = self.limits.writes.iter().find(|write| write.refused != WhenRefused::Unneeded)
        else {
            return Ok(Cgroup::default());
        };
        // runc's wording.
        Err(error.context(Fault {
            pointer: limit.at.clone(),
            message: "rootless needs no limits + no cgrouppath when no permission is granted for cgroups"
                .into(),
            hint: Some(format!("remove the limit, or {DELEGATE}")),
        }))
    }
}

fn is_not_permitted(error: &anyhow::Error) -> bool {
    matches!(errno(error), Some(Errno::EACCES | Errno::EPERM | Errno::EROFS))
}

/// The cgroup of a container that is being created, if it has one. Dropping it kills everything in it and
/// removes it, so that a failed `create` leaves nothing behind.
///
/// Only directories that [`CgroupPlan::create`] made itself are removed.
#[derive(Debug, Default)]
pub struct Cgroup {
    made: Option<fs::Made>,
    /// With the systemd driver.
    scope: Option<systemd::Scope>,
    /// Whether the kernel kills processes that are cloned into it.
    attaches_late: bool,
}

impl Cgroup {
    /// Returns the absolute path in the host's cgroup2 mount; `None` if the container stays in its caller's
    /// cgroup.
    pub fn path(&self) -> Option<&Path> {
        self.made.as_ref().map(|made| made.path.as_path())
    }

    /// Returns the cgroup's directory, close-on-exec, as clone3(2) takes it for CLONE_INTO_CGROUP.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.made.as_ref().map(|made| made.dir.as_fd())
    }

    /// Returns the inode of the directory, which tells it from a later one with the same path.
    pub fn id(&self) -> Option<u64> {
        rustix::fs::fstat(&self.made.as_ref()?.dir).ok().map(|stat| stat.st_ino)
    }

    /// Returns the systemd unit, with the systemd driver.
    pub fn unit(&self) -> Option<&Unit> {
        self.scope.as_ref().map(|scope| &scope.unit)
    }

    /// Notes that the next process cannot be cloned into the cgroup. Returns whether [`Cgroup::attach`] will
    /// move it there, which takes the systemd driver.
    pub fn isolate(&mut self) -> bool {
        self.scope.as_mut().map(systemd::Scope::isolate).is_some()
    }

    /// Notes that the kernel killed the process that was cloned into the cgroup (see `joining.rs`).
    /// [`Cgroup::attach`] moves the next one there.
    pub fn attach_late(&mut self) {
        self.attaches_late = true;
    }

    /// Whether [`Cgroup::attach_late`] was called.
    pub fn attaches_late(&self) -> bool {
        self.attaches_late
    }

    /// Moves the container's first process into the cgroup, unless it was cloned into it.
    pub fn attach(&self, pid: i32) -> Result<()> {
        if let Some(made) = self.made.as_ref().filter(|_| self.attaches_late) {
            return joining::put(made.dir.as_fd(), pid)
                .with_context(|| format!("write {pid} to {}/cgroup.procs", made.path.display()));
        }
        self.scope.as_ref().map_or(Ok(()), |scope| scope.attach(pid))
    }

    /// Opens the cgroup's OOM counters, if systemd may remove the cgroup as soon as its last process has
    /// ended.
    pub fn oom_files(&self) -> Option<OomFiles> {
        self.scope.as_ref().and_then(|scope| OomFiles::open(&scope.path))
    }

    /// Stops the placeholder process of a systemd scope. Call this once the init process can no longer fail
    /// in a way that needs the cgroup's counters to be explained.
    pub fn release(&mut self) -> Result<()> {
        match (&mut self.scope, &self.made) {
            (Some(scope), Some(made)) => scope.release(&made.dir),
            _ => Ok(()),
        }
    }

    /// Returns the OOM counts from before the cgroup was this container's.
    pub fn earlier_ooms(&self) -> OomCounts {
        self.made
            .as_ref()
            .filter(|made| !made.fresh)
            .and_then(|made| oom_counts(&made.path))
            .unwrap_or_default()
    }

    /// Leaves the cgroup to the container; [`remove`] removes it later.
    pub fn keep(self) {
        if let Some(made) = self.made {
            made.keep();
        }
        if let Some(mut scope) = self.scope {
            scope.keep = true;
        }
    }
}

/// Returns the inode of the cgroup at `path`, if there is one. No other cgroup has the same one until the
/// next boot.
pub fn id(path: &Path) -> Option<u64> {
    rustix::fs::stat(path).ok().map(|stat| stat.st_ino)
}

/// Whether there are processes in this cgroup or below it that the runtime can see.
pub fn has_processes(path: &Path) -> bool {
    !removal::tasks(path).is_empty()
}

/// Returns the processes in this cgroup and below it that the runtime can see.
pub fn processes(path: &Path) -> Vec<i32> {
    removal::tasks(path).into_iter().map(rustix::process::Pid::as_raw_pid).collect()
}

/// Whether the processes in this cgroup are frozen, because it or an ancestor is.
pub fn is_effectively_frozen(path: &Path) -> bool {
    let events = |dir: OwnedFd| control_file::read(dir.as_fd(), "cgroup.events");
    let events = control_file::open_dir(path).and_then(events);
    events.is_ok_and(|text| control_file::value(&text, "frozen") == Some("1"))
}

/// Whether this cgroup itself, not an ancestor, was set to frozen. A cgroup that is gone is not frozen.
pub fn is_frozen(path: &Path) -> bool {
    Destination::of_container(path).is_ok_and(|cgroup| cgroup.is_frozen())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(resources: &str) -> CgroupPlan {
        let linux = serde_json::from_str(&format!(r#"{{"cgroupsPath": "/a", "resources": {resources}}}"#));
        let at = Pointer::root().field("linux");
        plan(Some(&linux.unwrap()), "c1", Driver::Cgroupfs, std::iter::empty(), &at).unwrap()
    }

    #[test]
    fn a_container_without_a_cgroup_may_ask_for_no_limit() {
        let limited = planned(r#"{"pids": {"limit": 5}}"#);
        assert_eq!(
            crate::error::line(&limited.without_limits("drop it").unwrap_err()),
            "config.json: /linux/resources/pids/limit: pids.max = \"5\" requires a cgroup for the container (drop it)"
        );
        let unlimited = planned(r#"{"pids": {"limit": -1}, "devices": [{"allow": false, "access": "rwm"}]}"#);
        let unlimited = unlimited.without_limits("").unwrap();
        let asking = ScopeRequest { buses: &crate::host::environment::Buses::default(), signals: None };
        assert_eq!(unlimited.create(Rootless::Auto, asking, |_| Ok(())).unwrap().path(), None);
    }
}
