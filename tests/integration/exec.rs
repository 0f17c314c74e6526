//! `exec`: what the new process is, and what becomes of it.

use std::{
    fs,
    io::Write as _,
    os::fd::AsRawFd as _,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::Path,
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    support::{
        Container, Invocation, Outcome,
        bundle::remove_namespace,
        container::NO_OPTIONS,
        host::{need_other_than, need_own, need_program},
        suite::suite,
        wait_until,
    },
    terminal::{ConsoleSocket, receive_descriptor},
};

suite![
    a_program_runs_beside_the_containers_own,
    the_exit_status_is_the_programs,
    a_program_that_cannot_be_started_is_255,
    what_is_wrong_is_said_in_the_words_that_callers_look_for,
    options_end_at_the_containers_name,
    the_process_is_in_all_namespaces_of_the_container,
    a_container_that_shares_namespaces_is_entered_too,
    a_container_without_a_mount_namespace_is_entered_too,
    the_root_is_the_containers_after_no_pivot,
    the_process_is_the_containers_own_with_another_program,
    what_is_written_to_the_bundle_later_changes_nothing,
    a_container_of_an_older_version_takes_the_process_of_its_bundle,
    options_change_the_process,
    a_user_and_its_groups_are_numbers,
    variables_come_after_the_containers_own,
    home_is_that_of_the_user,
    a_missing_working_directory_is_an_error,
    an_added_capability_is_never_inheritable,
    an_added_capability_is_ambient_only_where_it_is_inheritable,
    a_process_json_replaces_the_process,
    a_process_json_may_come_through_a_pipe,
    a_process_json_without_limits_has_the_containers,
    a_wrong_process_json_is_named_with_its_place,
    a_process_json_may_name_unknown_capabilities,
    a_created_container_can_be_entered,
    a_container_from_another_config_can_be_entered,
    a_detached_process_outlives_the_call,
    the_pid_file_holds_the_pid_and_nothing_else,
    a_pid_file_that_cannot_be_written_ends_the_process,
    signals_reach_the_process,
    a_signal_ends_the_process_as_it_would_outside,
    the_end_of_the_container_ends_the_process,
    preserved_descriptors_reach_the_process_and_no_others,
    a_descriptor_of_the_process_goes_to_the_pidfd_socket,
    the_terminal_goes_to_the_console_socket,
    a_terminal_in_the_foreground_is_relayed,
    a_terminal_is_only_given_when_asked_for,
    a_terminal_needs_a_console_socket_when_detached_and_only_then,
    the_terminal_belongs_to_the_user,
    the_oom_score_is_adjusted,
    the_scheduler_and_the_affinity_are_the_processes_own,
    the_affinity_of_the_runtime_is_not_the_processes,
    many_processes_at_once_all_run,
];

/// A container that idles, and is only looked into.
fn idle() -> Container {
    let container = Container::idle();
    container.launch();
    container
}

fn value<'a>(output: &'a str, field: &str) -> &'a str {
    let line = output.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {field} in {output:?}")).trim()
}

fn a_program_runs_beside_the_containers_own() {
    let container = idle();
    let output = container.exec(["echo", "hello"]).succeeds();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("hello\n", ""));
    assert_eq!(container.state()["status"], "running");
}

fn the_exit_status_is_the_programs() {
    let container = idle();
    for (script, code) in [("exit 0", 0), ("exit 42", 42), ("exit 255", 255), ("kill -KILL $$", 137)] {
        let output = container.exec(["sh", "-c", script]).output();
        assert_eq!((output.code(), output.stderr.as_str()), (code, ""), "{script}");
    }
}

