//! Hooks: config.md § POSIX-platform Hooks, runtime.md § Lifecycle.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::bundle::{bind, join_namespace};
use crate::support::container::NO_OPTIONS;
use crate::support::host::{is_own, kind, need_other_than, need_own, need_program, runtime};
use crate::support::suite::suite;
use crate::support::{Container, Outcome, wait_until};

suite![
    hooks_are_called_in_the_order_of_the_lifecycle,
    each_step_of_the_lifecycle_calls_its_hooks,
    hooks_find_the_state_on_their_standard_input,
    the_pid_is_as_the_hook_sees_it,
    the_first_argument_is_the_name_of_the_program,
    hooks_have_the_environment_that_is_theirs,
    hooks_without_an_environment_have_that_of_whoever_runs_them,
    hooks_start_where_their_path_means_something,
    hooks_have_three_descriptors_and_no_signal_of_the_runtimes,
    hooks_of_the_container_have_its_namespaces_and_others_the_runtimes,
    what_hooks_mount_below_the_rootfs_is_there_and_not_on_the_host,
    start_container_hooks_are_the_user_and_not_the_administrator,
    hooks_work_with_a_console_socket,
    hooks_work_with_a_user_namespace,
    what_hooks_write_does_not_become_the_containers_output,
    a_state_of_a_hundred_kilobytes_arrives_whole,
    a_hook_that_reads_nothing_is_no_failure,
    a_hook_that_says_a_lot_is_no_failure,
    a_hook_that_leaves_a_process_behind_keeps_nobody,
    a_failing_hook_is_the_end_of_run,
    a_failing_hook_is_the_end_of_create,
    a_failing_start_container_hook_is_the_end_of_start,
    a_failing_poststart_hook_is_the_end_of_the_container,
    a_failing_poststop_hook_is_a_warning,
    the_last_words_of_a_hook_are_reported_on_one_line,
    a_hook_killed_by_a_signal_is_reported_by_its_name,
    a_hook_that_cannot_be_executed_is_reported,
    a_hook_that_takes_too_long_is_killed_with_what_it_has_started,
    an_interrupt_while_a_hook_runs_undoes_everything,
    an_interrupt_while_start_waits_ends_the_container,
    poststop_hooks_are_called_after_a_failure,
    poststop_hooks_find_nothing_of_the_container,
    the_state_of_a_container_in_the_making_can_be_asked_for,
    crun_annotations_name_files_for_the_output,
    hooks_are_remembered_when_config_json_is_gone,
    wrong_hooks_are_refused_before_anything_is_made,
];

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A hook that is a shell with this script, on the host as in the container.
fn hook(script: &str) -> Value {
    // Writing to one that has not read its state can be the end of crun, by SIGPIPE.
    let must_read =
        kind() == "crun" && !["cat", "sed", "pid="].iter().any(|reader| script.starts_with(reader));
    let script = format!("{}{script}", if must_read { "cat >/dev/null; " } else { "" });
    json!({ "path": "/bin/sh", "args": ["sh", "-c", script] })
}

/// A hook that ends with an error after it has said something.
fn failing() -> Value {
    hook("echo what is wrong >&2; exit 7")
}

/// The program of these tests: it stays until it is asked to end.
const IDLE: &str = "trap 'exit 0' TERM; sleep 1000 & wait";

/// A container with a directory that hooks and program write to: `{log}` in a script stands for it on the host, and it is /log
/// inside.
fn container(script: &str) -> Container {
    let container = Container::with_script(script);
    let log = container.beside("log");
    fs::create_dir(&log).unwrap();
    fs::set_permissions(&log, PermissionsExt::from_mode(0o1777)).unwrap();
    container.edit(|spec| {
        spec["mounts"].as_array_mut().unwrap().push(bind(&log, "/log", &[]));
        // Hooks of the container write there as its administrator.
        let all = json!(["CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"]);
        spec["process"]["capabilities"] = json!({ "bounding": all, "permitted": all, "effective": all });
    })
}

fn with_hooks(container: Container, hooks: Value) -> Container {
    let log = container.beside("log").display().to_string();
    let text = hooks.to_string().replace("{log}", &log);
    let mut hooks: Value = serde_json::from_str(&text).unwrap();
    // The same script inside, where the directory has another name.
    if let Some(inside) = hooks.get_mut("startContainer") {
        *inside = serde_json::from_str(&inside.to_string().replace(&log, "/log")).unwrap();
    }
    container.edit(|spec| spec["hooks"] = hooks)
}

