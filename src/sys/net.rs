//! Network interfaces; netdevice(7).

use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::{Errno, check};

/// Brings up the loopback interface of the network namespace of `socket`; `SIOCSIFFLAGS`, netdevice(7).
pub fn bring_loopback_up(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: `ifreq` is plain old data, for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes_with_nul()) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP).unwrap_or(1);
    // SAFETY: the kernel reads `request`, which lives across the call; the descriptor is open while it is
    // borrowed.
    check(unsafe { libc::syscall(libc::SYS_ioctl, socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) })
        .map(drop)
}
