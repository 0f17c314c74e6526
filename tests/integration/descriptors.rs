//! Descriptors and sockets passed through the runtime: --preserve-fds, LISTEN_FDS, NOTIFY_SOCKET.

use std::fs;
use std::os::unix::net::UnixDatagram;

use serde_json::json;

use crate::support::container::NO_OPTIONS;
use crate::support::host::{need_other_than, need_own};
use crate::support::suite::suite;
use crate::support::wait::holds_within;
use crate::support::{Container, Outcome, wait_until};

suite![
    no_other_descriptor_reaches_the_process,
    preserved_descriptors_reach_the_process,
    preserving_a_descriptor_that_is_not_open_fails,
    a_descriptor_of_the_runtimes_own_is_not_taken_for_the_callers,
    socket_activation_descriptors_reach_the_process,
    listen_fds_of_another_process_are_ignored,
    preserved_descriptors_follow_those_of_socket_activation,
    a_preserved_descriptor_survives_create_and_start,
    readiness_is_reported_to_the_caller,
    the_notify_socket_of_the_caller_is_not_seen_inside,
];

fn file(container: &Container, name: &str) -> String {
    let path = container.beside(name);
    fs::write(&path, format!("contents of {name}\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

/// CVE-2024-21626 began with a descriptor that had leaked.
fn no_other_descriptor_reaches_the_process() {
    let container = Container::with_args(["ls", "/proc/self/fd"]);
    let secret = file(&container, "secret");
    let run = container.run_with(NO_OPTIONS).after_shell(&format!("exec 3<{secret} 5<{secret} 9<{secret};"));
    assert_eq!(run.succeeds().stdout.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
}

fn preserved_descriptors_reach_the_process() {
    let container = Container::with_script("cat <&3; cat <&4; ls /proc/self/fd | wc -l");
    let (one, two) = (file(&container, "one"), file(&container, "two"));
    let run = container.run_with(["--preserve-fds", "2"]);
    let output = run.after_shell(&format!("exec 3<{one} 4<{two} 5<{two};")).succeeds();
    assert_eq!(output.stdout, "contents of one\ncontents of two\n6\n");
}

fn preserving_a_descriptor_that_is_not_open_fails() -> Outcome {
    need_other_than("crun", "does not look")?;
    let container = Container::new();
    let run = container.run_with(["--preserve-fds", "30"]);
    let output = run.output();
    assert_ne!(output.code(), 0, "{output:#?}");
    need_own()?;
    container.leaves_nothing();
    assert!(output.stderr.contains("--preserve-fds"), "{output:#?}");
    Ok(())
}

/// The runtime's own descriptors are open as well, and one of them leads to the host: that of its executable.
fn a_descriptor_of_the_runtimes_own_is_not_taken_for_the_callers() -> Outcome {
    need_other_than("crun", "does not look")?;
    need_other_than("runc", "passes them on in exec")?;
    let container = Container::idle();
    container.launch();
    for count in 1..6 {
        let fd = format!("--preserve-fds={count}");
        container.exec_with([&fd], ["ls", "-l", "/proc/self/fd"]).fails_with("");
        let other = Container::with_args(["ls", "-l", "/proc/self/fd"]);
        other.run_with([&fd]).fails_with("");
    }
    Ok(())
}

fn socket_activation_descriptors_reach_the_process() -> Outcome {
    need_other_than("crun", "does not set LISTEN_PID")?;
    let container = Container::with_script("echo $LISTEN_FDS $LISTEN_PID; cat <&3");
    let one = file(&container, "one");
    let run = container.run_with(NO_OPTIONS);
    let output = run.after_shell(&format!("exec 3<{one}; export LISTEN_FDS=1 LISTEN_PID=$$;")).succeeds();
    assert_eq!(output.stdout, "1 1\ncontents of one\n");
    Ok(())
}

fn listen_fds_of_another_process_are_ignored() -> Outcome {
    need_other_than("crun", "does not look at LISTEN_PID")?;
    let container = Container::with_script("echo \"[$LISTEN_FDS]\"; ls /proc/self/fd | wc -l");
    let one = file(&container, "one");
    let run = container.run_with(NO_OPTIONS);
    let output = run.after_shell(&format!("exec 3<{one}; export LISTEN_FDS=1 LISTEN_PID=1;")).succeeds();
    assert_eq!(output.stdout, "[]\n4\n");
    Ok(())
}

fn preserved_descriptors_follow_those_of_socket_activation() {
    let container = Container::with_script("cat <&3; cat <&4");
    let (one, two) = (file(&container, "one"), file(&container, "two"));
    let run = container.run_with(["--preserve-fds=1"]);
    let prefix = format!("exec 3<{one} 4<{two}; export LISTEN_FDS=1 LISTEN_PID=$$;");
    assert_eq!(run.after_shell(&prefix).succeeds().stdout, "contents of one\ncontents of two\n");
}

fn a_preserved_descriptor_survives_create_and_start() {
    let container = Container::with_script("cat <&3");
    let one = file(&container, "one");
    let create = container.create_with(["--preserve-fds", "1"]);
    let output = create.after_shell(&format!("exec 3<{one};")).succeeds();
    container.start();
    output.wait_for_stdout("contents of one");
}

/// sd_notify(3) through the runtime: the workload says READY=1, the caller hears it, and whom to watch from now on:
/// the runtime, as long as that stays in the foreground.
fn readiness_is_reported_to_the_caller() -> Outcome {
    need_other_than("crun", "binds the caller's socket directly")?;
    let container = Container::with_script("echo $NOTIFY_SOCKET; trap 'exit 0' TERM; sleep 1000 & wait");
    let path = container.beside("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(crate::support::host::patience())).unwrap();
    let running = container.run_with(NO_OPTIONS).env("NOTIFY_SOCKET", &path).spawn();
    running.wait_for_stdout("/run/notify/notify.sock");
    let inside = container.state_directory().join("notify/notify.sock");
    wait_until("the socket is there", || inside.exists());
    UnixDatagram::unbound().unwrap().send_to(b"READY=1\n", &inside).unwrap();
    let mut text = String::new();
    let heard = holds_within(crate::support::host::patience(), || {
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        text.contains("MAINPID=")
    });
    assert!(heard, "{text}");
    assert!(text.starts_with("READY=1\n"), "{text:?}");
    assert!(text.contains(&format!("MAINPID={}", running.pid())), "{text:?}");
    container.delete_by_force();
    Ok(())
}

fn the_notify_socket_of_the_caller_is_not_seen_inside() -> Outcome {
    need_other_than("crun", "hands the variable on")?;
    let container = Container::with_script("echo \"[$NOTIFY_SOCKET]\"")
        .edit(|spec| spec["process"]["env"] = json!(["PATH=/bin"]));
    assert_eq!(container.says(), "[]");
    Ok(())
}
