//! Mounts, by descriptor: made detached, then attached to a target that is already held open, so that nobody can swap
//! the target in between (CVE-2021-30465). fsopen(2), open_tree(2), move_mount(2), mount_setattr(2).

use std::ffi::CStr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use super::path::NumberedPath;
use super::step::{Bind, Failure, Mount, Of as _, Parameter, Part, Remount, Target, TargetRule, item};
use super::{copy_up, path};
use crate::sys::mount::{Attributes, Reach, set_attributes};

/// What the attributes of the new interface are called in mount(2).
const OLD_FLAGS: [(MountAttrFlags, MountFlags); 8] = [
    (MountAttrFlags::MOUNT_ATTR_RDONLY, MountFlags::RDONLY),
    (MountAttrFlags::MOUNT_ATTR_NOSUID, MountFlags::NOSUID),
    (MountAttrFlags::MOUNT_ATTR_NODEV, MountFlags::NODEV),
    (MountAttrFlags::MOUNT_ATTR_NOEXEC, MountFlags::NOEXEC),
    (MountAttrFlags::MOUNT_ATTR_NOATIME, MountFlags::NOATIME),
    (MountAttrFlags::MOUNT_ATTR_STRICTATIME, MountFlags::STRICTATIME),
    (MountAttrFlags::MOUNT_ATTR_NODIRATIME, MountFlags::NODIRATIME),
    (MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW, MountFlags::NOSYMFOLLOW),
];

const CLONE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);
/// The device number of /dev/null; devices.txt.
const NULL_DEVICE: u64 = libc::makedev(1, 3);

/// Attaches the detached mount `mount` on top of `target`.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", target, c"", flags)
}

