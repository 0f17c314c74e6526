//! `update`: changes limits of a running container. Here the kernel's values are read back; `enforcement.rs`
//! tests that they are enforced.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::support::container::{NO_OPTIONS, WAIT};
use crate::support::host::{
    has_controller, is_own, kind, need, need_controller, need_disk, need_other_than, need_own,
};
use crate::support::suite::suite;
use crate::support::{Container, Invocation, Outcome, Output};

use super::cgroup::device_numbers;

suite![
    every_option_is_written,
    amounts_of_memory_have_units,
    a_period_and_a_quota_keep_each_other,
    unlimited_is_written_as_max,
    memory_and_swap_are_a_sum_also_with_what_was_in_force,
    no_process_more_is_a_limit_of_one,
    idle_and_shares_take_each_others_place,
    a_burst_is_kept_and_taken_back,
    the_weight_of_block_io_is_written,
    each_device_has_its_throttles,
    processors_and_memory_nodes_are_written,
    huge_page_limits_are_written,
    unified_values_are_written,
    a_later_word_takes_the_place_of_unified,
    a_document_comes_from_a_file_or_standard_input,
    zeros_and_empty_objects_leave_everything,
    options_beside_a_document_are_ignored,
    device_rules_are_left_alone,
    a_limit_below_what_is_used_is_rejected_if_asked_for,
    what_one_write_refuses_takes_the_others_back,
    a_refused_value_takes_back_what_came_before,
    an_idle_cgroup_gets_its_weight_back,
    a_file_that_cannot_be_put_back_is_refused,
    what_cannot_be_recorded_is_not_in_force,
    a_limit_without_its_controller_is_refused_by_its_option,
    a_contradiction_with_what_is_in_force_is_refused,
    a_misshapen_document_is_refused_by_line_and_pointer,
    a_wrong_option_is_refused_and_named,
    options_without_effect_are_warned_of,
    a_document_that_is_meant_for_something_else_is_told,
    nobody_changes_a_container_that_is_being_made,
    intel_rdt_is_refused_where_it_was_not_set_up,
    what_is_in_force_is_recorded,
    updates_at_the_same_time_are_all_recorded,
    a_paused_container_is_updated_and_stays_paused,
    a_created_container_is_updated,
    a_stopped_container_is_refused,
    a_missing_container_is_refused,
    a_container_without_a_cgroup_is_refused,
    the_cgroup_comes_from_the_state_and_not_from_the_command_line,
    what_clients_send_is_applied,
];

fn launched(resources: Value) -> Container {
    let container = Container::idle().edit(|spec| {
        for (key, value) in resources.as_object().unwrap() {
            spec["linux"]["resources"][key] = value.clone();
        }
    });
    container.launch();
    container
}

fn update(container: &Container, options: &[&str]) -> Invocation {
    container.runtime().arg("update").args(options).arg(&container.id)
}

/// `update --resources FILE ID`.
fn update_to(container: &Container, resources: Value) -> Invocation {
    let file = container.beside("resources.json");
    fs::write(&file, resources.to_string()).unwrap();
    update(container, &["--resources", file.to_str().unwrap()])
}

/// Updates with these options, and holds what the files say then against `expected`.
#[track_caller]
fn shows(container: &Container, options: &[&str], expected: &[(&str, &str)]) {
    update(container, options).succeeds();
    for (file, value) in expected {
        assert_eq!(container.control_file(file), *value, "{file} after {options:?}");
    }
}

#[track_caller]
fn shows_to(container: &Container, resources: Value, expected: &[(&str, &str)]) {
    update_to(container, resources.clone()).succeeds();
    for (file, value) in expected {
        assert_eq!(container.control_file(file), *value, "{file} after {resources}");
    }
}

/// Everything that these tests change, as far as it is there.
pub fn everything(container: &Container) -> BTreeMap<String, String> {
    let is_limit = |name: &str| {
        let words = ["max", "low", "high", "burst", "weight", "idle", "cpus", "mems", "depth", "descendants"];
        words.iter().any(|word| name.ends_with(&format!(".{word}")))
    };
    let names = fs::read_dir(container.cgroup()).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap()).filter(|name| is_limit(name));
    names.map(|name| (name.clone(), unlimited(container.control_file(&name)))).collect()
}

/// The kernel has two ways to say that huge pages are not limited, and takes one for the other.
fn unlimited(value: String) -> String {
    if value.starts_with("92233720368547") { "max".to_owned() } else { value }
}

