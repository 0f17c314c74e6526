//! `runtime resume`: lets the processes of a paused container go on.

use anyhow::{Result, bail};

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

pub fn run(args: &Resume, context: &Context<'_>) -> Result<()> {
    let container = context.root.load(&args.id)?;
    match container.status()? {
        Status::Paused => cgroup::thaw(container.cgroup()?),
        // The end of it is runc's text, that callers look for.
        status => bail!("container {:?} is {status}: container not paused", container.state.id),
    }
}
