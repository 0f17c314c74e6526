//! `--systemd-cgroup`: the container's cgroup belongs to a scope created by systemd. Requires a host booted
//! with systemd: `scripts/vm --systemd`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::bundle::{join_namespace, remove_namespace};
use crate::support::container::WAIT;
use crate::support::host::{is_own, machine, need, need_other_than, need_own, need_program};
use crate::support::suite::suite;
use crate::support::wait::wait_until;
use crate::support::{Container, Invocation, Outcome, user};

suite![
    a_scope_has_the_limits_and_goes_with_the_container,
    a_program_in_the_foreground_leaves_no_unit,
    later_commands_know_the_driver_from_the_state,
    an_update_is_told_to_systemd_too,
    a_rollback_is_told_to_systemd_too,
    what_systemd_writes_again_is_what_is_in_force,
    an_update_that_is_not_recorded_is_taken_back_from_systemd_too,
    a_refused_update_is_not_told_to_systemd,
    an_update_that_ends_a_scope_says_so,
    device_rules_survive_a_daemon_reload,
    a_limit_of_one_process_leaves_room_for_it,
    a_hook_may_set_another_limit_of_processes,
    a_scope_is_in_the_slice_that_is_named,
    without_a_path_the_unit_has_the_containers_name,
    annotations_are_properties,
    a_property_that_systemd_refuses_is_named_by_its_place,
    a_path_of_another_form_is_refused,
    a_create_that_fails_leaves_no_unit,
    a_create_that_was_killed_is_cleaned_up,
    a_failed_unit_of_the_same_name_is_forgotten,
    a_unit_that_another_container_has_is_left_alone,
    a_container_that_ran_out_of_memory_leaves_no_failed_unit,
    a_limit_too_low_for_the_init_process_is_named_although_its_scope_goes,
    run_looks_before_systemd_takes_the_counts_away,
    a_kill_by_somebody_in_a_scope_is_not_put_down_to_its_limit,
    a_late_run_goes_by_what_the_slice_counts,
    the_bus_does_where_the_manager_itself_is_out_of_reach,
    a_user_has_scopes_of_their_own_systemd,
    who_waits_for_systemd_can_be_asked_to_end,
    a_host_without_systemd_is_told_what_it_lacks,
    where_the_cgroup_is_gone_nobody_is_needed_to_delete_systemd,
    a_scope_goes_although_its_systemd_is_gone,
    what_has_the_name_of_a_scope_that_is_gone_is_anothers,
];

fn need_systemd() -> Outcome {
    need(
        machine() == "systemd" && Path::new("/run/systemd/system").is_dir(),
        "a virtual machine that systemd has booted",
    )
}

/// An idle container in a scope of `system.slice`.
fn scoped(resources: &Value) -> Container {
    let container = Container::idle();
    let path = format!("system.slice:test:{}", container.id);
    container.edit(|spec| {
        spec["linux"]["cgroupsPath"] = json!(path);
        for (field, value) in resources.as_object().unwrap() {
            spec["linux"]["resources"][field] = value.clone();
        }
    })
}

/// `runtime --systemd-cgroup COMMAND --bundle BUNDLE ID`.
fn by_systemd(container: &Container, command: &str) -> Invocation {
    let call = container.runtime().args(["--systemd-cgroup", command, "--bundle"]);
    call.arg(container.bundle.path()).arg(&container.id)
}

fn launched(resources: &Value) -> Container {
    let container = scoped(resources);
    by_systemd(&container, "create").succeeds();
    container.start();
    container
}

fn unit(container: &Container) -> String {
    format!("test-{}.scope", container.id)
}

/// Again and again, for a test beside this one may have systemd execute itself anew, which drops all who ask.
fn systemctl(words: &[&str]) -> String {
    let mut answer = String::new();
    wait_until(&format!("systemctl {words:?} is answered"), || {
        let output = Invocation::new("systemctl").args(words).output();
        answer = output.stdout.trim_end().to_owned();
        output.code() == 0
    });
    answer
}

fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", "--value", "--property", name, unit])
}

/// The content of a control file of the scope in `system.slice`.
#[track_caller]
fn control_file(container: &Container, name: &str) -> String {
    let path = Path::new("/sys/fs/cgroup/system.slice").join(unit(container)).join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim_end().to_owned()
}

#[track_caller]
fn has(container: &Container, properties: &[(&str, &str)], files: &[(&str, &str)]) {
    let names: Vec<_> = properties.iter().map(|(name, _)| format!("--property={name}")).collect();
    let unit = unit(container);
    let words: Vec<_> = ["show", &unit].into_iter().chain(names.iter().map(String::as_str)).collect();
    let shown = systemctl(&words);
    let shown: BTreeSet<_> = shown.lines().collect();
    let expected: Vec<_> = properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(shown, expected.iter().map(String::as_str).collect());
    for (name, expected) in files {
        assert_eq!(control_file(container, name), *expected, "{name}");
    }
}

#[track_caller]
fn is_gone(unit: &str) {
    assert_eq!(property(unit, "LoadState"), "not-found", "{unit}");
}

