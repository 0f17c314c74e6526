//! Makes everything that a container needs besides its process, in order, each under a guard that undoes it.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::net_devices::NetDevices;
use super::preflight::Checked;
use super::record::Record;
use super::user_namespace::UserNamespace;
use super::{Cgroups, Keyring, Request, Start, Switch, hooks, id_maps, trees};
use crate::cgroup::{Cgroup, OomCounts, OomFiles, ScopeRequest, intel_rdt};
use crate::container::NewContainer;
use crate::container::state::State;
use crate::error::{Pointer, Stage};
use crate::host::notify::NotifySocket;
use crate::host::self_exe::Guard;
use crate::host::{mountinfo, notify, path};
use crate::launch::seccomp_agent::Agent;
use crate::launch::spawn::require_joinable;
use crate::plan::Plan;
use crate::plan::hooks::HookPlan;
use crate::plan::linux::namespaces::Join;
use crate::plan::linux::seccomp::Filter;
use crate::program::{ChildInputs, NamespaceSetup, RootSwitch, User};

/// What has been made. Fields are undone on drop in this order, the reverse of that in which they were made.
pub(super) struct Held {
    pub(super) net_devices: NetDevices,
    pub(super) notify: Option<NotifySocket>,
    pub(super) rdt: Option<intel_rdt::Group>,
    pub(super) cgroup: Cgroup,
    pub(super) directory: NewContainer,
}

impl Held {
    /// Leaves cgroup and resctrl group alone: what has these names now may belong to another container.
    pub(super) fn leave(self) {
        self.cgroup.keep();
        if let Some(rdt) = self.rdt {
            rdt.keep();
        }
    }
}

/// What is left to do after the clone.
pub(super) struct Pending {
    pub(super) record: Record,
    pub(super) user: UserNamespace,
    pub(super) setup: NamespaceSetup,
    /// The pid namespace that the child is born into, if it joins one at once.
    pub(super) pid_namespace: Option<(Join, OwnedFd)>,
    /// Whether the child itself makes a network namespace.
    pub(super) makes_network: bool,
    pub(super) oom_score_adj: Option<i32>,
    pub(super) hooks: HookPlan,
    pub(super) filter: Option<Filter>,
    pub(super) agent: Option<Agent>,
    pub(super) pidfd_socket: Option<OwnedFd>,
    pub(super) relays_terminal: bool,
    pub(super) inherited: u32,
    /// When the process that was cloned first started, in clock ticks since boot.
    pub(super) start: u64,
    pub(super) executable: Guard,
    /// The cgroup's OOM counters before the clone.
    pub(super) earlier_ooms: OomCounts,
    pub(super) oom_files: Option<OomFiles>,
    pub(super) warnings: Vec<String>,
}

/// Makes everything that the checked plan needs.
///
/// # Errors
/// Whatever was made has been undone.
pub(super) fn acquire(request: &Request<'_>, checked: Checked) -> Result<(Held, Pending, Plan, ChildInputs)> {
    let Checked { plan, own, user, join, inherited, mut warnings, .. } = checked;
    let mut directory = request.root.create(request.id)?;
    let cgroup = make_cgroup(request, &plan, &mut directory)?;
    let earlier_ooms = cgroup.earlier_ooms();
    if earlier_ooms != OomCounts::default() {
        directory.note_ooms(earlier_ooms)?;
    }
    let oom_files = cgroup.oom_files();
    warnings.extend(warning_without_cgroup(request, &plan, &cgroup));
    // As with the cgroup, limits apply before there is a process.
    let rdt = plan.intel_rdt.as_ref().map(|rdt| intel_rdt::Group::create(rdt, request.id.as_str()));
    let rdt = rdt.transpose()?;
    let (console_socket, labels) = (checked.console_socket, checked.labels);
    let mut inputs = ChildInputs { join, console_socket, inherited, labels, ..ChildInputs::default() };
    if request.program == Start::Later {
        inputs.fifo = Some(directory.make_fifo()?);
    }
    inputs.user = user.user;
    inputs.cgroup = cgroup.path().map(c_path).transpose()?;
    prepare_inputs(&mut inputs, &plan, request, &directory)?;
    if !user.is_own() && plan.namespaces.is_new(libc::CLONE_NEWNS) {
        trees::open(&plan, &mut inputs)?;
    }
    id_maps::open(&plan, &mut inputs, own)?;
    let notify = bind_notify_socket(request, &directory)?;
    let record = Record::of(&plan, request, &cgroup, rdt.as_ref().map(intel_rdt::Group::member));
    inputs.hooks = hooks::of_init(&plan.hooks, record.state())?;
    let mut net_devices = NetDevices::of(plan.net_devices.clone());
    net_devices.join(&inputs.join)?;
    let setup = NamespaceSetup::of(&plan.namespaces, user.user, plan.hooks.precede_the_switch());
    let pid_namespace = pid_namespace(&mut inputs.join, user.user, setup)?;
    let pending = Pending {
        record,
        pid_namespace,
        makes_network: plan.namespaces.is_new(libc::CLONE_NEWNET) && setup.beside == 0,
        oom_score_adj: plan.process.oom_score_adj.filter(|_| user.is_own()),
        user,
        setup,
        hooks: plan.hooks.clone(),
        filter: plan.seccomp.clone(),
        agent: checked.agent,
        pidfd_socket: checked.pidfd_socket,
        relays_terminal: plan.process.terminal && request.program == Start::Attached,
        inherited,
        start: 0,
        executable: checked.executable,
        earlier_ooms,
        oom_files,
        warnings,
    };
    Ok((Held { net_devices, notify, rdt, cgroup, directory }, pending, plan, inputs))
}

