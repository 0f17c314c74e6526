//! The commands into which faults are injected, each with its preconditions and what must hold afterwards.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Problems, checks};
use crate::support::host::has_controller;
use crate::support::injector::{Point, Traced};
use crate::support::{Container, Invocation, Outcome};

/// What a scenario has besides the runtime.
pub struct Setup {
    pub container: Container,
    /// The console socket, if there is one.
    pub console: Option<UnixListener>,
    pub pid_file: PathBuf,
    /// What its poststop hook writes to.
    pub poststop: PathBuf,
}

pub struct Scenario {
    pub name: &'static str,
    pub needs: fn() -> Outcome,
    pub setup: fn() -> Setup,
    /// Brings about what the command finds.
    pub before: fn(&Setup, &mut Problems),
    pub call: fn(&Setup) -> Invocation,
    /// The container's init process is there already and is followed, too.
    pub follows_init: bool,
    /// Whether what the command claims is so.
    pub check: fn(&Setup, &Traced, Option<&Point>, &mut Problems),
}

/// Notes that it has run, as often as it does, and then does nothing for long.
const PROGRAM: &str = "echo ran >>/tmp/ran; echo ran; exec sleep 1000";

/// Ends at once.
const SHORT: &str = "echo ran";

fn setup(program: &str, change: impl FnOnce(Container) -> Container) -> Setup {
    let container = change(Container::with_script(program).forgive());
    let beside = |name: &str| container.beside(name);
    let (pid_file, poststop) = (beside("pid"), beside("poststop"));
    let has_terminal = container.bundle.spec["process"]["terminal"] == true;
    let console = has_terminal.then(|| {
        let listener = UnixListener::bind(beside("console.sock")).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    });
    Setup { container, console, pid_file, poststop }
}

fn plain() -> Setup {
    setup(PROGRAM, |container| container)
}

fn short() -> Setup {
    setup(SHORT, |container| container)
}

/// Hooks of every kind.
fn with_hooks(container: Container) -> Container {
    let poststop = container.beside("poststop");
    container.edit(|spec| {
        let hook = |script: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
        for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
            spec["hooks"][kind] = hook("cat >/dev/null");
        }
        spec["hooks"]["poststop"] = hook(&format!("cat >/dev/null; echo ran >>{}", poststop.display()));
    })
}

fn hooks() -> Setup {
    setup(PROGRAM, with_hooks)
}

/// The root of the user namespace may write into the rootfs.
fn user() -> Setup {
    setup(PROGRAM, |container| {
        let container = container.in_user_namespace();
        fs::set_permissions(container.bundle.rootfs().join("tmp"), fs::Permissions::from_mode(0o1777))
            .unwrap();
        container
    })
}

fn with_profile(container: Container) -> Container {
    container.edit(|spec| {
        let denied = json!([{ "names": ["acct", "swapon"], "action": "SCMP_ACT_ERRNO" }]);
        spec["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": denied });
    })
}

fn seccomp() -> Setup {
    setup(PROGRAM, with_profile)
}

fn terminal() -> Setup {
    setup(PROGRAM, |container| container.edit(|spec| spec["process"]["terminal"] = json!(true)))
}

/// Everything together.
fn all_at_once() -> Setup {
    setup(SHORT, |container| with_profile(with_hooks(container)).in_user_namespace())
}

/// Resources that the update changes.
fn limited() -> Setup {
    setup(PROGRAM, |container| {
        container.edit(|spec| {
            for (key, value) in limits(false).as_object().unwrap() {
                spec["linux"]["resources"][key] = value.clone();
            }
        })
    })
}

fn limits(is_new: bool) -> Value {
    let pick = |old: u64, new: u64| if is_new { new } else { old };
    let mut limits = json!({ "unified": {
        "cgroup.max.depth": pick(3, 7).to_string(), "cgroup.max.descendants": pick(5, 9).to_string()
    } });
    if has_controller("pids") {
        limits["pids"] = json!({ "limit": pick(20, 30) });
    }
    limits
}

/// Of each control file that the update changes, the value before and after.
pub fn values() -> Vec<(&'static str, &'static str, &'static str)> {
    let pids = has_controller("pids").then_some(("pids.max", "20", "30"));
    [("cgroup.max.depth", "3", "7"), ("cgroup.max.descendants", "5", "9")].into_iter().chain(pids).collect()
}

/// A pid file, and a console socket where there is a terminal.
pub fn options(setup: &Setup) -> Vec<String> {
    let mut options = vec!["--pid-file".to_owned(), setup.pid_file.to_str().unwrap().to_owned()];
    if setup.console.is_some() {
        let path = setup.container.beside("console.sock");
        options.extend(["--console-socket".to_owned(), path.to_str().unwrap().to_owned()]);
    }
    options
}

