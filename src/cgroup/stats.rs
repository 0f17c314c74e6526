//! The statistics of a cgroup in the format of runc's `events`: the field names are cgroup v1's, the numbers
//! come from cgroup v2 files; cgroup-v2.rst § Controllers.
//!
//! A missing file (the cgroup lacks the controller, or the kernel the feature) is not an error: the value is
//! zero or absent. Which fields are omitted when zero follows runc 1.5, field by field.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::Dir;
use serde::{Serialize, Serializer};

use super::control_file;

/// A snapshot of a cgroup's statistics.
#[derive(Debug, Default, Serialize)]
pub struct Stats {
    cpu: Cpu,
    cpuset: CpuSet,
    memory: Memory,
    pids: Pids,
    blkio: BlockIo,
    /// By page size, such as `2MB`.
    hugetlb: BTreeMap<String, HugePages>,
    intel_rdt: Nothing,
    /// Always null: runc fills it only for networks that it creates itself, which no client uses.
    network_interfaces: Option<Nothing>,
}

#[derive(Debug, Default, Serialize)]
struct Nothing {}

#[derive(Debug, Default, Serialize)]
struct Cpu {
    #[serde(skip_serializing_if = "is_default")]
    usage: CpuUsage,
    #[serde(skip_serializing_if = "is_default")]
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

/// In nanoseconds.
#[derive(Debug, Default, PartialEq, Serialize)]
struct CpuUsage {
    #[serde(skip_serializing_if = "is_default")]
    total: u64,
    kernel: u64,
    user: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    #[serde(skip_serializing_if = "is_default")]
    periods: u64,
    #[serde(skip_serializing_if = "is_default")]
    throttled_periods: u64,
    /// In nanoseconds.
    #[serde(skip_serializing_if = "is_default")]
    throttled_time: u64,
}

/// From files that only cgroup v1 has; always 0.
#[derive(Debug, Default, Serialize)]
struct CpuSet {
    cpu_exclusive: u64,
    mem_hardwall: u64,
    mem_exclusive: u64,
    memory_migrate: u64,
    memory_spread_page: u64,
    memory_spread_slab: u64,
    memory_pressure: u64,
    sched_load_balance: u64,
    sched_relax_domain_level: i64,
}

#[derive(Debug, Default, Serialize)]
struct Memory {
    #[serde(skip_serializing_if = "is_default")]
    cache: u64,
    #[serde(skip_serializing_if = "is_default")]
    usage: Usage,
    /// Memory plus swap.
    #[serde(skip_serializing_if = "is_default")]
    swap: Usage,
    /// memory.stat, unchanged.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

/// In bytes; a limit of `u64::MAX` means unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Usage {
    limit: u64,
    #[serde(skip_serializing_if = "is_default")]
    usage: u64,
    #[serde(skip_serializing_if = "is_default")]
    max: u64,
    /// How often the limit was hit.
    failcnt: u64,
}

#[derive(Debug, Default, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "is_default")]
    current: u64,
    /// 0 if unlimited.
    #[serde(skip_serializing_if = "is_default")]
    limit: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct BlockIo {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Vec<Transfer>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Vec<Transfer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Transfer {
    #[serde(skip_serializing_if = "is_default")]
    major: u64,
    #[serde(skip_serializing_if = "is_default")]
    minor: u64,
    op: &'static str,
    #[serde(skip_serializing_if = "is_default")]
    value: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct HugePages {
    #[serde(skip_serializing_if = "is_default")]
    usage: u64,
    failcnt: u64,
}

/// Pressure stall information; Documentation/accounting/psi.rst.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Pressure {
    some: Stall,
    full: Stall,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Stall {
    avg10: Percent,
    avg60: Percent,
    avg300: Percent,
    /// In microseconds.
    total: u64,
}

/// A percentage, serialized as Go does: without decimals if they are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Percent(f64);

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match format!("{}", self.0).parse::<u64>() {
            Ok(whole) => serializer.serialize_u64(whole),
            Err(_) => serializer.serialize_f64(self.0),
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Reads the statistics of the cgroup at `path`.
///
/// # Errors
/// The cgroup is gone.
pub fn stats(path: &Path) -> Result<Stats> {
    let dir = control_file::open_dir(path).with_context(|| format!("open cgroup {}", path.display()))?;
    let files = Files(dir.as_fd());
    let pressure = |name| files.text(name).as_deref().and_then(pressure);
    Ok(Stats {
        cpu: Cpu { psi: pressure("cpu.pressure"), ..cpu(&files.text("cpu.stat").unwrap_or_default()) },
        memory: Memory { psi: pressure("memory.pressure"), ..memory(&files) },
        pids: pids(&files),
        blkio: BlockIo {
            psi: pressure("io.pressure"),
            ..block_io(&files.text("io.stat").unwrap_or_default())
        },
        hugetlb: huge_pages(&files),
        ..Stats::default()
    })
}

/// The files of a cgroup.
pub(super) struct Files<'a>(pub(super) BorrowedFd<'a>);

impl Files<'_> {
    pub(super) fn text(&self, name: &str) -> Option<String> {
        control_file::read(self.0, name).ok()
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.text(name).as_deref().and_then(number)
    }
}

/// Parses a number; `max` is `u64::MAX`.
pub(super) fn number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        digits => digits.parse().ok(),
    }
}

