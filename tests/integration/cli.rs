//! Global options, `list`, `spec`, `--version`, `--help`, logs.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use serde_json::Value;

use crate::support::host::{kind, need_other_than, need_own, patience, runtime};
use crate::support::suite::suite;
use crate::support::{Container, Invocation, Outcome, workspace};

suite![
    version_names_the_program_first,
    version_of_our_own_names_commit_and_spec,
    help_ends_well,
    help_of_each_command_ends_well,
    an_unknown_command_fails_and_is_named,
    an_unknown_option_fails_and_is_named,
    a_usage_error_is_told_though_its_help_cannot_be_printed,
    no_command_at_all_shows_the_help,
    spec_writes_a_config_that_runs,
    spec_refuses_to_overwrite,
    spec_takes_a_bundle,
    spec_indents_by_tabs,
    list_shows_a_table,
    list_prints_json,
    list_quietly_prints_ids,
    list_of_nothing_is_null_in_json,
    list_of_a_missing_root_is_an_error,
    list_refuses_an_unknown_format,
    list_survives_a_damaged_entry,
    the_log_gets_one_json_object_per_failure,
    the_log_is_appended_to,
    the_log_in_text_names_level_and_message,
    a_log_format_that_is_unknown_is_refused,
    the_log_may_be_kept_by_systemds_journal,
    the_log_may_be_kept_by_syslog,
    a_daemon_that_does_not_keep_the_log_is_named,
    the_log_level_decides_about_warnings,
    without_a_log_the_error_is_on_stderr_once,
    debug_says_more,
    global_options_take_an_equals_sign,
    the_root_is_made_when_missing,
    the_root_directory_of_the_host_is_no_container_root,
    systemd_cgroup_is_accepted_and_says_it_is_not_there,
    rootless_option_is_accepted,
    the_cgroup_manager_option_of_crun_is_accepted,
    a_usage_error_is_one_record_of_the_log,
    long_options_take_one_dash,
    global_options_may_stand_behind_the_command,
    rootless_takes_gos_words,
];

fn version_names_the_program_first() {
    let output = Invocation::of_the_runtime().arg("--version").succeeds();
    let first = output.stdout.lines().next().unwrap();
    let words: Vec<_> = first.split_whitespace().collect();
    assert_eq!((words[0], words[1], words.len()), (kind(), "version", 3), "{first:?}");
    assert_eq!(output.stderr, "");
}

/// dockerd splits lines at `commit:`; go-runc at `spec:`.
fn version_of_our_own_names_commit_and_spec() -> Outcome {
    need_own()?;
    let long = Invocation::of_the_runtime().arg("--version").succeeds().stdout;
    assert!(long.lines().any(|line| line.starts_with("commit: ")), "{long:?}");
    assert!(long.lines().any(|line| line.starts_with("spec: 1.")), "{long:?}");
    assert_eq!(Invocation::of_the_runtime().arg("-v").succeeds().stdout, long);
    Ok(())
}

fn help_ends_well() {
    for option in ["--help", "-h", "help"] {
        if kind() == "crun" && option != "--help" {
            continue;
        }
        let output = Invocation::of_the_runtime().arg(option).succeeds();
        for command in ["create", "start", "run", "state", "kill", "delete", "list", "spec"] {
            assert!(output.stdout.contains(command), "{command} is not in {}", output.stdout);
        }
    }
}

fn help_of_each_command_ends_well() {
    for command in ["create", "start", "run", "state", "kill", "delete", "list", "spec"] {
        let output = Invocation::of_the_runtime().args([command, "--help"]).succeeds();
        assert!(output.stdout.to_lowercase().contains("usage"), "{}", output.stdout);
        assert_eq!(output.stderr, "");
    }
}

fn an_unknown_command_fails_and_is_named() {
    for words in [&["frobnicate"][..], &["frobnicate", "-h"], &["help", "frobnicate"]] {
        let output = Invocation::of_the_runtime().args(words).output();
        assert_ne!(output.code(), 0, "{output:#?}");
        if kind() != "crun" {
            assert!(output.stderr.contains("No help topic for 'frobnicate'"), "{output:#?}");
        }
    }
}

fn an_unknown_option_fails_and_is_named() {
    let output = Container::new().command("run").args(["--frobnicate", "x"]).output();
    assert_ne!(output.code(), 0);
    assert!(format!("{}{}", output.stdout, output.stderr).contains("frobnicate"), "{output:#?}");
}