#[track_caller]
fn logged(container: &Container, name: &str) -> String {
    let path = container.beside("log").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn is_logged(container: &Container, name: &str) -> bool {
    container.beside("log").join(name).exists()
}

/// Every kind of hook twice, each of which writes its name.
fn all_that_write_their_names() -> Value {
    let name = |kind: &str, number: u32| hook(&format!("echo {kind} {number} >>{{log}}/order"));
    KINDS.iter().map(|kind| ((*kind).to_owned(), json!([name(kind, 1), name(kind, 2)]))).collect()
}

fn hooks_are_called_in_the_order_of_the_lifecycle() -> Outcome {
    need_other_than("runc", "before 1.5 calls poststart hooks before the program begins")?;
    need_other_than("crun", "does not wait for it with them")?;
    let container = with_hooks(container("echo program >>/log/order"), all_that_write_their_names());
    container.run_with(NO_OPTIONS).succeeds();
    container.leaves_nothing();
    // The program runs beside the poststart hooks.
    let order = logged(&container, "order");
    let lines: Vec<_> = order.lines().filter(|line| *line != "program").collect();
    let expected: Vec<_> = KINDS.iter().flat_map(|kind| [format!("{kind} 1"), format!("{kind} 2")]).collect();
    assert_eq!(lines, expected);
    let place = |line: &str| order.lines().position(|other| other == line).unwrap();
    assert!(place("program") > place("startContainer 2"), "{order}");
    Ok(())
}

fn each_step_of_the_lifecycle_calls_its_hooks() -> Outcome {
    need_other_than("runc", "before 1.5 calls poststart hooks at the end of create")?;
    let hooks = all_that_write_their_names();
    let container = with_hooks(container(&format!("echo program >>/log/order; {IDLE}")), hooks);
    let count = || fs::read_to_string(container.beside("log/order")).unwrap_or_default().lines().count();
    container.create();
    assert_eq!(count(), 6, "after create: {}", logged(&container, "order"));
    container.start();
    wait_until("the program has begun", || logged(&container, "order").contains("program"));
    assert_eq!(count(), 11, "after start: {}", logged(&container, "order"));
    // Not TERM: process 1 ignores it until its trap is set.
    container.kill("KILL");
    container.wait_for("stopped");
    assert_eq!(count(), 11, "before delete: {}", logged(&container, "order"));
    container.delete();
    assert_eq!(count(), 13, "after delete: {}", logged(&container, "order"));
    container.leaves_nothing();
    Ok(())
}

/// runc's and ours are those of the specification; crun says `created` before there is a created container, and `starting`.
fn hooks_find_the_state_on_their_standard_input() {
    let hooks: serde_json::Map<_, _> =
        KINDS.iter().map(|kind| ((*kind).into(), json!([hook(&format!("cat >{{log}}/{kind}"))]))).collect();
    let container = with_hooks(container(&format!("echo >/log/begun; {IDLE}")), hooks.into())
        .edit(|spec| spec["annotations"] = json!({ "a": "b\"ä" }));
    container.launch();
    wait_until("the program has begun", || is_logged(&container, "begun"));
    let pid = container.pid();
    container.terminate();
    container.wait_for("stopped");
    container.delete();
    let statuses = ["creating", "creating", "creating", "created", "running", "stopped"];
    for (kind_of_hook, status) in KINDS.into_iter().zip(statuses) {
        let text = logged(&container, kind_of_hook);
        let state: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{kind_of_hook}: {text}");
        assert_eq!(state["id"], container.id, "{kind_of_hook}");
        assert_eq!(state["annotations"], json!({ "a": "b\"ä" }), "{kind_of_hook}");
        let expected = match kind_of_hook {
            "createContainer" | "startContainer" => 1,
            "poststop" => 0,
            _ => pid,
        };
        if kind() == "crun" {
            continue;
        }
        let bundle = fs::canonicalize(container.bundle.path()).unwrap();
        assert_eq!(state["bundle"], bundle.to_str().unwrap(), "{kind_of_hook}");
        // runc before 1.5 calls poststart hooks at the end of create.
        assert!(state["status"] == status || kind() == "runc" && kind_of_hook == "poststart", "{text}");
        assert_eq!(state["pid"].as_i64().unwrap_or(0), i64::from(expected), "{kind_of_hook}: {text}");
    }
}

fn the_pid_is_as_the_hook_sees_it() -> Outcome {
    need_other_than("crun", "tells the hooks of the container no pid")?;
    let first = Container::idle();
    first.launch();
    let pid = "sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'";
    let container = with_hooks(
        container(&format!("echo $$ >/log/program; {IDLE}")),
        json!({
            "createRuntime": [hook(&format!("{pid} >{{log}}/runtime"))],
            "createContainer": [hook(&format!("{pid} >{{log}}/create"))],
            "startContainer": [hook(&format!("{pid} >{{log}}/start"))],
        }),
    )
    .edit(|spec| join_namespace(spec, "pid", format!("/proc/{}/ns/pid", first.pid())));
    container.launch();
    // The shell opens the file before it writes to it.
    let has_said = || is_logged(&container, "program") && logged(&container, "program").ends_with('\n');
    wait_until("the program has begun", has_said);
    let inside = logged(&container, "program");
    let inside = inside.trim();
    assert_ne!(inside, "1");
    assert_eq!(logged(&container, "create").trim(), inside);
    assert_eq!(logged(&container, "start").trim(), inside);
    assert_eq!(logged(&container, "runtime").trim(), container.pid().to_string());
    container.kill("KILL");
    container.wait_for("stopped");
    container.delete();
    Ok(())
}

/// Busybox is the program that its first argument names.
fn the_first_argument_is_the_name_of_the_program() {
    let container = container("true");
    let busybox = container.bundle.rootfs().join("bin/busybox");
    let script = "echo \"$0 $1\" >{log}/said";
    let container = with_hooks(
        container,
        json!({ "createRuntime": [
            { "path": busybox, "args": ["sh", "-c", script, "zero", "one two"] },
            // Without arguments, its name is its path.
            { "path": busybox.with_file_name("true") },
            { "path": busybox.with_file_name("true"), "args": [] },
        ] }),
    );
    let container = match kind() {
        // Its array without a single argument is one without a name.
        "crun" => container
            .edit(|spec| drop(spec["hooks"]["createRuntime"].as_array_mut().map(|hooks| hooks.pop()))),
        _ => container,
    };
    container.run_with(NO_OPTIONS).succeeds();
    assert_eq!(logged(&container, "said"), "zero one two\n");
    let container =
        with_hooks(container, json!({ "createRuntime": [{ "path": busybox.with_file_name("false") }] }));
    container.run_with(NO_OPTIONS).fails_with("");
}

fn env_of(script: &str, env: Value) -> Value {
    let mut hook = hook(script);
    hook["env"] = env;
    hook
}

fn hooks_have_the_environment_that_is_theirs() {
    for kind in KINDS {
        let own = env_of("env >{log}/env", json!(["A=1", "B=two words", "PATH=/bin:/usr/bin"]));
        let container = with_hooks(container("true"), json!({ kind: [own] }));
        container.run_with(NO_OPTIONS).env("FROM_OUTSIDE", "1").succeeds();
        let env = logged(&container, "env");
        assert!(env.contains("A=1\n") && env.contains("B=two words\n"), "{kind}: {env}");
        assert!(!env.contains("FROM_OUTSIDE") && !env.contains("TERM="), "{kind}: {env}");
    }
}

/// The specification is silent; runc and crun agree, but that runc has no environment for createContainer hooks. An empty list
/// is an empty environment, and for startContainer hooks, as in runc, none.
fn hooks_without_an_environment_have_that_of_whoever_runs_them() {
    for (name, empty) in KINDS.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        if kind() == "runc" && name == "createContainer" || kind() != "runtime" && empty {
            continue;
        }
        let mut hook = hook("PATH=$PATH:/bin:/usr/bin; env >{log}/env");
        if empty {
            hook["env"] = json!([]);
        }
        let container = with_hooks(container("true"), json!({ name: [hook] })).edit(|spec| {
            spec["process"]["env"] = json!(["PATH=/bin", "OF_THE_PROGRAM=1"]);
        });
        container.run_with(NO_OPTIONS).env("FROM_OUTSIDE", "1").succeeds();
        let env = logged(&container, "env");
        let inside = name == "startContainer";
        assert_eq!(env.contains("FROM_OUTSIDE=1"), !inside && !empty, "{name}, empty: {empty}: {env}");
        assert_eq!(env.contains("OF_THE_PROGRAM=1\n"), inside, "{name}, empty: {empty}: {env}");
        assert_eq!(
            env.contains("HOME=/root\n"),
            inside || !empty && env.contains("HOME=/root\n"),
            "{name}: {env}"
        );
        if inside {
            assert!(env.contains("HOME=/root\n"), "{env}");
        }
    }
}