fn a_scope_has_the_limits_and_goes_with_the_container() -> Outcome {
    need_systemd()?;
    need_other_than("crun", "has its processes below the scope, and counts memory as swap")?;
    let container = launched(&json!({
        "memory": { "limit": 67_108_864, "swap": 134_217_728, "reservation": 33_554_432 },
        "cpu": { "shares": 2048, "quota": 12_345, "period": 100_000, "cpus": "0", "mems": "0" },
        "pids": { "limit": 20 },
        "unified": { "memory.high": "59998208", "memory.min": "4096" },
    }));
    let properties = [
        ("ActiveState", "active"),
        ("Slice", "system.slice"),
        ("Delegate", "yes"),
        ("DefaultDependencies", "no"),
        ("MemoryMax", "67108864"),
        ("MemorySwapMax", "67108864"),
        ("MemoryLow", "33554432"),
        ("MemoryHigh", "59998208"),
        ("MemoryMin", "4096"),
        ("CPUWeight", "174"),
        ("CPUQuotaPerSecUSec", "130ms"),
        ("CPUQuotaPeriodUSec", "100ms"),
        ("AllowedCPUs", "0"),
        ("AllowedMemoryNodes", "0"),
        ("TasksMax", "20"),
    ];
    let files = [
        ("memory.max", "67108864"),
        ("memory.swap.max", "67108864"),
        ("memory.low", "33554432"),
        ("memory.high", "59998208"),
        ("cpu.weight", "174"),
        ("cpu.max", "13000 100000"),
        ("cpuset.cpus", "0"),
        ("pids.max", "20"),
    ];
    has(&container, &properties, &files);
    // The process itself, and no helper of the runtime's.
    assert_eq!(
        control_file(&container, "cgroup.procs").lines().next(),
        Some(container.pid().to_string().as_str())
    );
    container.terminate();
    container.wait_for("stopped");
    container.delete();
    is_gone(&unit(&container));
    container.leaves_nothing();
    Ok(())
}

fn a_program_in_the_foreground_leaves_no_unit() -> Outcome {
    need_systemd()?;
    let container = scoped(&json!({}));
    let container =
        container.edit(|spec| spec["process"]["args"] = json!(["sh", "-c", "cat /proc/self/cgroup; exit 7"]));
    let output = by_systemd(&container, "run").output();
    assert_eq!(output.code(), 7, "{output:#?}");
    // It is the root of the cgroup namespace.
    assert_eq!(output.stdout, "0::/\n");
    is_gone(&unit(&container));
    container.leaves_nothing();
    Ok(())
}

/// Engines say `--systemd-cgroup` to create only.
fn later_commands_know_the_driver_from_the_state() -> Outcome {
    need_systemd()?;
    need_other_than("crun", "freezes a cgroup below the scope")?;
    let container = launched(&json!({}));
    let pid = container.pid();
    assert_eq!(container.exec(["cat", "/proc/self/cgroup"]).succeeds().stdout, "0::/\n");
    assert!(container.on_id("ps").succeeds().stdout.contains(&pid.to_string()));
    container.on_id("pause").succeeds();
    assert_eq!(container.state()["status"], "paused");
    assert_eq!(control_file(&container, "cgroup.freeze"), "1");
    container.on_id("resume").succeeds();
    assert_eq!(container.state()["status"], "running");
    if is_own() {
        let state = fs::read_to_string(container.state_directory().join("state.json")).unwrap();
        let state: Value = serde_json::from_str(&state).unwrap();
        assert_eq!(state["cgroup_manager"], "systemd");
        assert_eq!(state["systemd"]["name"], json!(unit(&container)));
        assert_eq!(state["systemd"]["slice"], "system.slice");
    }
    container.kill("KILL");
    container.wait_for("stopped");
    container.delete();
    is_gone(&unit(&container));
    Ok(())
}

fn an_update_is_told_to_systemd_too() -> Outcome {
    need_systemd()?;
    need_other_than("crun", "does not find its cgroup below the scope")?;
    let container = launched(&json!({ "memory": { "limit": 67_108_864 } }));
    let options = ["--memory", "100M", "--pids-limit", "30", "--cpu-quota", "23456", "--cpu-share", "512"];
    container.runtime().arg("update").args(options).arg(&container.id).succeeds();
    let properties = [
        ("MemoryMax", "104857600"),
        ("TasksMax", "30"),
        ("CPUQuotaPerSecUSec", "240ms"),
        ("CPUWeight", "59"),
    ];
    let files =
        [("memory.max", "104857600"), ("pids.max", "30"), ("cpu.max", "24000 100000"), ("cpu.weight", "59")];
    has(&container, &properties, &files);
    // The period stays, although systemd has none for an unlimited quota.
    container.runtime().args(["update", "--cpu-period", "900000", &container.id]).succeeds();
    let options = ["--memory", "-1", "--memory-swap", "-1", "--pids-limit", "-1", "--cpu-quota", "-1"];
    container.runtime().arg("update").args(options).arg(&container.id).succeeds();
    let properties = [
        ("MemoryMax", "infinity"),
        ("TasksMax", "infinity"),
        ("CPUQuotaPerSecUSec", "infinity"),
        ("CPUWeight", "59"),
    ];
    has(&container, &properties, &[("memory.max", "max"), ("pids.max", "max"), ("cpu.max", "max 900000")]);
    Ok(())
}