fn a_usage_error_is_told_though_its_help_cannot_be_printed() -> Outcome {
    need_own()?;
    let call = Invocation::of_the_runtime().args(["state", "--frob"]).after_shell("exec >/dev/full;");
    let output = call.fails_with("flag provided but not defined: --frob");
    assert!(
        output.stderr.contains("write to standard output: no space left on device (ENOSPC)"),
        "{output:#?}"
    );
    Ok(())
}

fn no_command_at_all_shows_the_help() -> Outcome {
    need_other_than("crun", "asks for a command")?;
    let output = Invocation::of_the_runtime().output();
    assert!(format!("{}{}", output.stdout, output.stderr).contains("create"), "{output:#?}");
    Ok(())
}

fn spec_writes_a_config_that_runs() {
    let container = Container::new();
    fs::remove_file(container.bundle.path().join("config.json")).unwrap();
    container.runtime().arg("spec").current_dir(container.bundle.path()).succeeds();
    let text = fs::read_to_string(container.bundle.path().join("config.json")).unwrap();
    let mut spec: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(spec["process"]["terminal"], true);
    assert_eq!(spec["process"]["args"][0], "sh");
    assert_eq!(spec["root"]["path"], "rootfs");
    assert!(spec["linux"]["maskedPaths"].as_array().unwrap().len() >= 9);
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = serde_json::json!(["echo", "it runs"]);
    spec["root"]["readonly"] = false.into();
    spec["linux"]["cgroupsPath"] = format!("/{}", container.id).into();
    container.bundle.write_raw(&spec.to_string());
    assert_eq!(container.says(), "it runs");
}

fn spec_refuses_to_overwrite() {
    let container = Container::new();
    let before = fs::read_to_string(container.bundle.path().join("config.json")).unwrap();
    let spec = container.runtime().arg("spec").current_dir(container.bundle.path());
    if kind() == "crun" {
        assert_ne!(spec.output().code(), 0);
    } else {
        spec.fails_with("config.json exists. Remove it first");
    }
    assert_eq!(fs::read_to_string(container.bundle.path().join("config.json")).unwrap(), before);
}

fn spec_takes_a_bundle() {
    let container = Container::new();
    let directory = container.beside("elsewhere");
    fs::create_dir(&directory).unwrap();
    container.runtime().args(["spec", "--bundle"]).arg(&directory).succeeds();
    assert!(directory.join("config.json").exists());
}

fn spec_indents_by_tabs() -> Outcome {
    need_own()?;
    let container = Container::new();
    let directory = container.beside("elsewhere");
    fs::create_dir(&directory).unwrap();
    container.runtime().args(["spec", "-b"]).arg(&directory).succeeds();
    let text = fs::read_to_string(directory.join("config.json")).unwrap();
    assert!(text.starts_with("{\n\t\"ociVersion\": \"1."), "{text}");

    Ok(())
}

fn list_shows_a_table() {
    let container = Container::idle();
    container.launch();
    let output = container.runtime().arg("list").succeeds();
    let mut lines = output.stdout.lines();
    let header: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    let expected = match kind() {
        "crun" => ["NAME", "PID", "STATUS", "BUNDLE", "PATH", "CREATED", "OWNER"].as_slice(),
        _ => ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].as_slice(),
    };
    assert_eq!(header, expected);
    let row: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    let pid = container.pid().to_string();
    assert_eq!(row[..3], [container.id.as_str(), pid.as_str(), "running"]);
    assert_eq!(row[5], "root");
    assert_eq!(lines.next(), None);
}

fn list_prints_json() {
    let container = Container::idle();
    container.launch();
    let output = container.runtime().args(["list", "--format=json"]).succeeds();
    let list: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(list[0]["id"], container.id);
    assert_eq!(list[0]["status"], "running");
    assert_eq!(list[0]["pid"], container.state()["pid"]);
    assert_eq!(list[0]["bundle"], container.state()["bundle"]);
    assert_eq!(list[0]["owner"], "root");
    let short = container.runtime().args(["list", "-f", "json"]).succeeds();
    assert_eq!(short.stdout, output.stdout);
}

fn list_quietly_prints_ids() {
    let container = Container::idle();
    container.create();
    for option in ["--quiet", "-q"] {
        let output = container.runtime().args(["list", option]).succeeds();
        assert_eq!(output.stdout, format!("{}\n", container.id));
    }
}

fn list_of_nothing_is_null_in_json() -> Outcome {
    need_other_than("crun", "prints an empty array")?;
    let container = Container::new();
    fs::create_dir(container.root()).unwrap();
    assert_eq!(container.runtime().args(["list", "--format", "json"]).succeeds().stdout.trim(), "null");
    let table = container.runtime().arg("list").succeeds().stdout;
    assert_eq!(table.lines().count(), 1, "{table}");
    assert_eq!(container.runtime().args(["list", "-q"]).succeeds().stdout, "");
    Ok(())
}

