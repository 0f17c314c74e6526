//! Checks everything before anything is made: whether kernel, bundle and options go together, and which
//! namespaces are joined.

use crate::plan::linux::namespaces::NamespacePlan;
use crate::sys::process::CLONE_NEWTIME;
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::user_namespace::{self, UserNamespace, require_privileges, require_user_namespace};
use super::{Cgroups, Request, Start, Switch};
use crate::bundle::Bundle;
use crate::cgroup::Driver;
use crate::error::{Fault, Pointer};
use crate::host::environment::SystemdInstance;
use crate::host::lsm;
use crate::host::lsm::Labels;
use crate::host::self_exe::Guard;
use crate::host::terminal::console_socket;
use crate::launch::inherited::{connect_pidfd_socket, require_inherited};
use crate::launch::seccomp_agent;
use crate::plan::linux::namespaces;
use crate::plan::linux::namespaces::{Join, word};
use crate::plan::{HostFacts, Plan};
use crate::sys::cred;
use crate::sys::cred::Sets;

/// What the checks found and decided. Nothing has been made.
pub(super) struct Checked {
    pub(super) plan: Plan,
    /// The runtime's capabilities.
    pub(super) own: Sets,
    pub(super) user: UserNamespace,
    /// The namespaces to join, opened.
    pub(super) join: Vec<(Join, OwnedFd)>,
    pub(super) labels: Labels,
    pub(super) console_socket: Option<OwnedFd>,
    pub(super) pidfd_socket: Option<OwnedFd>,
    pub(super) agent: Option<seccomp_agent::Agent>,
    /// How many descriptors the program inherits, counted from 3.
    pub(super) inherited: u32,
    /// The runtime's protected executable, to be released before anything of the container can run.
    pub(super) executable: Guard,
    pub(super) warnings: Vec<String>,
}

/// Checks everything that can be wrong before anything is made, and makes the plan.
///
/// # Errors
/// If bundle or options are invalid, or this host cannot run the container.
pub(super) fn check(bundle: &Bundle, request: &Request<'_>) -> Result<Checked> {
    require_kernel()?;
    let namespaces = Plan::namespaces(&bundle.spec)?;
    let inherited = request.environment.listen_fds.saturating_add(request.preserve_fds);
    let mut executable = request.executable.take();
    require_inherited(inherited, &executable)?;
    // Processes in the user namespace could inspect the one that is sent there to read its id maps.
    if namespaces.joined(libc::CLONE_NEWUSER).is_some() {
        executable.release();
    }
    let own = cred::capabilities().context("look up the runtime's capabilities")?;
    require_user_namespace(&namespaces, own)?;
    let mut join = open_namespaces(&namespaces)?;
    let host = HostFacts {
        driver: driver(request),
        has_cgroup: request.cgroups != Cgroups::Disabled,
        capabilities: Some(own),
        joined_user: user_namespace::look(&join)?,
    };
    let plan = Plan::new(bundle, request.id.as_str(), namespaces, &host)?;
    // Before anything is cloned. If no other process sees the init process, this happens later, in parallel
    // to it.
    if !is_born_alone(&plan) {
        executable.release();
    }
    require_privileges(&plan, own)?;
    require_unchanged(&plan, &join)?;
    // Not the runtime's own user namespace.
    join.retain(|(join, _)| plan.namespaces.joined(join.kind).is_some());
    let user = UserNamespace::of(&plan, &host.joined_user, own)?;
    require_safe_switch(&plan, request.switch)?;
    let labels = lsm::labels(plan.process.labels(), &Pointer::root().field("process"))?;
    if let Some(label) = &plan.label {
        lsm::require_selinux(&label.context, &Pointer::root().field("linux").field("mountLabel"))?;
    }
    require_time_namespaces(&plan.namespaces)?;
    let stays = request.program == Start::Attached;
    Ok(Checked {
        labels,
        console_socket: console_socket::plan(request.console_socket, plan.process.terminal, stays)?,
        pidfd_socket: connect_pidfd_socket(request.pidfd_socket)?,
        agent: plan.seccomp.as_ref().map(seccomp_agent::prepare).transpose()?.flatten(),
        warnings: warnings(bundle, &plan),
        plan,
        own,
        user,
        join,
        inherited,
        executable,
    })
}

