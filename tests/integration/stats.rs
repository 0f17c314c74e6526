//! `stats`: resource usage, through a pipe, as JSON and on a terminal. Only this runtime has the command.

use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::bundle::remove_namespace;
use crate::support::host::{
    self, CGROUPS, has_controller, need, need_controller, need_disk, need_own, need_program,
};
use crate::support::pty::ENDING_SIGNALS;
use crate::support::suite::suite;
use crate::support::{Container, Invocation, Outcome, Pty, wait_until};

use super::cgroup::device_numbers;

suite![
    a_table_in_a_pipe_has_every_column_and_nothing_else,
    tables_in_a_pipe_follow_each_other_with_an_empty_line_until_the_container_ends,
    json_is_a_line_with_an_array_for_each_look,
    what_there_is_no_controller_for_is_a_dash,
    pressure_is_shown_where_the_kernel_measures_it,
    a_paused_container_is_shown_as_such,
    containers_come_and_go_in_the_table,
    a_created_container_is_shown_when_it_is_named,
    a_container_without_a_cgroup_is_shown_with_dashes,
    a_network_namespace_of_its_own_is_counted_and_that_of_the_host_is_not,
    a_container_that_does_not_run_is_refused,
    an_interval_is_a_length_of_time_that_is_not_zero,
    a_reader_that_leaves_ends_it_quietly,
    a_state_that_cannot_be_read_is_told_once_and_the_others_are_shown,
    a_busy_loop_uses_its_quota,
    memory_processes_and_limits_are_those_of_the_container,
    what_is_read_from_a_disk_is_counted,
    a_terminal_of_80_columns_has_what_matters_most,
    a_terminal_of_200_columns_has_all,
    a_terminal_that_changes_its_size_is_painted_anew,
    a_terminal_is_as_before_whatever_ends_it,
    a_terminal_that_takes_nothing_any_more_keeps_nobody,
    a_terminal_can_be_given_back_to_the_shell_for_a_while,
    a_job_in_the_background_leaves_the_terminal_alone,
    a_container_that_ends_vanishes_from_the_terminal,
    more_containers_than_rows_are_counted,
    a_dumb_terminal_gets_plain_tables,
];

pub const UTF8: &str = "C.UTF-8";

const TITLES: [&str; 8] = [
    "ID",
    "CPU %",
    "MEM USAGE / LIMIT",
    "MEM %",
    "PIDS / LIMIT",
    "IO READ / WRITE",
    "NET RX / TX",
    "PRESSURE CPU / MEM / IO",
];

fn stats(container: &Container, options: &[&str]) -> Invocation {
    container.runtime().arg("stats").args(options)
}

/// Another one, in the container root of the first.
pub struct Neighbour<'a> {
    root: &'a Container,
    pub container: Container,
}

impl<'a> Neighbour<'a> {
    pub fn of(root: &'a Container) -> Self {
        let container = Container::idle();
        let run = root.runtime().args(["run", "--detach", "--bundle"]).arg(container.bundle.path());
        run.arg(&container.id).succeeds();
        Self { root, container }
    }

    pub fn delete(&self) {
        self.root.runtime().args(["delete", "--force", &self.container.id]).succeeds();
    }
}

impl Drop for Neighbour<'_> {
    fn drop(&mut self) {
        self.root.runtime().args(["delete", "--force", &self.container.id]).spawn().end();
    }
}

/// What JSON says of it now.
#[track_caller]
fn report(container: &Container, interval: &str) -> Value {
    let options = ["--no-stream", "--format", "json", "--interval", interval, &container.id];
    let output = stats(container, &options).succeeds();
    assert_eq!(output.stdout.lines().count(), 1, "{output:#?}");
    let mut reports: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(reports.as_array().unwrap().len(), 1, "{output:#?}");
    reports[0].take()
}

/// The row of this container, without its name.
#[track_caller]
fn row(table: &str, id: &str) -> Vec<String> {
    let line = table.lines().find(|line| line.starts_with(id)).unwrap_or_else(|| panic!("{id}: {table}"));
    line.split_whitespace().skip(1).map(str::to_owned).collect()
}