/// The directories are crun's but for createContainer, where it is runc's: crun has the bundle there, too.
fn hooks_start_where_their_path_means_something() -> Outcome {
    need_other_than("runc", "runs poststart and poststop hooks where its caller is")?;
    for kind_of_hook in KINDS {
        let container = with_hooks(
            container("true"),
            json!({ kind_of_hook: [hook("pwd >{log}/pwd; umask >{log}/umask")] }),
        )
        .edit(|spec| spec["process"]["cwd"] = json!("/tmp"));
        container.run_with(NO_OPTIONS).succeeds();
        let bundle = fs::canonicalize(container.bundle.path()).unwrap();
        let expected = match kind_of_hook {
            "createContainer" if is_own() => bundle.join("rootfs"),
            "startContainer" => PathBuf::from("/tmp"),
            _ => bundle,
        };
        assert_eq!(Path::new(logged(&container, "pwd").trim()), expected, "{kind_of_hook}");
        if is_own() {
            assert_eq!(logged(&container, "umask").trim(), "0022", "{kind_of_hook}");
        }
    }
    Ok(())
}

fn hooks_have_three_descriptors_and_no_signal_of_the_runtimes() -> Outcome {
    need_other_than("runc", "hands descriptors on to startContainer hooks")?;
    for kind in KINDS {
        let signals = "grep -E 'Sig(Ign|Blk)' /proc/self/status";
        let script = format!("cd /proc/self/fd && echo * >{{log}}/fds; {signals} >{{log}}/signals");
        let program = format!("{signals} >/log/program");
        let container = with_hooks(container(&program), json!({ kind: [hook(&script)] }));
        let file = container.beside("file");
        fs::write(&file, "").unwrap();
        container
            .run_with(["--preserve-fds", "1"])
            .after_shell(&format!("trap '' USR1 PIPE; exec 3<{}; exec 9<{0};", file.display()))
            .succeeds();
        let descriptors = logged(&container, "fds");
        // The shell has the list open while it reads it.
        let open: Vec<_> =
            descriptors.split_whitespace().filter(|fd| fd.parse::<u32>().is_ok_and(|fd| fd < 10)).collect();
        assert!(open == ["0", "1", "2"] || open == ["0", "1", "2", "3"], "{kind}: {descriptors}");
        let signals = logged(&container, "signals");
        if kind == "startContainer" {
            // The shell of the image ignores what it likes.
            assert_eq!(signals, logged(&container, "program"));
        } else if is_own() {
            // Both peers hand on what their caller ignores.
            let none = "SigBlk:0000000000000000SigIgn:0000000000000000";
            assert_eq!(signals.replace(char::is_whitespace, ""), none, "{kind}");
        }
    }
    Ok(())
}

