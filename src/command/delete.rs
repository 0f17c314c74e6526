//! `runtime delete`: the end of a container.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::cli::Context;
use crate::container::{Container, ContainerId};
use crate::error::Refusal;
use crate::state::Status;

/// How long the init process may take to die; runc's limit.
const DEADLINE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Delete what a stopped container holds
#[derive(Debug, clap::Args)]
pub struct Delete {
    /// Kill the container first if it runs, and do not mind if there is none
    #[arg(short, long)]
    force: bool,
    /// Name of the container
    #[arg(value_name = "ID")]
    id: ContainerId,
}

pub fn run(args: &Delete, context: &Context<'_>) -> Result<()> {
    let container = match context.root.load(&args.id) {
        Ok(container) => container,
        Err(error) if matches!(error.downcast_ref(), Some(Refusal::NoSuchContainer(_))) => {
            // Also for what an aborted `create` left.
            context.root.sweep(&args.id)?;
            return if args.force { Ok(()) } else { Err(error) };
        }
        Err(error) => return Err(error),
    };
    match container.status()? {
        Status::Stopped => {}
        Status::Created => kill(&container)?,
        _ if args.force => kill(&container)?,
        status => bail!("cannot delete container {} that is not stopped: {status}", args.id.as_str()),
    }
    container.remove()
}

fn kill(container: &Container) -> Result<()> {
    let Some(init) = container.init()? else { return Ok(()) };
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
