//! `create`, `start`, `state`, `kill` and `delete` one by one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::bundle::remove_namespace;
use crate::support::container::NO_OPTIONS;
use crate::support::host::{is_own, kind, need_other_than, need_own};
use crate::support::suite::suite;
use crate::support::{Container, Outcome, wait_until};

suite![
    a_container_goes_through_its_states,
    create_waits_and_runs_nothing_before_start,
    create_takes_the_current_directory_for_the_bundle,
    create_writes_the_pid_file_atomically,
    create_refuses_an_id_that_exists,
    create_of_an_existing_id_leaves_the_first_alone,
    create_of_a_missing_program_fails_or_start_does,
    the_container_ignores_later_changes_of_config_json,
    start_of_a_missing_container_fails,
    start_of_a_running_container_fails,
    start_of_a_stopped_container_fails,
    state_has_the_keys_callers_decode,
    state_carries_the_annotations,
    state_of_a_missing_container_fails,
    state_of_a_stopped_container_has_pid_0,
    state_of_a_process_killed_from_outside_is_stopped,
    kill_takes_names_and_numbers,
    kill_defaults_to_term,
    kill_of_a_created_container_ends_it,
    term_ends_a_created_container,
    kill_of_an_unknown_signal_fails_and_names_it,
    kill_of_a_missing_container_fails,
    kill_of_a_stopped_container_fails_and_says_so,
    kill_of_all_is_fine_with_a_stopped_container,
    kill_of_a_shared_pid_namespace_ends_every_process,
    delete_of_a_missing_container_fails,
    delete_with_force_of_a_missing_container_is_fine,
    delete_of_a_running_container_fails_and_names_the_state,
    delete_with_force_ends_a_running_container,
    delete_with_force_ends_processes_that_ignore_term,
    delete_of_a_created_container_ends_it,
    delete_removes_what_an_aborted_create_left,
    delete_removes_the_cgroup_of_a_create_that_was_killed,
    what_a_create_has_begun_ends_with_it,
    the_state_directory_is_private,
    a_missing_operand_is_a_usage_error,
    an_id_cannot_leave_the_container_root,
    kill_of_a_shared_pid_namespace_ends_the_rest_after_init_has_gone,
];

fn a_container_goes_through_its_states() {
    let container = Container::idle();
    container.create();
    assert_eq!(container.state()["status"], "created");
    container.start();
    assert_eq!(container.state()["status"], "running");
    // Not TERM: process 1 ignores it until its trap is set.
    container.kill("KILL");
    container.wait_for("stopped");
    container.delete();
    container.on_id("state").fails_with("does not exist");
    container.leaves_nothing();
}

fn create_waits_and_runs_nothing_before_start() {
    let container = Container::with_script("echo started; echo >/tmp/ran");
    let output = container.create();
    assert_eq!(output.stdout_now(), "");
    assert!(!container.bundle.rootfs().join("tmp/ran").exists());
    container.start();
    output.wait_for_stdout("started");
    container.wait_for("stopped");
    assert!(container.bundle.rootfs().join("tmp/ran").exists());
    container.delete();
    container.leaves_nothing();
}

fn create_takes_the_current_directory_for_the_bundle() {
    let container = Container::idle();
    container.runtime().arg("create").arg(&container.id).current_dir(container.bundle.path()).succeeds();
    let bundle = fs::canonicalize(container.bundle.path()).unwrap();
    assert_eq!(container.state()["bundle"], bundle.to_str().unwrap());
}

fn create_writes_the_pid_file_atomically() {
    let container = Container::idle();
    let pid_file = container.beside("pid");
    fs::write(&pid_file, "what was there before").unwrap();
    container.create_with(["--pid-file", pid_file.to_str().unwrap()]).succeeds();
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), container.state()["pid"].to_string());
}

fn create_refuses_an_id_that_exists() {
    let container = Container::idle();
    container.create();
    container.create_with(NO_OPTIONS).fails_with("exist");
}

fn create_of_an_existing_id_leaves_the_first_alone() {
    let container = Container::idle();
    container.launch();
    let before = container.state();
    container.create_with(NO_OPTIONS).fails_with("exist");
    assert_eq!(container.state(), before);
}

fn create_of_a_missing_program_fails_or_start_does() {
    let container = Container::with_args(["not-there"]);
    let created = container.create_with(NO_OPTIONS).output();
    let failed = if created.code() == 0 { container.on_id("start").output() } else { created };
    assert!(failed.stderr.contains("executable file") && failed.stderr.contains("not found"), "{failed:#?}");
}