fn a_table_in_a_pipe_has_every_column_and_nothing_else() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let output = stats(&container, &["--no-stream"]).succeeds();
    let lines: Vec<_> = output.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{output:#?}");
    let places: Vec<_> = TITLES.iter().map(|title| lines[0].find(title)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} {output:#?}");
    assert!(output.stdout.chars().all(|letter| letter == '\n' || (' '..='~').contains(&letter)));
    assert_eq!(output.stderr, "");
    let row = row(&output.stdout, &container.id);
    assert!(row[0].parse::<f64>().is_ok(), "{output:#?}");
    Ok(())
}

fn tables_in_a_pipe_follow_each_other_with_an_empty_line_until_the_container_ends() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let stats = stats(&container, &["--interval=50ms", &container.id]).spawn();
    wait_until("three tables are there", || stats.stdout().matches("CPU %").count() >= 3);
    container.terminate();
    let output = stats.wait();
    assert_eq!((output.code(), output.stderr.as_str()), (0, ""), "{output:#?}");
    for table in output.stdout.split("\n\n") {
        assert_eq!(table.trim_end().lines().count(), 2, "{output:#?}");
        assert!(table.starts_with("ID ") && table.contains(&container.id), "{output:#?}");
    }
    Ok(())
}

fn json_is_a_line_with_an_array_for_each_look() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let running = stats(&container, &["--format=json", "--interval=50ms"]).spawn();
    wait_until("three lines are there", || running.stdout().lines().count() >= 3);
    let text = running.stdout();
    running.signal(Signal::SIGTERM);
    running.end();
    // The last one may be in the writing.
    for line in text.lines().take(3) {
        let looks: Vec<Value> = serde_json::from_str(line).unwrap();
        assert_eq!(looks.len(), 1, "{line}");
        let look = looks[0].as_object().unwrap();
        assert_eq!(look["id"], container.id);
        assert_eq!(look["status"], "running");
        assert_eq!(look["pid"], container.pid());
        assert!(look["cpu_percent"].as_f64().is_some() && look["cpu_usage_ns"].is_u64(), "{line}");
        for name in [
            "time",
            "memory_usage_bytes",
            "pids_limit",
            "io_read_bytes",
            "net_rx_bytes_per_second",
            "oom_kills",
        ] {
            assert!(look.contains_key(name), "{name}: {line}");
        }
    }
    let nobody = Container::new();
    fs::create_dir(nobody.root()).unwrap();
    assert_eq!(stats(&nobody, &["--no-stream", "--format=json"]).succeeds().stdout, "[]\n");
    assert_eq!(stats(&nobody, &["--no-stream"]).succeeds().stdout.lines().count(), 1);
    Ok(())
}

fn what_there_is_no_controller_for_is_a_dash() -> Outcome {
    need_own()?;
    need(!has_controller("memory") && !has_controller("io"), "a host without the memory controller")?;
    let container = Container::idling();
    let output = stats(&container, &["--no-stream"]).succeeds();
    let row = row(&output.stdout, &container.id);
    assert_eq!(row[1..5], ["-", "/", "-", "-"], "{output:#?}");
    // They can be counted: a shell and a sleep.
    assert_eq!(row[5..8], ["2", "/", "-"], "{output:#?}");
    assert_eq!(row[8..11], ["-", "/", "-"], "{output:#?}");
    let report = report(&container, "10ms");
    for name in
        ["memory_usage_bytes", "memory_percent", "pids_limit", "io_read_bytes", "io_read_bytes_per_second"]
    {
        assert_eq!(report[name], Value::Null, "{name}: {report}");
    }
    assert_eq!(report["pids"], 2);
    Ok(())
}

fn pressure_is_shown_where_the_kernel_measures_it() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let measured = fs::read_to_string(format!("{CGROUPS}/cpu.pressure")).is_ok_and(|text| !text.is_empty());
    let report = report(&container, "10ms");
    for name in ["cpu_pressure_percent", "memory_pressure_percent", "io_pressure_percent"] {
        assert_eq!(report[name].is_number(), measured, "{name}: {report}");
    }
    let output = stats(&container, &["--no-stream", "--interval=10ms"]).succeeds();
    let row = row(&output.stdout, &container.id);
    assert_eq!(row.last().unwrap() == "-", !measured, "{output:#?}");
    Ok(())
}

