//! `exec`: how a process starts and ends, and what it inherits.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::exec_process::process_file;
use crate::support::container::NO_OPTIONS;
use crate::support::host::{kind, need_other_than, need_own, need_program};
use crate::support::suite::suite;
use crate::support::{Container, Invocation, Outcome, wait_until};
use crate::terminal::{ConsoleSocket, receive_descriptor};

suite![
    a_program_runs_beside_the_containers_own,
    the_exit_status_is_the_programs,
    a_program_that_cannot_be_started_is_255,
    what_is_wrong_is_said_in_the_words_that_callers_look_for,
    options_end_at_the_containers_name,
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
    many_processes_at_once_all_run,
];

fn a_program_runs_beside_the_containers_own() {
    let container = Container::idling();
    let output = container.exec(["echo", "hello"]).succeeds();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("hello\n", ""));
    assert_eq!(container.state()["status"], "running");
}

fn the_exit_status_is_the_programs() {
    let container = Container::idling();
    for (script, code) in [("exit 0", 0), ("exit 42", 42), ("exit 255", 255), ("kill -KILL $$", 137)] {
        let output = container.exec(["sh", "-c", script]).output();
        assert_eq!((output.code(), output.stderr.as_str()), (code, ""), "{script}");
    }
}

fn a_program_that_cannot_be_started_is_255() -> Outcome {
    need_other_than("crun", "has other numbers")?;
    let container = Container::idling()
        .with_file("no-interpreter", 0o755, "#!/mmnnttbb foo bar\n")
        .with_file("not-executable", 0o644, "");
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
    let container = Container::idling().with_file("run.sh", 0o755, "#!/mmnnttbb foo bar\n");
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

fn options_end_at_the_containers_name() -> Outcome {
    let container = Container::idling();
    let output = container.exec(["echo", "-t", "--env", "-e", "--", "--cwd=/tmp", "-detach"]).succeeds();
    assert_eq!(output.stdout, "-t --env -e -- --cwd=/tmp -detach\n");
    need_other_than("crun", "wants two dashes, and no value for a flag")?;
    let output = container.exec_with(["-cwd", "/tmp", "-e=A=b", "--tty=false"], ["sh", "-c", "pwd; echo $A"]);
    assert_eq!(output.succeeds().stdout, "/tmp\nb\n");
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
    let container = Container::idling();
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
    let container = Container::idling();
    let pid_file = container.beside("exec.pid");
    let options = ["--pid-file", pid_file.to_str().unwrap()];
    container.exec_with(options, ["true"]).succeeds();
    assert!(fs::read_to_string(&pid_file).unwrap().bytes().all(|byte| byte.is_ascii_digit()));
    let relative = container.exec_with(["--pid-file", "here.pid"], ["true"]);
    relative.current_dir(&container.bundle.home).succeeds();
    assert!(container.beside("here.pid").exists());
}

fn a_pid_file_that_cannot_be_written_ends_the_process() -> Outcome {
    need_other_than("crun", "lets it live")?;
    let container = Container::idling();
    let options = ["--detach", "--pid-file", "/no/such/directory/pid"];
    container.exec_with(options, ["sleep", "1234"]).fails_with("/no/such/directory");
    wait_until("the process is gone", || {
        !container.exec(["ps", "-o", "args"]).succeeds().stdout.contains("sleep 1234")
    });
    Ok(())
}

fn signals_reach_the_process() {
    let container = Container::idling();
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
    let container = Container::idling();
    let running = container.exec(["sh", "-c", "echo ready; exec sleep 1000"]).spawn();
    running.wait_for_stdout("ready");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().code(), 143);
}

fn the_end_of_the_container_ends_the_process() {
    let container = Container::idling();
    let running = container.exec(["sh", "-c", "echo ready; exec sleep 1000"]).spawn();
    running.wait_for_stdout("ready");
    container.kill("KILL");
    assert_eq!(running.wait().code(), 137);
    container.wait_for("stopped");
    container.delete();
    container.leaves_nothing();
}

fn preserved_descriptors_reach_the_process_and_no_others() {
    let container = Container::idling();
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
    let container = Container::idling();
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
    let container = Container::idling();
    let socket = ConsoleSocket::beside(&container);
    let process = json!({"terminal": true, "consoleSize": {"height": 10, "width": 110}, "cwd": "/",
        "args": ["/bin/sh", "-c", "stty size; tty; ls -l /proc/self/fd/2"], "user": {"uid": 0, "gid": 0}});
    let file = process_file(&container, &process);
    let options = ["--detach", "--console-socket", socket.path.to_str().unwrap(), "--process", &file];
    container.exec_with(options, NO_OPTIONS).succeeds();
    let (terminal, name) = socket.receive();
    let said = crate::terminal::read_all(&terminal);
    assert!(said.starts_with("10 110\n/dev/pts/0\n"), "{said:?}");
    assert!(kind() == "crun" || name.starts_with("/dev/pt"), "{name:?}");
}

fn a_terminal_in_the_foreground_is_relayed() -> Outcome {
    need_program("script")?;
    let container = Container::idling();
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

fn a_terminal_needs_a_console_socket_when_detached_and_only_then() -> Outcome {
    need_other_than("crun", "does not mind")?;
    let container = Container::idling();
    let socket = ConsoleSocket::beside(&container);
    let path = socket.path.to_str().unwrap();
    container.exec_with(["--detach", "--tty"], ["true"]).fails_with("");
    container.exec_with(["--detach", "--console-socket", path], ["true"]).fails_with("");
    container.exec_with(["--tty", "--console-socket", path], ["true"]).fails_with("");
    Ok(())
}

fn the_terminal_belongs_to_the_user() -> Outcome {
    // The others want a terminal of the caller as well.
    need_own()?;
    let container = Container::idling();
    let script = "stat -c %u $(tty); echo reopened >/dev/stderr";
    let said = container.exec_with(["--tty", "--user", "1000"], ["sh", "-c", script]).succeeds().stdout;
    assert_eq!(said, "1000\nreopened\n");
    Ok(())
}

fn many_processes_at_once_all_run() {
    let container = Container::idling();
    let running: Vec<_> = (0..12).map(|n| container.exec(["echo", &n.to_string()]).spawn()).collect();
    for (n, running) in running.into_iter().enumerate() {
        let output = running.wait();
        assert_eq!((output.code(), output.stdout), (0, format!("{n}\n")));
    }
}
