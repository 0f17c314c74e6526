//! Tests of the compilation of profiles to filters.

use serde_json::{Value, json};

use super::interpreter::{Question, run};
use super::model::{at, compare, decoded, planned};
use super::rules::Action;
use super::*;
use crate::error::line;
use crate::host::dice::Xorshift;

const AT: &str = "config.json: /linux/seccomp";

fn refused(profile: &Value) -> String {
    line(&plan_for(Arch::X86_64, &decoded(profile), Unknown::Ignore, &at()).unwrap_err())
}

/// The filter's action for a system call of `arch`.
fn answer(filter: &Filter, arch: Arch, number: u32, arguments: &[u64]) -> Action {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    let number = number | arch.bits_of_every_number();
    Action(run(&filter.program, &Question { number, architecture: arch.audit(), arguments: all }).0)
}

fn number(name: &str) -> u32 {
    syscalls::find(name).unwrap().number(Arch::X86_64).unwrap()
}

/// The error for a profile that allows everything and has one more field.
fn with(key: &str, value: Value) -> String {
    let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW"});
    profile[key] = value;
    refused(&profile)
}

/// The error for a profile with one rule.
fn rule(rule: Value) -> String {
    with("syscalls", Value::Array(vec![rule]))
}

#[test]
fn what_is_wrong_with_a_profile_is_named() {
    assert_eq!(
        refused(&json!({"defaultAction": "SCMP_ACT_NOTIFY"})),
        format!("{AT}/defaultAction: SCMP_ACT_NOTIFY cannot be used as default action")
    );
    assert_eq!(
        with("defaultErrnoRet", json!(1)),
        format!(
            "{AT}/defaultErrnoRet: errno 1 is not supported by this action (only SCMP_ACT_ERRNO and \
             SCMP_ACT_TRACE take an errno)"
        )
    );
    assert_eq!(
        rule(json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096})),
        format!("{AT}/syscalls/0/errnoRet: 4096 is out of range (0 to 4095)")
    );
    assert_eq!(
        rule(json!({"names": ["read"], "action": "SCMP_ACT_TRACE", "errnoRet": 65536})),
        format!("{AT}/syscalls/0/errnoRet: 65536 is out of range (0 to 65535)")
    );
    assert_eq!(
        rule(json!({"names": ["read"], "action": "SCMP_ACT_KILL", "errnoRet": 5})),
        format!(
            "{AT}/syscalls/0/errnoRet: errno 5 is not supported by this action (only SCMP_ACT_ERRNO and \
             SCMP_ACT_TRACE take an errno)"
        )
    );
    let arg = json!({"index": 6, "value": 0, "op": "SCMP_CMP_EQ"});
    assert_eq!(
        rule(json!({"names": ["read"], "action": "SCMP_ACT_KILL", "args": [arg]})),
        format!("{AT}/syscalls/0/args/0/index: 6 is out of range (0 to 5)")
    );
    assert_eq!(
        rule(json!({"names": ["read", ""], "action": "SCMP_ACT_KILL"})),
        format!("{AT}/syscalls/0/names/1: name must not be empty")
    );
}

#[test]
fn what_is_wrong_with_a_profile_for_an_agent_is_named() {
    assert_eq!(
        rule(json!({"names": ["mkdir", "write"], "action": "SCMP_ACT_NOTIFY"})),
        format!("{AT}/syscalls/0/names/1: SCMP_ACT_NOTIFY cannot be used for the write syscall")
    );
    assert_eq!(
        rule(json!({"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"})),
        format!(
            "{AT}/listenerPath: seccomp listenerPath is not set (SCMP_ACT_NOTIFY requires an agent: set \
             listenerPath to the UNIX socket it listens on)"
        )
    );
    assert_eq!(
        with("listenerMetadata", json!("x")),
        format!("{AT}/listenerMetadata: requires listenerPath to be set")
    );
    assert_eq!(
        with("flags", json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])),
        format!(
            "{AT}/flags/1: \"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV\" requires a rule with SCMP_ACT_NOTIFY"
        )
    );
    let notify = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "agent.sock",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    assert_eq!(refused(&notify), format!("{AT}/listenerPath: path \"agent.sock\" must be absolute"));
}