/// The update fails with this text, and nothing is other than it was.
#[track_caller]
fn changes_nothing(container: &Container, call: Invocation, text: &str) -> Output {
    let state = || fs::read_to_string(container.state_directory().join("state.json")).unwrap_or_default();
    let before = (everything(container), state());
    let output = call.output();
    assert_ne!(output.code(), 0, "{output:#?}");
    assert!(output.stderr.contains(text), "{text:?} is not in {output:#?}");
    assert_eq!((everything(container), state()), before, "{output:#?}");
    output
}

fn recorded(container: &Container) -> Value {
    let state = fs::read_to_string(container.state_directory().join("state.json")).unwrap();
    serde_json::from_str::<Value>(&state).unwrap()["resources"].clone()
}

fn every_option_is_written() -> Outcome {
    ["memory", "cpu", "pids"].into_iter().try_for_each(need_controller)?;
    let container = launched(json!({}));
    for (option, value, file, expected) in [
        ("--memory", "67108864", "memory.max", "67108864"),
        ("--memory-reservation", "33554432", "memory.low", "33554432"),
        ("--cpu-quota", "50000", "cpu.max", "50000 100000"),
        ("--cpu-share", "2048", "cpu.weight", "174"),
        ("--pids-limit", "77", "pids.max", "77"),
    ] {
        shows(&container, &[option, value], &[(file, expected)]);
    }
    need_other_than("crun", "takes no options behind the name")?;
    // All at once.
    let call =
        container.runtime().args(["update", &container.id, "--cpu-period", "900000", "--cpu-quota=600000"]);
    call.args(["--cpu-share", "100", "--memory", "128M", "--pids-limit=10"]).succeeds();
    for (file, expected) in
        [("cpu.max", "600000 900000"), ("cpu.weight", "17"), ("memory.max", "134217728"), ("pids.max", "10")]
    {
        assert_eq!(container.control_file(file), expected, "{file}");
    }
    Ok(())
}

fn amounts_of_memory_have_units() -> Outcome {
    need_controller("memory")?;
    need_other_than("crun", "takes numbers of bytes only")?;
    let container = launched(json!({}));
    shows(&container, &["--memory", "50M"], &[("memory.max", "52428800")]);
    shows(&container, &["--memory", "65536k"], &[("memory.max", "67108864")]);
    shows(&container, &["--memory-reservation", "0.5g"], &[("memory.low", "536870912")]);
    Ok(())
}

fn a_period_and_a_quota_keep_each_other() -> Outcome {
    need_controller("cpu")?;
    need_other_than("crun", "takes the missing half for unset")?;
    let container = launched(json!({ "cpu": { "quota": 500_000, "period": 1_000_000 } }));
    shows(&container, &["--cpu-period", "900000"], &[("cpu.max", "500000 900000")]);
    shows(&container, &["--cpu-quota", "600000"], &[("cpu.max", "600000 900000")]);
    shows(&container, &["--cpu-quota", "-1"], &[("cpu.max", "max 900000")]);
    shows(&container, &["--cpu-period", "50000"], &[("cpu.max", "max 50000")]);
    shows_to(&container, json!({ "cpu": { "quota": 7_000 } }), &[("cpu.max", "7000 50000")]);
    need_own()?;
    // Also what the state does not know.
    fs::write(container.cgroup().join("cpu.max"), "8000 40000").unwrap();
    shows(&container, &["--cpu-period", "30000"], &[("cpu.max", "8000 30000")]);
    Ok(())
}

fn unlimited_is_written_as_max() -> Outcome {
    ["memory", "pids"].into_iter().try_for_each(need_controller)?;
    let container = launched(json!({ "memory": { "limit": 67_108_864 }, "pids": { "limit": 20 } }));
    shows(&container, &["--pids-limit", "-1"], &[("pids.max", "max")]);
    shows(&container, &["--memory", "-1"], &[("memory.max", "max")]);
    shows(&container, &["--memory=-1"], &[("memory.max", "max")]);
    Ok(())
}

fn need_swap(container: &Container) -> Outcome {
    need(container.cgroup().join("memory.swap.max").exists(), "a kernel that counts swap")
}

fn memory_and_swap_are_a_sum_also_with_what_was_in_force() -> Outcome {
    need_controller("memory")?;
    let container = launched(json!({ "memory": { "limit": 67_108_864 } }));
    need_swap(&container)?;
    let mib = |number: u64| (number << 20).to_string();
    shows(
        &container,
        &["--memory", &mib(50), "--memory-swap", &mib(90)],
        &[("memory.max", &mib(50)), ("memory.swap.max", &mib(40))],
    );
    need_other_than("crun", "does not know the other half")?;
    shows(
        &container,
        &["--memory-swap", &mib(80)],
        &[("memory.max", &mib(50)), ("memory.swap.max", &mib(30))],
    );
    shows(&container, &["--memory", &mib(60)], &[("memory.max", &mib(60)), ("memory.swap.max", &mib(20))]);
    shows(&container, &["--memory-swap", "-1"], &[("memory.max", &mib(60)), ("memory.swap.max", "max")]);
    shows(&container, &["--memory", &mib(60), "--memory-swap", &mib(60)], &[("memory.swap.max", "0")]);
    shows(&container, &["--memory", "-1"], &[("memory.max", "max"), ("memory.swap.max", "max")]);
    // And the sum is forgotten.
    shows(&container, &["--memory", &mib(70)], &[("memory.max", &mib(70)), ("memory.swap.max", "max")]);
    Ok(())
}

