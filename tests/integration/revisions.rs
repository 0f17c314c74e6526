//! `history`, `rollback` and `update --dry-run`: past and planned changes of limits, and the way back.

use std::fs;

use serde_json::{Value, json};

use crate::support::host::{has_controller, need, need_controller, need_own};
use crate::support::suite::suite;
use crate::support::{Container, Invocation, Outcome, wait_until};

suite![
    a_container_that_was_never_updated_has_one_revision,
    each_update_that_changes_something_is_a_revision,
    a_revision_says_who_asked,
    the_history_is_an_aligned_table,
    a_rollback_restores_the_revision_before,
    any_kept_revision_can_be_restored,
    what_others_wrote_between_two_revisions_does_not_come_back,
    the_first_and_the_newest_nine_are_kept,
    a_revision_that_there_is_not_is_refused,
    a_rollback_leaves_the_device_rules_of_now,
    a_paused_container_is_rolled_back_and_stays_paused,
    a_refused_rollback_changes_nothing,
    quota_and_burst_are_rolled_back_whatever_their_order,
    an_idle_container_gets_its_weight_back,
    processors_are_given_back_to_whoever_had_no_list_of_them,
    processors_are_given_back_after_a_partition_has_ended,
    a_weight_by_a_nice_value_is_taken_back_and_rolled_back,
    a_dry_run_prints_the_writes_and_changes_nothing,
    a_dry_run_of_a_rollback_prints_what_would_come_back,
    a_dry_run_knows_what_is_not_there,
    limits_of_a_class_of_service_are_taken_back_and_rolled_back,
    a_damaged_history_is_refused,
    a_stopped_container_has_a_history_and_no_way_back,
    a_missing_container_has_no_history,
    what_is_of_no_use_is_refused,
];

pub fn launched(resources: Value) -> Container {
    let container = Container::idle().edit(|spec| {
        for (key, value) in resources.as_object().unwrap() {
            spec["linux"]["resources"][key] = value.clone();
        }
    });
    container.launch();
    container
}

/// `update --resources FILE ID` with further options.
pub fn update_to(container: &Container, resources: Value, options: &[&str]) -> Invocation {
    let file = container.beside("resources.json");
    fs::write(&file, resources.to_string()).unwrap();
    container.runtime().args(["update", "-r"]).arg(file).args(options).arg(&container.id)
}

/// The limit that every cgroup has.
pub fn depth(value: &str) -> Value {
    json!({ "unified": { "cgroup.max.depth": value } })
}

fn rollback(container: &Container, options: &[&str]) -> Invocation {
    container.runtime().arg("rollback").args(options).arg(&container.id)
}

#[track_caller]
pub fn history(container: &Container) -> Vec<Value> {
    let output = container.runtime().args(["history", "--format", "json", &container.id]).succeeds();
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:#?}"))
}

pub fn state_file(container: &Container) -> String {
    fs::read_to_string(container.state_directory().join("state.json")).unwrap()
}

fn recorded(container: &Container) -> Value {
    serde_json::from_str::<Value>(&state_file(container)).unwrap()["resources"].clone()
}

fn a_container_that_was_never_updated_has_one_revision() -> Outcome {
    need_own()?;
    let container = launched(depth("7"));
    let history = history(&container);
    assert_eq!(history.len(), 1, "{history:#?}");
    assert_eq!(history[0]["revision"], 1);
    assert_eq!(history[0]["time"], container.state()["created"]);
    assert_eq!(history[0]["user"], "root");
    assert_eq!(history[0]["current"], true);
    assert_eq!(history[0]["changes"], json!([]));
    assert_eq!(history[0]["resources"]["unified"], json!({ "cgroup.max.depth": "7" }));
    assert!(!state_file(&container).contains("history"));
    Ok(())
}