fn list_of_a_missing_root_is_an_error() -> Outcome {
    need_other_than("crun", "makes the root")?;
    let missing = workspace::directory().join("no-such-root");
    let output = Invocation::of_the_runtime().arg("--root").arg(&missing).arg("list").output();
    assert_ne!(output.code(), 0, "{output:#?}");
    assert!(!missing.exists());
    Ok(())
}

fn list_refuses_an_unknown_format() {
    let container = Container::new();
    fs::create_dir(container.root()).unwrap();
    let output = container.runtime().args(["list", "--format", "yaml"]).output();
    assert_ne!(output.code(), 0, "{output:#?}");
    assert!(output.stderr.contains("format"), "{output:#?}");
}

fn list_survives_a_damaged_entry() -> Outcome {
    need_own()?;
    let container = Container::idle();
    container.create();
    fs::create_dir(container.root().join("damaged")).unwrap();
    fs::write(container.root().join("damaged/state.json"), "{").unwrap();
    let output = container.runtime().args(["list", "-q"]).succeeds();
    assert!(output.stdout.contains(&container.id), "{output:#?}");
    let table = container.runtime().arg("list").succeeds();
    assert!(table.stderr.contains("damaged"), "{table:#?}");
    Ok(())
}

/// podman decodes the whole file as one object, containerd takes the last with level error.
fn the_log_gets_one_json_object_per_failure() -> Outcome {
    let container = Container::with_args(["not-there"]);
    let log = container.beside("log");
    let output = container
        .runtime()
        .args(["--log-format", "json", "--log", log.to_str().unwrap()])
        .args(["run", "--bundle", container.bundle.path().to_str().unwrap(), &container.id])
        .output();
    assert_eq!(output.code(), 1);
    need_other_than("crun", "writes more than JSON")?;
    let text = fs::read_to_string(&log).unwrap();
    let last = text.lines().last().unwrap();
    let record: Value = serde_json::from_str(last).unwrap();
    assert_eq!(record["level"], "error");
    assert!(record["msg"].as_str().unwrap().contains("executable file"), "{record}");
    assert!(record["time"].as_str().unwrap().contains('T'), "{record}");
    need_other_than("runc", "logs warnings as well")?;
    assert_eq!(text.lines().count(), 1, "{text}");
    Ok(())
}

fn the_log_is_appended_to() {
    let container = Container::new();
    let log = container.beside("log");
    fs::write(&log, "first\n").unwrap();
    container.runtime().arg("--log").arg(&log).args(["state", "missing"]).output();
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.starts_with("first\n") && text.contains("does not exist"), "{text}");
}

fn the_log_in_text_names_level_and_message() -> Outcome {
    need_other_than("crun", "has its own form")?;
    let container = Container::new();
    let log = container.beside("log");
    container.runtime().args(["--log-format=text", "--log"]).arg(&log).args(["state", "missing"]).output();
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("level=error") && text.contains("msg=\""), "{text}");
    Ok(())
}

fn a_log_format_that_is_unknown_is_refused() {
    let output = Invocation::of_the_runtime().args(["--log-format", "xml", "list"]).output();
    assert_ne!(output.code(), 0, "{output:#?}");
}

/// What a daemon whose socket is at `place` gets when `state` of a container that there is not fails.
fn datagram_to(place: &str, log: &str, options: &[&str]) -> String {
    let container = Container::new();
    let socket = UnixDatagram::bind(container.beside("daemon")).unwrap();
    socket.set_read_timeout(Some(patience())).unwrap();
    // The host has a daemon of its own, or none.
    let directory = Path::new(place).ancestors().nth(if place.starts_with("/run") { 3 } else { 1 }).unwrap();
    let script = format!(
        "mount -t tmpfs none {0} && mkdir -p $(dirname {place}) && : >{place} && mount --bind {1} {place} && exec \"$@\"",
        directory.display(),
        container.beside("daemon").display()
    );
    let call = Invocation::new("unshare").args(["--mount", "sh", "-c", &script, "sh"]).arg(runtime());
    let output =
        call.args(["--log", log]).args(options).args(["--root", "/tmp", "state", "missing"]).output();
    assert_eq!((output.code(), output.stderr.as_str()), (1, "error: container \"missing\" does not exist\n"));
    let mut datagram = [0; 4096];
    let length = socket.recv(&mut datagram).unwrap();
    String::from_utf8(datagram[..length].to_vec()).unwrap()
}