/// In a document 0 means that nobody has given a value.
fn no_process_more_is_a_limit_of_one() -> Outcome {
    need_controller("pids")?;
    need_other_than("crun", "takes it for unset")?;
    let container = launched(json!({ "pids": { "limit": 20 } }));
    need_own()?;
    shows_to(&container, json!({ "pids": { "limit": 0 } }), &[("pids.max", "20")]);
    shows(&container, &["--pids-limit", "0"], &[("pids.max", "1")]);
    Ok(())
}

fn idle_and_shares_take_each_others_place() -> Outcome {
    need_controller("cpu")?;
    let container = launched(json!({ "cpu": { "shares": 2048 } }));
    need(container.cgroup().join("cpu.idle").exists(), "a kernel with cpu.idle")?;
    need_other_than("crun", "lacks the option")?;
    shows(&container, &["--cpu-idle", "1"], &[("cpu.idle", "1")]);
    shows(&container, &["--cpu-idle", "0"], &[("cpu.idle", "0"), ("cpu.weight", "100")]);
    shows_to(&container, json!({ "cpu": { "idle": 1 } }), &[("cpu.idle", "1")]);
    // Other changes leave it.
    shows(&container, &["--cpu-period", "10000"], &[("cpu.idle", "1")]);
    need_other_than("runc", "fails without systemd")?;
    shows(&container, &["--cpu-share", "1024"], &[("cpu.idle", "0"), ("cpu.weight", "100")]);
    changes_nothing(
        &container,
        update(&container, &["--cpu-share", "2048", "--cpu-idle", "1"]),
        "--cpu-idle: 1 conflicts with",
    );
    changes_nothing(
        &container,
        update(&container, &["--cpu-idle", "2"]),
        "--cpu-idle: invalid value 2: must be 0 or 1",
    );
    Ok(())
}

fn a_burst_is_kept_and_taken_back() -> Outcome {
    need_controller("cpu")?;
    need_other_than("crun", "lacks the option")?;
    let container = launched(json!({ "cpu": { "quota": 500_000, "period": 1_000_000 } }));
    shows(&container, &["--cpu-period", "900000", "--cpu-burst", "400000"], &[("cpu.max.burst", "400000")]);
    shows(&container, &["--cpu-share", "100"], &[("cpu.max.burst", "400000")]);
    // Raised together: the kernel takes no burst above the old quota.
    shows(
        &container,
        &["--cpu-quota", "800000", "--cpu-period", "900000", "--cpu-burst", "700000"],
        &[("cpu.max.burst", "700000"), ("cpu.max", "800000 900000")],
    );
    shows(&container, &["--cpu-period", "900000", "--cpu-burst", "0"], &[("cpu.max.burst", "0")]);
    Ok(())
}

fn the_weight_of_block_io_is_written() -> Outcome {
    need_controller("io")?;
    let container = launched(json!({}));
    let weights = [("io.bfq.weight", "default 500"), ("io.weight", "default 4950")];
    let found = weights.iter().find(|(file, _)| container.cgroup().join(file).exists());
    need(found.is_some(), "a kernel with io.weight or io.bfq.weight")?;
    update(&container, &["--blkio-weight", "500"]).succeeds();
    let (file, expected) = found.unwrap();
    assert!(container.control_file(file).contains(expected.trim_start_matches("default ")));
    need_own()?;
    changes_nothing(
        &container,
        update(&container, &["--blkio-weight", "9"]),
        "--blkio-weight: weight 9 is out of range (10 to 1000)",
    );
    Ok(())
}