fn each_update_that_changes_something_is_a_revision() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    update_to(&container, depth("7"), &[]).succeeds();
    update_to(&container, depth("7"), &[]).succeeds();
    container.runtime().args(["update", &container.id]).succeeds();
    let both = json!({ "unified": { "cgroup.max.depth": "9", "cgroup.max.descendants": "5" } });
    update_to(&container, both, &[]).succeeds();
    update_to(&container, json!({ "unified": { "cgroup.max.depth": "many" } }), &[]).fails_with("EINVAL");
    let history = history(&container);
    let changes: Vec<_> = history.iter().map(|revision| revision["changes"].clone()).collect();
    let depth = |from, to| json!({ "file": "cgroup.max.depth", "from": from, "to": to });
    let descendants = json!({ "file": "cgroup.max.descendants", "from": "max", "to": "5" });
    assert_eq!(changes, [json!([]), json!([depth("max", "7")]), json!([depth("7", "9"), descendants])]);
    let of = |key: &str| history.iter().map(|revision| revision[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("revision"), [1, 2, 3]);
    assert_eq!(of("current"), [false, false, true]);
    let times = of("time").iter().map(|time| time.as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert!(times.is_sorted() && times.iter().all(|time| time.ends_with('Z')), "{times:?}");
    assert_eq!(history[1]["resources"], json!({ "unified": { "cgroup.max.depth": "7" } }));
    Ok(())
}

fn a_revision_says_who_asked() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    update_to(&container, depth("7"), &[]).succeeds();
    update_to(&container, depth("8"), &[]).env("SUDO_UID", "1").succeeds();
    let history = history(&container);
    let by = &history[1]["by"];
    assert_eq!(by["uid"], 0);
    assert_eq!(by["callerPid"], std::process::id());
    assert!(by["caller"].as_str().is_some_and(|name| name.starts_with("integration")), "{by}");
    let command = by["command"].as_str().unwrap();
    assert!(command.starts_with("update -r ") && command.ends_with(&container.id), "{command}");
    assert_eq!(by.get("sudoUid"), None);
    assert_eq!(history[2]["by"]["sudoUid"], 1);
    let table = container.runtime().args(["history", &container.id]).succeeds().stdout;
    assert!(table.lines().last().unwrap().contains("   root (sudo "), "{table}");
    Ok(())
}

fn the_history_is_an_aligned_table() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    update_to(&container, depth("7"), &[]).succeeds();
    rollback(&container, &[]).succeeds();
    let table = container.runtime().args(["history", &container.id]).succeeds().stdout;
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    let columns = ["REVISION", "TIME", "USER", "CAUSE", "CHANGES"].map(|head| lines[0].find(head).unwrap());
    let cell = |line: usize, column: usize| lines[line].get(columns[column]..).unwrap_or_default();
    assert!(cell(1, 3).starts_with("created"), "{table}");
    assert!(cell(2, 3).starts_with("update -r "), "{table}");
    assert_eq!(cell(2, 4), "cgroup.max.depth max -> 7", "{table}");
    assert!(cell(3, 0).starts_with("3 *  "), "{table}");
    assert!(cell(3, 3).starts_with("rolled back to 1  "), "{table}");
    assert_eq!(cell(3, 4), "cgroup.max.depth 7 -> max", "{table}");
    Ok(())
}

