//! `--cgroup-manager disabled`, which Podman passes for `--cgroups=disabled`: the container stays in its caller's cgroup.

use std::fs;

use serde_json::json;

use crate::support::bundle::remove_namespace;
use crate::support::host::{need_other_than, need_own};
use crate::support::suite::suite;
use crate::support::{Container, Invocation, Outcome};

suite![
    the_container_stays_in_its_callers_cgroup,
    a_limit_is_refused_by_pointer_and_leaves_nothing,
    limits_that_limit_nothing_are_accepted,
    device_rules_have_no_effect,
    later_commands_know_that_there_is_no_cgroup,
    killing_ends_the_init_process_of_a_shared_pid_namespace,
];

/// `runtime --cgroup-manager disabled COMMAND --bundle BUNDLE ID`.
fn without_cgroup(container: &Container, command: &str) -> Invocation {
    let call = container.runtime().args(["--cgroup-manager", "disabled", command, "--bundle"]);
    call.arg(container.bundle.path()).arg(&container.id)
}

fn need_the_option() -> Outcome {
    need_other_than("runc", "makes a cgroup for every container")
}

fn cgroup_of(pid: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.lines().find(|line| line.starts_with("0::")).unwrap().to_owned()
}

fn the_container_stays_in_its_callers_cgroup() -> Outcome {
    need_the_option()?;
    let container = Container::idle();
    without_cgroup(&container, "create").succeeds();
    assert_eq!(cgroup_of(&container.pid().to_string()), cgroup_of("self"));
    assert!(!container.cgroup().exists());
    container.start();
    assert_eq!(container.state()["status"], "running");
    // Not TERM: process 1 ignores it until its trap is set.
    container.kill("KILL");
    container.wait_for("stopped");
    container.delete();
    container.leaves_nothing();
    Ok(())
}

fn a_limit_is_refused_by_pointer_and_leaves_nothing() -> Outcome {
    need_own()?;
    let container = Container::idle().edit(|spec| {
        spec["linux"]["resources"]["hugepageLimits"] = json!([{ "pageSize": "2MB", "limit": 0 }])
    });
    without_cgroup(&container, "run").fails_with(
        "config.json: /linux/resources/hugepageLimits/0/limit: hugetlb.2MB.max = \"0\" requires a cgroup for the container \
         (remove --cgroup-manager disabled, or remove the limit)",
    );
    container.leaves_nothing();
    Ok(())
}

fn limits_that_limit_nothing_are_accepted() -> Outcome {
    need_the_option()?;
    let container = Container::with_script("echo up").edit(|spec| {
        spec["linux"]["resources"] = json!({ "pids": { "limit": -1 }, "memory": { "limit": 0 }, "cpu": {}, "blockIO": { "weight": 0 } });
    });
    assert_eq!(without_cgroup(&container, "run").succeeds().stdout, "up\n");
    container.leaves_nothing();
    Ok(())
}

/// The kernel knows device rules of cgroups only. 1:10 is of no driver, so where no rule is in the way it says so.
fn device_rules_have_no_effect() -> Outcome {
    need_the_option()?;
    let container = Container::with_script(": </dev/nothing").edit(|spec| {
        spec["linux"]["devices"] = json!([{ "path": "/dev/nothing", "type": "c", "major": 1, "minor": 10 }]);
    });
    let said = container.run().stderr;
    assert!(said.contains("Operation not permitted"), "{said}");
    let said = without_cgroup(&container, "run").output().stderr;
    assert!(said.contains("No such device or address"), "{said}");
    container.leaves_nothing();
    Ok(())
}

/// What made the container is in its state: nobody repeats the option.
fn later_commands_know_that_there_is_no_cgroup() -> Outcome {
    need_own()?;
    let container = Container::idle();
    without_cgroup(&container, "create").succeeds();
    let state = fs::read_to_string(container.state_directory().join("state.json")).unwrap();
    assert!(state.contains("\"cgroup_manager\":\"disabled\""), "{state}");
    assert!(state.contains("\"cgroup_paths\":{}"), "{state}");
    let runtime = container.runtime();
    runtime
        .args(["--systemd-cgroup", "--cgroup-manager", "cgroupfs", "delete", "--force", &container.id])
        .succeeds();
    container.leaves_nothing();
    Ok(())
}

fn killing_ends_the_init_process_of_a_shared_pid_namespace() -> Outcome {
    need_the_option()?;
    let container = Container::with_script("exec sleep 1000").edit(|spec| remove_namespace(spec, "pid"));
    without_cgroup(&container, "create").succeeds();
    container.start();
    container.kill("KILL");
    container.wait_for("stopped");
    container.delete();
    container.leaves_nothing();
    Ok(())
}
