//! Checks the descriptors and sockets that the caller hands over, before anything is made.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rustix::net::SocketType;

use crate::host::self_exe::Guard;
use crate::host::unix_socket;

/// # Errors
/// If one of the `count` descriptors from 3 on is not open, or belongs to the runtime (`own`) rather than to
/// the caller.
pub(super) fn require_inherited(count: u32, own: &Guard) -> Result<()> {
    for number in 3..count.saturating_add(3) {
        if own.is(number) || fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_err() {
            bail!("file descriptor {number} is not open (--preserve-fds and LISTEN_FDS count from 3)");
        }
    }
    Ok(())
}

/// Connects to the socket of `--pidfd-socket`, if one is given.
pub(super) fn connect_pidfd_socket(path: Option<&Path>) -> Result<Option<OwnedFd>> {
    let connect = |path| unix_socket::connect(path, SocketType::STREAM).context("send to the pidfd socket");
    path.map(connect).transpose()
}
