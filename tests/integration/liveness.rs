//! When a container counts as stopped, and how `kill` and `delete` treat processes that are alive or dying.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::support::bundle::remove_namespace;
use crate::support::hold::Held;
use crate::support::host::{need, need_own};
use crate::support::subreaper::run_under_idle_subreaper;
use crate::support::suite::suite;
use crate::support::{Container, Outcome, elf, wait_until};

suite![
    a_container_lives_on_without_its_main_thread,
    kill_reaches_a_program_without_its_main_thread,
    delete_with_force_ends_a_program_without_its_main_thread,
    a_process_without_its_main_thread_ends_with_the_container,
    a_container_lives_on_while_a_thread_executes_a_program,
    delete_waits_for_a_container_that_is_being_killed,
    delete_waits_no_longer_than_a_second_for_one_that_is_being_killed,
    delete_with_force_says_that_a_container_does_not_die,
    a_container_has_stopped_even_if_nobody_reaps_its_zombies,
    a_container_without_a_cgroup_has_stopped_even_if_nobody_reaps_its_zombies,
];

/// A container whose program is this.
fn of_program(program: &[u8]) -> Result<Container, crate::support::host::Skip> {
    need(elf::runs_here(), "x86_64")?;
    let container = Container::with_args(["/bin/program"]);
    put(&container, program);
    Ok(container)
}