fn hooks_of_the_container_have_its_namespaces_and_others_the_runtimes() {
    for kind in KINDS {
        let look = "for ns in net uts ipc mnt pid; do readlink /proc/self/ns/$ns; done";
        let container = with_hooks(
            container(&format!("{{ {look}; }} >/log/program")),
            json!({ kind: [hook(&format!("{{ {look}; }} >{{log}}/hook"))] }),
        );
        container.run_with(NO_OPTIONS).succeeds();
        let own: String = ["net", "uts", "ipc", "mnt", "pid"]
            .iter()
            .map(|ns| {
                fs::read_link(format!("/proc/self/ns/{ns}")).unwrap().to_str().unwrap().to_owned() + "\n"
            })
            .collect();
        let expected = match kind {
            "createContainer" | "startContainer" => logged(&container, "program"),
            _ => own,
        };
        let mut hook = logged(&container, "hook");
        if kind == "createContainer" {
            // /proc is the host's there, in which `self` is a process of the container as the host sees it; the same namespaces.
            assert_eq!(hook.lines().count(), 5, "{hook}");
        }
        if hook.lines().count() != 5 {
            hook.push_str("(not all could be read)");
        }
        assert_eq!(hook, expected, "{kind}");
    }
}

fn what_hooks_mount_below_the_rootfs_is_there_and_not_on_the_host() -> Outcome {
    need_program("nsenter")?;
    let container = container("cat /var/from-create /home/from-runtime; mount | grep -c from-hook");
    let rootfs = container.bundle.rootfs().display().to_string();
    let mount = |at: &str, name: &str| {
        format!("mount -t tmpfs from-hook {rootfs}/{at} && echo {name} >{rootfs}/{at}/{name}")
    };
    let enter = format!(
        "pid=$(tr -d ' \\n' | sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); nsenter -m -t $pid sh -c '{}'",
        mount("home", "from-runtime")
    );
    let container = with_hooks(
        container,
        json!({ "createRuntime": [hook(&enter)], "createContainer": [hook(&mount("var", "from-create"))] }),
    );
    assert_eq!(container.says(), "from-create\nfrom-runtime\n2");
    assert!(!container.bundle.rootfs().join("var/from-create").exists());
    container.leaves_nothing();
    Ok(())
}

fn start_container_hooks_are_the_user_and_not_the_administrator() {
    let look = "id -u; grep -E 'CapEff|NoNewPrivs' /proc/self/status";
    let container = with_hooks(
        container(&format!("{{ {look}; }} >/log/program")),
        json!({
            "createContainer": [hook("id -u >{log}/create")],
            "startContainer": [hook(&format!("{{ {look}; }} >{{log}}/start"))],
        }),
    )
    .edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    container.run_with(NO_OPTIONS).succeeds();
    assert_eq!(logged(&container, "create"), "0\n");
    assert_eq!(logged(&container, "start"), logged(&container, "program"));
    assert!(logged(&container, "start").starts_with("1000\n"));
    container.leaves_nothing();
}