fn a_rollback_restores_the_revision_before() -> Outcome {
    need_own()?;
    let container = launched(depth("3"));
    let first = recorded(&container);
    update_to(
        &container,
        json!({ "unified": { "cgroup.max.depth": "7", "cgroup.max.descendants": "9" } }),
        &[],
    )
    .succeeds();
    let second = recorded(&container);
    let output = rollback(&container, &[]).succeeds();
    assert_eq!(output.stdout, format!("{}: rolled back to revision 1, as revision 3\n", container.id));
    assert_eq!(container.control_file("cgroup.max.depth"), "3");
    assert_eq!(container.control_file("cgroup.max.descendants"), "max");
    assert_eq!(recorded(&container), first);
    // Twice is not at all.
    let output = rollback(&container, &[]).succeeds();
    assert_eq!(output.stdout, format!("{}: rolled back to revision 2, as revision 4\n", container.id));
    assert_eq!(container.control_file("cgroup.max.depth"), "7");
    assert_eq!(container.control_file("cgroup.max.descendants"), "9");
    assert_eq!(recorded(&container), second);
    assert_eq!(history(&container)[3]["rollbackTo"], 2);
    // What comes after goes on from there.
    update_to(&container, depth("8"), &[]).succeeds();
    assert_eq!(recorded(&container)["unified"]["cgroup.max.descendants"], "9");
    Ok(())
}

fn any_kept_revision_can_be_restored() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    for value in ["2", "3", "4"] {
        update_to(&container, depth(value), &[]).succeeds();
    }
    update_to(&container, json!({ "unified": { "cgroup.max.descendants": "5" } }), &[]).succeeds();
    rollback(&container, &["--to", "2"]).succeeds();
    let now = || ["cgroup.max.depth", "cgroup.max.descendants"].map(|file| container.control_file(file));
    assert_eq!(now(), ["2", "max"]);
    rollback(&container, &["--to=5"]).succeeds();
    assert_eq!(now(), ["4", "5"]);
    let output = rollback(&container, &["--to=5"]).succeeds();
    assert_eq!(output.stdout, format!("{}: already has the limits of revision 5\n", container.id));
    let output = rollback(&container, &["--to=7"]).succeeds();
    assert_eq!(output.stdout, format!("{}: already has the limits of revision 7\n", container.id));
    assert_eq!(history(&container).len(), 7);
    Ok(())
}

/// A container can write to its own cgroup if it has the mount, and must not choose its limits so.
fn what_others_wrote_between_two_revisions_does_not_come_back() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    update_to(&container, depth("7"), &[]).succeeds();
    fs::write(container.cgroup().join("cgroup.max.depth"), "max").unwrap();
    update_to(&container, depth("3"), &[]).succeeds();
    assert_eq!(history(&container)[2]["changes"][0]["from"], "max");
    rollback(&container, &[]).succeeds();
    assert_eq!(container.control_file("cgroup.max.depth"), "7");
    assert_eq!(recorded(&container)["unified"]["cgroup.max.depth"], "7");
    Ok(())
}

fn the_first_and_the_newest_nine_are_kept() -> Outcome {
    need_own()?;
    let container = launched(depth("1"));
    update_to(&container, json!({ "unified": { "cgroup.max.descendants": "5" } }), &[]).succeeds();
    for value in 3..=14 {
        update_to(&container, depth(&value.to_string()), &[]).succeeds();
    }
    let kept: Vec<_> = history(&container).iter().map(|revision| revision["revision"].clone()).collect();
    assert_eq!(kept, [1, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
    rollback(&container, &["--to", "2"]).fails_with("revision 2 does not exist (available: 1, 6, 7, ");
    rollback(&container, &["--to", "6"]).succeeds();
    // A variable that is not set is no wish to go back at all.
    rollback(&container, &["--to", ""]).fails_with("--to");
    rollback(&container, &["--to="]).fails_with("--to");
    assert_eq!(container.control_file("cgroup.max.depth"), "6");
    assert_eq!(container.control_file("cgroup.max.descendants"), "5");
    rollback(&container, &["--to", "1"]).succeeds();
    assert_eq!(container.control_file("cgroup.max.depth"), "1");
    assert_eq!(container.control_file("cgroup.max.descendants"), "max");
    Ok(())
}

fn a_revision_that_there_is_not_is_refused() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    rollback(&container, &[]).fails_with("is at revision 1: no earlier revision");
    rollback(&container, &["--to", "2"]).fails_with("error: revision 2 does not exist (available: 1)");
    rollback(&container, &["--to", "first"]).fails_with("--to");
    Ok(())
}

fn a_rollback_leaves_the_device_rules_of_now() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    let devices = recorded(&container)["devices"].clone();
    update_to(&container, depth("7"), &[]).succeeds();
    rollback(&container, &[]).succeeds();
    assert_eq!(recorded(&container), json!({ "devices": devices }));
    Ok(())
}

