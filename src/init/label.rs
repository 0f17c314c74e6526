//! Sets the security labels of the program to be executed, through files below /proc/self/attr;
//! proc_pid_attr(5).

use std::ffi::CStr;
use std::os::fd::AsFd as _;

use rustix::io::Errno;

use super::procfs;
use super::step::{Failure, Of as _, Part};

/// Sets the AppArmor profile for the next execve(2); `command` is `exec PROFILE` or `stack PROFILE`.
///
/// # Errors
/// `ENOENT` if the profile is not loaded.
pub fn apparmor(command: &CStr) -> Result<(), Failure> {
    let procfs = procfs::open().of(Part::Source)?;
    let file = match procfs::writable(procfs.as_fd(), c"self/attr/apparmor/exec") {
        // A kernel without a directory per security module.
        Err(Errno::NOENT) => procfs::writable(procfs.as_fd(), c"self/attr/exec"),
        file => file,
    };
    rustix::io::write(file.of(Part::Target)?, command.to_bytes())?;
    Ok(())
}

/// Sets the SELinux label for the next execve(2).
///
/// # Errors
/// `EINVAL` if the policy does not know the label; `EACCES` if it forbids the transition.
pub fn selinux(label: &CStr) -> Result<(), Failure> {
    write(c"self/attr/exec", label.to_bytes())
}

/// Sets the SELinux label for keys created from now on; an empty one restores the default.
pub fn of_keys(label: &CStr) -> Result<(), Failure> {
    write(c"self/attr/keycreate", label.to_bytes())
}

fn write(path: &CStr, text: &[u8]) -> Result<(), Failure> {
    let procfs = procfs::open().of(Part::Source)?;
    rustix::io::write(procfs::writable(procfs.as_fd(), path).of(Part::Target)?, text)?;
    Ok(())
}