fn hooks_work_with_a_console_socket() {
    let container = with_hooks(container("echo program; exit 0"), all_that_write_their_names())
        .edit(|spec| spec["process"]["terminal"] = json!(true));
    let path = container.beside("console.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    container.create_with(["--console-socket", path.to_str().unwrap()]).succeeds();
    container.start();
    container.wait_for("stopped");
    container.delete();
    assert_eq!(logged(&container, "order").lines().count(), 12);
    drop(listener);
    container.leaves_nothing();
}

/// Those of the container are its root, who is an ordinary user of the host.
fn hooks_work_with_a_user_namespace() -> Outcome {
    need_other_than("runc", "before 1.5 calls poststart hooks before the program begins")?;
    need_other_than("crun", "does not wait for it with them")?;
    let looks: serde_json::Map<_, _> = KINDS
        .iter()
        .map(|kind| {
            let look = format!("echo {kind} $(id -u) $(readlink /proc/self/ns/user) >>{{log}}/order");
            ((*kind).into(), json!([hook(&look)]))
        })
        .collect();
    let container = container("readlink /proc/self/ns/user >/log/program");
    let log = container.beside("log");
    // Whoever is in a user namespace could not add to somebody else's file in a directory with the sticky bit.
    fs::set_permissions(&log, PermissionsExt::from_mode(0o777)).unwrap();
    fs::write(log.join("order"), "").unwrap();
    fs::set_permissions(log.join("order"), PermissionsExt::from_mode(0o666)).unwrap();
    let container = with_hooks(container, looks.into()).in_user_namespace();
    container.run_with(NO_OPTIONS).succeeds();
    container.leaves_nothing();
    let inside = logged(&container, "program");
    let outside = fs::read_link("/proc/self/ns/user").unwrap();
    let expected: String = KINDS
        .iter()
        .map(|kind| match *kind {
            "createContainer" | "startContainer" => format!("{kind} 0 {inside}"),
            _ => format!("{kind} 0 {}\n", outside.display()),
        })
        .collect();
    assert_eq!(logged(&container, "order"), expected);
    Ok(())
}

fn what_hooks_write_does_not_become_the_containers_output() {
    let hooks: serde_json::Map<_, _> = KINDS
        .iter()
        .map(|kind| ((*kind).into(), json!([hook("echo to stdout; echo to stderr >&2")])))
        .collect();
    let container = with_hooks(container("echo program"), hooks.into());
    let output = container.run_with(NO_OPTIONS).succeeds();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("program\n", ""));
}

/// More than a pipe holds.
fn a_state_of_a_hundred_kilobytes_arrives_whole() -> Outcome {
    need_other_than("crun", "writes the state once, as far as a pipe holds it")?;
    let long = "x".repeat(100 << 10);
    for kind in KINDS {
        let container = with_hooks(container("true"), json!({ kind: [hook("cat >{log}/state")] }))
            .edit(|spec| spec["annotations"] = json!({ "long": long }));
        container.run_with(NO_OPTIONS).succeeds();
        let text = logged(&container, "state");
        let state: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert!(state["annotations"]["long"] == long, "{kind}");
    }
    Ok(())
}

fn a_hook_that_reads_nothing_is_no_failure() -> Outcome {
    need_other_than("runc", "takes a state that is not read for a failure")?;
    need_other_than("crun", "waits for a hook that does not read the state")?;
    for kind in KINDS {
        let hooks = json!({ kind: [hook("exec <&-; sleep 0.05"), hook("sleep 0.05"), hook("exit 0")] });
        let container = with_hooks(container("true"), hooks)
            .edit(|spec| spec["annotations"] = json!({ "long": "x".repeat(100 << 10) }));
        container.run_with(NO_OPTIONS).succeeds();
        container.leaves_nothing();
    }
    Ok(())
}

fn a_hook_that_says_a_lot_is_no_failure() {
    for kind in KINDS {
        let many = hook("i=0; while [ $i -lt 20000 ]; do echo a line of text; i=$((i+1)); done");
        let container = with_hooks(container("true"), json!({ kind: [many] }));
        container.run_with(NO_OPTIONS).succeeds();
    }
}

