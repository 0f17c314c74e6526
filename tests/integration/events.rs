//! `events`: statistics and OOM kills in runc's format.

use std::fs;

use serde_json::{Value, json};

use crate::support::bundle::remove_namespace;
use crate::support::container::WAIT;
use crate::support::host::{
    CGROUPS, has_controller, is_own, need, need_controller, need_disk, need_other_than, need_own,
};
use crate::support::suite::suite;
use crate::support::{Container, Outcome, Output};

use super::cgroup::device_numbers;

suite![
    stats_are_one_line_with_runcs_keys_in_runcs_order,
    what_there_is_no_controller_for_is_absent,
    memory_is_told_with_its_limit_and_swap_with_memory,
    processes_are_counted_with_and_without_the_controller,
    throttling_is_told,
    transfers_are_told_by_device,
    huge_pages_are_told_by_size,
    pressure_is_told_where_the_kernel_measures_it,
    statistics_come_at_the_interval_until_the_container_ends,
    a_kill_for_want_of_memory_is_told,
    the_last_kill_is_told_before_the_end,
    the_last_kill_is_told_also_if_run_takes_the_cgroup_away,
    a_created_and_a_paused_container_have_statistics,
    a_stopped_container_has_none,
    a_missing_container_has_none,
    an_interval_is_a_length_of_time_that_is_not_zero,
    a_container_without_a_cgroup_has_none,
    a_shared_pid_namespace_ends_with_the_init_process,
];

fn need_events() -> Outcome {
    need_other_than("crun", "lacks the command")
}

/// What `events --stats` says about a container that is there.
#[track_caller]
fn stats(container: &Container) -> (Value, Output) {
    let output = container.runtime().args(["events", "--stats", &container.id]).succeeds();
    assert_eq!(output.stdout.lines().count(), 1, "{output:#?}");
    let event: Value = serde_json::from_str(&output.stdout).unwrap();
    (event["data"].clone(), output)
}

fn stats_are_one_line_with_runcs_keys_in_runcs_order() -> Outcome {
    need_events()?;
    let container = Container::idle();
    container.launch();
    let (_, output) = stats(&container);
    let start = format!("{{\"type\":\"stats\",\"id\":\"{}\",\"data\":{{\"cpu\":{{", container.id);
    assert!(output.stdout.starts_with(&start), "{output:#?}");
    let keys = ["cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"];
    let places: Vec<_> = keys.iter().map(|key| output.stdout.find(&format!("\"{key}\":"))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} {output:#?}");
    assert!(output.stdout.ends_with("\"intel_rdt\":{},\"network_interfaces\":null}}\n"), "{output:#?}");
    Ok(())
}

fn what_there_is_no_controller_for_is_absent() -> Outcome {
    need_events()?;
    need(!has_controller("memory") && !has_controller("io"), "a host without the memory controller")?;
    let container = Container::idle();
    container.launch();
    let (data, output) = stats(&container);
    assert!(data["memory"].get("raw").is_none() && data["memory"].get("cache").is_none(), "{output:#?}");
    assert!(data["blkio"].get("ioServicedRecursive").is_none(), "{output:#?}");
    // runc before 1.4 writes zeros.
    assert!(!is_own() || data["memory"].get("usage").is_none(), "{output:#?}");
    Ok(())
}

fn memory_is_told_with_its_limit_and_swap_with_memory() -> Outcome {
    need_events()?;
    need_controller("memory")?;
    let container = Container::limited(
        "head -c 2000000 /dev/zero >/dev/shm/file; echo ready; sleep 1000",
        &json!({ "memory": { "limit": 33_554_432, "swap": 50_331_648 } }),
    );
    container.launch().wait_for_stdout("ready");
    let (data, output) = stats(&container);
    let memory = &data["memory"];
    assert_eq!(memory["usage"]["limit"], 33_554_432, "{output:#?}");
    assert!(memory["usage"]["usage"].as_u64().unwrap() > 2_000_000, "{output:#?}");
    assert!(memory["raw"]["file"].as_u64().unwrap() >= 2_000_000, "{output:#?}");
    assert_eq!(memory["cache"], memory["raw"]["file"]);
    if container.cgroup().join("memory.swap.max").exists() {
        assert_eq!(memory["swap"]["limit"], 50_331_648, "{output:#?}");
    }
    if container.cgroup().join("memory.peak").exists() {
        assert!(memory["usage"]["max"].as_u64() >= memory["usage"]["usage"].as_u64(), "{output:#?}");
    }
    Ok(())
}

fn processes_are_counted_with_and_without_the_controller() -> Outcome {
    need_events()?;
    let resources = if has_controller("pids") { json!({ "pids": { "limit": 21 } }) } else { json!({}) };
    let container = Container::limited("sleep 1000 & sleep 1000 & echo ready; wait", &resources);
    container.launch().wait_for_stdout("ready");
    let (data, output) = stats(&container);
    assert_eq!(data["pids"]["current"], 3, "{output:#?}");
    assert_eq!(data["pids"].get("limit").is_some_and(|limit| limit == 21), has_controller("pids"));
    Ok(())
}

fn throttling_is_told() -> Outcome {
    need_events()?;
    need_controller("cpu")?;
    let container =
        Container::limited("while :; do :; done", &json!({ "cpu": { "quota": 5_000, "period": 100_000 } }));
    container.launch();
    crate::support::wait_until("it was throttled", || {
        stats(&container).0["cpu"]["throttling"]["throttledPeriods"].as_u64().unwrap_or(0) >= 2
    });
    let (data, output) = stats(&container);
    assert!(data["cpu"]["throttling"]["throttledTime"].as_u64().unwrap() > 1_000_000, "{output:#?}");
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 1_000_000, "{output:#?}");
    Ok(())
}

