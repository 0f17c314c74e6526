//! The parent's side of making a container: everything is prepared, then cloned, then recorded.
//!
//! What is made is held by guards, in the order in which it is made; an error on the way undoes it in reverse.

mod hooks;
mod id_maps;
mod net_devices;
mod preflight;
mod record;
mod trees;
mod user_namespace;

use std::cell::RefCell;
use std::ffi::CString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result};

use self::hooks::Undone;
use self::net_devices::NetDevices;
use self::preflight::{
    is_born_alone, open_namespaces, require_kernel, require_safe_switch, require_time_namespaces, warnings,
};
use self::record::Record;
use self::user_namespace::{UserNamespace, require_privileges};
use crate::bundle::Bundle;
use crate::cgroup::{Driver, OomCounts, OomFiles, ScopeRequest, intel_rdt};
use crate::container::hooks::poststart;
use crate::container::state::{State, Status};
use crate::container::{Container, ContainerId, NewContainer, PidFile, Root};
use crate::error::{Fault, Pointer, Stage};
use crate::host::environment::{Environment, SystemdInstance};
use crate::host::log::Log;
use crate::host::notify::NotifySocket;
use crate::host::process::{self, socket_pair};
use crate::host::rootless::Rootless;
use crate::host::self_exe::Guard;
use crate::host::signals::Signals;
use crate::host::terminal::{Terminal, console_socket};
use crate::host::{lsm, mountinfo, notify, path};
use crate::init::protocol;
use crate::init::step::Point;
use crate::launch::child::{Child, Watch, clone, connect_pidfd_socket, require_inherited, require_joinable};
use crate::launch::{netns, seccomp_agent};
use crate::plan::Plan;
use crate::plan::linux::namespaces::Join;
use crate::program::{ChildInputs, NamespaceSetup, Program, RootSwitch, User};
use crate::sys;
use crate::sys::Errno;
use crate::sys::process::close_on_exec_from;

/// What the caller of `create` or `run` asked for.
#[derive(Debug)]
pub struct Request<'a> {
    pub id: &'a ContainerId,
    pub root: &'a Root,
    pub program: Start,
    pub pid_file: Option<&'a Path>,
    pub console_socket: Option<&'a Path>,
    /// Where a descriptor of the init process goes: one message with the text `standard`, as runc sends it.
    pub pidfd_socket: Option<&'a Path>,
    pub switch: Switch,
    pub keyring: Keyring,
    pub cgroups: Cgroups,
    pub rootless: Rootless,
    /// How many descriptors from 3 on the program inherits besides those of socket activation.
    pub preserve_fds: u32,
    pub environment: &'a Environment,
    pub signals: &'a Signals,
    pub log: &'a Log,
    /// To be released before anything of the container's can run.
    pub executable: RefCell<Guard>,
}

/// When the container's program starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// When `start` says so.
    Later,
    /// At once, and this process stays with it.
    Attached,
    /// At once, and this process leaves it alone.
    Detached,
}

/// `--no-pivot` or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    Pivot,
    Move,
}

/// `--no-new-keyring` or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyring {
    New,
    Inherited,
}

/// `--cgroup-manager`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cgroups {
    /// A cgroup for each container, made on the file system.
    Own,
    /// One of a scope, made by systemd.
    Systemd,
    /// None: the container stays in its caller's.
    Disabled,
}

/// A container that has been made.
#[derive(Debug)]
pub struct Created {
    pub container: Container,
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// For a program that was started attached and has one.
    pub terminal: Option<Terminal>,
    /// Where the program says that it is ready, if it starts at once and somebody wants to know.
    pub notify: Option<NotifySocket>,
    /// What its cgroup counts, if that may be gone as soon as the program has ended.
    pub oom_files: Option<OomFiles>,
}

/// Makes the container that `bundle` describes, and records it.
///
/// # Errors
/// Whatever it made is gone when it returns one.
pub fn create(bundle: &Bundle, request: &Request<'_>) -> Result<Created> {
    let mut undone = Undone::default();
    let created = make(bundle, request, &mut undone);
    if created.is_err() {
        undone.run_poststop(request.log);
    }
    created
}

