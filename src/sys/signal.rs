//! Signals by number, all 64 of them: the C libraries hide the numbers they use for threads (32 and 33 in glibc, 34
//! too in musl), but other programs send them; signal(7).

use std::ffi::c_int;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::{Errno, check};

/// The kernel's signal set: bit N-1 is signal N.
static ALL: u64 = u64::MAX;
/// The size of that set in bytes.
const SET_SIZE: usize = size_of::<u64>();

/// Blocks every signal that can be blocked, in the calling thread; sigprocmask(2).
pub fn block_all() -> Result<(), Errno> {
    // SAFETY: the kernel reads SET_SIZE bytes from a static, writes nothing (the old set is not asked for) and keeps
    // no pointer.
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

/// Gives SIGCHLD its default action, and sends none for children that only stop; sigaction(2).
pub fn default_sigchld() -> Result<(), Errno> {
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::SA_NOCLDSTOP, SigSet::empty());
    // SAFETY: the default action runs no code of ours, so there is no handler that could be unsound.
    let result = unsafe { sigaction(Signal::SIGCHLD, &action) };
    result.map(drop).map_err(|errno| Errno::from_raw_os_error(errno as i32))
}

/// Ends this process, until it executes a program, with status 128+N on HUP, INT, QUIT and TERM. Their default action does as
/// much, but not to the first process of a pid namespace; pid_namespaces(7).
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

/// Waits for the next signal, which must be blocked, and takes it; sigwaitinfo(2).
///
/// # Errors
/// `EINTR` if the process was stopped and continued, or traced.
pub fn wait() -> Result<i32, Errno> {
    // SAFETY: the kernel reads SET_SIZE bytes from a static; the null pointers mean that neither the signal's details
    // nor a time limit are wanted; it keeps no pointer.
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

/// A descriptor from which every blocked signal can be read, 128 bytes each; close-on-exec, non-blocking; signalfd(2).
pub fn descriptor() -> Result<OwnedFd, Errno> {
    descriptor_of(&ALL)
}

/// Those signals that ask a process to end.
const INTERRUPTS: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

/// The same for HUP, INT, QUIT and TERM alone.
pub fn interrupts() -> Result<OwnedFd, Errno> {
    // Those that whoever started us ignores (nohup(1), `&` in a script) are not meant for us.
    let meant = INTERRUPTS.map(|signal| signal as c_int).into_iter().filter(|signal| !is_ignored(*signal));
    descriptor_of(&meant.fold(0, |set, signal| set | 1 << (signal - 1)))
}

/// Whether this process ignores `signal`; sigaction(2).
fn is_ignored(signal: c_int) -> bool {
    // Handler, flags, restorer and mask of the kernel's structure.
    let mut action = [0_u64; 4];
    // SAFETY: no new action is given, and the kernel writes no more than the 32 bytes of `action`, which lives across the call.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigaction, signal, ptr::null::<u64>(), action.as_mut_ptr(), SET_SIZE)
    };
    let [handler, ..] = action;
    check(result).is_ok() && usize::try_from(handler) == Ok(libc::SIG_IGN)
}

fn descriptor_of(set: &u64) -> Result<OwnedFd, Errno> {
    // SAFETY: the kernel reads SET_SIZE bytes from `set`, which is borrowed across the call, and keeps no pointer; -1 asks
    // for a new descriptor.
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

/// Sends signal `number`, or only asks whether that would be possible if it is 0; pidfd_send_signal(2).
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
