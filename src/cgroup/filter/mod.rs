//! Compiles device rules into the BPF program that the kernel runs at every open(2) and mknod(2) of a device.
//!
//! The rules are evaluated here, not by the program: which accesses are allowed for each device that a rule
//! names, and for all others. The program finds its device by comparing numbers, and then checks once whether
//! the requested access is allowed. It modifies no state on the way, so that the verifier can prune: with a
//! program that cleared bits of the access as it decided them, there were so many states that 1,000 rules
//! took the kernel seconds or exceeded its limits.
//!
//! Sources: `struct bpf_cgroup_dev_ctx` in linux/bpf.h; the kernel's bpf/standardization/instruction-set.rst
//! and kernel/bpf/verifier.c.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::devices::{Access, DeviceKind, Rule};
use crate::error::Pointer;
use crate::sys::bpf::Instruction;

/// A compiled device filter.
#[derive(Debug)]
pub(super) struct Filter(Vec<Instruction>);

impl Filter {
    pub(super) fn instructions(&self) -> &[Instruction] {
        &self.0
    }
}

/// Compiles `rules`; `None` if they allow everything.
///
/// # Errors
/// Too many rules: about 10,000 devices can be treated differently from the rest.
pub(super) fn compile(rules: &[Rule], at: &Pointer) -> Result<Option<Filter>> {
    let table = |kind| Table::of(&Verdicts::of(rules, kind));
    let tables = table(DeviceKind::Block).zip(table(DeviceKind::Char));
    if tables.as_ref().is_some_and(|(block, char)| block.allows_all() && char.allows_all()) {
        return Ok(None);
    }
    let program = tables.and_then(|(block, char)| assemble(body(&block, &char)?, block.others.rest));
    program.map(|program| Some(Filter(program))).ok_or_else(|| {
        let hint =
            "about 10,000 distinct devices are supported: use -1 as a wildcard, or remove redundant rules";
        at.error_with_hint("compile the device filter: too many device rules", hint)
    })
}

/// For each bit of [`Access`], the index of the last rule about it and whether that rule allows it.
type Verdict = [Option<(usize, bool)>; 3];

/// The verdicts of the rules about devices of one type, by major and minor number; `None` matches any.
struct Verdicts(BTreeMap<(Option<u32>, Option<u32>), Verdict>);

impl Verdicts {
    fn of(rules: &[Rule], kind: DeviceKind) -> Self {
        let mut words = BTreeMap::<_, Verdict>::new();
        for (number, rule) in rules.iter().enumerate() {
            if rule.kind != DeviceKind::Any && rule.kind != kind {
                continue;
            }
            let said = words.entry((rule.major, rule.minor)).or_default();
            for (bit, said) in said.iter_mut().enumerate() {
                if rule.access.0 >> bit & 1 != 0 {
                    *said = Some((number, rule.allow));
                }
            }
        }
        Self(words)
    }

    /// Returns what is allowed for the device with these numbers; `None` stands for a number that no rule
    /// names.
    fn allowed(&self, major: Option<u32>, minor: Option<u32>) -> Access {
        let about = [(major, minor), (major, None), (None, minor), (None, None)].map(|key| self.0.get(&key));
        let last = |bit: usize| about.iter().flatten().filter_map(|said| *said.get(bit)?).max();
        let allowed = (0..3).filter(|bit| last(*bit).is_some_and(|(_, allow)| allow));
        Access(allowed.fold(0, |set, bit| set | 1 << bit))
    }

    fn minors(&self, major: Option<u32>) -> impl Iterator<Item = u32> {
        self.0.range((major, None)..=(major, Some(u32::MAX))).filter_map(|((_, minor), _)| *minor)
    }
}

/// What is allowed, by minor number.
#[derive(Debug, PartialEq, Eq)]
struct Minors {
    named: Vec<(u32, Access)>,
    rest: Access,
}

/// What is allowed for the devices of a major number, by minor number. Without a `rest` of its own, that of
/// [`Table::others`] applies.
#[derive(Debug, PartialEq, Eq)]
struct Major {
    number: u32,
    named: Vec<(u32, Access)>,
    rest: Option<Access>,
}

/// What is allowed for devices of one type.
#[derive(Debug, PartialEq, Eq)]
struct Table {
    majors: Vec<Major>,
    others: Minors,
}

/// The limit on devices to evaluate.
const MOST: usize = 1 << 18;