fn a_paused_container_is_rolled_back_and_stays_paused() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    update_to(&container, depth("7"), &[]).succeeds();
    container.on_id("pause").succeeds();
    rollback(&container, &[]).succeeds();
    assert_eq!(container.control_file("cgroup.max.depth"), "max");
    assert_eq!(container.state()["status"], "paused");
    container.on_id("resume").succeeds();
    Ok(())
}

fn a_refused_rollback_changes_nothing() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    let both = json!({ "unified": { "cgroup.max.depth": "7", "cgroup.max.descendants": "9" } });
    update_to(&container, both, &[]).succeeds();
    let before = state_file(&container);
    let file = container.cgroup().join("cgroup.max.descendants");
    let output = read_only(rollback(&container, &[]), &file).fails_with("EROFS");
    let text = format!("error: history: /1/cgroup.max.descendants: write \"max\" to {}: ", file.display());
    assert!(output.stderr.starts_with(&text), "{output:#?}");
    assert_eq!(container.control_file("cgroup.max.depth"), "7");
    assert_eq!(container.control_file("cgroup.max.descendants"), "9");
    assert_eq!(state_file(&container), before);
    Ok(())
}

/// The same call where this file can be read and not be written.
pub fn read_only(call: Invocation, file: &std::path::Path) -> Invocation {
    let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
    let file = file.to_str().unwrap();
    call.called_by(["unshare", "--mount", "--propagation", "private", "sh", "-c", script, file])
}

/// The kernel takes no burst above the quota, so that one way round they cannot be written.
fn quota_and_burst_are_rolled_back_whatever_their_order() -> Outcome {
    need_own()?;
    need_controller("cpu")?;
    let cpu =
        |quota: u32, burst: u32| json!({ "cpu": { "quota": quota, "burst": burst, "period": 100_000 } });
    let container = launched(cpu(20_000, 10_000));
    let now = || ["cpu.max", "cpu.max.burst"].map(|file| container.control_file(file));
    update_to(&container, cpu(90_000, 80_000), &[]).succeeds();
    rollback(&container, &[]).succeeds();
    assert_eq!(now(), ["20000 100000", "10000"]);
    rollback(&container, &[]).succeeds();
    assert_eq!(now(), ["90000 100000", "80000"]);
    Ok(())
}

fn an_idle_container_gets_its_weight_back() -> Outcome {
    need_own()?;
    need_controller("cpu")?;
    let container = launched(json!({ "cpu": { "shares": 2048 } }));
    need(container.cgroup().join("cpu.idle").exists(), "a kernel with cpu.idle")?;
    let now = || ["cpu.idle", "cpu.weight"].map(|file| container.control_file(file));
    let cpu =
        |options: &[&str]| container.runtime().arg("update").args(options).arg(&container.id).succeeds();
    cpu(&["--cpu-idle", "1"]);
    cpu(&["--cpu-share", "100"]);
    assert_eq!(now(), ["0", "17"]);
    rollback(&container, &["--to", "2"]).succeeds();
    assert_eq!(now()[0], "1");
    rollback(&container, &["--to", "1"]).succeeds();
    assert_eq!(now(), ["0", "174"]);
    rollback(&container, &["--to", "2"]).succeeds();
    assert_eq!(now()[0], "1");
    rollback(&container, &["--to", "3"]).succeeds();
    assert_eq!(now(), ["0", "17"]);
    Ok(())
}