fn a_paused_container_is_shown_as_such() -> Outcome {
    need_own()?;
    let container = Container::idling();
    container.on_id("pause").succeeds();
    let output = stats(&container, &["--no-stream", "--interval=10ms"]).succeeds();
    assert_eq!(row(&output.stdout, &container.id)[0], "paused", "{output:#?}");
    assert_eq!(report(&container, "10ms")["status"], "paused");
    Ok(())
}

fn containers_come_and_go_in_the_table() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let stats = stats(&container, &["--interval=50ms"]).spawn();
    let last_table = || stats.stdout().rsplit("\n\n").next().unwrap_or_default().to_owned();
    let other = Neighbour::of(&container);
    wait_until("the other container has come", || last_table().contains(&other.container.id));
    other.delete();
    wait_until("the other container has gone", || {
        let table = last_table();
        table.contains(&container.id) && !table.contains(&other.container.id)
    });
    container.delete_by_force();
    wait_until("only the titles are left", || {
        last_table().starts_with("ID ") && last_table().ends_with('\n') && last_table().lines().count() == 1
    });
    assert_eq!(stats.stderr(), "");
    stats.signal(Signal::SIGINT);
    stats.end();
    Ok(())
}

fn a_created_container_is_shown_when_it_is_named() -> Outcome {
    need_own()?;
    let container = Container::idle();
    container.create();
    assert_eq!(report(&container, "10ms")["status"], "created");
    let output = stats(&container, &["--no-stream", "--interval=10ms"]).succeeds();
    assert_eq!(output.stdout.lines().count(), 1, "{output:#?}");
    Ok(())
}

fn a_container_without_a_cgroup_is_shown_with_dashes() -> Outcome {
    need_own()?;
    let container = Container::idle();
    let run = container.runtime().args(["--cgroup-manager", "disabled", "run", "--detach", "--bundle"]);
    run.arg(container.bundle.path()).arg(&container.id).succeeds();
    let report = report(&container, "10ms");
    for name in ["cpu_usage_ns", "cpu_percent", "memory_usage_bytes", "pids"] {
        assert_eq!(report[name], Value::Null, "{name}: {report}");
    }
    let output = stats(&container, &["--no-stream", "--interval=10ms"]).succeeds();
    assert_eq!(row(&output.stdout, &container.id)[0], "-", "{output:#?}");
    Ok(())
}

fn a_network_namespace_of_its_own_is_counted_and_that_of_the_host_is_not() -> Outcome {
    need_own()?;
    need_program("nsenter")?;
    need_program("ip")?;
    let container = Container::idling();
    assert_eq!(report(&container, "10ms")["net_tx_bytes"], 0);
    // A question about an address that nobody has, from one end of a pair to the other.
    let script = "ip link add a0 type veth peer name b0 && ip link set a0 up && ip link set b0 up && \
        ip addr add 10.9.8.7/24 dev a0 && { \"$BUSYBOX\" ping -c 1 -W 1 10.9.8.9; true; }";
    let enter = Invocation::new("nsenter").arg(format!("--net=/proc/{}/ns/net", container.pid()));
    let made = enter.args(["sh", "-c", script]).output();
    need(made.code() == 0, format_args!("virtual Ethernet: {}", made.stderr.trim()))?;
    wait_until("something was sent and received", || {
        let report = report(&container, "10ms");
        report["net_tx_bytes"].as_u64() > Some(0) && report["net_rx_bytes"].as_u64() > Some(0)
    });
    let of_the_host = Container::idle().edit(|spec| {
        remove_namespace(spec, "network");
        // A sysfs of its own needs a network namespace of its own.
        spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/sys");
    });
    of_the_host.launch();
    assert_eq!(report(&of_the_host, "10ms")["net_rx_bytes"], Value::Null);
    Ok(())
}