impl Table {
    /// Evaluates the rules; `None` if there would be too many devices.
    fn of(words: &Verdicts) -> Option<Self> {
        let rest = words.allowed(None, None);
        let of_any = words.minors(None).map(|minor| (minor, words.allowed(None, Some(minor))));
        let others = Minors { named: of_any.filter(|(_, allowed)| *allowed != rest).collect(), rest };
        let any: BTreeSet<u32> = words.minors(None).collect();
        let mut majors = Vec::new();
        let mut room = MOST;
        let mut numbers: Vec<u32> = words.0.keys().filter_map(|(major, _)| *major).collect();
        numbers.dedup();
        for number in numbers {
            let allowed = |minor: &u32| words.allowed(Some(number), Some(*minor));
            let is_as_others = |minor: &u32| allowed(minor) == words.allowed(None, Some(*minor));
            let mut minors: BTreeSet<u32> = words.minors(Some(number)).collect();
            let own = words.0.get(&(Some(number), None)).map(|_| words.allowed(Some(number), None));
            if own.is_some() {
                room = room.checked_sub(any.len())?;
                minors.extend(&any);
            }
            if own.is_none_or(|own| own == rest) && minors.iter().all(is_as_others) {
                continue;
            }
            let needed = |minor: &u32| own.map_or_else(|| !is_as_others(minor), |own| allowed(minor) != own);
            let named = minors.into_iter().filter(needed).map(|minor| (minor, allowed(&minor))).collect();
            majors.push(Major { number, named, rest: own });
        }
        Some(Self { majors, others })
    }

    fn allows_all(&self) -> bool {
        self.majors.is_empty() && self.others == Minors { named: Vec::new(), rest: Access::ALL }
    }

    /// Compiles the table. The code ends with the comparisons for the minor numbers of `others`, after which
    /// the answer is `others.rest`. `None` if a jump would be too long.
    fn code(&self) -> Option<Vec<Op>> {
        let otherwise = select(MINOR, &self.others.named);
        let (mut majors, mut after) = (Vec::new(), 0_usize);
        // From last to first, to know the distance to the end.
        for Major { number, named, rest } in self.majors.iter().rev() {
            let end = match rest {
                Some(rest) => JumpTarget::Answer(*rest),
                None if otherwise.is_empty() => JumpTarget::Answer(self.others.rest),
                None => JumpTarget::Ahead(after.try_into().ok()?),
            };
            let mut code = select(MINOR, named);
            if code.is_empty() && self.majors.len() <= FEW {
                code.push(Op::jump_if(JUMP_IF_EQUAL, MAJOR, *number, end));
            } else {
                code.push(Op::jump(end));
                code.insert(0, Op::if_not(MAJOR, *number, code.len().try_into().ok()?));
            }
            after += code.len();
            majors.push(code);
        }
        Some(majors.into_iter().rev().flatten().chain(otherwise).collect())
    }
}

/// Up to this many numbers, code that jumps if the number is equal is as good as code that jumps if it is
/// not, and shorter. Beyond, it is not: the verifier follows one branch and queues the other, at most 8,192
/// of them.
const FEW: usize = 64;

/// Compiles the answers for these numbers.
fn select(register: u8, numbers: &[(u32, Access)]) -> Vec<Op> {
    let is_few = numbers.len() <= FEW;
    let one = |(number, allowed): &(u32, Access)| {
        let answer = JumpTarget::Answer(*allowed);
        match is_few {
            true => vec![Op::jump_if(JUMP_IF_EQUAL, register, *number, answer)],
            false => vec![Op::if_not(register, *number, 1), Op::jump(answer)],
        }
    };
    numbers.iter().flat_map(one).collect()
}

/// Compiles both tables. The code ends where `rest` of the block devices is the answer. `None` if a jump
/// would be too long.
fn body(block: &Table, char: &Table) -> Option<Vec<Op>> {
    if block == char {
        return block.code();
    }
    let (mut code, block_code) = (char.code()?, block.code()?);
    if !block_code.is_empty() || block.others.rest != char.others.rest {
        code.push(Op::jump(JumpTarget::Answer(char.others.rest)));
    }
    let skip = Op::if_not(TYPE, DEV_CHAR, code.len().try_into().ok()?);
    Some([skip].into_iter().chain(code).chain(block_code).collect())
}

// The low half of the context's first word is the device type; the high half is the access.
#[cfg(any(test, feature = "fuzzing"))]
const DEV_BLOCK: u32 = 1;
const DEV_CHAR: u32 = 2;

// Registers. The program receives the context's address in CONTEXT and returns its answer in ANSWER.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// Opcodes, all on 32 bits: class, operation, and source of the operand.
const LOAD_WORD: u8 = 0x61;
const MOVE_IMMEDIATE: u8 = 0xb4;
const MOVE_REGISTER: u8 = 0xbc;
const AND_IMMEDIATE: u8 = 0x54;
const SHIFT_RIGHT_IMMEDIATE: u8 = 0x74;
const JUMP: u8 = 0x05;
const JUMP_IF_EQUAL: u8 = 0x16;
const JUMP_IF_NOT_EQUAL: u8 = 0x56;
const JUMP_IF_ANY_BIT: u8 = 0x46;
const EXIT: u8 = 0x95;

