//! `exec`: the new process's cgroup, and when the process runs if the cgroup is frozen; `ps`, which lists the
//! cgroup.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::bundle::remove_namespace;
use crate::support::host::{CGROUPS, is_own, need, need_controller, need_other_than, need_own, need_program};
use crate::support::suite::suite;
use crate::support::{Container, Invocation, Outcome, wait_until};

suite![
    a_process_is_born_in_the_containers_cgroup,
    a_sub_cgroup_is_joined_when_asked_for,
    a_sub_cgroup_is_below_the_containers,
    controllers_before_the_sub_cgroup_are_known_ones,
    a_process_follows_the_init_process_into_its_leaf,
    a_process_follows_the_init_process_out_of_its_cgroup,
    a_container_without_a_cgroup_leaves_the_process_where_the_runtime_is,
    a_paused_container_is_not_entered,
    a_paused_container_is_entered_when_it_goes_on,
    an_interrupt_ends_the_wait_for_a_paused_container,
    ps_lists_the_processes_as_a_table,
    ps_lists_the_processes_as_json,
    ps_passes_options_on,
    ps_without_a_column_of_process_ids_is_an_error,
    ps_of_a_stopped_container_is_empty,
    ps_lists_processes_in_cgroups_below,
    ps_lists_the_processes_of_a_container_without_a_cgroup,
];

/// A container with one process, so that others can be counted.
fn sleeping() -> Container {
    Container::with_args(["sleep", "1000"])
}

/// A container that can change its cgroups.
fn with_writable_cgroup() -> Container {
    let container = sleeping().edit(|spec| {
        let cgroup = |mount: &&mut Value| mount["type"] == "cgroup";
        let mount = spec["mounts"].as_array_mut().unwrap().iter_mut().find(cgroup).unwrap();
        mount["options"] = json!(["nosuid", "noexec", "nodev", "relatime", "rw"]);
    });
    container.launch();
    container
}

fn own_cgroup(container: &Container, options: &[&str]) -> String {
    let output = container.exec_with(options, ["grep", "^0::", "/proc/self/cgroup"]).succeeds();
    output.stdout.trim().to_owned()
}

fn a_process_is_born_in_the_containers_cgroup() {
    let container = sleeping();
    container.launch();
    let running = container.exec(["sh", "-c", "echo ready; exec sleep 1000"]).spawn();
    running.wait_for_stdout("ready");
    let processes = container.control_file("cgroup.procs");
    assert_eq!(processes.lines().count(), 2, "{processes}");
}

fn a_sub_cgroup_is_joined_when_asked_for() {
    let container = with_writable_cgroup();
    container.exec(["mkdir", "-p", "/sys/fs/cgroup/foo/bar"]).succeeds();
    for (path, joined) in [("/", "/"), ("foo", "/foo"), ("/foo/bar", "/foo/bar"), ("foo/./bar", "/foo/bar")] {
        assert_eq!(own_cgroup(&container, &["--cgroup", path]), format!("0::{joined}"), "{path}");
    }
}

fn a_sub_cgroup_is_below_the_containers() -> Outcome {
    need_other_than("crun", "has other words")?;
    let container = with_writable_cgroup();
    for path in ["..", "../..", "/..", "a/../../b"] {
        let output = container.exec_with(["--cgroup", path], ["true"]).fails_with("sub cgroup path");
        assert!(!is_own() || output.stderr.contains("bad sub cgroup path"), "{output:#?}");
    }
    let output = container.exec_with(["--cgroup", "nonexistent"], ["true"]).fails_with(" cgroup");
    assert!(output.stderr.contains("o such file or directory"), "{output:#?}");
    Ok(())
}

/// runc ignores what looks like cgroup v1 where there is cgroup v2.
fn controllers_before_the_sub_cgroup_are_known_ones() -> Outcome {
    need_own()?;
    let container = with_writable_cgroup();
    container.exec_with(["--cgroup", "whaaat:/"], ["true"]).fails_with("unknown controller whaaat");
    container.exec_with(["--cgroup", ":/"], ["true"]).fails_with("empty <controller> prefix");
    let controllers = container.control_file("cgroup.controllers");
    if let Some(known) = controllers.split_whitespace().next() {
        assert_eq!(own_cgroup(&container, &["--cgroup", &format!("{known}:/")]), "0::/");
    }
    Ok(())
}

