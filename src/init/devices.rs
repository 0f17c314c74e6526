//! Makes device nodes and the links beside them, below a directory that is held open (CVE-2026-41579,
//! CVE-2026-47766).

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::step::{Entry, Failure, Of as _, Part, item};
use super::{detached, mount, path};
use crate::sys::cred;
use crate::sys::mount::{Attributes, Recursion, set_attributes};

/// Makes `entries` in the directory at `path` of the rootfs.
///
/// # Errors
/// `EEXIST` if a file of another kind has the name of a device node.
pub fn populate(
    root: BorrowedFd<'_>,
    path: &CStr,
    entries: &[Entry],
    nodes: Option<BorrowedFd<'_>>,
) -> Result<(), Failure> {
    let directory = path::directory(root, path).of(Part::Target)?;
    // The names are single components below a directory held open, so an image cannot redirect them.
    for (index, entry) in entries.iter().enumerate() {
        make(directory.as_fd(), path, entry, nodes).of(item(index))?;
    }
    Ok(())
}

fn make(
    directory: BorrowedFd<'_>,
    path: &CStr,
    entry: &Entry,
    nodes: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    match entry {
        Entry::Node { name, mode, device, uid, gid, ready } => {
            let kind = FileType::from_raw_mode(*mode);
            if let (Some(nodes), Some(ready)) = (nodes, ready) {
                return match mount_node(detached::clone_at(nodes, ready)?.as_fd(), directory, name) {
                    Err(Errno::EXIST) => expect_node(directory, name, kind, *device),
                    result => result,
                };
            }
            match rustix::fs::mknodat(directory, name.as_c_str(), kind, Mode::from_raw_mode(*mode), *device) {
                Err(Errno::EXIST) => return expect_node(directory, name, kind, *device),
                // mknod(2) of devices is not permitted in a user namespace.
                Err(Errno::PERM) => return bind_node(directory, path, name, kind, *device),
                result => result?,
            }
            if (*uid, *gid) == (0, 0) {
                return Ok(());
            }
            let (uid, gid) = (cred::uid(*uid), cred::gid(*gid));
            rustix::fs::chownat(directory, name.as_c_str(), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        }
        Entry::Link { name, target } => match link(directory, name, target) {
            Err(Errno::EXIST) => Ok(()),
            result => result,
        },
        Entry::ReplacingLink { name, target } => match link(directory, name, target) {
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(directory, name.as_c_str(), AtFlags::empty())?;
                link(directory, name, target)
            }
            result => result,
        },
    }
}

/// Bind-mounts the host's node of the same path on a new file `name` in `directory`, which is `path` in the
/// container. Must run before the rootfs becomes the root.
///
/// # Errors
/// `ENODEV` if the host's node is a different device.
#[inline(never)]
fn bind_node(
    directory: BorrowedFd<'_>,
    path: &CStr,
    name: &CStr,
    kind: FileType,
    device: u64,
) -> Result<(), Errno> {
    let host = path::joined(path, name)?;
    let source = detached::clone_tree(host.as_cstr(0)?, false)?;
    if !is_node(source.as_fd(), c"", kind, device)? {
        return Err(Errno::NODEV);
    }
    mount_node(source.as_fd(), directory, name)
}

/// Mounts a node on a new file `name` in `directory`: nosuid and noexec, whatever the mount it comes from
/// allows, and private, so that later mounts by the host do not propagate to it.
fn mount_node(node: BorrowedFd<'_>, directory: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    let target = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    let set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    let only_a_device = Attributes { set, clear: 0, propagation: libc::MS_PRIVATE };
    set_attributes(node, Recursion::ThisMount, only_a_device)?;
    mount::attach(node, target.as_fd())
}

fn link(directory: BorrowedFd<'_>, name: &CStr, target: &CStr) -> Result<(), Errno> {
    rustix::fs::symlinkat(target, directory, name)
}

fn expect_node(directory: BorrowedFd<'_>, name: &CStr, kind: FileType, device: u64) -> Result<(), Errno> {
    if is_node(directory, name, kind, device)? { Ok(()) } else { Err(Errno::EXIST) }
}

/// Whether `name` in `directory`, or `directory` itself if `name` is empty, is this device.
fn is_node(directory: BorrowedFd<'_>, name: &CStr, kind: FileType, device: u64) -> Result<bool, Errno> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == kind && (kind == FileType::Fifo || stat.st_rdev == device))
}