/// Nothing; but one can be made, and removed.
fn nothing(setup: &Setup, problems: &mut Problems) {
    created(setup, problems);
    checks::end(setup, None, problems);
}

fn created(setup: &Setup, problems: &mut Problems) {
    let call = setup.container.create_with(options(setup));
    checks::succeeds("create", call, problems);
}

fn running(setup: &Setup, problems: &mut Problems) {
    let before = problems.count();
    created(setup, problems);
    if problems.count() > before {
        return;
    }
    checks::succeeds("start", setup.container.on_id("start"), problems);
    checks::begins(setup, problems);
}

fn paused(setup: &Setup, problems: &mut Problems) {
    running(setup, problems);
    checks::succeeds("pause", setup.container.on_id("pause"), problems);
}

fn stopped(setup: &Setup, problems: &mut Problems) {
    running(setup, problems);
    checks::succeeds("kill", setup.container.on_id("kill").arg("KILL"), problems);
    setup.container.wait_for("stopped");
}

fn create(setup: &Setup) -> Invocation {
    setup.container.create_with(options(setup))
}

fn start(setup: &Setup) -> Invocation {
    setup.container.on_id("start")
}

fn run(setup: &Setup) -> Invocation {
    setup.container.run_with(["--pid-file", setup.pid_file.to_str().unwrap()])
}

fn run_detached(setup: &Setup) -> Invocation {
    setup.container.run_with(options(setup).into_iter().chain(["--detach".to_owned()]))
}

fn exec(setup: &Setup) -> Invocation {
    setup.container.exec(["sh", "-c", "echo added"])
}

fn exec_detached(setup: &Setup) -> Invocation {
    let mut options = vec!["--detach".to_owned()];
    options.extend(self::options(setup));
    if setup.console.is_some() {
        options.push("--tty".to_owned());
    }
    setup.container.exec_with(options, ["sleep", "1000"])
}

fn update(setup: &Setup) -> Invocation {
    let file = setup.container.beside("resources.json");
    fs::write(&file, limits(true).to_string()).unwrap();
    setup.container.runtime().args(["update", "-r"]).arg(file).arg(&setup.container.id)
}

fn kill(setup: &Setup) -> Invocation {
    setup.container.on_id("kill").arg("KILL")
}

fn pause(setup: &Setup) -> Invocation {
    setup.container.on_id("pause")
}

fn resume(setup: &Setup) -> Invocation {
    setup.container.on_id("resume")
}

fn delete(setup: &Setup) -> Invocation {
    setup.container.on_id("delete")
}

fn delete_by_force(setup: &Setup) -> Invocation {
    setup.container.runtime().args(["delete", "--force", &setup.container.id])
}

macro_rules! scenarios {
    ($($name:ident: $setup:ident, $before:ident, $call:ident, $init:literal, $check:ident;)*) => {
        pub const NAMES: &[&str] = &[$(stringify!($name)),*];

        pub fn scenario(name: &str) -> Scenario {
            let all = [$(Scenario {
                name: stringify!($name), needs: || Ok(()), setup: $setup, before: $before, call: $call, follows_init: $init,
                check: checks::$check,
            }),*];
            all.into_iter().find(|scenario| scenario.name == name).unwrap()
        }
    };
}

scenarios! {
    create: plain, nothing, create, false, create;
    create_with_hooks: hooks, nothing, create, false, create;
    create_in_user_namespace: user, nothing, create, false, create;
    create_with_seccomp: seccomp, nothing, create, false, create;
    create_with_terminal: terminal, nothing, create, false, create;
    start: plain, created, start, true, start;
    start_with_hooks: hooks, created, start, true, start;
    run: short, nothing, run, false, run;
    run_with_everything: all_at_once, nothing, run, false, run;
    run_detached: plain, nothing, run_detached, false, run_detached;
    exec: plain, running, exec, false, exec;
    exec_detached: plain, running, exec_detached, false, exec_detached;
    exec_in_user_namespace: user, running, exec, false, exec;
    exec_with_seccomp: seccomp, running, exec, false, exec;
    exec_with_terminal: terminal, running, exec_detached, false, exec_detached;
    update: limited, running, update, false, update;
    kill: plain, running, kill, false, kill;
    pause: plain, running, pause, false, pause;
    resume: plain, paused, resume, false, resume;
    delete: plain, stopped, delete, false, delete;
    delete_created: plain, created, delete, false, delete;
    delete_by_force: plain, running, delete_by_force, false, delete;
    delete_with_hooks: hooks, stopped, delete, false, delete;
}
