//! `update` and `rollback` of containers that use more memory than their new limit: processes are killed only
//! if it cannot be avoided and not in vain, and the kills are reported.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::container::WAIT;
use crate::support::host::{need_controller, need_own};
use crate::support::suite::suite;
use crate::support::{Container, Invocation, Outcome, Output, wait_until};

use super::enforcement::counter;
use super::revisions::read_only;
use super::rolling::{Fleet, PATIENT};

suite![
    a_refused_update_has_killed_nobody,
    a_refused_rollback_has_killed_nobody,
    an_update_that_has_somebody_killed_says_so,
    an_error_says_that_somebody_was_killed_before,
    who_was_killed_before_an_error_is_not_untouched,
    the_way_back_may_kill_and_says_so,
];

const MIB: u64 = 1 << 20;

/// A script that keeps 24 MiB in a file of memory, which nobody can take back, and says so.
const FILL: &str = "head -c 25165824 /dev/zero >/dev/shm/file; echo ready; exec sleep 1000";

fn memory(limit: u64) -> Value {
    json!({ "limit": limit, "swap": limit })
}

/// `update --resources FILE ID`.
fn update_to(container: &Container, resources: Value) -> Invocation {
    let file = container.beside("resources.json");
    fs::write(&file, resources.to_string()).unwrap();
    container.runtime().args(["update", "-r"]).arg(file).arg(&container.id)
}

fn kills(container: &Container) -> u64 {
    counter(&container.control_file("memory.events"), "oom_kill")
}

/// Once it was refused there is no way back for whoever is dead.
fn a_refused_update_has_killed_nobody() -> Outcome {
    need_own()?;
    ["memory", "cpu"].into_iter().try_for_each(need_controller)?;
    let container = Container::limited(FILL, &json!({ "cpu": { "quota": 500_000 } }));
    container.launch().wait_for_stdout("ready");
    let low = || memory(8 * MIB);
    for (refused, file) in [
        (json!({ "memory": low(), "cpu": { "quota": 5 } }), "cpu.max"),
        (json!({ "memory": low(), "unified": { "memory.high": "much" } }), "memory.high"),
        (json!({ "memory": low(), "unified": { "memory.max": "much" } }), "memory.max"),
        (json!({ "memory": low(), "cpu": { "burst": 900_000 } }), "cpu.max.burst"),
        (json!({ "unified": { "memory.max": "8M", "memory.swap.max": "much" } }), "memory.swap.max"),
    ] {
        let output = update_to(&container, refused).fails_with("invalid argument (EINVAL)");
        assert!(output.stderr.contains(&format!("/{file}: ")), "{output:#?}");
        assert_eq!((kills(&container), container.control_file("memory.max")), (0, "max".to_owned()));
    }
    // Nor is it low for a moment.
    update_to(&container, json!({ "memory": low(), "unified": { "memory.max": "64M" } })).succeeds();
    assert_eq!((kills(&container), container.control_file("memory.max")), (0, (64 * MIB).to_string()));
    assert_eq!(container.state()["status"], "running");
    Ok(())
}

fn a_refused_rollback_has_killed_nobody() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    let container = Container::limited(&format!("{WAIT} {FILL}"), &json!({ "memory": memory(16 * MIB) }));
    let output = container.launch();
    let raised = json!({ "memory": memory(64 * MIB), "unified": { "cgroup.max.depth": "7" } });
    update_to(&container, raised).succeeds();
    container.go_on();
    output.wait_for_stdout("ready");
    let file = container.cgroup().join("cgroup.max.depth");
    read_only(container.on_id("rollback"), &file).fails_with("EROFS");
    assert_eq!((kills(&container), container.control_file("memory.max")), (0, (64 * MIB).to_string()));
    // What can be done is, and its price is told.
    says_so(&container, &container.on_id("rollback").succeeds(), 16);
    Ok(())
}

