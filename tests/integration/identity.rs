//! Late actions apply to the same container and never to a later one with the same ID; what must happen once
//! happens exactly once.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::bundle::remove_namespace;
use crate::support::container::NO_OPTIONS;
use crate::support::host::{machine, need, need_device_nodes, need_own, need_program};
use crate::support::process::Running;
use crate::support::suite::suite;
use crate::support::wait::holds_within;
use crate::support::{Container, Invocation, Outcome, Output, wait_until};

suite![
    a_create_that_is_deleted_meanwhile_undoes_itself_and_no_later_container,
    a_delete_of_a_container_in_the_making_says_so_and_takes_nothing,
    a_delete_by_force_waits_for_whoever_makes_the_container,
    a_create_that_is_killed_before_its_directory_has_a_name_leaves_nothing,
    a_delete_ends_an_init_process_that_stands_still_and_has_lost_its_parent,
    two_creates_of_one_name_make_one_container,
    create_and_delete_beside_each_other_lose_no_container,
    a_run_that_ends_late_removes_no_later_container,
    a_run_that_fails_late_undoes_no_later_container,
    a_delete_that_comes_late_does_not_kill_in_anothers_cgroup,
    poststop_hooks_run_once_however_many_delete,
    poststop_hooks_run_once_when_run_ends_beside_a_delete,
    whoever_deletes_beside_another_waits_for_it,
    a_killed_start_leaves_a_status_that_is_true,
    a_start_that_comes_late_does_not_end_what_another_has_started,
    a_create_that_was_killed_at_its_pid_file_is_in_nobodys_way,
    a_pid_file_that_is_no_regular_file_is_written_to,
];

/// How long what must not happen is given to happen.
const A_WHILE: Duration = Duration::from_millis(700);

/// A hook that says that it runs, and then waits.
fn waiting_hook(container: &Container, then: &str) -> Value {
    let (ready, go) = (container.beside("ready"), container.beside("go"));
    let script =
        format!("echo > {}; while ! [ -e {} ]; do sleep 0.02; done; {then}", ready.display(), go.display());
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
}

/// A hook that counts how often it was called.
fn counting_hook(container: &Container) -> Value {
    let script = format!("echo once >> {}", container.beside("count").display());
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
}

fn with_hooks(container: Container, kinds: &[(&str, Value)]) -> Container {
    container.edit(|spec| {
        for (kind, hooks) in kinds {
            spec["hooks"][kind] = hooks.clone();
        }
    })
}

fn count(container: &Container) -> usize {
    fs::read_to_string(container.beside("count")).unwrap_or_default().lines().count()
}

fn delete_by_force(container: &Container) -> Invocation {
    container.runtime().args(["delete", "--force", &container.id])
}

#[track_caller]
fn wait_for_hook(container: &Container) {
    wait_until("the hook runs", || container.beside("ready").exists());
}

fn let_hook_go_on(container: &Container) {
    fs::write(container.beside("go"), "").unwrap();
}

/// Whether it has ended.
fn is_over(running: &Running) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", running.pid())).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with(['Z', 'X']) || rest.is_empty())
}

/// A container of this name that runs, whichever was there before.
#[track_caller]
fn is_alive_and_well(container: &Container) {
    assert_eq!(container.state()["status"], "running");
    assert!(!container.control_file("cgroup.procs").is_empty());
    container.delete_by_force();
    container.leaves_nothing();
}

/// A call that stops when it has made this system call; strace(1).
struct Stopped(Option<Running>);

fn stopped_after(container: &Container, call: Invocation, system_calls: &str) -> Stopped {
    let (trace, inject) =
        (format!("trace={system_calls}"), format!("inject={system_calls}:signal=STOP:when=1"));
    let told = container.beside("trace");
    let _ = fs::remove_file(&told);
    let words = ["strace", "-o", told.to_str().unwrap(), "-e", &trace, "-e", &inject];
    let stopped = Stopped(Some(call.called_by(words).spawn()));
    wait_until("it has stopped", || {
        let told = fs::read_to_string(&told).unwrap_or_default();
        assert!(!told.contains("+++"), "it has ended: {told}");
        told.contains("--- stopped by SIGSTOP ---")
    });
    stopped
}