fn each_device_has_its_throttles() -> Outcome {
    need_controller("io")?;
    let (major, minor) = device_numbers(&need_disk()?);
    let rate = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let container = launched(json!({ "blockIO": { "throttleReadBpsDevice": rate(485_760) } }));
    let line = |text: &str| format!("{major}:{minor} {text}");
    shows_to(
        &container,
        json!({ "blockIO": {
            "throttleReadBpsDevice": rate(10_485_760), "throttleWriteBpsDevice": rate(9_437_184),
            "throttleReadIOPSDevice": rate(1000), "throttleWriteIOPSDevice": rate(900)
        } }),
        &[("io.max", &line("rbps=10485760 wbps=9437184 riops=1000 wiops=900"))],
    );
    need_own()?;
    shows_to(
        &container,
        json!({ "blockIO": { "throttleWriteBpsDevice": rate(0) } }),
        &[("io.max", &line("rbps=10485760 wbps=max riops=1000 wiops=900"))],
    );
    let refused = json!({ "blockIO": { "throttleReadBpsDevice": rate(5_000_000) }, "unified": { "io.max": "nonsense" } });
    changes_nothing(&container, update_to(&container, refused), "resources.json: /unified/io.max");
    Ok(())
}

fn processors_and_memory_nodes_are_written() -> Outcome {
    need_controller("cpuset")?;
    let processors = std::thread::available_parallelism().unwrap().get();
    need(processors > 1, "more than one processor")?;
    let container = launched(json!({ "cpu": { "cpus": "0" } }));
    shows(&container, &["--cpuset-cpus", "1"], &[("cpuset.cpus", "1"), ("cpuset.cpus.effective", "1")]);
    shows(&container, &["--cpuset-mems", "0"], &[("cpuset.mems", "0"), ("cpuset.cpus", "1")]);
    shows_to(&container, json!({ "cpu": { "cpus": "0-1" } }), &[("cpuset.cpus", "0-1")]);
    need_own()?;
    let both = update(&container, &["--cpuset-cpus", "0", "--cpuset-mems", "x"]);
    changes_nothing(&container, both, "--cpuset-mems: write \"x\" to ");
    Ok(())
}

fn huge_page_limits_are_written() -> Outcome {
    need_controller("hugetlb")?;
    need_other_than("runc", "ignores them")?;
    let container = launched(json!({}));
    need(container.cgroup().join("hugetlb.2MB.max").exists(), "huge pages")?;
    let limit = |limit: u64| json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": limit }] });
    shows_to(&container, limit(4_194_304), &[("hugetlb.2MB.max", "4194304")]);
    shows_to(&container, limit(0), &[("hugetlb.2MB.max", "0")]);
    Ok(())
}

fn unified_values_are_written() {
    let container = launched(json!({}));
    shows_to(
        &container,
        json!({ "unified": { "cgroup.max.depth": "7", "cgroup.max.descendants": "9" } }),
        &[("cgroup.max.depth", "7"), ("cgroup.max.descendants", "9")],
    );
}

fn a_later_word_takes_the_place_of_unified() -> Outcome {
    need_controller("pids")?;
    let container = launched(json!({ "unified": { "pids.max": "7" } }));
    shows(&container, &["--pids-limit", "9"], &[("pids.max", "9")]);
    need_own()?;
    assert_eq!(recorded(&container)["unified"], Value::Null);
    shows_to(&container, json!({ "unified": { "pids.max": "8" } }), &[("pids.max", "8")]);
    Ok(())
}

fn a_document_comes_from_a_file_or_standard_input() {
    let container = launched(json!({}));
    let document = container.beside("limits");
    for (depth, words) in [
        ("5", &["--resources=-"] as &[&str]),
        ("6", &["--resources", "-"]),
        ("7", &["-r", "-"]),
        ("8", &["-r", document.to_str().unwrap()]),
    ] {
        fs::write(&document, json!({ "unified": { "cgroup.max.depth": depth } }).to_string()).unwrap();
        update(&container, words).stdin(fs::File::open(&document).unwrap()).succeeds();
        assert_eq!(container.control_file("cgroup.max.depth"), depth, "{words:?}");
    }
}

fn zeros_and_empty_objects_leave_everything() -> Outcome {
    need_own()?;
    let container = launched(json!({ "unified": { "cgroup.max.depth": "7" } }));
    let before = (everything(&container), recorded(&container));
    update(&container, &[]).succeeds();
    update_to(&container, json!({})).succeeds();
    let zeros = json!({
        "memory": { "limit": 0, "reservation": 0, "swap": 0, "kernel": 0 }, "cpu": { "shares": 0, "quota": 0, "period": 0, "cpus": "" },
        "blockIO": { "weight": 0 }, "pids": { "limit": 0 }, "hugepageLimits": [], "unified": {}
    });
    update_to(&container, zeros).succeeds();
    assert_eq!((everything(&container), recorded(&container)), before);
    Ok(())
}

