//! `runtime resume`: resumes a paused container.

use super::Action;
use anyhow::{Result, bail};
use std::process::ExitCode;

use super::Context;
use crate::cgroup;
use crate::container::ContainerId;
use crate::container::state::Status;

/// Resume a paused container
#[derive(Debug, clap::Args)]
pub struct Resume {
    /// Container ID
    #[arg(value_name = "ID")]
    id: ContainerId,
}

impl Action for Resume {
    fn run(&self, context: &Context) -> Result<ExitCode> {
        run(self, context).map(|()| ExitCode::SUCCESS)
    }
}

fn run(args: &Resume, context: &Context) -> Result<()> {
    let container = context.root.load(&args.id)?;
    match container.status()? {
        Status::Paused => cgroup::thaw(container.cgroup()?),
        // Callers look for runc's wording at the end.
        status => bail!("container {:?} is {status}: container not paused", container.state.id),
    }
}
