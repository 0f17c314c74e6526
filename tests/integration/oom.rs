//! OOM kills: they are reported where they happened, and nowhere else.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::bundle::{cgroups_path, remove_namespace};
use crate::support::container::{NO_OPTIONS, WAIT};
use crate::support::host::{CGROUPS, need_controller, need_other_than, need_own};
use crate::support::suite::suite;
use crate::support::{Container, Outcome, wait_until};

suite![
    a_limit_too_low_for_the_init_process_is_named,
    run_says_that_the_limit_has_ended_the_program,
    run_does_not_say_it_of_another_process,
    run_does_not_say_it_of_a_kill_by_somebody,
    run_does_not_claim_to_know_whom_the_kernel_has_killed,
    a_kill_by_somebody_after_one_for_want_of_memory_is_not_called_so,
    a_limit_above_the_container_is_not_called_its_own,
    a_stopped_container_says_that_the_limit_has_ended_it,
    a_container_that_goes_on_after_a_kill_does_not_say_so,
    kills_in_the_cgroup_before_the_container_are_not_its_own,
    a_group_that_is_killed_as_one_is_told,
    a_kill_below_the_containers_cgroup_is_told_by_events,
    a_created_container_that_was_killed_is_not_started,
    one_that_had_been_started_did_not_end_for_want_of_memory_before,
    an_own_limit_that_was_reached_before_the_container_is_not_blamed,
    exec_says_that_the_new_process_may_have_been_killed_for_want_of_memory,
];

const MIB: u64 = 1 << 20;
const WORDS: &str = "out of memory: memory.max = 33554432";

fn limited(script: &str) -> Container {
    Container::with_script(script).edit(limit(32 * MIB))
}

fn limit(bytes: u64) -> impl FnOnce(&mut Value) {
    move |spec| spec["linux"]["resources"]["memory"] = json!({ "limit": bytes, "swap": bytes })
}

fn writable_cgroup(spec: &mut Value) {
    for mount in spec["mounts"].as_array_mut().unwrap() {
        if mount["type"] == "cgroup" {
            mount["options"] = json!(["rw"]);
        }
    }
}

fn kills(container: &Container) -> u64 {
    let events = container.control_file("memory.events");
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap().parse().unwrap()
}

/// Of whichever command: the limit is so low that the init process ends, and far from one that leaves the kernel no page for it.
fn a_limit_too_low_for_the_init_process_is_named() -> Outcome {
    need_controller("memory")?;
    need_other_than("crun", "has other words")?;
    for command in ["create", "run"] {
        let container = Container::new().edit(limit(32_768));
        let output =
            container.command(command).arg(&container.id).fails_with("container init was OOM-killed");
        assert!(output.stderr.contains("(memory limit too low?)"), "{output:#?}");
        container.leaves_nothing();
        need_own()?;
        assert_eq!(output.code(), 1, "{output:#?}");
        assert!(output.stderr.contains("out of memory: memory.max = 32768"), "{output:#?}");
    }
    Ok(())
}

fn run_says_that_the_limit_has_ended_the_program() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    let container = limited("exec tail /dev/zero");
    let output = container.run();
    assert_eq!(output.code(), 137, "{output:#?}");
    let line = format!(
        "container init was killed, probably by the OOM killer, which killed 1 process in the container: {WORDS}"
    );
    assert_eq!(output.stderr.lines().filter(|words| words.contains(&line)).count(), 1, "{output:#?}");
    container.leaves_nothing();
    Ok(())
}

fn run_does_not_say_it_of_another_process() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    for (script, code) in [("tail /dev/zero; exit 3", 3), ("tail /dev/zero; exit 137", 137)] {
        let output = limited(script).run();
        assert_eq!(output.code(), code, "{output:#?}");
        assert!(!output.stderr.contains("out of memory"), "{output:#?}");
    }
    Ok(())
}

fn run_does_not_say_it_of_a_kill_by_somebody() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    // The first process of a pid namespace of its own could not do it.
    let container = limited("kill -KILL $$").edit(|spec| remove_namespace(spec, "pid"));
    let output = container.run();
    assert_eq!(output.code(), 137, "{output:#?}");
    assert!(!output.stderr.contains("out of memory"), "{output:#?}");
    Ok(())
}

/// Nobody but the kernel's log knows: here it was another one, and somebody else has killed the first.
fn run_does_not_claim_to_know_whom_the_kernel_has_killed() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    let container = limited("tail /dev/zero; tail /dev/zero; echo survived; sleep 1000");
    let running = container.spawn();
    running.wait_for_stdout("survived");
    let init = nix::unistd::Pid::from_raw(container.pid());
    nix::sys::signal::kill(init, nix::sys::signal::Signal::SIGKILL).unwrap();
    let output = running.wait();
    assert_eq!(output.code(), 137, "{output:#?}");
    let line =
        format!("killed, probably by the OOM killer, which killed 2 processes in the container: {WORDS}");
    assert!(output.stderr.contains(&line), "{output:#?}");
    Ok(())
}

