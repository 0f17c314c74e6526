//! Compiles ranges to a classic BPF program: for each architecture a binary search for the range of the
//! call's number, then its verdict, with comparisons of arguments where it depends on them.
//!
//! A binary search also makes the filter quick to load: the kernel runs it once for each call to find those
//! that are always allowed. Conditional jumps reach at most 255 instructions forward, and no jump goes
//! backward, so the program is generated from its end: jump targets exist already. If a target is too far
//! away, a return instruction is repeated; anything else is reached by an unconditional jump.
//!
//! Sources: the kernel's seccomp_filter.rst and filter.rst; `struct seccomp_data` in linux/seccomp.h.

use super::ranges::{Range, Section};
use super::rules::{Action, Condition, Operator, Rule, Verdict};
use crate::sys::seccomp::Instruction;

/// Compiles the sections; other architectures are answered as by libseccomp.
pub(super) fn compile(sections: &[Section], default: Action) -> Vec<Instruction> {
    let mut program = Program { reversed: Vec::with_capacity(1024), answers: Vec::new(), default };
    let mut next = JumpTarget::Answer(Action::KILL_THREAD);
    for section in sections.iter().rev() {
        let found = match program.search(&section.ranges) {
            JumpTarget::At(place) => program.load(NUMBER, place),
            answer => answer,
        };
        next = program.jump(EQUAL, section.audit, found, next);
    }
    match next {
        JumpTarget::At(place) => program.load(ARCHITECTURE, place),
        JumpTarget::Answer(_) => next,
    };
    program.reversed.reverse();
    program.reversed
}

// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

// Opcodes: class, size, mode; linux/bpf_common.h.
pub(super) const LOAD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP: u16 = 0x05;
pub(super) const EQUAL: u16 = 0x15;
pub(super) const GREATER: u16 = 0x25;
pub(super) const GREATER_OR_EQUAL: u16 = 0x35;
pub(super) const ANSWER: u16 = 0x06;

/// The reach of a conditional jump, less two instructions that may have to be inserted.
const REACH: usize = 253;

/// Where a jump goes.
#[derive(Clone, Copy, Debug)]
enum JumpTarget {
    Answer(Action),
    /// An instruction, counted from the end of the program.
    At(usize),
}

struct Program {
    reversed: Vec<Instruction>,
    /// The return instructions so far; the last entry is the earliest in the program.
    answers: Vec<(Action, usize)>,
    default: Action,
}

impl Program {
    fn push(&mut self, code: u16, number: u32) -> JumpTarget {
        self.reversed.push(Instruction { code, yes: 0, no: 0, number });
        JumpTarget::At(self.reversed.len() - 1)
    }

    /// Loads a word of `seccomp_data` and falls through to `place`, which must be the instruction written
    /// last.
    fn load(&mut self, word: u32, place: usize) -> JumpTarget {
        debug_assert_eq!(place + 1, self.reversed.len(), "a load goes on with what follows");
        self.push(LOAD, word)
    }

    /// The number of instructions between the next one to be written and `place`.
    fn distance(&self, place: usize) -> usize {
        self.reversed.len() - place - 1
    }

    /// Returns a place in reach of a conditional jump that leads to `target`.
    fn near(&mut self, target: JumpTarget) -> usize {
        match target {
            JumpTarget::Answer(action) => {
                let mut near =
                    self.answers.iter().rev().take_while(|(_, place)| self.distance(*place) <= REACH);
                if let Some((_, place)) = near.find(|(known, _)| *known == action) {
                    return *place;
                }
                self.push(ANSWER, action.0);
                self.answers.push((action, self.reversed.len() - 1));
            }
            JumpTarget::At(place) => {
                let distance = self.distance(place);
                if distance <= REACH {
                    return place;
                }
                self.push(JUMP, u32::try_from(distance).unwrap_or(u32::MAX));
            }
        }
        self.reversed.len() - 1
    }

