//! Checks everything that can be wrong before anything is done.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::namespaces::{ids_inside, is_privileged, joined_by_parent, kinds_to_join};
use super::{Request, WhenPaused};
use crate::cgroup::Destination;
use crate::container::state::State;
use crate::container::{Container, filter};
use crate::error::Pointer;
use crate::host::terminal::console_socket;
use crate::host::{lsm, path};
use crate::launch::inherited::{connect_pidfd_socket, require_inherited};
use crate::launch::seccomp_agent;
use crate::launch::seccomp_agent::Agent;
use crate::launch::spawn::raise_hard_limits;
use crate::plan::process::cpu_list::Mask;
use crate::plan::{ExecPlan, Wanted};
use crate::program::ExecInputs;
use crate::sys::cred::Sets;
use crate::sys::{Errno, cred};

/// What the checks found and decided.
pub(super) struct Checked {
    /// The container's first process, as a pidfd.
    pub(super) init: OwnedFd,
    /// The path of the container's cgroup, if it has one of its own.
    pub(super) cgroup: Option<PathBuf>,
    /// That cgroup, if it can be opened.
    pub(super) own_cgroup: Result<Option<Destination>, Errno>,
    /// The namespaces that the parent enters itself (`CLONE_NEW*`).
    pub(super) joined_by_parent: i32,
    /// Whether the cloned process is an intermediate that clones a successor, which becomes the program.
    pub(super) has_successor: bool,
    pub(super) pidfd_socket: Option<OwnedFd>,
    pub(super) agent: Option<Agent>,
    pub(super) relays_terminal: bool,
    /// Whose score is set: before the clone or after it.
    pub(super) oom_score: OomScoreOf,
    /// Where the process is described; errors point there.
    pub(super) at: Pointer,
    /// The CPUs that the process runs on until the program starts.
    pub(super) initial_affinity: Option<Mask>,
    pub(super) warnings: Vec<String>,
}

/// Whose `oom_score_adj` is set. An ordinary user may not write that of a non-dumpable process, so there the
/// child inherits it from the parent.
#[derive(Clone, Copy, Debug)]
pub(super) enum OomScoreOf {
    Nobody,
    /// This process, until its child has been cloned.
    Parent(i32),
    Child(i32),
}

/// Checks the request and decides how the process is started.
///
/// # Errors
/// If the request is invalid, the container's state does not allow it, or this host cannot do it.
pub(super) fn check(
    container: &Container,
    wanted: Wanted,
    request: &Request<'_>,
) -> Result<(Checked, ExecPlan, ExecInputs)> {
    let state = &container.state;
    let (init, cgroup) = require_running(container, request)?;
    let (cgroup, own_cgroup) = cgroup;
    let kinds = kinds_to_join(state)?;
    let own = cred::capabilities().context("look up the runtime's capabilities")?;
    let joins_user = kinds & libc::CLONE_NEWUSER != 0;
    // In a user namespace processes can have all capabilities but cannot raise their hard limits, so the
    // parent raises its own first and the new process inherits them.
    let plan = ExecPlan::new(&container.excerpt()?, wanted, Some(own).filter(|_| !joins_user))?;
    if joins_user {
        raise_hard_limits(0, &plan.process.rlimits);
    }
    let ids = joins_user.then(|| ids_inside(&plan, state.init_process_pid)).transpose()?;
    let labels = lsm::labels(plan.process.labels(), &plan.at)?;
    let warnings = warnings(&plan);
    let console_socket = console_socket::plan(request.console_socket, plan.process.terminal, request.stays)?;
    let pidfd_socket = connect_pidfd_socket(request.pidfd_socket)?;
    require_inherited(request.preserve_fds, &request.executable)?;
    let filter = filter::load(container.directory())?;
    let agent = filter.as_ref().map(seccomp_agent::prepare).transpose()?.flatten();
    let has_successor = has_successor(container, &plan, kinds, own)?;
    let joined_by_parent = if has_successor { 0 } else { joined_by_parent(kinds, own) };
    let inputs = ExecInputs {
        init: init.try_clone().context("duplicate the pidfd of the init process")?,
        kinds: kinds & !joined_by_parent,
        has_successor,
        ids,
        in_user_namespace: state.namespaces & libc::CLONE_NEWUSER != 0,
        keyring: state.keyring.then(|| CString::new(State::keyring_name(&state.id))).transpose()?,
        rootfs: rootfs(state)?,
        console_socket,
        labels,
        filter,
        inherited: request.preserve_fds,
    };
    let checked = Checked {
        init,
        cgroup,
        own_cgroup,
        joined_by_parent,
        has_successor,
        pidfd_socket,
        agent,
        relays_terminal: plan.process.terminal && request.stays,
        oom_score: match (plan.process.oom_score_adj, is_privileged(own)) {
            (None, _) => OomScoreOf::Nobody,
            (Some(score), false) => OomScoreOf::Parent(score),
            (Some(score), true) => OomScoreOf::Child(score),
        },
        at: plan.at.clone(),
        initial_affinity: plan.process.affinity.initial.clone(),
        warnings,
    };
    Ok((checked, plan, inputs))
}

