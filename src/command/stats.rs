//! `runtime stats`: streams resource usage of containers, as a table or as JSON.

use super::Action;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::BorrowedFd;
use std::process::ExitCode;
use std::time::{Duration as Length, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::retry_on_intr;
use rustix::stdio;

use super::Context;
use super::list::Format;
use crate::cli::duration::Duration;
use crate::container::ContainerId;
use crate::error::printable;
use crate::host::terminal::keys::Key;
use crate::host::terminal::screen;
use crate::host::terminal::screen::{Event, Line, Screen, ScreenBuffer, Size};
use crate::monitor::text::Charset;
use crate::monitor::{Io, Meter, Sample, host_memory, lines, report, table};

/// The default interval.
pub(super) const INTERVAL: Length = Length::from_secs(1);
/// How long the first rates are measured: long enough to be meaningful, short enough to wait for.
pub(super) const FIRST: Length = Length::from_millis(500);

/// Stream resource usage of containers
///
/// Shows all running containers, or those given until they exit.
///
/// CPU % is relative to one CPU, since the previous sample. MEM excludes inactive file cache; MEM % is relative to the limit or,
/// without one, to the host's memory. PIDS counts threads. IO and NET are totals since the container was started, NET without
/// interface lo. PRESSURE is the percentage of the last 10 seconds in which some process was stalled on CPU, memory or I/O (PSI).
/// A dash means not available: the controller is not on cgroup v2, or the kernel does not measure it.
///
/// On a terminal the table is redrawn in place and fitted to its width; q or Ctrl-C quits. Otherwise, tables are separated by an
/// empty line.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Stats {
    /// Print one sample and exit
    #[arg(long)]
    no_stream: bool,
    /// Interval between samples, e.g. 5s or 250ms; with --no-stream, the period CPU % is measured over [default: 1s, or 500ms with --no-stream]
    #[arg(long, value_name = "DURATION")]
    interval: Option<Duration>,
    /// Output format: table, or json for one array of objects per line, in bytes and nanoseconds
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: Format,
    /// Container IDs
    #[arg(value_name = "ID")]
    ids: Vec<ContainerId>,
}

impl Action for Stats {
    fn run(&self, context: &Context) -> Result<ExitCode> {
        run(self, context).map(ExitCode::from)
    }
}

fn run(args: &Stats, context: &Context) -> Result<u8> {
    let interval = interval(args.interval)?;
    let mut meter = Meter::new(&context.root, &args.ids)?;
    let charset = Charset::of_stdout();
    let seen = meter.look()?;
    complain(&mut meter);
    if args.no_stream {
        let moment = Instant::now() + interval.unwrap_or(FIRST);
        if let WaitResult::Due = wait_until(moment, &[])? {
            print(&look(&mut meter, args.format, charset)?)?;
        }
        return Ok(0);
    }
    let interval = interval.unwrap_or(INTERVAL);
    let ended = match charset.filter(|_| args.format == Format::Table) {
        Some(charset) => paint(&mut meter, seen, interval, charset),
        None => stream(&mut meter, interval, args.format).map(|()| 0),
    };
    // Kept back until now so as not to disturb the table.
    complain(&mut meter);
    ended
}

/// Returns the interval given.
///
/// # Errors
/// If it is 0.
pub(super) fn interval(asked: Option<Duration>) -> Result<Option<Length>> {
    if asked.is_some_and(|interval| interval.0.is_zero()) {
        bail!("--interval: must be greater than 0");
    }
    Ok(asked.map(|interval| interval.0))
}

/// Reports, on standard error, containers that could not be measured.
pub(super) fn complain(meter: &mut Meter<'_>) {
    for complaint in meter.complaints() {
        let _ = writeln!(io::stderr().lock(), "{}", printable::escape(&complaint));
    }
}

/// Returns one sample in its printed form, as wide as the terminal if there is one.
fn look(meter: &mut Meter<'_>, format: Format, charset: Option<Charset>) -> Result<String> {
    let seen = meter.look()?;
    complain(meter);
    let host = host_memory().map(|memory| memory.total);
    if format == Format::Json {
        return report(&seen, host, SystemTime::now());
    }
    let room = charset.map(|_| screen::size().columns);
    let table = lines(&table(&seen, Io::Sums, host), room, charset.unwrap_or(Charset::Ascii));
    Ok(table.join("\n") + "\n")
}