fn a_program_that_cannot_be_started_is_255() -> Outcome {
    need_other_than("crun", "has other numbers")?;
    let container = idle().with_file("no-interpreter", 0o755, "#!/mmnnttbb foo bar\n").with_file(
        "not-executable",
        0o644,
        "",
    );
    let codes = [
        container.exec(["no-such-binary"]).output().code(),
        container.exec(["/no/such/binary"]).output().code(),
        container.exec(["/no-interpreter"]).output().code(),
        container.exec(["/not-executable"]).output().code(),
        container.runtime().args(["exec", "no_such_container", "true"]).output().code(),
        container.on_id("exec").output().code(),
        container.exec_with(["--user", "5x"], ["true"]).output().code(),
        container.exec_with(["--process", "/no/such/file"], NO_OPTIONS).output().code(),
        container.exec_with(["--preserve-fds", "30"], ["true"]).output().code(),
    ];
    assert_eq!(codes, [255; 9]);
    Ok(())
}

fn what_is_wrong_is_said_in_the_words_that_callers_look_for() -> Outcome {
    need_own()?;
    let container = idle().with_file("run.sh", 0o755, "#!/mmnnttbb foo bar\n");
    let says = |invocation: Invocation| invocation.fails_with("").stderr;
    assert_eq!(
        says(container.exec(["no-such-binary"])),
        "error: exec \"no-such-binary\": executable file not found in $PATH\n"
    );
    assert_eq!(
        says(container.exec(["/run.sh"])),
        "error: exec /run.sh: no such file or directory (ENOENT)\n"
    );
    assert_eq!(
        says(container.runtime().args(["exec", "nobody", "true"])),
        "error: container \"nobody\" does not exist\n"
    );
    assert_eq!(says(container.on_id("exec")), "error: exec args cannot be empty\n");
    container.kill("KILL");
    container.wait_for("stopped");
    assert_eq!(says(container.exec(["true"])), "error: cannot exec in a stopped container\n");
    Ok(())
}

fn options_end_at_the_containers_name() {
    let container = idle();
    let output = container.exec(["echo", "-t", "--env", "-e", "--", "--cwd=/tmp", "-detach"]).succeeds();
    assert_eq!(output.stdout, "-t --env -e -- --cwd=/tmp -detach\n");
    let output = container.exec_with(["-cwd", "/tmp", "-e=A=b", "--tty=false"], ["sh", "-c", "pwd; echo $A"]);
    assert_eq!(output.succeeds().stdout, "/tmp\nb\n");
}

fn the_process_is_in_all_namespaces_of_the_container() {
    let container = idle();
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];
    let script = "for kind in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$kind; done";
    let inside = container.exec(["sh", "-c", script]).succeeds().stdout;
    let pid = container.pid();
    let of_init =
        kinds.map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display().to_string());
    assert_eq!(inside.lines().collect::<Vec<_>>(), of_init);
    let said = container.exec(["sh", "-c", "cat /proc/self/cgroup; hostname; pwd; ls /"]).succeeds().stdout;
    assert!(said.contains("0::/\ninside\n/\n") && said.contains("proc"), "{said:?}");
}

fn a_container_that_shares_namespaces_is_entered_too() {
    for kind in ["pid", "network", "ipc", "uts", "cgroup"] {
        let container = Container::idle().edit(|spec| {
            remove_namespace(spec, kind);
            if kind == "uts" {
                spec.as_object_mut().unwrap().remove("hostname");
            }
        });
        container.launch();
        let link = match kind {
            "network" => "net",
            kind => kind,
        };
        let inside = container.exec(["readlink", &format!("/proc/self/ns/{link}")]).succeeds().stdout;
        let outside = fs::read_link(format!("/proc/self/ns/{link}")).unwrap();
        assert_eq!(Path::new(inside.trim()), outside, "{kind}");
    }
}

/// Its root is reached by chroot(2) alone.
fn a_container_without_a_mount_namespace_is_entered_too() -> Outcome {
    need_own()?;
    let container = Container::with_args(["sleep", "1000"]).edit(|spec| {
        remove_namespace(spec, "mount");
        spec["mounts"] = json!([]);
        for field in ["maskedPaths", "readonlyPaths"] {
            spec["linux"].as_object_mut().unwrap().remove(field);
        }
    });
    container.launch();
    let container = container.with_file("only-inside", 0o644, "");
    assert_eq!(container.exec(["ls", "/only-inside"]).succeeds().stdout, "/only-inside\n");
    container.exec_with(["--cwd", "/home"], ["sh", "-c", "test $(pwd) = /home"]).succeeds();
    Ok(())
}