#[test]
fn unknown_names_are_ignored_or_refused_as_the_caller_wants() {
    let profile = decoded(&json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["read", "fly"], "action": "SCMP_ACT_ERRNO"}]}));
    let filter = plan_for(Arch::X86_64, &profile, Unknown::Ignore, &at()).unwrap();
    assert_eq!(filter.unknown, ["fly"]);
    assert_eq!(answer(&filter, Arch::X86_64, number("read"), &[]), Action::errno(1));
    let error = plan_for(Arch::X86_64, &profile, Unknown::Refuse, &at()).unwrap_err();
    assert_eq!(line(&error), format!("{AT}/syscalls/0/names/1: unknown system call \"fly\""));
}

#[test]
fn a_listener_is_for_rules_that_notify() {
    let profile = |action| {
        json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent.sock", "listenerMetadata": "x",
            "syscalls": [{"names": ["mkdir"], "action": action}]})
    };
    let listener = Listener { path: "/agent.sock".into(), metadata: Some("x".into()) };
    assert_eq!(planned(Arch::X86_64, &profile("SCMP_ACT_NOTIFY")).listener, Some(listener));
    assert_eq!(planned(Arch::X86_64, &profile("SCMP_ACT_LOG")).listener, None);
}

#[test]
fn the_flags_are_those_of_runc() {
    let flags = |flags: Value| {
        planned(Arch::X86_64, &json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags})).flags
    };
    assert_eq!(flags(Value::Null), 4);
    assert_eq!(flags(json!([])), 0);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_TSYNC"])), 0);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"])), 6);
}