/// The target of a jump.
#[derive(Clone, Copy, Debug)]
enum JumpTarget {
    /// Skips this many instructions.
    Ahead(i16),
    /// To the code that answers when this access is allowed.
    Answer(Access),
}

#[derive(Clone, Copy, Debug)]
struct Op {
    instruction: Instruction,
    to: JumpTarget,
}

impl Op {
    fn jump(to: JumpTarget) -> Self {
        Self { instruction: plain(JUMP, 0, 0), to }
    }

    fn jump_if(code: u8, register: u8, number: u32, to: JumpTarget) -> Self {
        Self { instruction: plain(code, register, number), to }
    }

    /// Skips `count` instructions unless `register` is `number`.
    fn if_not(register: u8, number: u32, count: i16) -> Self {
        Self::jump_if(JUMP_IF_NOT_EQUAL, register, number, JumpTarget::Ahead(count))
    }
}

fn plain(code: u8, register: u8, number: u32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate: i32::from_ne_bytes(number.to_ne_bytes()) }
}

/// The prologue: loads type, access, major and minor number.
fn fetch() -> [Instruction; 6] {
    let load = |register: u8, offset| Instruction { offset, ..plain(LOAD_WORD, register | CONTEXT << 4, 0) };
    [
        load(TYPE, 0),
        plain(MOVE_REGISTER, ACCESS | TYPE << 4, 0),
        plain(SHIFT_RIGHT_IMMEDIATE, ACCESS, 16),
        plain(AND_IMMEDIATE, TYPE, 0xffff),
        load(MAJOR, 4),
        load(MINOR, 8),
    ]
}

/// Puts `body` between the prologue and the answers; at the end of the body, the answer is `rest`. `None` if
/// a jump would be too long. There is no dead code, which the verifier refuses.
fn assemble(mut body: Vec<Op>, rest: Access) -> Option<Vec<Instruction>> {
    let mut answers: BTreeSet<u8> = body
        .iter()
        .filter_map(|op| match op.to {
            JumpTarget::Answer(allowed) => Some(allowed.0),
            JumpTarget::Ahead(_) => None,
        })
        .chain([rest.0])
        .collect();
    // If only some access is allowed, the answer depends on the request, and so needs both yes and no.
    let is_some = |allowed: u8| allowed != Access::ALL.0 && allowed != 0;
    if answers.iter().any(|allowed| is_some(*allowed)) {
        answers.extend([Access::ALL.0, 0]);
        if !is_some(rest.0) {
            body.push(Op::jump(JumpTarget::Answer(rest)));
        }
    }
    let mut answers: Vec<u8> = answers.into_iter().collect();
    // First the one at the end of the body, then the other partial ones, then yes and no.
    answers.sort_by_key(|allowed| (!is_some(*allowed), *allowed != rest.0, Access::ALL.0 - allowed));
    let mut program = Vec::with_capacity(body.len() + 22);
    if !body.is_empty() || answers.len() > 1 {
        program.extend(fetch());
    }
    let end = body.len();
    // Each takes two instructions, except that the last partial answer is directly followed by yes.
    let is_before_yes = |index: usize| answers.get(index + 1) == Some(&Access::ALL.0);
    let length = |index: usize, allowed: u8| if is_some(allowed) && is_before_yes(index) { 1 } else { 2 };
    let place = |wanted: u8| {
        let before = answers.iter().copied().enumerate().take_while(|(_, allowed)| *allowed != wanted);
        end + before.map(|(index, allowed)| length(index, allowed)).sum::<usize>()
    };
    let places: [usize; 8] = std::array::from_fn(|allowed| place(u8::try_from(allowed).unwrap_or(0)));
    let ahead = |from: usize, allowed: u8| -> Option<i16> {
        places.get(usize::from(allowed))?.checked_sub(from + 1)?.try_into().ok()
    };
    for (index, op) in body.iter().enumerate() {
        let offset = match op.to {
            JumpTarget::Ahead(count) => count,
            JumpTarget::Answer(allowed) => ahead(index, allowed.0)?,
        };
        program.push(Instruction { offset, ..op.instruction });
    }
    for (index, allowed) in answers.iter().copied().enumerate() {
        let at = place(allowed);
        if !is_some(allowed) {
            program.extend([plain(MOVE_IMMEDIATE, ANSWER, (allowed != 0).into()), plain(EXIT, 0, 0)]);
            continue;
        }
        let more = plain(JUMP_IF_ANY_BIT, ACCESS, (Access::ALL.0 & !allowed).into());
        program.push(Instruction { offset: ahead(at, 0)?, ..more });
        if !is_before_yes(index) {
            program.push(Instruction { offset: ahead(at + 1, Access::ALL.0)?, ..plain(JUMP, 0, 0) });
        }
    }
    Some(program)
}

#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod model;
#[cfg(test)]
mod tests;