fn transfers_are_told_by_device() -> Outcome {
    need_events()?;
    need_controller("io")?;
    let numbers @ (major, minor) = device_numbers(&need_disk()?);
    let container = Container::that_reads_a_disk(numbers);
    container.launch().wait_for_stdout("ready");
    let (data, output) = stats(&container);
    let read = data["blkio"]["ioServiceBytesRecursive"].as_array().into_iter().flatten().find(|entry| {
        // A zero is left out.
        let number = |key: &str| entry.get(key).map_or(0, |number| number.as_u64().unwrap());
        (number("major"), number("minor")) == (major.into(), minor.into()) && entry["op"] == "Read"
    });
    assert!(read.is_some_and(|entry| entry["value"].as_u64() >= Some(262_144)), "{output:#?}");
    Ok(())
}

fn huge_pages_are_told_by_size() -> Outcome {
    need_events()?;
    need_controller("hugetlb")?;
    let container = Container::idle();
    container.launch();
    let (data, output) = stats(&container);
    let sizes: Vec<String> = fs::read_dir(container.cgroup())
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            Some(name.strip_prefix("hugetlb.")?.strip_suffix(".events")?.to_owned())
        })
        .collect();
    need(!sizes.is_empty(), "huge pages")?;
    for size in sizes {
        assert_eq!(data["hugetlb"][&size], json!({ "failcnt": 0 }), "{output:#?}");
    }
    Ok(())
}

fn pressure_is_told_where_the_kernel_measures_it() -> Outcome {
    need_events()?;
    let root = fs::read_to_string(format!("{CGROUPS}/cpu.pressure")).unwrap_or_default();
    need(!root.is_empty(), "a kernel that measures pressure")?;
    need(is_own() || has_controller("memory") && has_controller("io"), "the controllers memory and io")?;
    let container = Container::idle();
    container.launch();
    let (data, output) = stats(&container);
    for part in ["cpu", "memory", "blkio"] {
        for share in ["some", "full"] {
            let stall = &data[part]["psi"][share];
            for key in ["avg10", "avg60", "avg300", "total"] {
                assert!(stall[key].is_number(), "{part} {share} {key}: {output:#?}");
            }
        }
    }
    Ok(())
}

fn statistics_come_at_the_interval_until_the_container_ends() -> Outcome {
    need_events()?;
    // runc cannot watch for kills without it, and then tells nothing.
    need(has_controller("memory") || is_own(), "the memory controller")?;
    let container = Container::idle();
    container.launch();
    let events = container.runtime().args(["events", "--interval=100ms", &container.id]).spawn();
    crate::support::wait_until("three lines are there", || events.stdout().lines().count() >= 3);
    container.terminate();
    let output = events.wait();
    assert_eq!(output.code(), 0, "{output:#?}");
    let mut lines: Vec<_> = output.stdout.lines().collect();
    if is_own() {
        let end = format!("{{\"type\":\"exit\",\"id\":\"{}\"}}", container.id);
        assert_eq!(lines.pop(), Some(end.as_str()), "{output:#?}");
    }
    for line in lines {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["type"], "stats", "{output:#?}");
    }
    Ok(())
}

