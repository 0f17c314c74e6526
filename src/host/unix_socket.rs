//! UNIX sockets with paths of any length. An address holds only 107 bytes, so the last component is reached
//! through `/proc/self/fd`; unix(7).

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::sys::Errno;

/// Which socket to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketName {
    Path(PathBuf),
    /// A name in the abstract namespace, which belongs to the network namespace.
    Abstract(Vec<u8>),
}

/// Connects a new socket of `kind` to `target`; close-on-exec. Waits at most this long if the backlog of the
/// other end is full.
///
/// # Errors
/// As [`connect`]; `EAGAIN` on timeout.
pub fn connect_within(target: &SocketName, kind: SocketType, at_most: Duration) -> Result<OwnedFd> {
    match target {
        SocketName::Path(path) => connect_to_path(path, kind, Some(at_most)),
        SocketName::Abstract(name) => SocketAddrUnix::new_abstract_name(name)
            .and_then(|address| connect_to_address(&address, kind, Some(at_most)))
            .with_context(|| format!("connect to @{}", String::from_utf8_lossy(name))),
    }
}

/// Connects a new socket of `kind` to the one at `path`; close-on-exec.
///
/// # Errors
/// `ENOENT`; `ECONNREFUSED` if nobody listens; `EPROTOTYPE` if that socket is of another kind; a message of
/// its own if `path` is not a socket.
pub fn connect(path: &Path, kind: SocketType) -> Result<OwnedFd> {
    connect_to_path(path, kind, None)
}

fn connect_to_path(path: &Path, kind: SocketType, at_most: Option<Duration>) -> Result<OwnedFd> {
    // Opened first, so that the file checked is the one connected to. Not with std, which removes the access
    // mode from custom flags; with musl, that includes O_PATH.
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let target = rustix::fs::open(path, flags, Mode::empty()).map(File::from);
    let target = target.with_context(|| format!("open {}", path.display()))?;
    let status = target.metadata().with_context(|| format!("stat {}", path.display()))?;
    ensure!(status.file_type().is_socket(), "{} is not a socket", path.display());
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", target.as_raw_fd()));
    address
        .and_then(|address| connect_to_address(&address, kind, at_most))
        .with_context(|| format!("connect to {}", path.display()))
}

/// Connects a new socket of `kind` to `address`; close-on-exec.
pub fn connect_to(address: &SocketAddrUnix, kind: SocketType) -> Result<OwnedFd, Errno> {
    connect_to_address(address, kind, None)
}

fn connect_to_address(
    address: &SocketAddrUnix,
    kind: SocketType,
    at_most: Option<Duration>,
) -> Result<OwnedFd, Errno> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    if at_most.is_some() {
        // The send timeout also limits connect(2), which unix(7) does not mention.
        set_socket_timeout(&socket, Timeout::Send, at_most)?;
    }
    rustix::net::connect(&socket, address)?;
    Ok(socket)
}

/// Creates a socket of `kind` called `name` in `directory`, to which any user may connect; close-on-exec.
///
/// # Errors
/// `EADDRINUSE` if the name is taken.
pub fn bind(directory: &Path, name: &str, kind: SocketType) -> Result<OwnedFd> {
    let anchor = File::open(directory).with_context(|| format!("open {}", directory.display()))?;
    let made =
        SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", anchor.as_raw_fd())).and_then(|address| {
            let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
            rustix::net::bind(&socket, &address)?;
            // fchmod(2) on the socket would change a different inode, not the one in the directory.
            rustix::fs::chmodat(anchor.as_fd(), name, 0o777.into(), rustix::fs::AtFlags::empty())?;
            Ok(socket)
        });
    made.with_context(|| format!("bind {}/{name}", directory.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::error::line;

    #[test]
    fn a_path_longer_than_an_address_is_connected_to() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a".repeat(100)).join("b".repeat(100));
        fs::create_dir_all(&deep).unwrap();
        let name = "c".repeat(60);
        let _listening = bind(&deep, &name, SocketType::DGRAM).unwrap();
        connect(&deep.join(&name), SocketType::DGRAM).unwrap();
        assert_eq!(fs::metadata(deep.join(&name)).unwrap().permissions().mode() & 0o777, 0o777);
    }

    #[test]
    fn what_cannot_be_connected_to_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let shown = path.display();
        let refused = |path: &Path| line(&connect(path, SocketType::STREAM).unwrap_err());
        assert_eq!(refused(&path), format!("open {shown}: no such file or directory (ENOENT)"));
        fs::write(&path, "").unwrap();
        assert_eq!(refused(&path), format!("{shown} is not a socket"));
        fs::remove_file(&path).unwrap();
        drop(UnixListener::bind(&path).unwrap());
        assert_eq!(refused(&path), format!("connect to {shown}: connection refused (ECONNREFUSED)"));
    }
}
