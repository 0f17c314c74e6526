//! `runtime history`: the revisions of a container's limits.

use super::Action;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Context;
use super::list::{Format, Owners};
use super::table::table;
use crate::cgroup::change::{Change, shown};
use crate::container::ContainerId;
use crate::error::printable;
use crate::revision;
use crate::revision::{History as Revisions, Revision};

/// Show the history of a container's resource limits
///
/// Every update that changes a limit creates a revision, and so does every rollback. Revision 1 holds the limits the container
/// was created with; it and the latest nine are kept. The current revision is marked with *.
#[derive(Debug, clap::Args)]
pub struct History {
    /// Output format: table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: Format,
    /// Container ID
    #[arg(value_name = "ID")]
    id: ContainerId,
}

impl Action for History {
    fn run(&self, context: &Context) -> Result<ExitCode> {
        run(self, context).map(|()| ExitCode::SUCCESS)
    }
}

fn run(args: &History, context: &Context) -> Result<()> {
    let container = context.root.load(&args.id)?;
    let history = Revisions::of(&container.state)?;
    let owners = Owners::read();
    let current = history.current();
    let unfinished = revision::unfinished(&context.root, &args.id, &history)?;
    let text = match args.format {
        Format::Table => {
            let head = ["REVISION", "TIME", "USER", "CAUSE", "CHANGES"].map(str::to_owned);
            let rows = history.revisions().iter().map(|revision| row(revision, current, &owners));
            let text = table(&[head].into_iter().chain(rows).collect::<Vec<_>>(), 0);
            // Revision 1 has no changes: its last column is empty and would leave trailing blanks.
            let mut text: String =
                text.lines().map(|line| line.trim_end_matches(' ').to_owned() + "\n").collect();
            if !unfinished.is_empty() {
                let old = |change: &Change| format!("{} {}", change.file, shown(&change.from));
                let old = unfinished.iter().map(old).collect::<Vec<_>>().join(", ");
                let begin =
                    "an update was interrupted or is still running; the next update or rollback restores";
                text += &table(&[[format!("{begin}: {old}")]], 0);
            }
            text
        }
        Format::Json => {
            let revisions = history.revisions().iter().map(|revision| {
                let mut value = serde_json::to_value(revision).context("encode the history")?;
                value["user"] = owners.name(revision.by.uid).into();
                value["current"] = (revision.revision == current).into();
                if revision.revision == current && !unfinished.is_empty() {
                    value["unfinished"] = json!(unfinished);
                }
                if let (true, Some(resources)) = (revision.revision == current, &container.state.resources) {
                    value["resources"] =
                        serde_json::from_str(resources.get()).context("decode the resources")?;
                    // Revisions never change devices.
                    value["resources"].as_object_mut().map(|resources| resources.remove("devices"));
                }
                Ok(value)
            });
            let revisions: Vec<Value> = revisions.collect::<Result<_>>()?;
            printable::json(json!(revisions).to_string()) + "\n"
        }
    };
    std::io::stdout().lock().write_all(text.as_bytes()).context("write to standard output")
}

fn row(revision: &Revision, current: u64, owners: &Owners) -> [String; 5] {
    let number = match revision.revision == current {
        true => format!("{} *", revision.revision),
        false => revision.revision.to_string(),
    };
    let second = revision.time.split('.').next().unwrap_or_default().trim_end_matches('Z');
    let by = &revision.by;
    let user = match by.sudo_uid {
        Some(uid) => format!("{} (sudo {})", owners.name(by.uid), owners.name(uid)),
        None => owners.name(by.uid),
    };
    let changes: Vec<_> = revision.changes.iter().map(|change| change.to_string()).collect();
    [number, format!("{second}Z"), user, cause(revision), changes.join(", ")]
}

fn cause(revision: &Revision) -> String {
    let asked = || revision.by.command.clone().unwrap_or_else(|| "created".to_owned());
    match (revision.rollback_to, &revision.reason) {
        (Some(to), Some(reason)) => format!("rolled back to {to}: {reason}"),
        (Some(to), None) => format!("rolled back to {to}"),
        (None, _) => asked(),
    }
}
