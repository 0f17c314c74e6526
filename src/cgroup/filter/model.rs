//! A reference model of the device rules and an interpreter for the filter, for tests and fuzz targets.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and fuzz targets fail by panicking"
)]

use super::*;
use crate::host::dice::Dice;

/// An access to a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) kind: DeviceKind,
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) access: u8,
}

/// Evaluates the rules directly.
pub(super) fn allowed(rules: &[Rule], question: Question) -> bool {
    [1, 2, 4].into_iter().filter(|bit| question.access & bit != 0).all(|bit| {
        let names = |rule: &&Rule| {
            (rule.kind == DeviceKind::Any || rule.kind == question.kind)
                && rule.major.is_none_or(|major| major == question.major)
                && rule.minor.is_none_or(|minor| minor == question.minor)
                && rule.access.0 & bit != 0
        };
        rules.iter().rev().find(names).is_some_and(|rule| rule.allow)
    })
}

/// Runs the filter as the kernel would.
pub(super) fn run(filter: Option<&Filter>, question: Question) -> bool {
    let Some(filter) = filter else { return true };
    let kind = if question.kind == DeviceKind::Block { DEV_BLOCK } else { DEV_CHAR };
    let context = [u32::from(question.access) << 16 | kind, question.major, question.minor];
    let (mut registers, mut at) = ([0xdead_beef_u32; 16], 0_usize);
    loop {
        let Instruction { code, registers: names, offset, immediate } = filter.instructions()[at];
        let (to, from) = (usize::from(names & 15), usize::from(names >> 4));
        let number = u32::from_ne_bytes(immediate.to_ne_bytes());
        at += 1;
        let jump = usize::try_from(offset).unwrap();
        match code {
            LOAD_WORD => registers[to] = context[jump / 4],
            MOVE_IMMEDIATE => registers[to] = number,
            MOVE_REGISTER => registers[to] = registers[from],
            AND_IMMEDIATE => registers[to] &= number,
            SHIFT_RIGHT_IMMEDIATE => registers[to] >>= number,
            JUMP => at += jump,
            JUMP_IF_EQUAL if registers[to] == number => at += jump,
            JUMP_IF_NOT_EQUAL if registers[to] != number => at += jump,
            JUMP_IF_ANY_BIT if registers[to] & number != 0 => at += jump,
            JUMP_IF_EQUAL | JUMP_IF_NOT_EQUAL | JUMP_IF_ANY_BIT => {}
            EXIT => return registers[0] != 0,
            _ => panic!("operation {code:#x}"),
        }
    }
}

/// Whether every instruction is reachable, as the verifier demands.
pub(super) fn is_all_reachable(filter: &Filter) -> bool {
    let program = filter.instructions();
    let mut reached = vec![false; program.len()];
    let mut open = vec![0];
    while let Some(at) = open.pop() {
        if std::mem::replace(&mut reached[at], true) || program[at].code == EXIT {
            continue;
        }
        if program[at].code != JUMP {
            open.push(at + 1);
        }
        if matches!(program[at].code, JUMP | JUMP_IF_EQUAL | JUMP_IF_NOT_EQUAL | JUMP_IF_ANY_BIT) {
            open.push(at + 1 + usize::try_from(program[at].offset).unwrap());
        }
    }
    !reached.contains(&false)
}

const NUMBERS: [Option<u32>; 6] = [None, None, Some(0), Some(1), Some(3), Some(u32::MAX)];

/// Returns a random rule with numbers from `numbers`.
pub(super) fn any_rule(dice: &mut impl Dice, numbers: &[Option<u32>]) -> Rule {
    Rule {
        allow: dice.roll(2) == 0,
        kind: dice.pick(&[DeviceKind::Any, DeviceKind::Block, DeviceKind::Char]),
        major: dice.pick(numbers),
        minor: dice.pick(numbers),
        access: Access(dice.pick(&[1, 2, 3, 4, 5, 6, 7, 7, 7, 7])),
    }
}

/// Compiles random rules and compares the program's answers with theirs; returns its length, or `None` if the
/// rules allow everything.
pub(in crate::cgroup) fn compare(dice: &mut impl Dice) -> Option<usize> {
    let rules: Vec<_> = (0..dice.roll(13)).map(|_| any_rule(dice, &NUMBERS)).collect();
    let filter = compile(&rules, &Pointer::root()).unwrap();
    assert!(filter.as_ref().is_none_or(is_all_reachable), "{rules:?}\n{filter:#?}");
    for kind in [DeviceKind::Block, DeviceKind::Char] {
        for major in [0, 1, 3, 7, u32::MAX] {
            for minor in [0, 1, 3, 7, u32::MAX] {
                for access in 1..=7 {
                    let question = Question { kind, major, minor, access };
                    let expected = allowed(&rules, question);
                    assert_eq!(
                        run(filter.as_ref(), question),
                        expected,
                        "{question:?}\n{rules:?}\n{filter:#?}"
                    );
                }
            }
        }
    }
    filter.map(|filter| filter.0.len())
}