fn a_rollback_is_told_to_systemd_too() -> Outcome {
    need_systemd()?;
    need_own()?;
    let container = launched(&json!({ "memory": { "limit": 67_108_864 }, "cpu": { "quota": 12_345 } }));
    let tasks = property(&unit(&container), "TasksMax");
    let options = ["--memory", "100M", "--pids-limit", "30", "--cpu-quota", "50000"];
    container.runtime().arg("update").args(options).arg(&container.id).succeeds();
    let properties = [("MemoryMax", "104857600"), ("TasksMax", "30"), ("CPUQuotaPerSecUSec", "500ms")];
    has(
        &container,
        &properties,
        &[("memory.max", "104857600"), ("pids.max", "30"), ("cpu.max", "50000 100000")],
    );
    container.on_id("rollback").succeeds();
    let properties = [("MemoryMax", "67108864"), ("TasksMax", &tasks), ("CPUQuotaPerSecUSec", "130ms")];
    let files = [("memory.max", "67108864"), ("pids.max", &tasks), ("cpu.max", "13000 100000")];
    has(&container, &properties, &files);
    Ok(())
}

fn what_systemd_writes_again_is_what_is_in_force() -> Outcome {
    need_systemd()?;
    let container = launched(&json!({
        "memory": { "limit": 67_108_864 }, "cpu": { "shares": 2048, "quota": 12_345 }, "pids": { "limit": 20 },
        "blockIO": { "weight": 500 },
    }));
    container
        .runtime()
        .args(["update", "--pids-limit", "30", "--cpuset-cpus", "0", &container.id])
        .succeeds();
    let files = [
        "memory.max",
        "memory.swap.max",
        "cpu.max",
        "cpu.weight",
        "pids.max",
        "cpuset.cpus",
        "io.weight",
        "cgroup.controllers",
    ];
    let all = || files.map(|name| control_file(&container, name));
    let before = all();
    systemctl(&["daemon-reload"]);
    assert_eq!(all(), before);
    // Whatever changes beside it has systemd go through the whole slice.
    systemctl(&[
        "set-property",
        "--runtime",
        &unit(&container),
        "CPUWeight=150",
        "IOWeight=100",
        "MemoryLow=1M",
    ]);
    wait_until("systemd has written it", || control_file(&container, "memory.low") == "1048576");
    assert_eq!(control_file(&container, "cpu.weight"), "150");
    for name in ["memory.max", "cpu.max", "pids.max", "cpuset.cpus"] {
        let index = files.iter().position(|file| *file == name).unwrap();
        assert_eq!(control_file(&container, name), before[index], "{name}");
    }
    Ok(())
}

fn an_update_that_is_not_recorded_is_taken_back_from_systemd_too() -> Outcome {
    need_systemd()?;
    need_own()?;
    let container = launched(&json!({ "memory": { "limit": 67_108_864, "swap": 67_108_864 } }));
    let in_the_way = container.state_directory().join(".state.json");
    fs::create_dir(&in_the_way).unwrap();
    // Nobody has set it, and systemd has a default.
    let tasks = property(&unit(&container), "TasksMax");
    let options = [
        "--memory",
        "100M",
        "--memory-swap",
        "100M",
        "--pids-limit",
        "30",
        "--cpu-share",
        "512",
        "--cpuset-cpus",
        "0",
    ];
    container.runtime().arg("update").args(options).arg(&container.id).fails_with("is a directory (EISDIR)");
    fs::remove_dir(&in_the_way).unwrap();
    let properties = [
        ("MemoryMax", "67108864"),
        ("MemorySwapMax", "0"),
        ("TasksMax", &tasks),
        ("CPUWeight", "[not set]"),
        ("AllowedCPUs", ""),
    ];
    has(&container, &properties, &[("memory.max", "67108864"), ("pids.max", &tasks), ("cpu.weight", "100")]);
    Ok(())
}

fn a_refused_update_is_not_told_to_systemd() -> Outcome {
    need_systemd()?;
    need_own()?;
    let container = launched(&json!({ "memory": { "limit": 67_108_864 } }));
    let options = ["--memory", "100M", "--cpuset-cpus", "7000"];
    container
        .runtime()
        .arg("update")
        .args(options)
        .arg(&container.id)
        .fails_with("error: --cpuset-cpus: write \"7000\"");
    has(&container, &[("MemoryMax", "67108864"), ("AllowedCPUs", "")], &[("memory.max", "67108864")]);
    Ok(())
}

