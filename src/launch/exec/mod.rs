//! `exec` adds a process to a running container. It goes through the same phases as `launch/create`, and uses
//! the namespaces and cgroup made there.

mod birth;
mod converse;
mod namespaces;
mod preflight;

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::cgroup::Below;
use crate::container::{Container, PidFile};
use crate::host::log::Log;
use crate::host::self_exe::Guard;
use crate::host::signals::Signals;
use crate::host::terminal::Terminal;
use crate::plan::Wanted;
use crate::program::Program;

/// What the caller of `exec` asked for.
#[derive(Debug)]
pub struct Request<'a> {
    /// Whether this process stays until the new one has ended.
    pub stays: bool,
    pub pid_file: Option<&'a Path>,
    pub console_socket: Option<&'a Path>,
    /// Where to send a pidfd of the new process: one message with the text `setns`, as runc does.
    pub pidfd_socket: Option<&'a Path>,
    /// How many descriptors the program inherits, counted from 3.
    pub preserve_fds: u32,
    /// A cgroup below the container's. `None`: the container's own, or the one its init process has moved to.
    pub cgroup: Option<Below>,
    pub when_paused: WhenPaused,
    pub signals: &'a Signals,
    pub log: &'a Log,
    /// The runtime's protected executable, to be released before the new process is born.
    pub executable: Guard,
}

/// Whether `exec` enters a paused container (`--ignore-paused`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenPaused {
    Refuse,
    /// The process starts when the container is resumed.
    Wait,
}

/// A process that has been added.
#[derive(Debug)]
pub struct Added {
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// If the process has a terminal and this process stays.
    pub terminal: Option<Terminal>,
}

/// Starts the process `wanted` in `container`.
///
/// # Errors
/// No process is left behind.
pub fn exec(container: &Container, wanted: Wanted, mut request: Request<'_>) -> Result<Added> {
    let (mut checked, plan, inputs) = preflight::check(container, wanted, &request)?;
    let mut program = Program::exec(plan, inputs)?;
    let (mut child, awaiting) = birth::clone_process(container, &mut request, &mut checked, &mut program)?;
    let terminal = converse::converse(container, &mut checked, awaiting, &mut child)?;
    request.log.debug("setns_init: about to exec: the program has begun");
    let pid_file = request.pid_file.map(|path| PidFile::write(path, child.process.pid)).transpose()?;
    // Only now: when `exec` fails, the log must hold the failure alone, because some readers parse it as one
    // record.
    checked.warnings.iter().for_each(|warning| request.log.warning(warning));
    let pidfd = child.process.pidfd.try_clone().context("duplicate the pidfd of the new process")?;
    if let Some(pid_file) = pid_file {
        pid_file.keep();
    }
    child.process.keep = true;
    Ok(Added { pid: child.process.pid, pidfd, terminal })
}