impl Stopped {
    fn child(&self) -> Option<Pid> {
        let tracer = self.0.as_ref()?.pid();
        let children = fs::read_to_string(format!("/proc/{tracer}/task/{tracer}/children")).ok()?;
        children.trim().parse().ok().map(Pid::from_raw)
    }

    /// Sends it a signal, by which it goes on or ends.
    fn ends_by(mut self, signal: Signal) -> Output {
        kill(self.child().unwrap(), signal).unwrap();
        self.0.take().unwrap().wait()
    }

    fn goes_on(self) -> Output {
        self.ends_by(Signal::SIGCONT)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if let Some(child) = self.child() {
            let _ = kill(child, Signal::SIGKILL);
        }
    }
}

/// The same call, killed before it makes a system call for the `number`th time.
fn killed_before(call: Invocation, system_calls: &str, number: u32) {
    let (trace, inject) =
        (format!("trace={system_calls}"), format!("inject={system_calls}:signal=KILL:when={number}"));
    let output = call.called_by(["strace", "-o", "/dev/null", "-e", &trace, "-e", &inject]).output();
    assert_eq!(output.code(), 137, "{output:#?}");
}

fn need_tracing() -> Outcome {
    need_own()?;
    need_program("strace")?;
    need(machine() == "native", "a machine that runs a traced program quickly")
}

fn a_create_that_is_deleted_meanwhile_undoes_itself_and_no_later_container() -> Outcome {
    need_own()?;
    let container = Container::idle();
    let hooks =
        [("createRuntime", waiting_hook(&container, "true")), ("poststop", counting_hook(&container))];
    let container = with_hooks(container, &hooks);
    let creating = container.create_with(NO_OPTIONS).spawn();
    wait_for_hook(&container);
    // The hook is in vain, and is not waited for.
    delete_by_force(&container).succeeds();
    let created = creating.wait();
    let text = "the init process exited during createRuntime hook #0";
    assert!(created.code() == 1 && created.stderr.contains(text), "{created:#?}");
    assert_eq!(count(&container), 1);
    container.leaves_nothing();
    let_hook_go_on(&container);
    container.launch();
    is_alive_and_well(&container);
    Ok(())
}

/// With a record, which hooks find, and before there is one.
fn a_delete_of_a_container_in_the_making_says_so_and_takes_nothing() -> Outcome {
    need_tracing()?;
    let container = Container::idle();
    let says_so = |container: &Container| {
        let text = format!("cannot delete container {} that is not stopped: creating", container.id);
        container.on_id("delete").fails_with(&text);
    };
    let stopped = stopped_after(&container, container.create_with(NO_OPTIONS), "symlinkat,?symlink");
    says_so(&container);
    container.create_with(NO_OPTIONS).fails_with("already exists");
    let output = stopped.goes_on();
    assert_eq!(output.code(), 0, "{output:#?}");
    container.start();
    is_alive_and_well(&container);

    let hook = waiting_hook(&container, "true");
    let container = with_hooks(container, &[("createRuntime", hook)]);
    let creating = container.create_with(NO_OPTIONS).spawn();
    wait_for_hook(&container);
    says_so(&container);
    let_hook_go_on(&container);
    let output = creating.wait();
    assert_eq!(output.code(), 0, "{output:#?}");
    container.start();
    is_alive_and_well(&container);
    Ok(())
}

fn a_delete_by_force_waits_for_whoever_makes_the_container() -> Outcome {
    need_tracing()?;
    let container = Container::idle();
    let stopped = stopped_after(&container, container.create_with(NO_OPTIONS), "symlinkat,?symlink");
    let deleting = delete_by_force(&container).spawn();
    assert!(!holds_within(A_WHILE, || is_over(&deleting)), "somebody makes it");
    let output = stopped.goes_on();
    assert_eq!(deleting.wait().code(), 0);
    // Whoever of the two is faster: the container has been made and deleted, or has not come to be.
    assert!(output.code() == 0 || output.stderr.contains("killed by signal 9"), "{output:#?}");
    container.leaves_nothing();

    // Nobody waits for ever.
    let stopped = stopped_after(&container, container.create_with(NO_OPTIONS), "symlinkat,?symlink");
    delete_by_force(&container).fails_with("another process is still creating or deleting it after 10s");
    assert_eq!(stopped.ends_by(Signal::SIGKILL).code(), 137);
    delete_by_force(&container).succeeds();
    container.leaves_nothing();
    Ok(())
}

