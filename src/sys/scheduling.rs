//! Which processors, disks and memory a thread gets, and when: sched_setattr(2), ioprio_set(2), set_mempolicy(2).

use super::{Errno, check};

/// How a thread is scheduled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduler {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime_ns: u64,
    pub deadline_ns: u64,
    pub period_ns: u64,
}

/// The kernel's `struct sched_attr` with the clamps of Linux 5.3.
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
    util_min: u32,
    util_max: u32,
}

/// Sets how the calling thread is scheduled; sched_setattr(2).
///
/// # Errors
/// `EPERM` without CAP_SYS_NICE, and for `SCHED_DEADLINE` where the thread may not run on every processor; `EBUSY` when the
/// processors are promised to others; `EINVAL` for a policy that the kernel lacks.
pub fn set_scheduler(what: Scheduler) -> Result<(), Errno> {
    let mut attributes = Attributes {
        size: u32::try_from(size_of::<Attributes>()).map_err(|_| Errno::INVAL)?,
        policy: what.policy,
        flags: what.flags,
        nice: what.nice,
        priority: what.priority,
        runtime_ns: what.runtime_ns,
        deadline_ns: what.deadline_ns,
        period_ns: what.period_ns,
        util_min: 0,
        util_max: 0,
    };
    // SAFETY: the kernel reads as many bytes of `attributes`, which lives across the call, as its first field says, which is
    // its size, and writes that field alone, when it refuses the size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw mut attributes, 0) }).map(drop)
}

/// Sets the priority, class and level in one number, of the calling thread's access to disks; ioprio_set(2).
///
/// # Errors
/// `EPERM` for the real-time class without CAP_SYS_NICE and CAP_SYS_ADMIN.
pub fn set_io_priority(priority: u16) -> Result<(), Errno> {
    // `IOPRIO_WHO_PROCESS`; linux/ioprio.h. Process 0 is the caller.
    const WHO_PROCESS: libc::c_int = 1;
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, libc::c_int::from(priority)) })
        .map(drop)
}

/// Lets the calling thread run on the processors of `mask`, bit N of the whole being processor N; sched_setaffinity(2). What
/// the mask says beyond the machine's processors, or beyond those of the cgroup, is not looked at.
///
/// # Errors
/// `EINVAL` if that leaves none.
pub fn set_affinity(mask: &[usize]) -> Result<(), Errno> {
    // SAFETY: the kernel reads no more than the bytes of `mask`, which lives across the call, and keeps a copy.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) })
        .map(drop)
}

/// Sets where the calling thread's memory is taken from: `MPOL_*` and its flags, and a mask of nodes; set_mempolicy(2).
///
/// # Errors
/// `EINVAL` for a node that is not there, or a combination that the kernel does not take.
pub fn set_memory_policy(mode: u32, nodes: &[usize]) -> Result<(), Errno> {
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // The kernel counts one less than it is told.
    let bits = size_of_val(nodes).saturating_mul(8).saturating_add(1);
    // SAFETY: the kernel reads `bits` - 1 bits of `nodes`, which are all there are and live across the call, and nothing
    // through a null pointer; it keeps a copy.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}