/// systemd has the process killed, too, and then takes away what has counted that.
fn an_update_that_ends_a_scope_says_so() -> Outcome {
    need_systemd()?;
    need_own()?;
    let fill = "head -c 25165824 /dev/zero >/dev/shm/file; echo ready; exec sleep 1000";
    let container = scoped(&json!({})).edit(|spec| spec["process"]["args"] = json!(["sh", "-c", fill]));
    let output = by_systemd(&container, "create").succeeds();
    container.start();
    output.wait_for_stdout("ready");
    let options = ["--memory", "8M", "--memory-swap", "8M"];
    let output = container.runtime().arg("update").args(options).arg(&container.id).output();
    let words = ["a process was OOM-killed: memory.max", "container exited", "a process was OOM-killed"];
    assert!(words.iter().any(|words| output.stderr.contains(words)), "{output:#?}");
    Ok(())
}

fn device_rules_survive_a_daemon_reload() -> Outcome {
    need_systemd()?;
    need_other_than("crun", "then lets all devices be used")?;
    let container = scoped(&json!({ "devices": [
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "b", "major": 7, "minor": 0, "access": "r" },
    ] }));
    let node = |path: &str, minor: u32| json!({ "path": path, "type": "b", "major": 7, "minor": minor, "fileMode": 0o666 });
    let container =
        container.edit(|spec| spec["linux"]["devices"] = json!([node("/dev/a", 0), node("/dev/b", 1)]));
    by_systemd(&container, "create").succeeds();
    container.start();
    let script = "head -c 1 /dev/a >/dev/null 2>&1 && echo a is read; true 2>/dev/null >>/dev/a && echo a is written; \
                  head -c 1 /dev/b >/dev/null 2>&1 && echo b is read; head -c 1 /dev/zero | wc -c";
    let allowed = || container.exec(["sh", "-c", script]).output().stdout;
    assert_eq!(allowed(), "a is read\n1\n");
    for how in ["daemon-reload", "daemon-reexec"] {
        systemctl(&[how]);
        assert_eq!(allowed(), "a is read\n1\n", "{how}");
    }
    // Whatever systemd applies anew.
    container.runtime().args(["update", "--memory", "100M", &container.id]).succeeds();
    assert_eq!(allowed(), "a is read\n1\n");
    Ok(())
}

fn a_limit_of_one_process_leaves_room_for_it() -> Outcome {
    need_systemd()?;
    let container = scoped(&json!({ "pids": { "limit": 1 } }));
    let container = container.edit(|spec| spec["process"]["args"] = json!(["sleep", "1000"]));
    by_systemd(&container, "create").succeeds();
    container.start();
    has(&container, &[("TasksMax", "1")], &[("pids.max", "1"), ("pids.current", "1")]);
    Ok(())
}

fn a_hook_may_set_another_limit_of_processes() -> Outcome {
    need_systemd()?;
    need_own()?;
    let container = scoped(&json!({ "pids": { "limit": 5 } }));
    let file = Path::new("/sys/fs/cgroup/system.slice").join(unit(&container)).join("pids.max");
    let script = format!("cat >/dev/null; echo 20 >{}", file.display());
    let container = container.edit(|spec| {
        spec["hooks"] = json!({ "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", script] }] });
    });
    by_systemd(&container, "create").succeeds();
    assert_eq!(control_file(&container, "pids.max"), "20");
    Ok(())
}

fn a_scope_is_in_the_slice_that_is_named() -> Outcome {
    need_systemd()?;
    need_other_than("crun", "has its processes below the scope")?;
    for (slice, place) in
        [("tests-in-levels.slice", "tests.slice/tests-in.slice/tests-in-levels.slice"), ("-.slice", "")]
    {
        let container = Container::idle();
        let path = format!("{slice}:test:{}", container.id);
        let container = container.edit(|spec| spec["linux"]["cgroupsPath"] = json!(path));
        by_systemd(&container, "create").succeeds();
        let cgroup = Path::new("/sys/fs/cgroup").join(place).join(unit(&container));
        let processes = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
        assert_eq!(processes.trim(), container.pid().to_string());
        container.delete_by_force();
        is_gone(&unit(&container));
        assert!(!cgroup.exists());
    }
    Ok(())
}

fn without_a_path_the_unit_has_the_containers_name() -> Outcome {
    need_systemd()?;
    let container =
        Container::idle().edit(|spec| drop(spec["linux"].as_object_mut().unwrap().remove("cgroupsPath")));
    by_systemd(&container, "create").succeeds();
    let place = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).unwrap();
    let prefix = if is_own() { "runtime" } else { crate::support::host::kind() };
    assert!(place.starts_with(&format!("0::/system.slice/{prefix}-{}.scope", container.id)), "{place}");
    container.delete_by_force();
    container.leaves_nothing();
    Ok(())
}

fn annotations_are_properties() -> Outcome {
    need_systemd()?;
    need_other_than("crun", "cannot tell lists")?;
    let container = scoped(&json!({})).edit(|spec| {
        spec["annotations"] = json!({
            "org.systemd.property.TimeoutStopSec": "17",
            "org.systemd.property.KillSignal": "37",
            "org.systemd.property.CollectMode": "'inactive-or-failed'",
            "org.systemd.property.After": "['dbus.socket']",
        });
    });
    by_systemd(&container, "create").succeeds();
    let expected = [("TimeoutStopUSec", "17s"), ("KillSignal", "37"), ("CollectMode", "inactive-or-failed")];
    has(&container, &expected, &[]);
    assert!(property(&unit(&container), "After").contains("dbus.socket"));
    container.delete_by_force();
    Ok(())
}