fn options_beside_a_document_are_ignored() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    let file = container.beside("resources.json");
    fs::write(&file, r#"{"unified": {"cgroup.max.depth": "7"}}"#).unwrap();
    update(&container, &["--blkio-weight", "9", "-r", file.to_str().unwrap()]).succeeds();
    assert_eq!(container.control_file("cgroup.max.depth"), "7");
    Ok(())
}

/// 1:10 is of no driver, so where no rule is in the way the kernel says that there is no such device.
fn device_rules_are_left_alone() -> Outcome {
    need_other_than("crun", "refuses them")?;
    let rule = |allow: bool| json!({ "allow": allow, "type": "c", "major": 1, "minor": 10, "access": "rwm" });
    let container = Container::with_script(&format!("{WAIT} : </dev/nothing")).edit(|spec| {
        spec["linux"]["devices"] = json!([{ "path": "/dev/nothing", "type": "c", "major": 1, "minor": 10 }]);
        spec["linux"]["resources"]["devices"] = json!([{ "allow": false, "access": "rwm" }, rule(true)]);
    });
    let running = container.run_beside();
    update_to(&container, json!({ "devices": [rule(false)] })).succeeds();
    container.go_on();
    let output = running.wait();
    assert!(output.stderr.contains("No such device or address"), "{output:#?}");
    Ok(())
}

fn a_limit_below_what_is_used_is_rejected_if_asked_for() -> Outcome {
    need_controller("memory")?;
    need_other_than("crun", "another text")?;
    let container = launched(json!({ "memory": { "limit": 67_108_864 } }));
    let low = |swap: Value| json!({ "memory": { "limit": 1024, "swap": swap, "checkBeforeUpdate": true } });
    changes_nothing(&container, update_to(&container, low(Value::Null)), "rejecting memory limit");
    changes_nothing(&container, update_to(&container, low(json!(2048))), "rejecting memory+swap limit");
    assert_eq!(container.state()["status"], "running");
    Ok(())
}

/// Of each kind of value, one that the kernel refuses, behind others that it takes.
fn what_one_write_refuses_takes_the_others_back() -> Outcome {
    need_own()?;
    ["memory", "cpu", "pids"].into_iter().try_for_each(need_controller)?;
    let container = launched(json!({
        "memory": { "limit": 67_108_864, "reservation": 1_048_576 }, "pids": { "limit": 20 },
        "cpu": { "shares": 100, "quota": 500_000, "period": 1_000_000, "burst": 100_000 }
    }));
    for (options, refused) in [
        (&["--pids-limit", "9999999999"][..], "--pids-limit: write \"9999999999\" to "),
        (&["--pids-limit", "30", "--cpu-period", "100"], "--cpu-period: write \"500000 100\" to "),
        (
            &["--memory", "32M", "--memory-reservation", "2M", "--pids-limit", "30", "--cpu-quota", "1"],
            "--cpu-quota: write \"1 1000000\" to ",
        ),
        // A quota below the burst that is in force.
        (
            &["--memory", "32M", "--cpu-share", "2048", "--cpu-quota", "50000"],
            "--cpu-quota: write \"50000 1000000\" to ",
        ),
        (
            &["--memory", "32M", "--cpu-share", "2048", "--cpu-burst", "900000"],
            "--cpu-burst: write \"900000\" to ",
        ),
    ] {
        let output = changes_nothing(&container, update(&container, options), refused);
        assert!(output.stderr.contains("invalid argument (EINVAL)"), "{output:#?}");
    }
    Ok(())
}

fn a_refused_value_takes_back_what_came_before() -> Outcome {
    need_own()?;
    let container = launched(json!({ "unified": { "cgroup.max.depth": "7" } }));
    let unified = |last: &str| json!({ "unified": { "cgroup.max.depth": "5", "cgroup.max.descendants": "9", "cgroup.xyz": last } });
    changes_nothing(
        &container,
        update_to(&container, unified("1")),
        "resources.json: /unified/cgroup.xyz: write \"1\" to ",
    );
    if has_controller("hugetlb") && container.cgroup().join("hugetlb.2MB.max").exists() {
        let mut huge = unified("1");
        huge["hugepageLimits"] = json!([{ "pageSize": "2MB", "limit": 4_194_304 }]);
        changes_nothing(&container, update_to(&container, huge), "/unified/cgroup.xyz");
        let huge = json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 2_097_152 }, { "pageSize": "3MB", "limit": 0 }] });
        changes_nothing(&container, update_to(&container, huge), "/hugepageLimits/1/limit");
    }
    let many = json!({ "unified": { "cgroup.max.depth": "5", "cgroup.max.descendants": "many" } });
    changes_nothing(
        &container,
        update_to(&container, many),
        "/unified/cgroup.max.descendants: write \"many\" to ",
    );
    Ok(())
}

