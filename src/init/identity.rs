//! Becoming the user: capabilities(7), credentials(7).

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Gid;

use super::path;
use super::step::{Failure, Identity, Of as _, Part, item};
use crate::sys::cred;
use crate::sys::process::set_dumpable;

/// capabilities(7).
const CAP_SETGID: u32 = 6;

/// The order matters: the bounding set needs CAP_SETPCAP, the groups need CAP_SETGID, and both go with the user id.
pub fn assume(who: &Identity) -> Result<(), Failure> {
    for number in 0..64 {
        if who.bounding >> number & 1 == 0 {
            match cred::drop_from_bounding_set(number) {
                // Beyond the last capability of this kernel.
                Err(Errno::INVAL) => break,
                result => result?,
            }
        }
    }
    own_standard_streams(who);
    // A user id other than 0 would lose what is to be kept.
    cred::keep_capabilities(true)?;
    set_ids(who.uid, who.gid, &who.groups)?;
    cred::keep_capabilities(false)?;
    cred::set_capabilities(who.sets).of(Part::Source)?;
    cred::clear_ambient()?;
    for number in 0..64 {
        if who.ambient >> number & 1 == 1 {
            cred::raise_ambient(number)?;
        }
    }
    rustix::process::umask(Mode::from_raw_mode(who.umask));
    Ok(())
}

/// Becomes a user of the user namespace that this process is in, without further groups. The capabilities stay: the process was
/// nobody there.
pub fn take(uid: u32, gid: u32) -> Result<(), Failure> {
    set_ids(uid, gid, &[])?;
    // Other ids undo it if the host wants dumps of everything; proc_sys_fs(5), suid_dumpable.
    Ok(set_dumpable(false)?)
}

/// # Errors
/// Of `Part::Target` for the groups, of item 0 for the user and 1 for the group: `EINVAL` if it is not mapped.
fn set_ids(uid: u32, gid: u32, groups: &[Gid]) -> Result<(), Failure> {
    match rustix::thread::set_thread_groups(groups) {
        // The kernel forbids it in this user namespace, whose maker was an ordinary user: the groups stay, as nobody's, and as
        // with runc. Without the capability, it would be the runtime that may not.
        Err(Errno::PERM) if groups.is_empty() && has_setgid() => {}
        result => result.of(Part::Target)?,
    }
    let (uid, gid) = (cred::uid(uid), cred::gid(gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).of(item(1))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).of(item(0))
}

fn has_setgid() -> bool {
    cred::capabilities().is_ok_and(|own| own.effective >> CAP_SETGID & 1 == 1)
}

/// Lets the user reopen its own standard streams, as `echo >/dev/stderr` does: gives it pipes, sockets and the container's own
/// terminal. Files and the caller's terminal stay whose they are; what cannot change hands is usable all the same.
fn own_standard_streams(who: &Identity) {
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(stat) = rustix::fs::fstat(stream) else { continue };
        let is_ours = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Fifo | FileType::Socket => true,
            FileType::CharacterDevice => who.has_terminal,
            _ => false,
        };
        if is_ours && stat.st_uid != who.uid {
            let _ = rustix::fs::fchown(stream, Some(cred::uid(who.uid)), None);
        }
    }
}

/// Changes to `path`, which must be inside the root: a descriptor of a directory of the host that leaked into the
/// container, reached as `/proc/self/fd/7`, is a magic link and refused (CVE-2024-21626).
pub fn change_directory(root: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
    let directory = path::open(root, path, OFlags::PATH | OFlags::DIRECTORY)?;
    rustix::process::fchdir(directory.as_fd())
}

/// The first of `candidates` that is a file which the user may execute.
///
/// # Errors
/// `ENOENT` if there is none; `EACCES` or `EISDIR` if the best there is cannot be executed.
pub fn find_program(candidates: &[std::ffi::CString]) -> Result<usize, Errno> {
    let mut best = Errno::NOENT;
    for (index, candidate) in candidates.iter().enumerate() {
        match executable(candidate) {
            Ok(()) => return Ok(index),
            Err(errno @ (Errno::ACCESS | Errno::ISDIR | Errno::PERM | Errno::LOOP))
                if best == Errno::NOENT =>
            {
                best = errno;
            }
            Err(_) => {}
        }
    }
    Err(best)
}

fn executable(path: &CStr) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    // With the effective ids and capabilities, as execve(2) will look at it.
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}