fn a_container_that_does_not_run_is_refused() -> Outcome {
    need_own()?;
    let container = Container::new();
    container.launch();
    container.wait_for("stopped");
    stats(&container, &[&container.id]).fails_with("container not running");
    stats(&container, &["nobody"]).fails_with("container \"nobody\" does not exist");
    let output = stats(&container, &["--no-stream"]).succeeds();
    assert_eq!(output.stdout.lines().count(), 1, "{output:#?}");
    stats(&Container::new(), &["--no-stream"]).fails_with("read root");
    Ok(())
}

fn an_interval_is_a_length_of_time_that_is_not_zero() -> Outcome {
    need_own()?;
    let container = Container::idling();
    for interval in ["0", "0s", "-1s", "5", "1d"] {
        stats(&container, &["--interval", interval]).fails_with("interval");
    }
    stats(&container, &["--format", "xml"]).fails_with("invalid format option \"xml\"");
    Ok(())
}

fn a_reader_that_leaves_ends_it_quietly() -> Outcome {
    need_own()?;
    let container = Container::idling();
    for options in [&["--interval=50ms"][..], &["--interval=50ms", "--format=json"], &["--interval=1h"]] {
        let words = stats(&container, options).words();
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0]).unwrap();
        drop(stdout);
        let status = crate::support::wait::ends_within(host::patience(), &mut child);
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{options:?}");
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "", "{options:?}");
    }
    Ok(())
}

fn a_state_that_cannot_be_read_is_told_once_and_the_others_are_shown() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let broken = container.root().join("broken");
    fs::create_dir(&broken).unwrap();
    fs::write(broken.join("state.json"), "{").unwrap();
    let stats = stats(&container, &["--interval=50ms"]).spawn();
    wait_until("three tables are there", || stats.stdout().matches(&container.id).count() >= 3);
    assert_eq!(stats.stderr().matches("load container broken: ").count(), 1, "{}", stats.stderr());
    stats.signal(Signal::SIGTERM);
    stats.end();
    Ok(())
}

fn a_busy_loop_uses_its_quota() -> Outcome {
    need_own()?;
    need_controller("cpu")?;
    let container =
        Container::limited("while :; do :; done", &json!({ "cpu": { "quota": 20_000, "period": 100_000 } }));
    container.launch();
    assert_eq!(report(&container, "10ms")["cpu_limit_percent"], 20.0);
    let mut last = Value::Null;
    let near = crate::support::wait::holds_within(host::patience(), || {
        last = report(&container, "1s");
        last["cpu_percent"].as_f64().is_some_and(|percent| (15.0..25.0).contains(&percent))
    });
    assert!(near, "{last}");
    let output = stats(&container, &["--no-stream", "--interval=1s"]).succeeds();
    let percent: f64 = row(&output.stdout, &container.id)[0].parse().unwrap();
    assert!((5.0..35.0).contains(&percent), "{output:#?}");
    Ok(())
}

fn memory_processes_and_limits_are_those_of_the_container() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    need_controller("pids")?;
    let container = Container::limited(
        "head -c 8388608 /dev/zero >/dev/shm/file; sleep 1000 & sleep 1000 & echo ready; wait",
        &json!({ "memory": { "limit": 33_554_432 }, "pids": { "limit": 21 } }),
    );
    container.launch().wait_for_stdout("ready");
    let report = report(&container, "10ms");
    let used = report["memory_usage_bytes"].as_u64().unwrap();
    assert!((8_388_608..12_582_912).contains(&used), "{report}");
    assert!(report["memory_current_bytes"].as_u64() >= Some(used), "{report}");
    assert_eq!(report["memory_limit_bytes"], 33_554_432, "{report}");
    let percent = report["memory_percent"].as_f64().unwrap();
    assert!((25.0..37.5).contains(&percent), "{report}");
    assert_eq!((&report["pids"], &report["pids_limit"]), (&json!(3), &json!(21)), "{report}");
    assert_eq!(report["oom_kills"], 0, "{report}");
    let output = stats(&container, &["--no-stream", "--interval=10ms"]).succeeds();
    let row = row(&output.stdout, &container.id);
    assert!(row[1].ends_with("MiB"), "{output:#?}");
    assert_eq!(row[3], "32.0MiB", "{output:#?}");
    assert_eq!(row[5..8], ["3", "/", "21"], "{output:#?}");
    Ok(())
}

