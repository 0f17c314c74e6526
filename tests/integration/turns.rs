//! Concurrent changes of a container: commands wait for each other, and never change a new container with the
//! same ID.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::host::need_own;
use crate::support::process::Running;
use crate::support::suite::suite;
use crate::support::{Container, Invocation, Outcome, Output, wait_until};

use super::revisions::{depth, history, launched, state_file, update_to};

suite![
    an_update_waits_for_its_turn,
    a_container_that_goes_while_an_update_waits_is_not_updated,
    an_update_does_not_come_to_a_later_container_of_the_same_name,
    a_dry_run_does_not_look_at_a_later_container_of_the_same_name,
    an_update_is_not_recorded_for_a_later_container_of_the_same_name,
    a_delete_does_not_come_to_a_later_container_of_the_same_name,
];

/// Keeps updates of a container waiting.
fn locked(container: &Container) -> File {
    locked_directory(&container.state_directory())
}

/// The same of any state directory.
pub fn locked_directory(path: &Path) -> File {
    let turns = OpenOptions::new().create(true).append(true).open(path.join("update.lock")).unwrap();
    rustix::fs::flock(&turns, rustix::fs::FlockOperation::LockExclusive).unwrap();
    turns
}

/// An update that waits for its turn.
fn waiting(container: &Container, value: &str) -> Running {
    let running = update_to(container, depth(value), &[]).spawn();
    wait_for_turn(&running);
    running
}

#[track_caller]
fn wait_for_turn(running: &Running) {
    let pid = running.pid().to_string();
    wait_until("it waits for the lock", || {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|line| line.contains("-> FLOCK") && line.split_whitespace().any(|word| word == pid))
    });
}

fn an_update_waits_for_its_turn() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    let lock = locked(&container);
    let first = waiting(&container, "7");
    assert_eq!(container.control_file("cgroup.max.depth"), "max");
    // Whoever asked may think better of it.
    let second = update_to(&container, json!({ "unified": { "cgroup.max.descendants": "9" } }), &[]).spawn();
    wait_for_turn(&second);
    second.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(second.wait().code(), 143);
    drop(lock);
    assert_eq!(first.wait().code(), 0);
    assert_eq!(container.control_file("cgroup.max.depth"), "7");
    assert_eq!(container.control_file("cgroup.max.descendants"), "max");
    Ok(())
}

fn a_container_that_goes_while_an_update_waits_is_not_updated() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    let lock = locked(&container);
    let running = waiting(&container, "7");
    container.kill("KILL");
    container.wait_for("stopped");
    let second = waiting(&container, "7");
    drop(lock);
    for running in [running, second] {
        let output = running.wait();
        assert!(output.code() == 1 && output.stderr.contains("container not running"), "{output:#?}");
    }
    let lock = locked(&container);
    let running = waiting(&container, "7");
    container.delete();
    drop(lock);
    let output = running.wait();
    assert!(output.code() == 1 && output.stderr.contains("does not exist"), "{output:#?}");
    container.leaves_nothing();

    // Another of its name has a turn of its own.
    container.launch();
    let old = locked(&container);
    let running = waiting(&container, "7");
    container.delete_by_force();
    container.launch();
    let new = locked(&container);
    drop(old);
    wait_for_turn(&running);
    assert_eq!(container.control_file("cgroup.max.depth"), "max");
    drop(new);
    assert_eq!(running.wait().code(), 0);
    assert_eq!(container.control_file("cgroup.max.depth"), "7");
    Ok(())
}

/// Waits until the program looks whether it may have its turn at the container of this state directory.
#[track_caller]
pub fn wait_at(running: &Running, directory: &Path) {
    let open = format!("/proc/{}/fd", running.pid());
    wait_until("it has opened the state directory", || {
        let descriptors = fs::read_dir(&open).unwrap().flatten();
        descriptors.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|path| path == directory)
    });
}

/// A call that waits at a pipe.
struct Held {
    running: Running,
    pipe: PathBuf,
}