/// Returns the value of `key` in a file of `key value` lines, or 0.
fn counter(text: &str, key: &str) -> u64 {
    control_file::value(text, key).and_then(number).unwrap_or(0)
}

/// Parses cpu.stat, which every cgroup has; the throttling fields are there only with the cpu controller.
fn cpu(stat: &str) -> Cpu {
    let nanos = |key| counter(stat, key).saturating_mul(1000);
    Cpu {
        usage: CpuUsage {
            total: nanos("usage_usec"),
            kernel: nanos("system_usec"),
            user: nanos("user_usec"),
        },
        throttling: Throttling {
            periods: counter(stat, "nr_periods"),
            throttled_periods: counter(stat, "nr_throttled"),
            throttled_time: nanos("throttled_usec"),
        },
        psi: None,
    }
}

fn memory(files: &Files<'_>) -> Memory {
    let Some(usage) = files.number("memory.current") else { return Memory::default() };
    let stat = files.text("memory.stat").unwrap_or_default();
    let raw: BTreeMap<String, u64> = stat
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(key, value)| Some((key.to_owned(), number(value)?)))
        .collect();
    let usage = Usage {
        limit: files.number("memory.max").unwrap_or(0),
        usage,
        // Since Linux 5.19.
        max: files.number("memory.peak").unwrap_or(0),
        failcnt: counter(&files.text("memory.events").unwrap_or_default(), "max"),
    };
    let swap = |name| files.number(name).unwrap_or(0);
    Memory {
        cache: raw.get("file").copied().unwrap_or(0),
        usage,
        // No `max`: memory and swap need not have peaked at the same time, so the peak of the sum is unknown.
        swap: Usage {
            limit: swap("memory.swap.max").saturating_add(usage.limit),
            usage: swap("memory.swap.current").saturating_add(usage.usage),
            ..Usage::default()
        },
        raw,
        psi: None,
    }
}

fn pids(files: &Files<'_>) -> Pids {
    match files.number("pids.current") {
        Some(current) => {
            let limit = files.number("pids.max").filter(|limit| *limit != u64::MAX);
            Pids { current, limit: limit.unwrap_or(0) }
        }
        // Without the controller, count the processes; a threaded cgroup lists only threads.
        None => {
            let list =
                files.text("cgroup.procs").or_else(|| files.text("cgroup.threads")).unwrap_or_default();
            Pids { current: u64::try_from(list.lines().count()).unwrap_or(u64::MAX), limit: 0 }
        }
    }
}