/// A process that is not the container's and holds what its hook had for output.
fn a_hook_that_leaves_a_process_behind_keeps_nobody() -> Outcome {
    need_other_than("runc", "waits for it")?;
    need_other_than("crun", "waits in run for whatever it has adopted")?;
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        let container =
            with_hooks(container("true"), json!({ kind: [hook("sleep 1000 & echo $! >{log}/pid")] }));
        container.run_with(NO_OPTIONS).succeeds();
        let pid = logged(&container, "pid").trim().parse().unwrap();
        // Without a pid namespace of the hook's own it has outlived the container.
        if kind != "createContainer" {
            signal::kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
        container.leaves_nothing();
    }
    Ok(())
}

#[track_caller]
fn says_what_failed(stderr: &str, name: &str) {
    if kind() == "crun" {
        return;
    }
    for text in [format!("error running {name} hook #1:"), "exit status 7".into(), "what is wrong".into()] {
        assert!(stderr.contains(&text), "{name}: {text:?} is not in {stderr:?}");
    }
    if is_own() {
        assert_eq!(
            stderr.lines().last(),
            Some(&*format!(
                "error: config.json: /hooks/{name}/1: error running {name} hook #1: \"/bin/sh\": exit status 7, \
                 output: \"what is wrong\""
            ))
        );
    }
}

fn a_failing_hook_is_the_end_of_run() {
    for name in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        let hooks = json!({ name: [hook("true"), failing(), hook("echo >{log}/third")] });
        let container = with_hooks(container("echo >/log/program; sleep 1000"), hooks);
        let output = container.run_with(NO_OPTIONS).output();
        assert_ne!(output.code(), 0, "{name}");
        says_what_failed(&output.stderr, name);
        assert!(!is_logged(&container, "third"), "{name}");
        assert!(name == "poststart" || !is_logged(&container, "program"), "{name}");
        container.leaves_nothing();
    }
}

fn a_failing_hook_is_the_end_of_create() {
    for name in ["prestart", "createRuntime", "createContainer"] {
        let container = with_hooks(container(IDLE), json!({ name: [hook("true"), failing()] }));
        let output = container.create_with(NO_OPTIONS).output();
        assert_ne!(output.code(), 0, "{name}");
        says_what_failed(&output.stderr, name);
        container.leaves_nothing();
        container.on_id("state").fails_with("");
    }
}

/// runtime.md § Lifecycle, step 7: an error, and on with step 12. runc and crun say nothing of it at `start`.
fn a_failing_start_container_hook_is_the_end_of_start() {
    let container = with_hooks(
        container("echo >/log/program"),
        json!({ "startContainer": [hook("true"), failing()], "poststop": [hook("echo >{log}/poststop")] }),
    );
    let created = container.create();
    let started = container.on_id("start").output();
    if is_own() {
        assert_ne!(started.code(), 0);
        says_what_failed(&started.stderr, "startContainer");
        container.leaves_nothing();
        assert!(is_logged(&container, "poststop"));
        assert_eq!(
            created.stderr_now(),
            "config.json: /hooks/startContainer/1: error running startContainer hook #1: \"/bin/sh\": exit status 7\n\
             what is wrong\n"
        );
    } else {
        container.wait_for("stopped");
        container.delete();
    }
    assert!(!is_logged(&container, "program"));
}

/// runtime.md § Lifecycle, step 9. runc leaves the container to `delete`.
fn a_failing_poststart_hook_is_the_end_of_the_container() -> Outcome {
    need_other_than("runc", "before 1.5 calls poststart hooks at the end of create")?;
    let container = with_hooks(
        container("sleep 1000"),
        json!({ "poststart": [hook("true"), failing()], "poststop": [hook("echo >{log}/poststop")] }),
    );
    container.create();
    let output = container.on_id("start").output();
    assert_ne!(output.code(), 0);
    says_what_failed(&output.stderr, "poststart");
    container.leaves_nothing();
    assert!(is_logged(&container, "poststop") || kind() == "crun");
    Ok(())
}

/// runtime.md § Lifecycle, step 13; runc takes it for an error in `delete`.
fn a_failing_poststop_hook_is_a_warning() -> Outcome {
    let hooks = json!({ "poststop": [hook("echo what is wrong; exit 7"), hook("echo >{log}/second")] });
    let container = with_hooks(container("true"), hooks);
    let output = container.run_with(NO_OPTIONS).output();
    assert_eq!(output.code(), 0, "{output:#?}");
    container.leaves_nothing();
    need_other_than("runc", "stops at the first that fails")?;
    assert!(is_logged(&container, "second"));
    fs::remove_file(container.beside("log/second")).unwrap();
    container.launch();
    container.wait_for("stopped");
    let output = container.delete();
    assert!(is_logged(&container, "second"));
    container.leaves_nothing();
    need_own()?;
    let warning = "level=warning msg=\"config.json: /hooks/poststop/0: error running poststop hook #0: \
                   \\\"/bin/sh\\\": exit status 7, output: \\\"what is wrong\\\"\"";
    assert!(output.stderr.contains(warning), "{output:#?}");
    Ok(())
}

