//! The table of `stats`, one row per container.

use super::Sample;
use super::amounts::{bytes, hundredths, share};
use super::columns::{Column, ColumnKind};
use crate::cgroup::{Limit, Transfers};
use crate::container::state::Status;

/// What the transfer columns show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// Totals since the container was created.
    Sums,
    /// Bytes per second.
    Rates,
}

/// Shown for unknown values.
const UNKNOWN: &str = "-";
/// The maximum width of an amount in bytes, so that columns do not move from one table to the next.
const AMOUNT: ColumnKind = ColumnKind::Numbers { at_least: 7 };
const PERCENTAGE: ColumnKind = ColumnKind::Numbers { at_least: 6 };

/// Returns the columns of the table. `host` is the host's memory in bytes, which limits containers without a
/// limit.
pub fn table(rows: &[Sample], io: Io, host: Option<u64>) -> Vec<Column> {
    let column = |title, kind, rank, cell: &dyn Fn(&Sample) -> Vec<String>| Column {
        title,
        kind,
        rank,
        cells: rows.iter().map(cell).collect(),
    };
    let transfers = |sums: Option<Transfers>, rates: Option<Transfers>| {
        let told = if io == Io::Sums { sums } else { rates };
        [told.map(|told| told.read), told.map(|told| told.written)]
            .map(|amount| or_unknown(amount.map(bytes)))
            .into()
    };
    let (io_title, network_title) = match io {
        Io::Sums => ("IO READ / WRITE", "NET RX / TX"),
        Io::Rates => ("IO READ/S / WRITE/S", "NET RX/S / TX/S"),
    };
    vec![
        column("ID", ColumnKind::Words { at_least: 12 }, 0, &|seen| vec![seen.id.clone()]),
        column("CPU %", PERCENTAGE, 0, &|seen| vec![cpu(seen)]),
        column("MEM USAGE / LIMIT", AMOUNT, 10, &memory),
        column("MEM %", PERCENTAGE, 40, &|seen| vec![or_unknown(memory_share(seen, host).map(hundredths))]),
        column("PIDS / LIMIT", ColumnKind::Numbers { at_least: 3 }, 20, &pids),
        column(io_title, AMOUNT, 30, &|seen| {
            transfers(seen.usage.as_ref().and_then(|usage| usage.io), seen.rates.io)
        }),
        column(network_title, AMOUNT, 60, &|seen| transfers(seen.network, seen.rates.network)),
        column("PRESSURE CPU / MEM / IO", ColumnKind::Numbers { at_least: 4 }, 50, &pressure),
    ]
}

/// The CPU usage or, if the container is not running, its status.
fn cpu(seen: &Sample) -> String {
    match seen.status {
        Status::Running => or_unknown(seen.rates.cpu.map(hundredths)),
        other => other.to_string(),
    }
}

fn memory(seen: &Sample) -> Vec<String> {
    let memory = seen.usage.as_ref().and_then(|usage| usage.memory);
    let limit = memory.map_or(Limit::Unknown, |memory| memory.limit);
    vec![or_unknown(memory.map(|memory| bytes(memory.used()))), shown(limit, bytes)]
}

/// The share of the limit or, without one, of the host's memory, as in Docker.
pub(super) fn memory_share(seen: &Sample, host: Option<u64>) -> Option<u64> {
    let memory = seen.usage.as_ref()?.memory?;
    let whole = match (memory.limit, host) {
        (Limit::At(limit), Some(host)) => limit.min(host),
        (Limit::At(limit), None) => limit,
        (_, host) => host?,
    };
    share(memory.used(), whole)
}

fn pids(seen: &Sample) -> Vec<String> {
    let usage = seen.usage.as_ref();
    let limit = usage.map_or(Limit::Unknown, |usage| usage.pids_limit);
    vec![
        or_unknown(usage.and_then(|usage| usage.pids).map(|count| count.to_string())),
        shown(limit, |limit| limit.to_string()),
    ]
}

fn pressure(seen: &Sample) -> Vec<String> {
    let pressure = seen.usage.as_ref().map(|usage| usage.pressure).unwrap_or_default();
    [pressure.cpu, pressure.memory, pressure.io].map(percent).into()
}

/// Formats a percentage calculated by the kernel.
pub(super) fn percent(value: Option<f64>) -> String {
    or_unknown(value.map(|value| format!("{value:.1}")))
}