/// The kernel forgets the weight of a cgroup that becomes idle.
fn an_idle_cgroup_gets_its_weight_back() -> Outcome {
    need_own()?;
    need_controller("cpu")?;
    let container = launched(json!({ "cpu": { "shares": 2048 } }));
    need(container.cgroup().join("cpu.idle").exists(), "a kernel with cpu.idle")?;
    let idle = json!({ "cpu": { "idle": 1 }, "unified": { "cgroup.max.depth": "many" } });
    changes_nothing(&container, update_to(&container, idle), "/unified/cgroup.max.depth");
    assert_eq!(container.control_file("cpu.weight"), "174");
    update(&container, &["--cpu-idle", "1"]).succeeds();
    let busy = json!({ "cpu": { "shares": 100 }, "unified": { "cgroup.max.depth": "many" } });
    changes_nothing(&container, update_to(&container, busy), "/unified/cgroup.max.depth");
    assert_eq!(container.control_file("cpu.idle"), "1");
    Ok(())
}

fn a_file_that_cannot_be_put_back_is_refused() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    let pressure = json!({ "unified": { "cgroup.max.depth": "5", "cgroup.stat": "1" } });
    changes_nothing(
        &container,
        update_to(&container, pressure),
        "resources.json: /unified/cgroup.stat: cgroup.stat cannot be read back, so the change could not be reverted",
    );
    Ok(())
}

fn what_cannot_be_recorded_is_not_in_force() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    let in_the_way = container.state_directory().join(".state.json");
    fs::create_dir(&in_the_way).unwrap();
    let unified = || json!({ "unified": { "cgroup.max.depth": "7" } });
    changes_nothing(&container, update_to(&container, unified()), "state.json: is a directory (EISDIR)");
    fs::remove_dir(&in_the_way).unwrap();
    shows_to(&container, unified(), &[("cgroup.max.depth", "7")]);
    Ok(())
}

/// One test on every host: whichever controllers it lacks are refused.
fn a_limit_without_its_controller_is_refused_by_its_option() -> Outcome {
    need_own()?;
    let mut tried = 0;
    let container = launched(json!({}));
    for (controller, option, value) in [
        ("memory", "--memory", "32M"),
        ("cpu", "--cpu-share", "512"),
        ("cpu", "--cpu-quota", "50000"),
        ("cpuset", "--cpuset-cpus", "0"),
        ("pids", "--pids-limit", "17"),
        ("io", "--blkio-weight", "500"),
    ] {
        if has_controller(controller) {
            continue;
        }
        tried += 1;
        let output =
            update(&container, &[option, value]).fails_with(&format!("error: {option}: {controller}."));
        assert!(output.stderr.contains(&format!("requires the {controller} controller")), "{output:#?}");
    }
    need(tried > 0, "a host that lacks a controller")
}

fn a_contradiction_with_what_is_in_force_is_refused() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    let container = launched(json!({ "memory": { "limit": 33_554_432, "swap": 67_108_864 } }));
    changes_nothing(
        &container,
        update(&container, &["--memory", "100M"]),
        "error: current limits: /memory/swap: 67108864: memory+swap limit should be >= memory limit, 104857600",
    );
    changes_nothing(
        &container,
        update(&container, &["--memory-swap", "20M"]),
        "error: --memory-swap: 20971520: memory+swap limit should be >= memory limit, 33554432",
    );
    Ok(())
}

fn a_misshapen_document_is_refused_by_line_and_pointer() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    let file = container.beside("limits");
    for (text, said) in [
        (
            "{\n \"memory\": {\"limit\": \"1\"}}",
            "2:24: /memory/limit: invalid type: string \"1\", expected i64",
        ),
        ("{\"cpu\": {\"shares\": -1}}", "1:21: /cpu/shares: invalid value: integer `-1`, expected u64"),
        ("{\"cpu\": []}", "1:10: /cpu: invalid type: sequence, expected struct LinuxCpu"),
        ("nonsense", "1:2: /: expected ident"),
        ("", "1:0: /: EOF while parsing a value"),
        ("{} {}", "1:4: /: trailing characters"),
    ] {
        fs::write(&file, text).unwrap();
        let call = update(&container, &["-r", file.to_str().unwrap()]);
        changes_nothing(&container, call, &format!("error: resources.json:{said}"));
    }
    let call = update(&container, &["-r", "-"]).stdin(fs::File::open(&file).unwrap());
    changes_nothing(&container, call, "error: standard input:1:4: /: trailing characters");
    fs::write(&file, r#"{"unified": {"../x.y": "1"}}"#).unwrap();
    let call = update(&container, &["-r", "-"]).stdin(fs::File::open(&file).unwrap());
    changes_nothing(&container, call, "error: standard input: /unified/..~1x.y: unified resource");
    changes_nothing(
        &container,
        update(&container, &["-r", "/nonexistent"]),
        "error: read /nonexistent: no such file",
    );
    Ok(())
}

