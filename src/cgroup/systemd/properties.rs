//! The unit properties for a container's limits. Pure.
//!
//! systemd rewrites the control files that it manages at any time: at `daemon-reload`, and when another unit
//! in the slice starts or stops. So its properties must agree with the control files. Limits without a
//! property are only written to control files.
//!
//! Sources: systemd.resource-control(5), org.freedesktop.systemd1(5).

use std::borrow::Cow;

use crate::cgroup::resources::{Limits, WhenRefused, Write};
use crate::error::Pointer;
use crate::host::dbus::Value;

/// A unit property.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Property {
    pub(super) name: Cow<'static, str>,
    pub(super) value: Value,
    /// Where in `config.json` it comes from.
    pub(super) at: Pointer,
    /// The first version of systemd that knows it.
    pub(super) since: u32,
}

impl Property {
    pub(super) fn new(name: impl Into<Cow<'static, str>>, value: Value, at: Pointer) -> Self {
        Self { name: name.into(), value, at, since: 0 }
    }

    fn since(self, since: u32) -> Self {
        Self { since, ..self }
    }
}

/// "infinity" for all numeric properties.
const INFINITY: u64 = u64::MAX;

/// The highest CPU or memory node number supported, plus one: each is a bit.
const MOST_BITS: usize = 8192;

/// Rounds cpu.max up to whole percents of a CPU, as in runc: systemd keeps no finer quota, so another value
/// would change at the next `daemon-reload`.
pub(super) fn round(limits: &mut Limits) {
    for write in limits.writes.iter_mut().filter(|write| write.file == "cpu.max") {
        if let Some((Some(quota), Some(period))) = cpu_max(&write.value) {
            let rounded =
                per_second(quota, period).and_then(|us| us.checked_mul(period)).map(|us| us / 1_000_000);
            // Exact for periods that are multiples of 100 µs; otherwise never less than what was asked for.
            let rounded = rounded.map_or(quota, |rounded| rounded.max(quota));
            if rounded != quota {
                write.value = format!("{rounded} {period}");
            }
        }
    }
}

/// Returns the properties for `limits`. If a file is written twice, the last value counts.
pub(super) fn plan(limits: &Limits) -> Vec<Property> {
    let mut properties: Vec<Property> = Vec::new();
    for write in &limits.writes {
        for property in of(write) {
            properties.retain(|other| other.name != property.name);
            properties.push(property);
        }
    }
    properties
}

/// Returns the OOM policy, i.e. whether the OOM killer kills the whole scope. It must be set when the scope
/// is started: systemd does not allow changing it.
pub(super) fn oom_policy(limits: &Limits) -> Option<Property> {
    let write = limits.writes.iter().rev().find(|write| write.file == "memory.oom.group")?;
    let policy = match write.value.trim() {
        "0" => "continue",
        "1" => "kill",
        _ => return None,
    };
    Some(Property::new("OOMPolicy", Value::text(policy), write.at.clone()).since(253))
}

