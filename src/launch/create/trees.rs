//! What the parent opens for an init process in a user namespace. Root of the namespace is an ordinary user
//! of the host: it may be unable to reach the rootfs and the sources of bind mounts, and cannot make device
//! nodes. A privileged parent opens and makes them before the clone, and the process inherits the
//! descriptors.
//!
//! Without privileges the parent can reach nothing that the init process cannot.

use std::cell::OnceCell;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use rustix::fs::{AtFlags, FileType, Mode};
use rustix::mount::MountAttrFlags;

use crate::error::{Fault, Pointer};
use crate::host::{mountinfo, path};
use crate::init;
use crate::init::step::{Bind, Entry, Mount, Step};
use crate::plan::Plan;
use crate::plan::linux::id_maps::IdMaps;
use crate::plan::mounts::Numbered;
use crate::program::{ChildInputs, Nodes, SourceTree, describe_bind};
use crate::sys::mount::{Attributes, Recursion, set_attributes};
use crate::sys::{Errno, cred};

/// Opens the rootfs, the bind sources and the notify directory, and makes the nodes of `/linux/devices`.
///
/// # Errors
/// Points at the mount or device.
pub(super) fn open(plan: &Plan, inputs: &mut ChildInputs) -> Result<()> {
    let propagation = propagation(plan);
    let rootfs = path::c_string(&plan.rootfs, &Pointer::root())?;
    let fault = || Fault {
        pointer: Pointer::root().field("root").field("path"),
        message: format!("open rootfs {:?}", plan.rootfs),
        hint: None,
    };
    let Some(tree) = open_one(init::clone_tree(&rootfs, true), propagation).with_context(fault)? else {
        return Ok(());
    };
    let mounts = Mounts::default();
    if mounts.has_none_below(&rootfs) {
        inputs.rootfs_tree = Some(tree);
        // The rootfs tree will be attached to `/` itself.
        if let Some(parent) = &mut inputs.rootfs_parent {
            *parent = c"/".into();
        }
    }
    let earlier: Vec<_> = plan
        .mounts
        .mounts
        .iter()
        .map(|(index, _)| earlier_mount(&plan.mounts.mounts, *index, &plan.rootfs))
        .collect();
    for ((index, step), earlier) in plan.mounts.mounts.iter().zip(earlier) {
        let Step::Bind(bind) = step else { continue };
        // The source does not exist yet.
        if earlier.is_some() {
            continue;
        }
        let at = Pointer::root().field("mounts").index(*index).field("source");
        let fault = || Fault { pointer: at, message: describe_bind(bind), hint: None };
        if !bind.recursive || mounts.has_none_below(&bind.source) {
            let tree = match open_source(bind, propagation) {
                // An earlier mount of the container may provide the source.
                Err(Errno::NOENT) => None,
                tree => tree.with_context(fault)?,
            };
            inputs.sources.extend(tree.map(|tree| (*index, SourceTree { tree, maps_ids: false })));
        }
    }
    if let Some((source, tree)) = &mut inputs.notify {
        *tree = open_one(init::clone_tree(source, false), propagation)
            .with_context(|| format!("open {source:?}"))?;
    }
    inputs.nodes = make_nodes(plan)?;
    Ok(())
}

/// Returns the first mount that covers the source of the bind at `index`, or a part of it that is bound with
/// it. Both are indices in `/mounts`. Nothing covers a source outside the rootfs.
pub(super) fn earlier_mount(mounts: &[Numbered], index: usize, rootfs: &Path) -> Option<usize> {
    let (_, Step::Bind(bind)) = mounts.iter().find(|(place, _)| *place == index)? else { return None };
    let source = Path::new(OsStr::from_bytes(bind.source.to_bytes()));
    let source = std::fs::canonicalize(source).unwrap_or_else(|_| source.to_owned());
    if !source.starts_with(rootfs) {
        return None;
    }
    let covers = |step: &Step| {
        let (Step::Mount(Mount { target, .. }) | Step::Bind(Bind { target, .. })) = step else {
            return false;
        };
        let target = target_in(rootfs, &target.path);
        source.starts_with(&target) || bind.recursive && target.starts_with(&source)
    };
    mounts
        .iter()
        .take_while(|(place, _)| *place != index)
        .find(|(_, step)| covers(step))
        .map(|(place, _)| *place)
}

/// The path on the host of a path of the container, resolved as far as it exists.
fn target_in(rootfs: &Path, path: &CStr) -> PathBuf {
    let name = || -> Option<PathBuf> {
        let root = std::fs::File::open(rootfs).ok()?;
        let found = init::open_inside(root.as_fd(), path).ok()?;
        std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).ok()
    };
    let relative = path.to_bytes().strip_prefix(b"/").unwrap_or(path.to_bytes());
    name().unwrap_or_else(|| rootfs.join(OsStr::from_bytes(relative)))
}

/// The propagation of the trees, as if the init process had opened them in its own mount namespace (`MS_*`).
pub(super) fn propagation(plan: &Plan) -> u64 {
    match plan.propagation {
        Some((libc::MS_PRIVATE | libc::MS_UNBINDABLE, _)) => libc::MS_PRIVATE,
        _ => libc::MS_SLAVE,
    }
}

