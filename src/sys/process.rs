//! Processes: clone(2), execve(2), close_range(2), prctl(2), namespaces, resource limits and signal actions.

use std::ffi::{CStr, CString, c_char, c_int};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use super::{Errno, check};

/// Missing in libc; clone(2).
pub const CLONE_NEWTIME: c_int = 0x80;

/// `CLONE_INTO_CGROUP`, for which libc uses too small a type; linux/sched.h.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// The process in which [`clone3`] or [`fork`] returns.
#[derive(Debug)]
pub enum Cloned {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

/// Creates a child with `flags` (`CLONE_NEW*`, `CLONE_PARENT`) in the cgroup whose directory is `cgroup`;
/// clone(2).
///
/// The child is a copy of this process, as after fork(2). The caller must be single-threaded: only the
/// calling thread exists in the child, and locks held by others would stay locked.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN; `ENOSPC` if a limit in `/proc/sys/user` is reached; `EBUSY` if the cgroup
/// has controllers enabled for its children, `EOPNOTSUPP` if its type is `domain invalid`.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned, Errno> {
    let mut pidfd: c_int = -1;
    // SAFETY: `clone_args` is plain old data, for which all zeros means "nothing asked for".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | u64::from(libc::CLONE_PIDFD.unsigned_abs());
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    // With CLONE_PARENT, the exit signal is that of this process; clone(2).
    if flags & u64::from(libc::CLONE_PARENT.unsigned_abs()) == 0 {
        args.exit_signal = libc::SIGCHLD.unsigned_abs().into();
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd().unsigned_abs().into();
    }
    // SAFETY: `args` lives across the call, its size is the one passed, and its one pointer, to `pidfd`, is
    // valid for the `int` that the kernel writes there before it returns. Without CLONE_VM the child has
    // memory of its own.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel has just opened this descriptor for us and nobody else knows its number.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent { pid: i32::try_from(pid).unwrap_or(i32::MAX), pidfd })
}

/// Creates a child that is a copy of this process, in the same namespaces and cgroup; clone(2). Unlike
/// clone3(2), its flags can be checked by seccomp filters, so engines' profiles allow it where they make
/// clone3(2) fail with `ENOSYS`. The caller must be single-threaded, as for [`clone3`].
///
/// # Errors
/// `EAGAIN` if the limit on processes is reached.
pub fn fork() -> Result<Cloned, Errno> {
    let mut pidfd: c_int = -1;
    let flags = libc::c_long::from(libc::CLONE_PIDFD | libc::SIGCHLD);
    // SAFETY: without CLONE_VM the child has memory of its own, including a copy of this stack, for which the
    // null pointer stands. On every architecture, the third argument is where the kernel writes one `int`,
    // the descriptor, before it returns; the last two, whose order differs, are unused.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, &raw mut pidfd, 0_usize, 0_usize) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel has just opened this descriptor for us and nobody else knows its number.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent { pid: i32::try_from(pid).unwrap_or(i32::MAX), pidfd })
}

/// A NULL-terminated array of pointers to C strings for execve(2), prepared before clone.
pub struct Argv {
    // Owned, so that the strings live as long as the pointers to them.
    strings: Vec<CString>,
    // Atomic only so that the spare slot can be filled through a shared reference.
    pointers: Vec<AtomicPtr<c_char>>,
}

impl Argv {
    pub fn new(strings: Vec<CString>) -> Self {
        Self::with_nulls(strings, 1)
    }

    /// Like [`Argv::new`], with a spare slot for one more string, which [`execve`] fills.
    pub fn with_room(strings: Vec<CString>) -> Self {
        Self::with_nulls(strings, 2)
    }

    fn with_nulls(strings: Vec<CString>, nulls: usize) -> Self {
        // The heap buffer of a CString does not move with it.
        let pointers = strings
            .iter()
            .map(|string| AtomicPtr::new(string.as_ptr().cast_mut()))
            .chain((0..nulls).map(|_| AtomicPtr::default()))
            .collect();
        Self { strings, pointers }
    }
}

