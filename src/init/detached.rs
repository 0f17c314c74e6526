//! Mounts that are attached nowhere: clones of others, and new file systems. open_tree(2), fsmount(2).

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

use super::step::Bind;

const CLONE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);

/// Returns a detached clone of the mount, or the part of it, at a descriptor; with `recursive`, of the mounts
/// below, too.
pub fn detached_clone(of: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd, Errno> {
    let flags = if recursive { CLONE | OpenTreeFlags::AT_RECURSIVE } else { CLONE };
    rustix::mount::open_tree(of, c"", flags | OpenTreeFlags::AT_EMPTY_PATH)
}

/// Returns a detached clone of the mount, or the part of it, at a host path; with `recursive`, of the mounts
/// below, too.
pub fn clone_tree(path: &CStr, recursive: bool) -> Result<OwnedFd, Errno> {
    let flags = if recursive { CLONE | OpenTreeFlags::AT_RECURSIVE } else { CLONE };
    rustix::mount::open_tree(CWD, path, flags)
}

/// Returns a detached clone of the mount at `name` in `directory`.
pub fn clone_at(directory: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    rustix::mount::open_tree(directory, name, CLONE | OpenTreeFlags::AT_SYMLINK_NOFOLLOW)
}

/// Returns a detached clone of the source of `what`.
pub fn clone_source(what: &Bind) -> Result<OwnedFd, Errno> {
    let mut flags = CLONE;
    if what.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if !what.follow_source {
        flags |= OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    }
    rustix::mount::open_tree(CWD, what.source.as_c_str(), flags)
}

/// Returns a new detached file system with these parameters.
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
