//! Merging an update with the limits in force. Pure.

use oci_spec::runtime::{LinuxCpu, LinuxResources};
use serde_json::{Map, Value};

/// Adds to `change` the limits in force that depend on changed ones and so must be written again. Returns
/// pairs of pointers: of the added value, and of the changed one that required it.
///
/// `cpu_max` is the content of cpu.max, whose two halves are separate fields in the specification.
pub(in crate::cgroup) fn complete(
    change: &mut LinuxResources,
    in_force: &LinuxResources,
    cpu_max: Option<&str>,
) -> Vec<(&'static str, &'static str)> {
    let mut added = Vec::new();
    if let Some(cpu) = change.cpu_mut() {
        let of_unified = in_force.unified().as_ref().and_then(|files| files.get("cpu.idle"));
        let is_idle = match of_unified {
            Some(value) => value.trim() == "1",
            None => in_force.cpu().as_ref().is_some_and(|cpu| cpu.idle() == Some(1)),
        };
        added.extend(complete_cpu(cpu, is_idle, cpu_max));
    }
    // A file set by `unified` does not have the value of the corresponding field.
    let is_unified = |file| in_force.unified().as_ref().is_some_and(|files| files.contains_key(file));
    if let (Some(memory), Some(old)) = (change.memory_mut(), in_force.memory()) {
        let given = |number: Option<i64>| number.filter(|number| *number != 0);
        match (given(memory.limit()), given(memory.swap())) {
            // Unlimited memory also lifts the swap limit, which is a sum of both.
            (Some(limit), None) if limit != -1 && !is_unified("memory.swap.max") => {
                added.extend(given(old.swap()).map(|swap| {
                    memory.set_swap(Some(swap));
                    ("/memory/swap", "/memory/limit")
                }));
            }
            (None, Some(swap)) if swap != -1 && !is_unified("memory.max") => {
                added.extend(given(old.limit()).map(|limit| {
                    memory.set_limit(Some(limit));
                    ("/memory/limit", "/memory/swap")
                }));
            }
            _ => {}
        }
    }
    added
}

fn complete_cpu(
    cpu: &mut LinuxCpu,
    is_idle: bool,
    cpu_max: Option<&str>,
) -> Vec<(&'static str, &'static str)> {
    let mut added = Vec::new();
    let (quota, period) =
        (cpu.quota().filter(|quota| *quota != 0), cpu.period().filter(|period| *period != 0));
    let halves = cpu_max.and_then(|text| text.trim().split_once(' '));
    match (quota, period, halves) {
        (Some(_), None, Some((_, old))) => {
            cpu.set_period(old.parse().ok());
            added.push(("/cpu/period", "/cpu/quota"));
        }
        (None, Some(_), Some((old, _))) => {
            cpu.set_quota(Some(old.parse().unwrap_or(-1)));
            added.push(("/cpu/quota", "/cpu/period"));
        }
        _ => {}
    }
    // An idle cgroup has no weight, so setting one ends idle mode.
    if is_idle && cpu.idle().is_none() && cpu.shares().is_some_and(|shares| shares != 0) {
        cpu.set_idle(Some(0));
        added.push(("/cpu/idle", "/cpu/shares"));
    }
    added
}

/// Returns the resources in force after the completed `change`; `written` are the files that it writes,
/// except through `unified`.
///
/// What a change does not set stays; absent means not set, and so may zero (`is_unset`).
pub(in crate::cgroup) fn merge<'a>(
    mut in_force: Value,
    change: &LinuxResources,
    written: impl Iterator<Item = &'a str>,
) -> serde_json::Result<Value> {
    let is_left = object(&mut in_force, "unified").is_some_and(|files| {
        // `unified` overrides the other fields, but this change is more recent.
        written.for_each(|file| drop(files.remove(file)));
        !files.is_empty()
    });
    if let (false, Some(in_force)) = (is_left, in_force.as_object_mut()) {
        in_force.remove("unified");
    }
    let memory = change.memory().as_ref().map(|memory| (memory.limit(), memory.swap()));
    if let (Some((Some(-1), None | Some(0))), Some(memory)) = (memory, object(&mut in_force, "memory")) {
        memory.remove("swap");
    }
    let cpu = change.cpu().as_ref();
    if let (Some(Some(1)), Some(cpu)) = (cpu.map(LinuxCpu::idle), object(&mut in_force, "cpu")) {
        cpu.remove("shares");
    }
    overlay(&mut in_force, serde_json::to_value(change)?, "");
    Ok(in_force)
}

fn object<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    value.get_mut(name)?.as_object_mut()
}

