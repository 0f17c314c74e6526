//! What must hold after a command into which a fault was injected.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

use super::Problems;
use super::scenarios::{Scenario, Setup, values};
use crate::support::injector::{Kind, Point, Traced};
use crate::support::leftovers::has_word;
use crate::support::wait::holds_within;
use crate::support::{Invocation, Output};

/// How long what was killed, or notices that its parent was, may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to look for what may be left.
const LOOKING: Duration = Duration::from_millis(500);

/// Signals that end a program that does wrong: ILL, TRAP, ABRT, BUS, FPE, SEGV, PIPE, SYS.
const CRASHES: [i32; 8] = [4, 5, 6, 7, 8, 11, 13, 31];

/// Whether the runtime itself was killed, and could say and undo nothing.
fn was_killed(point: Option<&Point>) -> bool {
    point.is_some_and(|point| point.kind == Kind::Kill && point.place.role == "parent")
}

/// Whether the fault is one of the init process, which may come about when the command has done its part.
fn is_of_the_child(point: Option<&Point>) -> bool {
    point.is_some_and(|point| point.place.role != "parent")
}

/// Of a call without a fault.
pub fn succeeds(what: &str, call: Invocation, problems: &mut Problems) -> Output {
    let output = call.output();
    if output.code() != 0 {
        problems.otherwise(format_args!("{what} fails: {} {:?}", output.code(), output.stderr));
    }
    output
}

fn status(setup: &Setup) -> Option<String> {
    let output = setup.container.on_id("state").output();
    let state: serde_json::Value = serde_json::from_str(&output.stdout).ok()?;
    Some(state["status"].as_str()?.to_owned())
}

