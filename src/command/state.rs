//! `runtime state`: prints a container's state as JSON.

use super::Action;
use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::Context;
use crate::cli::fast_path;
use crate::container::ContainerId;
use crate::error::printable;

/// Print the state of a container as JSON
#[derive(Debug, PartialEq, clap::Args)]
pub struct State {
    /// Container ID
    #[arg(value_name = "ID")]
    id: ContainerId,
}

impl State {
    /// Parses a common command line without clap: the ID alone.
    pub fn usual(words: &[OsString]) -> Option<Self> {
        let [id] = fast_path::read(words, &[])?.rest else { return None };
        Some(Self { id: id.to_str()?.parse().ok()? })
    }
}

impl Action for State {
    fn run(&self, context: &Context) -> Result<ExitCode> {
        run(self, context).map(|()| ExitCode::SUCCESS)
    }
}

fn run(args: &State, context: &Context) -> Result<()> {
    let container = context.root.load(&args.id)?;
    let report = container.report(container.status()?, "");
    let mut text = serde_json::to_string_pretty(&report).map(printable::json).context("encode the state")?;
    let mut output = std::io::stdout().lock();
    // runc prints no newline at the end, which only matters on a terminal.
    if output.is_terminal() {
        text.push('\n');
    }
    output.write_all(text.as_bytes()).context("write to standard output")
}
