//! `pause` and `resume`, and how other commands treat a paused container.

use std::fs;
use std::path::PathBuf;

use crate::support::bundle::remove_namespace;
use crate::support::host::{self, CGROUPS, need, need_other_than, need_own};
use crate::support::suite::suite;
use crate::support::{Container, Outcome, wait_until};

suite![
    pause_stops_every_process_and_resume_lets_them_go_on,
    a_paused_container_is_listed_as_paused,
    a_created_container_can_be_paused_and_does_not_start_then,
    pause_of_a_paused_container_fails_and_says_not_running,
    pause_of_a_stopped_container_fails_and_says_not_running,
    pause_of_a_missing_container_fails,
    resume_of_a_running_container_fails_and_says_not_paused,
    resume_of_a_stopped_container_fails_and_says_not_paused,
    a_pause_that_cannot_be_completed_is_taken_back,
    a_pause_that_another_command_undoes_says_so,
    a_container_without_a_cgroup_cannot_be_paused,
    kill_ends_a_paused_container,
    kill_ends_every_process_of_a_paused_container_in_a_shared_pid_namespace,
    other_signals_wait_for_resume,
    a_container_that_was_killed_from_outside_while_paused_has_stopped,
    delete_of_a_paused_container_fails_and_names_the_state,
    delete_with_force_ends_a_paused_container,
    the_cgroup_comes_from_the_state_and_not_from_the_command_line,
];

fn paused() -> Container {
    let container = Container::idle();
    container.launch();
    container.on_id("pause").succeeds();
    container
}

fn frozen(container: &Container) -> bool {
    container.control_file("cgroup.events").lines().any(|line| line == "frozen 1")
}

fn pause_stops_every_process_and_resume_lets_them_go_on() -> Outcome {
    need_other_than("crun", "does not wait for them")?;
    let container = Container::with_script("sh -c 'while :; do :; done' & while :; do :; done");
    container.launch();
    container.on_id("pause").succeeds();
    // At once: pause returns when they have stopped, not before.
    assert!(frozen(&container));
    assert_eq!(container.state()["status"], "paused");
    assert_ne!(container.pid(), 0);
    container.on_id("resume").succeeds();
    assert_eq!(container.state()["status"], "running");
    assert_eq!(container.control_file("cgroup.freeze"), "0");
    container.delete_by_force();
    container.leaves_nothing();
    Ok(())
}

fn a_paused_container_is_listed_as_paused() {
    let container = paused();
    let list = container.runtime().arg("list").succeeds().stdout;
    assert!(list.contains(" paused "), "{list}");
}

fn a_created_container_can_be_paused_and_does_not_start_then() -> Outcome {
    let container = Container::idle();
    container.create();
    container.on_id("pause").succeeds();
    need_other_than("crun", "shows it as created, and starts it when it goes on")?;
    assert_eq!(container.state()["status"], "paused");
    container.on_id("start").fails_with("cannot start a container in the paused state");
    container.on_id("resume").succeeds();
    assert_eq!(container.state()["status"], "created");
    container.start();
    container.wait_for("running");
    Ok(())
}

fn pause_of_a_paused_container_fails_and_says_not_running() -> Outcome {
    need_other_than("crun", "lets it be")?;
    let container = paused();
    container.on_id("pause").fails_with("container not running");
    assert_eq!(container.state()["status"], "paused");
    Ok(())
}

fn pause_of_a_stopped_container_fails_and_says_not_running() -> Outcome {
    let container = Container::new();
    container.launch();
    container.wait_for("stopped");
    let output = container.on_id("pause").fails_with("");
    need_other_than("crun", "another text")?;
    assert!(output.stderr.contains("container not running"), "{output:#?}");
    assert_eq!(container.control_file("cgroup.freeze"), "0");
    Ok(())
}

fn pause_of_a_missing_container_fails() {
    Container::new().on_id("pause").fails_with("does not exist");
    Container::new().on_id("resume").fails_with("does not exist");
}

fn resume_of_a_running_container_fails_and_says_not_paused() -> Outcome {
    need_other_than("crun", "lets it be")?;
    let container = Container::idle();
    container.launch();
    container.on_id("resume").fails_with("container not paused");
    Ok(())
}

fn resume_of_a_stopped_container_fails_and_says_not_paused() -> Outcome {
    let container = Container::new();
    container.launch();
    container.wait_for("stopped");
    let output = container.on_id("resume").fails_with("");
    need_other_than("crun", "another text")?;
    assert!(output.stderr.contains("container not paused"), "{output:#?}");
    Ok(())
}

/// A thread of the kernel in the cgroup, which nothing can freeze; it goes back when the test ends.
struct Unstoppable(String);

impl Unstoppable {
    fn put_into(container: &Container) -> Option<Self> {
        let procs = container.cgroup().join("cgroup.procs");
        fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let is_of_kthreadd = stat.rsplit_once(')')?.1.split_whitespace().nth(1)? == "2";
            let pid = entry.file_name().into_string().ok()?;
            // Not all let themselves be moved.
            (is_of_kthreadd && fs::write(&procs, &pid).is_ok()).then(|| Self(pid))
        })
    }
}

