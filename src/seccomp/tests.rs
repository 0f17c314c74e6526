//! Tests of the way from profile to program.

use serde_json::{Value, json};

use super::interpreter::{Question, is_acceptable, run};
use super::rules::{Action, Condition, Operator, Rule, Verdict};
use super::*;
use crate::error::line;

const AT: &str = "config.json: /linux/seccomp";

fn decoded(profile: &Value) -> LinuxSeccomp {
    serde_json::from_value(profile.clone()).unwrap()
}

fn at() -> Pointer {
    Pointer::root().field("linux").field("seccomp")
}

fn planned(native: Arch, profile: &Value) -> Filter {
    let filter = plan_for(native, &decoded(profile), Unknown::Ignore, &at()).unwrap();
    assert!(is_acceptable(&filter.program), "{:#?}", filter.program);
    filter
}

/// The program for a machine whose own architecture is called so in a profile.
#[allow(dead_code, reason = "for tests/seccomp_oracle.rs")]
pub fn compiled(profile: &Value, native: &str) -> Vec<Instruction> {
    let native = match native {
        "SCMP_ARCH_X86_64" => Arch::X86_64,
        "SCMP_ARCH_AARCH64" => Arch::Aarch64,
        _ => panic!("{native}"),
    };
    planned(native, profile).program.to_vec()
}

/// Every call with its numbers on x86_64, i386, x32, aarch64 and arm.
#[allow(dead_code, reason = "for tests/seccomp_oracle.rs")]
pub fn all_calls() -> Vec<(&'static str, [Option<u32>; 5])> {
    syscalls::NUMBERS
        .iter()
        .map(|(name, _)| {
            let call = syscalls::find(name).unwrap();
            (*name, Arch::ALL.map(|arch| call.number(arch)))
        })
        .collect()
}

fn refused(profile: &Value) -> String {
    line(&plan_for(Arch::X86_64, &decoded(profile), Unknown::Ignore, &at()).unwrap_err())
}

/// The answer for a call of `arch`.
fn answer(filter: &Filter, arch: Arch, number: u32, arguments: &[u64]) -> Action {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    let number = number | arch.bits_of_every_number();
    Action(run(&filter.program, &Question { number, architecture: arch.audit(), arguments: all }).0)
}

fn number(name: &str) -> u32 {
    syscalls::find(name).unwrap().number(Arch::X86_64).unwrap()
}