/// A detached copy of the mount, or the part of it, at a descriptor.
pub fn detached_clone(of: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd, Errno> {
    let flags = if recursive { CLONE | OpenTreeFlags::AT_RECURSIVE } else { CLONE };
    rustix::mount::open_tree(of, c"", flags | OpenTreeFlags::AT_EMPTY_PATH)
}

/// A detached copy of the mount, or the part of it, at a path of the host.
pub fn detached_clone_of_path(path: &CStr) -> Result<OwnedFd, Errno> {
    rustix::mount::open_tree(CWD, path, CLONE)
}

/// A new, detached file system without parameters.
pub fn detached(
    fstype: &CStr,
    parameters: &[(&CStr, &CStr)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in parameters {
        rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value)?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Makes the host's directory `path` a mount of its own and returns its root.
pub fn open_rootfs(path: &CStr) -> Result<OwnedFd, Errno> {
    let root = rustix::mount::open_tree(CWD, path, CLONE | OpenTreeFlags::AT_RECURSIVE)?;
    rustix::mount::move_mount(root.as_fd(), c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(root)
}

pub fn host_propagation(path: &CStr, propagation: u64, reach: Reach) -> Result<(), Errno> {
    let mount = rustix::mount::open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    set_attributes(mount.as_fd(), reach, Attributes { propagation, ..Attributes::default() })
}

/// Detaches the host's mount at `path`; where that is not permitted, covers it with an empty read-only tmpfs.
pub fn hide_host_mount(path: &CStr) -> Result<(), Errno> {
    let private = libc::MS_PRIVATE;
    match host_propagation(path, private, Reach::ThisMount) {
        // Gone or out of reach: unmounted with a mount above it.
        Err(Errno::NOENT | Errno::INVAL | Errno::ACCESS | Errno::NOTDIR) => return Ok(()),
        result => result?,
    }
    match rustix::mount::unmount(path, UnmountFlags::DETACH) {
        Err(Errno::PERM) => {
            let target = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
            attach(detached(c"tmpfs", &[], MountAttrFlags::MOUNT_ATTR_RDONLY)?.as_fd(), target.as_fd())
        }
        Err(Errno::INVAL) => Ok(()),
        result => result,
    }
}

pub fn mount(root: BorrowedFd<'_>, what: &Mount) -> Result<(), Failure> {
    let inherited =
        if what.inherit_mode { existing_mode(root, &what.target.path).of(Part::Target)? } else { None };
    let target = open_target(root, &what.target, Kind::Directory)?;
    if let Some(data) = &what.data {
        return mount_the_old_way(what, data, target.as_fd());
    }
    let context = rustix::mount::fsopen(what.fstype.as_c_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some(source) = &what.source {
        rustix::mount::fsconfig_set_string(context.as_fd(), c"source", source.as_c_str()).of(Part::Source)?;
    }
    if let Some(mode) = inherited {
        let mut digits = *b"0000\0";
        for (digit, shift) in digits.iter_mut().zip([9, 6, 3, 0]) {
            *digit = digit.wrapping_add(u8::try_from(mode >> shift & 7).unwrap_or(0));
        }
        let digits = CStr::from_bytes_with_nul(&digits).unwrap_or(c"0755");
        rustix::mount::fsconfig_set_string(context.as_fd(), c"mode", digits)?;
    }
    configure(context.as_fd(), &what.parameters)?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let mount = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, what.attributes)?;
    if what.copy_up {
        copy_up::copy(target.as_fd(), mount.as_fd())?;
    }
    if let Some((propagation, reach)) = what.propagation {
        set_attributes(mount.as_fd(), reach, Attributes { propagation, ..Attributes::default() })?;
    }
    attach(mount.as_fd(), target.as_fd()).of(Part::Target)
}

/// mount(2) takes a path: that of the descriptor, in the procfs that is still the host's.
fn mount_the_old_way(what: &Mount, data: &CStr, target: BorrowedFd<'_>) -> Result<(), Failure> {
    let flags = OLD_FLAGS
        .iter()
        .filter(|(attribute, _)| what.attributes.contains(*attribute))
        .fold(MountFlags::empty(), |flags, (_, flag)| flags | *flag);
    let source = what.source.as_ref().map_or(c"none", |source| source.as_c_str());
    let path = NumberedPath::new(b"/proc/self/fd/", target.as_raw_fd().unsigned_abs());
    Ok(rustix::mount::mount(source, path.as_cstr(), what.fstype.as_c_str(), flags, data)?)
}

/// The mode of what is at `path`; a directory that is yet to be made leaves the choice to the file system.
fn existing_mode(root: BorrowedFd<'_>, path: &CStr) -> Result<Option<u32>, Errno> {
    match path::open(root, path, OFlags::PATH) {
        Err(Errno::NOENT) => Ok(None),
        existing => Ok(Some(rustix::fs::statat(existing?, c"", AtFlags::EMPTY_PATH)?.st_mode)),
    }
}

pub fn bind(root: BorrowedFd<'_>, what: &Bind) -> Result<(), Failure> {
    let mut flags = CLONE;
    if what.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if !what.follow_source {
        flags |= OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    }
    if what.copy_symlink && copy_symlink(root, what)? {
        return Ok(());
    }
    let source = rustix::mount::open_tree(CWD, what.source.as_c_str(), flags).of(Part::Source)?;
    if what.target.rule == TargetRule::ProcFromHost && !path::is_on_procfs(source.as_fd())? {
        return Err(Failure { errno: Errno::PERM, part: Part::OnProc });
    }
    let kind = if path::is_directory(source.as_fd())? { Kind::Directory } else { Kind::File };
    let target = open_target(root, &what.target, kind)?;
    change(source.as_fd(), what.this_mount, what.whole_tree)?;
    attach(source.as_fd(), target.as_fd()).of(Part::Target)
}

/// Makes the source's link at the target, unless the source is no link; an existing file stays.
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

/// Changes attributes of the mount at `target`, a path of the rootfs.
pub fn seal(root: BorrowedFd<'_>, target: &CStr, attributes: Attributes) -> Result<(), Failure> {
    let mount = path::open(root, target, OFlags::PATH).of(Part::Target)?;
    Ok(set_attributes(mount.as_fd(), Reach::ThisMount, attributes)?)
}

/// Makes `what` read-only by mounting it on itself. Nothing happens if it does not exist.
pub fn read_only_path(root: BorrowedFd<'_>, what: &CStr) -> Result<(), Errno> {
    let target = match path::open(root, what, OFlags::PATH) {
        Err(Errno::NOENT) => return Ok(()),
        result => result?,
    };
    let clone = detached_clone(target.as_fd(), true)?;
    let read_only = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
    set_attributes(clone.as_fd(), Reach::WholeTree, read_only)?;
    attach(clone.as_fd(), target.as_fd())
}

/// Covers each of `paths` that exists.
pub fn mask(root: BorrowedFd<'_>, paths: &[std::ffi::CString]) -> Result<(), Failure> {
    // One empty tmpfs serves all directories: each file system costs more than a clone of its mount.
    let mut empty: Option<OwnedFd> = None;
    let mut null: Option<OwnedFd> = None;
    for (index, what) in paths.iter().enumerate() {
        let target = match path::open(root, what, OFlags::PATH) {
            Err(Errno::NOENT) => continue,
            result => result.of(item(index))?,
        };
        let cover = if path::is_directory(target.as_fd()).of(item(index))? {
            match &empty {
                Some(mounted) => detached_clone(mounted.as_fd(), false),
                None => detached(
                    c"tmpfs",
                    &[(c"nr_blocks", c"1"), (c"nr_inodes", c"1")],
                    MountAttrFlags::MOUNT_ATTR_RDONLY,
                ),
            }
            .of(item(index))?
        } else {
            let null = match &null {
                Some(null) => null,
                None => null.insert(open_null(root).of(item(index))?),
            };
            detached_clone(null.as_fd(), false).of(item(index))?
        };
        attach(cover.as_fd(), target.as_fd()).of(item(index))?;
        if empty.is_none() && path::is_directory(cover.as_fd()).of(item(index))? {
            empty = Some(cover);
        }
    }
    Ok(())
}

/// The container's /dev/null, known to be the real one: an image could have put a link or another file there
/// (CVE-2025-31133).
///
/// # Errors
/// `ENODEV` if it is something else.
fn open_null(root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
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
        set_attributes(mount, Reach::ThisMount, this_mount)?;
    }
    if !whole_tree.is_empty() {
        set_attributes(mount, Reach::WholeTree, whole_tree)?;
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
}

fn open_target(root: BorrowedFd<'_>, target: &Target, kind: Kind) -> Result<OwnedFd, Failure> {
    if target.rule == TargetRule::KernelDirectory || target.rule == TargetRule::ProcFromHost {
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
        (None, Kind::Directory) => path::directory(root, &target.path).of(Part::Target)?,
        (None, Kind::File) => path::file(root, &target.path).of(Part::Target)?,
    };
    // move_mount(2) would say EINVAL; the callers of runtimes look for "not a directory".
    if kind == Kind::File && path::is_directory(opened.as_fd()).of(Part::Target)? {
        return Err(Failure { errno: Errno::NOTDIR, part: Part::Target });
    }
    if target.rule != TargetRule::ListedProcFile && path::is_on_procfs(opened.as_fd()).of(Part::Target)? {
        return Err(Failure { errno: Errno::PERM, part: Part::OnProc });
    }
    Ok(opened)
}