impl std::fmt::Debug for Argv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.strings).finish()
    }
}

/// Executes the program at `path`; returns only on failure. `more` is put into the spare slot of `envp`
/// ([`Argv::with_room`]), and ignored without one. execve(2).
pub fn execve(path: &CStr, argv: &Argv, envp: &Argv, more: Option<&CStr>) -> Errno {
    let room = envp.pointers.len().checked_sub(2).filter(|room| *room == envp.strings.len());
    let room = room.and_then(|room| envp.pointers.get(room));
    if let (Some(room), Some(more)) = (room, more) {
        room.store(more.as_ptr().cast_mut(), Ordering::Relaxed);
    }
    // SAFETY: `path` is NUL-terminated. An AtomicPtr has the layout of a pointer; both arrays end with NULL,
    // and their strings are owned by the `Argv`s that the caller borrows across the call, but for `more`,
    // which it borrows too. The kernel copies all of it and writes nothing.
    let result = unsafe {
        libc::syscall(libc::SYS_execve, path.as_ptr(), argv.pointers.as_ptr(), envp.pointers.as_ptr())
    };
    if let Some(room) = room {
        room.store(std::ptr::null_mut(), Ordering::Relaxed);
    }
    check(result).err().unwrap_or(Errno::NOEXEC)
}

/// Executes the program that `file` is open on; returns only on failure. execveat(2).
pub fn execute(file: BorrowedFd<'_>, argv: &Argv, envp: &Argv) -> Errno {
    // SAFETY: the path is an empty C string literal; as in `execve`, both arrays end with NULL and own their
    // strings. The kernel copies all of it and writes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            argv.pointers.as_ptr(),
            envp.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    check(result).err().unwrap_or(Errno::NOEXEC)
}

/// Returns the descriptor of the program that [`execute`] was called with to start this process, if it is
/// still open; only the first call gets it.
pub fn executed_descriptor() -> Option<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let name = rustix::param::linux_execfn().to_bytes();
    let number: c_int = std::str::from_utf8(name.strip_prefix(b"/dev/fd/")?).ok()?.parse().ok()?;
    // SAFETY: takes no pointers.
    let is_open = check(unsafe { libc::syscall(libc::SYS_fcntl, number, libc::F_GETFD) }).is_ok();
    if !is_open || TAKEN.swap(true, Ordering::Relaxed) {
        return None;
    }
    // SAFETY: the descriptor was opened before this program started and left open for the caller of this
    // function. Nothing else in this program knows its number, and it is returned only once.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Sets the name of the calling thread, as ps(1) shows it; `PR_SET_NAME`, prctl(2).
pub fn set_name(name: &CStr) -> Result<(), Errno> {
    // SAFETY: the kernel copies up to 16 bytes of the NUL-terminated `name`, which lives across the call.
    check(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) }).map(drop)
}