/// Tells a container to go on, by a file that it waits for.
fn a_kill_for_want_of_memory_is_told() -> Outcome {
    need_events()?;
    need_controller("memory")?;
    let script = format!("{WAIT} tail /dev/zero; sleep 1000");
    let container =
        Container::limited(&script, &json!({ "memory": { "limit": 33_554_432, "swap": 33_554_432 } }));
    container.launch();
    let events = container.runtime().args(["events", "--interval", "200ms", &container.id]).spawn();
    events.wait_for_stdout("\"type\":\"stats\"");
    container.go_on();
    let line = format!("{{\"type\":\"oom\",\"id\":\"{}\"}}\n", container.id);
    events.wait_for_stdout(&line);
    container.delete_by_force();
    let output = events.wait();
    assert_eq!(output.code(), 0, "{output:#?}");
    assert!(!is_own() || output.stdout.matches(&line).count() == 1, "{output:#?}");
    Ok(())
}

fn the_last_kill_is_told_before_the_end() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    let script = format!("{WAIT} exec tail /dev/zero");
    let container =
        Container::limited(&script, &json!({ "memory": { "limit": 33_554_432, "swap": 33_554_432 } }));
    container.launch();
    let events = container.runtime().args(["events", "--interval", "200ms", &container.id]).spawn();
    events.wait_for_stdout("\"type\":\"stats\"");
    container.go_on();
    let output = events.wait();
    assert_eq!(output.code(), 0, "{output:#?}");
    assert!(output.stdout.contains("\"type\":\"oom\""), "{output:#?}");
    let end = format!("{{\"type\":\"exit\",\"id\":\"{}\"}}\n", container.id);
    assert!(output.stdout.ends_with(&end), "{output:#?}");
    Ok(())
}

/// Several times, for one of the two is the faster.
fn the_last_kill_is_told_also_if_run_takes_the_cgroup_away() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    for _ in 0..5 {
        let script = format!("{WAIT} exec tail /dev/zero");
        let container =
            Container::limited(&script, &json!({ "memory": { "limit": 16_777_216, "swap": 16_777_216 } }));
        let running = container.run_beside();
        let events = container.runtime().args(["events", "--interval", "200ms", &container.id]).spawn();
        events.wait_for_stdout("\"type\":\"stats\"");
        container.go_on();
        assert_eq!(running.wait().code(), 137);
        let output = events.wait();
        assert_eq!(output.stdout.matches("\"type\":\"oom\"").count(), 1, "{output:#?}");
        container.leaves_nothing();
    }
    Ok(())
}

fn a_created_and_a_paused_container_have_statistics() -> Outcome {
    need_events()?;
    let container = Container::idle();
    container.create();
    // runc waits for the start with several threads.
    assert!(stats(&container).0["pids"]["current"].as_u64() >= Some(1));
    container.start();
    container.on_id("pause").succeeds();
    stats(&container);
    Ok(())
}

fn a_stopped_container_has_none() -> Outcome {
    need_events()?;
    let container = Container::new();
    container.launch();
    container.wait_for("stopped");
    for options in [&["--stats"][..], &[]] {
        container.runtime().arg("events").args(options).arg(&container.id).fails_with("not running");
    }
    Ok(())
}

fn a_missing_container_has_none() -> Outcome {
    need_events()?;
    Container::new().on_id("events").fails_with("does not exist");
    Ok(())
}

fn an_interval_is_a_length_of_time_that_is_not_zero() -> Outcome {
    need_events()?;
    let container = Container::idle();
    container.launch();
    for interval in ["0", "0s", "-1s", "5", "1d"] {
        container.runtime().args(["events", "--interval", interval, &container.id]).fails_with("interval");
    }
    container.runtime().args(["events", "--interval", "1h2m3.5s", "--stats", &container.id]).succeeds();
    Ok(())
}

fn a_container_without_a_cgroup_has_none() -> Outcome {
    need_own()?;
    let container = Container::idle();
    let call = container.runtime().args(["--cgroup-manager", "disabled", "create", "--bundle"]);
    call.arg(container.bundle.path()).arg(&container.id).succeeds();
    container.on_id("events").fails_with("has no cgroup of its own");
    Ok(())
}

/// Its other processes live on, but the container has stopped.
fn a_shared_pid_namespace_ends_with_the_init_process() -> Outcome {
    need_own()?;
    let container = Container::with_script(&format!("sleep 1000 </dev/null >/dev/null 2>&1 & {WAIT} exit 0"))
        .edit(|spec| remove_namespace(spec, "pid"));
    container.launch();
    let events = container.runtime().args(["events", "--interval", "50ms", &container.id]).spawn();
    events.wait_for_stdout("\"type\":\"stats\"");
    container.go_on();
    assert_eq!(events.wait().code(), 0);
    assert_ne!(container.control_file("cgroup.procs"), "");
    container.delete();
    container.leaves_nothing();
    Ok(())
}
