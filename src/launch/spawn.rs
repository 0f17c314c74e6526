//! Cloning: the one place where a container's process is born, and what the parent does just around that.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result, anyhow};

use crate::cgroup::{Cgroup, OomCounts};
use crate::error::{Fault, Hint};
use crate::host::process::{self, Birth, Process, is_single_threaded};
use crate::plan::linux::namespaces::Join;
use crate::plan::process::Rlimit;
use crate::program::Program;
use crate::sys::Errno;
use crate::sys::process::{Cloned, clone3, rlimit, set_rlimit, setns};
use crate::{cgroup, init};
use std::os::fd::BorrowedFd;

/// Clones a process that performs `program` and says on `theirs` how far it is, with new namespaces of the kinds `new`
/// (`CLONE_NEW*`), into `cgroup` if one is given.
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

/// How a container's first process is to be born.
pub(super) struct Setting<'a> {
    /// The kinds of its new namespaces (`CLONE_NEW*`).
    pub(super) new: i32,
    /// A pid namespace that it is born into. It is fixed at birth, so this process asks for its children to be born there, and
    /// takes that back; pid_namespaces(7).
    pub(super) pid_namespace: Option<&'a (Join, OwnedFd)>,
    /// Whether it waits at birth for this process, and so may come to its cgroup later.
    pub(super) waits: bool,
    /// What the kernel had counted in its cgroup before.
    pub(super) earlier_ooms: OomCounts,
}

impl Setting<'_> {
    /// Clones the init process, or the intermediate before it, into `cgroup`, and says when it started, in clock ticks since the
    /// boot. One that waits at birth may come there later ([`Cgroup::attach`]). So does, and waits for that, what the kernel
    /// would kill there; [`Cgroup::attaches_late`] tells.
    pub(super) fn clone(
        &self,
        cgroup: &mut Cgroup,
        program: &mut Program,
        theirs: &OwnedFd,
    ) -> Result<(Process, u64)> {
        let init = self.clone_once(cgroup, program, theirs)?;
        let Birth { start, was_killed } = process::birth(init.pid)?;
        // Without memory it would end as soon.
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
        // An ordinary user may put processes into a cgroup only if a cgroup above both is theirs; cgroups(7). systemd may.
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
pub(super) fn require_joinable(pid_namespace: &(Join, OwnedFd)) -> Result<()> {
    leave(&enter(pid_namespace)?)
}

/// Makes room for the limits that process `pid` sets later, in a user namespace, where it may not raise them. If that is not
/// permitted, it says so then.
pub(super) fn raise_hard_limits(pid: i32, limits: &[Rlimit]) {
    for (resource, _, hard) in limits {
        if let Ok((soft, own)) = rlimit(*resource)
            && *hard > own
        {
            let _ = set_rlimit(pid, *resource, soft, *hard);
        }
    }
}
