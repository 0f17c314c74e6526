//! The view of all containers, with the host above them.

use super::{Data, History, ORDERS, View, is_paused};
use crate::cgroup::Limit;
use crate::host::terminal::screen::{Line, Size, Style};
use crate::monitor::amounts::{bytes, hundredths, share};
use crate::monitor::columns::{Column, ColumnKind, lines};
use crate::monitor::table::{Io, or_unknown, percent, table};
use crate::monitor::text::Charset;

/// The minimum number of terminal rows for showing the host.
const ROWS_FOR_THE_HOST: usize = 12;
/// The minimum number of terminal rows for a title and a footer.
const ROWS_FOR_WORDS: usize = 6;

impl View {
    pub(super) fn all(&self, data: &Data, size: Size) -> Vec<Line> {
        let mut picture = Vec::new();
        if size.rows >= ROWS_FOR_WORDS {
            picture.push(Line::bold(title(data)));
        }
        if size.rows >= ROWS_FOR_THE_HOST {
            picture.extend(host(data, size, self.charset).map(Line::plain));
            picture.push(Line::plain(""));
        }
        let order = self.in_order(&data.seen);
        let rows: Vec<_> = order.iter().map(|seen| (*seen).clone()).collect();
        let mut columns = table(&rows, Io::Rates, data.host_memory());
        self.add_graphs(&mut columns, data, size);
        let mut table = lines(&columns, Some(size.columns), self.charset).into_iter();
        picture.extend(table.next().map(Line::bold));
        let footer = usize::from(size.rows >= ROWS_FOR_WORDS);
        let room = size.rows.saturating_sub(picture.len() + footer);
        let mark = self.mark(&data.seen);
        // Scroll so that the selected row is visible.
        let first = mark.saturating_sub(room.saturating_sub(1));
        let style = |row| if row == mark { Style::Inverse } else { Style::Plain };
        let rows = table.enumerate().skip(first).take(room);
        picture.extend(rows.map(|(row, text)| Line { text, style: style(row) }));
        if footer > 0 {
            picture.resize(size.rows.saturating_sub(1), Line::plain(""));
            picture.push(Line::plain(self.footer()));
        }
        picture
    }

    /// Inserts each graph after the column with its numbers.
    fn add_graphs(&self, columns: &mut Vec<Column>, data: &Data, size: Size) {
        let room = if size.columns >= 160 { 20 } else { 8 };
        let none = History::default();
        let graph = |rank, bars: &dyn Fn(&History, &super::Sample) -> String| Column {
            title: "HISTORY",
            kind: ColumnKind::Words { at_least: room },
            rank,
            cells: self
                .in_order(&data.seen)
                .iter()
                .map(|seen| vec![bars(data.history_of(seen).unwrap_or(&none), seen)])
                .collect(),
        };
        let cpu = graph(22, &|history, seen| {
            let limit = seen.usage.as_ref().map_or(Limit::Unknown, |usage| usage.cpu_limit);
            history.cpu_bars(limit, room, self.charset)
        });
        let memory = graph(24, &|history, seen| {
            let memory = seen.usage.as_ref().and_then(|usage| usage.memory);
            let limit = memory.map_or(Limit::Unknown, |memory| memory.limit);
            history.memory_bars(limit, data.host_memory(), room, self.charset)
        });
        columns.insert(2, cpu);
        columns.insert(4, memory);
    }

    fn footer(&self) -> String {
        let order = ORDERS.iter().find(|(_, order, _)| *order == self.order).map_or("", |(_, _, word)| word);
        format!("sort: {order}   q quit   ? help   c m p i n sort   enter details")
    }
}

fn title(data: &Data) -> String {
    let count = data.seen.len();
    let containers = if count == 1 { "container" } else { "containers" };
    match data.seen.iter().filter(is_paused).count() {
        0 => format!("{count} {containers}"),
        paused => format!("{count} {containers}, {paused} paused"),
    }
}

/// Three lines: processors, memory, load and pressure.
fn host(data: &Data, size: Size, charset: Charset) -> [String; 3] {
    let host = &data.host;
    let room = (size.columns / 4).min(40);
    let processors = if host.processors == 1 { "processor" } else { "processors" };
    let cpu = super::graph::bars(&data.host_history.cpu, 10_000, room, charset);
    let cpu = format!(
        "CPU   {cpu}  {:>6} % of {} {processors}",
        or_unknown(data.host_cpu.map(hundredths)),
        host.processors
    );
    let (total, used) = match host.memory {
        Some(memory) => (memory.total, Some(memory.total.saturating_sub(memory.available))),
        None => (0, None),
    };
    let graph = super::graph::bars(&data.host_history.memory, total, room, charset);
    let memory = format!(
        "MEM   {graph}  {:>6} % {} of {}",
        or_unknown(used.and_then(|used| share(used, total)).map(hundredths)),
        or_unknown(used.map(bytes)),
        or_unknown(host.memory.map(|memory| bytes(memory.total)))
    );
    let pressure = host.pressure;
    let rest = format!(
        "LOAD  {}   PRESSURE  cpu {}  memory {}  io {}",
        or_unknown(host.load.clone()),
        percent(pressure.cpu),
        percent(pressure.memory),
        percent(pressure.io)
    );
    [cpu, memory, rest]
}
