//! Clones the new process into its cgroup and namespaces.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result, anyhow, bail};

use super::preflight::{Checked, OomScoreOf};
use super::{Request, WhenPaused};
use crate::cgroup::{Below, Destination};
use crate::container::Container;
use crate::container::state::State;
use crate::error::{Fault, Pointer};
use crate::host::log::Log;
use crate::host::process::{self, Process, process_stat};
use crate::launch::conversation::{Conversation, FailureContext};
use crate::launch::spawn;
use crate::launch::spawn::clone_once;
use crate::plan::process::cpu_list::Mask;
use crate::program::Program;
use crate::sys::Errno;
use crate::sys::process::{set_dumpable, setns};
use crate::sys::scheduling::set_affinity;

/// Clones the process into its cgroup and into the namespaces that the parent enters.
pub(super) fn clone_process<'a>(
    container: &Container,
    request: &mut Request<'_>,
    checked: &mut Checked,
    program: &'a mut Program,
) -> Result<(Conversation<'a>, Option<PendingAttach>)> {
    let state = &container.state;
    let (ours, theirs) = spawn::connect(program, request.preserve_fds)?;
    // Before the process enters the container's cgroup; config.md § Linux Process.
    if let Some(processors) = checked.initial_affinity.take() {
        be_on(processors, &checked.at, request.log)?;
    }
    let lent = match checked.oom_score {
        OomScoreOf::Parent(score) => Some(OomScore::lend(score, &checked.at)?),
        _ => None,
    };
    // The container's processes are running already and can see the new one; CVE-2019-5736.
    request.executable.release();
    enter_for_child(checked.init.as_fd(), checked.joined_by_parent)?;
    let own_cgroup = std::mem::replace(&mut checked.own_cgroup, Ok(None));
    let born = clone(own_cgroup, request.cgroup.as_ref(), state, program, &theirs);
    let (process, awaiting) = born.map_err(|error| match is_too_late(&error, state) {
        true => anyhow!("cannot exec in a stopped container"),
        false => error,
    })?;
    lent.map(OomScore::take_back).transpose()?;
    drop(theirs);
    spawn::log_clone(request.log, process.pid, program);
    let context = FailureContext {
        cgroup: checked.cgroup.take(),
        // With `--ignore-paused` the caller is prepared to wait.
        may_stay_frozen: request.when_paused == WhenPaused::Wait,
        ..FailureContext::default()
    };
    let child = Conversation::new(process, ours, request.signals, program, context)?;
    Ok((child, awaiting))
}

/// Restricts this process to `processors` from now on.
fn be_on(processors: Mask, at: &Pointer, log: &Log) -> Result<()> {
    let words = processors.into_words();
    log.debug(format_args!("nsexec: affinity: {:#x}", words.first().copied().unwrap_or(0)));
    set_affinity(&words).with_context(|| Fault {
        pointer: at.field("execCPUAffinity").field("initial"),
        message: "set the CPU affinity".into(),
        hint: None,
    })
}

/// Joins the namespaces of `kinds` of the container's init process on behalf of this process's one child.
fn enter_for_child(init: BorrowedFd<'_>, kinds: i32) -> Result<()> {
    if kinds & libc::CLONE_NEWUSER != 0 {
        // Otherwise root in the container could inspect this process if it sees it; CVE-2016-9962.
        set_dumpable(false).context("make this process non-dumpable")?;
    }
    if kinds == 0 {
        return Ok(());
    }
    setns(init, kinds).map_err(|errno| match errno {
        Errno::SRCH => anyhow!("cannot exec in a stopped container"),
        errno => anyhow!(errno).context("join the container's pid namespace"),
    })
}

/// Whether the clone failed because the init process is ending: its pid namespace then takes no new process,
/// which the kernel reports as ENOMEM; pid_namespaces(7).
fn is_too_late(error: &anyhow::Error, state: &State) -> bool {
    let pid = state.init_process_pid;
    let is_ending = || process_stat(pid)?.map_or(Ok(true), |stat| stat.is_dying(pid));
    error.root_cause().downcast_ref() == Some(&Errno::NOMEM) && is_ending().unwrap_or(false)
}

/// Clones into the container's cgroup, or into that of its init process: a container that itself runs
/// containers must move its processes out of a cgroup whose controllers it delegates; cgroup-v2.rst § No
/// Internal Process Constraint. If the kernel would kill the process there, it is cloned outside, waits, and
/// the returned [`PendingAttach`] moves it in.
fn clone(
    own: Result<Option<Destination>, Errno>,
    below: Option<&Below>,
    state: &State,
    program: &mut Program,
    theirs: &OwnedFd,
) -> Result<(Process, Option<PendingAttach>)> {
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
        // An ordinary user may move processes into a cgroup only if a common ancestor cgroup is theirs;
        // cgroups(7). systemd may do so. The process waits before it becomes the program, in whichever cgroup
        // it is.
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
    // Asks about this process only. The fate of others, such as the init process, tells nothing: it depends
    // on the cgroup that they were cloned from.
    match destination {
        Some(destination) if process::birth(process.pid)?.was_killed => {
            drop(process);
            program.wait_at_birth();
            let process = clone_into(None, program, theirs).map_err(|errno| not_added(errno, None))?;
            Ok((process, Some(PendingAttach { destination, is_named })))
        }
        _ => Ok((process, None)),
    }
}

/// A cgroup that a waiting process is still to be moved into.
pub(super) struct PendingAttach {
    destination: Destination,
    /// Whether it was given by `--cgroup`, rather than being the container's own.
    is_named: bool,
}

impl PendingAttach {
    /// Moves process `pid` there.
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

/// Whether the error means that the cgroup can hold no processes itself, or no longer exists.
fn may_have_moved(errno: Errno) -> bool {
    matches!(errno, Errno::BUSY | Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP)
}

fn not_added(errno: Errno, to: Option<&Destination>) -> anyhow::Error {
    match to {
        // runc's wording; there is no pid yet.
        Some(to) => anyhow!(errno).context(format!(
            "error adding pid of the new process to cgroups: clone into cgroup {}",
            to.path.display()
        )),
        None => anyhow!(errno).context("clone"),
    }
}

fn clone_into(cgroup: Option<&Destination>, program: &Program, theirs: &OwnedFd) -> Result<Process, Errno> {
    clone_once(0, cgroup.map(Destination::fd), program, theirs)
}

/// The parent's own `oom_score_adj`, saved while it has the child's; proc_pid_oom_score_adj(5).
struct OomScore {
    file: File,
    own: String,
}

impl OomScore {
    fn lend(score: i32, at: &Pointer) -> Result<Self> {
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

    fn take_back(mut self) -> Result<()> {
        self.file.write_all(self.own.as_bytes()).context("write to /proc/self/oom_score_adj")
    }
}