/// What is in `undone` when this fails was made and has been undone.
fn make(bundle: &Bundle, request: &Request<'_>, undone: &mut Undone) -> Result<Created> {
    require_kernel()?;
    let driver = match (request.cgroups, request.rootless.is_enabled()) {
        (Cgroups::Systemd, false) => Driver::Systemd(SystemdInstance::System),
        (Cgroups::Systemd, true) => Driver::Systemd(SystemdInstance::User),
        (Cgroups::Own | Cgroups::Disabled, _) => Driver::Cgroupfs,
    };
    let mut plan = Plan::new(bundle, request.id.as_str(), driver)?;
    let inherited = request.environment.listen_fds.saturating_add(request.preserve_fds);
    let mut executable = request.executable.take();
    require_inherited(inherited, &executable)?;
    // Before there is another process. Where the init process is alone until it begins, it is released beside it.
    if !is_born_alone(&plan) {
        executable.release();
    }
    let own = sys::cred::capabilities().context("look up the runtime's capabilities")?;
    require_privileges(&plan, own)?;
    let mut join = open_namespaces(&plan)?;
    let user_namespace = UserNamespace::of(&mut plan, &mut join, own)?;
    // In a user namespace its processes can have them all.
    if user_namespace.is_own() {
        plan.process.capabilities.limit_to(own);
    }
    if request.cgroups == Cgroups::Disabled {
        plan.cgroup.without_limits("remove --cgroup-manager disabled, or remove the limit")?;
    }
    require_safe_switch(&plan, request.switch)?;
    let labels = lsm::labels(plan.process.labels(), &Pointer::root().field("process"))?;
    if let Some(label) = &plan.label {
        lsm::require_selinux(&label.context, &Pointer::root().field("linux").field("mountLabel"))?;
    }
    require_time_namespaces(&plan.namespaces)?;
    let mut warnings = warnings(bundle, &plan);
    let stays = request.program == Start::Attached;
    let console_socket = console_socket::plan(request.console_socket, plan.process.terminal, stays)?;
    let pidfd_socket = connect_pidfd_socket(request.pidfd_socket)?;
    let agent = plan.seccomp.as_ref().map(seccomp_agent::prepare).transpose()?.flatten();

    let mut directory = request.root.create(request.id)?;
    let note = |path: &Path| directory.note_cgroup(path);
    let asking = ScopeRequest { buses: &request.environment.buses, signals: Some(request.signals) };
    let mut cgroup = plan.cgroup.create(request.rootless, asking, note).context(Stage::Cgroup)?;
    cgroup.unit().map(|unit| directory.note_unit(unit)).transpose()?;
    let earlier_ooms = cgroup.earlier_ooms();
    if earlier_ooms != OomCounts::default() {
        directory.note_ooms(earlier_ooms)?;
    }
    let oom_files = cgroup.oom_files();
    let is_excused = cgroup.path().is_none() && request.cgroups == Cgroups::Own;
    if is_excused && !plan.namespaces.is_new(libc::CLONE_NEWPID) {
        warnings.push(
            "a rootless container with no cgroup and no private pid namespace: when it is killed, only its first process ends. \
             Such configuration is strongly discouraged"
                .to_owned(),
        );
    }
    // As with a cgroup: a limit is in force before there is a process.
    let rdt = plan.intel_rdt.as_ref().map(|rdt| intel_rdt::Group::create(rdt, request.id.as_str()));
    let rdt = rdt.transpose()?;
    let mut wiring = ChildInputs { join, console_socket, inherited, labels, ..ChildInputs::default() };
    if request.program == Start::Later {
        wiring.fifo = Some(directory.make_fifo()?);
    }
    wiring.user = user_namespace.user;
    wiring.cgroup = cgroup.path().map(c_path).transpose()?;
    wire(&mut wiring, &plan, request, &directory)?;
    if !user_namespace.is_own() && plan.namespaces.is_new(libc::CLONE_NEWNS) {
        trees::open(&mut plan, &mut wiring)?;
    }
    id_maps::open(&mut plan, &wiring.join, own)?;
    let notify = bind_notify_socket(request, &directory)?;
    let relays_terminal = plan.process.terminal && request.program == Start::Attached;
    let record = Record::of(&plan, request, &cgroup, rdt.as_ref().map(intel_rdt::Group::member));
    wiring.hooks = hooks::of_init(&plan.hooks, record.state())?;
    let hooks = plan.hooks.clone();
    let mut net_devices = NetDevices::of(plan.net_devices.clone());
    net_devices.join(&wiring.join)?;
    let births = NamespaceSetup::of(&plan.namespaces, user_namespace.user, plan.hooks.precede_the_switch());
    let pid_namespace = match user_namespace.user {
        User::Own if births.late => {
            let late = wiring.join.iter().find(|(join, _)| join.kind == libc::CLONE_NEWPID);
            late.map(require_joinable).transpose()?;
            None
        }
        User::Own => take_pid_namespace(&mut wiring.join),
        _ => None,
    };
    let makes_network = plan.namespaces.is_new(libc::CLONE_NEWNET) && births.beside == 0;
    let oom_score_adj = plan.process.oom_score_adj;
    let filter = plan.seccomp.clone();
    let mut program = Program::new(plan, wiring)?;

    let (ours, theirs) = socket_pair()?;
    program.close_all_but(theirs.as_fd(), inherited);
    // What our caller left open is not for the container; what is for it comes first (CVE-2024-21626).
    close_on_exec_from(inherited.saturating_add(3)).context("mark descriptors close-on-exec")?;
    let waits = !user_namespace.is_own();
    let pid_namespace = pid_namespace.as_ref();
    let cloned = births.cloned;
    let (mut init, mut start) =
        clone(cloned, &mut cgroup, pid_namespace, &mut program, &theirs, waits, earlier_ooms)?;
    drop(theirs);
    if !cgroup.attaches_late() {
        cgroup.attach(init.pid)?;
    }
    undone.remember(record.state());
    // The words in these three that runc's own tests look for are the names of what does the same in runc.
    request.log.debug(format_args!("nsexec container setup: one clone3 made process {}", init.pid));
    let steps = program.steps.len();
    request.log.debug(format_args!("child process in init(): it performs {steps} steps"));
    let path = cgroup.path().map(Path::to_owned);
    let watch = Watch {
        socket: ours.as_fd(),
        signals: request.signals,
        cgroup: path.as_deref(),
        may_stand_still: false,
        earlier_ooms: Some(earlier_ooms),
        oom_files: oom_files.as_ref(),
        program: &program,
    };
    if cgroup.attaches_late() {
        let child = watch.over(&init)?;
        child.await_point(Point::Born)?;
        cgroup.attach(init.pid)?;
        child.go_on()?;
    }
    if births.succeeded.is_some() {
        let intermediate = watch.over(&init)?;
        if user_namespace.is_set_up_first() {
            user_namespace.set_up(&intermediate)?;
        }
        let successor = intermediate.await_successor()?;
        init = successor;
        start = process::start(init.pid)?;
        cgroup.attach(init.pid)?;
    }
    if let Some(rdt) = &rdt {
        rdt.member().add(init.pid)?;
    }
    let child = watch.over(&init)?;
    if births.succeeded.is_none() || !user_namespace.is_set_up_first() {
        user_namespace.set_up(&child)?;
    }
    if makes_network {
        net_devices.follow(&child)?;
    }

    if births.beside != 0 {
        let network = netns::make().with_context(|| Fault {
            pointer: Pointer::root().field("linux").field("namespaces"),
            message: "create a network namespace".into(),
            hint: None,
        })?;
        net_devices.move_into(network.as_fd())?;
        match protocol::send_descriptor(ours.as_fd(), b"n", network.as_fd()) {
            // It has failed already, and says so below.
            Err(Errno::PIPE | Errno::CONNRESET) => {}
            sent => sent.context("pass the network namespace to the init process")?,
        }
    }
    if births.late {
        init = child.await_successor()?;
        start = process::start(init.pid)?;
    }
    let child = watch.over(&init)?;
    init.introduce(pidfd_socket, b"standard")?;
    let mut state = record.of_process(init.pid, start);
    state.resources = bundle.resources()?;
    directory.save_excerpt(&bundle.excerpt()?)?;
    if let Some(filter) = &filter {
        crate::container::filter::save(filter, directory.path())?;
    }
    // The container is recorded when it is complete: until then its init process is in the host's tree, with all of the runtime's
    // privileges, and so would be whoever joined it. Only hooks find it earlier, and `exec` then refuses it.
    if state.creating {
        directory.prepare(&state)?.publish()?;
    }
    let prepared = directory.prepare(&State { creating: false, ..state.clone() })?;
    if let Some(score) = oom_score_adj.filter(|_| user_namespace.is_own()) {
        init.adjust_oom_score(score, Pointer::root().field("process").field("oomScoreAdj"))?;
    }
    if state.creating {
        child.await_point(Point::Mounted)?;
        hooks::before_the_switch(&hooks, &state, &child).context(Stage::Init)?;
        child.go_on()?;
    }
    // There is nothing else to do until the init process is ready, and `start` or `exec` may come as soon as it is recorded.
    executable.release();
    // Before the program begins, so that it finds the size of the window, and nothing it writes is changed on the way.
    let terminal = match relays_terminal {
        true => Some(Terminal::attach(child.await_master()?)?),
        false => None,
    };
    child.await_ready()?;
    cgroup.release()?;
    let pidfd = init.pidfd.try_clone().context("duplicate the pidfd of the init process")?;
    prepared.publish()?;
    state.creating = false;
    // Whoever deletes it from now on need not wait for the hooks that are still to run.
    directory.release();
    let begun = begin(request, &child, &state, agent);
    let pid_file = match begun {
        Ok(pid_file) => pid_file,
        Err(error) => {
            // What there is of that name and path now may be another's.
            if !directory.take_back() {
                undone.forget();
                cgroup.keep();
                if let Some(rdt) = rdt {
                    rdt.keep();
                }
            }
            return Err(error);
        }
    };

    // Only now: the log of a failure holds the failure alone, because some readers take it for one record.
    warnings.iter().for_each(|warning| request.log.warning(warning));
    if let Some(filter) = &filter {
        filter.notes().iter().for_each(|note| request.log.debug(note));
    }
    cgroup.keep();
    if let Some(rdt) = rdt {
        rdt.keep();
    }
    net_devices.keep();
    if let Some(pid_file) = pid_file {
        pid_file.keep();
    }
    init.keep = true;
    Ok(Created { container: directory.keep(state), pid: init.pid, pidfd, terminal, notify, oom_files })
}

