//! Cloning a container's process, and what the parent does just around it. Nothing else clones one.

use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result, anyhow};

use crate::cgroup::{Cgroup, OomCounts};
use crate::error::{Fault, Hint};
use crate::host::log::Log;
use crate::host::process::{self, Birth, Process, is_single_threaded, socket_pair};
use crate::plan::linux::namespaces::Join;
use crate::plan::process::Rlimit;
use crate::program::Program;
use crate::sys::Errno;
use crate::sys::process::{Cloned, clone3, close_on_exec_from, rlimit, set_rlimit, setns};
use crate::{cgroup, init};

/// Prepares this process's descriptors for a clone that performs `program` and inherits `inherited` of them from
/// 3 on; returns the two ends of the conversation, the parent's first.
pub(super) fn connect(program: &mut Program, inherited: u32) -> Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socket_pair()?;
    program.close_all_but(theirs.as_fd(), inherited);
    // Descriptors that our caller left open are not for the container; those that are come first
    // (CVE-2024-21626).
    close_on_exec_from(inherited.saturating_add(3)).context("mark descriptors close-on-exec")?;
    Ok((ours, theirs))
}

/// Logs that process `pid` has been cloned and performs `program`.
pub(super) fn log_clone(log: &Log, pid: i32, program: &Program) {
    // runc's own tests look for these words, the names of the corresponding code in runc.
    log.debug(format_args!("nsexec container setup: one clone3 made process {pid}"));
    let steps = program.steps.len();
    log.debug(format_args!("child process in init(): it performs {steps} steps"));
}

/// Clones a process that performs `program` and reports on `theirs`, with new namespaces of the kinds `new`
/// (`CLONE_NEW*`), in `cgroup` if one is given.
///
/// # Errors
/// Those of clone3(2).
pub(super) fn clone_once(
    new: i32,
    cgroup: Option<BorrowedFd<'_>>,
    program: &Program,
    theirs: &OwnedFd,
) -> Result<Process, Errno> {
    debug_assert!(is_single_threaded(), "a lock that another thread holds would stay held in the child");
    match clone3(u64::from(new.unsigned_abs()), cgroup)? {
        Cloned::Child => init::perform(&program.steps, theirs.as_fd()),
        Cloned::Parent { pid, pidfd } => Ok(Process { pid, pidfd, keep: false }),
    }
}

/// How a container's init process is cloned.
pub(super) struct CloneOptions<'a> {
    /// The kinds of its new namespaces (`CLONE_NEW*`).
    pub(super) new: i32,
    /// A pid namespace to be born into. It is fixed at birth, so the parent joins it for its children and
    /// leaves it again; pid_namespaces(7).
    pub(super) pid_namespace: Option<&'a (Join, OwnedFd)>,
    /// Whether it waits for the parent after the clone, and so may be moved to its cgroup later.
    pub(super) waits: bool,
    /// The cgroup's OOM counters before the clone.
    pub(super) earlier_ooms: OomCounts,
}

impl CloneOptions<'_> {
    /// Clones the init process, or the intermediate before it, into `cgroup`; returns it with its start time
    /// in clock ticks since boot. A process that waits after the clone may be moved there later
    /// ([`Cgroup::attach`]). One that the kernel would kill there is cloned outside and waits for that;
    /// [`Cgroup::attaches_late`] tells.
    pub(super) fn clone(
        &self,
        cgroup: &mut Cgroup,
        program: &mut Program,
        theirs: &OwnedFd,
    ) -> Result<(Process, u64)> {
        let init = self.clone_once(cgroup, program, theirs)?;
        let Birth { start, was_killed } = process::birth(init.pid)?;
        // With too little memory the process would end just as early.
        let is_short =
            || cgroup.path().is_some_and(|path| cgroup::shortage(path, self.earlier_ooms).is_some());
        if !was_killed || is_short() {
            return Ok((init, start));
        }
        drop(init);
        cgroup.attach_late();
        program.wait_at_birth();
        let init = self.clone_once(cgroup, program, theirs)?;
        let start = process::start(init.pid)?;
        Ok((init, start))
    }

    fn clone_once(&self, cgroup: &mut Cgroup, program: &Program, theirs: &OwnedFd) -> Result<Process> {
        let own = self.pid_namespace.map(enter).transpose()?;
        let into = cgroup.fd().filter(|_| !cgroup.attaches_late());
        let mut cloned = clone_once(self.new, into, program, theirs);
        // An ordinary user may move processes into a cgroup only if a common ancestor cgroup is theirs;
        // cgroups(7). systemd may do so.
        if matches!(cloned, Err(Errno::ACCESS)) && self.waits && cgroup.isolate() {
            cloned = clone_once(self.new, None, program, theirs);
        }
        own.as_ref().map(leave).transpose()?;
        cloned.map_err(|errno| not_cloned(errno, cgroup))
    }
}

fn not_cloned(errno: Errno, cgroup: &Cgroup) -> anyhow::Error {
    let doing = match cgroup.path() {
        Some(path) => format!("clone into cgroup {}", path.display()),
        None => "clone".to_owned(),
    };
    match errno {
        Errno::BUSY => anyhow!(errno).context(Hint(
            doing,
            "the cgroup enables controllers for its children, so it cannot contain processes; choose \
             another cgroupsPath"
                .into(),
        )),
        Errno::AGAIN => anyhow!(errno).context(Hint(
            doing,
            "process limit reached: check pids.max of the cgroup and its parents, RLIMIT_NPROC and \
             kernel.pid_max"
                .into(),
        )),
        _ => anyhow!(errno).context(doing),
    }
}

/// Joins a pid namespace for this process's children; returns its own, for [`leave`].
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
/// If no process can be cloned into the pid namespace.
pub(super) fn require_joinable(pid_namespace: &(Join, OwnedFd)) -> Result<()> {
    leave(&enter(pid_namespace)?)
}

/// Raises the hard limits of process `pid` where its later limits need it: within a user namespace it may not
/// raise them itself. Failure is ignored here; setting the limit reports it.
pub(super) fn raise_hard_limits(pid: i32, limits: &[Rlimit]) {
    for (resource, _, hard) in limits {
        if let Ok((soft, own)) = rlimit(*resource) {
            if *hard > own {
                let _ = set_rlimit(pid, *resource, soft, *hard);
            }
        }
    }
}
