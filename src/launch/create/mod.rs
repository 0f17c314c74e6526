//! The parent's side of making a container.
//!
//! | Phase | What it does |
//! |---|---|
//! | `preflight` | checks everything that can be wrong, and decides; nothing has been made |
//! | `acquire` | makes what the container needs, each under a guard that undoes it |
//! | [`Program::new`] | orders the steps of the init process |
//! | [`clone_init`] | clones it |
//! | `converse` | handles its messages until it is ready, and records the container |
//! | `commit` | lets the program start and disarms the guards |
//!
//! An error in any phase undoes everything, in reverse order.

mod acquire;
mod commit;
mod converse;
mod hooks;
mod id_maps;
mod net_devices;
mod preflight;
mod record;
mod trees;
mod user_namespace;

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::Result;

use self::acquire::{Held, Pending};
use self::hooks::PoststopState;
use crate::bundle::Bundle;
use crate::cgroup::OomFiles;
use crate::container::{Container, ContainerId, Root};
use crate::host::environment::Environment;
use crate::host::log::Log;
use crate::host::notify::NotifySocket;
use crate::host::rootless::Rootless;
use crate::host::self_exe::Guard;
use crate::host::signals::Signals;
use crate::host::terminal::Terminal;
use crate::launch::conversation::{Conversation, FailureContext};
use crate::launch::spawn;
use crate::launch::spawn::CloneOptions;
use crate::program::Program;

/// What the caller of `create` or `run` asked for.
#[derive(Debug)]
pub struct Request<'a> {
    pub id: &'a ContainerId,
    pub root: &'a Root,
    pub program: Start,
    pub pid_file: Option<&'a Path>,
    pub console_socket: Option<&'a Path>,
    /// Where to send a pidfd of the init process: one message with the text `standard`, as runc does.
    pub pidfd_socket: Option<&'a Path>,
    pub switch: Switch,
    pub keyring: Keyring,
    pub cgroups: Cgroups,
    pub rootless: Rootless,
    /// How many descriptors the program inherits, counted from 3, besides those of socket activation.
    pub preserve_fds: u32,
    pub environment: Environment,
    pub signals: &'a Signals,
    pub log: &'a Log,
    /// The runtime's protected executable, to be released before anything of the container can run.
    pub executable: RefCell<Guard>,
}

/// When the container's program starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// When `start` is called.
    Later,
    /// At once, and this process stays until it ends.
    Attached,
    /// At once, and this process does not stay.
    Detached,
}

/// How `/` becomes the rootfs (`--no-pivot`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    Pivot,
    Move,
}

/// Whether the container gets a session keyring of its own (`--no-new-keyring`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyring {
    New,
    Inherited,
}

/// `--cgroup-manager`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cgroups {
    /// A cgroup for each container, made directly in cgroupfs.
    Own,
    /// A cgroup of a systemd scope.
    Systemd,
    /// None: the container stays in its caller's cgroup.
    Disabled,
}

/// A container that has been created.
#[derive(Debug)]
pub struct Created {
    pub container: Container,
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// The terminal of a program that was started attached.
    pub terminal: Option<Terminal>,
    /// The socket for the program's sd_notify(3) messages, if it starts at once and the caller listens for
    /// them.
    pub notify: Option<NotifySocket>,
    /// The cgroup's open OOM counters, if the cgroup may be removed as soon as the program has ended.
    pub oom_files: Option<OomFiles>,
}

/// Creates and records the container that `bundle` describes.
///
/// # Errors
/// Whatever was made has been undone.
pub fn create(bundle: &Bundle, request: &Request<'_>) -> Result<Created> {
    let mut undone = PoststopState::default();
    let created = make(bundle, request, &mut undone);
    if created.is_err() {
        undone.run_poststop(request.log);
    }
    created
}

/// On failure, `undone` holds the state of the container if poststop hooks must run for it.
fn make(bundle: &Bundle, request: &Request<'_>, undone: &mut PoststopState) -> Result<Created> {
    let checked = preflight::check(bundle, request)?;
    let (mut held, mut pending, plan, inputs) = acquire::acquire(request, checked)?;
    let mut program = Program::new(plan, inputs)?;
    let mut child = clone_init(request, &mut held, &mut pending, &mut program, undone)?;
    let ready = converse::converse(bundle, &mut held, &mut pending, &mut child)?;
    commit::commit(request, held, pending, child, ready, undone)
}

/// Clones the init process, or the intermediate before it, into its cgroup.
fn clone_init<'a>(
    request: &Request<'_>,
    held: &mut Held,
    pending: &mut Pending,
    program: &'a mut Program,
    undone: &mut PoststopState,
) -> Result<Conversation<'a>> {
    let (ours, theirs) = spawn::connect(program, pending.inherited)?;
    let setting = CloneOptions {
        new: pending.setup.cloned,
        pid_namespace: pending.pid_namespace.as_ref(),
        waits: !pending.user.is_own(),
        earlier_ooms: pending.earlier_ooms,
    };
    let (process, start) = setting.clone(&mut held.cgroup, program, &theirs)?;
    drop(theirs);
    if !held.cgroup.attaches_late() {
        held.cgroup.attach(process.pid)?;
    }
    undone.remember(pending.record.state());
    spawn::log_clone(request.log, process.pid, program);
    let context = FailureContext {
        cgroup: held.cgroup.path().map(Path::to_owned),
        may_stay_frozen: false,
        earlier_ooms: Some(pending.earlier_ooms),
        oom_files: pending.oom_files.take(),
    };
    pending.start = start;
    Conversation::new(process, ours, request.signals, program, context)
}
