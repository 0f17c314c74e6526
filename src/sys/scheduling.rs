//! CPU and I/O scheduling, CPU affinity and memory policy: sched_setattr(2), ioprio_set(2),
//! sched_setaffinity(2), set_mempolicy(2).

use super::{Errno, check};

/// The scheduling attributes of a thread.
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

/// The kernel's `struct sched_attr` with the utilisation clamps of Linux 5.3.
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

/// Sets the scheduling policy of the calling thread; sched_setattr(2).
///
/// # Errors
/// `EPERM` without CAP_SYS_NICE, and for `SCHED_DEADLINE` if the thread may not run on every CPU; `EBUSY` if
/// there is not enough CPU time left; `EINVAL` for a policy that the kernel lacks.
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
    // SAFETY: `attributes` lives across the call. The kernel reads as many bytes of it as its first field
    // says, which is its size, and only writes to that field, if it refuses the size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw mut attributes, 0) }).map(drop)
}

/// Sets the I/O priority (class and level in one number) of the calling thread; ioprio_set(2).
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

/// Sets the CPU affinity of the calling thread; bit N of `mask` as a whole is CPU N; sched_setaffinity(2).
/// CPUs that the machine or the cgroup does not have are ignored.
///
/// # Errors
/// `EINVAL` if no CPU is left.
pub fn set_affinity(mask: &[usize]) -> Result<(), Errno> {
    // SAFETY: the kernel reads no more than the bytes of `mask`, which lives across the call, and keeps a
    // copy.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) })
        .map(drop)
}

/// Sets the memory policy of the calling thread: `MPOL_*` with flags, and a mask of nodes; set_mempolicy(2).
///
/// # Errors
/// `EINVAL` for a node that does not exist, or a combination that the kernel does not support.
pub fn set_memory_policy(mode: u32, nodes: &[usize]) -> Result<(), Errno> {
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // The kernel subtracts one from the number of bits.
    let bits = size_of_val(nodes).saturating_mul(8).saturating_add(1);
    // SAFETY: the kernel reads `bits` - 1 bits of `nodes`, which are all there are and live across the call,
    // and nothing through a null pointer; it keeps a copy.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}
