//! Session keyrings; session-keyring(7).

use std::ffi::CStr;

use super::{Errno, check};

/// Joins the session keyring `name`, creating it if it does not exist, and returns its serial number;
/// keyctl(2).
///
/// # Errors
/// `ENOSYS` if the kernel lacks key management; `EDQUOT` if the user's quota of keys is used up.
pub fn join_session(name: &CStr) -> Result<libc::c_long, Errno> {
    // SAFETY: the kernel copies the NUL-terminated `name`, which lives across the call.
    check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })
}

/// Sets the permission mask of the key `serial`; keyctl(2).
pub fn set_permissions(serial: libc::c_long, mask: u32) -> Result<(), Errno> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_SETPERM, serial, mask) }).map(drop)
}