fn the_last_words_of_a_hook_are_reported_on_one_line() -> Outcome {
    need_own()?;
    let script =
        "i=0; while [ $i -lt 9000 ]; do echo number $i; i=$((i+1)); done; printf 'a\\033[2Jb\\n'; exit 1";
    for name in ["prestart", "createContainer", "startContainer", "poststart"] {
        let container = with_hooks(container("sleep 1000"), json!({ name: [hook(script)] }));
        let output = container.run_with(NO_OPTIONS).fails_with("number 8999\\na\\u{1b}[2Jb\"\n");
        assert_eq!(output.stderr.lines().count(), 1, "{output:#?}");
        assert!((4096..5000).contains(&output.stderr.len()), "{} bytes", output.stderr.len());
        container.leaves_nothing();
    }
    Ok(())
}

fn a_hook_killed_by_a_signal_is_reported_by_its_name() -> Outcome {
    need_own()?;
    for name in ["createRuntime", "createContainer", "startContainer"] {
        let container = with_hooks(container("true"), json!({ name: [hook("kill -TERM $$")] }));
        container.run_fails_with(&format!("error running {name} hook #0: \"/bin/sh\": killed by SIGTERM\n"));
    }
    Ok(())
}

fn a_hook_that_cannot_be_executed_is_reported() {
    for name in ["prestart", "createContainer", "startContainer", "poststart"] {
        let missing = json!({ "path": "/not/there" });
        let container = with_hooks(container("sleep 1000"), json!({ name: [missing] }));
        let output = container.run_with(NO_OPTIONS).output();
        assert_ne!(output.code(), 0, "{name}");
        container.leaves_nothing();
        if is_own() {
            let text = format!(
                "error: config.json: /hooks/{name}/0: error running {name} hook #0: \"/not/there\": exec: \
                 no such file or directory (ENOENT)\n"
            );
            assert_eq!(output.stderr, text);
        }
    }
}

fn a_hook_that_takes_too_long_is_killed_with_what_it_has_started() -> Outcome {
    need_own()?;
    for name in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        let container = container("sleep 1000");
        let mut hook = hook("echo begun; sleep 1000 & sleep 1000");
        // By which what remains is found.
        hook["env"] = json!([format!("NAME={}", container.id), "PATH=/bin:/usr/bin"]);
        hook["timeout"] = json!(1);
        let container = with_hooks(container, json!({ name: [hook] }));
        let output = container.run_with(NO_OPTIONS).output();
        assert_eq!(output.code(), 1, "{output:#?}");
        let text = format!(
            "error running {name} hook #0: \"/bin/sh\": timed out and was killed, output: \"begun\"\n"
        );
        assert!(output.stderr.ends_with(&text), "{output:#?}");
        container.leaves_nothing();
    }
    Ok(())
}

fn an_interrupt_while_a_hook_runs_undoes_everything() -> Outcome {
    need_own()?;
    for name in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        let container = container("sleep 1000");
        let mut waits = hook("echo >{log}/begun; sleep 1000");
        waits["env"] = json!([format!("NAME={}", container.id), "PATH=/bin:/usr/bin"]);
        let hooks = json!({ name: [waits], "poststop": [hook("echo >{log}/poststop")] });
        let container = with_hooks(container, hooks);
        let running = container.spawn();
        wait_until("the hook has begun", || is_logged(&container, "begun"));
        running.signal(Signal::SIGTERM);
        let output = running.wait();
        assert_eq!(output.code(), 1, "{name}: {output:#?}");
        assert!(output.stderr.contains("interrupted by SIGTERM"), "{name}: {output:#?}");
        assert!(is_logged(&container, "poststop"), "{name}");
        container.leaves_nothing();
    }
    Ok(())
}

fn an_interrupt_while_start_waits_ends_the_container() -> Outcome {
    need_own()?;
    for name in ["startContainer", "poststart"] {
        let container = container("sleep 1000");
        let mut waits = hook("echo >{log}/begun; sleep 1000");
        waits["env"] = json!([format!("NAME={}", container.id), "PATH=/bin:/usr/bin"]);
        let container = with_hooks(container, json!({ name: [waits] }));
        container.create();
        let starting = container.on_id("start").spawn();
        wait_until("the hook has begun", || is_logged(&container, "begun"));
        starting.signal(Signal::SIGINT);
        let output = starting.wait();
        assert_eq!(output.code(), 1, "{name}: {output:#?}");
        assert!(output.stderr.contains("interrupted by SIGINT"), "{name}: {output:#?}");
        container.leaves_nothing();
    }
    Ok(())
}