#[test]
fn what_is_wrong_with_a_profile_is_named() {
    let with = |key: &str, value: Value| {
        let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW"});
        profile[key] = value;
        refused(&profile)
    };
    let rule = |rule: Value| with("syscalls", json!([rule]));
    assert_eq!(
        refused(&json!({"defaultAction": "SCMP_ACT_NOTIFY"})),
        format!("{AT}/defaultAction: SCMP_ACT_NOTIFY cannot be used as default action")
    );
    assert_eq!(
        with("defaultErrnoRet", json!(1)),
        format!(
            "{AT}/defaultErrnoRet: 1 goes with an action that answers with no errno (it is for SCMP_ACT_ERRNO and SCMP_ACT_TRACE)"
        )
    );
    assert_eq!(
        rule(json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096})),
        format!("{AT}/syscalls/0/errnoRet: 4096 is not between 0 and 4095")
    );
    assert_eq!(
        rule(json!({"names": ["read"], "action": "SCMP_ACT_TRACE", "errnoRet": 65536})),
        format!("{AT}/syscalls/0/errnoRet: 65536 is not between 0 and 65535")
    );
    assert_eq!(
        rule(json!({"names": ["read"], "action": "SCMP_ACT_KILL", "errnoRet": 5})),
        format!(
            "{AT}/syscalls/0/errnoRet: 5 goes with an action that answers with no errno (it is for SCMP_ACT_ERRNO and SCMP_ACT_TRACE)"
        )
    );
    let arg = json!({"index": 6, "value": 0, "op": "SCMP_CMP_EQ"});
    assert_eq!(
        rule(json!({"names": ["read"], "action": "SCMP_ACT_KILL", "args": [arg]})),
        format!("{AT}/syscalls/0/args/0/index: 6 is not between 0 and 5")
    );
    assert_eq!(
        rule(json!({"names": ["read", ""], "action": "SCMP_ACT_KILL"})),
        format!("{AT}/syscalls/0/names/1: the name is empty")
    );
    assert_eq!(
        rule(json!({"names": ["mkdir", "write"], "action": "SCMP_ACT_NOTIFY"})),
        format!("{AT}/syscalls/0/names/1: SCMP_ACT_NOTIFY cannot be used for the write syscall")
    );
    assert_eq!(
        rule(json!({"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"})),
        format!(
            "{AT}/listenerPath: seccomp listenerPath is not set (SCMP_ACT_NOTIFY needs an agent: name the UNIX socket that it listens on)"
        )
    );
    assert_eq!(
        with("listenerMetadata", json!("x")),
        format!("{AT}/listenerMetadata: is for the agent that listenerPath names, and that is not set")
    );
    assert_eq!(
        with("flags", json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])),
        format!("{AT}/flags/1: \"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV\" needs a rule with SCMP_ACT_NOTIFY")
    );
    let notify = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "agent.sock",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    assert_eq!(refused(&notify), format!("{AT}/listenerPath: \"agent.sock\" is not an absolute path"));
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
                // The default action, and named nevertheless.
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
    // How a tracer says that a call is not to be made.
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
    assert!(error.starts_with(&format!("{AT}/syscalls: takes ")), "{error}");
    assert!(error.ends_with("and the kernel takes 4096 (use fewer conditions)"), "{error}");
}

/// xorshift64: enough for picking rules, and the same every time.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.roll(u64::try_from(from.len()).unwrap())).unwrap()]
    }
}

/// Values at whose neighbours a comparison of halves could go wrong.
pub const VALUES: [u64; 16] = [
    0,
    1,
    2,
    7,
    8,
    40,
    0x7fff_ffff,
    0xffff_fffe,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0001,
    0x2_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_0000_0000,
    u64::MAX,
];

pub const OPERATORS: [&str; 7] = [
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];

pub const NAMES: [&str; 16] = [
    "read",
    "write",
    "open",
    "mmap",
    "mmap2",
    "ioctl",
    "socket",
    "shmat",
    "clone",
    "personality",
    "accept",
    "send",
    "rt_sigaction",
    "openat2",
    "clone3",
    "seccomp",
];

/// `action` of a rule, or default one.
pub fn any_action(dice: &mut Dice) -> (&'static str, Option<u32>) {
    dice.pick(&[
        ("SCMP_ACT_ALLOW", None),
        ("SCMP_ACT_ERRNO", None),
        ("SCMP_ACT_ERRNO", Some(38)),
        ("SCMP_ACT_ERRNO", Some(13)),
        ("SCMP_ACT_KILL", None),
        ("SCMP_ACT_KILL_PROCESS", None),
        ("SCMP_ACT_TRAP", None),
        ("SCMP_ACT_TRACE", Some(3)),
        ("SCMP_ACT_LOG", None),
    ])
}

pub fn any_condition(dice: &mut Dice, index: u64, operators: &[&str], values: &[u64]) -> Value {
    json!({"index": index, "op": dice.pick(operators), "value": dice.pick(values), "valueTwo": dice.pick(values)})
}

