//! The init process, or one that `exec` adds, as its parent sees it: cloned, listened to, and ended if anything goes wrong.

use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{SendFlags, SocketType};
use rustix::process::{WaitId, WaitIdOptions};

use crate::cgroup::{Cgroup, OomCounts, OomFiles};
use crate::error::{Fault, Hint, Stage};
use crate::host::process::{self, Process, is_single_threaded, pid_of, process_stat};
use crate::host::self_exe::Guard;
use crate::host::signals::{SignalQueue, Signals};
use crate::host::unix_socket;
use crate::init::protocol;
use crate::init::protocol::Message;
use crate::init::step::Point;
use crate::plan::linux::namespaces::Join;
use crate::plan::process::Rlimit;
use crate::program::Program;
use crate::sys::Errno;
use crate::sys::process::{Cloned, clone3, rlimit, set_rlimit, setns};
use crate::{cgroup, init};

/// Clones the init process, or the intermediate before it, into `cgroup`, and says when it started, as [`crate::host::process`]
/// does. One that `waits` at birth for this process may come there later: [`Cgroup::attach`]. So does, and waits for that, what
/// the kernel would kill there; [`Cgroup::attaches_late`] tells.
pub fn clone(
    new: i32,
    cgroup: &mut Cgroup,
    pid_namespace: Option<&(Join, OwnedFd)>,
    program: &mut Program,
    theirs: &OwnedFd,
    waits: bool,
    earlier_ooms: OomCounts,
) -> Result<(Process, u64)> {
    let init = clone_once(new, cgroup, pid_namespace, program, theirs, waits)?;
    let stat = process_stat(init.pid)?;
    // Without memory it would end as soon.
    let is_short = || cgroup.path().is_some_and(|path| cgroup::shortage(path, earlier_ooms).is_some());
    if !stat.is_some_and(|stat| stat.was_killed_at_birth()) || is_short() {
        return Ok((init, stat.map_or(0, |stat| stat.start)));
    }
    drop(init);
    cgroup.attach_late();
    program.wait_at_birth();
    let init = clone_once(new, cgroup, pid_namespace, program, theirs, waits)?;
    let start = process::start(init.pid)?;
    Ok((init, start))
}

fn clone_once(
    new: i32,
    cgroup: &mut Cgroup,
    pid_namespace: Option<&(Join, OwnedFd)>,
    program: &Program,
    theirs: &OwnedFd,
    waits: bool,
) -> Result<Process> {
    // The pid namespace of a process is fixed at its birth: this process asks for its children to be born there, and
    // takes that back; pid_namespaces(7).
    let own = pid_namespace.map(enter).transpose()?;
    debug_assert!(is_single_threaded(), "a lock that another thread holds would stay held in the child");
    let into = cgroup.fd().filter(|_| !cgroup.attaches_late());
    let mut cloned = clone3(u64::from(new.unsigned_abs()), into);
    // An ordinary user may put processes into a cgroup only if a cgroup above both is theirs; cgroups(7). systemd may.
    if matches!(cloned, Err(Errno::ACCESS)) && waits && cgroup.isolate() {
        cloned = clone3(u64::from(new.unsigned_abs()), None);
    }
    if matches!(cloned, Ok(Cloned::Child)) {
        init::perform(&program.steps, theirs.as_fd());
    }
    own.as_ref().map(leave).transpose()?;
    let cloned =
        cloned.map_err(|errno| {
            let doing = match cgroup.path() {
                Some(path) => format!("clone into cgroup {}", path.display()),
                None => "clone".to_owned(),
            };
            match errno {
            Errno::BUSY => anyhow!(errno).context(Hint(
                doing,
                "the cgroup enables controllers for its children, so it cannot contain processes; choose \
                 another cgroupsPath".into(),
            )),
            Errno::AGAIN => anyhow!(errno).context(Hint(
                doing,
                "process limit reached: check pids.max of the cgroup and its parents, RLIMIT_NPROC and \
                 kernel.pid_max".into(),
            )),
            _ => anyhow!(errno).context(doing),
        }
        });
    match cloned? {
        Cloned::Parent { pid, pidfd } => Ok(Process { pid, pidfd, keep: false }),
        Cloned::Child => bail!("the init process returned unexpectedly"),
    }
}

