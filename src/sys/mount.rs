//! mount_setattr(2), which rustix does not wrap.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::{Errno, check};

/// The attributes to change: `MOUNT_ATTR_*` to set and to clear, and the new propagation (`MS_SHARED` etc.,
/// or 0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub set: u64,
    pub clear: u64,
    pub propagation: u64,
}

impl Attributes {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether the mounts below a mount are changed as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recursion {
    ThisMount,
    WholeTree,
}

/// Id-maps a detached mount, whose root is `mount`, with the maps of `user_namespace`; `MOUNT_ATTR_IDMAP`,
/// mount_setattr(2).
///
/// # Errors
/// `EINVAL` if the file system does not support it; `EPERM` if the mount is id-mapped already, or without
/// CAP_SYS_ADMIN over the file system.
pub fn map_ids(mount: BorrowedFd<'_>, reach: Recursion, user_namespace: BorrowedFd<'_>) -> Result<(), Errno> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_namespace.as_raw_fd().unsigned_abs().into(),
    };
    set(mount, reach, &attr)
}

/// Changes the attributes of the mount whose root is `mount`; mount_setattr(2).
///
/// # Errors
/// `EINVAL` if `mount` is not the root of a mount; `EPERM` if an attribute is locked.
pub fn set_attributes(mount: BorrowedFd<'_>, reach: Recursion, what: Attributes) -> Result<(), Errno> {
    let attr = libc::mount_attr {
        attr_set: what.set,
        attr_clr: what.clear,
        propagation: what.propagation,
        userns_fd: 0,
    };
    set(mount, reach, &attr)
}

fn set(mount: BorrowedFd<'_>, reach: Recursion, attr: &libc::mount_attr) -> Result<(), Errno> {
    let flags = match reach {
        Recursion::ThisMount => libc::AT_EMPTY_PATH,
        Recursion::WholeTree => libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
    };
    // SAFETY: the empty path is a C string literal and `attr` lives across the call with its size; the kernel
    // only reads both. The descriptor is open for as long as it is borrowed, and so is the one that `attr`
    // may name.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    };
    check(result).map(drop)
}