fn the_root_is_the_containers_after_no_pivot() {
    let container = Container::idle();
    container.create_with(["--no-pivot"]).succeeds();
    container.start();
    let container = container.with_file("only-inside", 0o644, "");
    let said = container.exec(["sh", "-c", "ls /only-inside; cd /; ls ../../only-inside"]).succeeds().stdout;
    assert_eq!(said, "/only-inside\n../../only-inside\n");
}

fn the_process_is_the_containers_own_with_another_program() {
    let container = Container::idle().edit(|spec| {
        let process = &mut spec["process"];
        process["user"] = json!({"uid": 1000, "gid": 1000, "umask": 0o027, "additionalGids": [2000]});
        process["cwd"] = json!("/home");
        process["env"] = json!(["PATH=/bin", "OWN=1"]);
        process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}]);
    });
    container.launch();
    let script = "id -u; id -g; id -G; pwd; echo $OWN; umask; ulimit -Sn; ulimit -Hn";
    let said = container.exec(["sh", "-c", script]).succeeds().stdout;
    assert_eq!(said, "1000\n1000\n1000 2000\n/home\n1\n0027\n77\n88\n");
    let status = container.exec(["cat", "/proc/self/status"]).succeeds().stdout;
    assert_eq!(value(&status, "NoNewPrivs"), "1");
    // CAP_KILL, CAP_NET_BIND_SERVICE, CAP_AUDIT_WRITE.
    assert_eq!(value(&status, "CapBnd"), "0000000020000420");
}

/// runtime.md § Lifecycle, step 2. runc reads the bundle again.
fn what_is_written_to_the_bundle_later_changes_nothing() -> Outcome {
    need_other_than("runc", "reads the bundle again")?;
    let container = idle();
    let container = container.edit(|spec| spec["process"]["env"] = json!(["PATH=/bin", "LATER=1"]));
    let said = container.exec(["sh", "-c", "echo [$LATER]"]).succeeds().stdout;
    fs::remove_file(container.bundle.path().join("config.json")).unwrap();
    assert_eq!((said.as_str(), container.exec(["true"]).output().code()), ("[]\n", 0));
    Ok(())
}

fn a_container_of_an_older_version_takes_the_process_of_its_bundle() -> Outcome {
    need_own()?;
    let container = Container::idle().edit(|spec| spec["process"]["env"] = json!(["PATH=/bin", "OWN=1"]));
    container.launch();
    fs::remove_file(container.state_directory().join("config.json")).unwrap();
    assert_eq!(container.exec(["sh", "-c", "echo $OWN"]).succeeds().stdout, "1\n");
    Ok(())
}

fn options_change_the_process() {
    let container = Container::idle().edit(|spec| spec["process"]["noNewPrivileges"] = json!(false));
    container.launch();
    let options =
        ["--user", "1000:2000", "-g", "100", "-g", "65534", "--cwd", "/tmp", "-e", "A=b", "--no-new-privs"];
    let script = "id -u; id -g; pwd; echo $A; grep -E 'Groups|NoNewPrivs' /proc/self/status";
    let said = container.exec_with(options, ["sh", "-c", script]).succeeds().stdout;
    assert!(said.starts_with("1000\n2000\n/tmp\nb\n"), "{said:?}");
    assert_eq!((value(&said, "Groups"), value(&said, "NoNewPrivs")), ("100 65534", "1"));
    let status = container.exec(["cat", "/proc/self/status"]).succeeds().stdout;
    assert_eq!((value(&status, "Groups"), value(&status, "NoNewPrivs")), ("", "0"));
}

