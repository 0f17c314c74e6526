//! `exec`: the process as configured by the container, by options, or by a process.json.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;

use serde_json::{Value, json};

use crate::support::container::NO_OPTIONS;
use crate::support::host::{need_other_than, need_own, need_program};
use crate::support::suite::suite;
use crate::support::{Container, Invocation, Outcome};

suite![
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
    the_oom_score_is_adjusted,
    the_scheduler_and_the_affinity_are_the_processes_own,
    the_affinity_of_the_runtime_is_not_the_processes,
];

pub fn value<'a>(output: &'a str, field: &str) -> &'a str {
    let line = output.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {field} in {output:?}")).trim()
}

fn the_process_is_the_containers_own_with_another_program() -> Outcome {
    need_other_than("crun", "starts in / with the runtime's own limits")?;
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
    Ok(())
}

/// runtime.md § Lifecycle, step 2. runc reads the bundle again.
fn what_is_written_to_the_bundle_later_changes_nothing() -> Outcome {
    need_other_than("runc", "reads the bundle again")?;
    let container = Container::idling();
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

fn options_change_the_process() -> Outcome {
    need_other_than("crun", "has no --additional-gids")?;
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
    Ok(())
}

/// Whatever cannot be read as a whole is refused: part of it would be another user (CVE-2026-30892).
fn a_user_and_its_groups_are_numbers() -> Outcome {
    let container = Container::idling();
    for user in ["1000x", "x", "1000:", ":1000", "1000:x", "1000:1000:1000", "root"] {
        let output = container.exec_with(["--user", user], ["true"]).output();
        assert_ne!(output.code(), 0, "{user}");
    }
    need_other_than("crun", "has no --additional-gids")?;
    assert_ne!(container.exec_with(["--additional-gids", "-5"], ["true"]).output().code(), 0);
    need_other_than("runc", "takes such a number for one that fits")?;
    for user in ["-1", "4294967295", "4294967296"] {
        assert_ne!(container.exec_with(["--user", user], ["true"]).output().code(), 0, "{user}");
    }
    Ok(())
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
    let container = Container::idling();
    let home =
        |user: &str| container.exec_with(["--user", user], ["sh", "-u", "-c", "echo $HOME"]).succeeds();
    assert_eq!(home("0").stdout, "/root\n");
    assert_eq!(home("1000").stdout, "/home\n");
    assert_eq!(home("4321").stdout, "/\n");
}

fn a_missing_working_directory_is_an_error() -> Outcome {
    let container = Container::idling();
    let output = container.exec_with(["--cwd", "/not/there"], ["true"]).fails_with_any_case("no such file");
    assert!(!container.bundle.rootfs().join("not").exists(), "{output:#?}");
    need_other_than("crun", "starts a relative one at /")?;
    let _ = container.exec_with(["--cwd", "tmp"], ["true"]).fails_with("");
    Ok(())
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
pub fn process_file(container: &Container, process: &Value) -> String {
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
    let container = Container::idling();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    // Without a user it is root's.
    File::from(writer).write_all(br#"{"args": ["/bin/echo", "hello"], "cwd": "/"}"#).unwrap();
    let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
    let output = container.exec_with(["-p", &path], NO_OPTIONS).succeeds();
    assert_eq!(output.stdout, "hello\n");
}

fn a_process_json_without_limits_has_the_containers() -> Outcome {
    // runc since 1.5.
    need_own()?;
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
    let container = Container::idling();
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
        "error: process.json: /cwd: path \"tmp\" must be absolute (use \"/\" if unsure)\n"
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
    assert_eq!(says(json!({"cwd": "/", "args": []})), "error: process.json: /args: no program to run\n");
    Ok(())
}

fn a_process_json_may_name_unknown_capabilities() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let process = json!({"cwd": "/", "args": ["/bin/grep", "CapBnd", "/proc/self/status"],
        "capabilities": {"bounding": ["CAP_KILL", "CAP_FLY"]}});
    let file = process_file(&container, &process);
    let output = container.exec_with(["--process", &file], NO_OPTIONS).succeeds();
    assert_eq!(output.stdout, "CapBnd:\t0000000000000020\n");
    assert!(output.stderr.contains("ignoring unknown capabilities: CAP_FLY"), "{output:#?}");
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
    let container = Container::idling();
    let list = |status: &str| value(status, "Cpus_allowed_list").to_owned();
    let all = list(&fs::read_to_string("/proc/1/status").unwrap());
    let words = container.exec(["cat", "/proc/self/status"]).words();
    let output = Invocation::new("taskset").args(["-c", "0"]).args(words).succeeds();
    assert_eq!(list(&output.stdout), all);
    Ok(())
}
