//! Seccomp filters: `linux.seccomp`, as enforced by the kernel.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::agent::{Agent, Call, Met, Say};
use crate::support::container::NO_OPTIONS;
use crate::support::elf::{self, Gate, calling};
use crate::support::host::{kind, machine, need, need_other_than, need_own};
use crate::support::suite::suite;
use crate::support::{Container, Outcome, user, workspace};

suite![
    a_call_is_answered_with_the_errno_of_its_rule,
    a_call_that_no_rule_names_gets_the_default_action,
    a_call_that_ends_the_process_shows_as_its_signal,
    arguments_decide_whether_a_rule_applies,
    a_call_that_is_newer_than_the_profile_does_not_exist,
    calls_of_another_architecture_end_the_process_unless_it_is_listed,
    a_logged_call_is_made,
    a_profile_need_allow_no_more_than_execve_and_what_the_program_does,
    a_filter_costs_the_process_none_of_its_capabilities,
    a_filter_is_loaded_in_a_user_namespace,
    a_process_that_is_added_has_the_filter_of_its_container,
    start_container_hooks_are_filtered_but_what_runs_them_is_not,
    what_keeps_a_program_from_starting_is_said,
    a_filter_is_kept_until_the_container_is_deleted,
    names_that_no_call_has_are_ignored_unless_an_annotation_forbids_it,
    the_flags_are_in_the_debug_log,
    dockers_and_podmans_profiles_run_a_shell,
    an_agent_is_told_whose_calls_it_gets,
    an_agent_answers_for_the_kernel,
    an_agent_answers_for_the_containers_of_a_user_too,
    an_agents_caller_can_be_kept_from_signals_but_for_the_fatal_ones,
    an_agent_may_be_asked_about_what_the_runtime_does_last,
    an_agent_hears_of_a_created_container_before_it_starts,
    an_agent_hears_of_a_process_that_is_added,
    an_agent_that_is_not_there_is_named,
];

const EPERM: i32 = 1;
const EBADF: i32 = 9;
const ENOSYS: i32 = 38;
/// 128 and SIGSYS.
const BAD_CALL: i32 = 159;

fn with_profile(container: Container, profile: Value) -> Container {
    container.edit(|spec| spec["linux"]["seccomp"] = profile)
}

/// A container whose program makes one call.
fn that_calls(gate: Gate, number: u32, arguments: [u64; 3]) -> Container {
    let container = Container::with_args(["/bin/call"]);
    let path = container.bundle.rootfs().join("bin/call");
    fs::write(&path, calling(gate, number, arguments)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    container
}

fn need_x86_64() -> Outcome {
    need(elf::runs_here(), "x86_64")
}

/// Both ways in which the kernel takes a filter.
fn with_and_without_new_privileges(test: impl Fn(bool)) {
    test(true);
    test(false);
}

fn allow(names: &[&str]) -> Value {
    json!({"names": names, "action": "SCMP_ACT_ALLOW"})
}

fn a_call_is_answered_with_the_errno_of_its_rule() {
    with_and_without_new_privileges(|no_new_privileges| {
        for (errno, said) in [(None, "Operation not permitted"), (Some(100), "Network is down")] {
            let mut rule = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"});
            if let Some(errno) = errno {
                rule["errnoRet"] = json!(errno);
            }
            let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
            let container = with_profile(Container::with_args(["mkdir", "/tmp/a"]), profile)
                .edit(|spec| spec["process"]["noNewPrivileges"] = json!(no_new_privileges));
            container.run_fails_with(said);
        }
    });
}

fn a_call_that_no_rule_names_gets_the_default_action() -> Outcome {
    need_x86_64()?;
    need_own()?; // The others make more calls before the program's first.
    for (action, errno, expected) in [
        ("SCMP_ACT_ERRNO", None, EPERM),
        ("SCMP_ACT_ERRNO", Some(100), 100),
        ("SCMP_ACT_KILL", None, BAD_CALL),
        ("SCMP_ACT_KILL_THREAD", None, BAD_CALL),
        ("SCMP_ACT_KILL_PROCESS", None, BAD_CALL),
        ("SCMP_ACT_TRAP", None, BAD_CALL),
        // There is no tracer.
        ("SCMP_ACT_TRACE", None, ENOSYS),
    ] {
        let profile = json!({"defaultAction": action, "defaultErrnoRet": errno,
            "syscalls": [allow(&["execve", "exit"])]});
        // getpid, which has a lower number than what is allowed.
        let container = with_profile(that_calls(Gate::Own, 39, [0; 3]), profile);
        assert_eq!(container.run().code(), expected, "{action}");
        container.leaves_nothing();
    }
    Ok(())
}

fn a_call_that_ends_the_process_shows_as_its_signal() {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS"] {
        let rule = json!({"names": ["mkdir", "mkdirat"], "action": action});
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
        let container = with_profile(Container::with_args(["mkdir", "/tmp/a"]), profile);
        assert_eq!(container.run().code(), BAD_CALL, "{action}");
    }
}

