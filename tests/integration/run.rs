//! `run`: creates, starts, waits, passes on the exit status, deletes.

use std::fs;

use nix::sys::signal::Signal;

use crate::support::container::NO_OPTIONS;
use crate::support::host::{need_other_than, need_own};
use crate::support::suite::suite;
use crate::support::{Container, Invocation, Outcome};

suite![
    run_gives_back_the_exit_status_of_the_process,
    run_gives_back_128_and_the_signal_that_ended_the_process,
    run_ends_with_137_when_the_container_is_killed,
    run_forwards_signals_to_the_process,
    run_forwards_every_signal_a_process_can_catch,
    run_deletes_the_container_at_its_end,
    run_with_keep_leaves_a_stopped_container,
    run_with_detach_returns_while_the_process_runs,
    run_takes_the_current_directory_for_the_bundle,
    run_takes_the_short_option_for_the_bundle,
    run_takes_a_bundle_for_its_argument,
    run_of_a_bundle_takes_its_name_for_the_id,
    run_of_an_id_beside_a_bundle_is_an_id,
    run_hands_its_standard_input_to_the_process,
    run_keeps_stdout_and_stderr_apart,
    run_returns_although_a_background_process_keeps_the_output,
    run_reaps_orphans_in_the_pid_namespace,
    run_without_subreaper_works,
    run_refuses_an_id_that_exists,
    run_refuses_ids_that_are_not_names,
    run_writes_the_pid_of_the_process_and_nothing_else,
    run_leaves_no_pid_file_when_it_fails,
    repeated_options_take_the_last,
    run_many_at_a_time_do_not_disturb_each_other,
    run_of_twenty_thousand_lines_loses_none,
];

fn run_gives_back_the_exit_status_of_the_process() {
    for code in [0, 1, 7, 126, 255] {
        let output = Container::with_script(&format!("exit {code}")).run();
        assert_eq!(output.code(), code, "{output:#?}");
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    }
}

fn run_gives_back_128_and_the_signal_that_ended_the_process() {
    // Process 1 of a pid namespace is immune to signals from inside; its child is not, and a shell hands that on.
    let output = Container::with_script("sh -c 'kill -TERM $$'; exit $?").run();
    assert_eq!(output.code(), 143, "{output:#?}");
    // Without a pid namespace of its own the process itself can die of a signal.
    let container = Container::with_script("kill -TERM $$; sleep 100")
        .edit(|spec| crate::support::bundle::remove_namespace(spec, "pid"));
    let output = container.run();
    assert_eq!(output.code(), 143, "{output:#?}");
    container.leaves_nothing();
}

fn run_ends_with_137_when_the_container_is_killed() {
    let container = Container::with_script("echo ready; sleep 1000");
    let running = container.spawn();
    running.wait_for_stdout("ready");
    container.kill("KILL");
    assert_eq!(running.wait().code(), 137);
    container.leaves_nothing();
}

fn run_forwards_signals_to_the_process() {
    let container = Container::with_script("trap 'exit 43' TERM; echo ready; while :; do sleep 0.05; done");
    let running = container.spawn();
    running.wait_for_stdout("ready");
    running.signal(Signal::SIGTERM);
    let output = running.wait();
    assert_eq!(output.code(), 43, "{output:#?}");
    container.leaves_nothing();
}

fn run_forwards_every_signal_a_process_can_catch() {
    let signals = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];
    let container = Container::with_script(
        "for s in HUP INT QUIT USR1 USR2; do trap \"echo got $s\" $s; done; trap 'exit 0' TERM\n\
         echo ready; while :; do sleep 0.02; done",
    );
    let running = container.spawn();
    running.wait_for_stdout("ready");
    for signal in signals {
        running.signal(signal);
        running.wait_for_stdout(&format!("got {}", signal.as_str().trim_start_matches("SIG")));
    }
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().code(), 0);
}

fn run_deletes_the_container_at_its_end() {
    let container = Container::new();
    container.says();
    container.leaves_nothing();
    container.on_id("state").fails_with("does not exist");
}

fn run_with_keep_leaves_a_stopped_container() -> Outcome {
    let container = Container::with_script("exit 3");
    assert_eq!(container.run_with(["--keep"]).output().code(), 3);
    assert_eq!(container.state()["status"], "stopped");
    assert_eq!(container.state()["pid"], 0);
    container.delete();
    container.leaves_nothing();
    Ok(())
}

fn run_with_detach_returns_while_the_process_runs() {
    let container = Container::idle();
    let pid_file = container.beside("pid");
    container.run_with(["--detach", "--pid-file", pid_file.to_str().unwrap()]).succeeds();
    let state = container.state();
    assert_eq!(state["status"], "running");
    assert_eq!(state["pid"].to_string(), fs::read_to_string(pid_file).unwrap());
    container.terminate();
    container.wait_for("stopped");
    container.delete();
    container.leaves_nothing();
}

fn run_takes_the_current_directory_for_the_bundle() {
    let container = Container::with_script("echo here");
    let run = container.runtime().arg("run").arg(&container.id).current_dir(container.bundle.path());
    assert_eq!(run.succeeds().stdout, "here\n");
}

fn run_takes_the_short_option_for_the_bundle() {
    let container = Container::with_script("echo here");
    let run = container.runtime().args(["run", "-b"]).arg(container.bundle.path()).arg(&container.id);
    assert_eq!(run.succeeds().stdout, "here\n");
}