/// Has the children of this process be born in a pid namespace; gives its own, for [`leave`].
fn enter((join, namespace): &(Join, OwnedFd)) -> Result<fs::File> {
    let own = fs::File::open("/proc/self/ns/pid").context("open the runtime's own pid namespace")?;
    setns(namespace.as_fd(), libc::CLONE_NEWPID).with_context(|| Fault {
        pointer: join.at(),
        message: "join the pid namespace".into(),
        hint: Some("it must be a pid namespace, and not an ancestor of the runtime's own".into()),
    })?;
    Ok(own)
}

fn leave(own: &fs::File) -> Result<()> {
    setns(own.as_fd(), libc::CLONE_NEWPID).context("return to the runtime's own pid namespace")
}

/// # Errors
/// If nobody can be born in the pid namespace.
pub fn require_joinable(pid_namespace: &(Join, OwnedFd)) -> Result<()> {
    leave(&enter(pid_namespace)?)
}

/// # Errors
/// If one of the `count` descriptors from 3 on that are to be passed on is not open, or is not the caller's but `own`.
pub fn require_inherited(count: u32, own: &Guard) -> Result<()> {
    for number in 3..count.saturating_add(3) {
        if own.is(number) || fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_err() {
            bail!("file descriptor {number} is not open (--preserve-fds and LISTEN_FDS count from 3)");
        }
    }
    Ok(())
}

/// Where a descriptor of the new process goes, if anybody wants one: `--pidfd-socket`.
pub fn connect_pidfd_socket(path: Option<&Path>) -> Result<Option<OwnedFd>> {
    let connect = |path| unix_socket::connect(path, SocketType::STREAM).context("send to the pidfd socket");
    path.map(connect).transpose()
}

/// Makes room for the limits that process `pid` sets later, in a user namespace, where it may not raise them. If that is not
/// permitted, it says so then.
pub fn raise_hard_limits(pid: i32, limits: &[Rlimit]) {
    for (resource, _, hard) in limits {
        if let Ok((soft, own)) = rlimit(*resource)
            && *hard > own
        {
            let _ = set_rlimit(pid, *resource, soft, *hard);
        }
    }
}

/// What the child can say, besides that it failed.
pub enum ChildEvent {
    /// The terminal's end for the parent.
    Master(OwnedFd),
    /// The process that goes on in the child's place.
    Successor(OwnedFd),
    /// It waits there for [`Child::go_on`].
    Reached(Point),
    /// Its filter hands calls over on this descriptor of its. It waits for [`Child::go_on`], and nothing is left after that but
    /// the program's start.
    Listening(i32),
    /// Nothing is left but the program's start.
    Ready,
    /// It has become the program, or something killed it after it had.
    Ended,
}

/// The parent's view of the child until it is the program.
pub struct Child<'a> {
    pub socket: BorrowedFd<'a>,
    /// Signals that ask this process to end: it is not yet responsible for a container.
    pub interrupts: SignalQueue,
    pub init: &'a Process,
    /// The container's cgroup, if it has one of its own.
    pub cgroup: Option<&'a Path>,
    /// Whether it may be frozen for as long as somebody likes, and the child with it.
    pub may_stand_still: bool,
    /// What the kernel had counted there before the child was born; `None` if nobody has looked.
    pub earlier_ooms: Option<OomCounts>,
    /// What is counted there, if that may be gone as soon as the child is.
    pub oom_files: Option<&'a OomFiles>,
    pub program: &'a Program,
}

/// What a filter has to do with a program that did not start.
const FILTER_HINT: &str = "the seccomp profile must allow execve";

/// What it takes to watch over a process until it is the program.
pub struct Watch<'a> {
    pub socket: BorrowedFd<'a>,
    pub signals: &'a Signals,
    pub cgroup: Option<&'a Path>,
    pub may_stand_still: bool,
    pub earlier_ooms: Option<OomCounts>,
    pub oom_files: Option<&'a OomFiles>,
    pub program: &'a Program,
}

impl<'a> Watch<'a> {
    pub fn over<'b>(&self, init: &'b Process) -> Result<Child<'b>>
    where
        'a: 'b,
    {
        Ok(Child {
            socket: self.socket,
            interrupts: self.signals.interrupts()?,
            init,
            cgroup: self.cgroup,
            may_stand_still: self.may_stand_still,
            earlier_ooms: self.earlier_ooms,
            oom_files: self.oom_files,
            program: self.program,
        })
    }
}