fn the_log_may_be_kept_by_systemds_journal() -> Outcome {
    need_own()?;
    let place = "/run/systemd/journal/socket";
    assert_eq!(
        datagram_to(place, "journald:some-id", &[]),
        "PRIORITY=3\nSYSLOG_IDENTIFIER=runtime\nID=some-id\nMESSAGE=container \"missing\" does not exist\n"
    );
    let json = datagram_to(place, "journald:some-id", &["--log-format", "json"]);
    let message = json.trim_end().split("MESSAGE=").nth(1).unwrap();
    assert_eq!(serde_json::from_str::<Value>(message).unwrap()["level"], "error");
    Ok(())
}

fn the_log_may_be_kept_by_syslog() -> Outcome {
    need_own()?;
    let line = datagram_to("/dev/log", "syslog:some-id", &[]);
    assert!(line.starts_with("<11>some-id["), "{line}");
    assert!(line.ends_with("]: container \"missing\" does not exist"), "{line}");
    Ok(())
}

fn a_daemon_that_does_not_keep_the_log_is_named() -> Outcome {
    need_own()?;
    let script = "mount -t tmpfs none /run && mount -t tmpfs none /dev && exec \"$@\"";
    for (log, socket) in [("journald:x", "/run/systemd/journal/socket"), ("syslog:x", "/dev/log")] {
        let call = Invocation::new("unshare").args(["--mount", "sh", "-c", script, "sh"]).arg(runtime());
        let text = format!(
            "open the log {log}: connect to the log daemon: open {socket}: no such file or directory (ENOENT)"
        );
        call.args(["--log", log, "list"]).fails_with(&text);
    }
    Ok(())
}

fn the_log_level_decides_about_warnings() -> Outcome {
    need_own()?;
    for (level, count) in [("error", 0), ("warning", 1)] {
        let container = Container::new().edit(|spec| {
            spec["process"]["capabilities"]["ambient"] = serde_json::json!(["CAP_KILL"]);
        });
        let call = container.runtime().args(["--log-level", level, "run", "--bundle"]);
        let output = call.arg(container.bundle.path()).arg(&container.id).succeeds();
        assert_eq!(output.stderr.lines().count(), count, "{output:#?}");
    }
    let call = Invocation::of_the_runtime().args(["--log-level", "loud", "list"]);
    call.fails_with("--log-level: unknown log level \"loud\" (must be");
    Ok(())
}

fn without_a_log_the_error_is_on_stderr_once() -> Outcome {
    need_own()?;
    let output = Container::new().runtime().args(["state", "missing"]).output();
    assert_eq!(output.stderr, "error: container \"missing\" does not exist\n");
    Ok(())
}

fn debug_says_more() -> Outcome {
    need_own()?;
    let container = Container::new();
    let log = container.beside("log");
    let run = container.runtime().args(["--debug", "--log-format", "json", "--log"]).arg(&log);
    run.args(["run", "--bundle"]).arg(container.bundle.path()).arg(&container.id).succeeds();
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("\"level\":\"debug\""), "{text}");
    for line in text.lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    Ok(())
}

fn global_options_take_an_equals_sign() {
    let container = Container::with_script("echo yes");
    let output = Invocation::of_the_runtime()
        .arg(format!("--root={}", container.root().display()))
        .arg("run")
        .arg(format!("--bundle={}", container.bundle.path().display()))
        .arg(&container.id)
        .succeeds();
    assert_eq!(output.stdout, "yes\n");
}

fn the_root_is_made_when_missing() {
    let container = Container::idle();
    let root = container.beside("a/b/c");
    let with_root = || Invocation::of_the_runtime().arg("--root").arg(&root);
    let bundle = container.bundle.path();
    with_root().args(["create", "--bundle"]).arg(&bundle).arg(&container.id).succeeds();
    assert!(root.join(&container.id).is_dir());
    with_root().args(["delete", "--force", &container.id]).succeeds();
    container.leaves_nothing();
}

fn the_root_directory_of_the_host_is_no_container_root() -> Outcome {
    need_other_than("crun", "takes it")?;
    let container = Container::new();
    let output = Invocation::of_the_runtime()
        .args(["--root", "/", "run", "--bundle"])
        .arg(container.bundle.path())
        .arg(&container.id)
        .output();
    assert_ne!(output.code(), 0, "{output:#?}");
    Ok(())
}