fn a_wrong_option_is_refused_and_named() -> Outcome {
    need_other_than("crun", "writes what it is given")?;
    let container = launched(json!({}));
    for (option, value) in [
        ("--memory", "lots"),
        ("--memory-swap", "-2"),
        ("--cpu-period", "-1"),
        ("--cpu-share", "1.5"),
        ("--pids-limit", "many"),
        ("--cpu-idle", "yes"),
    ] {
        let call = update(&container, &[option, value]);
        changes_nothing(&container, call, option.trim_start_matches('-'));
    }
    Ok(())
}

fn options_without_effect_are_warned_of() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    let options = [
        "--kernel-memory",
        "50M",
        "--kernel-memory-tcp",
        "1",
        "--cpu-rt-period",
        "1",
        "--cpu-rt-runtime",
        "1",
    ];
    let output = update(&container, &options).succeeds();
    for option in options.iter().step_by(2) {
        assert!(output.stderr.contains(&format!("{option} has no effect on cgroup v2")), "{output:#?}");
    }
    assert_eq!(update(&container, &[]).succeeds().stderr, "");
    Ok(())
}

fn intel_rdt_is_refused_where_it_was_not_set_up() -> Outcome {
    need_other_than("crun", "another text")?;
    let container = launched(json!({}));
    for option in ["--l3-cache-schema", "--mem-bw-schema"] {
        changes_nothing(&container, update(&container, &[option, "L3:0=f"]), "Intel RDT");
    }
    Ok(())
}

fn what_is_in_force_is_recorded() -> Outcome {
    need_own()?;
    let container = launched(json!({ "unified": { "cgroup.max.depth": "7" } }));
    let expected = json!({
        "devices": [{ "allow": false, "access": "rwm" }], "unified": { "cgroup.max.depth": "7" }
    });
    assert_eq!(recorded(&container), expected);
    update_to(&container, json!({ "unified": { "cgroup.max.descendants": "9" }, "devices": [] })).succeeds();
    let expected = json!({
        "devices": [{ "allow": false, "access": "rwm" }],
        "unified": { "cgroup.max.depth": "7", "cgroup.max.descendants": "9" }
    });
    assert_eq!(recorded(&container), expected);
    assert_eq!(container.state()["status"], "running");
    if has_controller("memory") {
        update(&container, &["--memory", "64M"]).succeeds();
        assert_eq!(recorded(&container)["memory"], json!({ "limit": 67_108_864 }));
    }
    Ok(())
}

fn updates_at_the_same_time_are_all_recorded() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    for round in 1..=4 {
        let files = ["cgroup.max.depth", "cgroup.max.descendants"];
        let running: Vec<_> = files
            .iter()
            .map(|name| {
                let document = container.beside(name);
                fs::write(&document, json!({ "unified": { *name: round.to_string() } }).to_string()).unwrap();
                update(&container, &["-r", document.to_str().unwrap()]).spawn()
            })
            .collect();
        for running in running {
            let output = running.wait();
            assert_eq!(output.code(), 0, "{output:#?}");
        }
        for name in files {
            assert_eq!(recorded(&container)["unified"][name], round.to_string());
        }
    }
    let history = container.runtime().args(["history", "--format=json", &container.id]).succeeds().stdout;
    let history: Value = serde_json::from_str(&history).unwrap();
    // The first, and one for each.
    assert_eq!(history.as_array().unwrap().len(), 9, "{history:#?}");
    Ok(())
}

fn a_paused_container_is_updated_and_stays_paused() {
    let container = launched(json!({}));
    container.on_id("pause").succeeds();
    shows_to(&container, json!({ "unified": { "cgroup.max.depth": "7" } }), &[("cgroup.max.depth", "7")]);
    assert_eq!(container.state()["status"], "paused");
    container.on_id("resume").succeeds();
}

fn a_created_container_is_updated() {
    let container = Container::idle();
    container.create();
    shows_to(&container, json!({ "unified": { "cgroup.max.depth": "7" } }), &[("cgroup.max.depth", "7")]);
    assert_eq!(container.state()["status"], "created");
}

fn a_stopped_container_is_refused() -> Outcome {
    need_other_than("crun", "updates its cgroup")?;
    let container = Container::new();
    container.launch();
    container.wait_for("stopped");
    let unified = json!({ "unified": { "cgroup.max.depth": "7" } });
    changes_nothing(&container, update_to(&container, unified), "container not running");
    Ok(())
}