/// How often the program has begun.
fn begun(setup: &Setup) -> usize {
    let path = setup.container.bundle.rootfs().join("tmp/ran");
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

pub fn begins(setup: &Setup, problems: &mut Problems) {
    if !holds_within(PATIENCE, || begun(setup) > 0) {
        problems.misreported("it was started, and its program has not begun");
    } else if begun(setup) > 1 {
        problems.misreported("its program has begun more than once");
    }
}

/// What is left on the host: as `leftovers::of` finds it, which is too slow for thousands of faults, without mounts of others.
fn remains(setup: &Setup) -> Vec<String> {
    let id = setup.container.id.as_str();
    let mut remains = Vec::new();
    let cgroup = setup.container.cgroup();
    if cgroup.exists() {
        remains.push(format!("cgroup {}", cgroup.display()));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    remains.extend(mounts.lines().filter(|line| has_word(line, id)).map(|line| format!("mount {line}")));
    let root = fs::read_dir(setup.container.root()).into_iter().flatten().flatten();
    remains.extend(root.map(|entry| format!("state {}", entry.path().display())));
    let numbers = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    for process in numbers.filter(|path| path.join("cgroup").exists() && !path.ends_with("self")) {
        // It may end meanwhile. A zombie has no command line.
        let command = fs::read(process.join("cmdline")).unwrap_or_default();
        let cgroup = || fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if !command.is_empty() && (has_word(&command, id) || has_word(&cgroup(), id)) {
            let pid = process.file_name().unwrap().to_string_lossy().into_owned();
            remains.push(format!("process {pid}: {command}"));
        }
    }
    remains
}

fn is_clean_within(limit: Duration, setup: &Setup) -> bool {
    holds_within(limit, || remains(setup).is_empty())
}

/// The runtime ends in an orderly way, and with a reason.
pub fn words(traced: &Traced, point: &Point, problems: &mut Problems) {
    let Traced { code, stderr, .. } = traced;
    if traced.has_hung {
        problems.otherwise("hangs");
    } else if CRASHES.iter().any(|signal| *code == 128 + signal)
        || stderr.contains("panicked")
        || *code == 101
    {
        problems.otherwise("crashes");
    } else if *code != 0 && stderr.trim().is_empty() && !(was_killed(Some(point)) && *code == 137) {
        problems.otherwise("fails without a word");
    }
}

/// Whether anything is left of a container that was not made: then `delete --force` has something to do.
fn look_for_remains(setup: &Setup, point: Option<&Point>, problems: &mut Problems) {
    let limit = if was_killed(point) { LOOKING / 5 } else { LOOKING };
    problems.was_forced = !is_clean_within(limit, setup);
}

/// The same after a command that was to write a pid file.
fn undone(setup: &Setup, point: Option<&Point>, problems: &mut Problems) {
    look_for_remains(setup, point, problems);
    if !was_killed(point) && setup.pid_file.exists() {
        problems.otherwise("a failure leaves the pid file");
    }
}

fn pid_file_is_of(setup: &Setup, pid: i32, problems: &mut Problems) {
    let text = fs::read_to_string(&setup.pid_file).unwrap_or_default();
    if text != pid.to_string() {
        problems.misreported(format_args!("the pid file says {text:?}, and the process is {pid}"));
    }
}

pub fn create(setup: &Setup, traced: &Traced, point: Option<&Point>, problems: &mut Problems) {
    if traced.code != 0 {
        return undone(setup, point, problems);
    }
    match status(setup).as_deref() {
        Some("created") => {
            pid_file_is_of(setup, setup.container.pid(), problems);
            if begun(setup) > 0 {
                problems.misreported("its program has begun before it was started");
            }
            succeeds("start", setup.container.on_id("start"), problems);
            begins(setup, problems);
        }
        Some("stopped") if is_of_the_child(point) => {}
        other => problems.misreported(format_args!("create has succeeded, and its state is {other:?}")),
    }
}

pub fn start(setup: &Setup, traced: &Traced, point: Option<&Point>, problems: &mut Problems) {
    let status = status(setup);
    match (traced.code, status.as_deref()) {
        (_, Some("running")) => begins(setup, problems),
        // The init process alone has failed, after the word to start was given.
        (0, Some("stopped")) if is_of_the_child(point) && setup.container.bundle.spec["hooks"].is_null() => {}
        (0, other) => problems.misreported(format_args!("start has succeeded, and its state is {other:?}")),
        (_, Some("created")) => {
            if begun(setup) > 0 {
                problems.misreported("its program has begun, and its state is created");
            }
            succeeds("start", setup.container.on_id("start"), problems);
            begins(setup, problems);
        }
        (_, Some("stopped")) => problems.was_forced = true,
        // A hook has failed: that is the end of the container.
        (_, None) => look_for_remains(setup, point, problems),
        (_, other) => problems.misreported(format_args!("after start its state is {other:?}")),
    }
}

pub fn run(setup: &Setup, traced: &Traced, point: Option<&Point>, problems: &mut Problems) {
    if traced.code != 0 {
        return look_for_remains(setup, point, problems);
    }
    if !traced.stdout.contains("ran") {
        problems.misreported("run has succeeded, and its program has not run");
    }
    if !is_clean_within(PATIENCE, setup) {
        problems.misreported(format_args!("run has succeeded, and has left {:?}", remains(setup)));
    }
}

pub fn run_detached(setup: &Setup, traced: &Traced, point: Option<&Point>, problems: &mut Problems) {
    if traced.code != 0 {
        return undone(setup, point, problems);
    }
    match status(setup).as_deref() {
        Some("running") => {
            pid_file_is_of(setup, setup.container.pid(), problems);
            begins(setup, problems);
        }
        other => problems.misreported(format_args!("run has succeeded, and its state is {other:?}")),
    }
}

/// Processes in the container's cgroup.
fn processes(setup: &Setup) -> Vec<i32> {
    let list = fs::read_to_string(setup.container.cgroup().join("cgroup.procs")).unwrap_or_default();
    list.lines().filter_map(|line| line.parse().ok()).collect()
}

/// The container must run as before, alone or not, and take another process.
fn goes_on(setup: &Setup, problems: &mut Problems) {
    match status(setup).as_deref() {
        Some("running") => drop(succeeds("exec", setup.container.exec(["true"]), problems)),
        other => problems.otherwise(format_args!("exec has ended the container: {other:?}")),
    }
}

pub fn exec(setup: &Setup, traced: &Traced, _: Option<&Point>, problems: &mut Problems) {
    if traced.code == 0 && !traced.stdout.contains("added") {
        problems.misreported("exec has succeeded, and its program has not run");
    }
    if !holds_within(PATIENCE, || processes(setup).len() == 1) {
        problems.otherwise(format_args!("exec has left {:?}", processes(setup)));
    }
    goes_on(setup, problems);
}

pub fn exec_detached(setup: &Setup, traced: &Traced, point: Option<&Point>, problems: &mut Problems) {
    if traced.code == 0 {
        let text = fs::read_to_string(&setup.pid_file).unwrap_or_default();
        let pid = text.parse().unwrap_or(0);
        let is_there = processes(setup).contains(&pid) && pid != setup.container.pid();
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if !is_there || !command.starts_with("sleep\0") {
            problems.misreported(format_args!("exec has succeeded, and process {text:?} is {command:?}"));
        }
    } else if !was_killed(point) {
        if !holds_within(PATIENCE, || processes(setup).len() == 1) {
            problems.misreported(format_args!("exec has failed, and left {:?}", processes(setup)));
        }
        // That of the create before, or none.
        let text = fs::read_to_string(&setup.pid_file).unwrap_or_default();
        if !text.is_empty() && text != setup.container.pid().to_string() {
            problems.otherwise(format_args!("exec has failed, and left the pid file {text:?}"));
        }
    } else {
        problems.was_forced = processes(setup).len() > 1;
    }
    goes_on(setup, problems);
}

pub fn update(setup: &Setup, traced: &Traced, point: Option<&Point>, problems: &mut Problems) {
    let now =
        || values().into_iter().map(|(file, ..)| setup.container.control_file(file)).collect::<Vec<_>>();
    let old: Vec<_> = values().into_iter().map(|(_, old, _)| old).collect();
    let new: Vec<_> = values().into_iter().map(|(_, _, new)| new).collect();
    if traced.code == 0 {
        if now() != new {
            problems.misreported(format_args!("update has succeeded, and the limits are {:?}", now()));
        }
        return;
    }
    if !was_killed(point) && now() != old && !traced.stderr.contains("put back") {
        problems.misreported(format_args!("update has failed, and the limits are {:?}", now()));
    }
    problems.was_forced = now() != old;
    // Whoever comes next puts right what was interrupted.
    succeeds("update", setup.container.on_id("update"), problems);
    let history = setup.container.on_id("history").args(["--format", "json"]).output();
    let history: serde_json::Value = serde_json::from_str(&history.stdout).unwrap_or_default();
    let is_recorded = history.as_array().is_some_and(|revisions| revisions.len() > 1);
    if now() != if is_recorded { new } else { old } {
        problems.misreported(format_args!("the limits are {:?}, and recorded is {history}", now()));
    }
}

pub fn kill(setup: &Setup, traced: &Traced, _: Option<&Point>, problems: &mut Problems) {
    let is_stopped = || status(setup).as_deref() == Some("stopped");
    if traced.code == 0 {
        if !holds_within(PATIENCE, is_stopped) {
            problems.misreported("kill has succeeded, and the container lives");
        }
        return;
    }
    // One that was interrupted may have killed it, and it takes a moment to end.
    let output = setup.container.on_id("kill").arg("KILL").output();
    if output.code() != 0 && !is_stopped() {
        problems.otherwise(format_args!("the next kill fails: {output:?}"));
    }
}

pub fn pause(setup: &Setup, traced: &Traced, point: Option<&Point>, problems: &mut Problems) {
    let status = status(setup);
    match (traced.code, status.as_deref()) {
        (0, Some("paused")) => {}
        (_, Some("running")) if traced.code != 0 => {}
        (_, Some("paused")) if was_killed(point) => problems.was_forced = true,
        (code, other) => {
            problems.misreported(format_args!("pause ends with {code}, and its state is {other:?}"))
        }
    }
    // One that was interrupted goes on without anybody who waits for it.
    let events = || setup.container.control_file("cgroup.events");
    let is_frozen = if status.as_deref() == Some("paused") { "frozen 1" } else { "frozen 0" };
    if !holds_within(PATIENCE, || events().contains(is_frozen)) {
        problems.misreported(format_args!("its state is {status:?}, and the cgroup's {:?}", events()));
    }
    if status.as_deref() == Some("paused") {
        succeeds("resume", setup.container.on_id("resume"), problems);
    }
    goes_on(setup, problems);
}

pub fn resume(setup: &Setup, traced: &Traced, _: Option<&Point>, problems: &mut Problems) {
    let status = status(setup);
    match (traced.code, status.as_deref()) {
        (_, Some("running")) => {}
        (1.., Some("paused")) => drop(succeeds("resume", setup.container.on_id("resume"), problems)),
        (code, other) => {
            problems.misreported(format_args!("resume ends with {code}, and its state is {other:?}"))
        }
    }
    goes_on(setup, problems);
}

pub fn delete(setup: &Setup, traced: &Traced, _: Option<&Point>, problems: &mut Problems) {
    let is_clean = is_clean_within(if traced.code == 0 { PATIENCE } else { Duration::ZERO }, setup);
    if traced.code == 0 && !is_clean {
        problems.misreported(format_args!("delete has succeeded, and left {:?}", remains(setup)));
    }
    problems.was_forced = !is_clean;
}

/// `delete --force` must remove whatever there is.
pub fn end(setup: &Setup, point: Option<&Point>, problems: &mut Problems) {
    let call = || setup.container.runtime().args(["delete", "--force", &setup.container.id]);
    succeeds("delete --force", call(), problems);
    if !is_clean_within(PATIENCE, setup) {
        problems.leaked(format_args!("{:?}", remains(setup)));
    }
    let ran = fs::read_to_string(&setup.poststop).unwrap_or_default().lines().count();
    if ran > 1 {
        problems.misreported(format_args!("the poststop hook was called {ran} times"));
    }
    if !was_killed(point) && hidden(setup).exists() {
        problems.otherwise("a temporary pid file is left");
    }
    scrub(setup, problems);
}

fn hidden(setup: &Setup) -> PathBuf {
    setup.container.beside(".pid")
}

/// The next container of this name, with the same options; it is what the next fault finds, if it finds any.
pub fn ready(scenario: &Scenario, setup: &Setup, problems: &mut Problems) {
    let before = problems.count();
    (scenario.before)(setup, problems);
    if fs::remove_file(hidden(setup)).is_ok() || problems.count() > before {
        // That was the last fault's, and the next one is to find what it needs.
        let mut second = Problems::default();
        end(setup, None, &mut second);
        (scenario.before)(setup, &mut second);
    }
}

/// Makes room for the next fault, whatever this one has left.
fn scrub(setup: &Setup, problems: &Problems) {
    for line in if problems.list.is_empty() { Vec::new() } else { remains(setup) } {
        let pid = line.strip_prefix("process ").and_then(|rest| rest.split(':').next()?.parse().ok());
        if let Some(pid) = pid {
            let _ = send(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if let Some(path) = line.strip_prefix("cgroup ") {
            holds_within(PATIENCE, || fs::remove_dir(path).is_ok() || !Path::new(path).exists());
        }
        if let Some(path) = line.strip_prefix("state ") {
            let _ = fs::remove_dir_all(path);
        }
    }
    for path in [&setup.pid_file, &setup.poststop, &setup.container.bundle.rootfs().join("tmp/ran")] {
        let _ = fs::remove_file(path);
    }
    while let Some(Ok(_)) = setup.console.as_ref().map(std::os::unix::net::UnixListener::accept) {}
}
