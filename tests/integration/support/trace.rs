//! Traces a call of the runtime, and everything it starts, from one system call to the next; ptrace(2).
#![allow(unsafe_code, reason = "ptrace(2), waitid(2) and fork(2) have no safe form")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::marker::PhantomData;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::ptr;

use super::process::Running;
use super::{Invocation, Output, host, wait};

/// Where a process stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It is about to make this system call.
    Call { number: i64, arguments: [u64; 6] },
    /// It comes back from one.
    Return,
    /// It has just become another program.
    Executed,
}

/// A call and what it has started. All of it belongs to the thread that has made it.
#[derive(Debug)]
pub struct Trace {
    running: Running,
    /// Those that live.
    pub processes: BTreeSet<i32>,
    /// The one that stands still and goes on with the next step.
    stopped: Option<i32>,
    held: Option<i32>,
    of_this_thread: PhantomData<*const ()>,
}

const OPTIONS: i32 = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC;

impl Trace {
    /// Skips where this process may not trace, or would take minutes to.
    pub fn need() -> host::Outcome {
        host::need(host::machine() == "native", "a machine that runs a traced program quickly")?;
        host::need(host::has_capability(19), "CAP_SYS_PTRACE")
    }

    pub fn of(call: Invocation) -> Self {
        // SAFETY: between fork and execve this is one system call without pointers.
        let call = unsafe { call.before_it_begins(|| request(libc::PTRACE_TRACEME, 0, 0, 0).map(drop)) };
        let running = call.spawn();
        let first = running.pid();
        let mut trace = Self {
            running,
            processes: BTreeSet::from([first]),
            stopped: None,
            held: None,
            of_this_thread: PhantomData,
        };
        assert_eq!(trace.wait(), Some(first), "the first stop is that of execve");
        request(libc::PTRACE_SETOPTIONS, first, 0, u64::try_from(OPTIONS).unwrap()).unwrap();
        trace.stopped = Some(first);
        trace
    }

    /// The process that was called.
    pub fn first(&self) -> i32 {
        self.running.pid()
    }

    /// Lets the one that stands still go on, and says which does next, and where; `None` when the called one
    /// has ended.
    pub fn next(&mut self) -> Option<(i32, Stop)> {
        if let Some(pid) = self.stopped.take() {
            go_on(pid, 0);
        }
        loop {
            let pid = self.wait()?;
            let mut status = 0;
            // SAFETY: `status` lives across the call.
            if unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) } != pid {
                continue;
            }
            self.processes.insert(pid);
            if !libc::WIFSTOPPED(status) {
                self.processes.remove(&pid);
                continue;
            }
            let signal = libc::WSTOPSIG(status);
            let stop = match (signal, status >> 16) {
                (libc::SIGTRAP, libc::PTRACE_EVENT_EXEC) => Stop::Executed,
                (libc::SIGTRAP, event) if event != 0 => {
                    go_on(pid, 0);
                    continue;
                }
                // A new one begins with a SIGSTOP, which is not for it.
                (libc::SIGSTOP, _) => {
                    go_on(pid, 0);
                    continue;
                }
                (signal, _) if signal == libc::SIGTRAP | 0x80 => match call_of(pid) {
                    Some(stop) => stop,
                    None => continue,
                },
                (signal, _) => {
                    go_on(pid, signal);
                    continue;
                }
            };
            self.stopped = Some(pid);
            return Some((pid, stop));
        }
    }

    /// Keeps the one that stands still where it is, until [`Self::release`].
    pub fn hold(&mut self) {
        self.held = self.stopped.take();
    }

    pub fn release(&mut self) {
        if let Some(pid) = self.held.take() {
            go_on(pid, 0);
        }
    }

    /// The next process of this thread that has a stop or an end to tell, which it still does; `None` if the
    /// called one has ended.
    fn wait(&self) -> Option<i32> {
        let mut found = None;
        let told = wait::holds_within(host::patience(), || {
            // SAFETY: `siginfo_t` is plain old data.
            let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
            // Those of other threads are other tests'.
            let flags = libc::WEXITED
                | libc::WSTOPPED
                | libc::WNOWAIT
                | libc::WNOHANG
                | libc::__WALL
                | libc::__WNOTHREAD;
            // SAFETY: `info` lives across the call.
            let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) };
            // SAFETY: waitid(2) has filled it in, or left it zero.
            found = Some(unsafe { info.si_pid() }).filter(|pid| result == 0 && *pid != 0);
            let ends = matches!(info.si_code, libc::CLD_EXITED | libc::CLD_KILLED | libc::CLD_DUMPED);
            if ends && found == Some(self.first()) {
                found = None;
                return true;
            }
            result != 0 || found.is_some()
        });
        assert!(told, "nothing happens: {:?}", self.running);
        found
    }

    /// Lets all go on alone and waits for the end of the called one.
    pub fn finish(mut self) -> Output {
        self.release();
        while self.next().is_some() {}
        self.processes.remove(&self.first());
        self.processes.iter().for_each(|pid| let_go(*pid));
        self.running.wait()
    }
}

