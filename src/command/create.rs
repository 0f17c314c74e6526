//! `runtime create`: everything but starting the program.

use super::Action;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use super::Context;
use super::create_args::CreateArgs;
use crate::container::ContainerId;
use crate::host::signals::Signals;
use crate::launch::create::{Start, create};

/// Create a container
#[derive(Debug, clap::Args)]
pub struct Create {
    #[command(flatten)]
    args: CreateArgs,
    /// Container ID, unique on this host
    #[arg(value_name = "ID")]
    id: ContainerId,
}

impl Action for Create {
    fn run(&self, context: &Context) -> Result<ExitCode> {
        run(self, context).map(|()| ExitCode::SUCCESS)
    }
}

fn run(args: &Create, context: &Context) -> Result<()> {
    let bundle = args.args.open(args.args.bundle.as_deref().unwrap_or(Path::new(".")))?;
    let signals = Signals::block()?;
    create(&bundle, &args.args.request(&args.id, Start::Later, &signals, context)).map(drop)
}
