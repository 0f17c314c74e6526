//! Attacks on the runtime before a container exists: values with terminal control sequences, files of the
//! wrong type, a small stack, directories and privileges of other users.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;

use nix::sys::stat::Mode;
use serde_json::{Value, json};

use crate::support::container::NO_OPTIONS;
use crate::support::host::{self, need_own, need_program, need_set_id_bits};
use crate::support::process::Invocation;
use crate::support::suite::suite;
use crate::support::user::{self, GID, UID};
use crate::support::{Container, Outcome};

suite![
    no_message_controls_a_terminal_or_is_two_lines,
    json_that_is_printed_controls_no_terminal,
    what_the_init_process_says_controls_no_terminal,
    a_bundle_s_configuration_is_a_regular_file,
    a_document_may_come_through_a_pipe,
    the_log_waits_for_nobody,
    a_small_stack_is_enough_and_stays_the_container_s,
    a_root_of_another_user_is_refused,
    a_record_of_another_user_is_refused,
    a_setuid_copy_refuses_to_run,
];

/// A newline with a forged record behind it, an escape sequence, a C1 control, a change of direction.
const BAD: &str = "x\ntime=\"\" level=error msg=\"forged\"\u{1b}[2J\u{9b}31m\u{202e}\u{2066}\r";

type Edit = fn(&mut Value);

/// Ways to bring it into a message, as a value or as a name.
const BAD_VALUES: &[(&str, Edit)] = &[
    ("a sysctl's name", |spec| spec["linux"]["sysctl"] = json!({ BAD: "1" })),
    ("a sysctl's value", |spec| spec["linux"]["sysctl"] = json!({ "net.a\nb": BAD })),
    ("a control file", |spec| spec["linux"]["resources"]["unified"] = json!({ BAD: BAD })),
    ("a mount option", |spec| spec["mounts"][0]["options"] = json!([BAD])),
    ("a mount's type", |spec| spec["mounts"][0]["type"] = json!(BAD)),
    ("a mount's destination", |spec| {
        spec["mounts"][0] = json!({ "destination": format!("/proc/{BAD}"), "type": "tmpfs" });
    }),
    ("a mount's source", |spec| {
        spec["mounts"][0] = json!({ "destination": "/a", "type": "bind", "source": format!("/not/{BAD}") });
    }),
    ("the root", |spec| spec["root"]["path"] = json!(BAD)),
    ("the cwd", |spec| spec["process"]["cwd"] = json!(BAD)),
    ("a variable", |spec| spec["process"]["env"] = json!([BAD.replace('=', "")])),
    ("the program", |spec| spec["process"]["args"] = json!([format!("/not/{BAD}")])),
    ("a capability", |spec| {
        spec["process"]["capabilities"]["bounding"] = json!([BAD]);
        spec["hostname"] = json!(BAD.repeat(9));
    }),
    ("a limit", |spec| spec["process"]["rlimits"] = json!([{ "type": BAD, "soft": 1, "hard": 1 }])),
    ("a namespace", |spec| spec["linux"]["namespaces"][0]["type"] = json!(BAD)),
    ("a namespace's path", |spec| spec["linux"]["namespaces"][0]["path"] = json!(format!("/{BAD}"))),
    ("a hook", |spec| spec["hooks"] = json!({ "createRuntime": [{ "path": format!("/not/{BAD}") }] })),
    ("a hook's words", |spec| {
        let script = format!("printf '{}' >&2; exit 1", BAD.replace('\'', ""));
        spec["hooks"] = json!({ "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", script] }] });
    }),
    ("an annotation", |spec| {
        spec["annotations"] = json!({ "run.oci.mount_context_type": BAD });
        spec["linux"]["mountLabel"] = json!("a");
    }),
    ("a cgroup", |spec| spec["linux"]["cgroupsPath"] = json!(format!("/a/../../{BAD}"))),
    ("a seccomp action", |spec| spec["linux"]["seccomp"] = json!({ "defaultAction": BAD })),
    ("a network device", |spec| spec["linux"]["netDevices"] = json!({ BAD: {} })),
];