/// Arrays with an element per object, and the members that identify it.
const BY_NAME: [(&str, &[&str]); 6] = [
    ("/hugepageLimits", &["pageSize"]),
    ("/blockIO/weightDevice", DEVICE),
    ("/blockIO/throttleReadBpsDevice", DEVICE),
    ("/blockIO/throttleWriteBpsDevice", DEVICE),
    ("/blockIO/throttleReadIOPSDevice", DEVICE),
    ("/blockIO/throttleWriteIOPSDevice", DEVICE),
];
const DEVICE: &[&str] = &["major", "minor"];

/// Overwrites `old`, at `path`, with what `new` sets.
fn overlay(old: &mut Value, new: Value, path: &str) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, new) in new {
                let path = format!("{path}/{name}");
                let mut value = old.remove(&name).unwrap_or_else(|| match new {
                    Value::Object(_) => Value::Object(Map::new()),
                    Value::Array(_) => Value::Array(Vec::new()),
                    _ => Value::Null,
                });
                overlay(&mut value, new, &path);
                let is_empty = value.as_object().is_some_and(Map::is_empty);
                if !is_empty && !is_unset(&value, &path) {
                    old.insert(name, value);
                }
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            let members =
                BY_NAME.iter().find(|(name, _)| *name == path).map_or(&[][..], |(_, members)| members);
            for new in new {
                let is_same =
                    |old: &&mut Value| members.iter().all(|member| old.get(member) == new.get(member));
                // Of two elements for the same object, the last one counts.
                match old.iter_mut().rev().find(is_same) {
                    Some(old) => overlay(old, new, &format!("{path}/-")),
                    None => old.push(new),
                }
            }
        }
        (_, new) if is_unset(&new, path) => {}
        (old, new) => *old = new,
    }
}

