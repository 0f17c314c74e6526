//! Resource usage of the whole host: /proc/stat, /proc/meminfo, /proc/loadavg and /proc/pressure; proc(5).
//! Values that cannot be read are `None`.

use std::fs::read_to_string;

use super::amounts::share;
use crate::cgroup::{Pressure, avg10};

/// A sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Host {
    pub processors: u64,
    time: Option<Time>,
    /// In bytes.
    pub memory: Option<HostMemory>,
    /// The load averages over 1, 5 and 15 minutes, as written by the kernel.
    pub load: Option<String>,
    pub pressure: Pressure,
}

/// CPU time since boot of all processors together, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Time {
    idle: u64,
    all: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostMemory {
    pub total: u64,
    /// What programs can allocate without swapping.
    pub available: u64,
}

impl Host {
    /// Takes a sample.
    pub fn look() -> Self {
        let pressure = |name| avg10(&read_to_string(format!("/proc/pressure/{name}")).ok()?, "some");
        let stat = read_to_string("/proc/stat").unwrap_or_default();
        Self {
            processors: processors(&stat),
            time: time(&stat),
            memory: memory(),
            load: read_to_string("/proc/loadavg").ok().and_then(|text| load(&text)),
            pressure: Pressure { cpu: pressure("cpu"), memory: pressure("memory"), io: pressure("io") },
        }
    }

    /// The share of all processors used since `before`, in hundredths of a percent.
    pub fn cpu_since(&self, before: &Self) -> Option<u64> {
        let (before, now) = (before.time?, self.time?);
        let all = now.all.checked_sub(before.all)?;
        // The idle time can decrease slightly; proc_stat(5).
        share(all.saturating_sub(now.idle.saturating_sub(before.idle)), all)
    }
}

/// The memory of the host.
pub fn memory() -> Option<HostMemory> {
    parse_memory(&read_to_string("/proc/meminfo").ok()?)
}

fn parse_memory(text: &str) -> Option<HostMemory> {
    let kib = |key: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    Some(HostMemory {
        total: kib("MemTotal")?.checked_mul(1024)?,
        available: kib("MemAvailable")?.checked_mul(1024)?,
    })
}

/// Counts the lines of single processors, `cpu0 …`, which follow the one for all.
fn processors(stat: &str) -> u64 {
    let lines =
        stat.lines().filter(|line| line.strip_prefix("cpu").is_some_and(|rest| !rest.starts_with(' ')));
    u64::try_from(lines.count()).unwrap_or(u64::MAX)
}

/// Parses `cpu  USER NICE SYSTEM IDLE IOWAIT IRQ SOFTIRQ STEAL GUEST GUEST_NICE`. Guest time is already
/// included in the first two.
fn time(stat: &str) -> Option<Time> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let numbers: Vec<u64> =
        line.split_ascii_whitespace().map_while(|number| number.parse().ok()).take(8).collect();
    let idle = numbers.get(3)?.saturating_add(numbers.get(4).copied().unwrap_or(0));
    Some(Time { idle, all: numbers.iter().copied().fold(0, u64::saturating_add) })
}

fn load(text: &str) -> Option<String> {
    let words: Vec<_> = text.split_ascii_whitespace().take(3).collect();
    (words.len() == 3).then(|| words.join(" "))
}

#[cfg(any(test, feature = "fuzzing"))]
/// For fuzz targets: parses each of these files with arbitrary contents.
pub fn parse(text: &str) {
    let host = Host {
        processors: processors(text),
        time: time(text),
        memory: parse_memory(text),
        ..Host::default()
    };
    let later =
        Host { time: host.time.map(|Time { idle, all }| Time { idle: idle / 2, all }), ..host.clone() };
    host.cpu_since(&later);
    later.cpu_since(&host);
    load(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_the_processors_is_what_was_not_idle() {
        let host = |stat: &str| Host { processors: processors(stat), time: time(stat), ..Host::default() };
        let before = host("cpu  100 0 100 700 100 0 0 0 50 0\ncpu0 1 1\ncpu1 1 1\nintr 5\n");
        let now = host("cpu  120 0 105 770 105 0 0 0 60 0\ncpu0 1 1\ncpu1 1 1\nintr 5\n");
        assert_eq!(now.processors, 2);
        assert_eq!(now.cpu_since(&before), Some(2_500));
        assert_eq!(now.cpu_since(&now), None);
        assert_eq!(before.cpu_since(&now), None);
        assert_eq!(host("").cpu_since(&now), None);
    }

    #[test]
    fn memory_and_load_are_the_kernels() {
        let text = "MemTotal:        4000 kB\nMemFree:  1 kB\nMemAvailable:    1000 kB\n";
        assert_eq!(parse_memory(text), Some(HostMemory { total: 4_096_000, available: 1_024_000 }));
        assert_eq!(parse_memory("MemTotal: 1 kB\n"), None);
        assert_eq!(load("0.10 0.20 0.30 1/234 5678\n").as_deref(), Some("0.10 0.20 0.30"));
        assert_eq!(load("0.10"), None);
    }
}
