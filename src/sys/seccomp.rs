//! seccomp(2): system call filters.

use std::os::fd::{FromRawFd as _, OwnedFd};

use super::{Errno, check};

/// `SECCOMP_SET_MODE_FILTER`; linux/seccomp.h.
const SET_MODE_FILTER: libc::c_ulong = 1;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
const NEW_LISTENER: u32 = 1 << 3;

/// `struct sock_filter`: a classic BPF instruction; linux/filter.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    pub code: u16,
    /// How many instructions to skip if the comparison is true, and if it is false.
    pub yes: u8,
    pub no: u8,
    pub number: u32,
}

/// `struct sock_fprog`.
#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

/// Installs `program` as a system call filter for the calling thread.
///
/// # Errors
/// `EACCES` without no_new_privs and without CAP_SYS_ADMIN in the user namespace; `EINVAL` for a flag or a
/// program that the kernel does not support; `ENOMEM` if the filters of this thread are too long in total.
pub fn load(program: &[Instruction], flags: u32) -> Result<(), Errno> {
    set_mode_filter(program, with_listener(flags, false)).map(drop)
}

/// Like [`load`], but returns the listener, a descriptor for the calls that the program delegates;
/// close-on-exec.
///
/// # Errors
/// Besides those of [`load`]: `EBUSY` if another filter of this thread has a listener.
pub fn load_with_listener(program: &[Instruction], flags: u32) -> Result<OwnedFd, Errno> {
    let number = set_mode_filter(program, with_listener(flags, true))?;
    let number = i32::try_from(number).map_err(|_| Errno::OVERFLOW)?;
    // SAFETY: the kernel has just opened this descriptor for us, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Returns the flags for the kernel, with or without a listener.
pub const fn with_listener(flags: u32, listens: bool) -> u32 {
    if listens { flags | NEW_LISTENER } else { flags & !NEW_LISTENER }
}

fn set_mode_filter(program: &[Instruction], flags: u32) -> Result<libc::c_long, Errno> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let program = Program { length, instructions: program.as_ptr() };
    // SAFETY: `program` lives across the call, and so do the `length` instructions that it points to; the
    // kernel copies them and writes nothing.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, libc::c_ulong::from(flags), &raw const program)
    })
}

/// Whether this kernel supports filters with all of `flags`, as [`with_listener`] returns them.
pub fn knows(flags: u32) -> bool {
    let nothing = std::ptr::null::<Program>();
    // SAFETY: there is no program to read: given the null pointer, the kernel returns EFAULT after it has
    // checked the flags.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, libc::c_ulong::from(flags), nothing) };
    check(result) == Err(Errno::FAULT)
}