/// Overwrites this process's command line and environment, which others can read in /proc/PID/cmdline and
/// /proc/PID/environ. The command line then begins with `title`, as ps(1) shows it. Only for a process that
/// is about to exit or execute a program: nothing may read its environment any more.
pub fn clear_arguments(title: &[u8]) {
    unsafe extern "C" {
        /// The address of `argv[0]`; program_invocation_name(3).
        static program_invocation_name: *mut u8;
    }
    // The kernel places argv, envp and the path of the executable one after the other (`create_elf_tables`
    // and `do_execveat_common`).
    // SAFETY: the C library writes to it before `main`, and nothing does later.
    let start = unsafe { program_invocation_name };
    let (end, page) = (auxiliary(libc::AT_EXECFN), auxiliary(libc::AT_PAGESZ).max(1));
    // The kernel's limit.
    const MOST: usize = 6 << 20;
    let Some(length) = end.checked_sub(start.addr()).filter(|length| *length <= MOST) else { return };
    // Whole pages are freed, because overwriting would charge them to the current cgroup.
    let whole = start.addr().next_multiple_of(page)..end - end % page;
    let given_back = (whole.len() >= 2 * page).then(|| {
        // SAFETY: these pages lie between two strings on this process's initial stack, so they are its own
        // anonymous memory, and as below nothing refers to their content. The kernel replaces them by zeros.
        check(unsafe {
            libc::syscall(libc::SYS_madvise, start.with_addr(whole.start), whole.len(), libc::MADV_DONTNEED)
        })
    });
    let (head, tail) = match given_back {
        Some(Ok(_)) => (whole.start - start.addr(), end - whole.end),
        _ => (length, 0),
    };
    // SAFETY: the `length` bytes from `start` are the strings of `argv` and `envp`, which this process may
    // overwrite. Nothing in this program has a reference to them: `std::env` copies. `head` is at most
    // `length`.
    unsafe { start.write_bytes(0, head) };
    // SAFETY: as above; `tail` is at most `length`, and `end` is the end of the strings.
    unsafe { start.with_addr(end - tail).write_bytes(0, tail) };
    // SAFETY: as above, and `title` does not overlap. If it is longer, its end is not copied.
    unsafe { start.copy_from_nonoverlapping(title.as_ptr(), title.len().min(length.saturating_sub(1))) };
}

/// Returns a value of the auxiliary vector, or 0; getauxval(3).
fn auxiliary(kind: libc::c_ulong) -> usize {
    // SAFETY: takes no pointers, and reads what the kernel has put on the initial stack.
    let value = unsafe { libc::getauxval(kind) };
    usize::try_from(value).unwrap_or(0)
}

/// Exits at once, without destructors or exit handlers; exit_group(2).
pub fn exit_now(status: i32) -> ! {
    // SAFETY: takes no pointers, and does not return.
    unsafe { libc::syscall(libc::SYS_exit_group, status) };
    // A seccomp filter may have made it fail. Of the C libraries' _exit(2), musl's would loop forever then.
    std::process::abort()
}

/// Closes the descriptors from `first` to `last`, even if they have owners; close_range(2). Only for a
/// process that is about to exit or execute a program: no destructor may run afterwards.
pub fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: takes no pointers. The caller is the child of clone3, whose owners of descriptors never run
    // again.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Returns the numbers from `first` on that are not in `used`, as ranges for [`close_range`].
pub fn all_but(mut used: Vec<u32>, mut first: u32) -> Vec<(u32, u32)> {
    used.sort_unstable();
    let mut ranges = Vec::with_capacity(used.len() + 1);
    for number in used {
        if number > first {
            ranges.push((first, number - 1));
        }
        first = first.max(number.saturating_add(1));
    }
    ranges.push((first, u32::MAX));
    ranges
}

/// Sets close-on-exec on all descriptors from `first` on; close_range(2).
pub fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: takes no pointers. Marking closes nothing, so no owner of a descriptor is affected.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    check(result).map(drop)
}

/// Resets `signal` to its default action; sigaction(2). Calls the kernel directly, because the C libraries
/// reserve some signals.
pub fn default_signal(signal: c_int) -> Result<(), Errno> {
    set_action(signal, libc::SIG_DFL)
}

/// Ignores `signal`; sigaction(2).
pub fn ignore_signal(signal: c_int) -> Result<(), Errno> {
    set_action(signal, libc::SIG_IGN)
}

/// Sets `SIG_DFL` or `SIG_IGN`.
fn set_action(signal: c_int, disposition: libc::sighandler_t) -> Result<(), Errno> {
    // The kernel's structure: handler, flags, restorer and mask.
    let action = [disposition as u64, 0, 0, 0];
    // SAFETY: the kernel reads no more than the 32 bytes of `action`, which live across the call; the old
    // action is not asked for, and no handler of ours is installed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            action.as_ptr(),
            std::ptr::null_mut::<u64>(),
            size_of::<u64>(),
        )
    };
    check(result).map(drop)
}