/// runtime.md § State: config.json is not read again.
fn the_container_ignores_later_changes_of_config_json() {
    let mut container = Container::with_script("echo as created");
    let output = container.create();
    container.bundle.edit(|spec| spec["process"]["args"] = json!(["echo", "changed"]));
    container.bundle.write_raw("broken");
    container.start();
    output.wait_for_stdout("as created");
    container.wait_for("stopped");
    container.delete();
    container.leaves_nothing();
}

fn start_of_a_missing_container_fails() {
    Container::new().on_id("start").fails_with("does not exist");
}

fn start_of_a_running_container_fails() -> Outcome {
    let container = Container::idle();
    container.launch();
    let output = container.on_id("start").output();
    assert_ne!(output.code(), 0);
    need_other_than("crun", "another text")?;
    assert!(output.stderr.contains("cannot start an already running container"), "{output:#?}");
    Ok(())
}

fn start_of_a_stopped_container_fails() -> Outcome {
    let container = Container::new();
    container.launch();
    container.wait_for("stopped");
    let output = container.on_id("start").output();
    assert_ne!(output.code(), 0);
    need_other_than("crun", "another text")?;
    assert!(output.stderr.contains("cannot start a container that has stopped"), "{output:#?}");
    Ok(())
}

fn state_has_the_keys_callers_decode() {
    let container = Container::idle();
    container.launch();
    let state = container.state();
    assert_eq!(state["id"], container.id);
    assert_eq!(state["status"], "running");
    assert!(state["pid"].as_i64().unwrap() > 1);
    let path = |path| fs::canonicalize(path).unwrap();
    assert_eq!(state["bundle"], path(container.bundle.path()).to_str().unwrap());
    if kind() != "crun" {
        assert_eq!(state["rootfs"], path(container.bundle.rootfs()).to_str().unwrap());
    }
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."));
    let created = state["created"].as_str().unwrap();
    assert!(created.contains('T') && created.ends_with('Z'), "RFC 3339 in UTC: {created:?}");
    if is_own() {
        assert!(state["ociVersion"].is_string() && state["owner"] == "");
        let seconds = created.split_once('.').map(|(seconds, _)| seconds).unwrap_or(created);
        assert_eq!(seconds.trim_end_matches('Z').len(), "2026-01-02T03:04:05".len());
        let text = container.on_id("state").succeeds().stdout;
        assert!(text.starts_with("{\n  \"ociVersion\""), "two blanks of indentation: {text:?}");
    }
}

fn state_carries_the_annotations() {
    let container =
        Container::idle().edit(|spec| spec["annotations"] = json!({ "org.example.a": "1", "b": "two" }));
    container.create();
    assert_eq!(container.state()["annotations"]["org.example.a"], "1");
    assert_eq!(container.state()["annotations"]["b"], "two");
}

fn state_of_a_missing_container_fails() {
    let container = Container::new();
    let output = container.on_id("state").fails_with("does not exist");
    assert_eq!((output.code(), output.stdout.as_str()), (1, ""));
}

fn state_of_a_stopped_container_has_pid_0() {
    let container = Container::new();
    container.launch();
    container.wait_for("stopped");
    assert_eq!(container.state()["pid"], 0);
}

fn state_of_a_process_killed_from_outside_is_stopped() {
    let container = Container::idle();
    container.launch();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(container.pid()), nix::sys::signal::SIGKILL).unwrap();
    container.wait_for("stopped");
    container.delete();
    container.leaves_nothing();
}

fn kill_takes_names_and_numbers() {
    for signal in ["USR1", "SIGUSR1", "10", "usr1", "sigusr1"] {
        if kind() == "crun" && signal.starts_with(|first: char| first.is_ascii_lowercase()) {
            continue;
        }
        let container = Container::with_script(
            "trap 'echo caught; exit 0' USR1; echo ready; while :; do sleep 0.02; done",
        );
        let output = container.launch();
        output.wait_for_stdout("ready");
        container.kill(signal);
        output.wait_for_stdout("caught");
        container.wait_for("stopped");
    }
}

fn kill_defaults_to_term() {
    let container =
        Container::with_script("trap 'echo caught; exit 0' TERM; echo ready; while :; do sleep 0.02; done");
    let output = container.launch();
    output.wait_for_stdout("ready");
    container.on_id("kill").succeeds();
    output.wait_for_stdout("caught");
}