/// A nice value is the weight rounded: what it shows does not restore the weight.
fn a_weight_by_a_nice_value_is_taken_back_and_rolled_back() -> Outcome {
    need_own()?;
    need_controller("cpu")?;
    let container = launched(json!({ "unified": { "cpu.weight": "174" } }));
    let nice = json!({ "unified": { "cpu.weight.nice": "-5" } });
    let wrong = json!({ "unified": { "cpu.weight.nice": "-5", "pids.max": "many" } });
    update_to(&container, wrong, &[]).fails_with("EINVAL");
    assert_eq!(container.control_file("cpu.weight"), "174");
    update_to(&container, nice, &[]).succeeds();
    assert_eq!(container.control_file("cpu.weight.nice"), "-5");
    let changes = &history(&container)[1]["changes"];
    assert_eq!((&changes[0]["file"], &changes[0]["from"]), (&json!("cpu.weight"), &json!("174")));
    rollback(&container, &[]).succeeds();
    assert_eq!(container.control_file("cpu.weight"), "174");
    rollback(&container, &[]).succeeds();
    assert_eq!(container.control_file("cpu.weight.nice"), "-5");
    Ok(())
}

/// While a partition holds its processors, the cgroup above has them not.
fn processors_are_given_back_after_a_partition_has_ended() -> Outcome {
    need_own()?;
    need_controller("cpuset")?;
    need(std::thread::available_parallelism().unwrap().get() > 1, "more than one processor")?;
    let container = Container::idle();
    // Only there it can be one by itself.
    let path = format!("/{}", container.id);
    let container = container.edit(|spec| spec["linux"]["cgroupsPath"] = json!(path));
    container.launch();
    need(container.cgroup().join("cpuset.cpus.partition").exists(), "a kernel with cpuset.cpus.partition")?;
    let now = || ["cpuset.cpus.partition", "cpuset.cpus.effective"].map(|file| container.control_file(file));
    let before = now();
    let partition = json!({ "unified": { "cpuset.cpus": "0", "cpuset.cpus.partition": "root" } });
    update_to(&container, partition, &[]).succeeds();
    // It is none while a test beside this one has the same processor, and none afterwards until it is told so again.
    let file = container.cgroup().join("cpuset.cpus.partition");
    wait_until("it is a partition", || {
        let _ = fs::write(&file, "root");
        now() == ["root", "0"]
    });
    rollback(&container, &[]).succeeds();
    assert_eq!(now(), before);
    Ok(())
}

/// The kernel takes no list of processors from a cgroup with processes that has one: all of the cgroup above are the same.
fn processors_are_given_back_to_whoever_had_no_list_of_them() -> Outcome {
    need_own()?;
    need_controller("cpuset")?;
    need(std::thread::available_parallelism().unwrap().get() > 1, "more than one processor")?;
    let container = launched(json!({}));
    let files = ["cpuset.cpus", "cpuset.cpus.effective", "cpuset.mems", "cpuset.mems.effective"];
    let now = || files.map(|file| container.control_file(file));
    let before = now();
    let [_, cpus, _, mems] = &before;
    assert_eq!(before, ["", cpus, "", mems]);
    // A refused update of one that has no list yet.
    let wrong = json!({ "cpu": { "cpus": "0", "mems": "0" }, "unified": { "cgroup.max.depth": "many" } });
    let output = update_to(&container, wrong, &[]).fails_with("EINVAL");
    assert!(!output.stderr.contains("put back"), "{output:#?}");
    assert_eq!(now().each_ref(), [cpus, cpus, mems, mems]);
    assert_eq!(history(&container).len(), 1);

    container.delete_by_force();
    container.launch();
    update_to(&container, json!({ "cpu": { "cpus": "0", "mems": "0" } }), &[]).succeeds();
    assert_eq!(now(), ["0", "0", "0", mems]);
    let output = rollback(&container, &["--dry-run", "--format=json"]).succeeds();
    let writes: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((&writes[0]["old"], &writes[0]["new"]), (&json!("0"), &json!(cpus)), "{output:#?}");
    rollback(&container, &[]).succeeds();
    assert_eq!(now().each_ref(), [cpus, cpus, mems, mems]);
    let output = rollback(&container, &["--to", "1"]).succeeds();
    assert!(output.stdout.ends_with(": already has the limits of revision 1\n"), "{output:#?}");
    rollback(&container, &["--to", "2"]).succeeds();
    assert_eq!(now()[..2], ["0", "0"]);
    let output = update_to(&container, json!({ "unified": { "cpuset.cpus": "\n" } }), &[]);
    output.fails_with("(ENOSPC) (a list in use cannot be emptied: ");
    Ok(())
}