fn put(container: &Container, program: &[u8]) {
    let path = container.bundle.rootfs().join("bin/program");
    fs::write(&path, program).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The state of a thread, `Z` for a zombie; proc_pid_stat(5).
fn state_of(directory: impl AsRef<Path>) -> Option<char> {
    let stat = fs::read_to_string(directory.as_ref().join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn process(pid: i32) -> String {
    format!("/proc/{pid}")
}

/// Runs one whose main thread has ended. `kinds` of namespaces it does not have.
fn without_main_thread(kinds: &[&str]) -> Result<(Container, i32), crate::support::host::Skip> {
    let container = of_program(&elf::that_outlives_its_main_thread())?;
    let container = container.edit(|spec| kinds.iter().for_each(|kind| remove_namespace(spec, kind)));
    let pid_file = container.beside("pid");
    container.create_with(["--pid-file".as_ref(), pid_file.as_os_str()]).succeeds();
    container.start();
    let pid = fs::read_to_string(pid_file).unwrap().parse().unwrap();
    wait_until("its main thread has ended", || state_of(process(pid)) == Some('Z'));
    Ok((container, pid))
}

/// With and without a pid namespace of its own.
const BOTH: [&[&str]; 2] = [&[], &["pid"]];

fn a_container_lives_on_without_its_main_thread() -> Outcome {
    need_own()?;
    for kinds in BOTH {
        let (container, pid) = without_main_thread(kinds)?;
        assert_eq!(container.state()["status"], "running");
        assert_eq!(container.pid(), pid);
        let list = container.runtime().arg("list").succeeds().stdout;
        assert!(list.contains(" running "), "{list}");
        container.on_id("delete").fails_with("that is not stopped: running");
        assert_eq!(container.control_file("cgroup.procs"), pid.to_string());
        assert_eq!(container.state()["status"], "running");
    }
    Ok(())
}

fn kill_reaches_a_program_without_its_main_thread() -> Outcome {
    need_own()?;
    for kinds in BOTH {
        let (container, _) = without_main_thread(kinds)?;
        container.kill("KILL");
        container.wait_for("stopped");
        container.delete();
        container.leaves_nothing();
    }
    // The first process of a pid namespace would ignore it.
    let (container, _) = without_main_thread(&["pid"])?;
    container.kill("TERM");
    container.wait_for("stopped");
    Ok(())
}

fn delete_with_force_ends_a_program_without_its_main_thread() -> Outcome {
    need_own()?;
    for kinds in BOTH {
        let (container, pid) = without_main_thread(kinds)?;
        container.delete_by_force();
        assert!(!matches!(state_of(process(pid)), Some(state) if state != 'Z'));
        container.leaves_nothing();
    }
    Ok(())
}

/// `cgroup.kill` does not reach it.
fn a_process_without_its_main_thread_ends_with_the_container() -> Outcome {
    need_own()?;
    need(elf::runs_here(), "x86_64")?;
    let container =
        Container::with_script("/bin/program & echo ready; wait").edit(|spec| remove_namespace(spec, "pid"));
    put(&container, &elf::that_outlives_its_main_thread());
    container.launch().wait_for_stdout("ready");
    let main_thread_has_ended =
        |pid: &str| state_of(format!("/proc/{pid}")) == Some('Z') && pid != container.pid().to_string();
    wait_until("a main thread has ended", || {
        container.control_file("cgroup.procs").lines().any(main_thread_has_ended)
    });
    container.kill("KILL");
    wait_until("the cgroup is empty", || container.control_file("cgroup.procs").is_empty());
    container.delete();
    container.leaves_nothing();
    Ok(())
}

/// execve(2) ends all other threads first, the main thread included: here one of them is held up.
fn a_container_lives_on_while_a_thread_executes_a_program() -> Outcome {
    need_own()?;
    let container = of_program(&elf::that_executes_in_a_thread())?;
    let fifo = container.bundle.rootfs().join("tmp/go");
    mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    container.launch();
    let pid = container.pid();
    let mut bystander = None;
    wait_until("its threads run", || {
        let names: Vec<(i32, String)> = fs::read_dir(format!("/proc/{pid}/task"))
            .unwrap()
            .flatten()
            .map(|thread| {
                let name = fs::read_to_string(thread.path().join("comm")).unwrap();
                (thread.file_name().to_str().unwrap().parse().unwrap(), name.trim_end().to_owned())
            })
            .collect();
        bystander = names.iter().find(|(thread, name)| *thread != pid && name != elf::EXECUTOR).cloned();
        names.len() == 3 && names.iter().any(|(_, name)| name == elf::EXECUTOR)
    });
    let held = Held::at_exit(bystander.unwrap().0);
    fs::write(&fifo, "").unwrap();
    wait_until("its main thread has ended", || state_of(process(pid)) == Some('Z'));
    assert_eq!(container.state()["status"], "running");
    container.on_id("delete").fails_with("that is not stopped: running");
    assert_eq!(container.state()["status"], "running");
    drop(held);
    let name = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    wait_until("the program has been executed", || name() == "sleep\n");
    assert_eq!(container.state()["status"], "running");
    Ok(())
}

/// A running container whose init process cannot exit.
fn undying() -> (Container, Held) {
    let container = Container::idling();
    let held = Held::at_exit(container.pid());
    (container, held)
}

fn wait_until_held(pid: i32) {
    wait_until("it is held at its end", || state_of(process(pid)) == Some('t'));
}

fn delete_waits_for_a_container_that_is_being_killed() -> Outcome {
    need_own()?;
    let (container, held) = undying();
    let pid = container.pid();
    container.kill("KILL");
    wait_until_held(pid);
    let delete = container.on_id("delete").spawn();
    // Z: it has not waited.
    wait_until("it waits", || matches!(state_of(process(delete.pid())), Some('S' | 'Z')));
    drop(held);
    let output = delete.wait();
    assert_eq!(output.code(), 0, "{output:#?}");
    container.leaves_nothing();
    Ok(())
}

fn delete_waits_no_longer_than_a_second_for_one_that_is_being_killed() -> Outcome {
    need_own()?;
    let (container, _held) = undying();
    let pid = container.pid();
    container.kill("KILL");
    wait_until_held(pid);
    let begun = Instant::now();
    container.on_id("delete").fails_with("that is not stopped: running");
    assert!(begun.elapsed() > Duration::from_millis(900), "{:?}", begun.elapsed());
    assert_eq!(container.state()["status"], "running");
    Ok(())
}

fn delete_with_force_says_that_a_container_does_not_die() -> Outcome {
    need_own()?;
    let (container, held) = undying();
    let pid = container.pid();
    let output = container.runtime().args(["delete", "--force", &container.id]).output();
    assert_eq!(output.code(), 1, "{output:#?}");
    let said = format!("container init still running: process {pid} has not exited within 10s of SIGKILL");
    assert!(output.stderr.contains(&said), "{output:#?}");
    assert_eq!((&container.state()["status"], container.pid()), (&"running".into(), pid));
    drop(held);
    container.delete_by_force();
    container.leaves_nothing();
    Ok(())
}

/// The first process of a pid namespace exits when all others have been reaped, also one whose parent is
/// outside.
fn stops_although_a_zombie_remains(container: &Container) {
    let pid = container.pid();
    let subreaper = run_under_idle_subreaper(&container.exec_with(["--detach"], ["sleep", "1000"]));
    container.kill("KILL");
    container.wait_for("stopped");
    for _ in 0..3 {
        assert_eq!(container.state()["status"], "stopped");
    }
    assert_eq!(state_of(process(pid)), Some('S'));
    container.on_id("kill").fails_with("container not running");
    container.delete();
    assert_eq!(state_of(process(pid)), Some('S'));
    drop(subreaper);
    container.leaves_nothing();
}

fn a_container_has_stopped_even_if_nobody_reaps_its_zombies() -> Outcome {
    need_own()?;
    stops_although_a_zombie_remains(&Container::idling());
    // Nor does --force wait for it.
    let container = Container::idling();
    let subreaper = run_under_idle_subreaper(&container.exec_with(["--detach"], ["sleep", "1000"]));
    container.delete_by_force();
    drop(subreaper);
    container.leaves_nothing();
    Ok(())
}

fn a_container_without_a_cgroup_has_stopped_even_if_nobody_reaps_its_zombies() -> Outcome {
    need_own()?;
    let container = Container::idle();
    let call = container.runtime().args(["--cgroup-manager", "disabled", "create", "--bundle"]);
    call.arg(container.bundle.path()).arg(&container.id).succeeds();
    container.start();
    stops_although_a_zombie_remains(&container);
    Ok(())
}