fn is_harmful(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Nothing but one line, or with a log several of its records.
fn check(name: &str, text: &str) {
    assert!(!text.replace('\n', "").contains(is_harmful), "{name}: {text:?}");
    for line in text.lines() {
        assert!(line.starts_with("error: ") || line.starts_with("time=\"2"), "{name}: {text:?}");
    }
}

fn no_message_controls_a_terminal_or_is_two_lines() -> Outcome {
    need_own()?;
    for (name, edit) in BAD_VALUES {
        let container = Container::new().edit(edit);
        let output = container.run_with(NO_OPTIONS).output();
        assert_ne!(output.code(), 0, "{name}");
        check(name, &output.stderr);
        for format in ["text", "json"] {
            let log = container.beside(&format!("log.{format}"));
            let call = container.runtime().arg("--log").arg(&log).args(["--log-format", format, "run"]);
            call.arg("-b").arg(container.bundle.path()).arg(&container.id).output();
            let logged = fs::read_to_string(&log).unwrap();
            if format == "text" {
                check(name, &logged);
                continue;
            }
            for line in logged.lines() {
                let record: Value = serde_json::from_str(line).unwrap();
                for value in record.as_object().unwrap().values() {
                    assert!(!value.as_str().unwrap().contains(is_harmful), "{name}: {line}");
                }
            }
        }
        container.leaves_nothing();
    }
    Ok(())
}

fn json_that_is_printed_controls_no_terminal() -> Outcome {
    need_own()?;
    let container = Container::idle().edit(|spec| spec["annotations"] = json!({ BAD: BAD }));
    container.launch();
    for output in [
        container.on_id("state").succeeds(),
        container.runtime().arg("list").args(["--format", "json"]).succeeds(),
        container.runtime().arg("list").succeeds(),
    ] {
        assert!(!output.stdout.replace('\n', "").contains(is_harmful), "{:?}", output.stdout);
    }
    assert_eq!(container.state()["annotations"][BAD], BAD);
    container.delete_by_force();
    Ok(())
}

/// After `start` it writes to the caller's standard error itself.
fn what_the_init_process_says_controls_no_terminal() -> Outcome {
    need_own()?;
    let name = "bin/\u{9b}31m\u{202e}x\u{1b}\n\u{e9}";
    let container = Container::with_args([format!("/{name}")]).with_file(name, 0o755, "no program");
    let output = container.create();
    container.start();
    container.wait_for("stopped");
    let said = output.stderr_now();
    assert_eq!(said.to_lowercase(), "exec /bin/?31m?x??\u{e9}: exec format error\n");
    Ok(())
}

fn a_bundle_s_configuration_is_a_regular_file() -> Outcome {
    need_own()?;
    let container = Container::new();
    let file = container.bundle.path().join("config.json");
    let refused = |what: &str| {
        let output = container.run_with(NO_OPTIONS).output();
        assert_eq!(output.code(), 1);
        assert!(output.stderr.contains(&format!("config.json: {what}")), "{}", output.stderr);
    };
    fs::remove_file(&file).unwrap();
    nix::unistd::mkfifo(&file, Mode::S_IRWXU).unwrap();
    refused("is a pipe (it must be a regular file containing JSON)");
    fs::remove_file(&file).unwrap();
    symlink("/dev/zero", &file).unwrap();
    refused("is a device (");
    fs::remove_file(&file).unwrap();
    fs::File::create(&file).unwrap().set_len((64 << 20) + 1).unwrap();
    refused("larger than 64 MiB");
    for (command, option) in [("exec", "--process"), ("update", "--resources"), ("create", "--config")] {
        let idle = Container::idle();
        if command != "create" {
            idle.launch();
        }
        let call = match command {
            "create" => idle.command(command),
            _ => idle.runtime().arg(command),
        };
        let output = call.args([option, "/dev/zero"]).arg(&idle.id).output();
        let message = "read /dev/zero: is a device (it must be a regular file or a pipe containing JSON)";
        assert!(output.stderr.contains(message), "{command}: {}", output.stderr);
        idle.delete_by_force();
    }
    Ok(())
}

fn a_document_may_come_through_a_pipe() -> Outcome {
    need_own()?;
    need_program("bash")?;
    let container = Container::idle();
    container.launch();
    let process = json!({ "args": ["/bin/echo", "piped"], "cwd": "/", "env": ["PATH=/bin"] }).to_string();
    let script = format!("p={}; i=$1; shift; \"$@\" --process <(printf %s \"$p\") \"$i\"", quoted(&process));
    let output =
        container.runtime().arg("exec").called_by(["bash", "-c", &script, "bash", &container.id]).succeeds();
    assert_eq!(output.stdout, "piped\n");
    container.delete_by_force();
    Ok(())
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn the_log_waits_for_nobody() -> Outcome {
    need_own()?;
    let container = Container::new();
    let fifo = container.beside("fifo");
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let state = |log: &Path| container.runtime().arg("--log").arg(log).args(["state", "nobody"]).output();
    let output = state(&fifo);
    assert_eq!(output.code(), 1);
    let message = format!("open the log {}: pipe has no reader (", fifo.display());
    assert!(output.stderr.contains(&message), "{}", output.stderr);
    assert!(state(Path::new("/dev/null")).stderr.contains("does not exist"));
    assert_eq!(fs::metadata("/dev/null").unwrap().permissions().mode() & 0o777, 0o666);
    Ok(())
}

fn a_small_stack_is_enough_and_stays_the_container_s() -> Outcome {
    need_own()?;
    let small = |call: Invocation| call.called_by(["sh", "-c", "ulimit -s 64 && exec \"$@\"", "sh"]);
    let container = Container::with_script("ulimit -s; ulimit -H -s; sleep 1000");
    small(container.create_with(NO_OPTIONS)).succeeds();
    small(container.on_id("start")).succeeds();
    small(container.on_id("state")).succeeds();
    assert_eq!(small(container.exec(["sh", "-c", "ulimit -s"])).succeeds().stdout, "64\n");
    small(container.runtime().arg("features")).succeeds();
    small(container.runtime().args(["help", "update"])).succeeds();
    let update = container.runtime().arg("update").args(["--dry-run", "--cpu-idle", "0"]).arg(&container.id);
    let updated = small(update).output();
    // Not every host has that controller.
    assert!(matches!(updated.code(), 0 | 1), "{updated:#?}");
    small(container.runtime().arg("delete").arg("--force").arg(&container.id)).succeeds();
    let run = Container::with_script("ulimit -s; ulimit -H -s");
    assert_eq!(small(run.run_with(NO_OPTIONS)).succeeds().stdout, "64\n64\n");
    Ok(())
}

fn a_root_of_another_user_is_refused() -> Outcome {
    need_own()?;
    let container = Container::new();
    let root = container.beside("their-root");
    fs::create_dir(&root).unwrap();
    user::give(&root);
    for words in [&["list"][..], &["state", "x"], &["delete", "--force", "x"]] {
        let output = Invocation::new(host::runtime()).arg("--root").arg(&root).args(words).output();
        assert_eq!(output.code(), 1);
        let message =
            format!("root {} is owned by untrusted user {UID}, who could have tampered", root.display());
        assert!(output.stderr.contains(&message), "{}", output.stderr);
    }
    Ok(())
}

fn a_record_of_another_user_is_refused() -> Outcome {
    need_own()?;
    let container = Container::idle();
    container.launch();
    let record = container.state_directory().join("state.json");
    chown(&record, Some(UID), Some(GID)).unwrap();
    let output = container.on_id("state").output();
    assert_eq!(output.code(), 1);
    assert!(output.stderr.contains(&format!("owned by untrusted user {UID}")), "{}", output.stderr);
    chown(&record, Some(0), Some(0)).unwrap();
    container.delete_by_force();

    // Nor does a directory without one say what is to be removed.
    let directory = container.state_directory();
    fs::create_dir(&directory).unwrap();
    std::os::unix::fs::symlink(container.cgroup(), directory.join("cgroup")).unwrap();
    chown(&directory, Some(UID), Some(GID)).unwrap();
    let text = format!("owned by untrusted user {UID}");
    container.runtime().args(["delete", "--force", &container.id]).fails_with(&text);
    fs::remove_dir_all(&directory).unwrap();
    Ok(())
}

fn a_setuid_copy_refuses_to_run() -> Outcome {
    need_set_id_bits()?;
    need_own()?;
    need_program("setpriv")?;
    let container = Container::new();
    let copy = container.beside("copy");
    host::copy_runtime(&copy);
    for directory in
        copy.ancestors().skip(1).take_while(|directory| directory.starts_with(&container.bundle.home))
    {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (user, group) = (UID.to_string(), GID.to_string());
    for mode in [0o4755, 0o2755] {
        fs::set_permissions(&copy, fs::Permissions::from_mode(mode)).unwrap();
        for words in [&["--version"][..], &["list"], &["run", "x"]] {
            let by = ["--reuid", &user, "--regid", &group, "--clear-groups", "--"];
            let output = Invocation::new("setpriv").args(by).arg(&copy).args(words).output();
            assert_eq!((output.code(), output.stdout.as_str()), (1, ""), "{mode:o}");
            assert!(
                output.stderr.starts_with("error: refusing to run with the setuid or setgid bit"),
                "{}",
                output.stderr
            );
        }
    }
    Ok(())
}
