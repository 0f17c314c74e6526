//! Enabling controllers down the tree to the container's cgroup, and explaining why one is missing.
//!
//! A cgroup has the controllers that its parent lists in `cgroup.subtree_control`; cgroup-v2.rst §
//! Controlling Controllers. All controllers of the root are enabled, not only those that a limit needs, so
//! that statistics are available. If nothing is missing, as for all but the first container on a host, this
//! reads two files and writes none.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::io::Errno;

use super::control_file;
use super::control_file::lists;
use super::fs::Mount;
use super::resources::{Limits, Write};
use crate::error::Fault;
use crate::host::mountinfo;

/// Controllers that can be used in a threaded cgroup; cgroup-v2.rst § Threads.
const THREADED: [&str; 4] = ["cpu", "cpuset", "perf_event", "pids"];

/// The controllers of the container's cgroup.
#[derive(Debug)]
pub(super) struct Enabled {
    /// In the format of `cgroup.controllers`.
    pub(super) controllers: String,
    refusals: Vec<Refusal>,
}

impl Enabled {
    /// Returns the controllers that the cgroup `dir` at `path` has already.
    pub(super) fn of(dir: BorrowedFd<'_>, path: &Path) -> Result<Self> {
        let controllers = control_file::read(dir, "cgroup.controllers")
            .with_context(|| format!("read {}/cgroup.controllers", path.display()))?;
        Ok(Self { controllers, refusals: Vec::new() })
    }
}

/// A controller that an ancestor could not enable for its children.
#[derive(Debug)]
struct Refusal {
    controller: String,
    by: PathBuf,
    errno: Errno,
}

/// Enables missing controllers down to the cgroup `leaf` at `place`, and makes sure that it can hold
/// processes and has what `limits` need.
pub(super) fn enable(mount: &Mount, place: &Path, leaf: BorrowedFd<'_>, limits: &Limits) -> Result<Enabled> {
    let read = |dir: BorrowedFd<'_>, place: &Path| {
        control_file::read(dir, "cgroup.controllers")
            .with_context(|| format!("read {}/cgroup.controllers", mount.path_of(place).display()))
    };
    // Controllers that only work in a domain cgroup, not in a threaded one.
    let domain = limits
        .writes
        .iter()
        .find(|write| write.needs_controller() && !THREADED.contains(&write.controller()));
    let mut controllers = read(leaf, place)?;
    let mut refusals = Vec::new();
    let available = read(mount.dir.as_fd(), Path::new(""))?;
    if available.split_ascii_whitespace().any(|name| !lists(&controllers, name)) {
        controllers = enable_down(mount, place, available, domain, &mut refusals)?;
    }
    // A cgroup with a controller that threaded cgroups cannot have is a domain: no need to read its type.
    if controllers.split_ascii_whitespace().all(|name| THREADED.contains(&name)) {
        let leaf = Level::open(mount, place)?;
        let kind = leaf.kind()?;
        if let Some(write) = domain.filter(|_| kind != "domain") {
            let (path, name) = (leaf.path.display(), write.controller());
            return Err(write.at.error_with_hint(
                format_args!("cannot enter cgroup {path} with domain controllers such as {name} -- it is in {kind:?} mode"),
                "a parent cgroup has processes or is threaded; choose another cgroupsPath",
            ));
        }
        if kind == "domain invalid" {
            for place in from_the_root(place).skip(1) {
                Level::open(mount, place)?.make_threaded_if_invalid()?;
            }
            leaf.make_threaded_if_invalid()?;
        }
    }
    Ok(Enabled { controllers, refusals })
}

/// Returns the ancestors of `place`, the root first.
fn from_the_root(place: &Path) -> impl Iterator<Item = &Path> {
    let mut above: Vec<_> = place.ancestors().skip(1).collect();
    above.reverse();
    above.into_iter()
}

/// Enables controllers from the root down to the parent of `place`; returns those that `place` gets.
fn enable_down(
    mount: &Mount,
    place: &Path,
    available: String,
    domain: Option<&Write>,
    refusals: &mut Vec<Refusal>,
) -> Result<String> {
    let mut handed = available;
    for place in from_the_root(place) {
        let level = Level::open(mount, place)?;
        let enabled = level.read("cgroup.subtree_control")?;
        let missing: Vec<_> = handed.split_ascii_whitespace().filter(|name| !lists(&enabled, name)).collect();
        let add = |names: &[&str]| level.write("cgroup.subtree_control", &format!("+{}", names.join(" +")));
        let one_by_one = || missing.iter().filter_map(|name| Some((*name, add(&[*name]).err()?))).collect();
        let outcome = if missing.is_empty() { Ok(()) } else { add(&missing) };
        let refused: Vec<(&str, Errno)> = match outcome {
            Ok(()) => Vec::new(),
            // The cgroup has processes. Tried one by one, the threaded controllers would be accepted, and
            // every child would become "domain invalid", i.e. unable to hold processes.
            Err(Errno::BUSY) => missing.iter().map(|name| (*name, Errno::BUSY)).collect(),
            Err(Errno::OPNOTSUPP) if domain.is_none() => {
                level.make_threaded_if_invalid()?;
                one_by_one()
            }
            Err(_) => one_by_one(),
        };
        let is_refused = |name: &str| refused.iter().any(|(refused, _)| *refused == name);
        let taken: Vec<_> = handed.split_ascii_whitespace().filter(|name| !is_refused(name)).collect();
        let taken = taken.join(" ");
        refusals.extend(refused.iter().map(|(name, errno)| Refusal {
            controller: (*name).to_owned(),
            by: level.path.clone(),
            errno: *errno,
        }));
        handed = taken;
    }
    Ok(handed)
}