fn kill_of_a_created_container_ends_it() {
    let container = Container::idle();
    container.create();
    container.kill("KILL");
    container.wait_for("stopped");
    container.delete();
    container.leaves_nothing();
}

/// Of a first process the kernel keeps signals away for which it has no handler.
fn term_ends_a_created_container() -> Outcome {
    need_other_than("crun", "ends it by KILL alone")?;
    for signal in ["TERM", "INT"] {
        let container = Container::idle();
        container.create();
        container.kill(signal);
        container.wait_for("stopped");
        container.on_id("start").fails_with("cannot start a container that has stopped");
        container.delete();
        container.leaves_nothing();
    }
    Ok(())
}

fn kill_of_an_unknown_signal_fails_and_names_it() {
    let container = Container::idle();
    container.launch();
    for signal in ["NOSUCH", "65536", "SIG", "-1x"] {
        let output = container.on_id("kill").arg("--").arg(signal).output();
        assert_ne!(output.code(), 0, "{signal}");
        if is_own() {
            assert!(output.stderr.contains(signal), "{output:#?}");
        }
    }
    assert_eq!(container.state()["status"], "running");
}

fn kill_of_a_missing_container_fails() {
    Container::new().on_id("kill").arg("KILL").fails_with("does not exist");
}

/// The text that containerd, CRI-O and moby look for.
fn kill_of_a_stopped_container_fails_and_says_so() -> Outcome {
    let container = Container::new();
    container.launch();
    container.wait_for("stopped");
    let output = container.on_id("kill").arg("9").output();
    assert_ne!(output.code(), 0);
    need_other_than("crun", "another text")?;
    assert!(output.stderr.contains("container not running"), "{output:#?}");
    Ok(())
}

fn kill_of_all_is_fine_with_a_stopped_container() -> Outcome {
    need_other_than("crun", "kills the cgroup, which is gone")?;
    let container = Container::new();
    container.launch();
    container.wait_for("stopped");
    container.runtime().args(["kill", "--all", &container.id, "9"]).succeeds();
    Ok(())
}

fn kill_of_a_shared_pid_namespace_ends_every_process() {
    let container = Container::with_script("sleep 1000 & sleep 1000 & echo ready; wait")
        .edit(|spec| remove_namespace(spec, "pid"));
    container.launch().wait_for_stdout("ready");
    container.runtime().args(["kill", "--all", &container.id, "KILL"]).succeeds();
    container.wait_for("stopped");
    wait_until("the cgroup is empty", || container.control_file("cgroup.procs").is_empty());
    container.delete();
    container.leaves_nothing();
}

fn delete_of_a_missing_container_fails() -> Outcome {
    need_other_than("crun", "names the missing directory")?;
    Container::new().on_id("delete").fails_with("does not exist");
    Ok(())
}

fn delete_with_force_of_a_missing_container_is_fine() {
    let container = Container::new();
    container.runtime().args(["delete", "--force", &container.id]).succeeds();
    container.runtime().args(["delete", "-f", &container.id]).succeeds();
}

fn delete_of_a_running_container_fails_and_names_the_state() -> Outcome {
    let container = Container::idle();
    container.launch();
    let output = container.on_id("delete").output();
    assert_ne!(output.code(), 0);
    assert_eq!(container.state()["status"], "running");
    need_other_than("crun", "another text")?;
    assert!(output.stderr.contains("that is not stopped: running"), "{output:#?}");
    Ok(())
}

fn delete_with_force_ends_a_running_container() {
    let container = Container::idle();
    container.launch();
    container.delete_by_force();
    container.leaves_nothing();
}

fn delete_with_force_ends_processes_that_ignore_term() {
    let container = Container::with_script(
        "trap '' TERM INT HUP; for i in 1 2 3 4 5; do sleep 1000 & done; echo ready; while :; do sleep 1; done",
    );
    container.launch().wait_for_stdout("ready");
    container.delete_by_force();
    container.leaves_nothing();
}

fn delete_of_a_created_container_ends_it() -> Outcome {
    need_other_than("crun", "asks for --force")?;
    let container = Container::idle();
    container.create();
    container.delete();
    container.leaves_nothing();
    Ok(())
}