/// A container that runs containers, or systemd, moves its processes to a leaf and hands controllers down: its own cgroup can
/// hold no process from then on.
fn a_process_follows_the_init_process_into_its_leaf() -> Outcome {
    need_other_than("crun", "has other words for what cannot be done")?;
    need_controller("memory")?;
    let container = with_writable_cgroup();
    let move_all = "mkdir /sys/fs/cgroup/leaf; for p in $(cat /sys/fs/cgroup/cgroup.procs); do echo $p \
                    >/sys/fs/cgroup/leaf/cgroup.procs; done 2>/dev/null; cat /proc/1/cgroup";
    assert!(container.exec(["sh", "-c", move_all]).succeeds().stdout.contains("/leaf"));
    assert_eq!(own_cgroup(&container, &[]), "0::/");
    let enable =
        "echo $$ >/sys/fs/cgroup/leaf/cgroup.procs; echo +memory >/sys/fs/cgroup/cgroup.subtree_control";
    container.exec(["sh", "-e", "-c", enable]).succeeds();
    assert_eq!(own_cgroup(&container, &[]), "0::/leaf");
    assert_eq!(own_cgroup(&container, &["--cgroup", "leaf"]), "0::/leaf");
    // What was asked for by name is not replaced.
    let output = container.exec_with(["--cgroup", "/"], ["true"]).fails_with(" adding pid ");
    let busy = output.stderr.contains(" to cgroups") && output.stderr.contains("evice or resource busy");
    assert!(busy, "{output:#?}");
    Ok(())
}

fn a_process_follows_the_init_process_out_of_its_cgroup() -> Outcome {
    need_other_than("crun", "knows the first cgroup alone")?;
    let container = sleeping().edit(|spec| remove_namespace(spec, "cgroup"));
    container.launch();
    let own = container.cgroup();
    let other = own.with_file_name(format!("{}-other", container.id));
    fs::create_dir(&other).unwrap();
    for pid in fs::read_to_string(own.join("cgroup.procs")).unwrap().lines() {
        fs::write(other.join("cgroup.procs"), pid).unwrap();
    }
    wait_until("the cgroup is empty", || fs::remove_dir(&own).is_ok());
    let place = Path::new("/").join(other.strip_prefix(CGROUPS).unwrap());
    assert_eq!(own_cgroup(&container, &[]), format!("0::{}", place.display()));
    container.exec_with(["--cgroup", "/"], ["true"]).fails_with("");
    container.delete_by_force();
    wait_until("the other cgroup is empty", || fs::remove_dir(&other).is_ok());
    Ok(())
}

fn a_container_without_a_cgroup_leaves_the_process_where_the_runtime_is() -> Outcome {
    need_other_than("runc", "knows no --cgroup-manager")?;
    let container = sleeping().edit(|spec| {
        remove_namespace(spec, "cgroup");
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["type"] != "cgroup");
    });
    let without = |command: &str| container.runtime().args(["--cgroup-manager", "disabled", command]);
    let output = without("run").args(["-d", "-b"]).arg(container.bundle.path()).arg(&container.id).output();
    assert_eq!(output.code(), 0, "{output:#?}");
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find(|line| line.starts_with("0::")).unwrap();
    assert_eq!(own_cgroup(&container, &[]), own);
    need_own()?;
    container.exec_with(["--cgroup", "/"], ["true"]).fails_with("--cgroup: the container has no cgroup");
    Ok(())
}

pub fn freeze(container: &Container, frozen: bool) {
    fs::write(container.cgroup().join("cgroup.freeze"), if frozen { "1" } else { "0" }).unwrap();
    let line = format!("frozen {}", u8::from(frozen));
    wait_until(&line, || container.control_file("cgroup.events").contains(&line));
}

fn a_paused_container_is_not_entered() -> Outcome {
    need_other_than("crun", "has other words")?;
    let container = sleeping();
    container.launch();
    freeze(&container, true);
    let output = container.exec(["true"]).fails_with("cannot exec in a paused container");
    assert_eq!(output.code(), 255);
    assert!(output.stderr.contains("(use --ignore-paused to override)"), "{output:#?}");
    freeze(&container, false);
    container.exec(["true"]).succeeds();
    Ok(())
}

fn a_paused_container_is_entered_when_it_goes_on() -> Outcome {
    need_other_than("crun", "has no --ignore-paused")?;
    let container = sleeping();
    container.launch();
    freeze(&container, true);
    let running = container.exec_with(["--ignore-paused"], ["echo", "hello"]).spawn();
    let members = || container.control_file("cgroup.procs").lines().count();
    wait_until("there is a process more", || members() == 2);
    assert_eq!(running.stdout(), "");
    freeze(&container, false);
    let output = running.wait();
    assert_eq!((output.code(), output.stdout.as_str()), (0, "hello\n"));
    Ok(())
}

fn an_interrupt_ends_the_wait_for_a_paused_container() -> Outcome {
    need_own()?;
    let container = sleeping();
    container.launch();
    freeze(&container, true);
    let running = container.exec_with(["--ignore-paused"], ["echo", "hello"]).spawn();
    let members = || container.control_file("cgroup.procs").lines().count();
    wait_until("there is a process more", || members() == 2);
    running.signal(nix::sys::signal::Signal::SIGTERM);
    let output = running.wait();
    assert_eq!(output.code(), 255, "{output:#?}");
    assert!(output.stderr.contains("interrupted by SIGTERM"), "{output:#?}");
    assert_eq!(members(), 1);
    freeze(&container, false);
    Ok(())
}

