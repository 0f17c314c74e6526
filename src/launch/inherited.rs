//! What the caller hands over by descriptor or socket, looked at before anything is made.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rustix::net::SocketType;

use crate::host::self_exe::Guard;
use crate::host::unix_socket;

/// # Errors
/// If one of the `count` descriptors from 3 on that are to be passed on is not open, or is not the caller's but `own`.
pub(super) fn require_inherited(count: u32, own: &Guard) -> Result<()> {
    for number in 3..count.saturating_add(3) {
        if own.is(number) || fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_err() {
            bail!("file descriptor {number} is not open (--preserve-fds and LISTEN_FDS count from 3)");
        }
    }
    Ok(())
}

/// Where a descriptor of the new process goes, if anybody wants one: `--pidfd-socket`.
pub(super) fn connect_pidfd_socket(path: Option<&Path>) -> Result<Option<OwnedFd>> {
    let connect = |path| unix_socket::connect(path, SocketType::STREAM).context("send to the pidfd socket");
    path.map(connect).transpose()
}
