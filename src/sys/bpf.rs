//! bpf(2): programs attached to cgroups.

use std::ffi::CStr;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

/// `BPF_PROG_TYPE_CGROUP_DEVICE`.
pub const PROG_CGROUP_DEVICE: u32 = 15;
/// `BPF_CGROUP_DEVICE`, the attach type for these programs.
pub const CGROUP_DEVICE: u32 = 6;
/// `BPF_F_ALLOW_MULTI`: allows other programs on this cgroup and on those below; all of them are run.
pub const ALLOW_MULTI: u32 = 1 << 1;

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    pub code: u8,
    /// On little-endian machines, the destination register is in the low half, the source register in the
    /// high half.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

/// `union bpf_attr`, larger than that of any kernel so far, because some write a field beyond the end of a
/// smaller one (BPF_PROG_QUERY in 6.17 to 7.1). The kernel requires the rest to be zero, which it is.
#[repr(C)]
union Attributes {
    all: [u64; 32],
    load: Load,
    attach: Attach,
    query: Query,
    id: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Attach {
    target_fd: RawFd,
    attach_bpf_fd: RawFd,
    attach_type: u32,
    attach_flags: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Query {
    target_fd: RawFd,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
}

impl Attributes {
    const fn zeroed() -> Self {
        Self { all: [0; 32] }
    }
}

#[derive(Clone, Copy)]
#[repr(i32)]
/// Commands for programs: `BPF_PROG_*`.
enum Command {
    Load = 5,
    Attach = 8,
    Detach = 9,
    GetFdById = 13,
    Query = 16,
}

/// Verifies and loads a program; the descriptor is close-on-exec. A non-empty `log` receives the verifier's
/// messages.
///
/// # Errors
/// `EAGAIN` if a signal is pending, `EACCES` or `EINVAL` if the verifier refuses the program, `ENOSPC` if the
/// log is too small, `EPERM` without CAP_BPF or CAP_SYS_ADMIN in the initial user namespace.
pub fn prog_load(
    prog_type: u32,
    instructions: &[Instruction],
    license: &CStr,
    log: &mut [u8],
) -> Result<OwnedFd, Errno> {
    let mut attributes = Attributes::zeroed();
    attributes.load = Load {
        prog_type,
        insn_cnt: u32::try_from(instructions.len()).map_err(|_| Errno::TOOBIG)?,
        insns: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: u32::try_from(log.len()).map_err(|_| Errno::TOOBIG)?,
        log_buf: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
    };
    // SAFETY: the three addresses come from references that live across the call; the kernel reads `insn_cnt`
    // instructions and the NUL-terminated licence, writes at most `log_size` bytes to the log, and keeps none
    // of them.
    let fd = unsafe { bpf(Command::Load, &mut attributes) }?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a program to a cgroup.
///
/// # Errors
/// `EPERM` if an ancestor has one attached without [`ALLOW_MULTI`].
pub fn prog_attach(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    attach_type: u32,
    attach_flags: u32,
) -> Result<(), Errno> {
    attach_or_detach(Command::Attach, cgroup, program, attach_type, attach_flags)
}

/// Detaches a program from a cgroup.
pub fn prog_detach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>, attach_type: u32) -> Result<(), Errno> {
    attach_or_detach(Command::Detach, cgroup, program, attach_type, 0)
}

fn attach_or_detach(
    command: Command,
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    attach_type: u32,
    attach_flags: u32,
) -> Result<(), Errno> {
    let mut attributes = Attributes::zeroed();
    attributes.attach = Attach {
        target_fd: cgroup.as_raw_fd(),
        attach_bpf_fd: program.as_raw_fd(),
        attach_type,
        attach_flags,
    };
    // SAFETY: the attributes hold no address, and descriptors that are open across the call.
    unsafe { bpf(command, &mut attributes) }.map(drop)
}

/// Fills `ids` with the ids of the programs attached to this cgroup itself; returns their number.
///
/// # Errors
/// `ENOSPC` if there are more than `ids` can hold.
pub fn prog_query(cgroup: BorrowedFd<'_>, attach_type: u32, ids: &mut [u32]) -> Result<usize, Errno> {
    let mut attributes = Attributes::zeroed();
    attributes.query = Query {
        target_fd: cgroup.as_raw_fd(),
        attach_type,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: u32::try_from(ids.len()).map_err(|_| Errno::TOOBIG)?,
    };
    // SAFETY: `prog_ids` is the address of `prog_cnt` numbers borrowed mutably across the call; the kernel
    // writes no more than these and does not keep the address.
    unsafe { bpf(Command::Query, &mut attributes) }?;
    // SAFETY: every bit pattern is a valid `Query`; the kernel has replaced the count only.
    let query = unsafe { attributes.query };
    usize::try_from(query.prog_cnt).map_err(|_| Errno::OVERFLOW)
}

/// Opens a loaded program by its id.
pub fn prog_by_id(id: u32) -> Result<OwnedFd, Errno> {
    let mut attributes = Attributes::zeroed();
    attributes.id = id;
    // SAFETY: the attributes hold no address.
    let fd = unsafe { bpf(Command::GetFdById, &mut attributes) }?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// # Safety
/// Every address in `attributes` must be valid for what `command` does with it.
unsafe fn bpf(command: Command, attributes: &mut Attributes) -> Result<RawFd, Errno> {
    let pointer: *mut Attributes = attributes;
    // SAFETY: the pointer is to attributes borrowed mutably across the call, of the size given; the caller
    // answers for the addresses in them.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_int, pointer, mem::size_of::<Attributes>())
    };
    RawFd::try_from(result)
        .ok()
        .filter(|result| *result >= 0)
        .ok_or_else(|| Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}