/// A cgroup on the way down.
struct Level {
    path: PathBuf,
    dir: OwnedFd,
}

impl Level {
    fn open(mount: &Mount, place: &Path) -> Result<Self> {
        let path = mount.path_of(place);
        let dir = control_file::open_dir(&path).with_context(|| format!("open cgroup {}", path.display()))?;
        Ok(Self { path, dir })
    }

    fn read(&self, name: &str) -> Result<String> {
        control_file::read(self.dir.as_fd(), name)
            .with_context(|| format!("read {}", self.path.join(name).display()))
    }

    fn write(&self, name: &str, value: &str) -> Result<(), Errno> {
        control_file::write(self.dir.as_fd(), name, value)
    }

    /// Returns the type: `domain`, `domain threaded`, `domain invalid` or `threaded`. The root has no type
    /// file and counts as `domain`.
    fn kind(&self) -> Result<String> {
        match control_file::read(self.dir.as_fd(), "cgroup.type") {
            Ok(kind) => Ok(kind.trim().to_owned()),
            Err(Errno::NOENT) => Ok("domain".to_owned()),
            Err(errno) => Err(errno).with_context(|| format!("read {}/cgroup.type", self.path.display())),
        }
    }

    /// Below a cgroup with both processes and threaded controllers, a cgroup must be threaded to hold
    /// processes.
    fn make_threaded_if_invalid(&self) -> Result<()> {
        if self.kind()? == "domain invalid" {
            self.write("cgroup.type", "threaded")
                .with_context(|| format!("write \"threaded\" to {}/cgroup.type", self.path.display()))?;
        }
        Ok(())
    }
}

/// The error for a `write` whose controller is missing, with the reason and a hint.
pub(super) fn missing(write: &Write, mount: &Mount, enabled: &Enabled) -> anyhow::Error {
    let name = write.controller();
    let what = format!("{} = {:?} requires the {name} controller", write.file, write.value);
    if let Some(refusal) = enabled.refusals.iter().find(|refusal| refusal.controller == name) {
        return refused(write, &what, refusal);
    }
    let (why, hint) = absent(name, mount);
    write.at.error_with_hint(format_args!("{what}, {why}"), format_args!("{hint}, or remove the limit"))
}

fn refused(write: &Write, what: &str, Refusal { by, errno, .. }: &Refusal) -> anyhow::Error {
    let by_name = by.display();
    if *errno == Errno::BUSY {
        let count = control_file::open_dir(by)
            .and_then(|dir| control_file::read(dir.as_fd(), "cgroup.procs"))
            .map_or(0, |text| text.lines().count());
        return write.at.error_with_hint(
            format_args!(
                "{what}, which {by_name} cannot enable for its children while it has processes \
                          itself (currently {count})"
            ),
            format_args!(
                "move them into a leaf cgroup: mkdir {by_name}/init; for p in $(cat \
                 {by_name}/cgroup.procs); do echo $p >{by_name}/init/cgroup.procs; done"
            ),
        );
    }
    let hint = matches!(*errno, Errno::ACCESS | Errno::PERM | Errno::ROFS)
        .then(|| "the cgroup is not delegated to this user or container".to_owned());
    let message = format!("{what}: write \"+{}\" to {by_name}/cgroup.subtree_control", write.controller());
    anyhow::Error::new(*errno).context(Fault { pointer: write.at.clone(), message, hint })
}

/// Why the root of the hierarchy lacks controller `name`, and a hint.
fn absent(name: &str, mount: &Mount) -> (String, String) {
    let v1_name = if name == "io" { "blkio" } else { name };
    let v1 = mountinfo::read().unwrap_or_default().into_iter().find(|mount| {
        mount.fstype == "cgroup" && mount.super_options.split(',').any(|option| option == v1_name)
    });
    let boot = format!("boot with cgroup_no_v1={v1_name} or systemd.unified_cgroup_hierarchy=1");
    if let Some(v1) = v1 {
        return (
            format!("which is attached to cgroup v1 at {} instead of cgroup v2", v1.mount_point.display()),
            boot,
        );
    }
    let root = mount.path.display();
    // The real root has no cgroup.type; the root of a cgroup namespace has one.
    if mount.path.join("cgroup.type").exists() {
        return (
            format!("which is not enabled for {root}"),
            "enable it in the parent cgroup, outside this container".to_owned(),
        );
    }
    // Columns: subsys_name, hierarchy (0 is cgroup v2), num_cgroups, enabled.
    let kernel = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    let row = kernel.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    match row.into_iter().find(|row| row.first() == Some(&v1_name)).as_deref() {
        Some([_, _, _, "0"]) => (
            "which is disabled in this kernel".to_owned(),
            format!("boot with cgroup_enable={v1_name} and without cgroup_disable={v1_name}"),
        ),
        Some([_, hierarchy, ..]) if *hierarchy != "0" => {
            ("which is attached to a cgroup v1 hierarchy that is not mounted here".to_owned(), boot)
        }
        _ => ("which this kernel lacks".to_owned(), "use a kernel built with it".to_owned()),
    }
}
