//! The parent's side of making a container.
//!
//! | Phase | What it does |
//! |---|---|
//! | `preflight` | looks at everything that can be wrong, and decides; nothing has been made |
//! | `acquire` | makes what the container is to have, each held by a guard that undoes it |
//! | [`Program::new`] | orders the steps of the init process |
//! | [`bear`] | clones it |
//! | `converse` | does the parent's part until nothing is left but the program's start |
//! | `commit` | records it, lets it begin, and disarms the guards |
//!
//! An error on the way undoes everything, in reverse.

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
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result};

use self::acquire::{Held, Pending};
use self::hooks::Undone;
use crate::bundle::Bundle;
use crate::cgroup::OomFiles;
use crate::container::{Container, ContainerId, Root};
use crate::host::environment::Environment;
use crate::host::log::Log;
use crate::host::notify::NotifySocket;
use crate::host::process::socket_pair;
use crate::host::rootless::Rootless;
use crate::host::self_exe::Guard;
use crate::host::signals::Signals;
use crate::host::terminal::Terminal;
use crate::launch::conversation::{Circumstances, Conversation};
use crate::launch::spawn::Setting;
use crate::program::Program;
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
    pub environment: Environment,
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
    let checked = preflight::check(bundle, request)?;
    let (mut held, mut pending, plan, inputs) = acquire::acquire(request, checked)?;
    let mut program = Program::new(plan, inputs)?;
    let mut child = bear(request, &mut held, &mut pending, &mut program)?;
    undone.remember(pending.record.state());
    let ready = converse::converse(bundle, &mut held, &mut pending, &mut child)?;
    commit::commit(request, held, pending, child, ready, undone)
}

/// Clones the init process, or the intermediate before it, in its cgroup.
fn bear<'a>(
    request: &Request<'_>,
    held: &mut Held,
    pending: &mut Pending,
    program: &'a mut Program,
) -> Result<Conversation<'a>> {
    let (ours, theirs) = socket_pair()?;
    program.close_all_but(theirs.as_fd(), pending.inherited);
    // What our caller left open is not for the container; what is for it comes first (CVE-2024-21626).
    close_on_exec_from(pending.inherited.saturating_add(3)).context("mark descriptors close-on-exec")?;
    let setting = Setting {
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
    // The words in these two that runc's own tests look for are the names of what does the same in runc.
    request.log.debug(format_args!("nsexec container setup: one clone3 made process {}", process.pid));
    let steps = program.steps.len();
    request.log.debug(format_args!("child process in init(): it performs {steps} steps"));
    let circumstances = Circumstances {
        cgroup: held.cgroup.path().map(Path::to_owned),
        may_stand_still: false,
        earlier_ooms: Some(pending.earlier_ooms),
        oom_files: pending.oom_files.take(),
    };
    Conversation::new((process, start), ours, request.signals, program, circumstances)
}
