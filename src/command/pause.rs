//! `runtime pause`: freezes all processes of a container.

use super::Action;
use anyhow::{Result, bail};
use std::process::ExitCode;

use super::Context;
use crate::cgroup;
use crate::cgroup::Freezing;
use crate::container::ContainerId;
use crate::container::state::Status;
use crate::error::Refusal;
use crate::host::signals::Signals;

/// Suspend all processes in a container
#[derive(Debug, clap::Args)]
pub struct Pause {
    /// Container ID
    #[arg(value_name = "ID")]
    id: ContainerId,
}

impl Action for Pause {
    fn run(&self, context: &Context) -> Result<ExitCode> {
        run(self, context).map(|()| ExitCode::SUCCESS)
    }
}

fn run(args: &Pause, context: &Context) -> Result<()> {
    let container = context.root.load(&args.id)?;
    match container.status()? {
        Status::Created | Status::Running => {
            // Signals wait: either all processes are frozen in the end, or none.
            Signals::block()?;
            match cgroup::freeze(container.cgroup()?) {
                Ok(Freezing::Done) => Ok(()),
                // The container has ended; its cgroup may be gone, too.
                Ok(Freezing::PoststopState) | Err(_) if container.status()? == Status::Stopped => {
                    Err(Refusal::NotRunning(container.state.id).into())
                }
                Ok(Freezing::PoststopState) => bail!(
                    "container {:?} was resumed by another command while it was being paused",
                    container.state.id
                ),
                Err(error) => Err(error),
            }
        }
        // runc's wording, which callers look for, whatever the reason.
        Status::Paused => {
            bail!("container {:?} is already paused: container not running", container.state.id)
        }
        Status::Creating => {
            bail!("container {:?} is still being created: container not running", container.state.id)
        }
        Status::Stopped => Err(Refusal::NotRunning(container.state.id).into()),
    }
}
