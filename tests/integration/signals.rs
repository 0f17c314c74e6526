//! Signals sent to the runtime itself, and signals that its caller ignores.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::container::NO_OPTIONS;
use crate::support::host::{CGROUPS, cgroup_parent, need_own};
use crate::support::suite::suite;
use crate::support::wait::holds_within;
use crate::support::{Container, Invocation, Outcome, wait_until, workspace};

suite![
    a_signal_during_create_undoes_everything,
    a_signal_during_a_detached_run_undoes_everything,
    a_signal_during_run_undoes_everything,
    a_frozen_cgroup_above_is_reported,
    signals_that_the_caller_ignores_are_not_ignored_inside,
    a_caller_that_ignores_signals_gets_the_exit_status,
    a_caller_that_ignores_signals_can_create_and_start,
];

/// A frozen cgroup: what is made below it never runs, and whoever waits for it waits.
struct Frozen(PathBuf);

impl Frozen {
    fn new() -> Self {
        let path = cgroup_parent().join(workspace::unique_name());
        fs::create_dir(&path).unwrap();
        fs::write(path.join("cgroup.freeze"), "1").unwrap();
        Self(path)
    }

    /// A container whose cgroup is below this one.
    fn container(&self) -> Container {
        let mut container = Container::idle();
        let top = Path::new("/").join(self.0.strip_prefix(CGROUPS).unwrap());
        let path = top.join(&container.id);
        container.bundle.edit(|spec| spec["linux"]["cgroupsPath"] = json!(path));
        container
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        let _ = fs::write(self.0.join("cgroup.freeze"), "0");
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                holds_within(crate::support::host::patience(), || fs::remove_dir(&path).is_ok());
            }
        }
        holds_within(crate::support::host::patience(), || fs::remove_dir(&self.0).is_ok());
    }
}

#[track_caller]
fn is_undone(call: impl Fn(&Container) -> Invocation) {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        let frozen = Frozen::new();
        let container = frozen.container();
        let running = call(&container).spawn();
        let procs = container.cgroup().join("cgroup.procs");
        wait_until("the init process stands still", || {
            fs::read_to_string(&procs).is_ok_and(|pids| !pids.is_empty())
        });
        running.signal(signal);
        let output = running.wait();
        assert_ne!(output.code(), 0, "{signal}: {output:#?}");
        // On a slow machine it may have noticed by itself.
        let is_told = output.stderr.contains("interrupted") || output.stderr.contains("frozen");
        assert!(is_told, "{signal}: {output:#?}");
        container.leaves_nothing();
    }
}

fn a_signal_during_create_undoes_everything() -> Outcome {
    need_own()?;
    is_undone(|container| container.create_with(NO_OPTIONS));
    Ok(())
}

fn a_signal_during_a_detached_run_undoes_everything() -> Outcome {
    need_own()?;
    is_undone(|container| container.run_with(["--detach"]));
    Ok(())
}

fn a_signal_during_run_undoes_everything() -> Outcome {
    need_own()?;
    is_undone(|container| container.run_with(NO_OPTIONS));
    Ok(())
}

fn a_frozen_cgroup_above_is_reported() -> Outcome {
    need_own()?;
    let frozen = Frozen::new();
    let container = frozen.container();
    for call in
        [container.create_with(NO_OPTIONS), container.run_with(["--detach"]), container.run_with(NO_OPTIONS)]
    {
        call.fails_with("frozen");
        container.leaves_nothing();
    }
    Ok(())
}

/// As nohup does, and a shell without job control for what it starts with `&`.
const IGNORE: &str = "trap '' HUP INT QUIT TERM CHLD USR1 PIPE;";

fn signals_that_the_caller_ignores_are_not_ignored_inside() -> Outcome {
    need_own()?;
    let container = Container::with_args(["grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"]);
    let output = container.run_with(NO_OPTIONS).after_shell(IGNORE).succeeds();
    assert_eq!(output.stdout, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    container.leaves_nothing();
    Ok(())
}

/// With SIGCHLD ignored, the kernel would not keep the status of a child.
fn a_caller_that_ignores_signals_gets_the_exit_status() {
    let container = Container::with_script("exit 7");
    let output = container.run_with(NO_OPTIONS).after_shell(IGNORE).output();
    assert_eq!((output.code(), output.stderr.as_str()), (7, ""));
    container.leaves_nothing();
    let killed = Container::with_script("echo ready; while :; do sleep 0.05; done");
    let running = killed.run_with(NO_OPTIONS).after_shell(IGNORE).spawn();
    running.wait_for_stdout("ready");
    killed.kill("KILL");
    assert_eq!(running.wait().code(), 137);
    killed.leaves_nothing();
}

fn a_caller_that_ignores_signals_can_create_and_start() {
    let detached = Container::idle();
    detached.run_with(["--detach"]).after_shell(IGNORE).succeeds();
    assert_eq!(detached.state()["status"], "running");
    detached.terminate();
    detached.wait_for("stopped");
    detached.on_id("delete").after_shell(IGNORE).succeeds();
    detached.leaves_nothing();
    let created = Container::idle();
    created.create_with(NO_OPTIONS).after_shell(IGNORE).succeeds();
    created.on_id("start").after_shell(IGNORE).succeeds();
    created.wait_for_trap();
    created.on_id("kill").arg("TERM").after_shell(IGNORE).succeeds();
    created.wait_for("stopped");
    created.delete();
    created.leaves_nothing();
}
