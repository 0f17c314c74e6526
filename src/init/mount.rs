//! Mounts by descriptor: each is created detached, then attached to a target that is already held open, so
//! that the target cannot be swapped in between (CVE-2021-30465). fsopen(2), open_tree(2), move_mount(2),
//! mount_setattr(2).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, OFlags, StatVfsMountFlags, XattrFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use super::detached::{clone_at, clone_source, clone_tree, detached, detached_clone};
use super::kernel_trees::KernelTrees;
use super::path::NumberedPath;
use super::step::{
    Bind, Failure, Mount, MountTarget, Of as _, OldStyle, Parameter, Part, Remount, TargetRule, item,
};
use super::{copy_up, path, procfs};
use crate::sys::mount::{Attributes, Recursion, set_attributes};
use crate::sys::weakened;

/// `MOUNT_ATTR__ATIME`: the mask of the access time settings.
const ATIME: u64 = 0x70;
/// linux/magic.h.
const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// The device number of /dev/null; devices.txt.
pub const NULL_DEVICE: u64 = libc::makedev(1, 3);
/// Vulnerabilities caused by a /proc or /sys that is a symbolic link.
const LINKED: [&str; 4] = ["CVE-2019-19921", "CVE-2023-27561", "CVE-2023-28642", "CVE-2025-54867"];

/// Attaches the detached mount `mount` on top of `target`.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", target, c"", flags)
}

/// Attaches `tree` on top of the root. No path leads there, because processes resolve paths below the mount
/// they hold as their root, but it can be the target of pivot_root(2), and it goes away with the old root.
pub fn attach_to_root(tree: BorrowedFd<'_>) -> Result<(), Errno> {
    attach_at(tree, c"/")
}

