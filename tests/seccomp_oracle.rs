//! Holds the filters that we compile against libseccomp's, fed as runc feeds it: the same answer to every call.
//!
//! The library is opened at run time, `LIBSECCOMP` or the system's: it is linked to nothing, needs no headers, and where it
//! is missing the tests say so. It answers wrongly for some profiles with several rules for a call (2.5.4 to 2.6.1; see
//! `src/plan/linux/seccomp/rules.rs`), or never ends while it compiles them, so the profiles made up here keep to what it can do. What the
//! others mean is tested in `src/plan/linux/seccomp/tests.rs`.
#![allow(unsafe_code, reason = "a C library is called")]
#![allow(
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking and says why it cannot run"
)]

use std::collections::BTreeSet;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::os::fd::AsRawFd as _;
use std::{env, fs, mem};

use runtime::fuzzing::seccomp::{
    NAMES, OPERATORS, Question, VALUES, all_calls, any_action, any_condition, compiled, is_acceptable, run,
};
use runtime::fuzzing::{Dice as _, Xorshift};
use runtime::sys::seccomp::Instruction;
use serde_json::{Value, json};

/// `struct scmp_arg_cmp`; seccomp_rule_add(3).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Comparison {
    argument: c_uint,
    operator: c_int,
    first: u64,
    second: u64,
}

type Context = *mut c_void;

/// The functions of the library that are called here.
struct Library {
    init: extern "C" fn(u32) -> Context,
    release: extern "C" fn(Context),
    arch_add: extern "C" fn(Context, u32) -> c_int,
    arch_remove: extern "C" fn(Context, u32) -> c_int,
    rule_add: extern "C" fn(Context, u32, c_int, c_uint, *const Comparison) -> c_int,
    attr_set: extern "C" fn(Context, c_int, u32) -> c_int,
    export_bpf: extern "C" fn(Context, c_int) -> c_int,
    resolve: extern "C" fn(u32, *const c_char) -> c_int,
}

/// An architecture by the names of a profile and of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Arch {
    name: &'static str,
    token: u32,
    audit: u32,
    bit: u32,
}

const X86_64: Arch = Arch { name: "SCMP_ARCH_X86_64", token: 0xc000_003e, audit: 0xc000_003e, bit: 0 };
const X86: Arch = Arch { name: "SCMP_ARCH_X86", token: 0x4000_0003, audit: 0x4000_0003, bit: 0 };
const X32: Arch = Arch { name: "SCMP_ARCH_X32", token: 0x4000_003e, audit: 0xc000_003e, bit: 0x4000_0000 };
const AARCH64: Arch = Arch { name: "SCMP_ARCH_AARCH64", token: 0xc000_00b7, audit: 0xc000_00b7, bit: 0 };
const ARM: Arch = Arch { name: "SCMP_ARCH_ARM", token: 0x4000_0028, audit: 0x4000_0028, bit: 0 };

/// In the order of our table.
const ARCHES: [Arch; 5] = [X86_64, X86, X32, AARCH64, ARM];

/// What a kernel runs, its own architecture first.
const MACHINES: [&[Arch]; 2] = [&[X86_64, X86, X32], &[AARCH64, ARM]];

/// `SCMP_FLTATR_CTL_OPTIMIZE`: 2 is a search, as runc wants it for all but short profiles. For those the library forgets to load
/// the number of the call, if the first in its list is one that the architecture has not.
const OPTIMIZE: c_int = 8;

/// `__NR_SCMP_ERROR`.
const UNKNOWN: c_int = -1;