fn what_is_read_from_a_disk_is_counted() -> Outcome {
    need_own()?;
    need_controller("io")?;
    let container = Container::that_reads_a_disk(device_numbers(&need_disk()?));
    container.launch().wait_for_stdout("ready");
    assert!(report(&container, "10ms")["io_read_bytes"].as_u64() >= Some(262_144));
    Ok(())
}

/// The table that a terminal shows.
fn in_terminal(container: &Container, options: &[&str], columns: u16, rows: u16) -> Pty {
    Pty::spawn(&stats(container, options), columns, rows, UTF8)
}

/// As much of a name as a narrow table leaves.
pub fn beginning(id: &str) -> &str {
    id.get(..10).unwrap_or(id)
}

/// Waits for the second table, which has processor times in it.
#[track_caller]
fn wait_for_times(terminal: &mut Pty, id: &str) -> String {
    let cell = |shown: &crate::support::pty::Shown| -> Option<f64> {
        shown.line(beginning(id))?.split_whitespace().nth(1)?.parse().ok()
    };
    terminal.wait_until("the table has times", |shown| cell(shown).is_some());
    terminal.shown.text()
}

fn a_terminal_of_80_columns_has_what_matters_most() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let mut terminal = in_terminal(&container, &["--interval=100ms"], 80, 24);
    let text = wait_for_times(&mut terminal, &container.id);
    let titles = text.lines().next().unwrap();
    for (title, is_there) in TITLES.iter().zip([true, true, true, true, true, true, false, false]) {
        assert_eq!(titles.contains(title), is_there, "{title}: {text}");
    }
    // In place: there is one table, at the top.
    assert_eq!((text.matches("CPU %").count(), text.trim_end().lines().count()), (1, 2), "{text}");
    assert!(terminal.shown.cursor_is_hidden && !terminal.shown.is_alternate);
    terminal.types("q");
    assert_eq!(terminal.ends().code(), Some(0));
    // The last table stays.
    assert!(terminal.shown.text().contains(beginning(&container.id)));
    Ok(())
}

fn a_terminal_of_200_columns_has_all() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let mut terminal = in_terminal(&container, &["--interval=100ms"], 200, 50);
    let text = wait_for_times(&mut terminal, &container.id);
    assert!(TITLES.iter().all(|title| text.contains(title)), "{text}");
    terminal.types("\x03");
    // As shells and docker have it.
    assert_eq!(terminal.ends().code(), Some(130));
    let mut once = in_terminal(&container, &["--no-stream", "--interval=10ms"], 40, 24);
    assert_eq!(once.ends().code(), Some(0));
    assert!(!once.written.contains('\u{1b}') && once.written.lines().all(|line| line.chars().count() <= 40));
    Ok(())
}

fn a_terminal_that_changes_its_size_is_painted_anew() -> Outcome {
    need_own()?;
    let container = Container::idling();
    // Not because it is time.
    let mut terminal = in_terminal(&container, &["--interval=1h"], 80, 24);
    wait_for_times(&mut terminal, &container.id);
    terminal.resize(200, 50);
    terminal.wait_for("PRESSURE");
    terminal.resize(30, 5);
    terminal.wait_until("the table is narrow", |shown| shown.text().contains("CPU %"));
    assert!(!terminal.shown.text().contains("MEM"), "{}", terminal.shown.text());
    terminal.types("\x03");
    assert_eq!(terminal.ends().code(), Some(130));
    Ok(())
}

fn a_terminal_is_as_before_whatever_ends_it() -> Outcome {
    need_own()?;
    let container = Container::idling();
    for (signal, code) in ENDING_SIGNALS {
        let mut terminal = in_terminal(&container, &[], 120, 24);
        terminal.wait_for(&container.id);
        terminal.signal(signal);
        assert_eq!(terminal.ends().code(), Some(code), "{signal}");
    }
    Ok(())
}