fn attach_at(tree: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
    rustix::mount::move_mount(tree, c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Makes the host directory `path` a mount that can become the root, and returns its root directory. If
/// `path` cannot be reached, uses `tree`, the parent's clone of it. If it is to be pivoted to, it is attached
/// in place, so that bind sources can be inside it.
pub fn open_rootfs(
    path: &CStr,
    tree: Option<BorrowedFd<'_>>,
    is_pivoted_to: bool,
    is_private: bool,
) -> Result<OwnedFd, Errno> {
    let (root, is_own) = match (clone_tree(path, true), tree) {
        (Err(Errno::ACCESS), Some(tree)) => (rustix::io::fcntl_dupfd_cloexec(unlocked(tree)?, 0)?, false),
        (own, _) => (own?, true),
    };
    if is_private {
        let private = Attributes { propagation: libc::MS_PRIVATE, ..Attributes::default() };
        set_attributes(root.as_fd(), Recursion::ThisMount, private)?;
    }
    if is_own && (is_pivoted_to || tree.is_none()) {
        attach_at(root.as_fd(), path)?;
    } else {
        attach_to_root(root.as_fd())?;
    }
    Ok(root)
}

/// Returns the parent's `tree`, unless it must stay read-only. The host's restrictions are locked in a copy
/// that a user namespace makes itself, but the container could remove them from a mount handed to it;
/// mount_namespaces(7).
///
/// # Errors
/// `EACCES`, as for the unreachable path, if the host's mount is read-only.
fn unlocked(tree: BorrowedFd<'_>) -> Result<BorrowedFd<'_>, Errno> {
    if rustix::fs::fstatvfs(tree)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(Errno::ACCESS);
    }
    Ok(tree)
}

pub fn host_propagation(path: &CStr, propagation: u64, reach: Recursion) -> Result<(), Errno> {
    let mount = rustix::mount::open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    set_attributes(mount.as_fd(), reach, Attributes { propagation, ..Attributes::default() })
}

/// Detaches the host's mount at `path`; if that is not permitted, covers it with an empty read-only tmpfs.
pub fn hide_host_mount(path: &CStr) -> Result<(), Errno> {
    let private = libc::MS_PRIVATE;
    match host_propagation(path, private, Recursion::ThisMount) {
        // Already gone, or unreachable because a mount above it has been unmounted.
        Err(Errno::NOENT | Errno::INVAL | Errno::ACCESS | Errno::NOTDIR) => return Ok(()),
        result => result?,
    }
    match rustix::mount::unmount(path, UnmountFlags::DETACH) {
        // EINVAL in a user namespace: the mount is locked together with those it came with.
        Err(Errno::PERM | Errno::INVAL) => {
            let target = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
            attach(detached(c"tmpfs", &[], MountAttrFlags::MOUNT_ATTR_RDONLY)?.as_fd(), target.as_fd())
        }
        result => result,
    }
}

/// Mounts a new file system and returns it. A procfs shows `pid_namespace`, if given.
pub fn mount(
    root: BorrowedFd<'_>,
    what: &Mount,
    pid_namespace: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, Failure> {
    let inherited =
        if what.inherit_mode { existing_mode(root, &what.target.path).of(Part::Target)? } else { None };
    let target = open_target(root, &what.target, TargetKind::Directory)?;
    let mount = match &what.old_style {
        Some(options) => mounted_the_old_way(what, options, target.as_fd())?,
        None => match (new(root, what, inherited, pid_namespace), &what.stand_in) {
            (Err(Failure { errno: Errno::PERM, part: Part::Whole }), Some(path)) => stand_in(path, what)?,
            (mount, _) => mount?,
        },
    };
    if let Some(label) = &what.label {
        // `mount` is an O_PATH descriptor, which fsetxattr(2) does not accept.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&mount, c".", flags, rustix::fs::Mode::empty())?;
        let flags = XattrFlags::empty();
        rustix::fs::fsetxattr(&directory, c"security.selinux", label.to_bytes(), flags)
            .of(Part::Item(Parameter::NOT_AN_OPTION))?;
    }
    if what.copy_up {
        copy_up::copy(target.as_fd(), mount.as_fd())?;
    }
    if let Some((propagation, reach)) = what.propagation {
        set_attributes(mount.as_fd(), reach, Attributes { propagation, ..Attributes::default() })?;
    }
    attach(mount.as_fd(), target.as_fd()).of(Part::Target)?;
    Ok(mount)
}

/// Creates a detached file system; `mode`, for a tmpfs, is that of the directory it covers.
fn new(
    root: BorrowedFd<'_>,
    what: &Mount,
    mode: Option<u32>,
    pid_namespace: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, Failure> {
    let context = match pid_namespace.filter(|_| what.fstype.as_c_str() == c"proc") {
        Some(namespace) => procfs::context_of(namespace, root)?,
        None => rustix::mount::fsopen(what.fstype.as_c_str(), FsOpenFlags::FSOPEN_CLOEXEC)?,
    };
    if let Some(source) = &what.source {
        rustix::mount::fsconfig_set_string(context.as_fd(), c"source", source.as_c_str()).of(Part::Source)?;
    }
    if let Some(mode) = mode {
        let mut digits = *b"0000\0";
        for (digit, shift) in digits.iter_mut().zip([9, 6, 3, 0]) {
            *digit = digit.wrapping_add(u8::try_from(mode >> shift & 7).unwrap_or(0));
        }
        let digits = CStr::from_bytes_with_nul(&digits).unwrap_or(c"0755");
        rustix::mount::fsconfig_set_string(context.as_fd(), c"mode", digits)?;
    }
    configure(context.as_fd(), &what.parameters)?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    Ok(rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, what.attributes)?)
}

/// Returns a detached clone of the host's cgroup2 at `path`.
///
/// # Errors
/// `EPERM` if something else is mounted there.
fn stand_in(path: &CStr, what: &Mount) -> Result<OwnedFd, Errno> {
    let clone = clone_tree(path, true)?;
    if u64::try_from(rustix::fs::fstatfs(&clone)?.f_type) != Ok(CGROUP2_MAGIC) {
        return Err(Errno::PERM);
    }
    // The access time settings of a mount from another user namespace are locked.
    let mut set = u64::from(what.attributes.bits()) & !ATIME;
    if weakened::is_off("CVE-2023-25809") {
        set &= !libc::MOUNT_ATTR_RDONLY;
    }
    set_attributes(clone.as_fd(), Recursion::WholeTree, Attributes { set, ..Attributes::default() })?;
    Ok(clone)
}

/// Like [`new`], but with mount(2), which needs a path: that of a directory on a private tmpfs that is
/// attached to `target` meanwhile. The path goes through the procfs, which is still the host's.
fn mounted_the_old_way(what: &Mount, options: &OldStyle, target: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let path = |of: &OwnedFd| NumberedPath::new(b"/proc/self/fd/", of.as_raw_fd().unsigned_abs());
    let scratch = detached(c"tmpfs", &[], MountAttrFlags::empty())?;
    attach(scratch.as_fd(), target)?;
    let mounted = || -> Result<OwnedFd, Errno> {
        rustix::fs::mkdirat(&scratch, c"m", rustix::fs::Mode::RWXU)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let place = rustix::fs::openat(&scratch, c"m", flags, rustix::fs::Mode::empty())?;
        let source = what.source.as_ref().map_or(c"none", |source| source.as_c_str());
        let flags = MountFlags::from_bits_retain(options.flags.try_into().unwrap_or(0));
        let data = options.data.as_c_str();
        rustix::mount::mount(source, path(&place).as_cstr(), what.fstype.as_c_str(), flags, data)?;
        let mounted = clone_at(scratch.as_fd(), c"m")?;
        let set = what.attributes.bits().into();
        let what = Attributes { set, clear: ATIME, propagation: 0 };
        set_attributes(mounted.as_fd(), Recursion::ThisMount, what)?;
        Ok(mounted)
    };
    let mounted = mounted();
    rustix::mount::unmount(path(&scratch).as_cstr(), UnmountFlags::DETACH)?;
    Ok(mounted?)
}

/// The mode of the file at `path`; `None` if it does not exist yet, which leaves the mode to the file system.
fn existing_mode(root: BorrowedFd<'_>, path: &CStr) -> Result<Option<u32>, Errno> {
    match path::open(root, path, OFlags::PATH) {
        Err(Errno::NOENT) => Ok(None),
        existing => Ok(Some(rustix::fs::statat(existing?, c"", AtFlags::EMPTY_PATH)?.st_mode)),
    }
}

/// Performs a bind mount. Returns the mount if its target is /proc or /sys.
pub fn bind(root: BorrowedFd<'_>, what: &Bind) -> Result<Option<OwnedFd>, Failure> {
    let cloned;
    if what.copy_symlink && copy_symlink(root, what)? {
        return Ok(None);
    }
    let source = match &what.tree {
        Some(tree) if what.maps_ids => tree.as_fd(),
        tree => match (clone_source(what), tree) {
            // EINVAL: it cannot be cloned without the mounts below it, which are locked to it here.
            (Err(Errno::ACCESS | Errno::INVAL), Some(tree)) => unlocked(tree.as_fd()).of(Part::Source)?,
            (own, _) => {
                cloned = own.of(Part::Source)?;
                cloned.as_fd()
            }
        },
    };
    let is_free = weakened::is_off("CVE-2019-16884");
    if what.target.rule == TargetRule::ProcFromHost && !is_free && !path::is_on_procfs(source)? {
        return Err(Failure { errno: Errno::PERM, part: Part::OnProc });
    }
    let kind = if path::is_directory(source)? { TargetKind::Directory } else { TargetKind::File };
    let target = open_target(root, &what.target, kind)?;
    match change(source, what.this_mount, what.whole_tree) {
        Err(Failure { errno: Errno::PERM, .. }) => change(source, what.beside_locked, what.whole_tree)?,
        result => result?,
    }
    attach(source, target.as_fd()).of(Part::Target)?;
    let is_top = KernelTrees::is_top(&what.target.path);
    Ok(is_top.then(|| rustix::io::fcntl_dupfd_cloexec(source, 0)).transpose()?)
}

/// If the source is a symbolic link, creates the same link at the target, unless a file exists there. Returns
/// whether it is a link.
#[inline(never)]
fn copy_symlink(root: BorrowedFd<'_>, what: &Bind) -> Result<bool, Failure> {
    let mut space = [0; path::PATH_MAX];
    let Some(link) = path::read_link(CWD, &what.source, &mut space).of(Part::Source)? else {
        return Ok(false);
    };
    let (parent, name) = path::parent(root, &what.target.path).of(Part::Target)?;
    match rustix::fs::symlinkat(link, &parent, name) {
        Ok(()) | Err(Errno::EXIST) => Ok(true),
        Err(errno) => Err(Failure { errno, part: Part::Target }),
    }
}

pub fn remount(root: BorrowedFd<'_>, what: &Remount) -> Result<(), Failure> {
    let target = path::open(root, &what.target.path, OFlags::PATH).of(Part::Target)?;
    if !what.parameters.is_empty() {
        let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
        let context = rustix::mount::fspick(&target, c"", flags)?;
        configure(context.as_fd(), &what.parameters)?;
        rustix::mount::fsconfig_reconfigure(context.as_fd())?;
    }
    change(target.as_fd(), what.this_mount, what.whole_tree)
}

/// Sets attributes of `mount` or, without one, of the mount at `target`, a path of the rootfs.
pub fn seal(
    root: BorrowedFd<'_>,
    target: &CStr,
    mount: Option<&OwnedFd>,
    attributes: Attributes,
) -> Result<(), Failure> {
    if let Some(mount) = mount.filter(|_| !weakened::is_off("GHSA-3q8j-pf29-vwv8")) {
        return Ok(set_attributes(mount.as_fd(), Recursion::ThisMount, attributes)?);
    }
    let mount = path::open(root, target, OFlags::PATH).of(Part::Target)?;
    Ok(set_attributes(mount.as_fd(), Recursion::ThisMount, attributes)?)
}

/// Makes `what` and everything below it read-only with a recursive bind mount onto itself. Does nothing if it
/// does not exist. The root, /proc and /sys are changed in place: this process would not see a mount on top
/// of its root, and later steps would not see one on top of the others.
pub fn read_only_path(root: BorrowedFd<'_>, trees: &KernelTrees, what: &CStr) -> Result<(), Errno> {
    let read_only = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
    for target in trees.find(root, what)?.into_iter().flatten() {
        if KernelTrees::is_top(what) && path::is_mount(target.as_fd())?
            || path::is_same(target.as_fd(), root)?
        {
            set_attributes(target.as_fd(), Recursion::WholeTree, read_only)?;
            continue;
        }
        let clone = detached_clone(target.as_fd(), true)?;
        if weakened::is_off("GHSA-3q8j-pf29-vwv8") {
            attach(clone.as_fd(), target.as_fd())?;
            // Gives an attacker time to win the race.
            let _ = rustix::thread::nanosleep(&rustix::fs::Timespec { tv_sec: 0, tv_nsec: 1_000_000 });
            let again = path::open(root, what, OFlags::PATH)?;
            set_attributes(again.as_fd(), Recursion::WholeTree, read_only)?;
            continue;
        }
        set_attributes(clone.as_fd(), Recursion::WholeTree, read_only)?;
        attach(clone.as_fd(), target.as_fd())?;
    }
    Ok(())
}

/// Masks each of `paths` that exists; `label` is a parameter of the tmpfs that masks directories.
pub fn mask(
    root: BorrowedFd<'_>,
    trees: &KernelTrees,
    paths: &[CString],
    label: Option<&(CString, CString)>,
) -> Result<(), Failure> {
    let mut covers = Covers { label, empty: None, null: None };
    for (index, what) in paths.iter().enumerate() {
        for target in trees.find(root, what).of(item(index))?.into_iter().flatten() {
            covers.cover(root, target.as_fd()).of(item(index))?;
        }
    }
    Ok(())
}

/// What paths are masked with. All directories share one empty tmpfs, because cloning a mount is cheaper than
/// another file system.
struct Covers<'a> {
    label: Option<&'a (CString, CString)>,
    empty: Option<OwnedFd>,
    null: Option<OwnedFd>,
}

impl Covers<'_> {
    /// Masks `target`.
    ///
    /// # Errors
    /// `EBUSY` for the root: it would be hidden from processes that join the container, but not from its
    /// program.
    fn cover(&mut self, root: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
        if path::is_same(target, root)? {
            return Err(Errno::BUSY);
        }
        if !path::is_directory(target)? {
            let null = match &self.null {
                Some(null) => null,
                None => self.null.insert(open_null(root)?),
            };
            return attach(detached_clone(null.as_fd(), false)?.as_fd(), target);
        }
        if let Some(empty) = &self.empty {
            return attach(detached_clone(empty.as_fd(), false)?.as_fd(), target);
        }
        let limits = [(c"nr_blocks", c"1"), (c"nr_inodes", c"1")];
        let [blocks, inodes] = limits;
        let labelled =
            self.label.map(|(key, context)| [blocks, inodes, (key.as_c_str(), context.as_c_str())]);
        let parameters = labelled.as_ref().map_or(&limits[..], |parameters| &parameters[..]);
        let empty = detached(c"tmpfs", parameters, MountAttrFlags::MOUNT_ATTR_RDONLY)?;
        attach(empty.as_fd(), target)?;
        self.empty = Some(empty);
        Ok(())
    }
}

/// Opens the container's /dev/null and checks that it is the real device: an image could have put a link or
/// another file there (CVE-2025-31133).
///
/// # Errors
/// `ENODEV` if it is something else.
fn open_null(root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    if weakened::is_off_for(&["CVE-2025-31133", "CVE-2025-62161"]) {
        return path::open(root, c"/dev/null", OFlags::PATH);
    }
    let null = path::open_without_links(root, c"/dev/null", OFlags::PATH)?;
    let stat = rustix::fs::statat(&null, c"", AtFlags::EMPTY_PATH)?;
    let is_null =
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == NULL_DEVICE;
    if is_null { Ok(null) } else { Err(Errno::NODEV) }
}

fn configure(context: BorrowedFd<'_>, parameters: &[Parameter]) -> Result<(), Failure> {
    for Parameter { key, value, option } in parameters {
        let result = match value {
            Some(value) => rustix::mount::fsconfig_set_string(context, key.as_c_str(), value.as_c_str()),
            None => rustix::mount::fsconfig_set_flag(context, key.as_c_str()),
        };
        result.of(Part::Item(*option))?;
    }
    Ok(())
}

fn change(mount: BorrowedFd<'_>, this_mount: Attributes, whole_tree: Attributes) -> Result<(), Failure> {
    if !this_mount.is_empty() {
        set_attributes(mount, Recursion::ThisMount, this_mount)?;
    }
    if !whole_tree.is_empty() {
        set_attributes(mount, Recursion::WholeTree, whole_tree)?;
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TargetKind {
    Directory,
    File,
}

fn open_target(root: BorrowedFd<'_>, target: &MountTarget, kind: TargetKind) -> Result<OwnedFd, Failure> {
    let may_be_linked = weakened::is_off_for(&LINKED);
    if !may_be_linked && matches!(target.rule, TargetRule::KernelDirectory | TargetRule::ProcFromHost) {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let opened = match path::open_without_links(root, &target.path, flags) {
            Err(Errno::NOENT) => path::directory(root, &target.path)
                .and_then(|_| path::open_without_links(root, &target.path, flags)),
            result => result,
        };
        return opened.of(Part::Target);
    }
    let existing = match target.rule {
        TargetRule::NoFollow => path::open(root, &target.path, OFlags::PATH | OFlags::NOFOLLOW).ok(),
        _ => None,
    };
    let opened = match (existing, kind) {
        (Some(existing), _) => existing,
        (None, TargetKind::Directory) => path::directory(root, &target.path).of(Part::Target)?,
        (None, TargetKind::File) => path::file(root, &target.path).of(Part::Target)?,
    };
    // move_mount(2) would fail with EINVAL, but callers of runtimes look for "not a directory".
    if kind == TargetKind::File && path::is_directory(opened.as_fd()).of(Part::Target)? {
        return Err(Failure { errno: Errno::NOTDIR, part: Part::Target });
    }
    // A link to the root: the program would continue below the new mount, while processes that join the
    // container would be above it.
    if path::is_same(opened.as_fd(), root).of(Part::Target)? {
        return Err(Failure { errno: Errno::BUSY, part: Part::Target });
    }
    let may_be_on_proc = target.rule == TargetRule::ListedProcFile || weakened::is_off("CVE-2019-16884");
    if !may_be_on_proc && path::is_on_procfs(opened.as_fd()).of(Part::Target)? {
        return Err(Failure { errno: Errno::PERM, part: Part::OnProc });
    }
    if weakened::is_off("CVE-2021-30465") {
        return path::open_by_name(root, &target.path, OFlags::PATH).of(Part::Target);
    }
    Ok(opened)
}
