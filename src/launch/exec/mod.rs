//! `exec`: one more process for a container. Everything is prepared, then cloned, as for the container's first process, of
//! which this one gets the namespaces and the cgroup.

mod birth;
mod namespaces;

use crate::launch::seccomp_agent;
use std::ffi::CString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};

use self::birth::{OomScore, clone};
use self::namespaces::{ids_inside, is_privileged, kinds_to_join, parents_kinds};
use crate::cgroup::{Below, Destination};
use crate::container::state::{State, Status};
use crate::container::{Container, PidFile};
use crate::error::{Fault, Pointer};
use crate::host::log::Log;
use crate::host::process::process_stat;
use crate::host::self_exe::Guard;
use crate::host::signals::Signals;
use crate::host::terminal::{Terminal, console_socket};
use crate::host::{lsm, path};
use crate::init::step::Point;
use crate::launch::child;
use crate::launch::child::Watch;
use crate::plan::{ExecPlan, Wanted};
use crate::program::{ExecInputs, Program};
use crate::sys::process::{close_on_exec_from, set_dumpable, setns};
use crate::sys::scheduling::set_affinity;
use crate::sys::{Errno, cred};

/// What the caller of `exec` asked for.
#[derive(Debug)]
pub struct Request<'a> {
    pub wanted: Wanted,
    /// Whether this process stays with the new one.
    pub stays: bool,
    pub pid_file: Option<&'a Path>,
    pub console_socket: Option<&'a Path>,
    /// Where a descriptor of the new process goes: one message with the text `setns`, as runc sends it.
    pub pidfd_socket: Option<&'a Path>,
    /// How many descriptors from 3 on the program inherits.
    pub preserve_fds: u32,
    /// Below the container's cgroup. `None`: there, or where its first process is by now.
    pub cgroup: Option<Below>,
    pub when_paused: WhenPaused,
    pub signals: &'a Signals,
    pub log: &'a Log,
    /// To be released before the new process is born.
    pub executable: Guard,
}

/// `--ignore-paused` or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenPaused {
    Refuse,
    /// The process begins when the container goes on.
    Wait,
}

/// A process that has been added.
#[derive(Debug)]
pub struct Added {
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// If it has one and this process stays with it.
    pub terminal: Option<Terminal>,
}

