//! What security modules are told about the program that is about to be executed: files below /proc/self/attr;
//! proc_pid_attr(5).

use std::ffi::CStr;
use std::os::fd::AsFd as _;

use rustix::io::Errno;

use super::procfs;
use super::step::{Failure, Of as _, Part};

/// Has AppArmor confine the program as `command`, `exec PROFILE` or `stack PROFILE`, says.
///
/// # Errors
/// `ENOENT` if no such profile is loaded.
pub fn apparmor(command: &CStr) -> Result<(), Failure> {
    let procfs = procfs::open().of(Part::Source)?;
    let file = match procfs::writable(procfs.as_fd(), c"self/attr/apparmor/exec") {
        // A kernel that knows one security module at a time.
        Err(Errno::NOENT) => procfs::writable(procfs.as_fd(), c"self/attr/exec"),
        file => file,
    };
    rustix::io::write(file.of(Part::Target)?, command.to_bytes())?;
    Ok(())
}

/// Has SELinux run the program with this label.
///
/// # Errors
/// `EINVAL` if the policy knows no such label; `EACCES` if it forbids the change.
pub fn selinux(label: &CStr) -> Result<(), Failure> {
    write(c"self/attr/exec", label.to_bytes())
}

/// Has SELinux label the keys made from here on; empty for the usual label.
pub fn of_keys(label: &CStr) -> Result<(), Failure> {
    write(c"self/attr/keycreate", label.to_bytes())
}

fn write(path: &CStr, text: &[u8]) -> Result<(), Failure> {
    let procfs = procfs::open().of(Part::Source)?;
    rustix::io::write(procfs::writable(procfs.as_fd(), path).of(Part::Target)?, text)?;
    Ok(())
}