fn a_create_that_is_killed_before_its_directory_has_a_name_leaves_nothing() -> Outcome {
    need_tracing()?;
    let container = Container::idle();
    container.create();
    container.delete();
    for (call, left) in [("mkdirat", 0), ("flock", 1), ("renameat2", 1)] {
        killed_before(container.create_with(NO_OPTIONS), call, 1);
        let entries = || fs::read_dir(container.root()).unwrap().count();
        assert_eq!(entries(), left, "{call}");
        container.runtime().args(["list", "-q"]).succeeds();
        container.on_id("state").fails_with("does not exist");
        delete_by_force(&container).succeeds();
        assert_eq!(entries(), 0, "{call}");
    }
    container.launch();
    is_alive_and_well(&container);
    Ok(())
}

/// It was stopped before its parent was killed, so that it could not notice.
fn a_delete_ends_an_init_process_that_stands_still_and_has_lost_its_parent() -> Outcome {
    need_tracing()?;
    let container = Container::idle();
    let told = container.beside("trace");
    let words = ["strace", "-f", "-o", told.to_str().unwrap(), "-e", "trace=pivot_root"];
    let words = words.into_iter().chain(["-e", "inject=pivot_root:signal=STOP:when=1"]);
    let create = Stopped(Some(container.create_with(NO_OPTIONS).called_by(words).spawn()));
    let has_told = |what: &str| fs::read_to_string(&told).unwrap_or_default().contains(what);
    wait_until("the init process has stopped", || has_told("--- stopped by SIGSTOP ---"));
    kill(create.child().unwrap(), Signal::SIGKILL).unwrap();
    wait_until("its parent has ended", || has_told("+++ killed by SIGKILL +++"));
    container.on_id("delete").fails_with("does not exist");
    container.leaves_nothing();
    Ok(())
}

fn two_creates_of_one_name_make_one_container() -> Outcome {
    need_own()?;
    let container = Container::idle();
    for _ in 0..10 {
        let all: Vec<_> = (0..4).map(|_| container.create_with(NO_OPTIONS).spawn()).collect();
        let codes: Vec<_> = all.into_iter().map(|running| running.wait().code()).collect();
        assert_eq!(codes.iter().filter(|&&code| code == 0).count(), 1, "{codes:?}");
        assert_eq!(container.state()["status"], "created");
        assert_eq!(fs::read_dir(container.root()).unwrap().count(), 1);
        container.delete();
    }
    container.leaves_nothing();
    Ok(())
}

fn create_and_delete_beside_each_other_lose_no_container() -> Outcome {
    need_own()?;
    let container = Container::idle();
    for round in 0..40_u64 {
        let creating = container.create_with(NO_OPTIONS).spawn();
        holds_within(Duration::from_millis(round), || false);
        let deleted = container.on_id("delete").output();
        let created = creating.wait();
        let is_there = container.on_id("state").output().code() == 0;
        let is_right = created.code() == 0 && is_there == (deleted.code() != 0);
        assert!(is_right, "{created:#?} {deleted:#?} {is_there}");
        delete_by_force(&container).succeeds();
        assert!(!container.cgroup().exists(), "{created:#?} {deleted:#?}");
    }
    Ok(())
}

fn a_run_that_ends_late_removes_no_later_container() -> Outcome {
    need_own()?;
    let container = Container::idle();
    let first = container.run_beside();
    first.signal(Signal::SIGSTOP);
    container.delete_by_force();
    container.launch();
    first.signal(Signal::SIGCONT);
    let output = first.wait();
    assert_eq!((output.code(), &*output.stderr), (137, ""), "{output:#?}");
    is_alive_and_well(&container);
    Ok(())
}

