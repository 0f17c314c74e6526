//! Kernel parameters, written through a procfs of our own that is never attached anywhere: whatever a hostile image or
//! another container has done to /proc, these writes reach the kernel's files (CVE-2025-52881).

use std::ffi::CString;
use std::os::fd::AsFd as _;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::MountAttrFlags;

use super::mount::detached;
use super::step::{Failure, Of as _, item};

/// Writes each value to its file below /proc/sys.
pub fn write(settings: &[(CString, CString)]) -> Result<(), Failure> {
    let procfs = detached(c"proc", &[], MountAttrFlags::empty())?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let sys = rustix::fs::openat(&procfs, c"sys", flags, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    for (index, (path, value)) in settings.iter().enumerate() {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(sys.as_fd(), path.as_c_str(), flags, Mode::empty(), resolve);
        let file = file.of(item(index))?;
        rustix::io::write(&file, value.to_bytes()).of(item(index))?;
    }
    Ok(())
}
