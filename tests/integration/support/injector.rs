//! Traces a call of the runtime with ptrace(2), and at one system call kills the calling process or makes the
//! call fail.
//!
//! Traced are the runtime itself (`parent`), the processes it creates with clone3(2) (`child`, `child2`,
//! ...), which are the init process or intermediates, and those created with clone(2) (`hook`, ...). A child
//! or hook is released when it executes its program. A system call is identified by its process and its index
//! among calls of the same name: `parent:openat.12`. Unlike an index among all calls, that does not change
//! when other processes wait in between.
#![allow(unsafe_code, reason = "pre_exec has no safe form")]

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::str::FromStr;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, fs};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{Invocation, calls, wait};

/// A command that takes longer hangs.
const HANGS: Duration = Duration::from_secs(30);

/// How long those that outlive the runtime may make no system call before they are taken to wait for something.
const SILENCE: Duration = Duration::from_millis(30);

/// What happens at a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SIGKILL, before the call does anything.
    Kill,
    /// The call does nothing and fails so.
    Fail(Errno),
}

impl Ord for Kind {
    fn cmp(&self, other: &Self) -> Ordering {
        let number = |kind: &Self| match kind {
            Self::Kill => 0,
            Self::Fail(errno) => *errno as i32,
        };
        number(self).cmp(&number(other))
    }
}

impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill => f.write_str("kill"),
            Self::Fail(errno) => write!(f, "{errno:?}"),
        }
    }
}

/// One system call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub role: String,
    pub call: String,
    /// From 1, among those of this name of this process.
    pub nth: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}.{}", self.role, self.call, self.nth)
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    pub place: Place,
    pub kind: Kind,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.place, self.kind)
    }
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not of the form parent:openat.12:EIO");
        let [role, call, kind] = text.split(':').collect::<Vec<_>>()[..] else { return Err(wrong()) };
        let (call, nth) = call.rsplit_once('.').ok_or_else(wrong)?;
        let nth = nth.parse().map_err(|_| wrong())?;
        let kind = match kind {
            "kill" => Kind::Kill,
            name => Kind::Fail(calls::errno(name).ok_or_else(wrong)?),
        };
        Ok(Self { place: Place { role: role.to_owned(), call: call.to_owned(), nth }, kind })
    }
}

/// A system call that was made.
#[derive(Clone, Debug)]
pub struct Seen {
    pub place: Place,
    /// The path or file it is about, if it is about one.
    pub about: String,
    pub kinds: Vec<Kind>,
}

/// What came of a call that was followed.
#[derive(Debug)]
pub struct Traced {
    /// Exit status, or 128 + the signal that ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub seen: Vec<Seen>,
    /// Whether the fault has come about.
    pub is_hit: bool,
    pub has_hung: bool,
}

/// One process that is followed.
#[derive(Debug, Default)]
struct Tracee {
    role: String,
    /// It is between the beginning and the end of a system call.
    is_inside: bool,
    /// Its SIGSTOP is that of who follows it.
    is_stopping: bool,
    /// It is in what the C library and Rust's do before main: no fault there is the runtime's to bear.
    is_starting: bool,
    /// What the call that it is in is to give instead.
    fails: Option<Errno>,
    counts: BTreeMap<&'static str, usize>,
}

/// Calls it and follows it to its end; and with it the process `also`, as the `child`.
pub fn trace(mut call: Invocation, also: Option<i32>, point: Option<&Point>) -> Traced {
    // SAFETY: PTRACE_TRACEME is a bare system call, which is all that may be done between fork and exec.
    unsafe { call.command.pre_exec(|| ptrace::traceme().map_err(Into::into)) };
    let running = call.spawn();
    let root = Pid::from_raw(running.pid());
    let (stop, watchdog) = watch(root);
    let mut tracer = Tracer {
        root,
        point,
        tracees: BTreeMap::new(),
        early: BTreeSet::new(),
        seen: Vec::new(),
        is_hit: false,
        code: None,
    };
    tracer.begin(also.map(Pid::from_raw));
    tracer.follow();
    tracer.let_go();
    drop(stop);
    let has_hung = watchdog.join().unwrap();
    let code = tracer.code.unwrap();
    let (stdout, stderr) = (running.stdout(), running.stderr());
    Traced { code, stdout, stderr, seen: tracer.seen, is_hit: tracer.is_hit, has_hung }
}

/// Kills `root` if it has not ended in time, and says so.
fn watch(root: Pid) -> (Sender<()>, JoinHandle<bool>) {
    let (stop, stopped) = channel();
    let watchdog = thread::spawn(move || {
        let hangs = stopped.recv_timeout(HANGS) == Err(RecvTimeoutError::Timeout);
        if hangs {
            let _ = kill(root, Signal::SIGKILL);
        }
        hangs
    });
    (stop, watchdog)
}