/// After the record: a poststart hook fails when the container has been deleted, and another was made.
fn a_run_that_fails_late_undoes_no_later_container() -> Outcome {
    need_own()?;
    let container = Container::idle();
    let hooks = [("poststart", waiting_hook(&container, "exit 3")), ("poststop", counting_hook(&container))];
    let container = with_hooks(container, &hooks);
    let pid_file = container.beside("pid");
    let first = container.run_with(["--detach", "--pid-file", pid_file.to_str().unwrap()]).spawn();
    wait_for_hook(&container);
    container.delete_by_force();
    let container = container.edit(|spec| drop(spec.as_object_mut().unwrap().remove("hooks")));
    container.launch();
    let_hook_go_on(&container);
    let output = first.wait();
    assert!(output.code() != 0 && output.stderr.contains("poststart"), "{output:#?}");
    assert_eq!(count(&container), 1);
    assert!(!pid_file.exists());
    is_alive_and_well(&container);
    Ok(())
}

/// The container has no pid namespace of its own, so what is in its cgroup is killed.
fn a_delete_that_comes_late_does_not_kill_in_anothers_cgroup() -> Outcome {
    need_own()?;
    let container = Container::with_args(["true"]).edit(|spec| remove_namespace(spec, "pid"));
    container.launch();
    container.wait_for("stopped");
    let cgroup = container.cgroup();
    wait_until("its cgroup can be removed", || fs::remove_dir(&cgroup).is_ok());
    fs::create_dir(&cgroup).unwrap();
    let other = Invocation::new("sleep").arg("1000").spawn();
    fs::write(cgroup.join("cgroup.procs"), other.pid().to_string()).unwrap();
    container.on_id("kill").args(["--all", "KILL"]).succeeds();
    container.delete();
    assert!(!is_over(&other) && cgroup.exists());
    other.signal(Signal::SIGKILL);
    other.wait();
    wait_until("the cgroup can be removed", || fs::remove_dir(&cgroup).is_ok());
    container.leaves_nothing();
    Ok(())
}

fn poststop_hooks_run_once_however_many_delete() -> Outcome {
    need_own()?;
    let container = Container::idle();
    let hook = counting_hook(&container);
    let container = with_hooks(container, &[("poststop", hook)]);
    for round in 1..=15 {
        container.create();
        let all: Vec<_> = (0..8).map(|_| delete_by_force(&container).spawn()).collect();
        for running in all {
            let output = running.wait();
            assert_eq!((output.code(), &*output.stderr), (0, ""), "{output:#?}");
        }
        assert_eq!(count(&container), round);
    }
    container.leaves_nothing();
    Ok(())
}

fn poststop_hooks_run_once_when_run_ends_beside_a_delete() -> Outcome {
    need_own()?;
    let container = Container::idle();
    let hook = counting_hook(&container);
    let container = with_hooks(container, &[("poststop", hook)]);
    for round in 1..=10 {
        let running = container.run_beside();
        let deleted = delete_by_force(&container).output();
        let output = running.wait();
        assert_eq!((output.code(), deleted.code()), (137, 0), "{output:#?} {deleted:#?}");
        assert_eq!(count(&container), round);
    }
    container.leaves_nothing();
    Ok(())
}

/// One stops between the removal of the cgroup and that of the record.
fn whoever_deletes_beside_another_waits_for_it() -> Outcome {
    need_tracing()?;
    let container = Container::idle();
    let hook = counting_hook(&container);
    let container = with_hooks(container, &[("poststop", hook)]);
    container.create();
    let stopped = stopped_after(&container, container.on_id("delete"), "unlinkat,?rmdir,?unlink");
    assert!(!container.cgroup().exists());
    let by_force = delete_by_force(&container).spawn();
    let plain = container.on_id("delete").spawn();
    let is_early = holds_within(A_WHILE, || is_over(&by_force) || is_over(&plain));
    assert!(!is_early && container.state_directory().exists());
    let output = stopped.goes_on();
    assert_eq!((output.code(), &*output.stderr), (0, ""), "{output:#?}");
    assert_eq!(by_force.wait().code(), 0);
    let output = plain.wait();
    let text = format!("error: container {:?} does not exist\n", container.id);
    assert_eq!((output.code(), &*output.stderr), (1, &*text), "{output:#?}");
    assert_eq!(count(&container), 1);

    // If it is killed there, the next one does the rest.
    container.create();
    killed_before(container.on_id("delete"), "unlinkat,?rmdir,?unlink", 2);
    assert_eq!(container.state()["status"], "stopped");
    container.delete();
    assert_eq!(count(&container), 2);
    container.leaves_nothing();
    Ok(())
}

