//! `runtime top`: resource usage of containers, full-screen.

use super::Action;
use crate::monitor::text::Charset;
use std::os::fd::BorrowedFd;
use std::process::ExitCode;
use std::time::{Duration as Length, Instant};

use anyhow::{Result, bail};

use super::stats::{FIRST, INTERVAL, complain, interval, status};
use super::{Context, ps};
use crate::cli::duration::Duration;
use crate::container::{ContainerId, Root};
use crate::error::line;
use crate::host::terminal::screen;
use crate::host::terminal::screen::{Event, Screen, ScreenBuffer};
use crate::monitor::screen::{Data, Then, View};
use crate::monitor::{Meter, Watch};

/// Show resource usage of containers interactively
///
/// Shows the host and all running containers or, if ID is given, one container and its processes. Keys: c, m, p, i and n sort by
/// CPU, memory, pids, I/O and name; the arrow keys select a container, enter shows its details, escape goes back, ? shows help,
/// q quits. `runtime stats` prints the same without a terminal.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Top {
    /// Refresh interval, e.g. 5s or 250ms [default: 1s]
    #[arg(long, value_name = "DURATION")]
    interval: Option<Duration>,
    /// Container ID
    #[arg(value_name = "ID")]
    id: Option<ContainerId>,
}

impl Action for Top {
    fn run(&self, context: &Context) -> Result<ExitCode> {
        run(self, context).map(ExitCode::from)
    }
}

fn run(args: &Top, context: &Context) -> Result<u8> {
    let interval = interval(args.interval)?.unwrap_or(INTERVAL);
    let Some(charset) = Charset::of_stdout() else {
        bail!(
            "standard output is not a capable terminal, or TERM is not set (use `runtime stats` to print a table)"
        );
    };
    let mut meter = Meter::new(&context.root, args.id.as_slice())?;
    let (mut data, mut watch) = (Data::new(), Watch::new());
    data.update(meter.look()?);
    complain(&mut meter);
    let mut view = View::new(args.id.as_ref().map(ContainerId::as_str), charset);
    look_at_processes(&mut data, &mut watch, &view, &context.root);
    let ended = paint(&mut meter, &mut data, &mut watch, &mut view, &context.root, interval);
    // Kept back until now so as not to disturb the screen.
    complain(&mut meter);
    ended
}

/// Redraws the screen until the user quits. Returns the exit status.
fn paint(
    meter: &mut Meter<'_>,
    data: &mut Data,
    watch: &mut Watch,
    view: &mut View,
    root: &Root,
    interval: Length,
) -> Result<u8> {
    let mut screen = Screen::open(ScreenBuffer::Alternate)?;
    let mut next = Instant::now() + interval.min(FIRST);
    loop {
        screen.paint(&view.lines(data, screen::size()));
        let ends: Vec<BorrowedFd<'_>> = meter.ends().collect();
        match screen.next(next, &ends)? {
            Event::Due => {
                data.update(meter.look()?);
                view.settle(data);
                look_at_processes(data, watch, view, root);
                next = (next + interval).max(Instant::now());
            }
            Event::Ready => drop(meter.look()?),
            Event::Key(key) => match view.press(key, data, screen::size()) {
                Then::Paint => {}
                Then::Look => look_at_processes(data, watch, view, root),
                Then::End => return Ok(0),
            },
            Event::Spoilt => {}
            Event::Gone => return Ok(0),
            Event::End(signal) => return Ok(status(signal)),
        }
        if meter.is_over() {
            return Ok(0);
        }
    }
}

/// Measures the processes of the container whose details are shown, if there is one.
fn look_at_processes(data: &mut Data, watch: &mut Watch, view: &View, root: &Root) {
    let Some(id) = view.alone().and_then(|id| id.parse().ok()) else { return };
    let pids = root.load(&id).and_then(|container| ps::processes(&container));
    data.update_processes(watch, pids.map_err(|error| line(&error)));
}
