//! `cpu` → cpu.weight, cpu.idle, cpu.max, cpu.max.burst, cpuset.cpus, cpuset.mems.

use anyhow::Result;
use oci_spec::runtime::LinuxCpu;

use super::{WhenRefused, Write};
use crate::error::Pointer;

/// The kernel's default period; cgroup-v2.rst § CPU Interface Files.
const DEFAULT_PERIOD_US: u64 = 100_000;

pub(super) fn plan(cpu: &LinuxCpu, at: &Pointer, writes: &mut Vec<Write>) -> Result<()> {
    let weight = cpu.shares().and_then(weight);
    if let Some(idle) = cpu.idle() {
        let at = at.field("idle");
        match (idle, weight) {
            (0 | 1, None) | (0, _) => {}
            (1, Some(_)) => {
                return Err(at.error_with_hint(
                    "1 conflicts with \"shares\": an idle cgroup has no weight",
                    "remove one of the two",
                ));
            }
            _ => return Err(at.error(format_args!("invalid value {idle}: must be 0 or 1"))),
        }
        writes.push(Write::new(at, "cpu.idle", idle.to_string()).unneeded_if(idle == 0));
    }
    if let Some(weight) = weight {
        writes.push(Write::new(at.field("shares"), "cpu.weight", weight.to_string()));
    }

    // A zero or negative quota means unlimited.
    let quota_us = cpu.quota().map(|quota| u64::try_from(quota).unwrap_or(0));
    let limit_us = quota_us.filter(|quota| *quota > 0);
    if let Some(burst_us) = cpu.burst() {
        let at = at.field("burst");
        if let Some(limit_us) = limit_us.filter(|limit| burst_us > *limit) {
            return Err(at.error(format_args!("burst {burst_us} exceeds quota {limit_us}")));
        }
        // Before cpu.max, because the kernel refuses a quota below the current burst. If the new burst
        // exceeds the old quota, it is written again after cpu.max.
        let refused = if burst_us == 0 { WhenRefused::Unneeded } else { WhenRefused::Again };
        writes.push(Write { refused, ..Write::new(at, "cpu.max.burst", burst_us.to_string()) });
    }
    let period_us = cpu.period().filter(|period| *period > 0);
    if cpu.quota().is_some_and(|quota| quota != 0) || period_us.is_some() {
        let from = if cpu.quota().is_some() { "quota" } else { "period" };
        let value = cpu_max(limit_us, period_us);
        writes.push(Write::new(at.field(from), "cpu.max", value).unneeded_if(limit_us.is_none()));
    }

    for (field, file, list) in [("cpus", "cpuset.cpus", cpu.cpus()), ("mems", "cpuset.mems", cpu.mems())] {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            writes.push(Write::new(at.field(field), file, list));
        }
    }
    Ok(())
}

/// Formats the line for `cpu.max`: quota and period in microseconds.
fn cpu_max(limit_us: Option<u64>, period_us: Option<u64>) -> String {
    let limit = limit_us.map_or_else(|| "max".into(), |limit| limit.to_string());
    format!("{limit} {}", period_us.unwrap_or(DEFAULT_PERIOD_US))
}

/// Converts cpu.shares (2 to 262,144, default 1024) to cpu.weight (1 to 10,000, default 100); `None` for 0,
/// which means not set.
///
/// The quadratic function of the logarithm maps minimum, default and maximum of one scale to those of the
/// other.
fn weight(shares: u64) -> Option<u16> {
    match shares {
        0 => None,
        1 | 2 => Some(1),
        3..262_144 => u32::try_from(shares).ok().map(|shares| {
            let log = f64::from(shares).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            let wanted = 10_f64.powf(exponent).ceil();
            // Binary search, because there is no lossless conversion from float to integer.
            let (mut low, mut high) = (1_u16, 10_000_u16);
            while low < high {
                let middle = low.midpoint(high);
                if f64::from(middle) < wanted { low = middle + 1 } else { high = middle }
            }
            low
        }),
        _ => Some(10_000),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{refused, written};
    use super::weight;

    #[test]
    fn shares_become_the_weights_that_runc_and_crun_give() {
        let table = [
            (0, None),
            (1, Some(1)),
            (2, Some(1)),
            (10, Some(4)),
            (100, Some(17)),
            (1024, Some(100)),
            (2048, Some(174)),
            (22_000, Some(1204)),
            (262_143, Some(10_000)),
            (262_144, Some(10_000)),
            (u64::MAX, Some(10_000)),
        ];
        for (shares, expected) in table {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }

    #[test]
    fn weights_never_fall_as_shares_rise() {
        assert!((1..262_200).map(weight).is_sorted());
    }

    #[test]
    fn quota_and_period_share_a_line() {
        let of = |json: &str| written(&format!(r#"{{"cpu": {json}}}"#));
        assert_eq!(of(r#"{"quota": 5000}"#), ["cpu.max=5000 100000"]);
        assert_eq!(of(r#"{"quota": 5000, "period": 20000}"#), ["cpu.max=5000 20000"]);
        assert_eq!(of(r#"{"quota": -1}"#), ["cpu.max=max 100000"]);
        assert_eq!(of(r#"{"period": 20000}"#), ["cpu.max=max 20000"]);
        assert_eq!(of(r#"{"quota": 50, "burst": 20}"#), ["cpu.max.burst=20", "cpu.max=50 100000"]);
        assert_eq!(of(r#"{"cpus": "0-1", "mems": "0"}"#), ["cpuset.cpus=0-1", "cpuset.mems=0"]);
        assert_eq!(of(r#"{"shares": 1024, "idle": 0}"#), ["cpu.idle=0", "cpu.weight=100"]);
    }

    #[test]
    fn contradictions_are_refused() {
        assert_eq!(
            refused(r#"{"cpu": {"shares": 2, "idle": 1}}"#),
            "config.json: /cpu/idle: 1 conflicts with \"shares\": an idle cgroup has no weight (remove \
             one of the two)"
        );
        assert_eq!(
            refused(r#"{"cpu": {"idle": 2}}"#),
            "config.json: /cpu/idle: invalid value 2: must be 0 or 1"
        );
        assert_eq!(
            refused(r#"{"cpu": {"quota": 10, "burst": 11}}"#),
            "config.json: /cpu/burst: burst 11 exceeds quota 10"
        );
    }
}
