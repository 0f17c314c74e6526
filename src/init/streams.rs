//! Replaces standard streams that are devices of the host. A descriptor is enough to change the mode and
//! owner of the inode behind it, as root of a container without a user namespace does with `chmod 600
//! /proc/self/fd/0`; fchmod(2), proc_pid_fd(5).

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::{detached, mount, path};

/// Devices whose nodes are interchangeable, and their paths in the container; devices.txt. Terminals are not
/// among them: a terminal is passed to the container on purpose.
const DEVICES: [(u64, &CStr); 5] = [
    (mount::NULL_DEVICE, c"/dev/null"),
    (libc::makedev(1, 5), c"/dev/zero"),
    (libc::makedev(1, 7), c"/dev/full"),
    (libc::makedev(1, 8), c"/dev/random"),
    (libc::makedev(1, 9), c"/dev/urandom"),
];

/// Replaces each standard stream that is one of [`DEVICES`] by the container's node of the same device,
/// opened with the same flags.
///
/// If the container has no such node, uses a new one on a detached file system. If that is not possible
/// either, the stream stays: in a user namespace, where root may not change the host's inode anyway, or if
/// the cgroup forbids the device, which our own cgroups do not.
pub fn own(root: BorrowedFd<'_>) -> Result<(), Errno> {
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    for (stream, number) in streams.into_iter().zip(0..) {
        let Ok(stat) = rustix::fs::fstat(stream) else { continue };
        let Some((device, path)) = DEVICES.into_iter().find(|(device, _)| is(&stat, *device)) else {
            continue;
        };
        let flags = rustix::fs::fcntl_getfl(stream)?;
        let Ok(own) = open(root, path, device, flags).or_else(|_| open_new(device, flags)) else { continue };
        match number {
            0 => rustix::stdio::dup2_stdin(own)?,
            1 => rustix::stdio::dup2_stdout(own)?,
            _ => rustix::stdio::dup2_stderr(own)?,
        }
    }
    Ok(())
}

pub fn is_null_device(file: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| is(&stat, mount::NULL_DEVICE))
}

/// Opens the container's node at `path`. Its type is checked before the open, because opening another device
/// or a fifo may have side effects or block, and again after it, because processes of the container may have
/// replaced the node.
fn open(root: BorrowedFd<'_>, path: &CStr, device: u64, flags: OFlags) -> Result<OwnedFd, Errno> {
    let found = path::open(root, path, OFlags::PATH)?;
    if !is(&rustix::fs::statat(&found, c"", AtFlags::EMPTY_PATH)?, device) {
        return Err(Errno::NODEV);
    }
    let kept = flags & (OFlags::ACCMODE | OFlags::PATH);
    let opened = path::open(root, path, kept | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    if !is(&rustix::fs::fstat(&opened)?, device) {
        return Err(Errno::NODEV);
    }
    if !flags.contains(OFlags::PATH) {
        rustix::fs::fcntl_setfl(&opened, flags)?;
    }
    Ok(opened)
}

/// Opens a new node on a detached tmpfs.
#[inline(never)]
fn open_new(device: u64, flags: OFlags) -> Result<OwnedFd, Errno> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let directory = detached::detached(c"tmpfs", &[(c"nr_inodes", c"2")], attributes)?;
    let mode = Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(&directory, c"node", FileType::CharacterDevice, mode, device)?;
    open(directory.as_fd(), c"node", device, flags)
}

fn is(stat: &Stat, device: u64) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == device
}