/// How long the child may be silent before somebody asks why.
const SILENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

impl Child<'_> {
    pub fn await_master(&self) -> Result<OwnedFd> {
        match self.listen()? {
            ChildEvent::Master(master) => Ok(master),
            _ => Err(self.ended_before("setting up its terminal")),
        }
    }

    /// Waits until the child is at `point`, where it waits for [`Child::go_on`].
    pub fn await_point(&self, point: Point) -> Result<()> {
        match self.listen()? {
            ChildEvent::Reached(reached) if reached == point => Ok(()),
            ChildEvent::Ended => Err(self.ended_before("it was ready")),
            _ => bail!("unexpected message from the init process"),
        }
    }

    /// Waits until nothing is left but the program's start. The child waits for [`Child::go_on`].
    pub fn await_ready(&self) -> Result<()> {
        match self.listen()? {
            ChildEvent::Ready => Ok(()),
            ChildEvent::Ended => Err(self.ended_before("it could be started")),
            _ => bail!("unexpected message from the init process"),
        }
    }

    /// Waits until the program has begun.
    pub fn await_start(&self) -> Result<()> {
        match self.listen()? {
            ChildEvent::Ended => Ok(()),
            _ => bail!("unexpected message from the new process"),
        }
    }

    /// Waits until the child has loaded a filter that hands calls over; gives the number of its descriptor for them. The child
    /// waits for [`Child::go_on`].
    pub fn await_listener(&self) -> Result<i32> {
        match self.listen()? {
            ChildEvent::Listening(number) => Ok(number),
            ChildEvent::Ended => Err(self.ended_before("it was ready")),
            _ => bail!("unexpected message from the init process"),
        }
    }

    /// Waits for the process that goes on in the child's place, and lets it.
    pub fn await_successor(&self) -> Result<Process> {
        match self.listen()? {
            ChildEvent::Successor(pidfd) => {
                let pid = pid_of(pidfd.as_fd()).context("inspect the init process")?;
                self.go_on()?;
                Ok(Process { pid, pidfd, keep: false })
            }
            ChildEvent::Ended => Err(self.ended_before("it was ready")),
            _ => bail!("unexpected message from the init process"),
        }
    }

    /// Lets the child go on from where it waits. If it has failed meanwhile, it says so to whoever listens next.
    ///
    /// # Errors
    /// If it cannot be told: it would wait for ever, and whoever listens to it as well.
    pub fn go_on(&self) -> Result<()> {
        let send = || rustix::net::send(self.socket, b"g", SendFlags::NOSIGNAL);
        match rustix::io::retry_on_intr(send) {
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(errno) => Err(errno).context("resume the init process"),
        }
    }

    /// Waits for what the child says next.
    ///
    /// # Errors
    /// The child's failure as a sentence; a signal that asks this process to end.
    pub fn listen(&self) -> Result<ChildEvent> {
        let mut said = Vec::new();
        loop {
            self.wait()?;
            let mut bytes = [0; protocol::LONGEST];
            let (length, descriptor) =
                protocol::receive(self.socket, &mut bytes).context("receive from the init process")?;
            let text = bytes.get(..length).unwrap_or_default();
            // Before any other text is looked at: it is a path and can be as long as a message.
            match descriptor {
                Some(successor) if text == protocol::SUCCESSOR => {
                    return Ok(ChildEvent::Successor(successor));
                }
                Some(master) => return Ok(ChildEvent::Master(master)),
                None => {}
            }
            if let Some(words) = protocol::said(text) {
                said = words.to_vec();
                continue;
            }
            return match <[u8; protocol::SIZE]>::try_from(text).ok().and_then(Message::from_bytes) {
                Some(Message::Ready) => Ok(ChildEvent::Ready),
                Some(Message::Reached(point)) => Ok(ChildEvent::Reached(point)),
                Some(Message::Listening(number)) => {
                    Ok(ChildEvent::Listening(i32::try_from(number).context("receive from the init process")?))
                }
                Some(Message::Failed { step, errno, part }) => {
                    Err(self.program.explain(step, errno, part, &said))
                }
                None if length > 0 => bail!("unexpected message from the init process"),
                None => self.ended_early().map(|()| ChildEvent::Ended),
            };
        }
    }

    /// That the child, which has closed the socket and cannot be the program yet, ended before this, and why if that can be told.
    fn ended_before(&self, what: &str) -> anyhow::Error {
        let why = self.ended_early().err();
        why.unwrap_or_else(|| anyhow!("{} exited before {what}", self.who()))
    }

    /// # Errors
    /// If the process, which has closed the socket, ends without having become the program: something killed it, or its filter let
    /// it say nothing.
    fn ended_early(&self) -> Result<()> {
        let has_filter = self.program.has_filter();
        // Who exits has lost its executable before its descriptors, so one that has one has become the program; it is cheaper to
        // ask for. What a filter does to execve is no rare case.
        if !has_filter && fs::read_link(format!("/proc/{}/exe", self.init.pid)).is_ok() {
            return Ok(());
        }
        // Now, for it has not ended yet; who was killed for want of memory was counted before.
        let seen = self.oom_files.map(OomFiles::look);
        if !process_stat(self.init.pid)?.is_some_and(|stat| stat.never_executed) {
            return Ok(());
        }
        // It ends, but may not have yet.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = rustix::process::waitid(WaitId::PidFd(self.init.pidfd.as_fd()), options)
            .context("wait for the init process")?;
        let Some(signal) = status.map(|status| status.terminating_signal()) else { return Ok(()) };
        if !has_filter && signal.is_none() {
            return Ok(());
        }
        let who = self.who();
        let (ended, hint) = match signal {
            None => (format!("{who} failed without reporting a reason"), FILTER_HINT.to_owned()),
            // The second: nothing it could do was allowed, not even to exit.
            Some(signal @ (libc::SIGSYS | libc::SIGSEGV)) if has_filter => {
                (format!("{who} was killed by signal {signal}"), FILTER_HINT.to_owned())
            }
            Some(signal) => {
                let known = self.earlier_ooms;
                let shortage = match seen {
                    _ if signal != libc::SIGKILL => None,
                    Some(seen) => seen.and_then(|seen| seen.shortage(known.unwrap_or_default())),
                    None => self.cgroup.and_then(|path| cgroup::shortage(path, known.unwrap_or_default())),
                };
                let hint = match (shortage, known) {
                    (Some(shortage), Some(_)) => return Err(shortage.of_init().context(Stage::Alive)),
                    // The words are runc's.
                    (Some(shortage), None) => format!("possibly OOM-killed: {shortage}"),
                    (None, _) => self.killer(signal).to_owned(),
                };
                (format!("{who} was killed by signal {signal}"), hint)
            }
        };
        Err(anyhow!(ended).context(Hint("start the container's program".into(), hint)))
    }

    fn who(&self) -> &'static str {
        // Only of a container in the making it has been asked.
        if self.earlier_ooms.is_some() { "the init process" } else { "the new process" }
    }

    /// Who has ended it with this signal, if no kill for want of memory is counted.
    fn killer(&self, signal: i32) -> &'static str {
        // `exec` does not look before it is too late.
        if signal == libc::SIGKILL && self.is_stillborn() {
            return "killed by another process or by the kernel, which may kill processes cloned out of a \
                    cgroup that was ever killed with cgroup.kill";
        }
        let is_counted = || self.cgroup.and_then(cgroup::oom_counts).is_some();
        match signal != libc::SIGKILL || is_counted() {
            true => "killed by another process",
            false => "killed by another process or by the OOM killer",
        }
    }

    fn is_stillborn(&self) -> bool {
        process::was_killed_at_birth(self.init.pid).unwrap_or(false)
    }

    fn wait(&self) -> Result<()> {
        loop {
            let signal = self.interrupts.as_fd();
            let mut waiting = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&signal, PollFlags::IN)];
            let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut waiting, Some(&SILENCE)))
                .context("wait for the init process")?;
            let [news, interrupt] = &waiting;
            if !news.revents().is_empty() {
                return Ok(());
            }
            if !interrupt.revents().is_empty()
                && let Some(signal) = self.interrupts.take()?
            {
                bail!("interrupted by {signal} before the container was started");
            }
            // A cgroup above it can be frozen, and then the child never runs.
            if ready == 0
                && !self.may_stand_still
                && let Some(path) = self.cgroup
                && cgroup::stands_still(path)
            {
                bail!("container's cgroup unexpectedly frozen: {}", path.display());
            }
        }
    }
}
