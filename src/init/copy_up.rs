//! `tmpcopyup`: fills a tmpfs with a copy of the directory it covers. Uses fixed buffers and open
//! descriptors, so that memory use does not grow with the directory.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{AtFlags, Dev, FileType, Mode, OFlags, RawDir, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::path;
use crate::sys::cred;

/// The maximum nesting depth: each level holds two descriptors and one buffer on the stack.
const MAX_DEPTH: u8 = 48;

/// Copies the contents of directory `from` to directory `to`, with owners, modes and modification times.
///
/// # Errors
/// `ENAMETOOLONG` for directories nested deeper than 48 levels; `ENOSPC` if the tmpfs is too small.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    // `from` is an O_PATH descriptor, which cannot be read.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let from = rustix::fs::openat(from, c".", flags, Mode::empty())?;
    let to = rustix::fs::openat(to, c".", flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&from)?;
    directory(from.as_fd(), to.as_fd(), MAX_DEPTH)?;
    inherit(to.as_fd(), &stat)
}

fn directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: u8) -> Result<(), Errno> {
    let below = depth.checked_sub(1).ok_or(Errno::NAMETOOLONG)?;
    let mut space = [MaybeUninit::uninit(); 2048];
    let mut entries = RawDir::new(from, &mut space);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            one(from, to, name, below)?;
        }
    }
    Ok(())
}

fn one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, below: u8) -> Result<(), Errno> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    match kind {
        FileType::Directory => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
            let copy = rustix::fs::openat(to, name, flags, Mode::empty())?;
            directory(source.as_fd(), copy.as_fd(), below)?;
            inherit(copy.as_fd(), &stat)
        }
        FileType::RegularFile => {
            let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let source = rustix::fs::openat(from, name, read, Mode::empty())?;
            let copy = rustix::fs::openat(to, name, write, Mode::RUSR | Mode::WUSR)?;
            contents(source.as_fd(), copy.as_fd())?;
            inherit(copy.as_fd(), &stat)
        }
        FileType::Symlink => {
            let mut space = [0; path::PATH_MAX];
            let target = path::read_link(from, name, &mut space)?.ok_or(Errno::INVAL)?;
            rustix::fs::symlinkat(target, to, name)?;
            owner(to, name, &stat)
        }
        _ => {
            let mode = Mode::from_raw_mode(stat.st_mode);
            let device = Dev::from(stat.st_rdev);
            rustix::fs::mknodat(to, name, kind, mode, device)?;
            owner(to, name, &stat)?;
            rustix::fs::chmodat(to, name, mode, AtFlags::empty())
        }
    }
}

fn contents(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut buffer = [0_u8; 16 * 1024];
    loop {
        let count = rustix::io::read(from, &mut buffer)?;
        let mut rest = buffer.get(..count).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        while !rest.is_empty() {
            let written = rustix::io::write(to, rest)?;
            rest = rest.get(written..).unwrap_or_default();
        }
    }
}

/// Owner before mode: changing the owner clears the set-user-ID bit, which the mode then restores.
fn inherit(to: BorrowedFd<'_>, stat: &Stat) -> Result<(), Errno> {
    rustix::fs::fchown(to, Some(cred::uid(stat.st_uid)), Some(cred::gid(stat.st_gid)))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
        },
    };
    rustix::fs::futimens(to, &times)
}

fn owner(directory: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(directory, name, Some(cred::uid(stat.st_uid)), Some(cred::gid(stat.st_gid)), flags)
}