fn a_dry_run_prints_the_writes_and_changes_nothing() -> Outcome {
    need_own()?;
    let container = launched(depth("3"));
    let before = state_file(&container);
    let both = json!({ "unified": { "cgroup.max.depth": "7", "cgroup.max.descendants": "9" } });
    let output = update_to(&container, both.clone(), &["--dry-run"]).succeeds();
    let (id, cgroup) = (&container.id, container.cgroup());
    let path = |name: &str| cgroup.join(name).to_str().unwrap().to_owned();
    let rows: Vec<Vec<_>> =
        output.stdout.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
    let expected = [
        ["ID", "FILE", "OLD", "NEW"].map(str::to_owned),
        [id.clone(), path("cgroup.max.depth"), "3".into(), "7".into()],
        [id.clone(), path("cgroup.max.descendants"), "max".into(), "9".into()],
    ];
    assert_eq!(rows, expected);
    let columns: Vec<_> = output.stdout.lines().map(|line| line.find(['I', 'r']).unwrap()).collect();
    assert_eq!(columns, [0, 0, 0], "{output:#?}");
    let output = update_to(&container, both, &["--dry-run", "--format=json"]).succeeds();
    let writes: Value = serde_json::from_str(&output.stdout).unwrap();
    let write = |name, old, new| json!({ "id": id, "file": path(name), "old": old, "new": new });
    let expected = json!([write("cgroup.max.depth", "3", "7"), write("cgroup.max.descendants", "max", "9")]);
    assert_eq!(writes, expected);
    assert_eq!(container.control_file("cgroup.max.depth"), "3");
    assert_eq!(container.control_file("cgroup.max.descendants"), "max");
    assert_eq!(state_file(&container), before);
    Ok(())
}

fn a_dry_run_of_a_rollback_prints_what_would_come_back() -> Outcome {
    need_own()?;
    let container = launched(depth("3"));
    update_to(&container, depth("7"), &[]).succeeds();
    let before = state_file(&container);
    let output = rollback(&container, &["--dry-run", "--format", "json"]).succeeds();
    let writes: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((&writes[0]["old"], &writes[0]["new"]), (&json!("7"), &json!("3")), "{output:#?}");
    assert_eq!(writes.as_array().unwrap().len(), 1, "{output:#?}");
    assert_eq!(container.control_file("cgroup.max.depth"), "7");
    assert_eq!(state_file(&container), before);
    Ok(())
}

fn a_dry_run_knows_what_is_not_there() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    update_to(&container, json!({ "unified": { "cgroup.xyz": "1" } }), &["--dry-run"])
        .fails_with("this kernel has no such control file");
    let file = container.cgroup().join("cgroup.max.depth");
    let output = read_only(update_to(&container, depth("7"), &["--dry-run"]), &file).fails_with("EROFS");
    assert!(
        output.stderr.contains("resources.json: /unified/cgroup.max.depth: write \"7\" to "),
        "{output:#?}"
    );
    if !has_controller("memory") {
        let call = container.runtime().args(["update", "--dry-run", "--memory", "64M", &container.id]);
        call.fails_with("requires the memory controller");
    }
    Ok(())
}

