//! Switches to the user of the program; capabilities(7), credentials(7).

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

/// Sets bounding set, IDs, groups, capabilities and umask. The order matters: the bounding set needs
/// CAP_SETPCAP and the groups need CAP_SETGID, and a change of the user ID can lose both.
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
    // Otherwise a change to a user ID other than 0 would clear the permitted set.
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

/// Switches to a user of the current user namespace, without supplementary groups. Capabilities are kept,
/// because the process did not have user ID 0 before: its user was not mapped.
pub fn take(uid: u32, gid: u32) -> Result<(), Failure> {
    set_ids(uid, gid, &[])?;
    // Changing IDs resets the dumpable flag to the value of fs.suid_dumpable, which may be 1; proc_sys_fs(5).
    Ok(set_dumpable(false)?)
}

/// Sets groups, group ID and user ID.
///
/// # Errors
/// With `Part::Target` for the groups, item 0 for the user and item 1 for the group. `EINVAL` if an ID is not
/// mapped.
fn set_ids(uid: u32, gid: u32, groups: &[Gid]) -> Result<(), Failure> {
    match rustix::thread::set_thread_groups(groups) {
        // setgroups(2) is denied in a user namespace made by an unprivileged user: the unmapped groups are
        // kept, as with runc. Without CAP_SETGID, it would be an error of the runtime's own.
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

/// Changes the owner of the standard streams so that the user can reopen them, as `echo >/dev/stderr` does:
/// pipes, sockets and the container's own terminal. Files and the caller's terminal keep their owner. Errors
/// are ignored: the stream can still be used.
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

/// Changes to `path`, which must be inside the root. A leaked descriptor of a host directory, reached as
/// `/proc/self/fd/7`, is a magic link and is refused (CVE-2024-21626).
pub fn change_directory(root: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
    let directory = path::open(root, path, OFlags::PATH | OFlags::DIRECTORY)?;
    rustix::process::fchdir(directory.as_fd())
}

/// Returns the index of the first of `candidates` that is a file the user may execute.
///
/// # Errors
/// `ENOENT` if none exists; `EACCES` or `EISDIR`, for example, if one exists but cannot be executed.
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
    // AT_EACCESS checks with effective IDs and capabilities, as execve(2) does.
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}
