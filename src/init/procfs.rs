//! A procfs of our own that is attached nowhere: whatever a hostile image or another container has done to /proc, what is
//! written through it reaches the kernel's files (CVE-2019-16884, CVE-2023-28642, CVE-2025-52881, CVE-2025-62596).

use std::ffi::CStr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, MountAttrFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{WaitId, WaitIdOptions};

use super::mount::detached;
use super::path::is_on_procfs;
use crate::init::protocol;
use crate::init::protocol::SIZE;
use crate::sys::process::{Cloned, clone3, close_range, exit_now, setns};
use crate::sys::weakened;

/// The number of a procfs's root; `PROC_ROOT_INO`, linux/proc_fs.h.
const ROOT: u64 = 1;

/// Below the root of a procfs, neither out of it nor into what is mounted on it. `self`, a link that the kernel answers with a
/// number, is allowed; what is behind a magic link is not.
const INSIDE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

/// What came of writing through the container's /proc.
const PUBLIC: [&str; 2] = ["CVE-2025-52881", "CVE-2025-62596"];

/// The root of a procfs, of the pid namespace of the caller.
///
/// # Errors
/// `EXDEV` if /proc is the only one to be had and is none.
pub fn open() -> Result<OwnedFd, Errno> {
    if weakened::is_off_for(&PUBLIC) {
        return rustix::fs::openat(CWD, c"/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    }
    match detached(c"proc", &[], MountAttrFlags::empty()) {
        // In a user namespace the kernel makes no new one where something covers a part of each that is to be seen. The one that
        // is there will do: nothing that covers a file of it can be written to, because it is another mount.
        Err(Errno::PERM) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let procfs = rustix::fs::openat(CWD, c"/proc", flags, Mode::empty())?;
            let is_root = is_on_procfs(procfs.as_fd())? && rustix::fs::fstat(&procfs)?.st_ino == ROOT;
            if is_root { Ok(procfs) } else { Err(Errno::XDEV) }
        }
        procfs => procfs,
    }
}

/// What a new procfs of `namespace`, which this process is not in, is made of.
///
/// Before Linux 6.18 a procfs is always of the pid namespace of whoever asks for it first; then a messenger is born there that has
/// nothing of the host: its root is `root`, and its one descriptor leads here.
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

/// Has a process born in `namespace` send a context through `to`. Nobody there sees this process, which has the host's tree.
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

/// Ends this process with the errno as its status.
fn leave(result: Result<(), Errno>) -> ! {
    exit_now(result.err().map_or(0, |errno| errno.raw_os_error()))
}

/// Waits for the end of a child that calls [`leave`].
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

/// Opens a file of it for writing.
pub fn writable(procfs: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    open_below(procfs, path, OFlags::WRONLY | OFlags::CLOEXEC)
}

/// Opens a directory of it.
pub fn directory(procfs: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open_below(procfs, path, flags)
}

fn open_below(procfs: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = if weakened::is_off_for(&PUBLIC) { ResolveFlags::empty() } else { INSIDE };
    rustix::fs::openat2(procfs, path, flags, Mode::empty(), resolve)
}