#[test]
fn every_action_is_the_kernels() {
    for (action, errno, expected) in [
        ("SCMP_ACT_KILL", None, 0),
        ("SCMP_ACT_KILL_THREAD", None, 0),
        ("SCMP_ACT_KILL_PROCESS", None, 0x8000_0000),
        ("SCMP_ACT_TRAP", None, 0x0003_0000),
        ("SCMP_ACT_ERRNO", None, 0x0005_0001),
        ("SCMP_ACT_ERRNO", Some(0), 0x0005_0000),
        ("SCMP_ACT_ERRNO", Some(4095), 0x0005_0fff),
        ("SCMP_ACT_TRACE", None, 0x7ff0_0001),
        ("SCMP_ACT_TRACE", Some(65535), 0x7ff0_ffff),
        ("SCMP_ACT_LOG", None, 0x7ffc_0000),
        ("SCMP_ACT_NOTIFY", None, 0x7fc0_0000),
    ] {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x",
            "syscalls": [{"names": ["mkdir"], "action": action, "errnoRet": errno}]});
        let filter = planned(Arch::X86_64, &profile);
        assert_eq!(answer(&filter, Arch::X86_64, number("mkdir"), &[]), Action(expected), "{action}");
        assert_eq!(answer(&filter, Arch::X86_64, number("rmdir"), &[]), Action::ALLOW);
    }
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let profile = |default, errno: Option<u32>| {
        json!({"defaultAction": default, "defaultErrnoRet": errno,
            "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [{"names": ["read", "clone3"], "action": "SCMP_ACT_ALLOW"},
                // A rule that repeats the default action.
                {"names": ["openat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]})
    };
    let filter = planned(Arch::X86_64, &profile("SCMP_ACT_ERRNO", None));
    for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
        let on = |number| answer(&filter, arch, number, &[]);
        assert_eq!(on(435), Action::ALLOW, "{arch:?}");
        assert_eq!((on(100), on(437)), (Action::errno(1), Action::errno(1)), "{arch:?}");
        assert_eq!((on(438), on(0x3fff_ffff)), (Action::NO_SUCH_CALL, Action::NO_SUCH_CALL), "{arch:?}");
    }
    let killed = planned(Arch::X86_64, &profile("SCMP_ACT_KILL_PROCESS", None));
    assert_eq!(answer(&killed, Arch::X86_64, 438, &[]), Action::NO_SUCH_CALL);
    let logged = planned(Arch::X86_64, &profile("SCMP_ACT_LOG", None));
    assert_eq!(answer(&logged, Arch::X86_64, 438, &[]), Action::LOG);
    let nothing = planned(Arch::X86_64, &json!({"defaultAction": "SCMP_ACT_TRAP"}));
    assert_eq!(answer(&nothing, Arch::X86_64, 438, &[]), Action::TRAP);
}

#[test]
fn an_architecture_that_is_not_listed_ends_the_thread() {
    let filter = planned(Arch::X86_64, &json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    assert_eq!(answer(&filter, Arch::X86_64, 0, &[]), Action::ALLOW);
    assert_eq!(answer(&filter, Arch::X86, 0, &[]), Action::KILL_THREAD);
    assert_eq!(answer(&filter, Arch::X32, 0, &[]), Action::KILL_THREAD);
    // A tracer uses this number to skip a call.
    assert_eq!(answer(&filter, Arch::X86_64, u32::MAX, &[]), Action::ALLOW);
}

#[test]
fn conditions_on_one_argument_are_rules_of_their_own() {
    let equal = |index, value| json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"});
    let filter = |args: Value| {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": args}]});
        planned(Arch::X86_64, &profile)
    };
    let on = |filter: &Filter, arguments: &[u64]| answer(filter, Arch::X86_64, number("socket"), arguments);
    let together = filter(json!([equal(0, 1), equal(2, 3)]));
    assert_eq!(on(&together, &[1, 0, 3]), Action::errno(1));
    assert_eq!(on(&together, &[1, 0, 0]), Action::ALLOW);
    let apart = filter(json!([equal(0, 1), equal(2, 3), equal(0, 2)]));
    for arguments in [[1, 0, 0], [2, 0, 0], [0, 0, 3]] {
        assert_eq!(on(&apart, &arguments), Action::errno(1), "{arguments:?}");
    }
    assert_eq!(on(&apart, &[0, 0, 0]), Action::ALLOW);
}

#[test]
fn a_socket_of_i386_is_also_made_by_socketcall() {
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [{"names": ["socket", "shmat"], "action": "SCMP_ACT_ERRNO"}]});
    let filter = planned(Arch::X86_64, &profile);
    let on = |number, arguments: &[u64]| answer(&filter, Arch::X86, number, arguments);
    assert_eq!(on(359, &[]), Action::errno(1));
    assert_eq!((on(102, &[1]), on(102, &[2])), (Action::errno(1), Action::ALLOW));
    assert_eq!((on(117, &[21]), on(117, &[1])), (Action::errno(1), Action::ALLOW));
}

#[test]
fn a_program_that_is_too_long_is_refused() {
    let args = |value| json!([{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]);
    let profile = |count: u32| {
        let rules = (0..count)
            .map(|value| json!({"names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "args": args(value)}));
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules.collect::<Vec<_>>()})
    };
    let filter = planned(Arch::X86_64, &profile(900));
    for value in [0, 450, 899] {
        assert_eq!(answer(&filter, Arch::X86_64, number("ioctl"), &[value]), Action::errno(1));
    }
    assert_eq!(answer(&filter, Arch::X86_64, number("ioctl"), &[900]), Action::ALLOW);
    let error = refused(&profile(1100));
    assert!(error.starts_with(&format!("{AT}/syscalls: filter has ")), "{error}");
    assert!(
        error.ends_with("more than the kernel's limit of 4096 (use fewer rules or conditions)"),
        "{error}"
    );
}

#[test]
fn the_program_answers_as_the_rules_do() {
    let mut dice = Xorshift(0x9e37_79b9_7f4a_7c15);
    let (mut longest, mut asked) = (0, 0);
    for _ in 0..500 {
        let compared = compare(&mut dice, 400);
        longest = longest.max(compared.longest);
        asked += compared.asked;
    }
    assert!(longest > 300 && asked > 150_000, "the longest has {longest}, {asked} answers");
}

#[test]
fn dockers_profile_makes_a_short_program() {
    let text = include_str!("../../../../tests/fixtures/clients/docker-attach-config.json");
    let spec: Value = serde_json::from_str(text).unwrap();
    let filter = planned(Arch::X86_64, &spec["linux"]["seccomp"]);
    let steps = |name| {
        let question =
            Question { number: number(name), architecture: Arch::X86_64.audit(), arguments: [0; 6] };
        run(&filter.program, &question).1
    };
    let most = ["read", "futex", "mmap", "openat", "clone3", "mount"].map(steps).into_iter().max();
    assert!(most < Some(16), "{most:?} steps");
    assert!(filter.program.len() < 400, "{} instructions", filter.program.len());
}
