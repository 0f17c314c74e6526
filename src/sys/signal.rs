//! Signals by number, all 64 of them: the C libraries hide those that they use for threads (32 and 33 in
//! glibc, also 34 in musl), but other programs may send them; signal(7).

use std::ffi::c_int;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::{Errno, check};

/// The kernel's signal set with all signals: bit N-1 is signal N.
static ALL: u64 = u64::MAX;
/// The size of the set in bytes.
const SET_SIZE: usize = size_of::<u64>();

/// Blocks all signals that can be blocked, in the calling thread; sigprocmask(2).
pub fn block_all() -> Result<(), Errno> {
    // SAFETY: the kernel reads SET_SIZE bytes from a static, writes nothing (the old set is not asked for)
    // and keeps no pointer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_BLOCK,
            &raw const ALL,
            ptr::null_mut::<u64>(),
            SET_SIZE,
        )
    };
    check(result).map(drop)
}

/// Resets SIGCHLD to its default action, with SA_NOCLDSTOP: none is sent when a child stops; sigaction(2).
pub fn default_sigchld() -> Result<(), Errno> {
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::SA_NOCLDSTOP, SigSet::empty());
    // SAFETY: the default action runs no code of ours, so there is no handler that could be unsound.
    let result = unsafe { sigaction(Signal::SIGCHLD, &action) };
    result.map(drop).map_err(|errno| Errno::from_raw_os_error(errno as i32))
}

/// Makes HUP, INT, QUIT and TERM end this process with status 128+N, until execve. The default actions do as
/// much, except in the first process of a pid namespace; pid_namespaces(7).
pub fn end_on_interrupts() -> Result<(), Errno> {
    extern "C" fn end(signal: c_int) {
        super::process::exit_now(signal.saturating_add(128));
    }
    let action = SigAction::new(SigHandler::Handler(end), SaFlags::empty(), SigSet::empty());
    for signal in INTERRUPTS {
        // SAFETY: the handler calls _exit(2) and nothing else, which is safe at any moment; signal-safety(7).
        let result = unsafe { sigaction(signal, &action) };
        result.map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
    }
    Ok(())
}

/// Waits for the next signal and takes it; all signals must be blocked; sigwaitinfo(2).
///
/// # Errors
/// `EINTR` if the process was stopped and continued, or traced.
pub fn wait() -> Result<i32, Errno> {
    // SAFETY: the kernel reads SET_SIZE bytes from a static; the null pointers mean that neither the signal's
    // details nor a time limit are wanted; it keeps no pointer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const ALL,
            ptr::null_mut::<libc::siginfo_t>(),
            ptr::null::<libc::timespec>(),
            SET_SIZE,
        )
    };
    check(result).and_then(|number| i32::try_from(number).map_err(|_| Errno::OVERFLOW))
}

/// Opens a signalfd for all blocked signals, which reads 128 bytes per signal; close-on-exec, non-blocking;
/// signalfd(2).
pub fn descriptor() -> Result<OwnedFd, Errno> {
    descriptor_of(&ALL)
}

/// The signals that ask a process to terminate.
const INTERRUPTS: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

/// Opens a signalfd for HUP, INT, QUIT and TERM, except those that are ignored.
pub fn interrupts() -> Result<OwnedFd, Errno> {
    // Ignored signals, as under nohup(1) or with `&` in a script, are not meant for this process.
    let meant = INTERRUPTS.map(|signal| signal as c_int).into_iter().filter(|signal| !is_ignored(*signal));
    descriptor_of(&meant.fold(0, |set, signal| set | 1 << (signal - 1)))
}

/// Whether this process ignores `signal`; sigaction(2).
fn is_ignored(signal: c_int) -> bool {
    // The kernel's structure: handler, flags, restorer and mask.
    let mut action = [0_u64; 4];
    // SAFETY: no new action is given, and the kernel writes no more than the 32 bytes of `action`, which
    // lives across the call.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigaction, signal, ptr::null::<u64>(), action.as_mut_ptr(), SET_SIZE)
    };
    let [handler, ..] = action;
    check(result).is_ok() && usize::try_from(handler) == Ok(libc::SIG_IGN)
}

fn descriptor_of(set: &u64) -> Result<OwnedFd, Errno> {
    // SAFETY: the kernel reads SET_SIZE bytes from `set`, which is borrowed across the call, and keeps no
    // pointer; -1 asks for a new descriptor.
    let result = unsafe {
        libc::syscall(
            libc::SYS_signalfd4,
            -1,
            ptr::from_ref(set),
            SET_SIZE,
            libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
        )
    };
    let fd = check(result).and_then(|fd| i32::try_from(fd).map_err(|_| Errno::OVERFLOW))?;
    // SAFETY: the kernel has just made this descriptor, and nothing else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends signal `number`; 0 only checks whether that would be possible; pidfd_send_signal(2).
///
/// # Errors
/// `ESRCH` if the process has ended and been waited for, `EPERM`, `EINVAL` for a number above 64.
pub fn send(pidfd: BorrowedFd<'_>, number: i32) -> Result<(), Errno> {
    // SAFETY: no memory is passed; the null pointer means that the kernel fills in the signal's details.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            number,
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    check(result).map(drop)
}
