//! `runtime delete`: the end of a container.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::matching;
use crate::cli::Context;
use crate::container::{Container, ContainerId};
use crate::error::Refusal;
use crate::hooks::poststop;
use crate::state::Status;

/// How long the init process may take to die; runc's limit.
const DEADLINE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Delete what a stopped container holds
#[derive(Debug, clap::Args)]
pub struct Delete {
    /// Kill the container first if it runs, and do not mind if there is none
    #[arg(short, long)]
    force: bool,
    /// Take ID for a regular expression: for every container whose name it matches
    #[arg(short, long)]
    regex: bool,
    /// Name of the container
    #[arg(value_name = "ID")]
    id: String,
}

pub fn run(args: &Delete, context: &Context<'_>) -> Result<()> {
    if args.regex {
        return matching::for_each(&args.id, context, |container| delete(container, args.force, context));
    }
    let id: ContainerId = args.id.parse()?;
    match context.root.load(&id) {
        Ok(container) => delete(container, args.force, context),
        Err(error) if is_missing(&error) => {
            // Also for what an aborted `create` left.
            if let Some(container) = context.root.unrecorded(&id).filter(|_| args.force) {
                kill(&container)?;
            }
            context.root.sweep(&id)?;
            if args.force { Ok(()) } else { Err(error) }
        }
        Err(error) => Err(error),
    }
}

fn delete(container: Container, force: bool, context: &Context<'_>) -> Result<()> {
    match container.status()? {
        Status::Stopped => {}
        status if force || status == Status::Created => {
            kill(&container)?;
            // That takes time, in which somebody else may have deleted it, too, and made another of its name.
            let gone = || Refusal::NoSuchContainer(container.state.id.clone()).into();
            let now = context.root.load(&container.state.id.parse()?).and_then(|now| {
                let is_same = now.state.identity() == container.state.identity();
                if is_same { Ok(()) } else { Err(gone()) }
            });
            match now {
                Err(error) if force && is_missing(&error) => return Ok(()),
                now => now?,
            }
        }
        status => bail!("cannot delete container {} that is not stopped: {status}", container.state.id),
    }
    remove(container, |warning| context.log.warning(warning))
}

fn is_missing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Refusal::NoSuchContainer(_)))
}

/// Removes what is left of a container that has ended, and calls its poststop hooks, whose failures are warnings.
pub fn remove(container: Container, warn: impl FnMut(&str)) -> Result<()> {
    poststop(&container.remove()?, warn);
    Ok(())
}

/// Kills a container and waits for the end of its init process.
pub fn kill(container: &Container) -> Result<()> {
    let Some(init) = container.init()? else { return Ok(()) };
    container.note_kill();
    container.kill_all()?;
    let pidfd = init.as_fd();
    let mut waiting = [PollFd::new(&pidfd, PollFlags::IN)];
    let ended = rustix::io::retry_on_intr(|| rustix::event::poll(&mut waiting, Some(&DEADLINE)))
        .context("wait for the init process")?;
    if ended == 0 {
        bail!("container init still running");
    }
    Ok(())
}
