//! The usage of a cgroup for `stats` and `top`: a few numbers that are read often, each of which may be
//! unknown; cgroup-v2.rst § Controllers.
//!
//! `stats.rs` reads all statistics in runc's format, in which unknown numbers are zero.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Instant;

use rustix::process::Pid;

use super::stats::{Files, number};
use super::{control_file, removal};

/// A snapshot of the usage of a cgroup and those below it. `None` if it lacks the controller, or the kernel
/// the feature.
#[derive(Clone, Debug, PartialEq)]
pub struct Usage {
    /// When the CPU time was read (monotonic clock).
    pub at: Instant,
    pub cpu_ns: Option<u64>,
    /// The CPU limit in hundredths of a percent: 10,000 is one CPU.
    pub cpu_limit: Limit,
    pub memory: Option<Memory>,
    /// The number of threads, which is what the pids controller counts; without it they are counted in /proc.
    pub pids: Option<u64>,
    pub pids_limit: Limit,
    /// Summed over all devices, in bytes.
    pub io: Option<Transfers>,
    pub pressure: Pressure,
    /// How many processes the OOM killer has killed.
    pub oom_kills: Option<u64>,
}

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Unknown,
    Unlimited,
    At(u64),
}

/// In bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All memory that is charged.
    pub current: u64,
    /// Of that, page cache that was not used recently, which the kernel reclaims first.
    pub inactive_file: u64,
    pub limit: Limit,
}

impl Memory {
    /// Returns the usage as docker shows it.
    pub fn used(&self) -> u64 {
        self.current.saturating_sub(self.inactive_file)
    }
}

/// In bytes. For a network, `read` is received, `written` is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfers {
    pub read: u64,
    pub written: u64,
}

/// The share of the last ten seconds, in percent, in which at least one process was stalled;
/// Documentation/accounting/psi.rst.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    pub cpu: Option<f64>,
    pub memory: Option<f64>,
    pub io: Option<f64>,
}

/// Reads the usage of the cgroup at `path`; `None` if it is gone or cannot be opened.
pub fn usage(path: &Path) -> Option<Usage> {
    let dir = control_file::open_dir(path).ok()?;
    let files = Files(dir.as_fd());
    let pressure = |name| avg10(&files.text(name)?, "some");
    let at = Instant::now();
    let cpu_ns = files.text("cpu.stat").and_then(|stat| cpu_ns(&stat));
    let pids = files.number("pids.current");
    Some(Usage {
        at,
        cpu_ns,
        cpu_limit: files.text("cpu.max").map_or(Limit::Unknown, |text| cpu_limit(&text)),
        memory: memory(&files),
        pids: pids.or_else(|| Some(threads(&removal::tasks(path)))),
        pids_limit: limit(&files, "pids.max"),
        io: files.text("io.stat").map(|stat| transfers(&stat)),
        pressure: Pressure {
            cpu: pressure("cpu.pressure"),
            memory: pressure("memory.pressure"),
            io: pressure("io.pressure"),
        },
        oom_kills: files
            .text("memory.events")
            .and_then(|text| number(control_file::value(&text, "oom_kill")?)),
    })
}

fn cpu_ns(stat: &str) -> Option<u64> {
    number(control_file::value(stat, "usage_usec")?)?.checked_mul(1000)
}

/// Parses `QUOTA PERIOD` in microseconds; the quota may be `max`.
fn cpu_limit(text: &str) -> Limit {
    let mut words = text.split_ascii_whitespace();
    let (quota, period) = (words.next(), words.next().and_then(number).filter(|period| *period > 0));
    match (quota, period) {
        (Some("max"), _) => Limit::Unlimited,
        (Some(quota), Some(period)) => {
            let hundredths = number(quota).and_then(|quota| Some(quota.checked_mul(10_000)? / period));
            hundredths.map_or(Limit::Unknown, Limit::At)
        }
        _ => Limit::Unknown,
    }
}

fn memory(files: &Files<'_>) -> Option<Memory> {
    let current = files.number("memory.current")?;
    let stat = files.text("memory.stat").unwrap_or_default();
    let inactive_file = control_file::value(&stat, "inactive_file").and_then(number).unwrap_or(0);
    Some(Memory { current, inactive_file, limit: limit(files, "memory.max") })
}

fn limit(files: &Files<'_>, name: &str) -> Limit {
    match files.text(name).as_deref().map(str::trim) {
        None => Limit::Unknown,
        Some("max") => Limit::Unlimited,
        Some(text) => number(text).map_or(Limit::Unknown, Limit::At),
    }
}