fn driver(request: &Request<'_>) -> Driver {
    match (request.cgroups, request.rootless.is_enabled()) {
        (Cgroups::Systemd, false) => Driver::Systemd(SystemdInstance::System),
        (Cgroups::Systemd, true) => Driver::Systemd(SystemdInstance::User),
        (Cgroups::Own | Cgroups::Disabled, _) => Driver::Cgroupfs,
    }
}

/// Deviations from the bundle that are not errors.
fn warnings(bundle: &Bundle, plan: &Plan) -> Vec<String> {
    let unknown = &bundle.unknown_capabilities;
    let unknown =
        (!unknown.is_empty()).then(|| format!("ignoring unknown capabilities: {}", unknown.join(", ")));
    let mounts = plan.mounts.warnings.iter().cloned();
    let rules = plan.cgroup.warnings.iter().cloned();
    unknown.into_iter().chain(plan.process.capabilities.warnings()).chain(mounts).chain(rules).collect()
}

/// Whether the cloned processes run nothing else and are invisible to other containers until the program
/// starts: the pid namespace is new, no user namespace with processes is joined, and no hook runs before the
/// root switch.
fn is_born_alone(plan: &Plan) -> bool {
    let joins_user = plan.namespaces.join.iter().any(|join| join.kind == libc::CLONE_NEWUSER);
    plan.namespaces.is_new(libc::CLONE_NEWPID) && !joins_user && !plan.hooks.precede_the_switch()
}

/// # Errors
/// If `--no-pivot` is combined with private propagation. Without pivot_root(2) the host's mounts stay below
/// the container's root; in a private tree they stay even when the host unmounts them. runc refuses this,
/// too.
fn require_safe_switch(plan: &Plan, switch: Switch) -> Result<()> {
    match (switch, plan.propagation) {
        (Switch::Move, Some((libc::MS_PRIVATE | libc::MS_UNBINDABLE, _))) => {
            let at = Pointer::root().field("linux").field("rootfsPropagation");
            let message = "a rootfsPropagation of [r]private is not safe without pivot_root";
            Err(at.error_with_hint(message, "remove --no-pivot, or use \"rslave\""))
        }
        _ => Ok(()),
    }
}

/// # Errors
/// If the kernel is older than 5.14: it lacks mount_setattr(2), cgroup.kill and others without replacement
/// here.
fn require_kernel() -> Result<()> {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next().unwrap_or(0)) {
        (Some(major), minor) if (major, minor) < (5, 14) => {
            bail!("Linux {release} is too old: 5.14 or newer is required")
        }
        _ => Ok(()),
    }
}

fn open_namespaces(plan: &NamespacePlan) -> Result<Vec<(Join, OwnedFd)>> {
    let open = |join: &Join| {
        let file = fs::File::open(&join.path).with_context(|| Fault {
            pointer: join.at(),
            message: format!("open {} namespace {:?}", word(join.kind), join.path),
            hint: None,
        })?;
        Ok((join.clone(), file.into()))
    };
    plan.join.iter().map(open).collect()
}

/// # Errors
/// If a namespace to join is the runtime's own and the container's settings would change the host.
fn require_unchanged(plan: &Plan, join: &[(Join, OwnedFd)]) -> Result<()> {
    for (join, namespace) in join {
        if let Some(changed) = plan.changes(join.kind) {
            if is_own(namespace.as_fd(), join.kind) {
                let message = format!("{:?} is the runtime's own {} namespace", join.path, word(join.kind));
                return Err(join
                    .at()
                    .error_with_hint(message, format_args!("{changed} would affect the host")));
            }
        }
    }
    Ok(())
}

pub(super) fn is_own(namespace: BorrowedFd<'_>, kind: i32) -> bool {
    let Some((_, _, link)) = namespaces::LINKS.iter().find(|(other, _, _)| *other == kind) else {
        return false;
    };
    namespaces::is_at(namespace, Path::new(&format!("/proc/self/ns/{link}")))
}

/// # Errors
/// If a new time namespace is requested and the kernel has none.
fn require_time_namespaces(namespaces: &NamespacePlan) -> Result<()> {
    if namespaces.is_new(CLONE_NEWTIME) && fs::symlink_metadata("/proc/self/timens_offsets").is_err() {
        let at = Pointer::root().field("linux").field("namespaces");
        return Err(at.error("time namespaces aren't enabled in the kernel"));
    }
    Ok(())
}
