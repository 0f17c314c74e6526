//! `--console-socket`: where a detached container's terminal goes. The init process sends the pty's master to it.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rustix::net::SocketType;

use crate::host::unix_socket;

/// The socket at `path`, if there is one to use: for the terminal of a process, if it has one, that the runtime does not stay
/// with.
///
/// # Errors
/// If there is one too many or one is missing, in runc's words; if nobody listens to it.
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

/// Connects to the stream socket at `path`, of any length.
///
/// # Errors
/// Says when there is nothing, nobody who listens, or something that is not a socket.
fn connect(path: &Path) -> Result<OwnedFd> {
    unix_socket::connect(path, SocketType::STREAM).context("send to the console socket")
}
