//! `--console-socket`: where a detached container's terminal goes. The init process sends the pty's master to it.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::net::SocketType;

use crate::unix_socket;

/// Connects to the stream socket at `path`, of any length.
///
/// # Errors
/// Says when there is nothing, nobody who listens, or something that is not a socket.
pub fn connect(path: &Path) -> Result<OwnedFd> {
    unix_socket::connect(path, SocketType::STREAM).context("use the console socket")
}
