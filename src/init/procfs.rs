//! A procfs of our own that is attached nowhere: whatever a hostile image or another container has done to /proc, what is
//! written through it reaches the kernel's files (CVE-2019-16884, CVE-2023-28642, CVE-2025-52881, CVE-2025-62596).

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::mount::detached;
use super::path::is_on_procfs;
use crate::weakened;

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
