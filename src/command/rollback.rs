//! `runtime rollback`: limits that a container once had.

use std::io::Write as _;

use anyhow::{Context as _, Result, bail};

use super::list::Format;
use super::update::{dry_run, listed, make};
use crate::cli::{self, Context};
use crate::container::ContainerId;
use crate::revision::{Asker, Wanted};

/// Give a container the limits again that it had before
///
/// Without --to, those of the revision before the current one: two rollbacks are none. A rollback is a revision, too. As with
/// update, either all limits are as they were or nothing changes.
#[derive(Debug, clap::Args)]
pub struct Rollback {
    /// The revision whose limits it gets; history lists them
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
    /// Print what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Of --dry-run: table or json [default: table]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Name of the container
    #[arg(value_name = "ID")]
    id: ContainerId,
}

pub fn run(args: &Rollback, context: &Context<'_>) -> Result<()> {
    let wanted = Wanted::Rollback { to: args.to, from: None, reason: None };
    if args.dry_run {
        let format = args.format.unwrap_or(Format::Table);
        return dry_run(std::slice::from_ref(&args.id), &wanted, format, context);
    }
    if args.format.is_some() {
        bail!("--format requires --dry-run");
    }
    let by = Asker::of_this_process(context.words, cli::sudo_uid());
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
