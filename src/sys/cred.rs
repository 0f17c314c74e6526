//! Capability sets as bit masks: bit N is capability number N; capabilities(7).
//!
//! rustix and caps name capabilities one by one; the init process needs whole sets, including capabilities
//! newer than both crates.

use super::{Errno, check};

const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The bit of CAP_SYS_ADMIN, capability 21; linux/capability.h.
pub const CAP_SYS_ADMIN: u64 = 1 << 21;

/// The three sets of a thread that capset(2) changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

/// Returns the calling thread's sets; capget(2).
pub fn capabilities() -> Result<Sets, Errno> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: for version 3 the kernel reads one header and writes two data elements; both live across the
    // call.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let [low, high] = data;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(Sets {
        effective: join(low.effective, high.effective),
        permitted: join(low.permitted, high.permitted),
        inheritable: join(low.inheritable, high.inheritable),
    })
}

/// Replaces the calling thread's sets; capset(2).
///
/// # Errors
/// `EPERM` if the new permitted set has a capability that the old one lacks.
pub fn set_capabilities(sets: Sets) -> Result<(), Errno> {
    const LOW: u64 = u32::MAX as u64;
    let half = |shift: u32| {
        let part = |mask: u64| u32::try_from(mask >> shift & LOW).unwrap_or(0);
        Data {
            effective: part(sets.effective),
            permitted: part(sets.permitted),
            inheritable: part(sets.inheritable),
        }
    };
    let mut header = Header { version: VERSION_3, pid: 0 };
    let data = [half(0), half(32)];
    // SAFETY: for version 3 the kernel reads one header and two data elements; both live across the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) }).map(drop)
}

/// Drops capability `number` from the bounding set; `PR_CAPBSET_DROP`, prctl(2).
///
/// # Errors
/// `EINVAL` if the kernel knows no such capability; `EPERM` without CAP_SETPCAP.
pub fn drop_from_bounding_set(number: u8) -> Result<(), Errno> {
    prctl(libc::PR_CAPBSET_DROP, number.into(), 0)
}

/// Adds capability `number` to the ambient set; `PR_CAP_AMBIENT_RAISE`, prctl(2).
///
/// # Errors
/// `EPERM` unless it is both permitted and inheritable.
pub fn raise_ambient(number: u8) -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE.unsigned_abs().into(), number.into())
}

/// Clears the ambient set; `PR_CAP_AMBIENT_CLEAR_ALL`, prctl(2).
pub fn clear_ambient() -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL.unsigned_abs().into(), 0)
}

/// Sets whether the permitted set survives a change of all user ids from 0; `PR_SET_KEEPCAPS`, prctl(2).
pub fn keep_capabilities(keep: bool) -> Result<(), Errno> {
    prctl(libc::PR_SET_KEEPCAPS, keep.into(), 0)
}

fn prctl(option: libc::c_int, first: libc::c_ulong, second: libc::c_ulong) -> Result<(), Errno> {
    // SAFETY: none of the options above takes a pointer.
    check(unsafe { libc::syscall(libc::SYS_prctl, option, first, second, 0, 0) }).map(drop)
}

/// Converts a user id to rustix's type.
pub fn uid(id: u32) -> rustix::process::Uid {
    rustix::process::Uid::from_raw(id)
}

/// Converts a group id to rustix's type.
pub fn gid(id: u32) -> rustix::process::Gid {
    rustix::process::Gid::from_raw(id)
}
