//! The JSON output of `stats`. Key names are stable, and every object has all keys, with `null` for unknown
//! values.

use std::time::SystemTime;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::Sample;
use super::table::memory_share;
use crate::cgroup::{Limit, Transfers};
use crate::container::state::Status;
use crate::host::clock;

/// The report of one container. Amounts are in bytes since the container was created, rates in bytes per
/// second. Percentages are of one processor, of the limit, or of the time.
#[derive(Debug, Serialize)]
struct Report<'a> {
    id: &'a str,
    status: Status,
    pid: i32,
    /// The time of the sample: RFC 3339, UTC.
    time: &'a str,
    cpu_usage_ns: Option<u64>,
    /// Since the previous sample.
    cpu_percent: Option<f64>,
    cpu_limit_percent: Option<f64>,
    /// Without inactive file cache.
    memory_usage_bytes: Option<u64>,
    /// memory.current, unchanged.
    memory_current_bytes: Option<u64>,
    memory_limit_bytes: Option<u64>,
    memory_percent: Option<f64>,
    pids: Option<u64>,
    pids_limit: Option<u64>,
    io_read_bytes: Option<u64>,
    io_write_bytes: Option<u64>,
    io_read_bytes_per_second: Option<u64>,
    io_write_bytes_per_second: Option<u64>,
    net_rx_bytes: Option<u64>,
    net_tx_bytes: Option<u64>,
    net_rx_bytes_per_second: Option<u64>,
    net_tx_bytes_per_second: Option<u64>,
    cpu_pressure_percent: Option<f64>,
    memory_pressure_percent: Option<f64>,
    io_pressure_percent: Option<f64>,
    oom_kills: Option<u64>,
}

/// Formats one line: an array with an object for each of `rows`. `host` is as in [`super::table()`].
pub fn report(rows: &[Sample], host: Option<u64>, now: SystemTime) -> Result<String> {
    let time = clock::rfc3339_nanos(now);
    let reports: Vec<_> = rows.iter().map(|seen| of(seen, host, &time)).collect();
    serde_json::to_string(&reports).map(|text| text + "\n").context("encode the statistics")
}

fn of<'a>(seen: &'a Sample, host: Option<u64>, time: &'a str) -> Report<'a> {
    let usage = seen.usage.as_ref();
    let memory = usage.and_then(|usage| usage.memory);
    let pressure = usage.map(|usage| usage.pressure).unwrap_or_default();
    let (io, network) = (usage.and_then(|usage| usage.io), seen.network);
    let read = |transfers: Option<Transfers>| transfers.map(|transfers| transfers.read);
    let written = |transfers: Option<Transfers>| transfers.map(|transfers| transfers.written);
    Report {
        id: &seen.id,
        status: seen.status,
        pid: seen.pid,
        time,
        cpu_usage_ns: usage.and_then(|usage| usage.cpu_ns),
        cpu_percent: seen.rates.cpu.map(percent),
        cpu_limit_percent: usage.and_then(|usage| known(usage.cpu_limit)).map(percent),
        memory_usage_bytes: memory.map(|memory| memory.used()),
        memory_current_bytes: memory.map(|memory| memory.current),
        memory_limit_bytes: memory.and_then(|memory| known(memory.limit)),
        memory_percent: memory_share(seen, host).map(percent),
        pids: usage.and_then(|usage| usage.pids),
        pids_limit: usage.and_then(|usage| known(usage.pids_limit)),
        io_read_bytes: read(io),
        io_write_bytes: written(io),
        io_read_bytes_per_second: read(seen.rates.io),
        io_write_bytes_per_second: written(seen.rates.io),
        net_rx_bytes: read(network),
        net_tx_bytes: written(network),
        net_rx_bytes_per_second: read(seen.rates.network),
        net_tx_bytes_per_second: written(seen.rates.network),
        cpu_pressure_percent: pressure.cpu,
        memory_pressure_percent: pressure.memory,
        io_pressure_percent: pressure.io,
        oom_kills: usage.and_then(|usage| usage.oom_kills),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a percentage has few digits")]
fn percent(hundredths: u64) -> f64 {
    hundredths as f64 / 100.0
}

fn known(limit: Limit) -> Option<u64> {
    match limit {
        Limit::At(limit) => Some(limit),
        Limit::Unknown | Limit::Unlimited => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::monitor::tests::{bare, example};

    #[test]
    fn every_name_is_there_whether_or_not_anything_is_known() {
        assert_eq!(
            report(&[example("web")], None, UNIX_EPOCH).unwrap(),
            concat!(
                r#"[{"id":"web","status":"running","pid":4711,"time":"1970-01-01T00:00:00Z","#,
                r#""cpu_usage_ns":12345678000,"cpu_percent":25.13,"cpu_limit_percent":50.0,"#,
                r#""memory_usage_bytes":50331648,"memory_current_bytes":62914560,"memory_limit_bytes":67108864,"#,
                r#""memory_percent":75.0,"pids":3,"pids_limit":100,"io_read_bytes":5242880,"io_write_bytes":1536,"#,
                r#""io_read_bytes_per_second":1048576,"io_write_bytes_per_second":0,"net_rx_bytes":2048,"#,
                r#""net_tx_bytes":100,"net_rx_bytes_per_second":1024,"net_tx_bytes_per_second":50,"#,
                r#""cpu_pressure_percent":1.25,"memory_pressure_percent":0.0,"io_pressure_percent":12.5,"#,
                r#""oom_kills":1}]"#,
                "\n"
            )
        );
        assert_eq!(
            report(&[bare("bare")], None, UNIX_EPOCH).unwrap(),
            concat!(
                r#"[{"id":"bare","status":"running","pid":4711,"time":"1970-01-01T00:00:00Z","cpu_usage_ns":1000,"#,
                r#""cpu_percent":null,"cpu_limit_percent":null,"memory_usage_bytes":null,"#,
                r#""memory_current_bytes":null,"memory_limit_bytes":null,"memory_percent":null,"pids":1,"#,
                r#""pids_limit":null,"io_read_bytes":null,"io_write_bytes":null,"io_read_bytes_per_second":null,"#,
                r#""io_write_bytes_per_second":null,"net_rx_bytes":null,"net_tx_bytes":null,"#,
                r#""net_rx_bytes_per_second":null,"net_tx_bytes_per_second":null,"cpu_pressure_percent":null,"#,
                r#""memory_pressure_percent":null,"io_pressure_percent":null,"oom_kills":null}]"#,
                "\n"
            )
        );
        assert_eq!(report(&[], None, UNIX_EPOCH).unwrap(), "[]\n");
    }

    #[test]
    fn every_name_is_in_the_readme() {
        let text = report(&[bare("bare")], None, UNIX_EPOCH).unwrap();
        let reports: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(&text).unwrap();
        let readme = include_str!("../../README.md");
        for name in reports[0].keys() {
            assert!(readme.contains(&format!("`{name}`")), "{name}");
        }
    }
}