fn a_missing_container_is_refused() {
    let container = Container::new();
    update(&container, &["--pids-limit", "7"]).fails_with("does not exist");
}

fn a_container_without_a_cgroup_is_refused() -> Outcome {
    need_own()?;
    let container = Container::idle();
    let call = container.runtime().args(["--cgroup-manager", "disabled", "create", "--bundle"]);
    call.arg(container.bundle.path()).arg(&container.id).succeeds();
    update(&container, &["--pids-limit", "7"]).fails_with("has no cgroup of its own");
    Ok(())
}

/// Podman gives none of the options that it gave to create.
fn the_cgroup_comes_from_the_state_and_not_from_the_command_line() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    let file = container.beside("resources.json");
    fs::write(&file, r#"{"unified": {"cgroup.max.depth": "7"}}"#).unwrap();
    for option in ["--systemd-cgroup", "--cgroup-manager=disabled"] {
        container.runtime().args([option, "update", "-r"]).arg(&file).arg(&container.id).succeeds();
    }
    assert_eq!(container.control_file("cgroup.max.depth"), "7");
    Ok(())
}

/// dockerd's, containerd's and Podman's own documents.
fn what_clients_send_is_applied() -> Outcome {
    ["memory", "cpu", "pids"].into_iter().try_for_each(need_controller)?;
    need_other_than("crun", "refuses device rules in a document")?;
    let sent = |name: &str| {
        let path = format!("tests/fixtures/clients/shim-update-{name}resources.json");
        serde_json::from_str::<Value>(
            &fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}")),
        )
        .unwrap()
    };
    // As Docker makes a container with a limit of memory: swap is as much again.
    let container = launched(
        json!({ "memory": { "limit": 134_217_728, "swap": 268_435_456 }, "cpu": { "shares": 2048 } }),
    );
    let swap = |value: &'static str| {
        container.cgroup().join("memory.swap.max").exists().then_some(("memory.swap.max", value))
    };
    shows_to(
        &container,
        sent("mem-"),
        &[("memory.max", "67108864"), ("cpu.weight", "174"), ("cpu.max", "max 100000")],
    );
    shows_to(&container, sent("mem-"), &swap("0").into_iter().collect::<Vec<_>>());
    // The zeros of the others leave what came before; to runc they are values.
    let keeps = |value: &'static str| (kind() != "runc").then_some(("memory.max", value));
    if is_own() {
        shows_to(
            &container,
            sent("cpus-"),
            &[("cpu.max", "50000 100000"), ("cpu.weight", "174"), ("pids.max", "max")],
        );
        shows_to(&container, sent("cpus-"), &keeps("67108864").into_iter().collect::<Vec<_>>());
        shows_to(
            &container,
            sent("pids-"),
            &[("pids.max", "100"), ("cpu.max", "50000 100000"), ("memory.max", "67108864")],
        );
    }
    shows_to(&container, sent(""), &[("memory.max", "50331648"), ("cpu.max", "50000 100000")]);
    container.create_with(NO_OPTIONS).fails_with("exist");
    Ok(())
}

fn a_document_that_is_meant_for_something_else_is_told() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    for text in ["[]", "null", "[[1]]"] {
        fs::write(container.beside("resources.json"), text).unwrap();
        let file = container.beside("resources.json");
        update(&container, &["-r", file.to_str().unwrap()]).fails_with("resources.json: expected an object");
    }
    // As with runc, it is none of the limits, and no error.
    let output =
        update_to(&container, json!({ "linux": { "resources": { "pids": { "limit": 5 } } } })).succeeds();
    assert!(output.stderr.contains("no linux.resources fields"), "{output:#?}");
    assert_eq!(update_to(&container, json!({})).succeeds().stderr, "");
    Ok(())
}

/// Whatever a hook does to its cgroup.
fn nobody_changes_a_container_that_is_being_made() -> Outcome {
    need_own()?;
    let container = Container::idle();
    let runtime = container.runtime().words().join(" ");
    let (log, cgroup) = (container.beside("log"), container.cgroup());
    let script = format!(
        "cat >/dev/null; echo 1 >{0}/cgroup.freeze; {runtime} update --pids-limit 7 {1} >{2} 2>&1; echo $? >>{2}; echo 0 >{0}/cgroup.freeze",
        cgroup.display(),
        container.id,
        log.display()
    );
    let container = container.edit(|spec| {
        spec["hooks"] = json!({ "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", script] }] });
    });
    container.launch();
    let said = fs::read_to_string(log).unwrap();
    assert!(said.contains("is still being created") && said.ends_with("\n1\n"), "{said}");
    Ok(())
}