/// Lets the program begin, or wait for its start, once it is recorded.
fn begin(
    request: &Request<'_>,
    child: &Child<'_>,
    state: &State,
    agent: Option<seccomp_agent::Agent>,
) -> Result<Option<PidFile>> {
    child.go_on()?;
    if let Some(agent) = agent {
        let number = child.await_listener()?;
        let seen = seccomp_agent::Container {
            oci_version: &state.oci_version,
            state: state.text(Status::Creating)?,
        };
        agent.pass_on(child.init.pidfd.as_fd(), child.init.pid, number, &seen)?;
        child.go_on()?;
    }
    request.log.debug("init: closing the pipe to signal completion: the container is ready");
    if request.program != Start::Later {
        child.await_start()?;
        poststart(state, &child.interrupts)?;
    }
    request.pid_file.map(|path| PidFile::write(path, child.init.pid)).transpose()
}

fn take_pid_namespace(join: &mut Vec<(Join, OwnedFd)>) -> Option<(Join, OwnedFd)> {
    let place = join.iter().position(|(join, _)| join.kind == libc::CLONE_NEWPID)?;
    Some(join.remove(place))
}

fn wire(
    wiring: &mut ChildInputs,
    plan: &Plan,
    request: &Request<'_>,
    directory: &NewContainer,
) -> Result<()> {
    wiring.has_kcore = Path::new("/proc/kcore").exists();
    if request.keyring == Keyring::New {
        wiring.keyring = Some(CString::new(State::keyring_name(request.id.as_str()))?);
    }
    if request.switch == Switch::Move {
        wiring.root = RootSwitch::Move { hide: kernel_mounts_outside(&plan.rootfs)? };
    }
    if matches!(plan.propagation, Some((libc::MS_SHARED, _))) {
        wiring.rootfs_parent = Some(c_path(&mountinfo::mount_point_of(&plan.rootfs)?)?);
    }
    if request.environment.notify_socket.is_some() {
        notify::make_directory(directory.path())?;
        wiring.notify = Some((c_path(&notify::directory(directory.path()))?, None));
        wiring.env.push(CString::new(notify::ENVIRONMENT)?);
    }
    if request.environment.listen_fds > 0 {
        wiring.env.push(CString::new(format!("LISTEN_FDS={}", request.environment.listen_fds))?);
        wiring.env.push(CString::new("LISTEN_PID=1")?);
    }
    Ok(())
}

/// The host's views of the kernel. After MS_MOVE they would still be mounted above the new root, out of sight but not out of
/// reach, so they are unmounted first, as runc does.
fn kernel_mounts_outside(rootfs: &Path) -> Result<Vec<CString>> {
    let mounts = mountinfo::read()?;
    let outside = mounts.into_iter().filter(|mount| {
        matches!(mount.fstype.as_str(), "proc" | "sysfs") && !mount.mount_point.starts_with(rootfs)
    });
    outside.map(|mount| c_path(&mount.mount_point)).collect()
}

/// Before the program can start. `start` does this for a program that starts later.
fn bind_notify_socket(request: &Request<'_>, directory: &NewContainer) -> Result<Option<NotifySocket>> {
    match &request.environment.notify_socket {
        Some(host) if request.program != Start::Later => NotifySocket::bind(directory.path(), host).map(Some),
        _ => Ok(None),
    }
}

fn c_path(path: &Path) -> Result<CString> {
    path::c_string(path, &Pointer::root())
}
