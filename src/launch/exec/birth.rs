//! The birth of the new process: in which cgroup, and what it is given on its way.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::cgroup::{Below, Destination};
use crate::container::state;
use crate::container::state::State;
use crate::error::{Fault, Pointer};
use crate::host::process::{Process, is_single_threaded};
use crate::init;
use crate::program::Program;
use crate::sys::Errno;
use crate::sys::process::{Cloned, clone3};

/// Clones into the container's cgroup, or into that of its init process: a container that runs containers has to move its
/// processes out of the cgroup that it hands controllers down from; cgroup-v2.rst § No Internal Process Constraint. If the kernel
/// would kill the process there, it waits at birth for being put into the one that is given back.
pub(super) fn clone(
    own: Result<Option<Destination>, Errno>,
    below: Option<&Below>,
    state: &State,
    program: &mut Program,
    theirs: &OwnedFd,
) -> Result<(Process, Option<Awaiting>)> {
    let path = state.cgroup();
    let open = |errno: Errno| {
        anyhow!(errno).context(format!(
            "can't open cgroup: {}",
            path.map(|path| path.display().to_string()).unwrap_or_default()
        ))
    };
    let mut destination = match (own, below) {
        (Ok(Some(own)), Some(below)) => Some(own.below(below)?),
        (Ok(None), Some(_)) => bail!("--cgroup: the container has no cgroup"),
        (Ok(own), None) => own,
        (Err(errno), Some(_)) => return Err(open(errno)),
        (Err(errno), None) if may_have_moved(errno) => Some(Destination::of_process(state.init_process_pid)?),
        (Err(errno), None) => return Err(open(errno)),
    };
    let is_named = below.is_some();
    let cloned = match clone_into(destination.as_ref(), program, theirs) {
        Err(errno) if !is_named && may_have_moved(errno) => {
            let actual = destination.insert(Destination::of_process(state.init_process_pid)?);
            clone_into(Some(actual), program, theirs).map_err(|errno| not_added(errno, Some(actual)))
        }
        // An ordinary user may put processes into a cgroup only if a cgroup above both is theirs; cgroups(7). systemd may. The
        // process waits before it becomes the program, in whichever cgroup it is.
        Err(Errno::ACCESS) if !is_named => match &state.systemd {
            Some(unit) => {
                destination = None;
                let process = clone_into(None, program, theirs).map_err(|errno| not_added(errno, None))?;
                unit.attach(process.pid)?;
                Ok(process)
            }
            None => Err(not_added(Errno::ACCESS, destination.as_ref())),
        },
        cloned => cloned.map_err(|errno| not_added(errno, destination.as_ref())),
    };
    let process = cloned?;
    // What became of another one, such as the init process, says nothing: it depends on the cgroup of whoever clones.
    match destination {
        Some(destination) if state::was_killed_at_birth(process.pid)? => {
            drop(process);
            program.wait_at_birth();
            let process = clone_into(None, program, theirs).map_err(|errno| not_added(errno, None))?;
            Ok((process, Some(Awaiting { destination, is_named })))
        }
        _ => Ok((process, None)),
    }
}

/// A cgroup that a process is to be put into, which waits for that.
pub(super) struct Awaiting {
    destination: Destination,
    /// Whether it was asked for, rather than being the container's own.
    is_named: bool,
}

impl Awaiting {
    /// Puts process `pid` there.
    pub(super) fn attach(&self, pid: i32, state: &State) -> Result<()> {
        match self.destination.attach(pid) {
            Err(errno) if !self.is_named && may_have_moved(errno) => {
                let actual = Destination::of_process(state.init_process_pid)?;
                actual.attach(pid).map_err(|errno| not_added(errno, Some(&actual)))
            }
            Err(Errno::ACCESS) if !self.is_named && state.systemd.is_some() => {
                state.systemd.as_ref().map_or(Ok(()), |unit| unit.attach(pid))
            }
            taken => taken.map_err(|errno| not_added(errno, Some(&self.destination))),
        }
    }
}

/// Whether the cgroup is one that holds no processes itself (any more).
fn may_have_moved(errno: Errno) -> bool {
    matches!(errno, Errno::BUSY | Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP)
}

fn not_added(errno: Errno, to: Option<&Destination>) -> anyhow::Error {
    match to {
        // In runc's words; there is no pid yet.
        Some(to) => anyhow!(errno).context(format!(
            "error adding pid of the new process to cgroups: clone into cgroup {}",
            to.path.display()
        )),
        None => anyhow!(errno).context("clone"),
    }
}

fn clone_into(cgroup: Option<&Destination>, program: &Program, theirs: &OwnedFd) -> Result<Process, Errno> {
    debug_assert!(is_single_threaded(), "a lock that another thread holds would stay held in the child");
    match clone3(0, cgroup.map(Destination::fd))? {
        Cloned::Child => init::perform(&program.steps, theirs.as_fd()),
        Cloned::Parent { pid, pidfd } => Ok(Process { pid, pidfd, keep: false }),
    }
}

/// The score of this process, while it has that of its child; proc_pid_oom_score_adj(5).
pub(super) struct OomScore {
    file: File,
    own: String,
}

impl OomScore {
    pub(super) fn lend(score: i32, at: &Pointer) -> Result<Self> {
        let path = "/proc/self/oom_score_adj";
        let own = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
        let file = File::options().write(true).open(path).with_context(|| format!("open {path}"))?;
        (&file).write_all(score.to_string().as_bytes()).with_context(|| Fault {
            pointer: at.field("oomScoreAdj"),
            message: format!("write {score} to {path}"),
            hint: (score < 0).then(|| "lowering it requires CAP_SYS_RESOURCE".to_owned()),
        })?;
        Ok(Self { file, own })
    }

    pub(super) fn take_back(mut self) -> Result<()> {
        self.file.write_all(self.own.as_bytes()).context("write to /proc/self/oom_score_adj")
    }
}