/// Counts the threads of these processes. One that has exited counts as none.
fn threads(processes: &[Pid]) -> u64 {
    let of = |pid: &Pid| std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    processes.iter().map(of).map(|count| u64::try_from(count).unwrap_or(u64::MAX)).sum()
}

/// Sums over the lines of io.stat: `8:0 rbytes=1 wbytes=2 rios=3 …`.
fn transfers(stat: &str) -> Transfers {
    let sum = |key: &str| {
        let values =
            stat.split_ascii_whitespace().filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        values.filter_map(number).fold(0, u64::saturating_add)
    };
    Transfers { read: sum("rbytes"), written: sum("wbytes") }
}

/// Returns the share of the last ten seconds, in percent, in which `some` or all (`full`) processes were
/// stalled, from `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`. The file can exist and be empty.
pub fn avg10(text: &str, who: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(who)?.strip_prefix(' '))?;
    let share = line.split_ascii_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
    share.parse().ok().filter(|share: &f64| share.is_finite())
}

#[cfg(any(test, feature = "fuzzing"))]
/// For fuzz targets: runs every parser on `text`.
pub(super) fn parse(text: &str) {
    cpu_ns(text);
    cpu_limit(text);
    transfers(text);
    assert!(avg10(text, "some").is_none_or(f64::is_finite), "{text:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates a plain directory with these files, in place of a cgroup.
    fn read(files: &[(&str, &str)]) -> Usage {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        usage(directory.path()).unwrap()
    }

    #[test]
    fn a_cgroup_with_every_controller_tells_all() {
        let usage = read(&[
            ("cpu.stat", "usage_usec 12\nuser_usec 4\nsystem_usec 8\n"),
            ("cpu.max", "25000 100000\n"),
            ("memory.current", "100\n"),
            ("memory.stat", "anon 60\nfile 40\ninactive_file 30\n"),
            ("memory.max", "400\n"),
            ("memory.events", "low 0\nhigh 0\nmax 6\noom 1\noom_kill 2\n"),
            ("pids.current", "3\n"),
            ("pids.max", "9\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4\n7:1 rbytes=10 dbytes=5\n254:16 \n"),
            ("cpu.pressure", "some avg10=1.50 avg60=0.00 avg300=0.00 total=12\n"),
            (
                "memory.pressure",
                "some avg10=0.07 avg60=0.00 avg300=0.00 total=3\nfull avg10=9.00 avg60=0.00 avg300=0.00 total=3\n",
            ),
            ("io.pressure", "some avg10=100.00 avg60=0.00 avg300=0.00 total=3\n"),
        ]);
        let memory = Memory { current: 100, inactive_file: 30, limit: Limit::At(400) };
        let expected = Usage {
            at: usage.at,
            cpu_ns: Some(12_000),
            cpu_limit: Limit::At(2_500),
            memory: Some(memory),
            pids: Some(3),
            pids_limit: Limit::At(9),
            io: Some(Transfers { read: 11, written: 2 }),
            pressure: Pressure { cpu: Some(1.5), memory: Some(0.07), io: Some(100.0) },
            oom_kills: Some(2),
        };
        assert_eq!(usage, expected);
        assert_eq!(memory.used(), 70);
    }

    #[test]
    fn what_there_is_no_file_for_is_not_known() {
        let usage = read(&[("cpu.stat", "usage_usec 1\n"), ("cpu.pressure", ""), ("cgroup.procs", "")]);
        let expected = Usage {
            at: usage.at,
            cpu_ns: Some(1000),
            cpu_limit: Limit::Unknown,
            memory: None,
            pids: Some(0),
            pids_limit: Limit::Unknown,
            io: None,
            pressure: Pressure::default(),
            oom_kills: None,
        };
        assert_eq!(usage, expected);
        assert_eq!(super::usage(Path::new("/nonexistent")), None);
    }

    #[test]
    fn threads_are_counted_where_the_controller_is_not() {
        let own = format!("{}\n", std::process::id());
        assert!(read(&[("cgroup.procs", &own)]).pids >= Some(1));
    }

    #[test]
    fn a_limit_is_none_a_number_or_not_known() {
        for (text, limit) in [
            ("max 100000\n", Limit::Unlimited),
            ("150000 100000\n", Limit::At(15_000)),
            ("1000 0\n", Limit::Unknown),
            ("", Limit::Unknown),
            ("18446744073709551615 100000", Limit::Unknown),
        ] {
            assert_eq!(cpu_limit(text), limit, "{text:?}");
        }
        let unlimited = read(&[("memory.current", "1"), ("memory.max", "max\n"), ("pids.max", "max\n")]);
        assert_eq!(unlimited.memory.unwrap().limit, Limit::Unlimited);
        assert_eq!(unlimited.pids_limit, Limit::Unlimited);
    }
}