/// No machine that runs these tests has the hardware; to the runtime, a directory in its place is one.
fn limits_of_a_class_of_service_are_taken_back_and_rolled_back() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    let class = container.beside("class");
    fs::create_dir(&class).unwrap();
    let schemata = class.join("schemata");
    fs::write(&schemata, "L3:0=f\n").unwrap();
    let mut state: Value = serde_json::from_str(&state_file(&container)).unwrap();
    state["intel_rdt_path"] = class.to_str().into();
    fs::write(container.state_directory().join("state.json"), state.to_string()).unwrap();
    let update = || container.runtime().args(["update", "--l3-cache-schema", "L3:0=3", &container.id]);
    // Where it cannot be recorded, it is not in force.
    let in_the_way = container.state_directory().join(".state.json");
    fs::create_dir(&in_the_way).unwrap();
    update().fails_with("is a directory (EISDIR)");
    assert_eq!(fs::read_to_string(&schemata).unwrap(), "L3:0=f\n");
    fs::remove_dir(&in_the_way).unwrap();
    let output = update().arg("--dry-run").succeeds();
    assert!(output.stdout.ends_with(&format!("{}   L3:0=f   L3:0=3\n", schemata.display())), "{output:#?}");
    update().succeeds();
    assert_eq!(fs::read_to_string(&schemata).unwrap(), "L3:0=3\n");
    let change = json!([{ "file": "schemata", "of": "L3", "from": "L3:0=f", "to": "L3:0=3" }]);
    assert_eq!(history(&container)[1]["changes"], change);
    rollback(&container, &[]).succeeds();
    assert_eq!(fs::read_to_string(&schemata).unwrap(), "L3:0=f\n");
    Ok(())
}

fn a_damaged_history_is_refused() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    update_to(&container, depth("7"), &[]).succeeds();
    let mut state: Value = serde_json::from_str(&state_file(&container)).unwrap();
    state["history"]["revisions"][1]["revision"] = u64::MAX.into();
    let file = container.state_directory().join("state.json");
    fs::write(&file, state.to_string()).unwrap();
    let text = "error: decode the history in the state file: invalid revision numbers [1, \
                18446744073709551615] (removing \"history\" from it makes ";
    update_to(&container, depth("9"), &[]).fails_with(text);
    container.on_id("history").fails_with(text);
    assert_eq!(container.control_file("cgroup.max.depth"), "7");
    state.as_object_mut().unwrap().remove("history");
    fs::write(&file, state.to_string()).unwrap();
    update_to(&container, depth("9"), &[]).succeeds();
    assert_eq!(history(&container).len(), 2);
    Ok(())
}

fn a_stopped_container_has_a_history_and_no_way_back() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    update_to(&container, depth("7"), &[]).succeeds();
    container.kill("KILL");
    container.wait_for("stopped");
    assert_eq!(history(&container).len(), 2);
    rollback(&container, &[]).fails_with("container not running");
    Ok(())
}

fn a_missing_container_has_no_history() -> Outcome {
    need_own()?;
    let container = Container::new();
    container.on_id("history").fails_with("does not exist");
    container.on_id("rollback").fails_with("does not exist");
    Ok(())
}

fn what_is_of_no_use_is_refused() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    for (options, text) in [
        (&["--step", "2"][..], "--step requires more than one ID or --settle"),
        (&["--max-pressure", "50"], "--max-pressure requires"),
        (&["--settle", "1s", "--max-pressure", "101"], "--max-pressure"),
        (&["--format", "json"], "--format requires --dry-run"),
        (&["--step", "0", "--settle", "1s"], "--step"),
        (&["--settle", "soon"], "invalid duration \"soon\""),
        (&[&container.id], "given more than once"),
    ] {
        update_to(&container, depth("7"), options).fails_with(text);
    }
    rollback(&container, &["--format", "json"]).fails_with("--format requires --dry-run");
    assert_eq!(container.control_file("cgroup.max.depth"), "max");
    Ok(())
}