fn run_takes_a_bundle_for_its_argument() -> Outcome {
    need_own()?;
    let container = Container::with_script("hostname");
    let inside = container.runtime().args(["run", "bundle"]).current_dir(&container.bundle.home);
    assert_eq!(inside.succeeds().stdout, "inside\n");
    let slash = container.runtime().arg("run").arg(container.bundle.path());
    assert_eq!(slash.succeeds().stdout, "inside\n");
    let dot = container.runtime().args(["run", "./bundle/"]).current_dir(&container.bundle.home);
    assert_eq!(dot.succeeds().stdout, "inside\n");
    container.leaves_nothing();
    Ok(())
}

fn run_of_a_bundle_takes_its_name_for_the_id() -> Outcome {
    need_own()?;
    let container = Container::idle();
    container.runtime().args(["run", "--detach"]).arg(container.bundle.path()).succeeds();
    let state = container.runtime().args(["state", "bundle"]).succeeds();
    assert!(state.stdout.contains("\"running\""), "{state:#?}");
    container.runtime().args(["delete", "--force", "bundle"]).succeeds();
    container.leaves_nothing();
    Ok(())
}

/// As in runc: the current directory is a bundle, so the argument is an id, even if a directory has that name.
fn run_of_an_id_beside_a_bundle_is_an_id() {
    let container = Container::with_script("echo outer");
    let inner = container.bundle.path().join(&container.id);
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("config.json"), "{}").unwrap();
    let run = container.runtime().arg("run").arg(&container.id).current_dir(container.bundle.path());
    assert_eq!(run.succeeds().stdout, "outer\n");
}

fn run_hands_its_standard_input_to_the_process() {
    let container = Container::with_args(["cat"]);
    let input = container.beside("input");
    fs::write(&input, "line 1\nline 2\n").unwrap();
    let output = container.run_with(NO_OPTIONS).stdin(fs::File::open(input).unwrap()).succeeds();
    assert_eq!(output.stdout, "line 1\nline 2\n");
}

fn run_keeps_stdout_and_stderr_apart() {
    let output = Container::with_script("echo to stdout; echo to stderr >&2").run();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("to stdout\n", "to stderr\n"));
}

/// The main process ends while another holds the output: the namespace ends with process 1.
fn run_returns_although_a_background_process_keeps_the_output() {
    let container = Container::with_script("sleep 1000 & exit 5");
    assert_eq!(container.run().code(), 5);
    container.leaves_nothing();
}

fn run_reaps_orphans_in_the_pid_namespace() {
    let container = Container::with_script("(sleep 0.01 &) ; sleep 0.1; exit 9");
    assert_eq!(container.run().code(), 9);
    container.leaves_nothing();
}

fn run_without_subreaper_works() {
    let container = Container::with_script("exit 4");
    assert_eq!(container.run_with(["--no-subreaper"]).output().code(), 4);
    container.leaves_nothing();
}

fn run_refuses_an_id_that_exists() {
    let container = Container::idle();
    container.launch();
    container.run_with(NO_OPTIONS).fails_with("exist");
    assert_eq!(container.state()["status"], "running", "the first one is left alone");
}

fn run_refuses_ids_that_are_not_names() -> Outcome {
    let container = Container::new();
    for id in ["..", ".", "a b", "a\nb", "é", "", "a:b"] {
        let output = container.command("run").arg(id).output();
        assert_ne!(output.code(), 0, "{id:?}: {output:#?}");
        assert!(!container.root().join(id).join("state.json").exists());
        container.leaves_nothing();
    }
    let odd = container.command("run").arg("--").arg("a_B+c.d-9").succeeds();
    assert_eq!(odd.stdout, "");
    Ok(())
}

/// go-runc reads the file with a bare Atoi.
fn run_writes_the_pid_of_the_process_and_nothing_else() {
    let container = Container::with_script("echo ready; read line");
    let pid_file = container.beside("pid");
    container.run_with(["--detach", "--pid-file", pid_file.to_str().unwrap()]).succeeds();
    let digits = fs::read_to_string(&pid_file).unwrap();
    assert!(!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()), "{digits:?}");
    let in_directory = fs::read_dir(&container.bundle.home).unwrap().flatten();
    let names: Vec<_> = in_directory.map(|entry| entry.file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with(".pid")), "{names:?}");
}

fn run_leaves_no_pid_file_when_it_fails() -> Outcome {
    let container = Container::with_args(["/not/there"]);
    let pid_file = container.beside("pid");
    container
        .run_with(["--pid-file", pid_file.to_str().unwrap()])
        .fails_with_any_case("no such file or directory");
    need_other_than("runc", "writes the pid file before execve can fail")?;
    need_other_than("crun", "writes the pid file before execve can fail")?;
    assert!(!pid_file.exists());
    Ok(())
}

/// conmon-rs gives global options twice.
fn repeated_options_take_the_last() {
    let container = Container::with_script("echo last");
    let output = Invocation::of_the_runtime()
        .args(["--root", "/not/this", "--root", container.root().to_str().unwrap()])
        .args(["run", "--bundle", "/not/this", "--bundle", container.bundle.path().to_str().unwrap()])
        .arg(&container.id)
        .succeeds();
    assert_eq!(output.stdout, "last\n");
}

fn run_many_at_a_time_do_not_disturb_each_other() {
    let containers: Vec<_> = (0..8).map(|i| Container::with_script(&format!("echo {i}; exit {i}"))).collect();
    let running: Vec<_> = containers.iter().map(|container| container.spawn()).collect();
    for (i, running) in running.into_iter().enumerate() {
        let output = running.wait();
        assert_eq!(output.code(), i32::try_from(i).unwrap(), "{output:#?}");
        assert_eq!(output.stdout, format!("{i}\n"));
    }
    containers.iter().for_each(Container::leaves_nothing);
}

fn run_of_twenty_thousand_lines_loses_none() {
    assert_eq!(Container::with_script("seq 1 20000").says().lines().count(), 20_000);
}