impl Library {
    /// Says so if there is none.
    fn open() -> Option<Self> {
        let name = env::var("LIBSECCOMP").unwrap_or_else(|_| "libseccomp.so.2".to_owned());
        let name = CString::new(name).unwrap();
        // SAFETY: the name is NUL-terminated and lives across the call; the library's initialisation touches nothing of ours.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        if handle.is_null() {
            eprintln!("skip: needs the library {name:?}");
            return None;
        }
        macro_rules! function {
            ($name:literal: $type:ty) => {{
                // SAFETY: the handle is open and never closed; the name is NUL-terminated.
                let address = unsafe { libc::dlsym(handle, $name.as_ptr()) };
                assert!(!address.is_null(), "{:?}", $name);
                // SAFETY: seccomp.h declares the function so, and it is there for as long as the process.
                unsafe { mem::transmute::<*mut c_void, $type>(address) }
            }};
        }
        Some(Self {
            init: function!(c"seccomp_init": extern "C" fn(u32) -> Context),
            release: function!(c"seccomp_release": extern "C" fn(Context)),
            arch_add: function!(c"seccomp_arch_add": extern "C" fn(Context, u32) -> c_int),
            arch_remove: function!(c"seccomp_arch_remove": extern "C" fn(Context, u32) -> c_int),
            rule_add: function!(
                c"seccomp_rule_add_array":
                extern "C" fn(Context, u32, c_int, c_uint, *const Comparison) -> c_int
            ),
            attr_set: function!(c"seccomp_attr_set": extern "C" fn(Context, c_int, u32) -> c_int),
            export_bpf: function!(c"seccomp_export_bpf": extern "C" fn(Context, c_int) -> c_int),
            resolve: function!(
                c"seccomp_syscall_resolve_name_arch":
                extern "C" fn(u32, *const c_char) -> c_int
            ),
        })
    }

    /// The number of a call; negative numbers are the library's own names for calls that the architecture has not.
    fn number(&self, arch: Arch, name: &str) -> Option<c_int> {
        let name = CString::new(name).unwrap();
        Some((self.resolve)(arch.token, name.as_ptr())).filter(|number| *number != UNKNOWN)
    }

    /// What the library makes of a profile if it is fed as by runc; `None` if it refuses a rule.
    fn compile(&self, profile: &Value, machine: &[Arch]) -> Option<Vec<Instruction>> {
        let default = action(&profile["defaultAction"], &profile["defaultErrnoRet"]);
        let context = (self.init)(default);
        let named = |arch: &&Arch| profile["architectures"].as_array().unwrap().contains(&json!(arch.name));
        // The library is that of the machine it runs on, which counts as named.
        if machine[0] != X86_64 {
            assert_eq!((self.arch_add)(context, machine[0].token), 0);
            assert_eq!((self.arch_remove)(context, X86_64.token), 0);
        }
        for arch in machine[1..].iter().filter(named) {
            assert_eq!((self.arch_add)(context, arch.token), 0);
        }
        let mut refused = false;
        for rule in profile["syscalls"].as_array().unwrap() {
            let action = action(&rule["action"], &rule["errnoRet"]);
            if action == default {
                continue;
            }
            let comparisons: Vec<_> = rule["args"].as_array().into_iter().flatten().map(comparison).collect();
            let arguments: BTreeSet<_> = comparisons.iter().map(|comparison| comparison.argument).collect();
            let apart = arguments.len() < comparisons.len();
            let rules: Vec<&[Comparison]> =
                if apart { comparisons.chunks(1).collect() } else { vec![&comparisons] };
            for name in rule["names"].as_array().unwrap() {
                let number = self.number(X86_64, name.as_str().unwrap()).unwrap();
                for rule in &rules {
                    let count = c_uint::try_from(rule.len()).unwrap();
                    refused |= (self.rule_add)(context, action, number, count, rule.as_ptr()) != 0;
                }
            }
        }
        if !profile["syscalls"].as_array().unwrap().is_empty() {
            assert_eq!((self.attr_set)(context, OPTIMIZE, 2), 0);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!((self.export_bpf)(context, file.as_raw_fd()), 0);
        (self.release)(context);
        let bytes = fs::read(file.path()).unwrap();
        let program = bytes.chunks(8).map(|bytes| Instruction {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            yes: bytes[2],
            no: bytes[3],
            number: u32::from_ne_bytes(bytes[4..].try_into().unwrap()),
        });
        (!refused).then(|| program.collect())
    }

    /// The largest number that the profile names. Runc asks the library, to which i386 has no calls that go through socketcall(2)
    /// and ipc(2); we count these calls as well.
    fn newest(&self, profile: &Value, arch: Arch) -> u32 {
        let names =
            profile["syscalls"].as_array().unwrap().iter().flat_map(|rule| rule["names"].as_array().unwrap());
        let numbers = names.flat_map(|name| {
            let name = name.as_str().unwrap();
            let number = u32::try_from(self.number(arch, name).unwrap()).ok();
            let (bundle, direct) = if arch == X86 { of_i386(name) } else { (None, None) };
            [number, bundle, direct].into_iter().flatten()
        });
        numbers.max().unwrap_or(0)
    }
}