/// A directory without a readable state, as a power cut leaves it.
fn delete_removes_what_an_aborted_create_left() -> Outcome {
    need_other_than("crun", "needs the status file")?;
    let container = Container::new().forgive();
    fs::create_dir_all(container.state_directory()).unwrap();
    container.runtime().args(["delete", "--force", &container.id]).succeeds();
    assert!(!container.state_directory().exists());
    Ok(())
}

/// By its manager, which ends with it those that it has started.
fn delete_removes_the_cgroup_of_a_create_that_was_killed() -> Outcome {
    need_own()?;
    let container = Container::idle();
    let ready = container.beside("ready");
    let script = format!("touch {}; while :; do sleep 1; done", ready.display());
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
    let container = container.edit(|spec| spec["hooks"] = json!({ "createContainer": hook }));
    let creating = container.create_with(NO_OPTIONS).spawn();
    wait_until("the hook runs", || ready.exists());
    creating.signal(Signal::SIGKILL);
    creating.wait();
    assert!(container.cgroup().exists());
    container.runtime().args(["delete", "--force", &container.id]).succeeds();
    assert!(!container.cgroup().exists());
    container.leaves_nothing();
    Ok(())
}

/// Also before there is anything by which `delete` could know the init process.
fn what_a_create_has_begun_ends_with_it() -> Outcome {
    need_own()?;
    for namespace in ["pid", "none"] {
        let container = Container::idle();
        let ready = container.beside("ready");
        let script = format!("touch {}; while :; do sleep 1; done", ready.display());
        let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
        let container = container.edit(|spec| {
            spec["hooks"] = json!({ "createContainer": hook });
            remove_namespace(spec, namespace);
        });
        let creating = container.create_with(NO_OPTIONS).spawn();
        wait_until("the hook runs", || ready.exists());
        let pids = container.control_file("cgroup.procs");
        assert!(pids.lines().count() >= 2, "{pids}");
        creating.signal(Signal::SIGKILL);
        let output = creating.wait();
        assert!(!output.stderr.contains("timeout"), "{output:#?}");
        let _ = fs::remove_file(container.state_directory().join(".state.json"));
        container.runtime().args(["delete", "--force", &container.id]).succeeds();
        assert!(!container.cgroup().exists());
        container.leaves_nothing();
    }
    Ok(())
}

fn the_state_directory_is_private() -> Outcome {
    need_own()?;
    let container = Container::idle();
    container.create();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(container.root()), 0o700);
    assert_eq!(mode(container.state_directory()), 0o711);
    assert_eq!(mode(container.state_directory().join("state.json")), 0o600);
    let state = fs::read_to_string(container.state_directory().join("state.json")).unwrap();
    serde_json::from_str::<Value>(&state).unwrap();
    assert!(container.state_directory().join("exec.fifo").exists());
    container.start();
    assert!(!container.state_directory().join("exec.fifo").exists());
    Ok(())
}

fn a_missing_operand_is_a_usage_error() {
    let container = Container::new();
    for command in ["create", "start", "state", "kill", "delete"] {
        let output = container.runtime().arg(command).current_dir(container.bundle.path()).output();
        assert_ne!(output.code(), 0, "{command}");
    }
    container.leaves_nothing();
}

fn an_id_cannot_leave_the_container_root() {
    let container = Container::new().forgive();
    let outside = container.beside("outside");
    fs::create_dir_all(&outside).unwrap();
    for command in ["start", "state", "kill", "delete"] {
        let output = container.runtime().args([command, "../outside"]).output();
        assert_ne!(output.code(), 0, "{output:#?}");
    }
    let output = container.runtime().args(["delete", "--force", "../outside"]).output();
    assert!(outside.exists(), "{output:#?}");
}

/// Without a pid namespace of its own, a container can outlive its init process.
fn kill_of_a_shared_pid_namespace_ends_the_rest_after_init_has_gone() -> Outcome {
    need_other_than("crun", "asks for the init process alone")?;
    let container = Container::with_script("sleep 1000 </dev/null >/dev/null 2>&1 & exit 0")
        .edit(|spec| remove_namespace(spec, "pid"));
    container.launch();
    container.wait_for("stopped");
    assert_ne!(container.control_file("cgroup.procs"), "", "the background process is gone already");
    container.kill("KILL");
    wait_until("the rest has ended", || container.control_file("cgroup.procs").is_empty());
    // To runc, killing nothing is no failure.
    if is_own() {
        container.on_id("kill").arg("KILL").fails_with("not running");
    }
    container.delete();
    container.leaves_nothing();
    Ok(())
}
