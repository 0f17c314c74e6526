//! Time namespaces and their clock offsets: config-linux.md § Offset for Time Namespace.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::bundle::join_namespace;
use crate::support::container::NO_OPTIONS;
use crate::support::host::{has_capability, need, need_other_than, need_own};
use crate::support::suite::suite;
use crate::support::{Container, Outcome};

suite![
    a_new_time_namespace_has_the_clocks_of_the_host,
    offsets_are_set_before_the_program_begins,
    the_clock_since_boot_shows_its_offset,
    offsets_are_set_in_a_new_user_namespace_too,
    a_time_namespace_is_joined_with_its_offsets,
    an_offset_that_no_clock_can_have_is_named,
    the_state_names_the_time_namespace,
    without_one_the_container_is_in_that_of_the_caller,
];

fn need_time_namespaces() -> Outcome {
    need(Path::new("/proc/self/ns/time").exists(), "a kernel with time namespaces")?;
    need(has_capability(25), "CAP_SYS_TIME")
}

fn add_time_namespace(spec: &mut Value, offsets: Value) {
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "time" }));
    spec["linux"]["timeOffsets"] = offsets;
}

fn offsets() -> Value {
    json!({ "monotonic": { "secs": 7881, "nanosecs": 2_718_281 }, "boottime": { "secs": 1337, "nanosecs": 3_141_519 } })
}

/// What a container's /proc/self/timens_offsets says, in words.
fn shown(container: &Container) -> Vec<String> {
    container.says().split_whitespace().map(ToOwned::to_owned).collect()
}

fn show_offsets() -> Container {
    Container::with_args(["cat", "/proc/self/timens_offsets"])
}

fn a_new_time_namespace_has_the_clocks_of_the_host() -> Outcome {
    need_time_namespaces()?;
    let container = show_offsets().edit(|spec| add_time_namespace(spec, Value::Null));
    assert_eq!(shown(&container), ["monotonic", "0", "0", "boottime", "0", "0"]);
    let container = Container::with_args(["readlink", "/proc/self/ns/time"])
        .edit(|spec| add_time_namespace(spec, Value::Null));
    assert_ne!(container.says(), fs::read_link("/proc/self/ns/time").unwrap().to_str().unwrap());
    Ok(())
}

fn offsets_are_set_before_the_program_begins() -> Outcome {
    need_time_namespaces()?;
    let container = show_offsets().edit(|spec| add_time_namespace(spec, offsets()));
    assert_eq!(shown(&container), ["monotonic", "7881", "2718281", "boottime", "1337", "3141519"]);
    let negative = json!({ "boottime": { "secs": -1, "nanosecs": 5 } });
    let container = show_offsets().edit(|spec| add_time_namespace(spec, negative));
    assert_eq!(shown(&container), ["monotonic", "0", "0", "boottime", "-1", "5"]);
    Ok(())
}

fn the_clock_since_boot_shows_its_offset() -> Outcome {
    need_time_namespaces()?;
    let year = json!({ "boottime": { "secs": 31_536_000 } });
    let container = Container::with_args(["cat", "/proc/uptime"]).edit(|spec| add_time_namespace(spec, year));
    let uptime = container.says();
    assert!(uptime.split('.').next().unwrap().parse::<u64>().unwrap() >= 31_536_000, "{uptime}");
    Ok(())
}

fn offsets_are_set_in_a_new_user_namespace_too() -> Outcome {
    need_time_namespaces()?;
    need_other_than("crun", "may not write them there")?;
    let container = show_offsets().in_user_namespace().edit(|spec| add_time_namespace(spec, offsets()));
    assert_eq!(shown(&container), ["monotonic", "7881", "2718281", "boottime", "1337", "3141519"]);
    Ok(())
}

fn a_time_namespace_is_joined_with_its_offsets() -> Outcome {
    need_time_namespaces()?;
    need_other_than("crun", "fails to join one")?;
    let first = Container::idle().edit(|spec| add_time_namespace(spec, offsets()));
    first.launch();
    let path = format!("/proc/{}/ns/time", first.pid());
    let second = show_offsets().edit(|spec| join_namespace(spec, "time", &path));
    assert_eq!(shown(&second), ["monotonic", "7881", "2718281", "boottime", "1337", "3141519"]);
    let linked = Container::with_args(["readlink", "/proc/self/ns/time"])
        .edit(|spec| join_namespace(spec, "time", &path));
    assert_eq!(linked.says(), fs::read_link(&path).unwrap().to_str().unwrap());
    Ok(())
}

fn an_offset_that_no_clock_can_have_is_named() -> Outcome {
    need_time_namespaces()?;
    need_other_than("crun", "does not name it")?;
    let past = json!({ "boottime": { "secs": -3_000_000_000_i64 } });
    let container = Container::new().edit(|spec| add_time_namespace(spec, past));
    let output = container.run_with(NO_OPTIONS).fails_with("");
    container.leaves_nothing();
    need_own()?;
    let expected = "config.json: /linux/timeOffsets: set the clocks of the time namespace: ";
    assert!(output.stderr.contains(expected) && output.stderr.contains("(ERANGE)"), "{output:?}");
    Ok(())
}

fn the_state_names_the_time_namespace() -> Outcome {
    need_time_namespaces()?;
    need_other_than("crun", "keeps another state")?;
    let container = Container::idle().edit(|spec| add_time_namespace(spec, offsets()));
    container.launch();
    let text = fs::read_to_string(container.state_directory().join("state.json")).unwrap();
    let state: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(state["namespace_paths"]["NEWTIME"], format!("/proc/{}/ns/time", container.pid()));
    Ok(())
}

fn without_one_the_container_is_in_that_of_the_caller() -> Outcome {
    need_time_namespaces()?;
    let container = Container::with_args(["readlink", "/proc/self/ns/time"]);
    assert_eq!(container.says(), fs::read_link("/proc/self/ns/time").unwrap().to_str().unwrap());
    Ok(())
}