/// Parses io.stat: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …` per device.
fn block_io(stat: &str) -> BlockIo {
    let mut io = BlockIo::default();
    for line in stat.lines() {
        let mut words = line.split_ascii_whitespace();
        let device = words.next().and_then(|device| device.split_once(':'));
        let Some((Some(major), Some(minor))) = device.map(|(major, minor)| (number(major), number(minor)))
        else {
            continue;
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut io.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut io.io_service_bytes_recursive, "Write"),
                "rios" => (&mut io.io_serviced_recursive, "Read"),
                "wios" => (&mut io.io_serviced_recursive, "Write"),
                _ => continue,
            };
            list.push(Transfer { major, minor, op, value: number(value).unwrap_or(0) });
        }
    }
    io
}

/// Reads the usage of each page size: reserved pages where the kernel counts them (since Linux 5.7), else
/// pages in use.
fn huge_pages(files: &Files<'_>) -> BTreeMap<String, HugePages> {
    let names = Dir::read_from(files.0).into_iter().flatten().flatten();
    let sizes = names.filter_map(|entry| {
        let name = entry.file_name().to_str().ok()?;
        Some(name.strip_prefix("hugetlb.")?.strip_suffix(".events")?.to_owned())
    });
    let of = |size: &str| HugePages {
        usage: files
            .number(&format!("hugetlb.{size}.rsvd.current"))
            .or_else(|| files.number(&format!("hugetlb.{size}.current")))
            .unwrap_or(0),
        failcnt: counter(&files.text(&format!("hugetlb.{size}.events")).unwrap_or_default(), "max"),
    };
    sizes.map(|size| (size.clone(), of(&size))).collect()
}

/// Parses `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` and the same for `full`. The file can exist and be
/// empty.
fn pressure(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    let mut is_told = false;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let stall = match words.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            // JSON has no NaN or infinity.
            let share = Percent(value.parse().ok().filter(|share: &f64| share.is_finite()).unwrap_or(0.0));
            match key {
                "avg10" => stall.avg10 = share,
                "avg60" => stall.avg60 = share,
                "avg300" => stall.avg300 = share,
                "total" => stall.total = number(value).unwrap_or(0),
                _ => {}
            }
        }
        is_told = true;
    }
    is_told.then_some(pressure)
}