fn a_property_that_systemd_refuses_is_named_by_its_place() -> Outcome {
    need_systemd()?;
    need_own()?;
    let refused = |name: &str, value: &str, message: &str| {
        let container = scoped(&json!({}));
        let key = format!("org.systemd.property.{name}");
        let container = container.edit(|spec| spec["annotations"] = json!({ &key: value }));
        let place = format!("error: config.json: /annotations/{key}: ");
        let output = by_systemd(&container, "run").fails_with(&place);
        assert!(output.stderr.contains(message), "{output:#?}");
        is_gone(&unit(&container));
        container.leaves_nothing();
    };
    refused("Nonsense", "1", "systemd replied: org.freedesktop.DBus.Error.PropertyReadOnly: ");
    refused("KillSignal", "999", "systemd replied: org.freedesktop.DBus.Error.InvalidArgs: ");
    refused("KillSignal", "word", "value parse error: ");
    refused("PIDs", "[uint32 1]", "cannot be set by annotation");
    Ok(())
}

fn a_path_of_another_form_is_refused() -> Outcome {
    need_own()?;
    for (path, message) in [
        (
            "/test/x",
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/test/x\" instead",
        ),
        ("a--b.slice:p:x", "invalid slice name: a--b.slice"),
        ("a.slice:p:../x", "invalid unit name \"p-../x.scope\""),
        ("a.slice:p:x.slice", "\"x.slice\" is a slice, which cannot contain processes"),
    ] {
        let container = Container::idle().edit(|spec| spec["linux"]["cgroupsPath"] = json!(path));
        by_systemd(&container, "run")
            .fails_with(&format!("error: config.json: /linux/cgroupsPath: {message}"));
        container.leaves_nothing();
    }
    Ok(())
}

fn a_create_that_fails_leaves_no_unit() -> Outcome {
    need_systemd()?;
    need_other_than("runc", "does not end")?;
    for change in [json!({ "args": ["no-such-program"] }), json!({ "cwd": "/proc/1/cwd/x/y" })] {
        let container = scoped(&json!({})).edit(|spec| {
            for (field, value) in change.as_object().unwrap() {
                spec["process"][field] = value.clone();
            }
        });
        assert_ne!(by_systemd(&container, "run").output().code(), 0);
        is_gone(&unit(&container));
        container.leaves_nothing();
    }
    // A limit that the kernel refuses after systemd has made the scope.
    let container = scoped(&json!({ "unified": { "memory.max": "much" } }));
    assert_ne!(by_systemd(&container, "run").output().code(), 0);
    is_gone(&unit(&container));
    container.leaves_nothing();
    Ok(())
}

/// What its hook had started goes on, in a session of its own and in the scope, which so stays.
fn a_create_that_was_killed_is_cleaned_up() -> Outcome {
    need_systemd()?;
    need_own()?;
    need_program("setsid")?;
    let container = scoped(&json!({}));
    let ready = container.beside("ready");
    let script = format!("setsid sh -c 'touch {}; exec sleep 1000' & wait", ready.display());
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
    let container = container.edit(|spec| {
        spec["hooks"] = json!({ "createContainer": hook });
        remove_namespace(spec, "pid");
    });
    let creating = by_systemd(&container, "create").spawn();
    wait_until("the hook runs", || ready.exists());
    creating.signal(Signal::SIGKILL);
    creating.wait();
    assert_eq!(property(&unit(&container), "ActiveState"), "active");
    container.delete_by_force();
    is_gone(&unit(&container));
    container.leaves_nothing();
    Ok(())
}

fn a_failed_unit_of_the_same_name_is_forgotten() -> Outcome {
    need_systemd()?;
    let container = scoped(&json!({}));
    let unit = unit(&container);
    let failing = ["--scope", "--quiet", "--unit", &unit, "-p", "RuntimeMaxSec=1", "sleep", "1000"];
    Invocation::new("systemd-run").args(failing).output();
    wait_until("the unit has failed", || property(&unit, "ActiveState") == "failed");
    by_systemd(&container, "create").succeeds();
    assert_eq!(property(&unit, "ActiveState"), "active");
    container.delete_by_force();
    is_gone(&unit);
    Ok(())
}

fn a_unit_that_another_container_has_is_left_alone() -> Outcome {
    need_systemd()?;
    need_own()?;
    let first = launched(&json!({}));
    let path = format!("system.slice:test:{}", first.id);
    let second = Container::idle().edit(|spec| spec["linux"]["cgroupsPath"] = json!(path));
    by_systemd(&second, "run").fails_with("org.freedesktop.systemd1.UnitExists");
    second.leaves_nothing();
    assert_eq!(first.state()["status"], "running");
    // Nor does the end of one take away what has its name since.
    first.kill("KILL");
    first.wait_for("stopped");
    wait_until("the unit has ended", || property(&unit(&first), "LoadState") == "not-found");
    by_systemd(&second, "create").succeeds();
    first.delete();
    assert_eq!(second.state()["status"], "created");
    second.delete_by_force();
    is_gone(&unit(&first));
    Ok(())
}

