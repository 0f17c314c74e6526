//! Keeps the runtime's own executable out of the container's reach (CVE-2019-5736).
//!
//! Until execve, the init process runs this very file. A container that makes it execute `/proc/self/exe`
//! gets a descriptor of the file on the host and can write to it once nobody executes it any more. So
//! commands that create processes in a container first execute a clone of the file's mount that is read-only
//! and belongs to no mount namespace or, where mounts are not permitted, a sealed copy in memory.
//!
//! The clone is safe only once the descriptor returned by open_tree(2) is closed. Until then it is an
//! ordinary detached mount, and a process with CAP_SYS_ADMIN in a user namespace of its own and any
//! descriptor of it can clear the read-only flag with mount_setattr(2); an `O_PATH` descriptor opened through
//! /proc/PID/exe is enough. The last close dissolves the mount: what is left belongs to no namespace and can
//! be neither changed, attached nor cloned (`dissolve_on_fput`, `is_mounted` and `check_mnt` in
//! fs/namespace.c). Hence the rule: **while this descriptor is open, there must be no process that can run
//! code of a container, or that a process of a container can see.** [`Guard::release`] is called before such
//! a process is cloned; see `launch/`.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{CWD, MemfdFlags, SealFlags, StatVfsMountFlags};
use rustix::mount::OpenTreeFlags;

use crate::sys::mount::{Attributes, Recursion, set_attributes};
use crate::sys::process::{Argv, execute, executed_descriptor, set_dumpable, set_name};
use crate::sys::weakened;

const SELF: &std::ffi::CStr = c"/proc/self/exe";
/// The seals that make a copy in memory immutable.
const SEALS: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// The descriptor of the clone that this process executes, if it is open. Closing it takes 0.1 to 0.2 ms,
/// because the kernel waits until the mount can no longer be in use.
#[derive(Debug, Default)]
pub struct Guard(Option<OwnedFd>);

impl Guard {
    /// Whether the descriptor has this number.
    pub fn is(&self, number: u32) -> bool {
        self.0.as_ref().is_some_and(|copy| copy.as_raw_fd().unsigned_abs() == number)
    }

    /// Closes the descriptor; after that, nobody can make the clone writable.
    pub fn release(&mut self) {
        let copy = self.0.take();
        if weakened::is_off("CVE-2019-5736") {
            // Keeps the descriptor open for the lifetime of this process.
            std::mem::forget(copy);
        }
    }
}

/// Returns if this process executes a file that nobody can write to; otherwise executes such a copy with the
/// same arguments.
///
/// # Errors
/// If no protected copy of the executable can be made, which requires /proc.
pub fn protect_executable() -> Result<Guard> {
    if weakened::is_off("guard") {
        return Ok(Guard::default());
    }
    let is_protected = is_protected()?;
    // It was already executed by descriptor (the kernel's name for that is /dev/fd/N), and trying again would
    // not help.
    if !is_protected && rustix::param::linux_execfn().to_bytes().starts_with(b"/dev/fd/") {
        bail!("the protected copy of this program is invalid");
    }
    if is_protected {
        // When a program is executed by descriptor, the kernel uses the descriptor's number as its name.
        set_name(c"runtime").context("set the process's name")?;
        if rustix::process::geteuid().is_root() && !weakened::is_off("CVE-2016-9962") {
            // Others must not open the executable through this process or, before the child makes itself
            // non-dumpable, through the child. Not for ordinary users: their files in /proc would then belong
            // to root, and the runtime needs them.
            set_dumpable(false).context("make this process non-dumpable")?;
        }
        return Ok(Guard(executed_descriptor()));
    }
    let copy = read_only_clone().or_else(|_| sealed_copy())?;
    let strings = |words: Vec<OsString>| -> Result<Vec<CString>> {
        words.into_iter().map(|word| Ok(CString::new(word.into_vec())?)).collect()
    };
    let arguments = Argv::new(strings(std::env::args_os().collect())?);
    let join = |(name, value): (OsString, OsString)| [name, value].join("=".as_ref());
    let environment = Argv::new(strings(std::env::vars_os().map(join).collect())?);
    Err(execute(copy.as_fd(), &arguments, &environment)).context("execute the protected copy of this program")
}

fn is_protected() -> Result<bool> {
    let mount = rustix::fs::statvfs(SELF).context("stat /proc/self/exe")?;
    // A read-only mount alone is not enough, as the host's administrator could remount it. Our clone is a
    // mount of this file alone, so the file is the root of its mount.
    let is_alone = std::fs::read_link("/proc/self/exe").is_ok_and(|path| path == Path::new("/"));
    if is_alone && mount.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    let file = File::open("/proc/self/exe").context("open /proc/self/exe")?;
    Ok(rustix::fs::fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SEALS)))
}

fn read_only_clone() -> Result<OwnedFd> {
    let clone = rustix::mount::open_tree(
        CWD,
        SELF,
        // Not close-on-exec: execve would have to wait for the close.
        OpenTreeFlags::OPEN_TREE_CLONE,
    )
    .context("clone the mount of this program")?;
    let read_only = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
    set_attributes(clone.as_fd(), Recursion::ThisMount, read_only).context("make the clone read-only")?;
    Ok(clone)
}

fn sealed_copy() -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Since Linux 6.3, the kernel logs a warning if neither MFD_EXEC nor MFD_NOEXEC_SEAL is given; older ones
    // do not know the flag.
    let copy = rustix::fs::memfd_create(c"runtime", flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create(c"runtime", flags))
        .context("create a memfd for a copy of this program")?;
    let original = File::open("/proc/self/exe").context("open /proc/self/exe")?;
    let mut target = File::from(copy);
    std::io::copy(&mut &original, &mut target).context("copy this program to memory")?;
    rustix::fs::fcntl_add_seals(&target, SEALS).context("seal the copy of this program")?;
    Ok(target.into())
}