/// Makes the cgroup with all its limits applied.
fn make_cgroup(request: &Request<'_>, plan: &Plan, directory: &mut NewContainer) -> Result<Cgroup> {
    let note = |path: &Path| directory.note_cgroup(path);
    let asking = ScopeRequest { buses: &request.environment.buses, signals: Some(request.signals) };
    let cgroup = plan.cgroup.create(request.rootless, asking, note).context(Stage::Cgroup)?;
    cgroup.unit().map(|unit| directory.note_unit(unit)).transpose()?;
    Ok(cgroup)
}

fn warning_without_cgroup(request: &Request<'_>, plan: &Plan, cgroup: &Cgroup) -> Option<String> {
    let is_excused = cgroup.path().is_none() && request.cgroups == Cgroups::Own;
    (is_excused && !plan.namespaces.is_new(libc::CLONE_NEWPID)).then(|| {
        "a rootless container with no cgroup and no private pid namespace: when it is killed, only its first process ends. \
             Such configuration is strongly discouraged"
                .to_owned()
    })
}

/// Takes from `join` the pid namespace that the child is cloned into, if it is not joined late.
///
/// # Errors
/// If it is joined late and no process can be cloned into it.
fn pid_namespace(
    join: &mut Vec<(Join, OwnedFd)>,
    user: User,
    setup: NamespaceSetup,
) -> Result<Option<(Join, OwnedFd)>> {
    let place = join.iter().position(|(join, _)| join.kind == libc::CLONE_NEWPID);
    let (User::Own, Some(place)) = (user, place) else { return Ok(None) };
    if setup.late {
        join.get(place).map(require_joinable).transpose()?;
        return Ok(None);
    }
    Ok(Some(join.remove(place)))
}

/// Fills in what depends on options, the environment and the host.
fn prepare_inputs(
    inputs: &mut ChildInputs,
    plan: &Plan,
    request: &Request<'_>,
    directory: &NewContainer,
) -> Result<()> {
    inputs.has_kcore = Path::new("/proc/kcore").exists();
    if request.keyring == Keyring::New {
        inputs.keyring = Some(CString::new(State::keyring_name(request.id.as_str()))?);
    }
    if request.switch == Switch::Move {
        inputs.root = RootSwitch::Move { hide: kernel_mounts_outside(&plan.rootfs)? };
    }
    if matches!(plan.propagation, Some((libc::MS_SHARED, _))) {
        inputs.rootfs_parent = Some(c_path(&mountinfo::mount_point_of(&plan.rootfs)?)?);
    }
    if request.environment.notify_socket.is_some() {
        notify::make_directory(directory.path())?;
        inputs.notify = Some((c_path(&notify::directory(directory.path()))?, None));
        inputs.env.push(CString::new(notify::ENVIRONMENT)?);
    }
    if request.environment.listen_fds > 0 {
        inputs.env.push(CString::new(format!("LISTEN_FDS={}", request.environment.listen_fds))?);
        inputs.env.push(CString::new("LISTEN_PID=1")?);
    }
    Ok(())
}

/// Mounts of procfs and sysfs outside the rootfs. After MS_MOVE they would still be there below the new root,
/// hidden but reachable, so they are unmounted first, as in runc.
fn kernel_mounts_outside(rootfs: &Path) -> Result<Vec<CString>> {
    let mounts = mountinfo::read()?;
    let outside = mounts.into_iter().filter(|mount| {
        matches!(mount.fstype.as_str(), "proc" | "sysfs") && !mount.mount_point.starts_with(rootfs)
    });
    outside.map(|mount| c_path(&mount.mount_point)).collect()
}

/// Must be bound before the program starts. `start` does this for a program that starts later.
fn bind_notify_socket(request: &Request<'_>, directory: &NewContainer) -> Result<Option<NotifySocket>> {
    match &request.environment.notify_socket {
        Some(host) if request.program != Start::Later => NotifySocket::bind(directory.path(), host).map(Some),
        _ => Ok(None),
    }
}

fn c_path(path: &Path) -> Result<CString> {
    path::c_string(path, &Pointer::root())
}