fn options() -> Options {
    Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
}

struct Tracer<'a> {
    root: Pid,
    point: Option<&'a Point>,
    tracees: BTreeMap<Pid, Tracee>,
    /// Those that were seen before their birth was told.
    early: BTreeSet<Pid>,
    seen: Vec<Seen>,
    is_hit: bool,
    code: Option<i32>,
}

impl Tracer<'_> {
    /// Waits for what happens next to any process that this thread follows, and to no other thread's.
    fn wait(flags: WaitPidFlag) -> Option<WaitStatus> {
        loop {
            let flags = flags | WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
            match waitpid(Pid::from_raw(-1), Some(flags)) {
                Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => return None,
                status => return Some(status.unwrap()),
            }
        }
    }

    fn begin(&mut self, also: Option<Pid>) {
        // The stop after its first execve.
        let stopped = waitpid(self.root, Some(WaitPidFlag::__WALL)).unwrap();
        assert!(matches!(stopped, WaitStatus::Stopped(_, Signal::SIGTRAP)), "{stopped:?}");
        ptrace::setoptions(self.root, options()).unwrap();
        let parent = Tracee { role: "parent".to_owned(), is_starting: true, ..Tracee::default() };
        self.tracees.insert(self.root, parent);
        if let Some(pid) = also {
            ptrace::attach(pid).unwrap();
            let stopped = waitpid(pid, Some(WaitPidFlag::__WALL)).unwrap();
            assert!(matches!(stopped, WaitStatus::Stopped(_, Signal::SIGSTOP)), "{stopped:?}");
            ptrace::setoptions(pid, options()).unwrap();
            self.tracees.insert(pid, Tracee { role: "child".to_owned(), ..Tracee::default() });
            self.go_on(pid, None);
        }
        self.go_on(self.root, None);
    }

    /// Until the runtime has ended, and then until the others have, or wait.
    fn follow(&mut self) {
        while self.code.is_none() {
            match Self::wait(WaitPidFlag::empty()) {
                Some(status) => self.happened(status),
                None => break,
            }
        }
        let mut silent_since = Instant::now();
        while !self.tracees.is_empty() && silent_since.elapsed() < SILENCE {
            match Self::wait(WaitPidFlag::WNOHANG) {
                Some(WaitStatus::StillAlive) => thread::sleep(Duration::from_millis(1)),
                Some(status) => {
                    self.happened(status);
                    silent_since = Instant::now();
                }
                None => return,
            }
        }
    }

    /// A process that was killed meanwhile cannot go on, and is reported.
    fn go_on(&self, pid: Pid, signal: Option<Signal>) {
        // After the fault nothing is left to look at but births.
        let _ = match self.is_hit && self.tracees.get(&pid).is_none_or(|tracee| tracee.fails.is_none()) {
            true => ptrace::cont(pid, signal),
            false => ptrace::syscall(pid, signal),
        };
    }

    fn happened(&mut self, status: WaitStatus) {
        match status {
            WaitStatus::Exited(pid, code) => self.ended(pid, code),
            WaitStatus::Signaled(pid, signal, _) => self.ended(pid, 128 + signal as i32),
            WaitStatus::PtraceSyscall(pid) => self.at_call(pid),
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) => self.executed(pid),
            WaitStatus::PtraceEvent(pid, _, _) => self.gave_birth(pid),
            WaitStatus::Stopped(pid, signal) => match self.tracees.get_mut(&pid) {
                None => drop(self.early.insert(pid)),
                Some(tracee) if tracee.is_stopping && signal == Signal::SIGSTOP => {
                    tracee.is_stopping = false;
                    self.go_on(pid, None);
                }
                Some(_) => self.go_on(pid, Some(signal)),
            },
            other => panic!("{other:?}"),
        }
    }

    fn ended(&mut self, pid: Pid, code: i32) {
        self.tracees.remove(&pid);
        self.early.remove(&pid);
        if pid == self.root {
            self.code = Some(code);
        }
    }

    fn executed(&mut self, pid: Pid) {
        if pid == self.root {
            if let Some(tracee) = self.tracees.get_mut(&pid) {
                tracee.is_starting = true;
            }
            self.go_on(pid, None);
        } else {
            self.tracees.remove(&pid);
            let _ = ptrace::detach(pid, None);
        }
    }

    fn gave_birth(&mut self, parent: Pid) {
        if let Ok(pid) = ptrace::getevent(parent) {
            let pid = Pid::from_raw(pid.try_into().unwrap());
            let is_child = registers(parent).is_ok_and(|registers| registers.orig_rax == calls::CLONE3);
            let kind = if is_child { "child" } else { "hook" };
            let role = (1..)
                .map(|number| if number == 1 { kind.to_owned() } else { format!("{kind}{number}") })
                .find(|role| !self.seen.iter().any(|seen| seen.place.role == *role) && !self.has_role(role));
            let mut tracee = Tracee { role: role.unwrap(), is_stopping: true, ..Tracee::default() };
            let is_early = self.early.remove(&pid);
            tracee.is_stopping = !is_early;
            self.tracees.insert(pid, tracee);
            if is_early {
                self.go_on(pid, None);
            }
        }
        self.go_on(parent, None);
    }

    fn has_role(&self, role: &str) -> bool {
        self.tracees.values().any(|tracee| tracee.role == role)
    }

    /// `pid` is at the beginning or the end of a system call.
    fn at_call(&mut self, pid: Pid) {
        let Some(tracee) = self.tracees.get_mut(&pid) else { return };
        tracee.is_inside = !tracee.is_inside;
        if tracee.is_inside {
            self.at_beginning(pid);
        } else if let Some(errno) = tracee.fails.take() {
            let failed = registers(pid).and_then(|mut registers| {
                registers.rax = u64::from_ne_bytes((-i64::from(errno as i32)).to_ne_bytes());
                ptrace::setregs(pid, registers)
            });
            // Somebody may have killed it.
            assert!(matches!(failed, Ok(()) | Err(Errno::ESRCH)), "{failed:?}");
        }
        self.go_on(pid, None);
    }

    fn at_beginning(&mut self, pid: Pid) {
        let (Ok(mut registers), Some(tracee)) = (registers(pid), self.tracees.get_mut(&pid)) else { return };
        let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8];
        if tracee.is_starting {
            // Rust's own beginning ends with a stack for its handler of SIGSEGV.
            tracee.is_starting = !(registers.orig_rax == calls::SIGALTSTACK && registers.rdi != 0);
            return;
        }
        let Some(call) = calls::find(registers.orig_rax, &arguments) else { return };
        let nth = tracee.counts.entry(call.name).or_default();
        *nth += 1;
        let place = Place { role: tracee.role.clone(), call: call.name.to_owned(), nth: *nth };
        let fault = self.point.filter(|point| point.place == place && !self.is_hit);
        let about = if self.point.is_none() || fault.is_some() {
            about(pid, call, &arguments)
        } else {
            String::new()
        };
        match fault.map(|point| point.kind) {
            Some(Kind::Kill) => kill(pid, Signal::SIGKILL).unwrap(),
            Some(Kind::Fail(errno)) => {
                registers.orig_rax = u64::MAX;
                ptrace::setregs(pid, registers).unwrap();
                tracee.fails = Some(errno);
            }
            None => {}
        }
        self.is_hit |= fault.is_some();
        let kinds = call.kinds(&arguments);
        self.seen.push(Seen { place, about, kinds });
    }

    /// Follows nobody any longer.
    fn let_go(&mut self) {
        // Those that were just born stop anyway, and would stop again.
        for (pid, _) in self.tracees.iter().filter(|(_, tracee)| !tracee.is_stopping) {
            let _ = kill(*pid, Signal::SIGSTOP);
        }
        for pid in std::mem::take(&mut self.early) {
            let _ = ptrace::detach(pid, None);
        }
        wait::holds_within(HANGS, || {
            while let Some(status) = Self::wait(WaitPidFlag::WNOHANG) {
                let Some(pid) = status.pid() else { break };
                match status {
                    WaitStatus::Exited(pid, code) => self.ended(pid, code),
                    WaitStatus::Signaled(pid, signal, _) => self.ended(pid, 128 + signal as i32),
                    WaitStatus::Stopped(_, Signal::SIGSTOP) => {
                        let _ = ptrace::detach(pid, None);
                        self.tracees.remove(&pid);
                    }
                    WaitStatus::Stopped(_, signal) => drop(ptrace::cont(pid, signal)),
                    // What it has made stops, too.
                    _ => drop(ptrace::cont(pid, None)),
                }
            }
            self.tracees.is_empty()
        });
        assert!(self.tracees.is_empty(), "cannot let go of {:?}", self.tracees);
    }
}

fn registers(pid: Pid) -> Result<libc::user_regs_struct, Errno> {
    ptrace::getregs(pid)
}

/// The path or file that a call is about.
fn about(pid: Pid, call: &calls::Call, arguments: &[u64; 5]) -> String {
    match call.shows {
        calls::Shows::Nothing => String::new(),
        calls::Shows::Path(at) => {
            let mut bytes = [0; 256];
            let memory = fs::File::open(format!("/proc/{pid}/mem"))
                .and_then(|file| file.read_at(&mut bytes, arguments[at]));
            let length = memory.unwrap_or(0);
            let path = bytes[..length].split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(path).into_owned()
        }
        calls::Shows::File => {
            let link = fs::read_link(format!("/proc/{pid}/fd/{}", arguments[0]));
            link.map(|link| link.display().to_string()).unwrap_or_default()
        }
    }
}
