//! The console: a pty of the container's own devpts; pty(7).

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::step::{Failure, Of as _, Part};
use super::{mount, path};
use crate::sync;

/// devpts; linux/magic.h.
const DEVPTS_MAGIC: u64 = 0x1cd1;

/// See [`super::step::Step::Console`]. The text is `/dev/pts/N`, as runc sends it.
pub fn open(
    root: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    size: Option<(u16, u16)>,
    on_dev_console: bool,
) -> Result<(), Failure> {
    let master = open_master(root).of(Part::Source)?;
    rustix::pty::unlockpt(&master)?;
    // By descriptor, not by the name that /dev/pts/N has inside, which an image can bend (CVE-2025-52565).
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
        mount::attach(mount::detached_clone(peer.as_fd(), false)?.as_fd(), target.as_fd())
            .of(Part::Target)?;
    }
    let mut name = Name::new();
    let number = rustix::fs::fstat(&peer)?.st_rdev;
    sync::send_descriptor(socket, name.of(rustix::fs::minor(number)).to_bytes(), master.as_fd())?;
    rustix::process::ioctl_tiocsctty(&peer)?;
    rustix::stdio::dup2_stdin(&peer)?;
    rustix::stdio::dup2_stdout(&peer)?;
    rustix::stdio::dup2_stderr(&peer)?;
    Ok(())
}

/// # Errors
/// `ENODEV` if /dev/pts is not a devpts.
fn open_master(root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let directory = path::open_without_links(root, c"/dev/pts", OFlags::PATH | OFlags::DIRECTORY)?;
    if u64::try_from(rustix::fs::fstatfs(&directory)?.f_type) != Ok(DEVPTS_MAGIC) {
        return Err(Errno::NODEV);
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&directory, c"ptmx", flags, Mode::empty())
}

/// `/dev/pts/N` without the heap.
struct Name([u8; 24]);

impl Name {
    fn new() -> Self {
        let mut bytes = [0; 24];
        for (to, from) in bytes.iter_mut().zip(b"/dev/pts/") {
            *to = *from;
        }
        Self(bytes)
    }

    fn of(&mut self, number: u32) -> &CStr {
        let mut at = 9;
        let mut divisor = 1_000_000_000;
        while divisor > 0 {
            let digit = number.checked_div(divisor).unwrap_or(0).checked_rem(10).unwrap_or(0);
            if (at > 9 || digit > 0 || divisor == 1)
                && let Some(byte) = self.0.get_mut(at)
            {
                *byte = b'0'.wrapping_add(u8::try_from(digit).unwrap_or(0));
                at = at.saturating_add(1);
            }
            divisor = divisor.checked_div(10).unwrap_or(0);
        }
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"/dev/pts/0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pty_has_the_name_that_its_number_gives() {
        assert_eq!(Name::new().of(0), c"/dev/pts/0");
        assert_eq!(Name::new().of(40_960), c"/dev/pts/40960");
        assert_eq!(Name::new().of(u32::MAX), c"/dev/pts/4294967295");
    }
}