fn of(write: &Write) -> Vec<Property> {
    let property = |name: &'static str, value| Property::new(name, value, write.at.clone());
    let number = |name| number(&write.value).map(|number| property(name, Value::Uint64(number)));
    let bits = |name| bits(&write.value).map(|bits| property(name, Value::bytes(&bits)).since(244));
    let one = match &*write.file {
        "memory.max" => number("MemoryMax"),
        "memory.high" => number("MemoryHigh"),
        "memory.low" => number("MemoryLow"),
        "memory.min" => number("MemoryMin"),
        "memory.swap.max" => number("MemorySwapMax"),
        "memory.zswap.max" => number("MemoryZSwapMax").map(|property| property.since(253)),
        // For CPUWeight, 0 means idle.
        "cpu.weight" => number("CPUWeight").filter(|property| property.value != Value::Uint64(0)),
        "cpu.idle" => match write.value.trim() {
            "1" => Some(property("CPUWeight", Value::Uint64(0)).since(252)),
            "0" => Some(property("CPUWeight", Value::Uint64(INFINITY)).since(252)),
            _ => None,
        },
        "cpuset.cpus" => bits("AllowedCPUs"),
        "cpuset.mems" => bits("AllowedMemoryNodes"),
        // systemd has no 0. With one process already there, 1 is the same limit.
        "pids.max" => number("TasksMax").map(|mut property| {
            if property.value == Value::Uint64(0) {
                property.value = Value::Uint64(1);
            }
            property
        }),
        "io.weight" => io_weight(&write.value).map(|weight| property("IOWeight", weight)),
        // Only one of the two I/O schedulers' weights exists; systemd gets the io.weight equivalent.
        "io.bfq.weight" => match &write.refused {
            WhenRefused::Instead { value, .. } => io_weight(value).map(|weight| property("IOWeight", weight)),
            _ => None,
        },
        "cpu.max" => {
            let Some((quota, period)) = cpu_max(&write.value) else { return Vec::new() };
            let per_second = match (quota, period) {
                (None, _) => Some(INFINITY),
                (Some(quota), period) => per_second(quota, period.unwrap_or(100_000)),
            };
            let Some(per_second) = per_second else { return Vec::new() };
            let mut both = vec![property("CPUQuotaPerSecUSec", Value::Uint64(per_second))];
            both.extend(
                period.map(|period| property("CPUQuotaPeriodUSec", Value::Uint64(period)).since(242)),
            );
            return both;
        }
        _ => None,
    };
    one.into_iter().collect()
}

/// Parses a number or `max`. Anything else is left for the kernel to refuse.
fn number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(INFINITY),
        text => text.parse().ok(),
    }
}

/// Parses the default weight; those of single devices are not passed on.
fn io_weight(text: &str) -> Option<Value> {
    let text = text.trim();
    let weight: u64 = text.strip_prefix("default ").unwrap_or(text).parse().ok()?;
    (1..=10_000).contains(&weight).then_some(Value::Uint64(weight))
}

/// Parses quota (`None` for `max`) and period, if there is one.
fn cpu_max(text: &str) -> Option<(Option<u64>, Option<u64>)> {
    let mut words = text.split_ascii_whitespace();
    let quota = match words.next()? {
        "max" => None,
        quota => Some(quota.parse().ok().filter(|quota| *quota > 0)?),
    };
    let period = match words.next() {
        Some(period) => Some(period.parse().ok().filter(|period| *period > 0)?),
        None => None,
    };
    Some((quota, period))
}

/// Microseconds of CPU time per second, rounded up to a whole percent.
fn per_second(quota: u64, period: u64) -> Option<u64> {
    quota.checked_mul(1_000_000)?.checked_div(period)?.checked_next_multiple_of(10_000)
}

