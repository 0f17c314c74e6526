//! What `update` and `rollback` do to containers that use more memory than they are to have: killed is whoever must be, and not
//! for nothing; and it is told.

use std::fs;

use serde_json::{Value, json};

use crate::support::{
    Container, Invocation, Outcome,
    container::WAIT,
    host::{need_controller, need_own},
    suite::suite,
};

use super::{enforcement::counter, revisions::read_only};

suite![a_refused_update_has_killed_nobody, a_refused_rollback_has_killed_nobody];

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
    Ok(())
}