/// Follows a process no more, wherever it is.
fn let_go(pid: i32) {
    // It has to stand still for that.
    // SAFETY: takes no pointers.
    unsafe { libc::kill(pid, libc::SIGSTOP) };
    let mut status = 0;
    // SAFETY: `status` lives across the call.
    while unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) } == pid && libc::WIFSTOPPED(status) {
        if libc::WSTOPSIG(status) == libc::SIGSTOP {
            let _ = request(libc::PTRACE_DETACH, pid, 0, 0);
            return;
        }
        go_on(pid, 0);
    }
}

fn go_on(pid: i32, signal: i32) {
    // It may have been killed.
    let _ = request(libc::PTRACE_SYSCALL, pid, 0, u64::try_from(signal).unwrap());
}

/// At which end of a system call `pid` stands; `None` if it has been killed.
fn call_of(pid: i32) -> Option<Stop> {
    const PTRACE_GET_SYSCALL_INFO: i32 = 0x420e;
    const ENTRY: u64 = 1;
    // `struct ptrace_syscall_info`: kind, then two addresses, then number and arguments.
    let mut info = [0_u64; 11];
    let size = u64::try_from(size_of_val(&info)).unwrap();
    request(PTRACE_GET_SYSCALL_INFO, pid, size, ptr::from_mut(&mut info) as u64).ok()?;
    if info[0] & 0xff != ENTRY {
        return Some(Stop::Return);
    }
    let arguments = info[4..10].try_into().unwrap();
    Some(Stop::Call { number: i64::try_from(info[3]).unwrap_or(-1), arguments })
}

/// The C libraries have the requests in different types.
fn request(what: impl Into<i64>, pid: i32, address: u64, data: u64) -> std::io::Result<()> {
    // SAFETY: of the requests that are made here, one has the kernel write through `data`, as many bytes as `address` says, which
    // is the size of what its caller borrows.
    match unsafe { libc::syscall(libc::SYS_ptrace, what.into(), pid, address, data) } {
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// What `length` bytes at an address of a process's memory are.
pub fn memory(pid: i32, address: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    let file = File::open(format!("/proc/{pid}/mem")).unwrap();
    file.read_exact_at(&mut bytes, address).unwrap();
    bytes
}

/// The numbers of the descriptors of `pid` that satisfy `is`, which gets what the link in /proc/PID/fd says
/// and its path.
pub fn descriptors(pid: i32, is: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let path = entry.path().to_str().unwrap().to_owned();
        let link = fs::read_link(&path).unwrap_or_default();
        if is(&link.to_string_lossy(), &path) {
            found.push(path);
        }
    }
    found
}

/// What somebody without any privilege but those of a user namespace of his own gets who has this descriptor
/// of a read-only mount and would have it, or a copy of it, writable: 0 or an errno.
pub fn clear_read_only(mount: &OwnedFd) -> i32 {
    // SAFETY: the child makes nothing but system calls, and ends with one.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: takes no pointers.
        let apart = unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) };
        let errno = || std::io::Error::last_os_error().raw_os_error().unwrap_or(255);
        let mut result = if apart == 0 { make_writable(mount.as_raw_fd().into()) } else { errno() };
        if result != 0 {
            let flags = libc::c_long::from(libc::AT_EMPTY_PATH) | 1;
            // SAFETY: the path is a C string literal.
            let copy = unsafe { libc::syscall(libc::SYS_open_tree, mount.as_raw_fd(), c"".as_ptr(), flags) };
            result = if copy < 0 { errno() } else { make_writable(copy) };
        }
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(result) };
    }
    let mut status = 0;
    // SAFETY: `status` lives across the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    libc::WEXITSTATUS(status)
}

fn make_writable(mount: libc::c_long) -> i32 {
    let attr =
        libc::mount_attr { attr_set: 0, attr_clr: libc::MOUNT_ATTR_RDONLY, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is a C string literal, and `attr` lives across the call with its size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount,
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap_or(255) }
}
