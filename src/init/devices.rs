//! Device nodes and the links beside them, below a directory that is held open (CVE-2026-41579, CVE-2026-47766).

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::path;
use super::step::{Entry, Failure, Of as _, Part, item};
use crate::sys::cred;

/// Makes `entries` in the directory at `path` of the rootfs.
///
/// # Errors
/// `EEXIST` where another kind of file has the name of a device node.
pub fn populate(root: BorrowedFd<'_>, path: &CStr, entries: &[Entry]) -> Result<(), Failure> {
    let directory = path::directory(root, path).of(Part::Target)?;
    // The names below are single components of a directory held open: no path is resolved that an image could bend.
    for (index, entry) in entries.iter().enumerate() {
        make(directory.as_fd(), entry).of(item(index))?;
    }
    Ok(())
}

fn make(directory: BorrowedFd<'_>, entry: &Entry) -> Result<(), Errno> {
    match entry {
        Entry::Node { name, mode, device, uid, gid } => {
            let kind = FileType::from_raw_mode(*mode);
            match rustix::fs::mknodat(directory, name.as_c_str(), kind, Mode::from_raw_mode(*mode), *device) {
                Err(Errno::EXIST) => return expect_node(directory, name, kind, *device),
                result => result?,
            }
            if (*uid, *gid) == (0, 0) {
                return Ok(());
            }
            let (uid, gid) = (cred::uid(*uid), cred::gid(*gid));
            rustix::fs::chownat(directory, name.as_c_str(), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        }
        Entry::Link { name, target } => match link(directory, name, target) {
            Err(Errno::EXIST) => Ok(()),
            result => result,
        },
        Entry::ReplacingLink { name, target } => match link(directory, name, target) {
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(directory, name.as_c_str(), AtFlags::empty())?;
                link(directory, name, target)
            }
            result => result,
        },
    }
}

fn link(directory: BorrowedFd<'_>, name: &CStr, target: &CStr) -> Result<(), Errno> {
    rustix::fs::symlinkat(target, directory, name)
}

fn expect_node(directory: BorrowedFd<'_>, name: &CStr, kind: FileType, device: u64) -> Result<(), Errno> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let is_it =
        FileType::from_raw_mode(stat.st_mode) == kind && (kind == FileType::Fifo || stat.st_rdev == device);
    if is_it { Ok(()) } else { Err(Errno::EXIST) }
}