/// runtime.md § Lifecycle, steps 3 to 5: on with steps 12 and 13.
fn poststop_hooks_are_called_after_a_failure() -> Outcome {
    need_other_than("crun", "calls none")?;
    for name in ["prestart", "createRuntime", "createContainer"] {
        let hooks = json!({
            name: [failing()],
            "poststop": [hook("cat >{log}/poststop; echo what else is wrong; exit 1")],
        });
        let container = with_hooks(container("true"), hooks);
        let log = container.beside("runtime.log");
        let output = container
            .runtime()
            .args(["--log", log.to_str().unwrap(), "--log-format", "json", "create", "--bundle"])
            .args([container.bundle.path().to_str().unwrap(), &container.id])
            .output();
        assert_eq!(output.code(), 1);
        container.leaves_nothing();
        let state: Value = serde_json::from_str(&logged(&container, "poststop")).unwrap();
        assert_eq!(state["status"], "stopped", "{name}");
        if is_own() {
            // One record, as Podman wants it; the warning is beside it.
            let record: Value = serde_json::from_str(&fs::read_to_string(log).unwrap()).unwrap();
            assert_eq!(record["pointer"], format!("/hooks/{name}/0"));
            assert!(output.stderr.contains("what else is wrong"), "{output:#?}");
        }
    }
    Ok(())
}

fn poststop_hooks_find_nothing_of_the_container() -> Outcome {
    need_other_than("crun", "removes its directory after them")?;
    let container = container("true");
    let look = format!(
        "for path in {} {}; do if test -e $path; then echo $path; fi; done >{{log}}/found",
        container.state_directory().display(),
        container.cgroup().display()
    );
    let container = with_hooks(container, json!({ "poststop": [hook(&look)] }));
    container.run_with(NO_OPTIONS).succeeds();
    assert_eq!(logged(&container, "found"), "");
    container.launch();
    container.wait_for("stopped");
    container.delete();
    assert_eq!(logged(&container, "found"), "");
    Ok(())
}

/// libnetwork and others ask the runtime; the peers have no state yet.
fn the_state_of_a_container_in_the_making_can_be_asked_for() -> Outcome {
    need_own()?;
    let container = container(IDLE);
    let call = |command: &str| {
        format!("{} --root {} {command} {}", runtime().display(), container.root().display(), container.id)
    };
    let ask = hook(&format!("{} >{{log}}/state; {} 2>{{log}}/start; true", call("state"), call("start")));
    let container = with_hooks(container, json!({ "createRuntime": [ask] }));
    container.create();
    let state: Value = serde_json::from_str(&logged(&container, "state")).unwrap();
    assert_eq!(state["status"], "creating");
    assert_eq!(state["pid"], container.pid());
    assert_eq!(logged(&container, "start"), "error: cannot start a container in the creating state\n");
    assert_eq!(container.state()["status"], "created");
    Ok(())
}

fn crun_annotations_name_files_for_the_output() -> Outcome {
    need_other_than("runc", "does not know them")?;
    for kind in KINDS {
        let container = with_hooks(container("true"), json!({ kind: [hook("echo out; echo err >&2")] }));
        let (out, err) = (container.beside("out"), container.beside("err"));
        let container = container.edit(|spec| {
            spec["annotations"] = json!({ "run.oci.hooks.stdout": out, "run.oci.hooks.stderr": err });
        });
        fs::write(&out, "before\n").unwrap();
        container.run_with(NO_OPTIONS).succeeds();
        assert_eq!(fs::read_to_string(out).unwrap(), "before\nout\n", "{kind}");
        assert_eq!(fs::read_to_string(err).unwrap(), "err\n", "{kind}");
    }
    Ok(())
}

fn hooks_are_remembered_when_config_json_is_gone() {
    let container = with_hooks(container("true"), all_that_write_their_names());
    container.create();
    fs::remove_file(container.bundle.path().join("config.json")).unwrap();
    container.start();
    container.wait_for("stopped");
    container.delete();
    assert_eq!(logged(&container, "order").lines().count(), 12);
}

fn wrong_hooks_are_refused_before_anything_is_made() -> Outcome {
    need_own()?;
    let wrong = [
        (
            json!({ "poststop": [{ "path": "true" }] }),
            "/hooks/poststop/0/path: path \"true\" must be absolute",
        ),
        (
            json!({ "prestart": [{ "path": "/bin/true", "timeout": -1 }] }),
            "/hooks/prestart/0/timeout: timeout -1 must be greater than zero",
        ),
    ];
    for (hooks, text) in wrong {
        let mut hooks = hooks;
        hooks["createRuntime"] = json!([hook("echo >{log}/ran")]);
        let container = with_hooks(container("true"), hooks);
        container.run_fails_with(text);
        assert!(!is_logged(&container, "ran"));
    }
    Ok(())
}