fn a_container_that_ran_out_of_memory_leaves_no_failed_unit() -> Outcome {
    need_systemd()?;
    let container = scoped(&json!({ "memory": { "limit": 16_777_216, "swap": 16_777_216 } }));
    let container = container.edit(|spec| spec["process"]["args"] = json!(["tail", "/dev/zero"]));
    let output = by_systemd(&container, "run").output();
    assert_eq!(output.code(), 137, "{output:#?}");
    is_gone(&unit(&container));
    container.leaves_nothing();
    Ok(())
}

/// In a scope, the cgroup that counts goes with its last process.
fn a_limit_too_low_for_the_init_process_is_named_although_its_scope_goes() -> Outcome {
    need_systemd()?;
    need_own()?;
    for command in ["create", "run", "create", "run"] {
        let container = scoped(&json!({ "memory": { "limit": 32_768, "swap": 32_768 } }));
        let output = by_systemd(&container, command).fails_with("container init was OOM-killed");
        assert!(output.stderr.contains("out of memory: memory.max = 32768"), "{output:#?}");
        container.leaves_nothing();
        is_gone(&unit(&container));
    }
    Ok(())
}

/// systemd hears of the end at the same time, but takes longer. Whoever does not get to run for so long looks at the slice.
fn run_looks_before_systemd_takes_the_counts_away() -> Outcome {
    need_systemd()?;
    need_own()?;
    for group in ["0", "1", "0", "1", "0", "1"] {
        let memory = json!({ "limit": 16_777_216, "swap": 16_777_216 });
        let container = scoped(&json!({ "memory": memory, "unified": { "memory.oom.group": group } }));
        let container = container.edit(|spec| spec["process"]["args"] = json!(["tail", "/dev/zero"]));
        let call = container.runtime().args(["--systemd-cgroup", "run", "--keep", "--bundle"]);
        let output = call.arg(container.bundle.path()).arg(&container.id).output();
        assert_eq!(output.code(), 137, "{output:#?}");
        let has_seen = output.stderr.contains("out of memory: memory.max = 16777216");
        let has_missed = output.stderr.contains("was killed, probably by the OOM killer: ");
        assert!(has_seen != has_missed, "{output:#?}");
        // What it has seen is noted, for the cgroup is gone.
        wait_until("the scope has gone", || property(&unit(&container), "ActiveState") != "active");
        assert_eq!(container.state().get("oomKilled"), has_seen.then_some(&json!(true)), "{output:#?}");
        container.delete();
        container.leaves_nothing();
    }
    Ok(())
}

fn a_kill_by_somebody_in_a_scope_is_not_put_down_to_its_limit() -> Outcome {
    need_systemd()?;
    need_own()?;
    for _ in 0..3 {
        let container = scoped(&json!({ "memory": { "limit": 16_777_216, "swap": 16_777_216 } }));
        // Where nobody else is killed meanwhile.
        let path = format!("alone.slice:test:{}", container.id);
        let container = container.edit(|spec| {
            remove_namespace(spec, "pid");
            spec["process"]["args"] = json!(["sh", "-c", "kill -KILL $$"]);
            spec["linux"]["cgroupsPath"] = json!(path);
        });
        let output = by_systemd(&container, "run").output();
        assert_eq!(output.code(), 137, "{output:#?}");
        assert_eq!(output.stderr, "", "{output:#?}");
        container.leaves_nothing();
    }
    Ok(())
}

/// A `run` that systemd is always quicker than, because it is stopped meanwhile.
fn a_late_run_goes_by_what_the_slice_counts() -> Outcome {
    need_systemd()?;
    need_own()?;
    let ends = [("exec tail /dev/zero", true), ("kill -KILL $$", false)];
    for (script, is_suspected) in ends {
        let container =
            scoped(&json!({ "memory": { "limit": 16_777_216, "swap": 16_777_216 } })).edit(|spec| {
                // In the host's pid namespace, where a process may kill itself.
                remove_namespace(spec, "pid");
                spec["process"]["args"] = json!(["sh", "-c", format!("echo ready; {WAIT} {script}")]);
            });
        // Alone in its slice, so that nobody else is killed there.
        let slice = format!("{}.slice", container.id.replace('-', "_"));
        let path = format!("{slice}:test:{}", container.id);
        let container = container.edit(|spec| spec["linux"]["cgroupsPath"] = json!(path));
        let running = by_systemd(&container, "run").spawn();
        running.wait_for_stdout("ready");
        let unit = unit(&container);
        assert_eq!(property(&unit, "ActiveState"), "active");
        running.signal(Signal::SIGSTOP);
        container.go_on();
        wait_until("the scope has gone", || property(&unit, "ActiveState") != "active");
        running.signal(Signal::SIGCONT);
        let output = running.wait();
        assert_eq!(output.code(), 137, "{output:#?}");
        let text = "probably by the OOM killer: systemd removed its cgroup";
        assert_eq!(output.stderr.contains(text), is_suspected, "{output:#?}");
        assert_eq!(output.stderr.is_empty(), !is_suspected, "{output:#?}");
        container.leaves_nothing();
        is_gone(&unit);
    }
    Ok(())
}