/// arch/x86/entry/syscalls/syscall_32.tbl: the call through which this one may go, and its own number.
fn of_i386(name: &str) -> (Option<u32>, Option<u32>) {
    let sockets = [
        ("socket", 359),
        ("socketpair", 360),
        ("bind", 361),
        ("connect", 362),
        ("listen", 363),
        ("accept4", 364),
        ("getsockopt", 365),
        ("setsockopt", 366),
        ("getsockname", 367),
        ("getpeername", 368),
        ("sendto", 369),
        ("sendmsg", 370),
        ("recvfrom", 371),
        ("recvmsg", 372),
        ("shutdown", 373),
        ("recvmmsg", 337),
        ("sendmmsg", 345),
        ("accept", 0),
        ("send", 0),
        ("recv", 0),
    ];
    let ipc = [
        ("semget", 393),
        ("semctl", 394),
        ("shmget", 395),
        ("shmctl", 396),
        ("shmat", 397),
        ("shmdt", 398),
        ("msgget", 399),
        ("msgsnd", 400),
        ("msgrcv", 401),
        ("msgctl", 402),
        ("semop", 0),
        ("semtimedop", 0),
    ];
    let of = |list: &[(&str, u32)]| list.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    match (of(&sockets), of(&ipc)) {
        (Some(number), _) => (Some(102), Some(number)),
        (_, Some(number)) => (Some(117), Some(number)),
        _ => (None, None),
    }
}

fn action(action: &Value, errno: &Value) -> u32 {
    let errno = errno.as_u64().map_or(1, |errno| u32::try_from(errno).unwrap());
    match action.as_str().unwrap() {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_ERRNO" => 0x0005_0000 | errno,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | errno,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        action => panic!("{action}"),
    }
}

fn comparison(arg: &Value) -> Comparison {
    let operator = OPERATORS.iter().position(|operator| arg["op"] == *operator).unwrap();
    Comparison {
        argument: c_uint::try_from(arg["index"].as_u64().unwrap()).unwrap(),
        operator: c_int::try_from(operator).unwrap() + 1,
        first: arg["value"].as_u64().unwrap(),
        second: arg["valueTwo"].as_u64().unwrap_or(0),
    }
}

/// What runc would load: its addition to what the library makes is that calls newer than the profile do not exist.
struct Theirs {
    program: Vec<Instruction>,
    /// Up to which number calls are older, on each architecture that the profile names.
    newest: Vec<(Arch, u32)>,
}

impl Theirs {
    fn of(library: &Library, profile: &Value, machine: &[Arch]) -> Option<Self> {
        let program = library.compile(profile, machine)?;
        let lets_through = matches!(
            profile["defaultAction"].as_str().unwrap(),
            "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG" | "SCMP_ACT_TRACE"
        );
        let is_named = |arch: &&Arch| {
            **arch == machine[0] || profile["architectures"].as_array().unwrap().contains(&json!(arch.name))
        };
        let named = machine.iter().filter(|_| !lets_through).filter(is_named);
        let newest = named.map(|arch| (*arch, library.newest(profile, *arch)));
        Some(Self { program, newest: newest.filter(|(_, newest)| *newest != 0).collect() })
    }

    fn answer(&self, question: &Question) -> u32 {
        let is_asked = |arch: Arch| {
            arch.audit == question.architecture
                && (arch.audit != X86_64.audit || arch.bit == question.number & X32.bit)
        };
        match self.newest.iter().find(|(arch, _)| is_asked(*arch)) {
            Some((_, newest)) if question.number > *newest => 0x0005_0000 | 38,
            _ => run(&self.program, question).0,
        }
    }
}

/// The profile without the names of calls that this version of the library does not know everywhere.
fn known_to(library: &Library, mut profile: Value) -> Value {
    let calls = all_calls();
    let lags = |name: &str, numbers: &[Option<u32>; 5]| {
        let is_missing = |(arch, own): (Arch, &Option<u32>)| match library.number(arch, name) {
            None => true,
            Some(number) => number < 0 && own.is_some() && !(arch == X86 && of_i386(name).0.is_some()),
        };
        ARCHES.into_iter().zip(numbers).any(is_missing)
    };
    let late: BTreeSet<&str> =
        calls.iter().filter(|(name, numbers)| lags(name, numbers)).map(|(name, _)| *name).collect();
    for rule in profile["syscalls"].as_array_mut().unwrap() {
        rule["names"].as_array_mut().unwrap().retain(|name| !late.contains(name.as_str().unwrap()));
    }
    profile
}

