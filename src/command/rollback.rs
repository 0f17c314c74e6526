//! `runtime rollback`: restores earlier limits.

use super::Action;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use super::Context;
use super::list::Format;
use super::update::{dry_run, listed, make};
use crate::container::ContainerId;
use crate::revision::{Requester, Wanted};

/// Restore earlier resource limits of a container
///
/// Without --to, the limits of the previous revision are restored; a second rollback undoes the first. A rollback creates a new
/// revision. As with update, either all limits are restored or none.
#[derive(Debug, clap::Args)]
pub struct Rollback {
    /// Revision to restore, as listed by history
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
    /// Print the changes without applying them
    #[arg(long)]
    dry_run: bool,
    /// Output format of --dry-run: table or json [default: table]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Container ID
    #[arg(value_name = "ID")]
    id: ContainerId,
}

impl Action for Rollback {
    fn run(&self, context: &Context) -> Result<ExitCode> {
        run(self, context).map(|()| ExitCode::SUCCESS)
    }
}

fn run(args: &Rollback, context: &Context) -> Result<()> {
    let wanted = Wanted::Rollback { to: args.to, from: None, reason: None };
    if args.dry_run {
        let format = args.format.unwrap_or(Format::Table);
        return dry_run(std::slice::from_ref(&args.id), &wanted, format, context);
    }
    if args.format.is_some() {
        bail!("--format requires --dry-run");
    }
    let by = Requester::of_this_process(&context.words, crate::host::environment::sudo_uid());
    let made = make(&args.id, &wanted, &by, context)?;
    let (id, to) = (args.id.as_str(), made.rollback_to.unwrap_or(made.before));
    let put_back = !made.put_back.is_empty();
    let mut text = String::new();
    if put_back {
        let changes = listed(&made.put_back);
        text = format!("{id}: reverted an unfinished update: {changes}\n");
    }
    text += &match made.revision {
        None if put_back && args.to.is_none() => format!("{id}: limits of revision {to} restored\n"),
        Some(revision) => format!("{id}: rolled back to revision {to}, as revision {revision}\n"),
        None => format!("{id}: already has the limits of revision {to}\n"),
    };
    std::io::stdout().lock().write_all(text.as_bytes()).context("write to standard output")
}