fn the_bus_does_where_the_manager_itself_is_out_of_reach() -> Outcome {
    need_systemd()?;
    need_own()?;
    need_program("unshare")?;
    let container = scoped(&json!({ "pids": { "limit": 9 } }));
    let hide = "mount --bind /dev/null /run/systemd/private && exec \"$@\"";
    let hidden = |call: Invocation| call.called_by(["unshare", "--mount", "sh", "-c", hide, "sh"]);
    hidden(by_systemd(&container, "create")).succeeds();
    has(&container, &[("ActiveState", "active"), ("TasksMax", "9")], &[("pids.max", "9")]);
    hidden(container.runtime().args(["update", "--pids-limit", "10", &container.id])).succeeds();
    has(&container, &[("TasksMax", "10")], &[("pids.max", "10")]);
    hidden(container.runtime().args(["delete", "--force", &container.id])).succeeds();
    is_gone(&unit(&container));
    container.leaves_nothing();
    Ok(())
}

/// The suite is no part of the user's session, so the kernel lets the user put nothing into their own scopes: systemd does.
fn a_user_has_scopes_of_their_own_systemd() -> Outcome {
    need_systemd()?;
    need_own()?;
    user::need_user_namespaces()?;
    let session = Session::start();
    let container = Container::idle().of_user();
    let path = format!(":test:{}", container.id);
    let container = container.edit(|spec| {
        spec["linux"]["cgroupsPath"] = json!(path);
        spec["linux"]["resources"] = json!({ "pids": { "limit": 20 }, "memory": { "limit": 67_108_864 } });
    });
    let directory = session.directory();
    by_systemd(&container, "create").env("XDG_RUNTIME_DIR", &directory).succeeds();
    container.start();
    let place = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).unwrap();
    let service = format!("user.slice/user-{0}.slice/user@{0}.service", user::UID);
    let cgroup = format!("{service}/user.slice/{}", unit(&container));
    assert_eq!(place.trim(), format!("0::/{cgroup}"));
    let cgroup = Path::new("/sys/fs/cgroup").join(cgroup);
    let file = |name: &str| fs::read_to_string(cgroup.join(name)).unwrap().trim().to_owned();
    let values = || (file("pids.max"), file("memory.max"));
    assert_eq!(values(), ("20".to_owned(), "67108864".to_owned()));
    let shown = |name: &str| {
        let call =
            Invocation::new("systemctl").args(["--user", "show", "--value", "-p", name, &unit(&container)]);
        call.by_user().env("XDG_RUNTIME_DIR", &directory).succeeds().stdout.trim().to_owned()
    };
    assert_eq!([shown("TasksMax"), shown("MemoryMax")], ["20", "67108864"]);
    assert_eq!(container.exec(["cat", "/proc/self/cgroup"]).succeeds().stdout, "0::/\n");
    let second = Container::idle().of_user();
    let path = format!(":test:{}", second.id);
    let namespace = format!("/proc/{}/ns/user", container.pid());
    let second = second.edit(|spec| {
        spec["linux"]["cgroupsPath"] = json!(path);
        join_namespace(spec, "user", namespace);
        for field in ["uidMappings", "gidMappings"] {
            spec["linux"].as_object_mut().unwrap().remove(field);
        }
    });
    by_systemd(&second, "create").env("XDG_RUNTIME_DIR", &directory).succeeds();
    let place = fs::read_to_string(format!("/proc/{}/cgroup", second.pid())).unwrap();
    assert_eq!(place.trim(), format!("0::/{service}/user.slice/{}", unit(&second)));
    second.start();
    assert_eq!(second.exec(["cat", "/proc/self/cgroup"]).succeeds().stdout, "0::/\n");
    second.delete_by_force();
    // The state says where the user's systemd is.
    container.runtime().args(["update", "--pids-limit", "30", &container.id]).succeeds();
    assert_eq!((file("pids.max"), shown("TasksMax")), ("30".to_owned(), "30".to_owned()));
    container.kill("KILL");
    container.wait_for("stopped");
    container.delete();
    assert_eq!(shown("LoadState"), "not-found");
    assert!(!cgroup.exists());
    container.leaves_nothing();
    Ok(())
}

/// The ordinary user's systemd.
struct Session;

impl Session {
    fn start() -> Self {
        let lines = [
            ("/etc/passwd", format!("runtime-test:x:{}:{}::/:/bin/sh\n", user::UID, user::GID)),
            ("/etc/group", format!("runtime-test:x:{}:\n", user::GID)),
        ];
        for (path, line) in lines {
            let text = fs::read_to_string(path).unwrap();
            if !text.contains("runtime-test:") {
                fs::write(path, text + &line).unwrap();
            }
        }
        // Without PAM, which would want more of the user than a line in a file.
        let overriding = format!("/run/systemd/system/user@{}.service.d", user::UID);
        fs::create_dir_all(&overriding).unwrap();
        let text = format!("[Service]\nPAMName=\nEnvironment=XDG_RUNTIME_DIR=/run/user/{}\n", user::UID);
        fs::write(format!("{overriding}/tests.conf"), text).unwrap();
        systemctl(&["daemon-reload"]);
        systemctl(&["start", &Self::unit()]);
        Self
    }