    /// Compares the loaded word with `number`.
    fn jump(&mut self, code: u16, number: u32, yes: JumpTarget, no: JumpTarget) -> JumpTarget {
        let (yes, no) = (self.near(yes), self.near(no));
        let skip = |distance| u8::try_from(distance).unwrap_or(u8::MAX);
        let (yes, no) = (skip(self.distance(yes)), skip(self.distance(no)));
        self.reversed.push(Instruction { code, yes, no, number });
        JumpTarget::At(self.reversed.len() - 1)
    }

    /// Generates the binary search for the loaded number.
    fn search(&mut self, ranges: &[Range]) -> JumpTarget {
        let (left, right) = ranges.split_at(ranges.len() / 2);
        match (left, right) {
            (_, []) => JumpTarget::Answer(self.default),
            ([], [range, ..]) => self.verdict(&range.verdict),
            (_, [middle, ..]) => {
                let right = self.search(right);
                let left = self.search(left);
                self.jump(GREATER_OR_EQUAL, middle.first, right, left)
            }
        }
    }

    fn verdict(&mut self, verdict: &Verdict) -> JumpTarget {
        match verdict {
            Verdict::Always(action) => JumpTarget::Answer(*action),
            Verdict::Depends(rules) => {
                let otherwise = JumpTarget::Answer(self.default);
                rules.iter().rev().fold(otherwise, |next, rule| self.rule(rule, next))
            }
        }
    }

    fn rule(&mut self, rule: &Rule, otherwise: JumpTarget) -> JumpTarget {
        let holds = JumpTarget::Answer(rule.action);
        rule.conditions.iter().rev().fold(holds, |next, condition| self.condition(condition, next, otherwise))
    }

    fn condition(&mut self, condition: &Condition, holds: JumpTarget, fails: JumpTarget) -> JumpTarget {
        match condition.operator {
            Operator::Equal => self.equal(condition, holds, fails),
            Operator::NotEqual => self.equal(condition, fails, holds),
            Operator::GreaterOrEqual => self.exceeds(condition, GREATER_OR_EQUAL, holds, fails),
            Operator::Less => self.exceeds(condition, GREATER_OR_EQUAL, fails, holds),
            Operator::Greater => self.exceeds(condition, GREATER, holds, fails),
            Operator::LessOrEqual => self.exceeds(condition, GREATER, fails, holds),
        }
    }

    fn equal(&mut self, condition: &Condition, holds: JumpTarget, fails: JumpTarget) -> JumpTarget {
        let halves = [Half::low(condition), Half::high(condition)];
        halves.iter().filter(|half| half.mask != 0).fold(holds, |next, half| {
            self.jump(EQUAL, half.value, next, fails);
            if half.mask != u32::MAX {
                self.push(AND, half.mask);
            }
            self.push(LOAD, half.word)
        })
    }

    /// Generates a 64-bit comparison; `code` compares the lower halves if the upper halves are equal or do
    /// not matter.
    fn exceeds(
        &mut self,
        condition: &Condition,
        code: u16,
        holds: JumpTarget,
        fails: JumpTarget,
    ) -> JumpTarget {
        let (low, high) = (Half::low(condition), Half::high(condition));
        self.jump(code, low.value, holds, fails);
        let lower = self.push(LOAD, low.word);
        if high.mask == 0 {
            return lower;
        }
        let not_above = self.jump(EQUAL, high.value, lower, fails);
        self.jump(GREATER, high.value, holds, not_above);
        self.push(LOAD, high.word)
    }
}

/// A condition on one half of an argument. All supported architectures are little-endian.
struct Half {
    word: u32,
    mask: u32,
    value: u32,
}

impl Half {
    fn low(condition: &Condition) -> Self {
        Self::of(condition, 0)
    }

    fn high(condition: &Condition) -> Self {
        Self::of(condition, 1)
    }

    fn of(condition: &Condition, which: u8) -> Self {
        let half = |whole: u64| u32::try_from(whole >> (32 * which) & u64::from(u32::MAX)).unwrap_or(0);
        Self {
            word: ARGUMENTS + 8 * u32::from(condition.argument) + 4 * u32::from(which),
            mask: half(condition.mask),
            value: half(condition.value),
        }
    }
}