pub(super) fn open_source(bind: &Bind, propagation: u64) -> Result<Option<OwnedFd>, Errno> {
    // A link that is to be copied is not mounted.
    if bind.copy_symlink && rustix::fs::readlink(&bind.source, Vec::new()).is_ok() {
        return Ok(None);
    }
    open_one(init::clone_source(bind), propagation)
}

/// The mount points of the host, sorted so that those below a directory follow it; read on first use.
#[derive(Default)]
pub(super) struct Mounts(OnceCell<Option<Vec<PathBuf>>>);

impl Mounts {
    fn points(&self) -> Option<&[PathBuf]> {
        let read = || {
            let mounts = mountinfo::read().ok()?.into_iter();
            let mut points: Vec<_> = mounts.map(|mount| mount.mount_point).collect();
            points.sort_unstable();
            Some(points)
        };
        self.0.get_or_init(read).as_deref()
    }

    /// Returns whether nothing is mounted below `source`. The init process opens what it can reach itself;
    /// through a tree of several mounts it would see only the first one, so it is not given such a tree.
    pub(super) fn has_none_below(&self, source: &CStr) -> bool {
        let path = Path::new(OsStr::from_bytes(source.to_bytes()));
        let Ok(path) = std::fs::canonicalize(path) else { return false };
        let Some(points) = self.points() else { return false };
        let next = points.partition_point(|point| *point <= path);
        points.get(next).is_none_or(|point| !point.starts_with(&path))
    }
}

/// Sets the propagation of `tree`, so that mounts made below the host's copy do not appear in the container's
/// nor the reverse: in its own mount namespace the init process would find no shared mount. Returns `None` if
/// this process may not clone mounts, and so can do no more than the init process.
fn open_one(tree: Result<OwnedFd, Errno>, propagation: u64) -> Result<Option<OwnedFd>, Errno> {
    let tree = match tree {
        Err(Errno::PERM) => return Ok(None),
        tree => tree?,
    };
    set_attributes(tree.as_fd(), Recursion::WholeTree, Attributes { propagation, ..Attributes::default() })?;
    Ok(Some(tree))
}

/// Makes the nodes of `/linux/devices`, with their modes and owners, in a tmpfs of their own. Returns `None`
/// if there are none or if this process may not make any: then the host's are bind-mounted.
fn make_nodes(plan: &Plan) -> Result<Option<Nodes>> {
    let maps = plan.id_maps.as_ref();
    let mut nodes: Option<Nodes> = None;
    for (index, entry) in plan.devices.configured() {
        let Entry::Node { mode, device, uid, gid, .. } = entry else { continue };
        if FileType::from_raw_mode(*mode) == FileType::Fifo {
            continue;
        }
        let at = Pointer::root().field("linux").field("devices").index(index);
        let owner = owner(maps, (*uid, *gid), &at)?;
        let Nodes { directory, names } = match &mut nodes {
            Some(nodes) => nodes,
            None => match new_file_system() {
                Err(Errno::PERM) => return Ok(None),
                made => nodes.insert(Nodes {
                    names: Vec::new(),
                    directory: made.context("create a file system for devices")?,
                }),
            },
        };
        let name = CString::new(index.to_string())?;
        match make_node(directory.as_fd(), &name, *mode, *device, owner) {
            Err(Errno::PERM) => {}
            made => {
                made.map_err(|errno| anyhow!(errno)).with_context(|| Fault {
                    pointer: at,
                    message: "create the device".into(),
                    hint: None,
                })?;
                names.push((index, name));
            }
        }
    }
    Ok(nodes)
}

fn new_file_system() -> Result<OwnedFd, Errno> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    init::detached(c"tmpfs", &[(c"mode", c"0755")], attributes)
}

fn make_node(
    directory: BorrowedFd<'_>,
    name: &CStr,
    mode: u32,
    device: u64,
    (uid, gid): (u32, u32),
) -> Result<(), Errno> {
    let permissions = Mode::from_raw_mode(mode);
    rustix::fs::mknodat(directory, name, FileType::from_raw_mode(mode), permissions, device)?;
    // mknod(2) applied the runtime's umask; the mode in the configuration is meant exactly.
    rustix::fs::chmodat(directory, name, permissions, AtFlags::empty())?;
    let (uid, gid) = (cred::uid(uid), cred::gid(gid));
    rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

/// The ids outside the user namespace that `uid` and `gid` in the container map to.
fn owner(maps: Option<&IdMaps>, (uid, gid): (u32, u32), at: &Pointer) -> Result<(u32, u32)> {
    let Some(maps) = maps else { return Ok((uid, gid)) };
    let mapped = |outside: Option<u32>, id: u32, field: &str| {
        outside.ok_or_else(|| at.field(field).error(format_args!("{id} is unmapped in the user namespace")))
    };
    Ok((mapped(maps.users.outside(uid), uid, "uid")?, mapped(maps.groups.outside(gid), gid, "gid")?))
}
