//! `runtime list`: lists all containers of a root directory.

use super::Action;
use std::collections::HashMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};

use super::Context;
use super::table::table;
use crate::container::Container;
use crate::container::state::{Report, Status};
use crate::error::{Refusal, line, printable};

/// List containers
#[derive(Debug, clap::Args)]
pub struct List {
    /// Output format: table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: Format,
    /// Print only container IDs
    #[arg(short, long)]
    quiet: bool,
}

/// Output format of lists of processes and containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Table,
    Json,
}

impl FromStr for Format {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            _ => bail!("invalid format option {text:?} (must be \"table\" or \"json\")"),
        }
    }
}

impl Action for List {
    fn run(&self, context: &Context) -> Result<ExitCode> {
        run(self, context).map(|()| ExitCode::SUCCESS)
    }
}

fn run(args: &List, context: &Context) -> Result<()> {
    let mut containers: Vec<(Container, Status)> = Vec::new();
    for id in context.root.ids()? {
        let found = context.root.load(&id).and_then(|mut container| {
            let status = container.status()?;
            container.let_go();
            Ok((container, status))
        });
        match found {
            Ok(found) => containers.push(found),
            // Still being created, or deleted meanwhile.
            Err(error) if matches!(error.downcast_ref(), Some(Refusal::NoSuchContainer(_))) => {}
            Err(error) => {
                let _ =
                    writeln!(std::io::stderr().lock(), "load container {}: {}", id.as_str(), line(&error));
            }
        }
    }
    let text = if args.quiet {
        containers
            .iter()
            .fold(String::new(), |text, (container, _)| text + &printable::escape(&container.state.id) + "\n")
    } else {
        let owners = Owners::read();
        let owners: Vec<String> =
            containers.iter().map(|(container, _)| owners.name(container.state.owner)).collect();
        let reports: Vec<Report<'_>> = containers
            .iter()
            .zip(&owners)
            .map(|((container, status), owner)| container.report(*status, owner))
            .collect();
        match args.format {
            Format::Table => table(&rows(&reports), AT_LEAST),
            Format::Json => json(&reports)?,
        }
    };
    std::io::stdout().lock().write_all(text.as_bytes()).context("write to standard output")
}

/// An empty list is `null`, as in runc.
fn json(reports: &[Report<'_>]) -> Result<String> {
    let text = if reports.is_empty() { Ok("null".into()) } else { serde_json::to_string(reports) };
    text.map(|text| printable::json(text) + "\n").context("encode the list")
}

/// runc's minimum column width, including padding.
const AT_LEAST: usize = 12;

fn rows(reports: &[Report<'_>]) -> Vec<[String; 6]> {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    rows.extend(reports.iter().map(|report| {
        [
            report.id.to_owned(),
            report.pid.to_string(),
            report.status.to_string(),
            report.bundle.to_owned(),
            report.created.to_owned(),
            report.owner.to_owned(),
        ]
    }));
    rows
}

/// User names from /etc/passwd alone: a static program cannot use the C library's other sources.
pub(super) struct Owners(HashMap<u32, String>);

impl Owners {
    pub(super) fn read() -> Self {
        let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let users = text.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
        });
        // If an id has several names, the first one counts.
        let mut names = HashMap::new();
        for (number, name) in users {
            names.entry(number).or_insert(name);
        }
        Self(names)
    }

    pub(super) fn name(&self, user: u32) -> String {
        self.0.get(&user).cloned().unwrap_or_else(|| format!("#{user}"))
    }
}