fn a_kill_by_somebody_after_one_for_want_of_memory_is_not_called_so() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    let container = limited("tail /dev/zero; echo survived; sleep 1000");
    let running = container.spawn();
    running.wait_for_stdout("survived");
    assert_eq!(kills(&container), 1);
    container.kill("KILL");
    let output = running.wait();
    assert_eq!(output.code(), 137, "{output:#?}");
    assert!(!output.stderr.contains("out of memory"), "{output:#?}");

    let container = limited("tail /dev/zero; echo survived; sleep 1000");
    container.launch().wait_for_stdout("survived");
    container.kill("KILL");
    container.wait_for("stopped");
    assert_eq!(container.state().get("oomKilled"), None);
    Ok(())
}

fn a_limit_above_the_container_is_not_called_its_own() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    let container = Container::with_script("exec tail /dev/zero");
    let above = cgroups_path(&format!("{}-above", container.id));
    let path = format!("{above}/{}", container.id);
    let container = container.edit(|spec| spec["linux"]["cgroupsPath"] = json!(path));
    let above = Path::new(CGROUPS).join(above.trim_start_matches('/'));
    fs::create_dir(&above).unwrap();
    fs::write(above.join("memory.max"), (32 * MIB).to_string()).unwrap();
    let _ = fs::write(above.join("memory.swap.max"), "0");
    let output = container.run();
    fs::remove_dir(&above).unwrap();
    assert_eq!(output.code(), 137, "{output:#?}");
    assert!(
        output.stderr.contains("out of memory: the container's own memory.max was not reached"),
        "{output:#?}"
    );
    Ok(())
}

fn a_stopped_container_says_that_the_limit_has_ended_it() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    let container = limited(&format!("{WAIT} exec tail /dev/zero"));
    container.launch();
    assert_eq!(container.state().get("oomKilled"), None);
    container.go_on();
    container.wait_for("stopped");
    assert_eq!(container.state()["oomKilled"], true);
    let list = container.runtime().args(["list", "--format", "json"]).succeeds();
    let list: Value = serde_json::from_str(&list.stdout).unwrap();
    assert_eq!(list[0]["oomKilled"], true, "{list}");
    // Nor does a kill that comes too late take that away.
    container.on_id("kill").arg("KILL").fails_with("container not running");
    assert_eq!(container.state()["oomKilled"], true);
    container.delete();
    container.leaves_nothing();
    let container = limited("exit 0");
    container.launch();
    container.wait_for("stopped");
    assert_eq!(container.state().get("oomKilled"), None);
    Ok(())
}

fn a_container_that_goes_on_after_a_kill_does_not_say_so() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    let container = limited("tail /dev/zero; echo survived; sleep 1000");
    container.launch().wait_for_stdout("survived");
    assert_eq!(container.state()["status"], "running");
    assert_eq!(container.state().get("oomKilled"), None);
    Ok(())
}

/// A cgroup that was there before the container counts on.
fn kills_in_the_cgroup_before_the_container_are_not_its_own() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    let first = limited("exec tail /dev/zero");
    fs::create_dir(first.cgroup()).unwrap();
    first.launch();
    first.wait_for("stopped");
    assert_eq!(kills(&first), 1);
    let second = Container::with_args(["true"]).edit(|spec| {
        spec["linux"]["cgroupsPath"] = first.bundle.spec["linux"]["cgroupsPath"].clone();
    });
    second.launch();
    second.wait_for("stopped");
    assert_eq!(second.state().get("oomKilled"), None);
    assert_eq!(first.state()["oomKilled"], true);
    second.delete();
    first.delete();
    first.leaves_nothing();
    Ok(())
}

fn a_group_that_is_killed_as_one_is_told() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    let container = limited("sleep 1000 & tail /dev/zero; echo survived")
        .edit(|spec| spec["linux"]["resources"]["unified"] = json!({ "memory.oom.group": "1" }));
    let output = container.run();
    assert_eq!(output.code(), 137, "{output:#?}");
    assert!(output.stderr.contains(WORDS) && output.stdout.is_empty(), "{output:#?}");
    Ok(())
}

