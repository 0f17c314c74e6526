//! `runtime delete`: deletes a container.

use super::Action;
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::event::Timespec;

use super::{Context, matching};
use crate::container::hooks::poststop;
use crate::container::state::Status;
use crate::container::{Container, ContainerId, Found, PATIENCE, busy};
use crate::error::Refusal;

/// How long the init process may take to die after SIGKILL; runc's limit.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long `delete` without --force waits for an init process that is already dying.
const DYING: Duration = Duration::from_secs(1);

/// How often to check whether the process that creates the container has given up.
const BETWEEN_LOOKS: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// Delete a container, with its state and cgroup
#[derive(Debug, clap::Args)]
pub struct Delete {
    /// Kill the container first if it is running; a missing container is not an error
    #[arg(short, long)]
    force: bool,
    /// Treat ID as a regular expression and delete all matching containers
    #[arg(short, long)]
    regex: bool,
    /// Container ID
    #[arg(value_name = "ID")]
    id: String,
}

impl Action for Delete {
    fn run(&self, context: &Context) -> Result<ExitCode> {
        run(self, context).map(|()| ExitCode::SUCCESS)
    }
}

fn run(args: &Delete, context: &Context) -> Result<()> {
    if args.regex {
        return matching::for_each(&args.id, context, |container| delete(container, args.force, context));
    }
    let id: ContainerId = args.id.parse()?;
    let is_missing = || missing(&id, args.force);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match context.root.find(&id)? {
            Found::Recorded(container) => return delete(container, args.force, context),
            Found::Nothing => return is_missing(),
            Found::Abandoned(left) => {
                if let Some(container) = left.container()?.filter(|_| args.force) {
                    kill(&container)?;
                }
                left.sweep()?;
                return is_missing();
            }
            // runc's wording.
            Found::InTheMaking(_) if !args.force => {
                bail!("cannot delete container {} that is not stopped: creating", id.as_str())
            }
            Found::InTheMaking(_) if Instant::now() > deadline => return Err(busy(id.as_str())),
            // Killing init makes its creator fail and undo the container; no other process may do that.
            Found::InTheMaking(known) => known.as_ref().map_or(Ok(()), kill)?,
        }
        let _ = rustix::event::poll(&mut [], Some(&BETWEEN_LOOKS));
    }
}

/// The result of `delete` if there is no container (any more).
fn missing(id: &ContainerId, force: bool) -> Result<()> {
    if force { Ok(()) } else { Err(Refusal::NoSuchContainer(id.as_str().to_owned()).into()) }
}

fn delete(container: Container, force: bool, context: &Context) -> Result<()> {
    // Makes `kill ID KILL` followed by `delete ID` work although dying takes time.
    let status = if force { container.status()? } else { container.settled_status(DYING)? };
    match status {
        Status::Stopped => {}
        status if force || status == Status::Created => kill(&container)?,
        status => bail!("cannot delete container {} that is not stopped: {status}", container.state.id),
    }
    let id = container.state.id.parse()?;
    // Another process may have deleted it and created a new one with this ID.
    match remove(container, |warning| context.log.warning(warning))? {
        true => Ok(()),
        false => missing(&id, force),
    }
}

/// Removes a container that has ended and runs its poststop hooks, whose failures are warnings. Returns false
/// if another process removes it or has done so: then that process runs the hooks.
pub fn remove(container: Container, warn: impl FnMut(&str)) -> Result<bool> {
    let state = container.remove()?;
    if let Some(state) = &state {
        poststop(state, warn);
    }
    Ok(state.is_some())
}

/// Kills a container and waits until its init process has ended.
pub fn kill(container: &Container) -> Result<()> {
    let Some(init) = container.init()? else { return Ok(()) };
    container.note_kill();
    container.kill_all()?;
    if !container.wait_for_end(init.as_fd(), DEADLINE)? {
        let pid = container.state.init_process_pid;
        bail!("container init still running: process {pid} has not exited within {DEADLINE:?} of SIGKILL");
    }
    Ok(())
}
