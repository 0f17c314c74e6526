//! `runtime events`: streams a container's resource usage, OOM kills and end as JSON.

use super::Action;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration as Length, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::retry_on_intr;
use serde::Serialize;

use super::Context;
use crate::bundle::input;
use crate::cgroup;
use crate::cgroup::{OomWatch, Stats};
use crate::cli::duration::Duration;
use crate::container::ContainerId;
use crate::error::{Refusal, printable};

/// Stream events and statistics of a container as JSON
///
/// Prints one object per line, with type stats (resource usage), oom (the OOM killer ran in the container) or exit (the last one).
#[derive(Debug, clap::Args)]
pub struct Events {
    /// Print the container's current statistics and exit
    #[arg(long)]
    stats: bool,
    /// Interval between statistics, e.g. 5s, 250ms or 1h2m3.5s
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    interval: Duration,
    /// Container ID
    #[arg(value_name = "ID")]
    id: ContainerId,
}

/// One line; fields are named as in runc.
#[derive(Serialize)]
struct Event<'a> {
    r#type: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Stats>,
}

impl Action for Events {
    fn run(&self, context: &Context) -> Result<ExitCode> {
        run(self, context).map(|()| ExitCode::SUCCESS)
    }
}

fn run(args: &Events, context: &Context) -> Result<()> {
    if args.interval.0.is_zero() {
        bail!("--interval: must be greater than 0");
    }
    let container = context.root.load(&args.id)?;
    let id = args.id.as_str();
    let Some(init) = container.init()? else { return Err(Refusal::NotRunning(id.to_owned()).into()) };
    let cgroup = container.cgroup()?;
    if args.stats {
        return print(&Event { r#type: "stats", id, data: Some(cgroup::stats(cgroup)?) });
    }
    watch(id, cgroup, init.as_fd(), args.interval.0, container.oom_news())
}

/// Prints events until the init process has ended. `run` may remove the cgroup before this process looks, but
/// it writes to `news` first.
fn watch(
    id: &str,
    cgroup: &Path,
    init: BorrowedFd<'_>,
    interval: Length,
    mut news: Option<File>,
) -> Result<()> {
    let mut oom = OomWatch::new(cgroup)?;
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let has_ended = wait(init, oom.fds(), left)?;
        let told = has_ended.then(|| news.take()).flatten();
        let seen = oom.seen();
        if oom.has_killed()? || told.and_then(number).is_some_and(|kills| kills > seen) {
            print(&Event { r#type: "oom", id, data: None })?;
        }
        if has_ended {
            return tell_end(id);
        }
        if Instant::now() < next {
            continue;
        }
        match cgroup::stats(cgroup) {
            Ok(stats) => print(&Event { r#type: "stats", id, data: Some(stats) })?,
            // The init process has just ended and its cgroup is gone.
            Err(_) if wait(init, [], Length::ZERO)? => continue,
            Err(error) => return Err(error),
        }
        // Samples that are overdue are skipped.
        next = (next + interval).max(Instant::now());
    }
}

fn number(news: File) -> Option<u64> {
    String::from_utf8(input::text(news).ok()?).ok()?.parse().ok()
}

/// Prints the last line, which runc does not have: there the stream just ends.
fn tell_end(id: &str) -> Result<()> {
    print(&Event { r#type: "exit", id, data: None })
}

/// Waits until the init process ends or `oom` changes, at most for the given time; returns whether it has
/// ended.
fn wait<'a>(
    init: BorrowedFd<'a>,
    oom: impl IntoIterator<Item = BorrowedFd<'a>>,
    at_most: Length,
) -> Result<bool> {
    let timeout = Timespec::try_from(at_most).context("wait for an event")?;
    let mut waiting = vec![PollFd::from_borrowed_fd(init, PollFlags::IN)];
    waiting.extend(oom.into_iter().map(|oom| PollFd::from_borrowed_fd(oom, PollFlags::PRI)));
    retry_on_intr(|| rustix::event::poll(&mut waiting, Some(&timeout))).context("wait for an event")?;
    Ok(waiting.first().is_some_and(|init| !init.revents().is_empty()))
}

/// Prints a line in one write, so that readers see whole lines.
fn print(event: &Event<'_>) -> Result<()> {
    let line = serde_json::to_string(event).context("encode an event")?;
    let line = printable::json(line) + "\n";
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).context("write to standard output")
}