/// Parses a list such as `0-2,7` into bits, the lowest in the first byte; an empty list, which allows
/// everything, gives no bytes. `None` if it is malformed, which the kernel will report.
fn bits(list: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for range in list.trim().split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MOST_BITS {
            return None;
        }
        if bytes.len() <= last / 8 {
            bytes.resize(last / 8 + 1, 0_u8);
        }
        for bit in first..=last {
            if let Some(byte) = bytes.get_mut(bit / 8) {
                *byte |= 1 << (bit % 8);
            }
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::resources;

    fn limits(json: &str) -> Limits {
        let mut limits = resources::plan(&serde_json::from_str(json).unwrap(), &Pointer::root()).unwrap();
        round(&mut limits);
        limits
    }

    /// Formatted as `name=value`.
    fn told(json: &str) -> Vec<String> {
        let show = |property: &Property| match &property.value {
            Value::Uint64(INFINITY) => format!("{}=infinity", property.name),
            Value::Uint64(number) => format!("{}={number}", property.name),
            other => format!("{}={other:?}", property.name),
        };
        plan(&limits(json)).iter().map(show).collect()
    }

    fn written(json: &str) -> Vec<String> {
        limits(json).writes.iter().map(|write| format!("{}={}", write.file, write.value)).collect()
    }

    #[test]
    fn the_limits_of_engines_have_their_properties() {
        let json = r#"{"memory": {"limit": 67108864, "swap": 134217728, "reservation": 1024},
            "cpu": {"shares": 1024}, "pids": {"limit": 50}, "blockIO": {"weight": 500}}"#;
        let expected = [
            "TasksMax=50",
            "MemorySwapMax=67108864",
            "MemoryMax=67108864",
            "MemoryLow=1024",
            "IOWeight=4950",
            "CPUWeight=100",
        ];
        assert_eq!(told(json), expected);
        assert_eq!(
            told(r#"{"memory": {"limit": -1}, "pids": {"limit": -1}}"#),
            ["TasksMax=infinity", "MemorySwapMax=infinity", "MemoryMax=infinity"]
        );
        assert_eq!(told(r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 9}]}"#), [""; 0]);
    }

    #[test]
    fn a_quota_is_rounded_up_to_a_whole_percent_for_both() {
        for (json, quota, file) in [
            (r#"{"cpu": {"quota": 50000, "period": 100000}}"#, 500_000, "50000 100000"),
            (r#"{"cpu": {"quota": 12345, "period": 100000}}"#, 130_000, "13000 100000"),
            (r#"{"cpu": {"quota": 5000, "period": 1000000}}"#, 10_000, "10000 1000000"),
            (r#"{"cpu": {"quota": 33}}"#, 10_000, "1000 100000"),
            (r#"{"unified": {"cpu.max": "12345 100000"}}"#, 130_000, "13000 100000"),
        ] {
            let period = file.split_once(' ').unwrap().1;
            assert_eq!(
                told(json),
                [format!("CPUQuotaPerSecUSec={quota}"), format!("CPUQuotaPeriodUSec={period}")],
                "{json}"
            );
            assert_eq!(written(json), [format!("cpu.max={file}")], "{json}");
        }
        assert_eq!(
            told(r#"{"cpu": {"quota": -1}}"#),
            ["CPUQuotaPerSecUSec=infinity", "CPUQuotaPeriodUSec=100000"]
        );
        assert_eq!(told(r#"{"unified": {"cpu.max": "20000"}}"#), ["CPUQuotaPerSecUSec=200000"]);
        // Extreme values must not overflow.
        assert_eq!(told(r#"{"cpu": {"quota": 9223372036854775807}}"#), [""; 0]);
        assert_eq!(told(r#"{"unified": {"cpu.max": "0 0"}}"#), [""; 0]);
    }

    #[test]
    fn lists_of_processors_become_bits() {
        assert_eq!(bits("0-2,7"), Some(vec![0b1000_0111]));
        assert_eq!(bits(" 1, 9 ,,"), Some(vec![2, 2]));
        assert_eq!(bits("\n"), Some(Vec::new()));
        for list in ["2-1", "a", "-1", "0-", "99999999", "0-7:2/4"] {
            assert_eq!(bits(list), None, "{list}");
        }
        let json = r#"{"cpu": {"cpus": "0,3", "mems": "0"}}"#;
        let values: Vec<_> =
            plan(&limits(json)).into_iter().map(|property| (property.name, property.value)).collect();
        assert_eq!(
            values,
            [("AllowedCPUs".into(), Value::bytes(&[9])), ("AllowedMemoryNodes".into(), Value::bytes(&[1]))]
        );
    }

    #[test]
    fn unified_has_the_last_word_and_odd_values_are_left_to_the_kernel() {
        let json = r#"{"pids": {"limit": 5}, "unified": {"pids.max": "0", "memory.high": "max", "memory.min": "4096",
            "cpu.idle": "1", "memory.low": "much", "io.weight": "default 7", "misc.max": "x 1"}}"#;
        let expected = ["CPUWeight=0", "IOWeight=7", "MemoryHigh=infinity", "MemoryMin=4096", "TasksMax=1"];
        assert_eq!(told(json), expected);
    }

    #[test]
    fn what_happens_when_memory_is_out_is_told_at_the_beginning() {
        let policy = |value: &str| {
            let limits = limits(&format!(r#"{{"unified": {{"memory.oom.group": "{value}"}}}}"#));
            oom_policy(&limits).map(|property| property.value)
        };
        assert_eq!(policy("1"), Some(Value::text("kill")));
        assert_eq!(policy("0"), Some(Value::text("continue")));
        assert_eq!(policy("2"), None);
        assert_eq!(oom_policy(&limits("{}")), None);
    }
}