fn arguments_decide_whether_a_rule_applies() -> Outcome {
    need_x86_64()?;
    const BEYOND: u64 = 0x1_0000_0005;
    for (op, value, value_two, argument, applies) in [
        ("SCMP_CMP_EQ", BEYOND, 0_u64, BEYOND, true),
        ("SCMP_CMP_EQ", BEYOND, 0, 5, false),
        ("SCMP_CMP_NE", BEYOND, 0, 5, true),
        ("SCMP_CMP_NE", BEYOND, 0, BEYOND, false),
        ("SCMP_CMP_LT", BEYOND, 0, BEYOND - 1, true),
        ("SCMP_CMP_LT", BEYOND, 0, BEYOND, false),
        ("SCMP_CMP_LE", BEYOND, 0, BEYOND, true),
        ("SCMP_CMP_LE", BEYOND, 0, BEYOND + 1, false),
        ("SCMP_CMP_GE", BEYOND, 0, BEYOND, true),
        ("SCMP_CMP_GE", BEYOND, 0, 6, false),
        ("SCMP_CMP_GT", BEYOND, 0, BEYOND + 1, true),
        ("SCMP_CMP_GT", BEYOND, 0, BEYOND, false),
        ("SCMP_CMP_MASKED_EQ", 0xff_0000_00f0, 0x01_0000_0000, BEYOND, true),
        ("SCMP_CMP_MASKED_EQ", 0xff_0000_00f0, 0x01_0000_0000, 0x15 | BEYOND, false),
    ] {
        // lseek of a descriptor that is not open.
        let args = json!([{"index": 0, "value": 77, "op": "SCMP_CMP_EQ"},
            {"index": 1, "value": value, "valueTwo": value_two, "op": op}]);
        let rule = json!({"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99, "args": args});
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
        let container = with_profile(that_calls(Gate::Own, 8, [77, argument, 0]), profile);
        let expected = if applies { 99 } else { EBADF };
        assert_eq!(container.run().code(), expected, "{op} {value:#x} {argument:#x}");
    }
    Ok(())
}

fn a_call_that_is_newer_than_the_profile_does_not_exist() -> Outcome {
    need_x86_64()?;
    need_own()?; // As above.
    let profile = json!({"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [allow(&["execve", "exit"])]});
    // exit is 60.
    for (number, expected) in [(59 - 1, BAD_CALL), (61, ENOSYS), (435, ENOSYS)] {
        let container = with_profile(that_calls(Gate::Own, number, [0; 3]), profile.clone());
        assert_eq!(container.run().code(), expected, "{number}");
    }
    Ok(())
}

fn calls_of_another_architecture_end_the_process_unless_it_is_listed() -> Outcome {
    need_x86_64()?;
    need(machine() != "quick", "a kernel that is not a process of another one")?;
    // getpid
    let program = calling(Gate::I386, 20, [0; 3]);
    need(runs_on_the_host(&program), "a kernel that runs programs for i386")?;
    let listed = |architectures: &[&str]| {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures});
        with_profile(that_calls(Gate::I386, 20, [0; 3]), profile).run().code()
    };
    assert_eq!(listed(&["SCMP_ARCH_X86_64"]), BAD_CALL);
    // The first process is number 1, and the status is that, negated.
    assert_eq!(listed(&["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]), 255);
    let rule = json!({"names": ["getpid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99});
    let profile =
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": [rule]});
    let container = with_profile(that_calls(Gate::I386, 20, [0; 3]), profile);
    assert_eq!(container.run().code(), 99);
    Ok(())
}

fn runs_on_the_host(program: &[u8]) -> bool {
    let path = workspace::directory().join(workspace::unique_name());
    fs::write(&path, program).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    Command::new(&path).status().unwrap().code().is_some()
}

fn a_logged_call_is_made() {
    let profile = json!({"defaultAction": "SCMP_ACT_LOG", "flags": ["SECCOMP_FILTER_FLAG_LOG"]});
    let container = with_profile(Container::with_args(["grep", "Seccomp:", "/proc/self/status"]), profile);
    assert_eq!(container.says(), "Seccomp:\t2");
}

fn a_profile_need_allow_no_more_than_execve_and_what_the_program_does() -> Outcome {
    need_x86_64()?;
    need_own()?;
    with_and_without_new_privileges(|no_new_privileges| {
        for uid in [0, 1000] {
            let calls = allow(&["execve", "write", "exit"]);
            let profile = json!({"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [calls]});
            // write: a part of its own header.
            let container = that_calls(Gate::Own, 1, [1, elf::BASE + 1, 3]);
            let container = with_profile(container, profile).edit(|spec| {
                spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
                spec["process"]["user"] = json!({"uid": uid, "gid": uid, "additionalGids": [5]});
            });
            let output = container.run();
            assert_eq!((output.code(), output.stdout.as_str()), (253, "ELF"), "{output:#?}");
            let created = container.create();
            container.start();
            created.wait_for_stdout("ELF");
            container.wait_for("stopped");
            container.delete();
        }
    });
    Ok(())
}

fn a_filter_costs_the_process_none_of_its_capabilities() {
    let script = "grep -E '^(Cap|Groups|Uid|NoNewPrivs)' /proc/self/status";
    with_and_without_new_privileges(|no_new_privileges| {
        for uid in [0, 1000] {
            for set in ["permitted", "ambient"] {
                let container = || {
                    Container::with_script(script).edit(|spec| {
                        let capabilities = spec["process"]["capabilities"]["permitted"].clone();
                        spec["process"]["capabilities"]["inheritable"] = capabilities.clone();
                        spec["process"]["capabilities"][set] = capabilities;
                        spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
                        spec["process"]["user"]["uid"] = json!(uid);
                    })
                };
                let filtered = with_profile(container(), json!({"defaultAction": "SCMP_ACT_ALLOW"}));
                let (with, without) = (filtered.says(), container().says());
                assert!(with.contains("CapEff"), "{with}");
                assert_eq!(with, without, "{no_new_privileges} {uid} {set}");
            }
        }
    });
}

fn a_filter_is_loaded_in_a_user_namespace() {
    with_and_without_new_privileges(|no_new_privileges| {
        let rule = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 100});
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
        let container = with_profile(Container::with_args(["mkdir", "/tmp/a"]), profile)
            .in_user_namespace()
            .edit(|spec| spec["process"]["noNewPrivileges"] = json!(no_new_privileges));
        container.run_fails_with("Network is down");
    });
}

fn a_process_that_is_added_has_the_filter_of_its_container() {
    let rule = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 100});
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    for options in [&[][..], &["--user", "1000:1000"]] {
        with_and_without_new_privileges(|no_new_privileges| {
            let container = with_profile(Container::idle(), profile.clone())
                .edit(|spec| spec["process"]["noNewPrivileges"] = json!(no_new_privileges));
            container.launch();
            let exec = |script: &str| {
                let exec = container.runtime().arg("exec").args(options);
                exec.arg(&container.id).args(["sh", "-c", script]).output()
            };
            let output = exec("mkdir /tmp/a");
            assert!(output.code() == 1 && output.stderr.contains("Network is down"), "{output:#?}");
            let output = exec("grep Seccomp: /proc/self/status");
            assert_eq!(output.stdout, "Seccomp:\t2\n", "{output:#?}");
        });
    }
}

fn start_container_hooks_are_filtered_but_what_runs_them_is_not() -> Outcome {
    need_other_than("crun", "has other words")?;
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", "mkdir /tmp/by-hook"]});
    let with_hook = |profile: Value| {
        with_profile(Container::with_args(["true"]), profile)
            .edit(|spec| spec["hooks"] = json!({"startContainer": [hook]}))
    };
    let deny = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"});
    let container = with_hook(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [deny]}));
    let output = container.run_with(NO_OPTIONS).fails_with("error running startContainer hook");
    assert!(output.stderr.to_lowercase().contains("bad system call"), "{output:#?}");
    need_own()?;
    // What it takes to run a hook besides its own calls.
    let names =
        ["clone", "clone3", "pipe2", "wait4", "waitid", "poll", "setsid", "timerfd_create", "sendmsg"];
    let deny = json!({"names": names, "action": "SCMP_ACT_KILL_PROCESS"});
    let container = with_hook(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [deny]})).edit(|spec| {
        spec["hooks"]["startContainer"][0] = json!({"path": "/bin/mkdir", "args": ["mkdir", "/tmp/a"]})
    });
    container.run_with(NO_OPTIONS).succeeds();
    assert!(container.bundle.rootfs().join("tmp/a").exists());
    Ok(())
}

fn what_keeps_a_program_from_starting_is_said() -> Outcome {
    need_own()?;
    let run = |profile| with_profile(Container::with_args(["true"]), profile);
    let deny = |action: &str, names: &[&str]| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": names, "action": action}]});
    let refused = "config.json: /process/args/0: exec true: operation not permitted (EPERM) (the seccomp \
                   profile may not allow execve)";
    run(deny("SCMP_ACT_ERRNO", &["execve"])).run_fails_with(refused);
    let killed = "start the container's program: the init process was killed by signal 31 (the seccomp \
                  profile must allow execve)";
    run(deny("SCMP_ACT_KILL_PROCESS", &["execve"])).run_fails_with(killed);
    let silent = "start the container's program: the init process failed without reporting a reason (the \
                  seccomp profile must allow execve)";
    run(deny("SCMP_ACT_ERRNO", &["execve", "sendto"])).run_fails_with(silent);
    // It cannot even end as processes do.
    let stuck = deny("SCMP_ACT_ERRNO", &["execve", "sendto", "exit", "exit_group", "write"]);
    run(stuck).run_fails_with("start the container's program: the init process was killed by signal");
    Ok(())
}

fn a_filter_is_kept_until_the_container_is_deleted() -> Outcome {
    need_own()?;
    let container = with_profile(Container::idle(), json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    container.create();
    let stored = fs::metadata(container.state_directory().join("seccomp")).unwrap();
    assert_eq!(stored.permissions().mode() & 0o777, 0o600);
    container.delete_by_force();
    container.leaves_nothing();
    Ok(())
}

fn names_that_no_call_has_are_ignored_unless_an_annotation_forbids_it() -> Outcome {
    let rule = json!({"names": ["fly", "mkdir"], "action": "SCMP_ACT_ERRNO"});
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    let container = with_profile(Container::with_args(["true"]), profile);
    container.run_with(NO_OPTIONS).succeeds();
    need_own()?;
    let debugged = container.runtime().arg("--debug").args(["run", "--bundle"]);
    let output = debugged.arg(container.bundle.path()).arg(&container.id).succeeds();
    assert!(output.stderr.contains(r#"unknown seccomp syscall \"fly\" ignored"#), "{output:#?}");
    let container =
        container.edit(|spec| spec["annotations"] = json!({"run.oci.seccomp_fail_unknown_syscall": "1"}));
    container.run_fails_with("config.json: /linux/seccomp/syscalls/0/names/0: unknown system call \"fly\"");
    Ok(())
}

fn the_flags_are_in_the_debug_log() -> Outcome {
    need_other_than("crun", "does not say")?;
    for (flags, number) in [
        (None, 4),
        (Some(json!([])), 0),
        (Some(json!(["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"])), 2),
    ] {
        let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW"});
        if let Some(flags) = &flags {
            profile["flags"] = flags.clone();
        }
        let container = with_profile(Container::with_args(["true"]), profile);
        let debugged = container.runtime().arg("--debug").args(["run", "--bundle"]);
        let output = debugged.arg(container.bundle.path()).arg(&container.id).succeeds();
        // In the quotes that runc's own tests look for.
        assert!(output.stderr.contains(&format!("\"seccomp filter flags: {number}\"")), "{output:#?}");
    }
    Ok(())
}

fn dockers_and_podmans_profiles_run_a_shell() {
    for name in ["docker-attach", "podman-run-d", "cri-container"] {
        let text = fs::read_to_string(format!("tests/fixtures/clients/{name}-config.json")).unwrap();
        let spec: Value = serde_json::from_str(&text).unwrap();
        let script =
            "echo $(echo a | cat) $(ls /proc/self/fd >/dev/null && echo b); mkdir /tmp/d && rm -r /tmp/d";
        with_and_without_new_privileges(|no_new_privileges| {
            let container = with_profile(Container::with_script(script), spec["linux"]["seccomp"].clone())
                .edit(|spec| spec["process"]["noNewPrivileges"] = json!(no_new_privileges));
            assert_eq!(container.says(), "a b", "{name}");
        });
    }
}

fn notifying(names: &[&str], agent: &Agent) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": agent.path, "listenerMetadata": "what for",
        "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}]})
}

/// A container with this script, whose calls with these `names` go to the agent.
pub fn with_agent(script: &str, names: &[&str]) -> (Container, Agent) {
    let container = Container::with_script(script);
    let agent = Agent::at(&container.beside("agent.sock"));
    let profile = notifying(names, &agent);
    (with_profile(container, profile), agent)
}

fn an_agent_is_told_whose_calls_it_gets() {
    let (container, agent) = with_agent("true", &["mkdir"]);
    let container = container.edit(|spec| spec["annotations"] = json!({"key": "value"}));
    let running = container.spawn();
    let met = agent.meet();
    let pid = met.state["pid"].as_i64().unwrap();
    let mut expected = json!({"fds": ["seccompFd"], "pid": pid, "metadata": "what for",
        "state": {"id": container.id, "status": "creating", "pid": pid, "bundle": container.bundle.path(),
            "annotations": {"key": "value"}}});
    for place in ["", "/state"] {
        let version = met.state.pointer(&format!("{place}/ociVersion")).cloned();
        assert!(version.as_ref().is_some_and(Value::is_string), "{:#}", met.state);
        expected.pointer_mut(place).unwrap()["ociVersion"] = version.unwrap();
    }
    assert_eq!(met.state, expected);
    assert!(met.connection_is_over());
    met.answer(|_| Say::Continue);
    assert_eq!(running.wait().code(), 0);
}

fn an_agent_answers_for_the_kernel() {
    with_and_without_new_privileges(|no_new_privileges| {
        let (container, agent) = with_agent("mkdir /tmp/a; mkdir /tmp/a/b", &["mkdir", "mkdirat"]);
        let container = container.edit(|spec| spec["process"]["noNewPrivileges"] = json!(no_new_privileges));
        let running = container.spawn();
        let first = Mutex::new(true);
        // The first is made, the second is not.
        let asked = agent.meet().answer(move |_| match std::mem::take(&mut *first.lock().unwrap()) {
            true => Say::Continue,
            false => Say::Errno(123),
        });
        let output = running.wait();
        assert!(output.stderr.contains("No medium found"), "{output:#?}");
        assert_eq!(output.code(), 1, "{output:#?}");
        assert_eq!(asked.lock().unwrap().len(), 2);
        assert!(container.bundle.rootfs().join("tmp/a").exists());
        assert!(!container.bundle.rootfs().join("tmp/a/b").exists());
        container.leaves_nothing();
    });
}

fn an_agent_answers_for_the_containers_of_a_user_too() -> Outcome {
    user::need_user_namespaces()?;
    for no_new_privileges in [true, false] {
        let (container, agent) = with_agent("mkdir /tmp/a", &["mkdir", "mkdirat"]);
        std::os::unix::fs::chown(&agent.path, Some(user::UID), Some(user::GID)).unwrap();
        let container =
            container.of_user().edit(|spec| spec["process"]["noNewPrivileges"] = json!(no_new_privileges));
        let running = container.spawn();
        let asked = agent.meet().answer(|_| Say::Errno(123));
        let output = running.wait();
        assert!(output.stderr.contains("No medium found"), "{output:#?}");
        assert_eq!(asked.lock().unwrap().len(), 1);
        container.leaves_nothing();
    }
    Ok(())
}

fn an_agents_caller_can_be_kept_from_signals_but_for_the_fatal_ones() {
    let container = Container::with_script("mkdir /tmp/a");
    let agent = Agent::at(&container.beside("agent.sock"));
    let mut profile = notifying(&["mkdir", "mkdirat"], &agent);
    profile["flags"] = json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]);
    let container = with_profile(container, profile);
    let running = container.spawn();
    continue_all(agent.meet());
    assert_eq!(running.wait().code(), 0);
    container.leaves_nothing();
}

pub fn continue_all(met: Met) -> Arc<Mutex<Vec<Call>>> {
    met.answer(|_| Say::Continue)
}

fn an_agent_may_be_asked_about_what_the_runtime_does_last() {
    // All but write, by which the runtime's own process says that there is something to listen to.
    let names =
        ["execve", "openat", "open", "read", "close", "close_range", "sendto", "sendmsg", "recvmsg", "fcntl"];
    with_and_without_new_privileges(|no_new_privileges| {
        let (container, agent) = with_agent("read line </etc/passwd; exit 7", &names);
        let container = container.edit(|spec| spec["process"]["noNewPrivileges"] = json!(no_new_privileges));
        let running = container.spawn();
        let asked = continue_all(agent.meet());
        assert_eq!(running.wait().code(), 7);
        assert!(asked.lock().unwrap().len() > 3);
    });
}

fn an_agent_hears_of_a_created_container_before_it_starts() -> Outcome {
    need_other_than("crun", "tells the agent at the start")?;
    let (container, agent) = with_agent("mkdir /tmp/a", &["mkdir", "execve", "read"]);
    let creating = container.create_with(NO_OPTIONS).spawn();
    let met = agent.meet();
    assert_eq!(met.state["state"]["status"], "creating");
    let asked = continue_all(met);
    assert_eq!(creating.wait().code(), 0);
    assert_eq!(container.state()["status"], "created");
    container.start();
    container.wait_for("stopped");
    assert!(container.bundle.rootfs().join("tmp/a").exists(), "{:?}", asked.lock().unwrap());
    container.delete();
    container.leaves_nothing();
    Ok(())
}

fn an_agent_hears_of_a_process_that_is_added() -> Outcome {
    need_other_than("crun", "tells the agent at the start")?;
    let (container, agent) =
        with_agent("trap 'exit 0' TERM; sleep 1000 & wait", &["mkdir", "mkdirat", "execve"]);
    let creating = container.create_with(NO_OPTIONS).spawn();
    let met = agent.meet();
    let first = met.state["pid"].clone();
    continue_all(met);
    assert_eq!(creating.wait().code(), 0);
    container.start();
    container.wait_for("running");
    let exec = container.runtime().args(["exec", &container.id, "mkdir", "/tmp/a"]).spawn();
    let met = agent.meet();
    assert_eq!(met.state["state"]["status"], "running");
    assert_eq!(met.state["state"]["pid"], first);
    assert_ne!(met.state["pid"], first);
    let asked = continue_all(met);
    assert_eq!(exec.wait().code(), 0);
    // execve and mkdir.
    assert_eq!(asked.lock().unwrap().len(), 2);
    assert!(container.bundle.rootfs().join("tmp/a").exists());
    container.delete_by_force();
    Ok(())
}

fn an_agent_that_is_not_there_is_named() {
    let container = Container::with_args(["true"]);
    let path = container.beside("agent.sock");
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path,
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    let container = with_profile(container, profile);
    let expected = match kind() {
        "runtime" => format!(
            "config.json: /linux/seccomp/listenerPath: failed to connect with seccomp agent: open {}: no such file or directory (ENOENT)",
            path.display()
        ),
        "runc" => "failed to connect with seccomp agent".to_owned(),
        _ => String::new(),
    };
    container.run_fails_with(&expected);
}