/// What the rules say, taken word by word.
fn expected(profile: &profile::Profile<'_>, arch: Arch, number: u32, arguments: [u64; 6]) -> Action {
    let mut rules: Vec<Rule> = Vec::new();
    let mut newest = 0;
    for block in &profile.blocks {
        for (name, call) in &block.calls {
            let direct = call.number(arch).into_iter();
            let bundled = syscalls::bundled(name, arch);
            newest = direct.clone().chain(bundled.map(|(number, _)| number)).fold(newest, u32::max);
            if direct.clone().any(|direct| direct == number) {
                rules.extend(block.rules.iter().map(|rule| rule.on(arch.width())));
            }
            if let Some((_, which)) = bundled.filter(|(bundle, _)| *bundle == number) {
                rules.extend(block.rules.iter().map(|rule| rule.bundled(which).on(arch.width())));
            }
        }
    }
    if newest > 0 && number > newest && !profile.default.lets_through() {
        return Action::NO_SUCH_CALL;
    }
    let holds = |condition: &Condition| {
        let seen = arguments[usize::from(condition.argument)] & condition.mask;
        match condition.operator {
            Operator::NotEqual => seen != condition.value,
            Operator::Less => seen < condition.value,
            Operator::LessOrEqual => seen <= condition.value,
            Operator::Equal => seen == condition.value,
            Operator::GreaterOrEqual => seen >= condition.value,
            Operator::Greater => seen > condition.value,
        }
    };
    if rules.is_empty() {
        return profile.default;
    }
    match Verdict::of(rules) {
        Verdict::Always(action) => action,
        Verdict::Depends(rules) => {
            let first = rules.iter().find(|rule| rule.conditions.iter().all(holds));
            first.map_or(profile.default, |rule| rule.action)
        }
    }
}

#[test]
fn the_program_answers_as_the_rules_do() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut longest, mut asked) = (0, 0);
    for _ in 0..500 {
        let rules: Vec<Value> = (0..dice.roll(20))
            .map(|_| {
                let (action, errno) = any_action(&mut dice);
                let names: Vec<_> = (0..=dice.roll(4)).map(|_| dice.pick(&NAMES)).collect();
                let args: Vec<_> = (0..dice.roll(4))
                    .map(|_| {
                        let index = dice.roll(3);
                        any_condition(&mut dice, index, &OPERATORS, &VALUES)
                    })
                    .collect();
                json!({"names": names, "action": action, "errnoRet": errno, "args": args})
            })
            .collect();
        let (action, errno) = any_action(&mut dice);
        let architectures = dice.pick(&[&["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM"][..], &[]]);
        let profile = json!({"defaultAction": action, "defaultErrnoRet": errno,
            "architectures": architectures, "syscalls": rules});
        let spec = decoded(&profile);
        for native in [Arch::X86_64, Arch::Aarch64] {
            let filter = planned(native, &profile);
            longest = longest.max(filter.program.len());
            let read = profile::read(&spec, native, Unknown::Ignore, &at()).unwrap();
            for _ in 0..400 {
                let arch = dice.pick(&read.architectures);
                let call = syscalls::find(dice.pick(&NAMES)).and_then(|call| call.number(arch));
                let near = dice.pick(&[0, 0, 0, 1, u32::MAX]);
                let number = call.unwrap_or(102).wrapping_add(near);
                // What belongs to another architecture is not this one's to answer.
                if arch == Arch::X86_64 && number >= 0x4000_0000 || arch == Arch::X32 && number < 0x4000_0000
                {
                    continue;
                }
                let arguments =
                    [(); 6].map(|()| dice.pick(&VALUES).wrapping_add(dice.pick(&[0, 0, 1, u64::MAX])));
                let question = Question { number, architecture: arch.audit(), arguments };
                let expected = expected(&read, arch, number, arguments);
                assert_eq!(Action(run(&filter.program, &question).0), expected, "{question:x?}\n{profile:#}");
                asked += 1;
            }
        }
    }
    assert!(longest > 300 && asked > 150_000, "the longest has {longest}, {asked} answers");
}

#[test]
fn dockers_profile_makes_a_short_program() {
    let text = include_str!("../../tests/fixtures/clients/docker-attach-config.json");
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
