//! The views of `top`: all containers with the host above them, one container with its processes, and the
//! keys.
//!
//! Handling a key and laying out a [`View`] for a terminal size are pure.

mod detail;
mod list;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::host::Host;
use super::processes::{Process, Watch};
use super::text::{Charset, cut};
use super::{Sample, graph};
use crate::cgroup::Limit;
use crate::container::state::Status;
use crate::host::terminal::keys::Key;
use crate::host::terminal::screen::{Line, Size, Style};

/// How many past values are kept: more than any terminal is wide.
const KEPT: usize = 512;

/// The values for graphs, oldest first.
#[derive(Debug, Default)]
struct History {
    /// In hundredths of a percent of one processor.
    cpu: Vec<Option<u64>>,
    /// In bytes.
    memory: Vec<Option<u64>>,
}

impl History {
    fn remember(&mut self, cpu: Option<u64>, memory: Option<u64>) {
        for (values, value) in [(&mut self.cpu, cpu), (&mut self.memory, memory)] {
            if values.len() == KEPT {
                values.remove(0);
            }
            values.push(value);
        }
    }

    /// A full bar is the limit or, without one, one processor or the highest value, whichever is more.
    fn cpu_bars(&self, limit: Limit, room: usize, charset: Charset) -> String {
        let full = match limit {
            Limit::At(limit) => limit,
            _ => highest(&self.cpu).max(10_000),
        };
        graph::bars(&self.cpu, full, room, charset)
    }

    /// A full bar is the limit or, without one, the memory of the host.
    fn memory_bars(&self, limit: Limit, host: Option<u64>, room: usize, charset: Charset) -> String {
        let full = match (limit, host) {
            (Limit::At(limit), _) => limit,
            (_, Some(host)) => host,
            (_, None) => highest(&self.memory),
        };
        graph::bars(&self.memory, full, room, charset)
    }
}

fn highest(values: &[Option<u64>]) -> u64 {
    values.iter().flatten().copied().max().unwrap_or(0)
}

/// The data to show.
#[derive(Debug)]
pub struct Data {
    host: Host,
    /// The share of all processors used since the previous sample, in hundredths of a percent.
    host_cpu: Option<u64>,
    host_history: History,
    seen: Vec<Sample>,
    /// By container name, with the pid of the init process, so that a new container of the same name starts a
    /// new history.
    history: BTreeMap<String, (i32, History)>,
    /// The processes of the container shown alone, or why they are unknown.
    processes: Result<Vec<Process>, String>,
}

impl Data {
    /// No data yet.
    pub fn new() -> Self {
        Self {
            host: Host::default(),
            host_cpu: None,
            host_history: History::default(),
            seen: Vec::new(),
            history: BTreeMap::new(),
            processes: Ok(Vec::new()),
        }
    }

    /// Adds a sample of all containers.
    pub fn update(&mut self, seen: Vec<Sample>) {
        let host = Host::look();
        self.host_cpu = host.cpu_since(&self.host);
        self.host_history
            .remember(self.host_cpu, host.memory.map(|memory| memory.total.saturating_sub(memory.available)));
        self.host = host;
        self.history.retain(|id, _| seen.iter().any(|seen| seen.id == *id));
        for seen in &seen {
            let memory = seen.usage.as_ref().and_then(|usage| usage.memory);
            let (pid, history) = self.history.entry(seen.id.clone()).or_default();
            if std::mem::replace(pid, seen.pid) != seen.pid {
                *history = History::default();
            }
            history.remember(seen.rates.cpu, memory.map(|memory| memory.used()));
        }
        self.seen = seen;
    }

    fn history_of(&self, seen: &Sample) -> Option<&History> {
        self.history.get(&seen.id).map(|(_, history)| history)
    }

    /// In bytes.
    fn host_memory(&self) -> Option<u64> {
        self.host.memory.map(|memory| memory.total)
    }

    /// Samples the processes `pids`.
    pub fn update_processes(&mut self, watch: &mut Watch, pids: Result<Vec<i32>, String>) {
        self.processes = pids.map(|pids| watch.look(&pids));
    }
}

/// Sorts by key, highest first; items with equal keys keep their order.
fn highest_first<T>(all: &[T], key: impl Fn(&T) -> Option<u64>) -> Vec<&T> {
    let keys = all.iter().map(key).collect();
    places(keys).into_iter().filter_map(|place| all.get(place)).collect()
}

fn places(keys: Vec<Option<u64>>) -> Vec<usize> {
    let mut keys: Vec<_> = keys.into_iter().map(Reverse).zip(0..).collect();
    keys.sort_unstable();
    keys.into_iter().map(|(_, place)| place).collect()
}

/// The sort order of containers or processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Cpu,
    Memory,
    Pids,
    Io,
    Name,
}

/// The key for each order, and its name.
const ORDERS: [(char, Order, &str); 5] = [
    ('c', Order::Cpu, "cpu"),
    ('m', Order::Memory, "memory"),
    ('p', Order::Pids, "pids"),
    ('i', Order::Io, "io"),
    ('n', Order::Name, "name"),
];

/// The state of the view.
#[derive(Debug)]
pub struct View {
    charset: Charset,
    order: Order,
    /// The name of the selected container; if there is none of that name, the first one is selected.
    marked: Option<String>,
    /// The name of the container shown alone.
    alone: Option<String>,
    /// Whether `top` was called for a single container.
    is_of_one: bool,
    /// How many processes have been scrolled past.
    scrolled: usize,
    shows_help: bool,
}

