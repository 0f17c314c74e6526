//! A detached procfs of our own. Files opened through it are the kernel's, whatever a hostile image or
//! another container has done to /proc (CVE-2019-16884, CVE-2023-28642, CVE-2025-52881, CVE-2025-62596).

use std::ffi::CStr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, MountAttrFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{WaitId, WaitIdOptions};

use super::detached::detached;
use super::path::is_on_procfs;
use crate::init::protocol;
use crate::init::protocol::SIZE;
use crate::sys::process::{Cloned, clone3, close_range, exit_now, setns};
use crate::sys::weakened;

/// The inode number of a procfs root; `PROC_ROOT_INO`, linux/proc_fs.h.
const ROOT: u64 = 1;

/// Resolution that stays in the procfs: neither out of it nor into what is mounted on it. Magic links are
/// refused; `self`, an ordinary link to the process's pid, is not one.
const INSIDE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

/// Vulnerabilities caused by writing through the container's /proc.
const PUBLIC: [&str; 2] = ["CVE-2025-52881", "CVE-2025-62596"];

/// Returns the root of a procfs for the caller's pid namespace.
///
/// # Errors
/// `EXDEV` if no new procfs can be mounted and /proc is not a procfs.
pub fn open() -> Result<OwnedFd, Errno> {
    if weakened::is_off_for(&PUBLIC) {
        return rustix::fs::openat(CWD, c"/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    }
    match detached(c"proc", &[], MountAttrFlags::empty()) {
        // In a user namespace, the kernel refuses a new procfs if every visible one is partly covered by
        // other mounts. Then the existing one has to do. It is safe: a file that is covered is on another
        // mount and cannot be opened (NO_XDEV).
        Err(Errno::PERM) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let procfs = rustix::fs::openat(CWD, c"/proc", flags, Mode::empty())?;
            let is_root = is_on_procfs(procfs.as_fd())? && rustix::fs::fstat(&procfs)?.st_ino == ROOT;
            if is_root { Ok(procfs) } else { Err(Errno::XDEV) }
        }
        procfs => procfs,
    }
}

/// Returns a file system context for a procfs of pid namespace `namespace`, which this process is not in.
///
/// Before Linux 6.18, a procfs always shows the pid namespace of the process that called fsopen(2). So a
/// messenger is cloned into that namespace to do so. It has no access to the host: its root is `root`, and
/// its only descriptor is the socket to this process.
pub fn context_of(namespace: BorrowedFd<'_>, root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    match rustix::mount::fsconfig_set_fd(context.as_fd(), c"pidns", namespace) {
        Err(Errno::INVAL) => {}
        set => return set.map(|()| context),
    }
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let sender = match clone3(0, None)? {
        Cloned::Child => leave(send_messenger(namespace, root, theirs.as_fd())),
        Cloned::Parent { pidfd, .. } => pidfd,
    };
    drop(theirs);
    let (_, context) = protocol::receive(ours.as_fd(), &mut [0; SIZE])?;
    await_end(sender.as_fd())?;
    context.ok_or(Errno::PIPE)
}

/// Has a process in `namespace` send a context through `to`. Only that process is born there: this one, whose
/// mount namespace is the host's, stays invisible to the processes there.
fn send_messenger(namespace: BorrowedFd<'_>, root: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::process::fchdir(root)?;
    rustix::process::chroot(c".")?;
    setns(namespace, libc::CLONE_NEWPID)?;
    let to_number = to.as_raw_fd().unsigned_abs();
    if let Some(last) = to_number.checked_sub(1) {
        close_range(0, last)?;
    }
    close_range(to_number.saturating_add(1), u32::MAX)?;
    let messenger = match clone3(0, None)? {
        Cloned::Child => leave(send_context(to)),
        Cloned::Parent { pidfd, .. } => pidfd,
    };
    await_end(messenger.as_fd())
}

fn send_context(to: BorrowedFd<'_>) -> Result<(), Errno> {
    let context = rustix::mount::fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    protocol::send_descriptor(to, b"p", context.as_fd())
}

/// Exits with the errno as the status.
fn leave(result: Result<(), Errno>) -> ! {
    exit_now(result.err().map_or(0, |errno| errno.raw_os_error()))
}

/// Waits for a child that calls [`leave`] to exit, and returns its error.
fn await_end(child: BorrowedFd<'_>) -> Result<(), Errno> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(child), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            status => {
                return match status?.and_then(|status| status.exit_status()) {
                    Some(0) => Ok(()),
                    Some(errno) => Err(Errno::from_raw_os_error(errno)),
                    None => Err(Errno::PIPE),
                };
            }
        }
    }
}

/// Opens one of its files for writing.
pub fn writable(procfs: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    open_below(procfs, path, OFlags::WRONLY | OFlags::CLOEXEC)
}

/// Opens one of its directories.
pub fn directory(procfs: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open_below(procfs, path, flags)
}

fn open_below(procfs: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = if weakened::is_off_for(&PUBLIC) { ResolveFlags::empty() } else { INSIDE };
    rustix::fs::openat2(procfs, path, flags, Mode::empty(), resolve)
}
