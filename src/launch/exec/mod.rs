//! `exec`: one more process for a container, in the same phases as its first one (`launch/create`), of which this one gets the
//! namespaces and the cgroup.

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

/// Starts the process `wanted` in `container`.
///
/// # Errors
/// The process is gone when it returns one.
pub fn exec(container: &Container, wanted: Wanted, mut request: Request<'_>) -> Result<Added> {
    let (mut checked, plan, inputs) = preflight::check(container, wanted, &request)?;
    let mut program = Program::exec(plan, inputs)?;
    let (mut child, awaiting) = birth::bear(container, &mut request, &mut checked, &mut program)?;
    let terminal = converse::converse(container, &mut checked, awaiting, &mut child)?;
    request.log.debug("setns_init: about to exec: the program has begun");
    let pid_file = request.pid_file.map(|path| PidFile::write(path, child.process.pid)).transpose()?;
    // Only now: the log of a failure holds the failure alone, because some readers take it for one record.
    checked.warnings.iter().for_each(|warning| request.log.warning(warning));
    let pidfd = child.process.pidfd.try_clone().context("duplicate the pidfd of the new process")?;
    if let Some(pid_file) = pid_file {
        pid_file.keep();
    }
    child.process.keep = true;
    Ok(Added { pid: child.process.pid, pidfd, terminal })
}