fn a_terminal_that_takes_nothing_any_more_keeps_nobody() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let mut terminal = in_terminal(&container, &["--interval=20ms"], 120, 24);
    terminal.wait_for(&container.id);
    // Ctrl-S stops the output, with a table half written at most.
    terminal.types("\x13");
    terminal.wait_until_silent();
    terminal.signal(Signal::SIGTERM);
    assert_eq!(terminal.ends_unseen().code(), Some(143));
    Ok(())
}

/// By Ctrl-Z, as far as a shell is there that takes it.
fn a_terminal_can_be_given_back_to_the_shell_for_a_while() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let words = stats(&container, &["--interval=50ms"]).words().join("' '");
    let script = format!(
        "'{words}'; echo \"back: $(stty -a | grep -c -w -e -icanon)\"; read line; fg >/dev/null; echo \"end $?\""
    );
    let mut terminal = Pty::spawn(&Invocation::new("sh").args(["-m", "-c", &script]), 120, 24, UTF8);
    terminal.wait_for(&container.id);
    terminal.types("\x1a");
    terminal.wait_until("the shell is back, and the terminal as before", |shown| {
        shown.text().contains("back: 0") && !shown.cursor_is_hidden
    });
    terminal.types("\n");
    terminal.wait_until("the table is back", |shown| {
        shown.cursor_is_hidden && shown.text().contains(&container.id)
    });
    terminal.types("q");
    terminal.ends();
    assert!(terminal.shown.text().contains("end 0"), "{}", terminal.shown.text());
    Ok(())
}

fn a_job_in_the_background_leaves_the_terminal_alone() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let words = stats(&container, &["--interval=20ms"]).words().join("' '");
    let script = format!("'{words}' & echo started; read line; fg >/dev/null; echo \"end $?\"");
    let mut terminal = Pty::spawn(&Invocation::new("sh").args(["-m", "-c", &script]), 120, 24, UTF8);
    terminal.wait_for("started");
    terminal.wait_until_silent();
    assert!(!terminal.written.contains('\u{1b}'), "{:?}", terminal.written);
    // What is typed is the shell's.
    terminal.types("q\n");
    terminal.wait_for(&container.id);
    terminal.types("q");
    terminal.ends();
    assert!(terminal.shown.text().contains("end 0"), "{}", terminal.shown.text());
    Ok(())
}

fn a_container_that_ends_vanishes_from_the_terminal() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let other = Neighbour::of(&container);
    let mut terminal = in_terminal(&container, &["--interval=50ms"], 120, 24);
    terminal.wait_until("both are there", |shown| {
        shown.text().contains(&container.id) && shown.text().contains(&other.container.id)
    });
    other.delete();
    terminal.wait_until("one is there", |shown| {
        let text = shown.text();
        text.contains(&container.id) && !text.contains(&other.container.id)
    });
    drop(terminal);
    // One that is named ends it, and long before it is time.
    let mut terminal = in_terminal(&container, &["--interval=1h", &container.id], 120, 24);
    terminal.wait_for(&container.id);
    container.terminate();
    assert_eq!(terminal.ends().code(), Some(0));
    Ok(())
}

fn more_containers_than_rows_are_counted() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let others = [Neighbour::of(&container), Neighbour::of(&container)];
    let mut terminal = in_terminal(&container, &[], 80, 4);
    // Of four rows one stays free.
    terminal.wait_for("and 2 more");
    assert_eq!(terminal.shown.text().trim_end().lines().count(), 3, "{}", terminal.shown.text());
    drop(others);
    Ok(())
}

fn a_dumb_terminal_gets_plain_tables() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let words = stats(&container, &["--interval=50ms"]).words();
    let call = Invocation::new("env").arg("TERM=dumb").args(words);
    let mut terminal = Pty::spawn(&call, 200, 50, UTF8);
    terminal.wait_until("two tables are there", |shown| shown.text().matches("PRESSURE").count() >= 2);
    assert!(!terminal.written.contains('\u{1b}'), "{:?}", terminal.written);
    Ok(())
}