/// Whether a value means "not set". Clients send zeros for what their user did not set; but zero is a value
/// in array elements, in the maps `rdma` and `unified`, and in the fields listed here.
fn is_unset(value: &Value, path: &str) -> bool {
    let zero_counts = matches!(path, "/cpu/idle" | "/cpu/burst")
        || ["/-/", "/rdma/", "/unified/"].iter().any(|part| path.contains(part));
    match value {
        Value::Null => true,
        Value::Number(number) => !zero_counts && number.as_i64() == Some(0),
        Value::String(text) => !zero_counts && text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the resources in force after `change`, and what was added to it.
    #[track_caller]
    fn after(in_force: &str, change: &str, cpu_max: Option<&str>) -> (String, Vec<&'static str>) {
        let mut change: LinuxResources = serde_json::from_str(change).unwrap();
        let added = complete(&mut change, &serde_json::from_str(in_force).unwrap(), cpu_max);
        let written = ["memory.max", "cpu.max"].into_iter();
        let merged = merge(serde_json::from_str(in_force).unwrap(), &change, written).unwrap();
        (merged.to_string(), added.into_iter().map(|(added, _)| added).collect())
    }

    #[track_caller]
    fn merges(in_force: &str, change: &str, expected: &str) {
        assert_eq!(after(in_force, change, None).0, expected);
    }

    #[test]
    fn what_a_change_does_not_give_stays() {
        let in_force = r#"{"cpu":{"shares":7},"memory":{"limit":9},"pids":{"limit":5}}"#;
        merges(in_force, "{}", in_force);
        let zeros = r#"{"memory":{"limit":0,"reservation":0,"kernel":0},"cpu":{"shares":0,"quota":0,"period":0,"cpus":""},
            "pids":{"limit":0},"blockIO":{"weight":0},"hugepageLimits":[],"unified":{}}"#;
        assert_eq!(after(in_force, zeros, Some("max 100000")), (in_force.into(), vec![]));
        merges(
            "{}",
            r#"{"memory":{"limit":5},"pids":{"limit":6}}"#,
            r#"{"memory":{"limit":5},"pids":{"limit":6}}"#,
        );
        merges(
            in_force,
            r#"{"memory":{"limit":8}}"#,
            r#"{"cpu":{"shares":7},"memory":{"limit":8},"pids":{"limit":5}}"#,
        );
    }

    #[test]
    fn one_half_of_a_quota_keeps_the_other_that_is_in_force() {
        let of = |change: &str, cpu_max| after("{}", &format!(r#"{{"cpu":{change}}}"#), cpu_max);
        assert_eq!(
            of(r#"{"period":50000}"#, Some("20000 100000\n")),
            (r#"{"cpu":{"period":50000,"quota":20000}}"#.into(), vec!["/cpu/quota"])
        );
        assert_eq!(
            of(r#"{"period":50000}"#, Some("max 100000\n")),
            (r#"{"cpu":{"period":50000,"quota":-1}}"#.into(), vec!["/cpu/quota"])
        );
        assert_eq!(
            of(r#"{"quota":-1}"#, Some("20000 70000\n")),
            (r#"{"cpu":{"period":70000,"quota":-1}}"#.into(), vec!["/cpu/period"])
        );
        assert_eq!(of(r#"{"quota":7,"period":9}"#, Some("1 2")).1, [""; 0]);
        assert_eq!(of(r#"{"quota":7}"#, None).1, [""; 0]);
    }

    #[test]
    fn swap_and_memory_are_a_sum() {
        let in_force = r#"{"memory":{"limit":100,"swap":300}}"#;
        let of = |change: &str| after(in_force, &format!(r#"{{"memory":{change}}}"#), None);
        assert_eq!(
            of(r#"{"limit":50}"#),
            (r#"{"memory":{"limit":50,"swap":300}}"#.into(), vec!["/memory/swap"])
        );
        assert_eq!(
            of(r#"{"swap":150}"#),
            (r#"{"memory":{"limit":100,"swap":150}}"#.into(), vec!["/memory/limit"])
        );
        assert_eq!(of(r#"{"swap":-1}"#), (r#"{"memory":{"limit":100,"swap":-1}}"#.into(), vec![]));
        assert_eq!(of(r#"{"limit":-1}"#), (r#"{"memory":{"limit":-1}}"#.into(), vec![]));
        assert_eq!(of(r#"{"limit":-1,"swap":0}"#), (r#"{"memory":{"limit":-1}}"#.into(), vec![]));
        assert_eq!(of(r#"{"limit":5,"swap":6}"#), (r#"{"memory":{"limit":5,"swap":6}}"#.into(), vec![]));
        let unified = r#"{"memory":{"limit":100,"swap":300},"unified":{"memory.swap.max":"7"}}"#;
        assert_eq!(after(unified, r#"{"memory":{"limit":50}}"#, None).1, [""; 0]);
    }

    #[test]
    fn idle_and_shares_take_each_others_place() {
        merges(r#"{"cpu":{"shares":7}}"#, r#"{"cpu":{"idle":1}}"#, r#"{"cpu":{"idle":1}}"#);
        merges(r#"{"cpu":{"shares":7}}"#, r#"{"cpu":{"idle":0}}"#, r#"{"cpu":{"idle":0,"shares":7}}"#);
        assert_eq!(
            after(r#"{"cpu":{"idle":1}}"#, r#"{"cpu":{"shares":7}}"#, None),
            (r#"{"cpu":{"idle":0,"shares":7}}"#.into(), vec!["/cpu/idle"])
        );
    }

    #[test]
    fn one_that_unified_made_idle_is_idle_no_more_either() {
        let change = r#"{"cpu":{"shares":7}}"#;
        assert_eq!(after(r#"{"unified":{"cpu.idle":"1"}}"#, change, None).1, ["/cpu/idle"]);
        let later = r#"{"cpu":{"idle":1},"unified":{"cpu.idle":"0"}}"#;
        assert_eq!(after(later, change, None).1, [""; 0]);
    }

    #[test]
    fn a_burst_of_zero_is_a_value() {
        merges(r#"{"cpu":{"burst":7}}"#, r#"{"cpu":{"burst":0}}"#, r#"{"cpu":{"burst":0}}"#);
    }

    #[test]
    fn each_device_and_page_size_has_one_entry() {
        merges(
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1},{"major":8,"minor":0,"rate":2}]}}"#,
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":0},{"major":8,"minor":1,"rate":4}]}}"#,
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1},{"major":8,"minor":0,"rate":0},{"major":8,"minor":1,"rate":4}]}}"#,
        );
        merges(
            r#"{"hugepageLimits":[{"limit":4,"pageSize":"2MB"}]}"#,
            r#"{"hugepageLimits":[{"limit":0,"pageSize":"2MB"},{"limit":0,"pageSize":"1GB"}]}"#,
            r#"{"hugepageLimits":[{"limit":0,"pageSize":"2MB"},{"limit":0,"pageSize":"1GB"}]}"#,
        );
    }

    #[test]
    fn a_later_word_takes_the_place_of_unified() {
        merges(
            r#"{"unified":{"memory.max":"5","memory.high":"3"}}"#,
            r#"{"memory":{"limit":9},"unified":{"cpuset.cpus":""}}"#,
            r#"{"memory":{"limit":9},"unified":{"cpuset.cpus":"","memory.high":"3"}}"#,
        );
    }
}