/// That somebody was killed for a limit of so many MiB.
#[track_caller]
fn says_so(container: &Container, output: &Output, mib: u64) {
    let text = format!("a process was OOM-killed: memory.max = {}\"\n", mib * MIB);
    assert!(output.stderr.contains("level=warning") && output.stderr.contains(&container.id), "{output:#?}");
    assert!(output.stderr.ends_with(&text), "{output:#?}");
    assert!(kills(container) > 0);
}

fn an_update_that_has_somebody_killed_says_so() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    let container = Container::with_script(FILL);
    container.launch().wait_for_stdout("ready");
    let output = update_to(&container, json!({ "memory": memory(8 * MIB) })).succeeds();
    says_so(&container, &output, 8);
    Ok(())
}

/// That it cannot be recorded is found out when it is in force.
fn an_error_says_that_somebody_was_killed_before() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    let container = Container::with_script(FILL);
    container.launch().wait_for_stdout("ready");
    fs::create_dir(container.state_directory().join(".state.json")).unwrap();
    let output = update_to(&container, json!({ "memory": memory(8 * MIB) })).fails_with("EISDIR");
    let text = format!("error: container {:?}: a process was OOM-killed: ", container.id);
    assert!(output.stderr.starts_with(&text), "{output:#?}");
    assert_eq!(container.control_file("memory.max"), "max");
    Ok(())
}

fn who_was_killed_before_an_error_is_not_untouched() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    let fleet = Fleet::of(&[PATIENT, FILL, PATIENT]);
    wait_until_full(&fleet.members[1]);
    fs::create_dir(fleet.state_directory(1).join(".state.json")).unwrap();
    let output = fleet.roll(json!({ "memory": memory(8 * MIB) }), &["--settle", "0"]).fails_with("EISDIR");
    let told = output.stdout.find(&fleet.named("{1}: failed: a process was OOM-killed: "));
    let told = &output.stdout[told.unwrap_or_else(|| panic!("{output:#?}"))..];
    let lines: Vec<_> = told.lines().skip(1).collect();
    let expected = [
        "{1}: not rolled back: a process was OOM-killed",
        "{0}: rolled back to revision 1, as revision 3",
        "0 updated, 1 rolled back, 1 not rolled back, 1 untouched",
    ];
    assert_eq!(lines, expected.map(|line| fleet.named(line)), "{output:#?}");
    Ok(())
}

/// Of one that has used what it was given.
fn the_way_back_may_kill_and_says_so() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    for is_json in [false, true] {
        let fleet = Fleet::of(&[&format!("{WAIT} {FILL}")]);
        let container = &fleet.members[0];
        update_to(container, json!({ "memory": memory(16 * MIB) })).succeeds();
        let format = if is_json { "--format=json" } else { "--format=table" };
        let raised = json!({ "memory": memory(64 * MIB) });
        let running = fleet.roll(raised, &["--settle", "1h", format]).spawn();
        running.wait_for_stdout("updated");
        container.go_on();
        wait_until_full(container);
        running.signal(Signal::SIGTERM);
        let output = running.wait();
        assert_eq!(output.code(), 1, "{output:#?}");
        let loss = "a process was OOM-killed: memory.max = 16777216";
        let expected = match is_json {
            true => {
                json!({ "event": "rolledBack", "id": container.id, "to": 2, "revision": 4, "loss": loss })
            }
            false => format!("{}: rolled back to revision 2, as revision 4, and {loss}", container.id).into(),
        };
        let lines = output.stdout.lines();
        let mut lines = lines.map(|line| serde_json::from_str(line).unwrap_or_else(|_| Value::from(line)));
        assert!(lines.any(|line| line == expected), "{output:#?}");
    }
    Ok(())
}

fn wait_until_full(container: &Container) {
    wait_until("the memory is in use", || {
        container.control_file("memory.current").parse::<u64>().unwrap() > 24 * MIB
    });
}
