//! The reference model that tests and fuzz targets compare the filter compiler with: random profiles, and a
//! literal interpretation of their rules. Shared with `tests/seccomp_oracle.rs` through `command/fuzzing/`.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and fuzz targets fail by panicking"
)]

use serde_json::{Value, json};

use super::interpreter::{Question, is_acceptable, run};
use super::rules::{Action, Condition, Operator, Rule, Verdict};
use super::*;
use crate::host::dice::Dice;

pub(super) fn decoded(profile: &Value) -> LinuxSeccomp {
    serde_json::from_value(profile.clone()).unwrap()
}

pub(super) fn at() -> Pointer {
    Pointer::root().field("linux").field("seccomp")
}

pub(super) fn planned(native: Arch, profile: &Value) -> Filter {
    let filter = plan_for(native, &decoded(profile), Unknown::Ignore, &at()).unwrap();
    assert!(is_acceptable(&filter.program), "{:#?}", filter.program);
    filter
}

/// Compiles `profile` for a machine whose architecture profiles call `native`.
pub fn compiled(profile: &Value, native: &str) -> Vec<Instruction> {
    let native = match native {
        "SCMP_ARCH_X86_64" => Arch::X86_64,
        "SCMP_ARCH_AARCH64" => Arch::Aarch64,
        _ => panic!("{native}"),
    };
    planned(native, profile).program.to_vec()
}

/// Every call with its numbers on x86_64, i386, x32, aarch64 and arm.
pub fn all_calls() -> Vec<(&'static str, [Option<u32>; 5])> {
    syscalls::NUMBERS
        .iter()
        .map(|(name, _)| {
            let call = syscalls::find(name).unwrap();
            (*name, Arch::ALL.map(|arch| call.number(arch)))
        })
        .collect()
}

/// Values around which comparing 32-bit halves could go wrong.
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

/// A random action for a rule or as the default.
pub fn any_action(dice: &mut impl Dice) -> (&'static str, Option<u32>) {
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

pub fn any_condition(dice: &mut impl Dice, index: u64, operators: &[&str], values: &[u64]) -> Value {
    json!({"index": index, "op": dice.pick(operators), "value": dice.pick(values), "valueTwo": dice.pick(values)})
}

/// The literal meaning of the rules.
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

/// Statistics of a comparison.
#[derive(Debug, Default)]
pub struct Compared {
    /// The number of instructions of the longest program.
    pub longest: usize,
    pub asked: u64,
}

/// Random rules for some of [`NAMES`]; they may contradict each other.
fn any_profile(dice: &mut impl Dice) -> Value {
    let rules: Vec<Value> = (0..dice.roll(20))
        .map(|_| {
            let (action, errno) = any_action(dice);
            let names: Vec<_> = (0..=dice.roll(4)).map(|_| dice.pick(&NAMES)).collect();
            let args: Vec<_> = (0..dice.roll(4))
                .map(|_| {
                    let index = dice.roll(3);
                    any_condition(dice, index, &OPERATORS, &VALUES)
                })
                .collect();
            json!({"names": names, "action": action, "errnoRet": errno, "args": args})
        })
        .collect();
    let (action, errno) = any_action(dice);
    let architectures = dice.pick(&[&["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM"][..], &[]]);
    json!({"defaultAction": action, "defaultErrnoRet": errno,
        "architectures": architectures, "syscalls": rules})
}

/// Compiles one random profile for two machines and compares `count` answers of each program with the rules.
pub fn compare(dice: &mut impl Dice, count: u32) -> Compared {
    let mut compared = Compared::default();
    let profile = any_profile(dice);
    let spec = decoded(&profile);
    for native in [Arch::X86_64, Arch::Aarch64] {
        let filter = planned(native, &profile);
        compared.longest = compared.longest.max(filter.program.len());
        assert_eq!(Filter::from_bytes(&filter.to_bytes()), Some(filter.clone()), "as exec finds it");
        let read = profile::read(&spec, native, Unknown::Ignore, &at()).unwrap();
        for _ in 0..count {
            let arch = dice.pick(&read.architectures);
            let call = syscalls::find(dice.pick(&NAMES)).and_then(|call| call.number(arch));
            let near = dice.pick(&[0, 0, 0, 1, u32::MAX]);
            let number = call.unwrap_or(102).wrapping_add(near);
            // Numbers of the other architecture do not occur here.
            if arch == Arch::X86_64 && number >= 0x4000_0000 || arch == Arch::X32 && number < 0x4000_0000 {
                continue;
            }
            let arguments =
                [(); 6].map(|()| dice.pick(&VALUES).wrapping_add(dice.pick(&[0, 0, 1, u64::MAX])));
            let question = Question { number, architecture: arch.audit(), arguments };
            let expected = expected(&read, arch, number, arguments);
            assert_eq!(Action(run(&filter.program, &question).0), expected, "{question:x?}\n{profile:#}");
            compared.asked += 1;
        }
    }
    compared
}

/// Decodes `bytes` as `exec` decodes a saved filter; asserts that an accepted one is encoded to the same
/// bytes.
pub fn read_kept(bytes: &[u8]) {
    if let Some(filter) = Filter::from_bytes(bytes) {
        assert_eq!(Filter::from_bytes(&filter.to_bytes()), Some(filter));
    }
}
