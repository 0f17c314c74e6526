//! The console: a pty from the container's own devpts; pty(7).

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::path::NumberedPath;
use super::step::{Failure, Of as _, Part};
use super::{detached, mount, path};
use crate::init::protocol;
use crate::sys::weakened;

/// devpts; linux/magic.h.
const DEVPTS_MAGIC: u64 = 0x1cd1;

/// Performs [`super::step::Step::Console`]. The message text is `/dev/pts/N`, as with runc.
pub fn open(
    root: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    size: Option<(u16, u16)>,
    on_dev_console: bool,
) -> Result<(), Failure> {
    let master = open_master(root).of(Part::Source)?;
    rustix::pty::unlockpt(&master)?;
    // Opened through the master, not by the name /dev/pts/N, which an image could redirect (CVE-2025-52565).
    let peer = rustix::pty::ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )?;
    if let Some((rows, columns)) = size {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size)?;
    }
    if on_dev_console {
        let target = path::file(root, c"/dev/console").of(Part::Target)?;
        // The image may have put a symbolic link there; do not let it lead to procfs (CVE-2019-16884).
        if path::is_on_procfs(target.as_fd()).of(Part::Target)? {
            return Err(Failure { errno: Errno::PERM, part: Part::OnProc });
        }
        let named = match weakened::is_off("CVE-2025-52565") {
            true => Some(path::open(root, c"/dev/pts/0", OFlags::PATH)?),
            false => None,
        };
        let source = named.as_ref().unwrap_or(&peer);
        mount::attach(detached::detached_clone(source.as_fd(), false)?.as_fd(), target.as_fd())
            .of(Part::Target)?;
    }
    let number = rustix::fs::fstat(&peer)?.st_rdev;
    let name = NumberedPath::new(b"/dev/pts/", rustix::fs::minor(number));
    protocol::send_descriptor(socket, name.as_cstr().to_bytes(), master.as_fd())?;
    rustix::process::ioctl_tiocsctty(&peer)?;
    rustix::stdio::dup2_stdin(&peer)?;
    rustix::stdio::dup2_stdout(&peer)?;
    rustix::stdio::dup2_stderr(&peer)?;
    Ok(())
}

/// Opens a new pty master in the container's /dev/pts.
///
/// # Errors
/// `ENODEV` if /dev/pts is not a devpts.
fn open_master(root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    if weakened::is_off("CVE-2025-52565") {
        return path::open(root, c"/dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY);
    }
    let directory = path::open_without_links(root, c"/dev/pts", OFlags::PATH | OFlags::DIRECTORY)?;
    if u64::try_from(rustix::fs::fstatfs(&directory)?.f_type) != Ok(DEVPTS_MAGIC) {
        return Err(Errno::NODEV);
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&directory, c"ptmx", flags, Mode::empty())
}
