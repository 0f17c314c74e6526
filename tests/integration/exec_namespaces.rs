//! `exec`: which namespaces the process joins, and what it must not leak from the host.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;

use crate::exec_cgroup::freeze;
use crate::exec_process::{process_file, value};
use crate::support::bundle::remove_namespace;
use crate::support::container::{NO_OPTIONS, ROOT_OUTSIDE};
use crate::support::host::{self, is_own, need, need_other_than, need_own, need_program, need_sys_resource};
use crate::support::suite::suite;
use crate::support::{Container, Outcome, wait_until};

suite![
    the_process_is_in_all_namespaces_of_the_container,
    a_container_that_shares_namespaces_is_entered_too,
    a_container_without_a_mount_namespace_is_entered_too,
    without_a_mount_namespace_the_root_is_the_containers_wherever_it_was_made,
    nobody_enters_a_container_in_the_making,
    the_root_is_the_containers_after_no_pivot,
    a_time_namespace_is_entered,
    a_user_namespace_is_entered_as_its_root,
    the_user_in_a_user_namespace_is_the_one_asked_for,
    the_capabilities_in_a_user_namespace_are_those_asked_for,
    a_terminal_in_a_user_namespace_belongs_to_its_user,
    limits_and_the_oom_score_are_set_in_a_user_namespace_too,
    a_hard_limit_above_the_runtimes_is_set_in_a_user_namespace_too,
    a_process_that_is_not_yet_the_program_runs_no_file_of_the_host,
    cve_2016_9962_a_process_is_seen_inside_only_when_it_is_there,
    cve_2019_5736_the_runtime_cannot_be_overwritten_through_proc_self_exe,
    cve_2024_21626_a_working_directory_outside_is_refused,
    a_working_directory_through_a_link_stays_inside,
    the_environment_of_the_runtime_is_out_of_reach,
    cve_2025_52565_a_terminal_changes_no_console,
];