/// Numbers of calls, among them those at which something changes.
fn all_numbers() -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..=600).collect();
    numbers.extend((0..=600).map(|number| number | X32.bit));
    // arm's own.
    numbers.extend(0xf_0000..=0xf_0008);
    numbers.extend([X32.bit - 1, 2 * X32.bit - 1, 2 * X32.bit, u32::MAX - 1, u32::MAX]);
    numbers
}

/// Arguments at which something may change: what a rule compares with, or what lies beside it.
fn arguments(profile: &Value, dice: &mut Xorshift) -> [u64; 6] {
    let mut arguments = [(); 6].map(|()| dice.pick(&VALUES));
    let rules = profile["syscalls"].as_array().unwrap();
    let with_args: Vec<_> = rules.iter().filter_map(|rule| rule["args"].as_array()).collect();
    if with_args.is_empty() || dice.roll(8) == 0 {
        return arguments;
    }
    for arg in dice.pick(&with_args) {
        let field = if arg["op"] == "SCMP_CMP_MASKED_EQ" { "valueTwo" } else { "value" };
        let near = dice.pick(&[0, 0, 0, 0, 1, u64::MAX, 0x1_0000_0000]);
        let index = usize::try_from(arg["index"].as_u64().unwrap()).unwrap();
        arguments[index] = arg[field].as_u64().unwrap_or(0).wrapping_add(near);
    }
    arguments
}

/// Compares the answers to `count` choices of arguments for each of `numbers`; whether the library took the profile.
fn compare(
    library: &Library,
    profile: &Value,
    machine: &[Arch],
    numbers: &[u32],
    count: u64,
    dice: &mut Xorshift,
) -> bool {
    let Some(theirs) = Theirs::of(library, profile, machine) else { return false };
    let ours = compiled(profile, machine[0].name);
    assert!(is_acceptable(&ours), "{profile:#}");
    let mut audits: BTreeSet<u32> = ARCHES.iter().map(|arch| arch.audit).collect();
    audits.insert(0xdead_beef);
    for architecture in audits {
        let is_run = machine.iter().any(|arch| arch.audit == architecture);
        let count = if is_run { count } else { 1 };
        for number in numbers {
            for _ in 0..count {
                let question =
                    Question { number: *number, architecture, arguments: arguments(profile, dice) };
                let expected = theirs.answer(&question);
                assert_eq!(run(&ours, &question).0, expected, "{question:x?}\n{profile:#}");
            }
        }
    }
    true
}

#[test]
fn names_have_the_numbers_that_libseccomp_knows() {
    let Some(library) = Library::open() else { return };
    let mut compared = 0;
    for (name, numbers) in all_calls() {
        for (arch, own) in ARCHES.into_iter().zip(numbers) {
            let Some(number) = library.number(arch, name) else { continue };
            let (bundle, direct) = if arch == X86 { of_i386(name) } else { (None, None) };
            let expected = match bundle {
                Some(_) => direct.filter(|number| *number != 0),
                None => u32::try_from(number).ok(),
            };
            // What an older version did not know to be there.
            if expected.is_some() {
                assert_eq!(own, expected, "{name} {}", arch.name);
            }
            compared += 1;
        }
    }
    assert!(compared > 2_000, "{compared}");
}

#[test]
fn what_engines_ask_for_is_answered_as_by_libseccomp() {
    let Some(library) = Library::open() else { return };
    let mut dice = Xorshift(0x2545_f491_4f6c_dd1d);
    let mut seen = BTreeSet::new();
    let mut files = 0;
    for entry in fs::read_dir("tests/fixtures/clients").unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let spec: Value = serde_json::from_str(&text).unwrap();
        let profile = spec["linux"]["seccomp"].clone();
        if profile.is_null() {
            continue;
        }
        files += 1;
        if !seen.insert(profile.to_string()) {
            continue;
        }
        let profile = known_to(&library, profile);
        for machine in MACHINES {
            assert!(compare(&library, &profile, machine, &all_numbers(), 12, &mut dice));
        }
    }
    assert!(files > 50 && seen.len() > 3, "{} profiles in {files} files", seen.len());
}

/// The numbers of the profile's calls, and those around them.
fn numbers_of(library: &Library, profile: &Value, machine: &[Arch]) -> Vec<u32> {
    let rules = profile["syscalls"].as_array().unwrap().iter();
    let names = rules.flat_map(|rule| rule["names"].as_array().unwrap());
    let numbers = names.flat_map(|name| {
        machine.iter().flat_map(|arch| {
            let name = name.as_str().unwrap();
            let number = u32::try_from(library.number(*arch, name).unwrap()).ok();
            let (bundle, direct) = of_i386(name);
            [number, bundle, direct].into_iter().flatten()
        })
    });
    let mut all: BTreeSet<u32> =
        numbers.flat_map(|number| [number, number.wrapping_add(1), number.wrapping_sub(1)]).collect();
    all.extend([0, 600, X32.bit - 1, X32.bit, X32.bit + 600, u32::MAX]);
    all.into_iter().collect()
}

