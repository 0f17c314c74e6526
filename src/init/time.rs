//! The clocks of a new time namespace; time_namespaces(7).

use std::ffi::CStr;
use std::os::fd::AsFd as _;

use rustix::fs::{Mode, OFlags};

use super::procfs;
use super::step::{Failure, Of as _, Part};
use crate::sys::process::{CLONE_NEWTIME, setns};

/// Sets the offsets of the time namespace that this process has made for its children, and enters it.
///
/// # Errors
/// `ERANGE` if a clock would be before 0 or beyond the kernel's maximum; `EPERM` without CAP_SYS_TIME.
pub fn enter(offsets: &CStr) -> Result<(), Failure> {
    let procfs = procfs::open().of(Part::Source)?;
    let file = procfs::writable(procfs.as_fd(), c"self/timens_offsets").of(Part::Target)?;
    rustix::io::write(&file, offsets.to_bytes())?;
    // A magic link, which openat2 refuses here. So open it by name below its directory, which is known to be
    // genuine.
    let links = procfs::directory(procfs.as_fd(), c"self/ns").of(Part::Source)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = rustix::fs::openat(&links, c"time_for_children", flags, Mode::empty());
    Ok(setns(namespace.of(Part::Source)?.as_fd(), CLONE_NEWTIME)?)
}