/// What to do after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Paint,
    /// A different container is shown, so its processes must be sampled first.
    Look,
    End,
}

impl View {
    /// A view of all containers, or of one.
    pub fn new(one: Option<&str>, charset: Charset) -> Self {
        Self {
            charset,
            order: Order::Cpu,
            marked: None,
            alone: one.map(str::to_owned),
            is_of_one: one.is_some(),
            scrolled: 0,
            shows_help: false,
        }
    }

    /// The name of the container shown alone.
    pub fn alone(&self) -> Option<&str> {
        self.alone.as_deref()
    }

    /// Handles a key.
    pub fn press(&mut self, key: Key, data: &Data, size: Size) -> Then {
        if key == Key::Letter('q') {
            return Then::End;
        }
        if self.shows_help {
            self.shows_help = false;
            return Then::Paint;
        }
        match key {
            Key::Letter('?' | 'h') => self.shows_help = true,
            Key::Escape | Key::Backspace if self.alone.is_some() && !self.is_of_one => self.alone = None,
            Key::Escape => return Then::End,
            Key::Enter if self.alone.is_none() => {
                self.alone = self.in_order(&data.seen).get(self.mark(&data.seen)).map(|seen| seen.id.clone());
                self.scrolled = 0;
                return Then::Look;
            }
            Key::Letter(letter) => {
                if let Some((_, order, _)) =
                    ORDERS.iter().find(|(key, _, _)| *key == letter.to_ascii_lowercase())
                {
                    self.order = *order;
                }
            }
            key => self.move_by(key, data, size),
        }
        Then::Paint
    }

    fn move_by(&mut self, key: Key, data: &Data, size: Size) {
        let (place, count) = match &self.alone {
            Some(_) => (self.scrolled, data.processes.as_ref().map_or(0, Vec::len)),
            None => (self.mark(&data.seen), data.seen.len()),
        };
        let page = size.rows / 2;
        let place = match key {
            Key::Up => place.saturating_sub(1),
            Key::Down => place + 1,
            Key::PageUp => place.saturating_sub(page),
            Key::PageDown => place + page,
            Key::Home => 0,
            Key::End => count,
            _ => place,
        };
        let place = place.min(count.saturating_sub(1));
        match &self.alone {
            Some(_) => self.scrolled = place,
            None => self.marked = self.in_order(&data.seen).get(place).map(|seen| seen.id.clone()),
        }
    }

    /// If the container shown alone has stopped, returns to the view of all.
    pub fn settle(&mut self, data: &Data) {
        if self.alone.as_ref().is_some_and(|id| !data.seen.iter().any(|seen| seen.id == *id))
            && !self.is_of_one
        {
            self.alone = None;
        }
    }

    fn in_order<'a>(&self, seen: &'a [Sample]) -> Vec<&'a Sample> {
        let key: fn(&Sample) -> Option<u64> = match self.order {
            Order::Cpu => |seen| seen.rates.cpu,
            Order::Memory => |seen| Some(seen.usage.as_ref()?.memory?.used()),
            Order::Pids => |seen| seen.usage.as_ref()?.pids,
            Order::Io => |seen| seen.rates.io.map(|io| io.read.saturating_add(io.written)),
            Order::Name => |_| None,
        };
        // They are already sorted by name.
        highest_first(seen, key)
    }

    /// The row of the selected container.
    fn mark(&self, seen: &[Sample]) -> usize {
        let is_marked = |seen: &&Sample| Some(&seen.id) == self.marked.as_ref();
        self.in_order(seen).iter().position(is_marked).unwrap_or(0)
    }

    /// Lays out the view for a terminal of this size.
    pub fn lines(&self, data: &Data, size: Size) -> Vec<Line> {
        let mut lines = if self.shows_help {
            self.help()
        } else {
            match self.alone() {
                Some(id) => self.one(id, data, size),
                None => self.all(data, size),
            }
        };
        lines.truncate(size.rows);
        for line in &mut lines {
            line.text = cut(&line.text, size.columns, self.charset);
            if line.style == Style::Inverse {
                let blanks = size.columns.saturating_sub(super::text::width(&line.text));
                line.text.push_str(&" ".repeat(blanks));
            }
        }
        lines
    }

    fn help(&self) -> Vec<Line> {
        let text = "\
Keys

  c m p i n     sort by cpu, memory, pids, io, name
  up, down      select a container, or scroll its processes; also page up, page down, home, end
  enter         show details of the selected container
  escape        back to the list of containers; quit when there
  q             quit
  ?             this help

CPU %           100 % is one CPU
MEM             without inactive file cache; % of the limit or, without one, of the host's memory
HISTORY         scaled to the limit; without one, to one CPU or the host's memory
PRESSURE        % of the last 10 seconds in which some process was stalled (some avg10)
-               not available: the controller is not on cgroup v2, or the kernel does not measure it";
        let mut lines: Vec<_> = text.lines().map(Line::plain).collect();
        if let Some(title) = lines.first_mut() {
            title.style = Style::Bold;
        }
        lines
    }
}

fn is_paused(seen: &&Sample) -> bool {
    seen.status == Status::Paused
}

#[cfg(test)]
mod tests;
