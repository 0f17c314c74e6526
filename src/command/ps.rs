//! `runtime ps`: lists the processes of a container.

use super::Action;
use std::collections::HashSet;
use std::ffi::OsString;
use std::io::Write as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use super::Context;
use super::list::Format;
use crate::cgroup;
use crate::container::{Container, ContainerId};
use crate::error::printable;

/// List the processes of a container
///
/// The table is the output of the host's ps(1), run with the given options or -ef, limited to the container.
#[derive(Debug, clap::Args)]
pub struct Ps {
    /// Output format: table, or json for PIDs only
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: Format,
    /// Container ID, followed by options for ps(1)
    #[arg(value_name = "ID [PS_OPTION...]", required = true, trailing_var_arg = true)]
    words: Vec<OsString>,
}

impl Action for Ps {
    fn run(&self, context: &Context) -> Result<ExitCode> {
        run(self, context).map(|()| ExitCode::SUCCESS)
    }
}

fn run(args: &Ps, context: &Context) -> Result<()> {
    let id: ContainerId = args.words.first().and_then(|id| id.to_str()).unwrap_or_default().parse()?;
    let processes = processes(&context.root.load(&id)?)?;
    let text = match args.format {
        // As runc prints it for a container without processes.
        Format::Json if processes.is_empty() => b"null\n".to_vec(),
        Format::Json => {
            let mut text = serde_json::to_vec(&processes).context("encode the list")?;
            text.push(b'\n');
            text
        }
        Format::Table => of_these(&listing(args.words.get(1..).unwrap_or_default())?, &processes)?,
    };
    std::io::stdout().lock().write_all(&text).context("write to standard output")
}

/// The processes visible to this process: those in the container's cgroup or, without one, in its pid
/// namespace.
pub(super) fn processes(container: &Container) -> Result<Vec<i32>> {
    let state = &container.state;
    match state.cgroup() {
        Some(cgroup) => Ok(cgroup::processes(cgroup)),
        None if container.init()?.is_none() => Ok(Vec::new()),
        None if state.private_pid_namespace => container.in_pid_namespace(),
        None => bail!(
            "cannot tell the container's processes apart: it has neither its own cgroup nor its own pid namespace"
        ),
    }
}

/// The output of ps(1) for all processes.
fn listing(options: &[OsString]) -> Result<Vec<u8>> {
    let mut ps = Command::new("ps");
    if options.is_empty() {
        ps.arg("-ef");
    }
    let output = ps.args(options).output().context("run ps (it must be installed on this host)")?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("ps: {}: {}", output.status, String::from_utf8_lossy(&said).trim_end());
    }
    Ok(output.stdout)
}

/// The title line and the lines of `processes`.
fn of_these(listing: &[u8], processes: &[i32]) -> Result<Vec<u8>> {
    let words = |line: &'_ [u8]| -> Vec<Vec<u8>> {
        line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).map(<[u8]>::to_vec).collect()
    };
    let mut lines = listing.split_inclusive(|&byte| byte == b'\n');
    let title = lines.next().unwrap_or_default();
    let column = words(title).iter().position(|word| word == b"PID");
    let column = column.context("couldn't find PID field in ps output")?;
    let processes: HashSet<i32> = processes.iter().copied().collect();
    let mut kept = title.to_vec();
    for line in lines {
        let words = words(line);
        let Some(number) = words.get(column) else { continue };
        let number = String::from_utf8_lossy(number);
        let number: i32 = number.parse().with_context(|| format!("unable to parse pid: {number:?}"))?;
        if processes.contains(&number) {
            // The container chooses names and arguments, and not every ps(1) escapes them.
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            kept.extend_from_slice(printable::escape(&String::from_utf8_lossy(line)).as_bytes());
            kept.push(b'\n');
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_title_and_the_lines_of_the_containers_processes_stay() {
        let listing = b"  UID   PID CMD\nroot     1 init 7\nroot     7 sleep 1\nroot    77 sh\n";
        assert_eq!(of_these(listing, &[7, 9]).unwrap(), b"  UID   PID CMD\nroot     7 sleep 1\n");
        assert_eq!(of_these(listing, &[]).unwrap(), b"  UID   PID CMD\n");
    }

    #[test]
    fn a_process_cannot_control_the_terminal_by_its_name() {
        let listing = b"PID CMD\n7 \x1b[2Jsh\xc2\x9b\xff";
        assert_eq!(of_these(listing, &[7]).unwrap(), "PID CMD\n7 \\u{1b}[2Jsh\\u{9b}\u{fffd}\n".as_bytes());
    }

    #[test]
    fn a_listing_without_process_ids_is_refused() {
        let refused = |listing: &[u8]| of_these(listing, &[1]).unwrap_err().to_string();
        assert_eq!(refused(b"USER CMD\nroot sh\n"), "couldn't find PID field in ps output");
        assert_eq!(refused(b""), "couldn't find PID field in ps output");
        assert_eq!(refused(b"PID\nx\n"), "unable to parse pid: \"x\"");
    }
}