pub(super) fn shown(limit: Limit, shown: impl Fn(u64) -> String) -> String {
    match limit {
        Limit::Unknown => UNKNOWN.to_owned(),
        Limit::Unlimited => "max".to_owned(),
        Limit::At(limit) => shown(limit),
    }
}

pub(super) fn or_unknown(text: Option<String>) -> String {
    text.unwrap_or_else(|| UNKNOWN.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::columns::lines;
    use crate::monitor::tests::{bare, example};
    use crate::monitor::text::{Charset, width};

    fn rows() -> Vec<Sample> {
        let mut paused = example("a-name-that-is-longer-than-it-need-be");
        paused.status = Status::Paused;
        let mut unlimited = example("db");
        let usage = unlimited.usage.as_mut().unwrap();
        usage.memory.as_mut().unwrap().limit = Limit::Unlimited;
        usage.pids_limit = Limit::Unlimited;
        vec![example("web"), paused, unlimited, bare("bare"), Sample { usage: None, ..bare("none") }]
    }

    fn shown_in(room: Option<usize>) -> Vec<String> {
        lines(&table(&rows(), Io::Sums, Some(480 << 20)), room, Charset::Utf8)
    }

    #[test]
    fn a_wide_terminal_and_a_pipe_have_all_columns() {
        assert_eq!(
            shown_in(Some(200)),
            [
                "ID                                      CPU %  MEM USAGE / LIMIT   MEM %  PIDS / LIMIT    IO READ / WRITE        NET RX / TX  PRESSURE CPU / MEM / IO",
                "web                                     25.13  48.0MiB / 64.0MiB   75.00       3 / 100  5.00MiB / 1.50KiB  2.00KiB /    100B        1.2 /  0.0 / 12.5",
                "a-name-that-is-longer-than-it-need-be  paused  48.0MiB / 64.0MiB   75.00       3 / 100  5.00MiB / 1.50KiB  2.00KiB /    100B        1.2 /  0.0 / 12.5",
                "db                                      25.13  48.0MiB /     max   10.00       3 / max  5.00MiB / 1.50KiB  2.00KiB /    100B        1.2 /  0.0 / 12.5",
                "bare                                        -        - /       -       -       1 /   -        - /       -        - /       -          - /    - /    -",
                "none                                        -        - /       -       -       - /   -        - /       -        - /       -          - /    - /    -",
            ]
        );
        assert_eq!(shown_in(None), shown_in(Some(200)));
    }

    #[test]
    fn eighty_columns_have_what_matters_most() {
        assert_eq!(
            shown_in(Some(80)),
            [
                "ID             CPU %  MEM USAGE / LIMIT   MEM %  PIDS / LIMIT    IO READ / WRITE",
                "web            25.13  48.0MiB / 64.0MiB   75.00       3 / 100  5.00MiB / 1.50KiB",
                "a-name-that…  paused  48.0MiB / 64.0MiB   75.00       3 / 100  5.00MiB / 1.50KiB",
                "db             25.13  48.0MiB /     max   10.00       3 / max  5.00MiB / 1.50KiB",
                "bare               -        - /       -       -       1 /   -        - /       -",
                "none               -        - /       -       -       - /   -        - /       -",
            ]
        );
    }

    #[test]
    fn forty_columns_have_a_little() {
        assert_eq!(
            shown_in(Some(40)),
            [
                "ID              CPU %  MEM USAGE / LIMIT",
                "web             25.13  48.0MiB / 64.0MiB",
                "a-name-that-…  paused  48.0MiB / 64.0MiB",
                "db              25.13  48.0MiB /     max",
                "bare                -        - /       -",
                "none                -        - /       -",
            ]
        );
    }

    #[test]
    fn nothing_is_wider_than_the_terminal() {
        for room in 1..220 {
            assert!(shown_in(Some(room)).iter().all(|line| width(line) <= room));
        }
    }

    #[test]
    fn rates_are_told_instead_of_sums() {
        let lines = lines(&table(&[example("web")], Io::Rates, None), None, Charset::Utf8);
        assert!(lines[0].contains("IO READ/S / WRITE/S") && lines[1].contains("1.00MiB /"), "{lines:#?}");
    }

    #[test]
    fn a_limit_above_the_hosts_memory_limits_nothing() {
        let mut large = example("a");
        large.usage.as_mut().unwrap().memory.as_mut().unwrap().limit = Limit::At(960 << 20);
        assert_eq!(memory_share(&large, Some(480 << 20)), Some(1_000));
        assert_eq!(memory_share(&large, None), Some(500));
    }
}
