//! `runtime create`: everything but the start of the program.

use std::path::Path;

use anyhow::Result;

use super::Context;
use super::create_args::CreateArgs;
use crate::container::ContainerId;
use crate::host::signals::Signals;
use crate::launch::create::Start;

/// Create a container
#[derive(Debug, clap::Args)]
pub struct Create {
    #[command(flatten)]
    making: CreateArgs,
    /// Container ID, unique on this host
    #[arg(value_name = "ID")]
    id: ContainerId,
}

pub fn run(args: &Create, context: &Context<'_>) -> Result<()> {
    let bundle = args.making.open(args.making.bundle.as_deref().unwrap_or(Path::new(".")))?;
    let signals = Signals::block()?;
    args.making.create(&bundle, &args.id, Start::Later, &signals, context).map(drop)
}