#[cfg(any(test, feature = "fuzzing"))]
/// For fuzz targets: runs every parser on `text`.
pub(super) fn parse(text: &str) {
    number(text);
    cpu(text);
    if let Ok(io) = serde_json::to_string(&block_io(text)) {
        assert!(serde_json::from_str::<serde_json::Value>(&io).is_ok(), "{io}");
    }
    if let Some(Ok(pressure)) = pressure(text).map(|pressure| serde_json::to_string(&pressure)) {
        assert!(!pressure.contains("null"), "{pressure}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(value: &impl Serialize) -> String {
        serde_json::to_string(value).unwrap()
    }

    /// Reads the statistics of a plain directory with these files, in place of a cgroup.
    fn read(files: &[(&str, &str)]) -> String {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        json(&stats(directory.path()).unwrap())
    }

    const CPUSET: &str = r#""cpuset":{"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"sched_relax_domain_level":0}"#;

    #[test]
    fn a_cgroup_without_controllers_has_little_to_tell() {
        assert_eq!(
            read(&[("cpu.stat", "usage_usec 0\nuser_usec 0\nsystem_usec 0\n"), ("cgroup.procs", "7\n9\n")]),
            format!(
                r#"{{"cpu":{{}},{CPUSET},"memory":{{}},"pids":{{"current":2}},"blkio":{{}},"hugetlb":{{}},"intel_rdt":{{}},"network_interfaces":null}}"#
            )
        );
    }

    #[test]
    fn a_cgroup_that_is_gone_is_an_error() {
        assert!(stats(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn processor_times_are_in_nanoseconds() {
        let stat = "usage_usec 12\nuser_usec 4\nsystem_usec 8\nnice_usec 0\nnr_periods 5\nnr_throttled 2\nthrottled_usec 700\n";
        assert_eq!(
            json(&cpu(stat)),
            r#"{"usage":{"total":12000,"kernel":8000,"user":4000},"throttling":{"periods":5,"throttledPeriods":2,"throttledTime":700000}}"#
        );
    }

    #[test]
    fn swap_is_told_together_with_memory() {
        let files = [
            ("memory.current", "100\n"),
            ("memory.max", "400\n"),
            ("memory.peak", "300\n"),
            ("memory.events", "low 0\nhigh 0\nmax 6\noom 1\noom_kill 1\n"),
            ("memory.swap.current", "20\n"),
            ("memory.swap.max", "50\n"),
            ("memory.stat", "file 30\nanon 70\n"),
        ];
        let memory = r#""memory":{"cache":30,"usage":{"limit":400,"usage":100,"max":300,"failcnt":6},"swap":{"limit":450,"usage":120,"failcnt":0},"raw":{"anon":70,"file":30}}"#;
        assert!(read(&files).contains(memory), "{}", read(&files));
        let unlimited = read(&[("memory.current", "1"), ("memory.max", "max"), ("memory.swap.max", "7")]);
        let limit = u64::MAX;
        let memory = format!(
            r#""memory":{{"usage":{{"limit":{limit},"usage":1,"failcnt":0}},"swap":{{"limit":{limit},"usage":1,"failcnt":0}}}}"#
        );
        assert!(unlimited.contains(&memory), "{unlimited}");
    }

    #[test]
    fn no_limit_of_pids_is_told_as_none() {
        assert!(read(&[("pids.current", "3\n"), ("pids.max", "max\n")]).contains(r#""pids":{"current":3}"#));
        assert!(
            read(&[("pids.current", "3\n"), ("pids.max", "9\n")])
                .contains(r#""pids":{"current":3,"limit":9}"#)
        );
    }

    #[test]
    fn transfers_are_told_by_device_and_direction() {
        let stat =
            "8:0 rbytes=1 wbytes=0 rios=3 wios=4 dbytes=5 dios=6\n254:16 \n7:1 rbytes=9\nunknown rbytes=1\n";
        assert_eq!(
            json(&block_io(stat)),
            r#"{"ioServiceBytesRecursive":[{"major":8,"op":"Read","value":1},{"major":8,"op":"Write"},{"major":7,"minor":1,"op":"Read","value":9}],"ioServicedRecursive":[{"major":8,"op":"Read","value":3},{"major":8,"op":"Write","value":4}]}"#
        );
    }

    #[test]
    fn huge_pages_are_told_by_size() {
        let files = [
            ("hugetlb.2MB.events", "max 3\n"),
            ("hugetlb.2MB.current", "1"),
            ("hugetlb.2MB.rsvd.current", "4194304\n"),
            ("hugetlb.1GB.events", "max 0\n"),
            ("hugetlb.1GB.current", "0\n"),
            ("hugetlb.1GB.events.local", "max 0\n"),
        ];
        let told = r#""hugetlb":{"1GB":{"failcnt":0},"2MB":{"usage":4194304,"failcnt":3}}"#;
        assert!(read(&files).contains(told), "{}", read(&files));
    }

    #[test]
    fn pressure_is_told_in_numbers_as_go_writes_them() {
        let text = "some avg10=1.50 avg60=0.00 avg300=100.00 total=12\nfull avg10=0.07 avg60=0.00 avg300=0.00 total=3\n";
        assert_eq!(
            json(&pressure(text).unwrap()),
            r#"{"some":{"avg10":1.5,"avg60":0,"avg300":100,"total":12},"full":{"avg10":0.07,"avg60":0,"avg300":0,"total":3}}"#
        );
        assert_eq!(pressure(""), None);
    }
}
