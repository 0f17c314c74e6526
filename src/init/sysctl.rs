//! Writes kernel parameters through a detached procfs that no other process can reach.

use std::ffi::CString;
use std::os::fd::AsFd as _;

use super::procfs;
use super::step::{Failure, Of as _, item};

/// Writes each value to its file below /proc/sys.
pub fn write(settings: &[(CString, CString)]) -> Result<(), Failure> {
    let sys = procfs::directory(procfs::open()?.as_fd(), c"sys")?;
    for (index, (path, value)) in settings.iter().enumerate() {
        let file = procfs::writable(sys.as_fd(), path).of(item(index))?;
        rustix::io::write(&file, value.to_bytes()).of(item(index))?;
    }
    Ok(())
}