/// The rootfs of a container without a mount namespace: a process that joins it would otherwise keep its own
/// root directory.
fn rootfs(state: &State) -> Result<Option<CString>> {
    match state.namespaces & libc::CLONE_NEWNS {
        0 => path::c_string(Path::new(&state.rootfs), &Pointer::root()).map(Some),
        _ => Ok(None),
    }
}

/// Returns the init process and the container's cgroup, if a process can be added now.
fn require_running(container: &Container, request: &Request<'_>) -> Result<(OwnedFd, OwnCgroup)> {
    let state = &container.state;
    let Some(init) = container.init()? else { bail!("cannot exec in a stopped container") };
    if state.creating {
        bail!("cannot exec in a container that is still being created");
    }
    let cgroup = own_cgroup(state);
    if request.when_paused == WhenPaused::Refuse && matches!(&cgroup.1, Ok(Some(own)) if own.is_frozen()) {
        bail!("cannot exec in a paused container (use --ignore-paused to override)");
    }
    Ok((init, cgroup))
}

/// The path of the container's cgroup, and the cgroup.
type OwnCgroup = (Option<PathBuf>, Result<Option<Destination>, Errno>);

/// The container's own cgroup. A cgroup that has since disappeared is not an error yet; see `birth.rs`.
fn own_cgroup(state: &State) -> OwnCgroup {
    let path = state.cgroup().map(Path::to_owned);
    let opened = match state.recorded_cgroup() {
        Some(_) if path.is_none() => Err(Errno::NOENT),
        _ => path.as_deref().map(Destination::of_container).transpose(),
    };
    (path, opened)
}

/// Whether the process must be cloned late, when its intermediate is already at the container's root.
///
/// The new process is visible as soon as it is in the container's pid namespace. This is for cases where a
/// process there could follow its /proc links into the host's tree (CVE-2016-9962). Within a user namespace
/// no process may access one that comes from outside.
fn has_successor(container: &Container, plan: &ExecPlan, kinds: i32, own: Sets) -> Result<bool> {
    let may_trace = container.may_trace(plan.process.capabilities.may_trace())?;
    let joins = kinds & (libc::CLONE_NEWPID | libc::CLONE_NEWUSER);
    Ok(may_trace && joins == libc::CLONE_NEWPID && is_privileged(own))
}

/// Deviations from the request that are not errors.
fn warnings(plan: &ExecPlan) -> Vec<String> {
    let unknown = &plan.unknown_capabilities;
    let unknown =
        (!unknown.is_empty()).then(|| format!("ignoring unknown capabilities: {}", unknown.join(", ")));
    unknown.into_iter().chain(plan.process.capabilities.warnings()).collect()
}