/// Whatever cannot be read as a whole is refused: part of it would be another user (CVE-2026-30892).
fn a_user_and_its_groups_are_numbers() {
    let container = idle();
    for user in ["1000x", "x", "1000:", ":1000", "1000:x", "1000:1000:1000", "-1", "4294967296"] {
        let output = container.exec_with(["--user", user], ["true"]).output();
        assert_ne!(output.code(), 0, "{user}");
    }
    assert_ne!(container.exec_with(["--additional-gids", "-5"], ["true"]).output().code(), 0);
}

fn variables_come_after_the_containers_own() -> Outcome {
    need_other_than("crun", "keeps both")?;
    let container =
        Container::idle().edit(|spec| spec["process"]["env"] = json!(["PATH=/bin", "A=1", "B=1"]));
    container.launch();
    let said = container.exec_with(["--env", "A=2", "--env", "A=3"], ["env"]).succeeds().stdout;
    let of_a: Vec<_> = said.lines().filter(|line| line.starts_with("A=")).collect();
    assert_eq!(of_a, ["A=3"], "{said:?}");
    assert!(said.contains("B=1\n") && said.contains("HOME=/root\n"), "{said:?}");
    Ok(())
}

fn home_is_that_of_the_user() {
    let container = idle();
    let home =
        |user: &str| container.exec_with(["--user", user], ["sh", "-u", "-c", "echo $HOME"]).succeeds();
    assert_eq!(home("0").stdout, "/root\n");
    assert_eq!(home("1000").stdout, "/home\n");
    assert_eq!(home("4321").stdout, "/\n");
}

fn a_missing_working_directory_is_an_error() {
    let container = idle();
    let output = container.exec_with(["--cwd", "/not/there"], ["true"]).fails_with_any_case("no such file");
    assert!(!container.bundle.rootfs().join("not").exists(), "{output:#?}");
    let _ = container.exec_with(["--cwd", "tmp"], ["true"]).fails_with("");
}

/// CVE-2022-29162, CVE-2022-27650.
fn an_added_capability_is_never_inheritable() {
    let container =
        Container::idle().edit(|spec| drop(spec["process"].as_object_mut().unwrap().remove("capabilities")));
    container.launch();
    let options = ["--cap", "CAP_KILL", "--cap", "CAP_AUDIT_WRITE"];
    let container = match crate::support::host::kind() {
        // It needs the object.
        "runc" => {
            drop(container);
            let container = Container::idle().edit(|spec| spec["process"]["capabilities"] = json!({}));
            container.launch();
            container
        }
        _ => container,
    };
    let status = container.exec_with(options, ["cat", "/proc/self/status"]).succeeds().stdout;
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(value(&status, set), "0000000020000020", "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(value(&status, set), "0000000000000000", "{set}");
    }
}

fn an_added_capability_is_ambient_only_where_it_is_inheritable() -> Outcome {
    need_other_than("crun", "replaces the container's sets")?;
    let container = Container::idle().edit(|spec| {
        spec["process"]["capabilities"] = json!({
            "inheritable": ["CAP_CHOWN", "CAP_KILL"], "permitted": ["CAP_NET_RAW", "CAP_CHOWN"],
            "effective": ["CAP_NET_RAW"], "bounding": ["CAP_NET_RAW", "CAP_CHOWN", "CAP_KILL"],
            "ambient": ["CAP_CHOWN"]
        });
    });
    container.launch();
    let options = ["--cap", "CAP_KILL", "--cap", "CAP_FOWNER"];
    let status = container.exec_with(options, ["cat", "/proc/self/status"]).succeeds().stdout;
    // 0 CHOWN, 3 FOWNER, 5 KILL, 13 NET_RAW.
    let expected = [
        ("CapInh", "0000000000000021"),
        ("CapPrm", "0000000000002029"),
        ("CapBnd", "0000000000002029"),
        ("CapAmb", "0000000000000021"),
    ];
    for (set, bits) in expected {
        assert_eq!(value(&status, set), bits, "{set}");
    }
    Ok(())
}