    fn unit() -> String {
        format!("user@{}.service", user::UID)
    }

    fn directory(&self) -> String {
        format!("/run/user/{}", user::UID)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        Invocation::new("systemctl").args(["stop", &Self::unit()]).spawn().end();
    }
}

/// One that listens and says nothing, as one that hangs.
fn who_waits_for_systemd_can_be_asked_to_end() -> Outcome {
    need_own()?;
    let container = scoped(&json!({}));
    let directory = container.beside("session");
    fs::create_dir_all(directory.join("systemd")).unwrap();
    let manager = UnixListener::bind(directory.join("systemd/private")).unwrap();
    let call =
        container.runtime().args(["--cgroup-manager", "systemd", "--rootless", "true", "create", "--bundle"]);
    let call = call.arg(container.bundle.path()).arg(&container.id).env("XDG_RUNTIME_DIR", &directory);
    let creating = call.spawn();
    let _caller = manager.accept().unwrap();
    creating.signal(Signal::SIGTERM);
    let output = creating.wait();
    assert_eq!(output.code(), 1, "{output:#?}");
    let message = "error: interrupted by SIGTERM before the container was started";
    assert!(output.stderr.starts_with(message), "{output:#?}");
    container.leaves_nothing();
    Ok(())
}

fn a_host_without_systemd_is_told_what_it_lacks() -> Outcome {
    need_own()?;
    need(
        !Path::new("/run/systemd/private").exists() && !Path::new("/run/dbus/system_bus_socket").exists(),
        "a host without systemd",
    )?;
    let container = scoped(&json!({}));
    let message = "error: systemd cgroup flag passed, but systemd support for managing cgroups is not available: open \
                   /run/systemd/private: no such file or directory (ENOENT) (--systemd-cgroup requires a host booted with systemd";
    by_systemd(&container, "run").fails_with(message);
    container.leaves_nothing();
    let call =
        container.runtime().args(["--cgroup-manager", "systemd", "--rootless", "true", "run", "--bundle"]);
    let call = call
        .arg(container.bundle.path())
        .arg(&container.id)
        .env("XDG_RUNTIME_DIR", container.beside("nothing"));
    call.env("DBUS_SESSION_BUS_ADDRESS", "tcp:host=localhost").fails_with("only UNIX sockets are supported");
    container.leaves_nothing();
    Ok(())
}

/// Has the state say that the cgroup with this inode is that of a scope whose systemd nobody reaches.
fn becomes_a_scope(container: &Container, cgroup_id: u64) {
    let path = container.state_directory().join("state.json");
    let mut state: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let bus = format!("unix:path={}", container.beside("no-bus").display());
    state["systemd"] =
        json!({ "name": unit(container), "slice": "system.slice", "cgroup_id": cgroup_id, "buses": [bus] });
    fs::write(&path, state.to_string()).unwrap();
}

/// With a session that has ended, for example.
fn where_the_cgroup_is_gone_nobody_is_needed_to_delete_systemd() -> Outcome {
    need_own()?;
    let container = Container::idle();
    container.create();
    becomes_a_scope(&container, fs::metadata(container.cgroup()).unwrap().ino());
    container.kill("KILL");
    container.wait_for("stopped");
    wait_until("the cgroup can be removed", || fs::remove_dir(container.cgroup()).is_ok());
    container.delete();
    container.leaves_nothing();
    Ok(())
}

fn a_scope_goes_although_its_systemd_is_gone() -> Outcome {
    need_own()?;
    let container = Container::idle();
    container.create();
    becomes_a_scope(&container, fs::metadata(container.cgroup()).unwrap().ino());
    container.delete_by_force();
    assert!(!container.cgroup().exists());
    container.leaves_nothing();
    Ok(())
}

/// systemd takes an empty scope away, and the next one may have its name.
fn what_has_the_name_of_a_scope_that_is_gone_is_anothers() -> Outcome {
    need_own()?;
    let shared = |spec: &mut Value| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    };
    let first = Container::idle().edit(shared);
    first.create();
    first.kill("KILL");
    first.wait_for("stopped");
    wait_until("the cgroup can be removed", || fs::remove_dir(first.cgroup()).is_ok());
    let path = first.bundle.spec["linux"]["cgroupsPath"].clone();
    let second = Container::idle().edit(|spec| spec["linux"]["cgroupsPath"] = path);
    second.create();
    becomes_a_scope(&first, 1);
    let output = first.on_id("kill").arg("KILL").output();
    assert_ne!(output.code(), 0, "{output:#?}");
    assert_eq!(first.runtime().args(["ps", "--format", "json", &first.id]).succeeds().stdout.trim(), "null");
    first.on_id("pause").output();
    first.delete_by_force();
    assert_eq!(second.state()["status"], "created");
    second.delete_by_force();
    second.leaves_nothing();
    Ok(())
}