/// It writes to the pipe and removes it.
fn a_killed_start_leaves_a_status_that_is_true() -> Outcome {
    need_tracing()?;
    let container = Container::idle();
    for (call, status) in [("write", "created"), ("unlinkat,?unlink", "running")] {
        container.create();
        killed_before(container.on_id("start"), call, 1);
        container.wait_for(status);
        assert!(container.state_directory().join("exec.fifo").exists());
        match status {
            "created" => drop(container.start()),
            _ => drop(container.on_id("start").fails_with("cannot start an already running container")),
        }
        container.wait_for("running");
        container.exec(["true"]).succeeds();
        is_alive_and_well(&container);
    }
    Ok(())
}

/// Both have found it created. The one that comes late has hooks to call, and would end the container if they
/// failed.
fn a_start_that_comes_late_does_not_end_what_another_has_started() -> Outcome {
    need_tracing()?;
    let container = Container::idle();
    let hook = counting_hook(&container);
    let container = with_hooks(container, &[("poststart", hook)]);
    container.create();
    let fifo = container.state_directory().join("exec.fifo");
    let stopped = stopped_after(&container, container.on_id("start"), "pidfd_open");
    container.start();
    assert!(!fifo.exists());
    let output = stopped.goes_on();
    assert!(output.code() == 1 && output.stderr.contains("already running"), "{output:#?}");
    assert_eq!(count(&container), 1);
    is_alive_and_well(&container);

    // The other has written to the pipe, and does not remove it.
    container.create();
    let stopped = stopped_after(&container, container.on_id("start"), "pidfd_open");
    killed_before(container.on_id("start"), "unlinkat,?unlink", 1);
    container.wait_for("running");
    let output = stopped.goes_on();
    assert!(output.code() == 1 && output.stderr.contains("already running"), "{output:#?}");
    assert_eq!(count(&container), 1);
    is_alive_and_well(&container);
    Ok(())
}

fn a_create_that_was_killed_at_its_pid_file_is_in_nobodys_way() -> Outcome {
    need_tracing()?;
    let container = Container::idle();
    let pid_file = container.beside("pid");
    let create = || container.create_with(["--pid-file", pid_file.to_str().unwrap()]);
    for (call, number) in [("linkat", 1), ("linkat", 2), ("renameat,?rename", 2)] {
        killed_before(create(), call, number);
        delete_by_force(&container).succeeds();
        create().succeeds();
        assert_eq!(fs::read_to_string(&pid_file).unwrap(), container.pid().to_string());
        container.delete();
    }
    container.leaves_nothing();
    let mut left: Vec<_> =
        fs::read_dir(&container.bundle.home).unwrap().flatten().map(|entry| entry.file_name()).collect();
    left.retain(|name| name.to_string_lossy().contains(".pid"));
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

fn a_pid_file_that_is_no_regular_file_is_written_to() -> Outcome {
    need_own()?;
    need_device_nodes()?;
    let container = Container::with_args(["true"]);
    let at = |name: &str| container.beside(name);
    let run = |path: &Path| container.run_with(["--pid-file", path.to_str().unwrap()]);
    let (null, fifo) = (at("null"), at("fifo"));
    let device = nix::sys::stat::makedev(1, 3);
    nix::sys::stat::mknod(&null, nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::S_IRWXU, device)
        .unwrap();
    let before = fs::metadata(&null).unwrap().ino();
    run(&null).succeeds();
    assert_eq!(fs::symlink_metadata(&null).unwrap().ino(), before);
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    run(&fifo).fails_with("ENXIO");
    let _reader = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    run(&fifo).succeeds();
    assert!(fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());
    // As /dev/stdout may be.
    let link = at("link");
    symlink(&fifo, &link).unwrap();
    run(&link).fails_with("symbolic link to something that is not a regular file");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    fs::remove_file(&link).unwrap();
    symlink(at("target"), &link).unwrap();
    run(&link).succeeds();
    assert!(fs::symlink_metadata(&link).unwrap().is_file() && !at("target").exists());
    container.leaves_nothing();
    Ok(())
}