/// A process.json beside the bundle.
fn process_file(container: &Container, process: &Value) -> String {
    let path = container.beside("process.json");
    fs::write(&path, process.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn a_process_json_replaces_the_process() {
    let container = Container::idle().edit(|spec| {
        spec["process"]["env"] = json!(["PATH=/bin", "OWN=1"]);
        spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    });
    container.launch();
    let process = json!({"terminal": false, "args": ["/bin/env"], "cwd": "/", "env": ["FOO=bar"],
        "user": {"uid": 0, "gid": 0}});
    let file = process_file(&container, &process);
    let said = container.exec_with(["--process", &file], NO_OPTIONS).succeeds().stdout;
    let mut lines: Vec<_> = said.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["FOO=bar", "HOME=/root"]);
    // Options beside it say nothing about the process.
    let options = ["--process", &file, "--env", "A=1", "--user", "5", "--cwd", "/tmp"];
    let said = container.exec_with(options, NO_OPTIONS).succeeds().stdout;
    assert!(!said.contains("A=1"), "{said:?}");
}

/// `--process <(…)`, as shells have it.
fn a_process_json_may_come_through_a_pipe() {
    let container = idle();
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::fcntl_setfd(&reader, rustix::io::FdFlags::empty()).unwrap();
    // Without a user it is root's.
    writer.write_all(br#"{"args": ["/bin/echo", "hello"], "cwd": "/"}"#).unwrap();
    drop(writer);
    let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
    let output = container.exec_with(["-p", &path], NO_OPTIONS).succeeds();
    assert_eq!(output.stdout, "hello\n");
}

fn a_process_json_without_limits_has_the_containers() -> Outcome {
    need_other_than("crun", "sets the limits of the document alone")?;
    let container = Container::idle().edit(|spec| {
        spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}]);
        spec["process"]["user"] = json!({"uid": 0, "gid": 0, "umask": 0o077});
    });
    container.launch();
    let script = "ulimit -Sn; umask; grep CapBnd /proc/self/status";
    let process = json!({"args": ["/bin/sh", "-c", script], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    let file = process_file(&container, &process);
    let said = container.exec_with(["--process", &file], NO_OPTIONS).succeeds().stdout;
    assert_eq!(said, "77\n0077\nCapBnd:\t0000000020000420\n");
    Ok(())
}

fn a_wrong_process_json_is_named_with_its_place() -> Outcome {
    need_own()?;
    let container = idle();
    let says = |process: Value| {
        let file = process_file(&container, &process);
        container.exec_with(["--process", &file], NO_OPTIONS).fails_with("").stderr
    };
    assert_eq!(
        says(json!({"cwd": "/", "args": ["/bin/true", 5]})),
        "error: process.json:1:22: /args/1: invalid type: integer `5`, expected a string\n"
    );
    assert_eq!(
        says(json!({"cwd": "tmp", "args": ["true"]})),
        "error: process.json: /cwd: \"tmp\" is not an absolute path (start it with /; \"/\" is a good \
         choice)\n"
    );
    assert_eq!(
        says(json!({"cwd": "/nowhere", "args": ["/bin/true"]})),
        "error: process.json: /cwd: change to directory \"/nowhere\": no such file or directory \
         (ENOENT)\n"
    );
    assert_eq!(
        says(json!({"cwd": "/", "args": ["/bin/nothing"]})),
        "error: process.json: /args/0: exec \"/bin/nothing\": no such file or directory (ENOENT)\n"
    );
    assert_eq!(
        says(json!({"cwd": "/", "args": []})),
        "error: process.json: /args: there is no program to run\n"
    );
    Ok(())
}

fn a_process_json_may_name_unknown_capabilities() -> Outcome {
    need_own()?;
    let container = idle();
    let process = json!({"cwd": "/", "args": ["/bin/grep", "CapBnd", "/proc/self/status"],
        "capabilities": {"bounding": ["CAP_KILL", "CAP_FLY"]}});
    let file = process_file(&container, &process);
    let output = container.exec_with(["--process", &file], NO_OPTIONS).succeeds();
    assert_eq!(output.stdout, "CapBnd:\t0000000000000020\n");
    assert!(output.stderr.contains("ignoring unknown capabilities: CAP_FLY"), "{output:#?}");
    Ok(())
}

fn a_created_container_can_be_entered() {
    let container = Container::idle();
    container.create();
    assert_eq!(container.exec(["hostname"]).succeeds().stdout, "inside\n");
    assert_eq!(container.state()["status"], "created");
    container.start();
    assert_eq!(container.exec(["hostname"]).succeeds().stdout, "inside\n");
}

fn a_container_from_another_config_can_be_entered() -> Outcome {
    need_other_than("runc", "knows no --config")?;
    let container = Container::idle();
    let config = container.beside("other.json");
    fs::rename(container.bundle.path().join("config.json"), &config).unwrap();
    container.create_with(["--config", config.to_str().unwrap()]).succeeds();
    container.start();
    assert_eq!(container.exec(["hostname"]).succeeds().stdout, "inside\n");
    Ok(())
}

fn pid_in(path: &Path) -> i32 {
    fs::read_to_string(path).unwrap().parse().unwrap()
}

fn is_gone(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

fn a_detached_process_outlives_the_call() {
    let container = idle();
    let pid_file = container.beside("exec.pid");
    let options = ["--detach", "--pid-file", pid_file.to_str().unwrap()];
    let output = container.exec_with(options, ["sh", "-c", "echo started; sleep 1000"]).succeeds();
    output.wait_for_stdout("started");
    let pid = pid_in(&pid_file);
    assert!(!is_gone(pid) && pid != container.pid());
    container.kill("KILL");
    wait_until("the process ends with its container", || is_gone(pid));
}

/// go-runc reads it without taking white space off.
fn the_pid_file_holds_the_pid_and_nothing_else() {
    let container = idle();
    let pid_file = container.beside("exec.pid");
    let options = ["--pid-file", pid_file.to_str().unwrap()];
    container.exec_with(options, ["true"]).succeeds();
    assert!(fs::read_to_string(&pid_file).unwrap().bytes().all(|byte| byte.is_ascii_digit()));
    let relative = container.exec_with(["--pid-file", "here.pid"], ["true"]);
    relative.current_dir(&container.bundle.home).succeeds();
    assert!(container.beside("here.pid").exists());
}

fn a_pid_file_that_cannot_be_written_ends_the_process() {
    let container = idle();
    let options = ["--detach", "--pid-file", "/no/such/directory/pid"];
    container.exec_with(options, ["sleep", "1234"]).fails_with("/no/such/directory");
    wait_until("the process is gone", || {
        !container.exec(["ps", "-o", "args"]).succeeds().stdout.contains("sleep 1234")
    });
}

fn signals_reach_the_process() {
    let container = idle();
    let script = "trap 'echo got it; exit 3' USR1; echo ready; while :; do sleep 0.1; done";
    let running = container.exec(["sh", "-c", script]).spawn();
    running.wait_for_stdout("ready");
    running.signal(Signal::SIGUSR1);
    let output = running.wait();
    assert_eq!((output.code(), output.stdout.as_str()), (3, "ready\ngot it\n"));
    assert_eq!(container.state()["status"], "running");
}

/// It is not process 1 of its namespace, so that nothing protects it.
fn a_signal_ends_the_process_as_it_would_outside() {
    let container = idle();
    let running = container.exec(["sh", "-c", "echo ready; exec sleep 1000"]).spawn();
    running.wait_for_stdout("ready");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().code(), 143);
}

fn the_end_of_the_container_ends_the_process() {
    let container = idle();
    let running = container.exec(["sh", "-c", "echo ready; exec sleep 1000"]).spawn();
    running.wait_for_stdout("ready");
    container.kill("KILL");
    assert_eq!(running.wait().code(), 137);
    container.wait_for("stopped");
    container.delete();
    container.leaves_nothing();
}

fn preserved_descriptors_reach_the_process_and_no_others() {
    let container = idle();
    for name in ["one", "two"] {
        fs::write(container.beside(name), format!("contents of {name}\n")).unwrap();
    }
    let (one, two) = (container.beside("one"), container.beside("two"));
    let prefix = format!("exec 3<{} 4<{} 9<{};", one.display(), two.display(), two.display());
    let script = "cat <&3; cat <&4; ls /proc/self/fd";
    let exec = container.exec_with(["--preserve-fds", "2"], ["sh", "-c", script]).after_shell(&prefix);
    let said = exec.succeeds().stdout;
    assert_eq!(said, "contents of one\ncontents of two\n0\n1\n2\n3\n4\n5\n");
    let exec = container.exec(["ls", "/proc/self/fd"]).after_shell(&prefix);
    assert_eq!(exec.succeeds().stdout, "0\n1\n2\n3\n");
}

fn a_descriptor_of_the_process_goes_to_the_pidfd_socket() -> Outcome {
    need_other_than("crun", "has no --pidfd-socket")?;
    let container = idle();
    let path = container.beside("pidfd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let pid_file = container.beside("exec.pid");
    let options = ["-d", "--pidfd-socket", path.to_str().unwrap(), "--pid-file", pid_file.to_str().unwrap()];
    container.exec_with(options, ["sleep", "1000"]).succeeds();
    let (pidfd, text) = receive_descriptor(&listener);
    assert_eq!(text, "setns");
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).unwrap();
    wait_until("it was that process", || is_gone(pid_in(&pid_file)));
    assert_eq!(container.state()["status"], "running");
    Ok(())
}

fn the_terminal_goes_to_the_console_socket() {
    let container = idle();
    let socket = ConsoleSocket::beside(&container);
    let process = json!({"terminal": true, "consoleSize": {"height": 10, "width": 110}, "cwd": "/",
        "args": ["/bin/sh", "-c", "stty size; tty; ls -l /proc/self/fd/2"], "user": {"uid": 0, "gid": 0}});
    let file = process_file(&container, &process);
    let options = ["--detach", "--console-socket", socket.path.to_str().unwrap(), "--process", &file];
    container.exec_with(options, NO_OPTIONS).succeeds();
    let (terminal, name) = socket.receive();
    let said = crate::terminal::read_all(&terminal);
    assert!(said.starts_with("10 110\n/dev/pts/0\n"), "{said:?}");
    assert!(name.starts_with("/dev/pt"), "{name:?}");
}

fn a_terminal_in_the_foreground_is_relayed() -> Outcome {
    need_program("script")?;
    let container = idle();
    let words =
        container.exec_with(["--tty"], ["sh", "-c", "stty size; read line; echo \"it was: $line\"; exit 7"]);
    let quoted: Vec<_> = words.words().iter().map(|word| format!("'{word}'")).collect();
    let typed = container.beside("typed");
    fs::write(&typed, "hello\n").unwrap();
    let output = Invocation::new("script")
        .args(["--quiet", "--return", "--echo", "never", "--command"])
        .arg(format!("stty rows 33 cols 77; {}", quoted.join(" ")))
        .arg(container.beside("typescript"))
        .stdin(fs::File::open(typed).unwrap())
        .output();
    assert_eq!(output.code(), 7, "{output:#?}");
    assert!(output.stdout.contains("33 77") && output.stdout.contains("it was: hello"), "{output:#?}");
    Ok(())
}

fn a_terminal_is_only_given_when_asked_for() {
    let container = Container::idle().edit(|spec| spec["process"]["terminal"] = json!(true));
    let socket = ConsoleSocket::beside(&container);
    container.create_with(["--console-socket", socket.path.to_str().unwrap()]).succeeds();
    container.start();
    let output = container.exec(["sh", "-c", "test -t 0 || test -t 1 || echo none"]).succeeds();
    assert_eq!(output.stdout, "none\n");
}

fn a_terminal_needs_a_console_socket_when_detached_and_only_then() {
    let container = idle();
    let socket = ConsoleSocket::beside(&container);
    let path = socket.path.to_str().unwrap();
    container.exec_with(["--detach", "--tty"], ["true"]).fails_with("");
    container.exec_with(["--detach", "--console-socket", path], ["true"]).fails_with("");
    container.exec_with(["--tty", "--console-socket", path], ["true"]).fails_with("");
}

fn the_terminal_belongs_to_the_user() -> Outcome {
    // The others want a terminal of the caller as well.
    need_own()?;
    let container = idle();
    let script = "stat -c %u $(tty); echo reopened >/dev/stderr";
    let said = container.exec_with(["--tty", "--user", "1000"], ["sh", "-c", script]).succeeds().stdout;
    assert_eq!(said, "1000\nreopened\n");
    Ok(())
}

fn the_oom_score_is_adjusted() -> Outcome {
    need_other_than("runc", "leaves it as the runtime's")?;
    need_other_than("crun", "leaves it as the runtime's")?;
    let container = Container::idle().edit(|spec| spec["process"]["oomScoreAdj"] = json!(321));
    container.launch();
    assert_eq!(container.exec(["cat", "/proc/self/oom_score_adj"]).succeeds().stdout, "321\n");
    let process = json!({"cwd": "/", "args": ["/bin/cat", "/proc/self/oom_score_adj"], "oomScoreAdj": 654});
    let file = process_file(&container, &process);
    assert_eq!(container.exec_with(["-p", &file], NO_OPTIONS).succeeds().stdout, "654\n");
    Ok(())
}

fn the_scheduler_and_the_affinity_are_the_processes_own() -> Outcome {
    need_other_than("crun", "does not apply the affinity to exec")?;
    let container = Container::idle().edit(|spec| spec["process"]["execCPUAffinity"] = json!({"final": "0"}));
    container.launch();
    let script = "grep Cpus_allowed_list /proc/self/status; awk '{print $41}' /proc/self/stat";
    let said = container.exec(["sh", "-c", script]).succeeds().stdout;
    assert_eq!(said, "Cpus_allowed_list:\t0\n0\n");
    // SCHED_BATCH is 3.
    let process = json!({"cwd": "/", "args": ["/bin/sh", "-c", script], "env": ["PATH=/bin"],
        "scheduler": {"policy": "SCHED_BATCH"}});
    let file = process_file(&container, &process);
    let said = container.exec_with(["-p", &file], NO_OPTIONS).succeeds().stdout;
    assert_eq!(said, "Cpus_allowed_list:\t0\n3\n");
    Ok(())
}

fn the_affinity_of_the_runtime_is_not_the_processes() -> Outcome {
    need_program("taskset")?;
    let container = idle();
    let list = |status: &str| value(status, "Cpus_allowed_list").to_owned();
    let all = list(&fs::read_to_string("/proc/1/status").unwrap());
    let words = container.exec(["cat", "/proc/self/status"]).words();
    let output = Invocation::new("taskset").args(["-c", "0"]).args(words).succeeds();
    assert_eq!(list(&output.stdout), all);
    Ok(())
}

fn many_processes_at_once_all_run() {
    let container = idle();
    let running: Vec<_> = (0..12).map(|n| container.exec(["echo", &n.to_string()]).spawn()).collect();
    for (n, running) in running.into_iter().enumerate() {
        let output = running.wait();
        assert_eq!((output.code(), output.stdout), (0, format!("{n}\n")));
    }
    let mode = fs::metadata(container.state_directory().join("state.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
}