/// As with a container manager inside: the cgroup that has the limit is below the container's.
fn a_kill_below_the_containers_cgroup_is_told_by_events() -> Outcome {
    need_other_than("crun", "lacks the command")?;
    need_controller("memory")?;
    let script = format!(
        "cd /sys/fs/cgroup; mkdir leaf below; echo 0 >leaf/cgroup.procs; echo +memory >cgroup.subtree_control;
         echo 16777216 >below/memory.max; echo 0 >below/memory.swap.max 2>/dev/null; {WAIT}
         sh -c 'echo 0 >below/cgroup.procs; exec tail /dev/zero'; echo survived; sleep 1000"
    );
    let container = Container::with_script(&script).edit(writable_cgroup);
    let output = container.launch();
    let events = container.runtime().args(["events", "--interval", "200ms", &container.id]).spawn();
    events.wait_for_stdout("\"type\":\"stats\"");
    container.go_on();
    events.wait_for_stdout("\"type\":\"oom\"");
    output.wait_for_stdout("survived");
    container.delete_by_force();
    events.wait();
    container.leaves_nothing();
    Ok(())
}

fn a_created_container_that_was_killed_is_not_started() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    let container = Container::idle();
    container.create();
    // Less than it uses: the kernel makes room by a kill.
    wait_until("it is killed", || {
        fs::write(container.cgroup().join("memory.max"), "0").unwrap();
        container.state()["status"] == "stopped"
    });
    let output = container.on_id("start").fails_with("cannot start a container that has stopped");
    assert!(output.stderr.contains("container init was OOM-killed (memory limit too low?)"), "{output:#?}");
    assert!(output.stderr.contains("out of memory: memory.max = 0"), "{output:#?}");
    container.create_with(NO_OPTIONS).fails_with("already exists");
    container.delete();
    container.leaves_nothing();
    Ok(())
}

fn one_that_had_been_started_did_not_end_for_want_of_memory_before() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    let container = limited("tail /dev/zero; exit 0");
    container.launch();
    container.wait_for("stopped");
    assert_eq!(kills(&container), 1);
    let output = container.on_id("start").fails_with("cannot start a container that has stopped");
    assert!(!output.stderr.contains("OOM-killed"), "{output:#?}");
    Ok(())
}

/// In a cgroup that is used again, the counts of its own limit go on, too.
fn an_own_limit_that_was_reached_before_the_container_is_not_blamed() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    let first = Container::with_script("exec tail /dev/zero").edit(limit(16 * MIB));
    let above = cgroups_path(&format!("{}-above", first.id));
    let path = format!("{above}/{}", first.id);
    let first = first.edit(|spec| spec["linux"]["cgroupsPath"] = json!(path));
    let second = Container::with_script("exec tail /dev/zero").edit(limit(1024 * MIB));
    let second = second.edit(|spec| spec["linux"]["cgroupsPath"] = json!(path));
    let above = Path::new(CGROUPS).join(above.trim_start_matches('/'));
    fs::create_dir_all(above.join(first.id.as_str())).unwrap();
    fs::write(above.join("cgroup.subtree_control"), "+memory").unwrap();
    fs::write(above.join("memory.max"), (32 * MIB).to_string()).unwrap();
    let _ = fs::write(above.join("memory.swap.max"), "0");
    first.launch();
    first.wait_for("stopped");
    let output = second.run();
    first.delete();
    // It belonged to neither.
    let _ = fs::remove_dir(above.join(first.id.as_str()));
    fs::remove_dir(&above).unwrap();
    assert_eq!(output.code(), 137, "{output:#?}");
    assert!(
        output.stderr.contains("out of memory: the container's own memory.max was not reached"),
        "{output:#?}"
    );
    Ok(())
}

/// Nobody has looked before how many kills there were: so much is said, and no more.
fn exec_says_that_the_new_process_may_have_been_killed_for_want_of_memory() -> Outcome {
    need_controller("memory")?;
    need_other_than("crun", "has other words")?;
    let container = Container::with_script(
        "cd /sys/fs/cgroup; mkdir leaf below; echo 0 >leaf/cgroup.procs; echo +memory >cgroup.subtree_control;
         echo 0 >below/memory.max; echo 0 >below/memory.swap.max 2>/dev/null; echo ready; sleep 1000",
    )
    .edit(writable_cgroup);
    container.launch().wait_for_stdout("ready");
    let output = container.exec_with(["--cgroup", "below"], ["true"]).fails_with("possibly OOM-killed");
    need_own()?;
    assert_eq!(output.code(), 255, "{output:#?}");
    assert!(output.stderr.contains("the new process was killed by signal 9"), "{output:#?}");
    assert!(
        output.stderr.contains("out of memory: the container's own memory.max was not reached"),
        "{output:#?}"
    );
    assert_eq!(kills(&container), 1);
    Ok(())
}
