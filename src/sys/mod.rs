//! The only unsafe code: system calls that neither nix nor rustix wraps, one file per family; the allocator;
//! and a switch of stacks.
//!
//! A wrapper is a single system call: safe signature, `Result<_, Errno>`, no policy, no context. What rustix
//! wraps safely is called through rustix, in `init/`, too: its functions are plain system calls that take
//! `&CStr` without allocating.
#![allow(unsafe_code, reason = "this folder is where unsafe code lives; every block says why it is sound")]

pub mod alloc;
pub mod bpf;
pub mod cred;
pub mod keyring;
pub mod mount;
pub mod net;
pub mod process;
pub mod scheduling;
pub mod seccomp;
pub mod signal;
pub mod stack;
pub mod weakened;

pub use rustix::io::Errno;

/// Converts the result of a libc call that sets errno.
fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result < 0 {
        return Err(last_errno());
    }
    Ok(result)
}

fn last_errno() -> Errno {
    std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}
