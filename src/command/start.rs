//! `runtime start`: lets the program of a created container begin.

use std::os::fd::AsFd as _;

use anyhow::{Result, bail};

use crate::cli::Context;
use crate::container::ContainerId;
use crate::notify::NotifySocket;
use crate::state::Status;

/// Start the program of a created container
#[derive(Debug, clap::Args)]
pub struct Start {
    /// Name of the container
    #[arg(value_name = "ID")]
    id: ContainerId,
}

pub fn run(args: &Start, context: &Context<'_>) -> Result<()> {
    let container = context.root.load(&args.id)?;
    match container.status()? {
        Status::Created => {}
        Status::Stopped => bail!("cannot start a container that has stopped"),
        Status::Running => bail!("cannot start an already running container"),
        Status::Paused => bail!("cannot start a container in the paused state"),
    }
    // Before the program can use it.
    let notify = match &context.environment.notify_socket {
        Some(host) => Some(NotifySocket::bind(container.directory(), host)?),
        None => None,
    };
    let init = container.init()?;
    container.start()?;
    match (notify, init) {
        (Some(notify), Some(init)) => notify.relay(init.as_fd(), container.state.init_process_pid),
        _ => Ok(()),
    }
}
