//! `--console-socket`: receives the terminal of a detached container. The init process sends the pty master
//! to it.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rustix::net::SocketType;

use crate::host::unix_socket;

/// Connects to the socket at `path`, if the process has a terminal and the runtime does not stay in the
/// foreground.
///
/// # Errors
/// If a socket is given but not needed, or needed but missing, in runc's words; if nobody listens on it.
pub fn plan(path: Option<&Path>, has_terminal: bool, stays: bool) -> Result<Option<OwnedFd>> {
    match (path, has_terminal && !stays) {
        (Some(path), true) => connect(path).map(Some),
        (Some(_), false) => bail!("cannot use console socket if the runtime will not detach or allocate tty"),
        (None, true) => {
            bail!("cannot allocate tty if the runtime will detach without setting console socket")
        }
        (None, false) => Ok(None),
    }
}

/// Connects to the stream socket at `path`, which may have any length.
///
/// # Errors
/// If it does not exist, is not a socket, or nobody listens on it.
fn connect(path: &Path) -> Result<OwnedFd> {
    unix_socket::connect(path, SocketType::STREAM).context("send to the console socket")
}