impl Drop for Unstoppable {
    fn drop(&mut self) {
        fs::write(PathBuf::from(CGROUPS).join("cgroup.procs"), &self.0).unwrap();
    }
}

fn a_pause_that_cannot_be_completed_is_taken_back() -> Outcome {
    need_own()?;
    need(host::machine() != "native", "a machine of its own, whose kernel threads may be moved")?;
    let container = Container::idle();
    container.launch();
    let kernel_thread = Unstoppable::put_into(&container);
    need(kernel_thread.is_some(), "a kernel thread that can be moved")?;
    let pause = container.on_id("pause").spawn();
    wait_until("it has begun", || container.control_file("cgroup.freeze") == "1");
    // Nor does it end half-way.
    pause.signal(nix::sys::signal::SIGTERM);
    let output = pause.wait();
    assert!(output.stderr.contains("process(es) stopped within 10s"), "{output:#?}");
    assert_eq!(container.control_file("cgroup.freeze"), "0");
    assert_eq!(container.state()["status"], "running");
    drop(kernel_thread);
    container.on_id("pause").succeeds();
    Ok(())
}

fn a_pause_that_another_command_undoes_says_so() -> Outcome {
    need_own()?;
    let container = Container::idling();
    // In the container's cgroup it freezes itself between its write to cgroup.freeze and its wait.
    let enter = format!("echo 0 >{}/cgroup.procs;", container.cgroup().display());
    let pause = container.on_id("pause").after_shell(&enter).spawn();
    wait_until("it is frozen", || frozen(&container));
    container.on_id("resume").succeeds();
    let output = pause.wait();
    let said =
        format!("container {:?} was resumed by another command while it was being paused", container.id);
    assert!(output.code() == 1 && output.stderr.contains(&said), "{output:#?}");
    assert_eq!(container.state()["status"], "running");
    Ok(())
}

fn a_container_without_a_cgroup_cannot_be_paused() -> Outcome {
    need_own()?;
    let container = Container::idle();
    let call = container.runtime().args(["--cgroup-manager", "disabled", "create", "--bundle"]);
    call.arg(container.bundle.path()).arg(&container.id).succeeds();
    container.on_id("pause").fails_with("has no cgroup of its own");
    assert_eq!(container.state()["status"], "created");
    Ok(())
}

fn kill_ends_a_paused_container() {
    let container = paused();
    container.kill("KILL");
    container.wait_for("stopped");
    container.delete();
    container.leaves_nothing();
}

fn kill_ends_every_process_of_a_paused_container_in_a_shared_pid_namespace() -> Outcome {
    need_other_than("runc", "takes it for paused for ever")?;
    let container =
        Container::with_script("sleep 1000 & exec sleep 1000").edit(|spec| remove_namespace(spec, "pid"));
    container.launch();
    container.on_id("pause").succeeds();
    container.kill("KILL");
    container.wait_for("stopped");
    container.delete();
    container.leaves_nothing();
    Ok(())
}

fn other_signals_wait_for_resume() {
    let container = Container::idle();
    container.launch();
    container.wait_for_trap();
    container.on_id("pause").succeeds();
    container.kill("TERM");
    assert_eq!(container.state()["status"], "paused");
    container.on_id("resume").succeeds();
    container.wait_for("stopped");
}

/// runc and crun go by the cgroup alone, and their container can then neither be resumed nor deleted.
fn a_container_that_was_killed_from_outside_while_paused_has_stopped() -> Outcome {
    need_own()?;
    let container = paused();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(container.pid()), nix::sys::signal::SIGKILL).unwrap();
    container.wait_for("stopped");
    container.on_id("resume").fails_with("container not paused");
    container.delete();
    container.leaves_nothing();
    Ok(())
}

fn delete_of_a_paused_container_fails_and_names_the_state() -> Outcome {
    let container = paused();
    let output = container.on_id("delete").fails_with("");
    assert_eq!(container.state()["status"], "paused");
    need_other_than("crun", "another text")?;
    assert!(
        output
            .stderr
            .contains(&format!("cannot delete container {} that is not stopped: paused", container.id))
    );
    Ok(())
}

fn delete_with_force_ends_a_paused_container() {
    let container = paused();
    container.delete_by_force();
    container.leaves_nothing();
}

/// Podman gives none of the options that it gave to create.
fn the_cgroup_comes_from_the_state_and_not_from_the_command_line() -> Outcome {
    need_own()?;
    let container = Container::idle();
    container.launch();
    for (option, command) in [("--systemd-cgroup", "pause"), ("--cgroup-manager=disabled", "resume")] {
        container.runtime().args([option, command, &container.id]).succeeds();
        assert_eq!(frozen(&container), command == "pause");
    }
    container.runtime().args(["--cgroup-manager=disabled", "delete", "--force", &container.id]).succeeds();
    assert!(!container.cgroup().exists());
    container.leaves_nothing();
    Ok(())
}