/// User Mode Linux does not tell when it was booted.
fn need_ps() -> Outcome {
    need_program("ps")?;
    need(Invocation::new("ps").arg("-ef").output().code() == 0, "a ps that works here")
}

fn ps(container: &Container, arguments: &[&str]) -> Invocation {
    let (options, rest) = arguments.split_at(arguments.iter().position(|word| *word == "ID").unwrap());
    container.runtime().arg("ps").args(options).arg(&container.id).args(&rest[1..])
}

fn ps_lists_the_processes_as_a_table() -> Outcome {
    need_other_than("crun", "lists their numbers alone")?;
    need_ps()?;
    let container = sleeping();
    container.launch();
    let listed = ps(&container, &["ID"]).succeeds().stdout;
    let mut lines = listed.lines();
    let title: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(title, ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
    let pids: Vec<_> = lines.map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect();
    let mut members: Vec<_> = container.control_file("cgroup.procs").lines().map(ToOwned::to_owned).collect();
    members.sort_by_key(|pid| pid.parse::<i32>().unwrap());
    assert_eq!(pids, members);
    Ok(())
}

fn json_of(container: &Container) -> Vec<i64> {
    let output = ps(container, &["--format", "json", "ID"]).succeeds();
    let list: Value = serde_json::from_str(&output.stdout).unwrap();
    list.as_array().unwrap().iter().map(|pid| pid.as_i64().unwrap()).collect()
}

fn ps_lists_the_processes_as_json() {
    let container = sleeping();
    container.launch();
    assert_eq!(json_of(&container), [i64::from(container.pid())]);
    ps(&container, &["-f", "yaml", "ID"]).fails_with("");
}

fn ps_passes_options_on() -> Outcome {
    need_other_than("crun", "takes none")?;
    need_ps()?;
    let container = sleeping();
    container.launch();
    // In the middle of execve(2) a process has no arguments.
    let arguments = format!("/proc/{}/cmdline", container.pid());
    wait_until("its arguments show", || fs::read(&arguments).unwrap().starts_with(b"sleep\0"));
    let listed = ps(&container, &["ID", "-e", "-o", "pid,args"]).succeeds().stdout;
    let lines: Vec<_> = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    let pid = container.pid().to_string();
    assert_eq!(lines, [vec!["PID", "COMMAND"], vec![&pid, "sleep", "1000"]]);
    Ok(())
}

fn ps_without_a_column_of_process_ids_is_an_error() -> Outcome {
    need_other_than("crun", "takes no columns")?;
    need_ps()?;
    let container = sleeping();
    container.launch();
    ps(&container, &["ID", "-e", "-o", "args"]).fails_with("couldn't find PID field in ps output");
    ps(&container, &["ID", "--no-such-option"]).fails_with("");
    Ok(())
}

fn ps_of_a_stopped_container_is_empty() -> Outcome {
    need_ps()?;
    let container = sleeping();
    container.launch();
    container.kill("KILL");
    container.wait_for("stopped");
    assert_eq!(ps(&container, &["ID"]).succeeds().stdout.lines().count(), 1);
    need_other_than("crun", "prints an empty array")?;
    assert_eq!(ps(&container, &["--format=json", "ID"]).succeeds().stdout, "null\n");
    container.runtime().args(["ps", "nobody"]).fails_with("does not exist");
    Ok(())
}

fn ps_lists_processes_in_cgroups_below() {
    let container = with_writable_cgroup();
    container.exec(["mkdir", "-p", "/sys/fs/cgroup/foo/bar"]).succeeds();
    let options = ["--cgroup", "foo/bar", "--detach", "--pid-file"];
    let pid_file = container.beside("exec.pid");
    let options = options.into_iter().chain([pid_file.to_str().unwrap()]);
    container.exec_with(options, ["sleep", "1000"]).succeeds();
    let pid: i64 = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    let listed = json_of(&container);
    assert!(listed.contains(&pid) && listed.contains(&i64::from(container.pid())), "{listed:?}");
}

fn ps_lists_the_processes_of_a_container_without_a_cgroup() -> Outcome {
    need_own()?;
    let container = sleeping().edit(|spec| {
        remove_namespace(spec, "cgroup");
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["type"] != "cgroup");
    });
    let without = |command: &str| container.runtime().args(["--cgroup-manager", "disabled", command]);
    without("run").args(["-d", "-b"]).arg(container.bundle.path()).arg(&container.id).succeeds();
    let running = container.exec(["sh", "-c", "echo ready; exec sleep 1000"]).spawn();
    running.wait_for_stdout("ready");
    let listed = json_of(&container);
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert!(listed.contains(&i64::from(container.pid())), "{listed:?}");
    Ok(())
}
