//! Keeps the runtime's own executable out of the container's reach (CVE-2019-5736).
//!
//! Until execve, the init process runs this very file. A container that gets it to execute `/proc/self/exe` has a descriptor
//! of the file on the host and, once nobody executes it any more, can write to it. So the commands that make a process of a container
//! first execute a copy of the mount of the file that is read-only and belongs to no mount namespace; where mounts are not
//! permitted, a sealed copy in memory.
//!
//! The copy of the mount is safe only once the descriptor that open_tree(2) gave is closed. Until then it is a mount like any
//! other that is attached nowhere, and mount_setattr(2) lets whoever has CAP_SYS_ADMIN in a user namespace of his own, and any
//! descriptor of it, take the read-only flag off; an `O_PATH` descriptor by way of /proc/PID/exe is enough. The last close
//! dissolves it: what is left belongs to nobody and can be neither changed, attached nor cloned (`dissolve_on_fput`, `is_mounted`
//! and `check_mnt` in fs/namespace.c). Hence the rule: **no process that can run something of a container's, or that a process of a
//! container can see, exists while this descriptor is open.** [`Guard::release`] is called before such a process is cloned; see
//! `launch/`.

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
/// What makes a copy in memory unchangeable.
const SEALS: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// The descriptor of the copy that this process executes, if it is open. Closing it takes 0.1 ms or 0.2, because the kernel waits
/// until nobody can be looking at the mount any more.
#[derive(Debug, Default)]
pub struct Guard(Option<OwnedFd>);

impl Guard {
    /// Whether the descriptor has this number.
    pub fn is(&self, number: u32) -> bool {
        self.0.as_ref().is_some_and(|copy| copy.as_raw_fd().unsigned_abs() == number)
    }

    /// Closes the descriptor, from when on nobody can make the copy writable.
    pub fn release(&mut self) {
        let copy = self.0.take();
        if weakened::is_off("CVE-2019-5736") {
            // As long as this process lives.
            std::mem::forget(copy);
        }
    }
}

/// Returns when this process executes a file that nobody can write to; until then, executes one with the same arguments.
///
/// # Errors
/// If no such copy of the executable can be made, which needs /proc.
pub fn protect_executable() -> Result<Guard> {
    if weakened::is_off("guard") {
        return Ok(Guard::default());
    }
    let is_protected = is_protected()?;
    // The kernel's name for a program executed by descriptor: a second time would be as much in vain.
    if !is_protected && rustix::param::linux_execfn().to_bytes().starts_with(b"/dev/fd/") {
        bail!("the protected copy of this program is invalid");
    }
    if is_protected {
        // It was executed by descriptor, whose number the kernel takes for its name.
        set_name(c"runtime").context("set the process's name")?;
        if rustix::process::geteuid().is_root() && !weakened::is_off("CVE-2016-9962") {
            // Nor may others open it by way of this process or, between its birth and its own call, of its child. An ordinary user
            // needs files of this process in /proc, which would be root's.
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
    // Read-only alone could be undone by whoever administers the host; our clone is a mount of this file alone, so that the
    // file is the root of its mount.
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
        // Not to be closed by execve, which would have to wait.
        OpenTreeFlags::OPEN_TREE_CLONE,
    )
    .context("clone the mount of this program")?;
    let read_only = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
    set_attributes(clone.as_fd(), Recursion::ThisMount, read_only).context("make the clone read-only")?;
    Ok(clone)
}

fn sealed_copy() -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Without the flag that kernels since 6.3 want for an executable one, they only complain to their log.
    let copy = rustix::fs::memfd_create(c"runtime", flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create(c"runtime", flags))
        .context("create a memfd for a copy of this program")?;
    let original = File::open("/proc/self/exe").context("open /proc/self/exe")?;
    let mut target = File::from(copy);
    std::io::copy(&mut &original, &mut target).context("copy this program to memory")?;
    rustix::fs::fcntl_add_seals(&target, SEALS).context("seal the copy of this program")?;
    Ok(target.into())
}