fn the_process_is_in_all_namespaces_of_the_container() {
    let container = Container::idling();
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

/// The mount namespace that it is in need not be that of whoever enters it.
fn without_a_mount_namespace_the_root_is_the_containers_wherever_it_was_made() -> Outcome {
    need_own()?;
    need_program("unshare")?;
    let container = Container::with_args(["sleep", "1000"]).edit(|spec| {
        remove_namespace(spec, "mount");
        spec["mounts"] = json!([]);
        for field in ["maskedPaths", "readonlyPaths"] {
            spec["linux"].as_object_mut().unwrap().remove(field);
        }
    });
    let container = container.with_file("only-inside", 0o644, "");
    container.run_with(["--detach"]).called_by(["unshare", "--mount"]).succeeds();
    assert_eq!(container.exec(["ls", "/only-inside"]).succeeds().stdout, "/only-inside\n");
    Ok(())
}

/// Until it is complete, its init process is in the host's tree.
fn nobody_enters_a_container_in_the_making() -> Outcome {
    need_own()?;
    for prestart in [json!([]), json!([{ "path": "/bin/true" }])] {
        let container = Container::idle();
        let [ready, go] = ["ready", "go"].map(|name| container.beside(name));
        mkfifo(&go, Mode::S_IRWXU).unwrap();
        let script = format!("touch {}; read line <{}", ready.display(), go.display());
        let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
        let container =
            container.edit(|spec| spec["hooks"] = json!({ "prestart": prestart, "createContainer": hook }));
        let creating = container.create_with(NO_OPTIONS).spawn();
        wait_until("the hook runs", || ready.exists());
        let output = container.exec(["ls", "/"]).output();
        assert_eq!((output.code(), &*output.stdout), (255, ""), "{output:#?}");
        fs::write(&go, "go\n").unwrap();
        assert_eq!(creating.wait().code(), 0);
        container.exec(["true"]).succeeds();
    }
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

fn a_time_namespace_is_entered() -> Outcome {
    need(Path::new("/proc/self/ns/time").exists(), "a kernel with time namespaces")?;
    need(host::has_capability(25), "CAP_SYS_TIME")?;
    let container = Container::idle().edit(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        spec["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000, "nanosecs": 0}});
    });
    container.launch();
    let uptime = container.exec(["cat", "/proc/uptime"]).succeeds().stdout;
    assert!(uptime.split('.').next().unwrap().parse::<u64>().unwrap() >= 1_000_000, "{uptime}");
    let link = container.exec(["readlink", "/proc/self/ns/time"]).succeeds().stdout;
    assert_eq!(Path::new(link.trim()), fs::read_link(format!("/proc/{}/ns/time", container.pid())).unwrap());
    Ok(())
}

/// Root of the namespace, not of the host.
fn a_user_namespace_is_entered_as_its_root() {
    let container = Container::idle().in_user_namespace();
    container.launch();
    let script = "id -u; id -g; readlink /proc/self/ns/user; cat /proc/self/uid_map; touch /made";
    let said = container.exec(["sh", "-c", script]).succeeds().stdout;
    let pid = container.pid();
    let user = fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
    let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
    assert_eq!(said, format!("0\n0\n{}\n{map}", user.display()));
    let made = fs::metadata(container.bundle.rootfs().join("made")).unwrap();
    assert_eq!([made.uid(), made.gid()], ROOT_OUTSIDE);
}

fn the_user_in_a_user_namespace_is_the_one_asked_for() -> Outcome {
    need_other_than("crun", "has no --additional-gids")?;
    let container = Container::idle().in_user_namespace();
    container.launch();
    let script = "id -u; id -g; grep -E 'Groups|CapBnd' /proc/self/status";
    let said =
        container.exec_with(["--user", "1000:2000", "-g", "5"], ["sh", "-c", script]).succeeds().stdout;
    assert!(said.starts_with("1000\n2000\n"), "{said:?}");
    assert!(value(&said, "Groups").split_whitespace().all(|group| group == "5"), "{said:?}");
    // Those of the container, whatever the runtime has.
    assert_eq!(value(&said, "CapBnd"), "0000000020000420");
    Ok(())
}

fn the_capabilities_in_a_user_namespace_are_those_asked_for() -> Outcome {
    need_other_than("crun", "replaces the container's sets")?;
    let container = Container::idle().in_user_namespace();
    container.launch();
    // CAP_SYS_RESOURCE is 24, CAP_SYS_MODULE 16: inside, a runtime that lacks them can give them.
    let options = ["--cap", "CAP_SYS_RESOURCE", "--cap", "CAP_SYS_MODULE"];
    let status = container.exec_with(options, ["cat", "/proc/self/status"]).succeeds().stdout;
    assert_eq!(value(&status, "CapEff"), "0000000021010420");
    Ok(())
}

fn a_terminal_in_a_user_namespace_belongs_to_its_user() -> Outcome {
    // The others want a terminal of the caller as well.
    need_own()?;
    let container = Container::idle().in_user_namespace();
    container.launch();
    let script = "stat -c %u $(tty); test -t 0 && echo yes >/dev/tty";
    let said = container.exec_with(["--tty", "--user", "1000"], ["sh", "-c", script]).succeeds().stdout;
    assert_eq!(said, "1000\nyes\n");
    Ok(())
}

fn limits_and_the_oom_score_are_set_in_a_user_namespace_too() {
    let container = Container::idle().in_user_namespace();
    container.launch();
    let script = "ulimit -n; ulimit -c; cat /proc/self/oom_score_adj";
    let process = json!({"cwd": "/", "args": ["/bin/sh", "-c", script], "env": ["PATH=/bin"], "oomScoreAdj": 77,
        "user": {"uid": 1000, "gid": 1000},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 55, "hard": 55}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]});
    let file = process_file(&container, &process);
    let said = container.exec_with(["--process", &file], NO_OPTIONS).succeeds().stdout;
    let score = if is_own() { "77" } else { said.lines().last().unwrap() };
    assert_eq!(said, format!("55\n0\n{score}\n"));
}

fn a_hard_limit_above_the_runtimes_is_set_in_a_user_namespace_too() -> Outcome {
    need_sys_resource()?;
    let container = Container::idle().in_user_namespace();
    container.launch();
    let process = json!({"cwd": "/", "args": ["/bin/sh", "-c", "ulimit -Hn"], "user": {"uid": 0, "gid": 0},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 55, "hard": 800_000}]});
    let file = process_file(&container, &process);
    let exec = container.exec_with(["--process", &file], NO_OPTIONS).after_shell("ulimit -n 4000;");
    assert_eq!(exec.succeeds().stdout, "800000\n");
    Ok(())
}

/// Between clone and execve the process still is the runtime: no process of the container may write to the runtime's file
/// (CVE-2019-5736).
fn a_process_that_is_not_yet_the_program_runs_no_file_of_the_host() -> Outcome {
    need_own()?;
    let container = Container::idling();
    // Frozen as soon as it is there, it stays what it is.
    freeze(&container, true);
    let running = container.exec_with(["--ignore-paused"], ["true"]).spawn();
    let parent = format!("PPid:\t{}\n", running.pid());
    let born = || {
        let members = container.control_file("cgroup.procs");
        let is_ours = |pid: &&str| {
            fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| status.contains(&parent))
        };
        members.lines().find(is_ours).map(ToOwned::to_owned)
    };
    wait_until("the process is born", || born().is_some());
    let exe = format!("/proc/{}/exe", born().unwrap());
    assert!(fs::OpenOptions::new().write(true).open(&exe).is_err(), "{exe} can be written to");
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.wait();
    freeze(&container, false);
    Ok(())
}

