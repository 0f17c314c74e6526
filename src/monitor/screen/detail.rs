//! The view of one container with its processes.

use super::{Data, History, Order, Sample, View, highest_first};
use crate::cgroup::{Limit, Transfers};
use crate::host::terminal::screen::{Line, Size};
use crate::monitor::amounts::{bytes, hundredths};
use crate::monitor::columns::{Column, ColumnKind, lines};
use crate::monitor::processes::Process;
use crate::monitor::table::{memory_share, or_unknown, percent, shown};
use crate::monitor::text::{harmless, width};

/// The column where graphs begin, if the terminal is wide enough.
const GRAPHS_AT: usize = 52;
/// The maximum width of a graph.
const GRAPH: usize = 60;

impl View {
    pub(super) fn one(&self, id: &str, data: &Data, size: Size) -> Vec<Line> {
        let Some(seen) = data.seen.iter().find(|seen| seen.id == id) else {
            return vec![Line::bold(id)];
        };
        let mut picture = vec![Line::bold(format!("{id}  {}, pid {}", seen.status, seen.pid))];
        let room = size.rows.saturating_sub(2);
        let summary = self.summary(seen, data, size);
        picture.extend(summary.into_iter().take(room / 2).map(Line::plain));
        picture.push(Line::plain(""));
        match &data.processes {
            Err(why) => picture.push(Line::plain(why.clone())),
            Ok(processes) => {
                let mut table =
                    lines(&self.process_columns(processes), Some(size.columns), self.charset).into_iter();
                picture.extend(table.next().map(Line::bold));
                let room = size.rows.saturating_sub(picture.len() + 1);
                let first = self.scrolled.min(processes.len().saturating_sub(room));
                picture.extend(table.skip(first).take(room).map(Line::plain));
            }
        }
        picture.resize(size.rows.saturating_sub(1), Line::plain(""));
        let back = if self.is_of_one { "" } else { "   esc back" };
        picture.push(Line::plain(format!("q quit   ? help   c m n sort{back}")));
        picture
    }

    fn summary(&self, seen: &Sample, data: &Data, size: Size) -> Vec<String> {
        let usage = seen.usage.as_ref();
        let memory = usage.and_then(|usage| usage.memory);
        let memory_limit = memory.map_or(Limit::Unknown, |memory| memory.limit);
        let cpu_limit = usage.map_or(Limit::Unknown, |usage| usage.cpu_limit);
        let none = History::default();
        let history = data.history_of(seen).unwrap_or(&none);
        let room = size.columns.saturating_sub(GRAPHS_AT).min(GRAPH);
        let host = data.host_memory();
        let with_graph = |text: String, graph: String| match room {
            0..10 => text,
            _ => text.clone() + &" ".repeat(GRAPHS_AT.saturating_sub(width(&text))) + &graph,
        };
        let pressure = usage.map(|usage| usage.pressure).unwrap_or_default();
        vec![
            with_graph(
                format!(
                    "CPU       {} % of {}",
                    or_unknown(seen.rates.cpu.map(hundredths)),
                    shown(cpu_limit, |limit| hundredths(limit) + " %")
                ),
                history.cpu_bars(cpu_limit, room, self.charset),
            ),
            with_graph(
                format!(
                    "MEMORY    {} of {} ({} %)",
                    or_unknown(memory.map(|memory| bytes(memory.used()))),
                    shown(memory_limit, bytes),
                    or_unknown(memory_share(seen, host).map(hundredths))
                ),
                history.memory_bars(memory_limit, host, room, self.charset),
            ),
            format!(
                "          plus {} inactive file cache; OOM kills: {}",
                or_unknown(memory.map(|memory| bytes(memory.inactive_file))),
                or_unknown(usage.and_then(|usage| usage.oom_kills).map(|kills| kills.to_string()))
            ),
            format!(
                "PIDS      {} of {}",
                or_unknown(usage.and_then(|usage| usage.pids).map(|pids| pids.to_string())),
                shown(usage.map_or(Limit::Unknown, |usage| usage.pids_limit), |limit| limit.to_string())
            ),
            format!(
                "IO        {}",
                transfers("read", "written", usage.and_then(|usage| usage.io), seen.rates.io)
            ),
            format!("NETWORK   {}", transfers("received", "sent", seen.network, seen.rates.network)),
            format!(
                "PRESSURE  cpu {}  memory {}  io {}",
                percent(pressure.cpu),
                percent(pressure.memory),
                percent(pressure.io)
            ),
        ]
    }

    fn process_columns(&self, processes: &[Process]) -> Vec<Column> {
        let order = highest_first(processes, |process| match self.order {
            Order::Cpu => process.cpu,
            Order::Memory => Some(process.resident),
            Order::Pids | Order::Io | Order::Name => None,
        });
        let column = |title, kind, rank, cell: &dyn Fn(&Process) -> String| Column {
            title,
            kind,
            rank,
            cells: order.iter().map(|process| vec![cell(process)]).collect(),
        };
        vec![
            column("PID", ColumnKind::Numbers { at_least: 7 }, 0, &|process| process.pid.to_string()),
            column("S", ColumnKind::Words { at_least: 1 }, 1, &|process| process.state.to_string()),
            column("THREADS", ColumnKind::Numbers { at_least: 1 }, 3, &|process| process.threads.to_string()),
            column("CPU %", ColumnKind::Numbers { at_least: 6 }, 0, &|process| {
                or_unknown(process.cpu.map(hundredths))
            }),
            column("RSS", ColumnKind::Numbers { at_least: 7 }, 2, &|process| bytes(process.resident)),
            column("COMMAND", ColumnKind::Words { at_least: 10 }, 0, &|process| {
                harmless(&process.command, self.charset)
            }),
        ]
    }
}

/// Formats the totals since the container was created and the amounts per second.
fn transfers(read: &str, written: &str, sums: Option<Transfers>, rates: Option<Transfers>) -> String {
    let one = |word: &str, of: fn(Transfers) -> u64| {
        let (sum, rate) = (or_unknown(sums.map(of).map(bytes)), or_unknown(rates.map(of).map(bytes)));
        format!("{sum} {word} ({rate}/s)")
    };
    format!("{}, {}", one(read, |transfers| transfers.read), one(written, |transfers| transfers.written))
}