/// Prints samples one after the other until nobody reads them.
fn stream(meter: &mut Meter<'_>, interval: Length, format: Format) -> Result<()> {
    let mut next = Instant::now() + interval.min(FIRST);
    let mut is_first = true;
    loop {
        let ends: Vec<_> = meter.ends().collect();
        match wait_until(next, &ends)? {
            WaitResult::Due => {}
            WaitResult::Ended => {
                meter.look()?;
                if meter.is_over() {
                    return Ok(());
                }
                continue;
            }
            WaitResult::Unread => return Ok(()),
        }
        let mut text = look(meter, format, None)?;
        if meter.is_over() {
            return Ok(());
        }
        if format == Format::Table && !std::mem::take(&mut is_first) {
            text.insert(0, '\n');
        }
        if !print(&text)? {
            return Ok(());
        }
        // Samples that are overdue are skipped.
        next = (next + interval).max(Instant::now());
    }
}

/// Why the wait ended.
enum WaitResult {
    Due,
    /// One of the descriptors is readable: a container has ended.
    Ended,
    /// Standard output has no reader any more.
    Unread,
}

fn wait_until(moment: Instant, ends: &[BorrowedFd<'_>]) -> Result<WaitResult> {
    loop {
        let left = moment.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).context("wait")?;
        let mut polled = vec![PollFd::from_borrowed_fd(stdio::stdout(), PollFlags::empty())];
        polled.extend(ends.iter().map(|end| PollFd::from_borrowed_fd(*end, PollFlags::IN)));
        let ready = retry_on_intr(|| rustix::event::poll(&mut polled, Some(&timeout))).context("wait")?;
        let is_unread = polled.first().is_some_and(|output| !output.revents().is_empty());
        match ready {
            _ if is_unread => return Ok(WaitResult::Unread),
            1.. => return Ok(WaitResult::Ended),
            _ if Instant::now() >= moment => return Ok(WaitResult::Due),
            _ => {}
        }
    }
}

/// Prints in one write, so that readers see whole tables; returns false if there is no reader any more.
fn print(text: &str) -> Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        result => result.map(|()| true).context("write to standard output"),
    }
}

/// Redraws the table in place on a terminal, beginning with `seen`. Returns the exit status.
fn paint(meter: &mut Meter<'_>, mut seen: Vec<Sample>, interval: Length, charset: Charset) -> Result<u8> {
    let mut screen = Screen::open(ScreenBuffer::Usual)?;
    let mut next = Instant::now() + interval.min(FIRST);
    loop {
        let host = host_memory().map(|memory| memory.total);
        let size = screen::size();
        let table = lines(&table(&seen, Io::Sums, host), Some(size.columns), charset);
        screen.paint(&picture(table, size));
        let ends: Vec<BorrowedFd<'_>> = meter.ends().collect();
        let event = screen.next(next, &ends)?;
        match event {
            Event::Due | Event::Ready => {
                seen = meter.look()?;
                if meter.is_over() {
                    return Ok(0);
                }
                if event == Event::Due {
                    next = (next + interval).max(Instant::now());
                }
            }
            Event::Key(Key::Letter('q')) | Event::Gone => return Ok(0),
            Event::Key(_) | Event::Spoilt => {}
            Event::End(signal) => return Ok(status(signal)),
        }
    }
}

/// The part of the table that fits the terminal, with one row left free; the last line counts what was cut
/// off.
fn picture(table: Vec<String>, size: Size) -> Vec<Line> {
    let room = size.rows.saturating_sub(1);
    let count = table.len();
    let mut lines: Vec<_> = table.into_iter().take(room).map(Line::plain).collect();
    if let Some(title) = lines.first_mut() {
        *title = Line::bold(std::mem::take(&mut title.text));
    }
    if count > room {
        if let Some(last) = lines.last_mut() {
            let text = format!("... and {} more", count - room + 1);
            *last = Line::plain(text.chars().take(size.columns).collect::<String>());
        }
    }
    lines
}

/// The exit status after a signal, as shells and docker have it: 128+N.
pub(super) fn status(signal: crate::host::signals::Signal) -> u8 {
    u8::try_from(signal.number() + 128).unwrap_or(u8::MAX)
}