/// The program is the runtime itself, by way of a script's interpreter.
/// Whoever may trace follows the links of a process in /proc: before it is at the container's root they lead to the host's tree.
fn cve_2016_9962_a_process_is_seen_inside_only_when_it_is_there() -> Outcome {
    need_own()?;
    for given_by_exec in [false, true] {
        let container = Container::new();
        let secret = container.beside("secret");
        fs::write(&secret, "").unwrap();
        let look = format!(
            "trap 'exit 0' TERM; echo looking; while :; do for p in /proc/[0-9]*; do \
             if [ -e $p/root{} ]; then echo seen; fi; done; done",
            secret.display()
        );
        let names = json!(["CAP_SYS_PTRACE"]);
        let container = container.edit(|spec| {
            spec["process"]["args"] = match given_by_exec {
                false => json!(["sh", "-c", look]),
                true => json!(["sleep", "1000"]),
            };
            let names = if given_by_exec { json!([]) } else { names.clone() };
            spec["process"]["capabilities"] =
                json!({ "bounding": names, "permitted": names, "effective": names });
        });
        let looking = if given_by_exec {
            container.launch();
            container.exec_with(["--cap", "CAP_SYS_PTRACE"], ["sh", "-c", &look]).spawn()
        } else {
            container.spawn()
        };
        looking.wait_for_stdout("looking\n");
        for _ in 0..40 {
            container.exec(["true"]).succeeds();
        }
        looking.signal(Signal::SIGTERM);
        assert_eq!(looking.wait().stdout, "looking\n");
    }
    Ok(())
}

fn cve_2019_5736_the_runtime_cannot_be_overwritten_through_proc_self_exe() {
    let before = fs::read(host::runtime()).unwrap();
    let attack = "#!/bin/sh\nwhile :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || echo overwritten >$p/exe; done; \
                  done 2>/dev/null\n";
    let container = Container::idle().with_file("run.sh", 0o755, "#!/proc/self/exe\n").with_file(
        "bin/attack",
        0o755,
        attack,
    );
    container.launch();
    let attack = container.exec(["attack"]).spawn();
    for _ in 0..20 {
        let _ = container.exec(["/run.sh"]).output();
        let _ = container.exec(["/proc/self/exe"]).output();
    }
    container.delete_by_force();
    attack.end();
    assert!(fs::read(host::runtime()).unwrap() == before, "the runtime was changed");
}

/// A descriptor of the host that leaks into the container, as the directory to be in.
fn cve_2024_21626_a_working_directory_outside_is_refused() {
    let container = Container::idling();
    let outside = container.beside("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "told").unwrap();
    for number in 3..12 {
        let cwd = format!("/proc/self/fd/{number}");
        let look = ["sh", "-c", "cat secret ./secret ../outside/secret"];
        let exec = container.exec_with(["--cwd", &cwd], look);
        let output = exec.after_shell(&format!("exec 7<{};", outside.display())).output();
        assert!(!output.stdout.contains("told"), "{cwd}: {output:#?}");
    }
}

/// The image's links are the image's, whoever follows them.
fn a_working_directory_through_a_link_stays_inside() {
    let container = Container::idling();
    std::os::unix::fs::symlink("/home", container.bundle.rootfs().join("link")).unwrap();
    std::os::unix::fs::symlink("../../../../..", container.bundle.rootfs().join("up")).unwrap();
    assert_eq!(container.exec_with(["--cwd", "/link"], ["pwd"]).succeeds().stdout, "/home\n");
    let said = container.exec_with(["--cwd", "/up"], ["ls"]).succeeds().stdout;
    assert!(said.contains("link\n"), "{said:?}");
}

fn the_environment_of_the_runtime_is_out_of_reach() {
    let container = Container::idling();
    let exec = container.exec(["sh", "-c", "env; cat /proc/*/environ 2>/dev/null"]);
    let output = exec.env("HOST_SECRET", "do not tell").succeeds();
    assert!(!output.stdout.contains("do not tell"), "{output:#?}");
}

/// /dev/console is the terminal of the container's first process, and whatever the image has made of it.
fn cve_2025_52565_a_terminal_changes_no_console() {
    let container = Container::idling();
    let outside = container.beside("outside");
    fs::write(&outside, "outside").unwrap();
    let _ = container.exec(["rm", "-f", "/dev/console"]).output();
    container.exec(["ln", "-s", outside.to_str().unwrap(), "/dev/console"]).succeeds();
    let _ = container.exec_with(["--tty"], ["sh", "-c", "echo written >/dev/console"]).output();
    assert_eq!(fs::read_to_string(&outside).unwrap(), "outside");
}