/// Starts a process in `container`.
///
/// # Errors
/// The process is gone when it returns one.
pub fn exec(container: &Container, mut request: Request<'_>) -> Result<Added> {
    let state = &container.state;
    let Some(init) = container.init()? else { bail!("cannot exec in a stopped container") };
    if state.creating {
        bail!("cannot exec in a container that is still being created");
    }
    let cgroup = state.cgroup();
    // It may have gone where nobody looks after it; see `clone`.
    let own_cgroup = match state.recorded_cgroup() {
        Some(_) if cgroup.is_none() => Err(Errno::NOENT),
        _ => cgroup.map(Destination::of_container).transpose(),
    };
    if request.when_paused == WhenPaused::Refuse && matches!(&own_cgroup, Ok(Some(own)) if own.is_frozen()) {
        bail!("cannot exec in a paused container (use --ignore-paused to override)");
    }

    let kinds = kinds_to_join(state)?;
    let mut plan = ExecPlan::new(&container.excerpt()?, request.wanted)?;
    let own = cred::capabilities().context("look up the runtime's capabilities")?;
    let ids = match kinds & libc::CLONE_NEWUSER {
        0 => {
            plan.process.capabilities.limit_to(own);
            None
        }
        // There its processes can have all capabilities, but cannot raise their limits: the new one is born with room for them.
        _ => {
            child::raise_hard_limits(0, &plan.process.rlimits);
            Some(ids_inside(&plan, state.init_process_pid)?)
        }
    };
    let labels = lsm::labels(plan.process.labels(), &plan.at)?;
    let warnings = warnings(&plan);
    let console_socket = console_socket::plan(request.console_socket, plan.process.terminal, request.stays)?;
    let pidfd_socket = child::connect_pidfd_socket(request.pidfd_socket)?;
    child::require_inherited(request.preserve_fds, &request.executable)?;
    let filter = crate::container::filter::load(container.directory())?;
    let agent = filter.as_ref().map(seccomp_agent::prepare).transpose()?.flatten();
    let relays_terminal = plan.process.terminal && request.stays;
    let oom_score_adj = plan.process.oom_score_adj;
    let at = plan.at.clone();
    let initial_affinity = plan.process.affinity.initial.clone();

    // The new process is seen as soon as it is born into the container's pid namespace, so where somebody there could follow its
    // links to the host's tree in /proc it is born when it is at the container's root; CVE-2016-9962. In a user namespace nobody
    // is let at a process that comes from outside.
    let may_trace = container.may_trace(plan.process.capabilities.may_trace())?;
    let is_succeeded = may_trace
        && kinds & (libc::CLONE_NEWPID | libc::CLONE_NEWUSER) == libc::CLONE_NEWPID
        && is_privileged(own);
    let ours_kinds = if is_succeeded { 0 } else { parents_kinds(kinds, own) };
    let wiring = ExecInputs {
        init: init.try_clone().context("duplicate the pidfd of the init process")?,
        kinds: kinds & !ours_kinds,
        is_succeeded,
        ids,
        in_user_namespace: state.namespaces & libc::CLONE_NEWUSER != 0,
        keyring: state.keyring.then(|| CString::new(State::keyring_name(&state.id))).transpose()?,
        // Whichever mount namespace it is in, without one of its own the rootfs is not the root there.
        rootfs: match state.namespaces & libc::CLONE_NEWNS {
            0 => Some(path::c_string(Path::new(&state.rootfs), &Pointer::root())?),
            _ => None,
        },
        console_socket,
        labels,
        filter,
        inherited: request.preserve_fds,
    };
    let mut program = Program::exec(plan, wiring)?;

    let (ours, theirs) = crate::host::process::socket_pair()?;
    program.close_all_but(theirs.as_fd(), request.preserve_fds);
    // What our caller left open is not for the container; what is for it comes first (CVE-2024-21626).
    close_on_exec_from(request.preserve_fds.saturating_add(3)).context("mark descriptors close-on-exec")?;
    // Before the process is in the container's cgroup; config.md § Linux Process.
    if let Some(mask) = initial_affinity {
        let words = mask.into_words();
        request.log.debug(format_args!("nsexec: affinity: {:#x}", words.first().copied().unwrap_or(0)));
        set_affinity(&words).with_context(|| Fault {
            pointer: at.field("execCPUAffinity").field("initial"),
            message: "set the CPU affinity".into(),
            hint: None,
        })?;
    }
    // An ordinary user is not let at the score of a process that is not to be looked into: it is born with the right one.
    let (before, after) = match is_privileged(own) {
        true => (None, oom_score_adj),
        false => (oom_score_adj, None),
    };
    let lent = before.map(|score| OomScore::lend(score, &at)).transpose()?;
    // The container's processes are there already and see the new one; CVE-2019-5736.
    request.executable.release();
    if ours_kinds & libc::CLONE_NEWUSER != 0 {
        // Whoever is root there could look into this process, if it sees it; CVE-2016-9962.
        set_dumpable(false).context("make this process non-dumpable")?;
    }
    if ours_kinds != 0 {
        // For the children of this process, of which there is only one.
        setns(init.as_fd(), ours_kinds).map_err(|errno| match errno {
            Errno::SRCH => anyhow!("cannot exec in a stopped container"),
            errno => anyhow!(errno).context("join the container's pid namespace"),
        })?;
    }
    let born = clone(own_cgroup, request.cgroup.as_ref(), state, &mut program, &theirs);
    let (mut process, awaiting) = born.map_err(|error| match is_too_late(&error, state) {
        true => anyhow!("cannot exec in a stopped container"),
        false => error,
    })?;
    lent.map(OomScore::take_back).transpose()?;
    drop(theirs);
    // The words in these that runc's own tests look for are the names of what does the same in runc.
    request.log.debug(format_args!("nsexec container setup: one clone3 made process {}", process.pid));
    let steps = program.steps.len();
    request.log.debug(format_args!("child process in init(): it performs {steps} steps"));
    let watch = Watch {
        socket: ours.as_fd(),
        signals: request.signals,
        cgroup,
        // Whoever waits for a paused container waits.
        may_stand_still: request.when_paused == WhenPaused::Wait,
        earlier_ooms: None,
        oom_files: None,
        program: &program,
    };
    if let Some(cgroup) = awaiting {
        let child = watch.over(&process)?;
        child.await_point(Point::Born)?;
        cgroup.attach(process.pid, state)?;
        child.go_on()?;
    }
    if is_succeeded {
        let successor = watch.over(&process)?.await_successor()?;
        process = successor;
    }
    process.introduce(pidfd_socket, b"setns")?;
    if let Some(rdt) = state.intel_rdt() {
        rdt.add(process.pid)?;
    }
    if let Some(score) = after {
        process.adjust_oom_score(score, at.field("oomScoreAdj"))?;
    }
    let child = watch.over(&process)?;
    // Before the program begins, so that it finds the size of the window, and nothing it writes is changed on the way.
    let terminal = match relays_terminal {
        true => Some(Terminal::attach(child.await_master()?)?),
        false => None,
    };
    child.go_on()?;
    if let Some(agent) = agent {
        let number = child.await_listener()?;
        let seen =
            seccomp_agent::Container { oci_version: &state.oci_version, state: state.text(Status::Running)? };
        agent.pass_on(process.pidfd.as_fd(), process.pid, number, &seen)?;
        child.go_on()?;
    }
    child.await_start()?;
    request.log.debug("setns_init: about to exec: the program has begun");
    let pid_file = request.pid_file.map(|path| PidFile::write(path, process.pid)).transpose()?;
    // Only now: the log of a failure holds the failure alone, because some readers take it for one record.
    warnings.iter().for_each(|warning| request.log.warning(warning));
    let pidfd = process.pidfd.try_clone().context("duplicate the pidfd of the new process")?;
    if let Some(pid_file) = pid_file {
        pid_file.keep();
    }
    process.keep = true;
    Ok(Added { pid: process.pid, pidfd, terminal })
}

/// Whether the process could not be born because the init process is ending: then its pid namespace takes no other, which the
/// kernel reports as a want of memory; pid_namespaces(7).
fn is_too_late(error: &anyhow::Error, state: &State) -> bool {
    let pid = state.init_process_pid;
    let is_ending = || process_stat(pid)?.map_or(Ok(true), |stat| stat.is_dying(pid));
    error.root_cause().downcast_ref() == Some(&Errno::NOMEM) && is_ending().unwrap_or(false)
}

/// What is not as it was asked for, and no reason to fail.
fn warnings(plan: &ExecPlan) -> Vec<String> {
    let unknown = &plan.unknown_capabilities;
    let unknown =
        (!unknown.is_empty()).then(|| format!("ignoring unknown capabilities: {}", unknown.join(", ")));
    unknown.into_iter().chain(plan.process.capabilities.warnings()).collect()
}