/// The same call where this file is a pipe, and the call waits for whoever writes to it.
fn held_at(call: Invocation, file: &Path, pipe: PathBuf) -> Held {
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = "mount --bind \"$0\" \"$1\" && shift && exec \"$@\"";
    let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script];
    let call = call.called_by(words.into_iter().chain([pipe.to_str().unwrap(), file.to_str().unwrap()]));
    Held { running: call.spawn(), pipe }
}

impl Held {
    /// What the call will read, once it waits for that.
    #[track_caller]
    fn writer(&self) -> File {
        let mut opened = None;
        wait_until("it waits at the pipe", || {
            opened = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&self.pipe).ok();
            opened.is_some()
        });
        opened.unwrap()
    }

    /// Makes another container in the place of this one before the call goes on, which reads `text` then.
    #[track_caller]
    fn goes_on_after_another_is_made(self, container: &Container, text: &str) -> Output {
        let mut writer = self.writer();
        container.delete_by_force();
        container.launch();
        writer.write_all(text.as_bytes()).unwrap();
        drop(writer);
        self.running.wait()
    }
}

/// Between the look at its record and that at its cgroup.
fn an_update_does_not_come_to_a_later_container_of_the_same_name() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    let freeze = container.cgroup().join("cgroup.freeze");
    let held = held_at(update_to(&container, depth("7"), &[]), &freeze, container.beside("pipe"));
    let output = held.goes_on_after_another_is_made(&container, "0\n");
    let text = format!("error: container {:?} does not exist\n", container.id);
    assert_eq!((output.code(), &*output.stderr), (1, &*text), "{output:#?}");
    assert_eq!(container.control_file("cgroup.max.depth"), "max");
    assert_eq!(history(&container).len(), 1);
    assert_eq!(container.state()["status"], "running");
    // It has a turn of its own.
    update_to(&container, depth("9"), &[]).succeeds();
    assert_eq!(container.control_file("cgroup.max.depth"), "9");
    Ok(())
}

fn a_dry_run_does_not_look_at_a_later_container_of_the_same_name() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    let call = update_to(&container, depth("7"), &["--dry-run"]);
    let held = held_at(call, &container.cgroup().join("cgroup.freeze"), container.beside("pipe"));
    let output = held.goes_on_after_another_is_made(&container, "0\n");
    let text = format!("error: container {:?} does not exist\n", container.id);
    assert_eq!((&*output.stdout, &*output.stderr), ("", &*text), "{output:#?}");
    Ok(())
}

/// When everything has been written but the record.
fn an_update_is_not_recorded_for_a_later_container_of_the_same_name() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    let pipe = container.state_directory().join(".state.json");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let other_name = container.beside("pipe");
    fs::hard_link(pipe, &other_name).unwrap();
    let running = update_to(&container, depth("7"), &[]).spawn();
    wait_until("it has been written", || container.control_file("cgroup.max.depth") == "7");
    container.delete_by_force();
    container.launch();
    let before = state_file(&container);
    // Who opens a pipe to write to it waits for a reader.
    let _reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(other_name).unwrap();
    let output = running.wait();
    assert_eq!(output.code(), 1, "{output:#?}");
    assert!(output.stderr.contains("does not exist"), "{output:#?}");
    assert_eq!(state_file(&container), before);
    assert_eq!(container.control_file("cgroup.max.depth"), "max");
    Ok(())
}

/// Whoever deletes by force waits for processes to die, and is not the only one, perhaps.
fn a_delete_does_not_come_to_a_later_container_of_the_same_name() -> Outcome {
    need_own()?;
    let container = Container::idle();
    container.launch();
    let call = container.runtime().args(["delete", "--force", &container.id]);
    let held = held_at(call, &container.cgroup().join("cgroup.freeze"), container.beside("pipe"));
    let output = held.goes_on_after_another_is_made(&container, "0\n");
    assert_eq!((output.code(), &*output.stderr), (0, ""), "{output:#?}");
    assert_eq!(container.state()["status"], "running");
    assert!(!container.control_file("cgroup.procs").is_empty());
    container.delete_by_force();
    container.leaves_nothing();
    Ok(())
}