/// Unblocks all signals; sigprocmask(2).
pub fn unblock_all_signals() -> Result<(), Errno> {
    let none = 0_u64;
    // SAFETY: the kernel reads the eight bytes of `none`, which live across the call; the old mask is not
    // asked for.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            std::ptr::null_mut::<u64>(),
            size_of::<u64>(),
        )
    };
    check(result).map(drop)
}

/// Sets whether processes of the same user may trace this one and open its descriptors through /proc;
/// otherwise its files there belong to root; `PR_SET_DUMPABLE`, prctl(2).
pub fn set_dumpable(dumpable: bool) -> Result<(), Errno> {
    // SAFETY: takes no pointers.
    let result = unsafe {
        libc::syscall(libc::SYS_prctl, libc::PR_SET_DUMPABLE, libc::c_ulong::from(dumpable), 0, 0, 0)
    };
    check(result).map(drop)
}

/// Makes this process the subreaper of its descendants; `PR_SET_CHILD_SUBREAPER`, prctl(2).
pub fn set_child_subreaper() -> Result<(), Errno> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }).map(drop)
}

/// Moves this process into new namespaces of the types `flags` (`CLONE_NEW*`); unshare(2).
pub fn unshare(flags: c_int) -> Result<(), Errno> {
    // SAFETY: takes no pointers, and the kinds of namespaces do not include CLONE_FILES, which could surprise
    // owners of descriptors on other threads.
    check(unsafe { libc::syscall(libc::SYS_unshare, flags) }).map(drop)
}

/// Joins a namespace of type `kind` (`CLONE_NEW*`, 0 for any); with a pidfd, the namespaces of that process
/// of the types `kind`; setns(2).
///
/// # Errors
/// `EINVAL` if the namespace has another type, or is this process's user namespace; `ESRCH` if the pidfd's
/// process has exited.
pub fn setns(namespace: BorrowedFd<'_>, kind: c_int) -> Result<(), Errno> {
    // SAFETY: takes no pointers; the descriptor is open for as long as it is borrowed.
    check(unsafe { libc::syscall(libc::SYS_setns, namespace.as_raw_fd(), kind) }).map(drop)
}

/// Sets the execution domain; personality(2).
pub fn set_personality(domain: u32) -> Result<(), Errno> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(domain)) }).map(drop)
}

/// Returns the soft and hard limit of this process for `resource` (`RLIMIT_*`); getrlimit(2).
pub fn rlimit(resource: u32) -> Result<(u64, u64), Errno> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes to `limit`, which lives across the call; no new limit is given.
    let result = unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, std::ptr::null::<libc::rlimit64>(), &raw mut limit)
    };
    check(result).map(|_| (limit.rlim_cur, limit.rlim_max))
}

/// Sets the soft and hard limit of process `pid` (0: this one) for `resource` (`RLIMIT_*`); prlimit(2).
///
/// # Errors
/// `EPERM` if the hard limit is raised without CAP_SYS_RESOURCE; `EINVAL` if soft exceeds hard.
pub fn set_rlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the kernel reads `limit`, which lives across the call; the old limit is not asked for.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            resource,
            &raw const limit,
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    };
    check(result).map(drop)
}

/// `RLIMIT_STACK`; asm-generic/resource.h.
pub const RLIMIT_STACK: u32 = 3;

/// Whether this process was executed with more privileges than its caller has, e.g. set-user-ID: AT_SECURE;
/// getauxval(3).
pub fn is_secure_execution() -> bool {
    // SAFETY: takes no pointers, and reads what the kernel gave the process at its start.
    let flag = unsafe { libc::getauxval(libc::AT_SECURE) };
    flag != 0
}