const SMALL: [u64; 6] = [0, 1, 2, 7, 40, 0x7fff_ffff];
const EQUAL: [&str; 1] = ["SCMP_CMP_EQ"];
const EQUALITIES: [&str; 3] = ["SCMP_CMP_EQ", "SCMP_CMP_NE", "SCMP_CMP_MASKED_EQ"];
const ORDERS: [&str; 5] = ["SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_EQ"];

/// Rules for one call that the library gets right: what it cannot do is named at the top of `src/plan/linux/seccomp/rules.rs`.
fn rules_for(name: &str, dice: &mut Xorshift) -> Vec<Value> {
    let rule = |(action, errno): (&str, Option<u32>), args: Vec<Value>| json!({"names": [name], "action": action, "errnoRet": errno, "args": args});
    let conditions = |dice: &mut Xorshift, most: u64, operators: &[&str], values: &[u64]| -> Vec<Value> {
        let count = 1 + dice.roll(most);
        let first = dice.roll(7 - count);
        (first..first + count).map(|index| any_condition(dice, index, operators, values)).collect()
    };
    let several = |dice: &mut Xorshift, operators: &[&str], values: &[u64]| -> Vec<Value> {
        let action = any_action(dice);
        (0..=dice.roll(4)).map(|_| rule(action, conditions(dice, 1, operators, values))).collect()
    };
    // Conditions of a rule for a call that another one stands for end up beside those of others.
    let kinds = if of_i386(name).0.is_some() { 3 } else { 8 };
    match dice.roll(kinds) {
        // The first without conditions decides.
        0 => {
            let mut rules: Vec<_> = (0..dice.roll(2))
                .map(|_| rule(any_action(dice), conditions(dice, 1, &EQUAL, &VALUES)))
                .collect();
            rules.extend((0..=dice.roll(2)).map(|_| rule(any_action(dice), Vec::new())));
            rules
        }
        // Several that may apply at once, with actions of their own.
        1 | 2 => {
            (0..=dice.roll(4)).map(|_| rule(any_action(dice), conditions(dice, 3, &EQUAL, &VALUES))).collect()
        }
        3 => several(dice, &EQUALITIES, &VALUES),
        4 => several(dice, &ORDERS, &SMALL),
        // Several conditions on one argument, which are rules of their own.
        5 => {
            let index = dice.roll(6);
            let (operators, values) =
                if dice.roll(2) == 0 { (&EQUALITIES[..], &VALUES[..]) } else { (&ORDERS[..], &SMALL[..]) };
            let args = (0..2 + dice.roll(2)).map(|_| any_condition(dice, index, operators, values)).collect();
            vec![rule(any_action(dice), args)]
        }
        // One with any conditions.
        _ => vec![rule(any_action(dice), conditions(dice, 5, &OPERATORS, &VALUES))],
    }
}

#[test]
fn what_nobody_has_asked_for_yet_is_answered_as_by_libseccomp() {
    let Some(library) = Library::open() else { return };
    let mut dice = Xorshift(0x9e37_79b9_7f4a_7c15);
    let mut compared = 0;
    const COUNT: u64 = 3_000;
    for _ in 0..COUNT {
        let mut names = NAMES.to_vec();
        let mut rules = Vec::new();
        for _ in 0..dice.roll(8) {
            let name = names.remove(usize::try_from(dice.roll(u64::try_from(names.len()).unwrap())).unwrap());
            rules.extend(rules_for(name, &mut dice));
        }
        let (default, errno) = any_action(&mut dice);
        let architectures =
            dice.pick(&[&["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM"][..], &["SCMP_ARCH_X86"], &[]]);
        let profile = json!({"defaultAction": default, "defaultErrnoRet": errno,
            "architectures": architectures, "syscalls": rules});
        let machine = dice.pick(&MACHINES);
        let numbers = numbers_of(&library, &profile, machine);
        compared += u64::from(compare(&library, &profile, machine, &numbers, 16, &mut dice));
    }
    // It refuses rules with equal conditions and different actions.
    assert!(compared > COUNT * 9 / 10, "{compared} of {COUNT} profiles");
}
