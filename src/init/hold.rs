//! A process that does nothing but keep a user namespace alive, so that the parent can ask the kernel about
//! it.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::net::SendFlags;

use super::{await_byte, close_others};
use crate::sys::process;

/// Joins `namespace`, if given, sends the errno (or 0) to the parent in four bytes, and waits until the
/// parent closes its end.
pub fn hold(unused: &[(u32, u32)], namespace: Option<BorrowedFd<'_>>, parent: BorrowedFd<'_>) -> ! {
    // Root in that namespace could otherwise inspect this process's memory (CVE-2016-9962).
    let _ = process::set_dumpable(false);
    let joined = close_others(unused).and_then(|()| match namespace {
        Some(namespace) => process::setns(namespace.as_fd(), libc::CLONE_NEWUSER),
        None => Ok(()),
    });
    let errno = joined.err().map_or(0, |errno| errno.raw_os_error());
    let _ = rustix::net::send(parent, &errno.to_ne_bytes(), SendFlags::NOSIGNAL);
    let _ = await_byte(parent);
    process::exit_now(0)
}