fn systemd_cgroup_is_accepted_and_says_it_is_not_there() -> Outcome {
    need_own()?;
    let container = Container::new();
    let run = container.runtime().args(["--systemd-cgroup", "run", "--bundle"]);
    run.arg(container.bundle.path()).arg(&container.id).fails_with("systemd");
    container.leaves_nothing();
    // It is in the caller's configuration for all commands, most of which do not care.
    container.runtime().args(["--systemd-cgroup", "delete", "--force", &container.id]).succeeds();
    Ok(())
}

fn rootless_option_is_accepted() {
    for value in ["auto", "false"] {
        let container = Container::with_script("echo fine");
        let run = container.runtime().args([&format!("--rootless={value}"), "run", "--bundle"]);
        assert_eq!(run.arg(container.bundle.path()).arg(&container.id).succeeds().stdout, "fine\n");
    }
}

fn the_cgroup_manager_option_of_crun_is_accepted() -> Outcome {
    need_other_than("runc", "has no such option")?;
    let container = Container::with_script("echo fine");
    let run = container.runtime().args(["--cgroup-manager", "cgroupfs", "run", "--bundle"]);
    assert_eq!(run.arg(container.bundle.path()).arg(&container.id).succeeds().stdout, "fine\n");
    Ok(())
}

/// What reads the log, engines, sees nothing else.
fn a_usage_error_is_one_record_of_the_log() -> Outcome {
    need_own()?;
    let wrong = [
        (&["kill", "some-id", "NOTASIGNAL"][..], "NOTASIGNAL"),
        (&["state", "an/id"], "an/id"),
        (&["state"], "ID"),
        (&["list", "--frobnicate"], "--frobnicate"),
        (&["list", "--format", "yaml"], "yaml"),
        (&["frobnicate"], "frobnicate"),
    ];
    for (words, named) in wrong {
        let container = Container::new();
        let log = container.beside("log");
        let call = container.runtime().args(["--log-format", "json", "--log"]).arg(&log).args(words);
        let output = call.output();
        assert_eq!(output.code(), 1, "{output:#?}");
        assert!(output.stderr.contains(named), "{output:#?}");
        let text = fs::read_to_string(&log).unwrap();
        assert_eq!(text.lines().count(), 1, "{words:?}: {text:?}");
        let record: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(record["level"], "error", "{text}");
        assert!(record["msg"].as_str().unwrap().contains(named), "{text}");
    }
    Ok(())
}

/// Go's flag package takes either, and so do callers of runc.
fn long_options_take_one_dash() -> Outcome {
    need_own()?;
    let container = Container::with_script("echo fine");
    let run = || Invocation::of_the_runtime().args(["-log-format", "json", "-root"]).arg(container.root());
    let run_it = |call: Invocation| call.arg("-bundle").arg(container.bundle.path()).arg(&container.id);
    assert_eq!(run_it(run().arg("run")).succeeds().stdout, "fine\n");
    let root = format!("-root={}", container.root().display());
    assert_eq!(run_it(Invocation::of_the_runtime().args([&root, "run"])).succeeds().stdout, "fine\n");
    run_it(run().args(["-systemd-cgroup", "run"])).fails_with("systemd");
    run().args(["-systemd-cgroup", "delete", "-force", &container.id]).succeeds();
    container.leaves_nothing();
    Ok(())
}

/// As with runc since 1.5.
fn global_options_may_stand_behind_the_command() -> Outcome {
    need_own()?;
    let container = Container::with_script("echo $0 --debug");
    let log = container.beside("log");
    let run = Invocation::of_the_runtime().args(["run", "--root"]).arg(container.root());
    let run = run.arg("--bundle").arg(container.bundle.path()).args(["--log-format=json", "-log"]).arg(&log);
    assert_eq!(run.args([&container.id, "--debug"]).succeeds().stdout, "sh --debug\n");
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.starts_with("{\"level\":\"debug\",\"msg\":\"command "), "{text}");
    assert_eq!(text.matches("msg\":\"command ").count(), 1, "{text}");
    // What comes behind the name of a program is the program's.
    let idle = Container::idle();
    idle.launch();
    let exec = idle.runtime().args(["exec", &idle.id, "echo", "--root", "x"]).succeeds();
    assert_eq!(exec.stdout, "--root x\n");
    container.leaves_nothing();
    Ok(())
}

fn rootless_takes_gos_words() -> Outcome {
    need_other_than("crun", "ignores it")?;
    let container = Container::new();
    fs::create_dir(container.root()).unwrap();
    for word in ["auto", "Auto", "false", "F", "0", "true", "T", "1"] {
        container.runtime().args(["--rootless", word, "list"]).succeeds();
    }
    need_own()?;
    container.runtime().args(["--rootless=maybe", "list"]).fails_with("--rootless: invalid value \"maybe\"");
    Ok(())
}
