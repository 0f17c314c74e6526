//! Compiles device rules into the BPF program that the kernel asks at every open(2) and mknod(2) of a device.
//!
//! The program goes through the rules from the last to the first and keeps the accesses not yet decided. An allowing rule that
//! matches takes its accesses off, and when none is left the answer is yes; a denying one that matches any of them
//! answers no. Neighbouring rules that say the same can trade places, so they are sorted, and the type and the
//! major number are compared once for all rules that share them.
//!
//! Sources: `struct bpf_cgroup_dev_ctx` in linux/bpf.h; the kernel's bpf/standardization/instruction-set.rst.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::devices::{Access, Kind, Rule};
use crate::sys::bpf::Instruction;

/// A program that knows which devices are allowed.
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
/// Too many rules: about 10,000 that differ fit.
pub(super) fn compile(rules: &[Rule]) -> Result<Option<Filter>> {
    let mut otherwise = false;
    let mut runs = Vec::new();
    for run in rules.chunk_by(|a, b| a.allow == b.allow).rev() {
        let (allow, tree) = (run.first().is_some_and(|rule| rule.allow), Tree::of(run));
        if tree.is_everything() {
            // What stands before it is never asked.
            otherwise = allow;
            break;
        }
        runs.push((allow, tree));
    }
    // The first rules add nothing if they say what is so without them.
    if runs.last().is_some_and(|(allow, _)| *allow == otherwise) {
        runs.pop();
    }
    if runs.is_empty() && otherwise {
        return Ok(None);
    }
    let body = runs.iter().map(|(allow, tree)| tree.code(*allow)).collect::<Option<Vec<_>>>();
    let program = body.and_then(|body| assemble(&body.concat(), otherwise));
    program.map(|program| Some(Filter(program))).context("compile the device filter: too many device rules")
}

/// Rules that say the same, by type, major and minor number (`None` is any) and with what they say it about.
#[derive(Debug)]
struct Tree(BTreeMap<Kind, Majors>);

type Majors = BTreeMap<Option<u32>, Minors>;
type Minors = BTreeMap<Option<u32>, Access>;

impl Tree {
    fn of(rules: &[Rule]) -> Self {
        let mut tree = BTreeMap::<Kind, Majors>::new();
        for rule in rules {
            let minors = tree.entry(rule.kind).or_default().entry(rule.major).or_default();
            let access = minors.entry(rule.minor).or_insert(Access(0));
            access.0 |= rule.access.0;
        }
        Self(tree)
    }

    fn is_everything(&self) -> bool {
        self.0.get(&Kind::Any).is_some_and(has_all)
    }

    /// `None` if a jump would be too long.
    fn code(&self, allow: bool) -> Option<Vec<Op>> {
        let mut code = Vec::new();
        for (kind, majors) in &self.0 {
            match kind {
                Kind::Any => code.extend(majors_code(majors, allow)?),
                Kind::Block => code.extend(of_kind(DEV_BLOCK, majors, allow)?),
                Kind::Char => code.extend(of_kind(DEV_CHAR, majors, allow)?),
            }
        }
        Some(code)
    }
}

/// Whether all access to all devices of a type is spoken about.
fn has_all(majors: &Majors) -> bool {
    majors.get(&None).and_then(|minors| minors.get(&None)) == Some(&Access::ALL)
}

fn of_kind(kind: u32, majors: &Majors, allow: bool) -> Option<Vec<Op>> {
    if has_all(majors) {
        return Some(vec![Op::answer_if(TYPE, kind, allow)]);
    }
    only_if(TYPE, kind, majors_code(majors, allow)?)
}

fn majors_code(majors: &Majors, allow: bool) -> Option<Vec<Op>> {
    let mut code = Vec::new();
    for (major, minors) in majors {
        match major {
            None => code.extend(minors_code(minors, allow)?),
            Some(major) if minors.get(&None) == Some(&Access::ALL) => {
                code.push(Op::answer_if(MAJOR, *major, allow));
            }
            Some(major) => code.extend(only_if(MAJOR, *major, minors_code(minors, allow)?)?),
        }
    }
    Some(code)
}

fn minors_code(minors: &Minors, allow: bool) -> Option<Vec<Op>> {
    let mut code = Vec::new();
    for (minor, access) in minors {
        match minor {
            Some(minor) if *access == Access::ALL => code.push(Op::answer_if(MINOR, *minor, allow)),
            Some(minor) => code.extend(only_if(MINOR, *minor, access_code(*access, allow))?),
            None => code.extend(access_code(*access, allow)),
        }
    }
    Some(code)
}

fn access_code(access: Access, allow: bool) -> Vec<Op> {
    if allow {
        let rest = u32::from(Access::ALL.0 & !access.0);
        vec![Op::plain(AND_IMMEDIATE, ACCESS, rest), Op::answer_if(ACCESS, 0, true)]
    } else {
        vec![Op { answer: Some(false), ..Op::plain(JUMP_IF_ANY_BIT, ACCESS, access.0.into()) }]
    }
}

/// `body`, skipped unless `register` holds `number`.
fn only_if(register: u8, number: u32, body: Vec<Op>) -> Option<Vec<Op>> {
    let mut skip = Op::plain(JUMP_IF_NOT_EQUAL, register, number);
    skip.instruction.offset = body.len().try_into().ok()?;
    let mut code = vec![skip];
    code.extend(body);
    Some(code)
}

// The context's first word holds what one wants to do above these.
const DEV_BLOCK: u32 = 1;
const DEV_CHAR: u32 = 2;

// Registers. The program is given the address of its context in CONTEXT and answers in ANSWER.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// Operations, all on 32 bits: class, what to do, and where the operand comes from.
const LOAD_WORD: u8 = 0x61;
const MOVE_IMMEDIATE: u8 = 0xb4;
const MOVE_REGISTER: u8 = 0xbc;
const AND_IMMEDIATE: u8 = 0x54;
const SHIFT_RIGHT_IMMEDIATE: u8 = 0x74;
const JUMP_IF_EQUAL: u8 = 0x16;
const JUMP_IF_NOT_EQUAL: u8 = 0x56;
const JUMP_IF_ANY_BIT: u8 = 0x46;
const EXIT: u8 = 0x95;

/// An instruction; one with an `answer` jumps to where that is given.
#[derive(Clone, Copy, Debug)]
struct Op {
    instruction: Instruction,
    answer: Option<bool>,
}

impl Op {
    fn plain(code: u8, register: u8, number: u32) -> Self {
        let immediate = number.cast_signed();
        Self { instruction: Instruction { code, registers: register, offset: 0, immediate }, answer: None }
    }

    fn answer_if(register: u8, number: u32, answer: bool) -> Self {
        Self { answer: Some(answer), ..Self::plain(JUMP_IF_EQUAL, register, number) }
    }
}

/// Puts `body` between what fetches the question and what gives the answers; `None` if that makes a jump too long.
fn assemble(body: &[Op], otherwise: bool) -> Option<Vec<Instruction>> {
    let plain = |code, register, number| Op::plain(code, register, number).instruction;
    let load = |register: u8, offset| Instruction { offset, ..plain(LOAD_WORD, register | CONTEXT << 4, 0) };
    let fetch = [
        load(TYPE, 0),
        plain(MOVE_REGISTER, ACCESS | TYPE << 4, 0),
        plain(SHIFT_RIGHT_IMMEDIATE, ACCESS, 16),
        plain(AND_IMMEDIATE, TYPE, 0xffff),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    let answer = |answer: bool| [plain(MOVE_IMMEDIATE, ANSWER, answer.into()), plain(EXIT, 0, 0)];

    let mut program = Vec::with_capacity(body.len() + 10);
    if !body.is_empty() {
        program.extend(fetch);
    }
    for (index, op) in body.iter().enumerate() {
        let mut instruction = op.instruction;
        if let Some(given) = op.answer {
            // The usual answer follows the body, the other one follows that.
            let ahead = body.len() - index - 1 + if given == otherwise { 0 } else { 2 };
            instruction.offset = ahead.try_into().ok()?;
        }
        program.push(instruction);
    }
    program.extend(answer(otherwise));
    // The verifier refuses what nothing leads to.
    if body.iter().any(|op| op.answer == Some(!otherwise)) {
        program.extend(answer(!otherwise));
    }
    Some(program)
}

#[cfg(test)]
mod tests {
    use super::super::devices;
    use super::*;
    use crate::error::Pointer;

    /// A process that wants to do something with a device.
    #[derive(Clone, Copy, Debug)]
    struct Question {
        kind: Kind,
        major: u32,
        minor: u32,
        access: u8,
    }

    /// What the rules say, taken word by word.
    fn allowed(rules: &[Rule], question: Question) -> bool {
        [1, 2, 4].into_iter().filter(|bit| question.access & bit != 0).all(|bit| {
            let names = |rule: &&Rule| {
                (rule.kind == Kind::Any || rule.kind == question.kind)
                    && rule.major.is_none_or(|major| major == question.major)
                    && rule.minor.is_none_or(|minor| minor == question.minor)
                    && rule.access.0 & bit != 0
            };
            rules.iter().rev().find(names).is_some_and(|rule| rule.allow)
        })
    }

    /// What the kernel would find.
    fn run(filter: Option<&Filter>, question: Question) -> bool {
        let Some(filter) = filter else { return true };
        let kind = if question.kind == Kind::Block { DEV_BLOCK } else { DEV_CHAR };
        let context = [u32::from(question.access) << 16 | kind, question.major, question.minor];
        let (mut registers, mut at) = ([0xdead_beef_u32; 16], 0_usize);
        loop {
            let Instruction { code, registers: names, offset, immediate } = filter.instructions()[at];
            let (to, from) = (usize::from(names & 15), usize::from(names >> 4));
            let number = immediate.cast_unsigned();
            at += 1;
            let jump = usize::try_from(offset).unwrap();
            match code {
                LOAD_WORD => registers[to] = context[jump / 4],
                MOVE_IMMEDIATE => registers[to] = number,
                MOVE_REGISTER => registers[to] = registers[from],
                AND_IMMEDIATE => registers[to] &= number,
                SHIFT_RIGHT_IMMEDIATE => registers[to] >>= number,
                JUMP_IF_EQUAL if registers[to] == number => at += jump,
                JUMP_IF_NOT_EQUAL if registers[to] != number => at += jump,
                JUMP_IF_ANY_BIT if registers[to] & number != 0 => at += jump,
                JUMP_IF_EQUAL | JUMP_IF_NOT_EQUAL | JUMP_IF_ANY_BIT => {}
                EXIT => return registers[0] != 0,
                _ => panic!("operation {code:#x}"),
            }
        }
    }

    /// Whether something leads to every instruction, as the verifier demands.
    fn is_all_reachable(filter: &Filter) -> bool {
        let program = filter.instructions();
        let mut reached = vec![false; program.len()];
        let mut open = vec![0];
        while let Some(at) = open.pop() {
            if std::mem::replace(&mut reached[at], true) || program[at].code == EXIT {
                continue;
            }
            open.push(at + 1);
            if matches!(program[at].code, JUMP_IF_EQUAL | JUMP_IF_NOT_EQUAL | JUMP_IF_ANY_BIT) {
                open.push(at + 1 + usize::try_from(program[at].offset).unwrap());
            }
        }
        !reached.contains(&false)
    }

    /// xorshift64: enough for picking rules, and the same every time.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % sides
        }

        fn pick<T: Copy>(&mut self, from: &[T]) -> T {
            from[usize::try_from(self.roll(u64::try_from(from.len()).unwrap())).unwrap()]
        }

        fn rule(&mut self, numbers: &[Option<u32>]) -> Rule {
            Rule {
                allow: self.roll(2) == 0,
                kind: self.pick(&[Kind::Any, Kind::Block, Kind::Char]),
                major: self.pick(numbers),
                minor: self.pick(numbers),
                access: Access(self.pick(&[1, 2, 3, 4, 5, 6, 7, 7, 7, 7])),
            }
        }
    }

    #[test]
    fn the_program_answers_as_the_rules_do() {
        const NUMBERS: [Option<u32>; 6] = [None, None, Some(0), Some(1), Some(3), Some(u32::MAX)];
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        let (mut none, mut longest) = (0, 0);
        for _ in 0..20_000 {
            let rules: Vec<_> = (0..dice.roll(13)).map(|_| dice.rule(&NUMBERS)).collect();
            let filter = compile(&rules).unwrap();
            assert!(filter.as_ref().is_none_or(is_all_reachable), "{rules:?}\n{filter:#?}");
            none += u32::from(filter.is_none());
            longest = longest.max(filter.as_ref().map_or(0, |filter| filter.0.len()));
            for kind in [Kind::Block, Kind::Char] {
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
        }
        // The lists were neither all trivial nor all alike.
        assert!(
            (100..5_000).contains(&none) && longest > 30,
            "{none} allow everything, the longest has {longest}"
        );
    }

    fn planned(json: &str) -> Option<Filter> {
        let rules = serde_json::from_str::<Vec<_>>(json).unwrap();
        compile(&devices::plan(&rules, &Pointer::root(), drop).unwrap()).unwrap()
    }

    #[test]
    fn the_usual_program_is_short() {
        assert_eq!(planned("[]").unwrap().0.len(), 28);
        assert_eq!(planned(r#"[{"allow": false, "access": "rwm"}]"#).unwrap().0.len(), 28);
    }

    #[test]
    fn a_privileged_container_needs_no_program() {
        assert!(
            planned(r#"[{"allow": false, "access": "rwm"}, {"allow": true, "access": "rwm"}]"#).is_none()
        );
        // Not so if a later rule takes something back.
        assert!(
            planned(r#"[{"allow": true, "access": "rwm"}, {"allow": false, "type": "b", "access": "w"}]"#)
                .is_some()
        );
    }

    #[test]
    fn without_a_rule_nothing_is_allowed() {
        assert_eq!(compile(&[]).unwrap().unwrap().0.len(), 2);
    }

    #[test]
    fn more_rules_than_a_program_can_hold_are_an_error() {
        let rule = |major| Rule {
            allow: true,
            kind: Kind::Char,
            major: Some(major),
            minor: Some(1),
            access: Access::READ,
        };
        assert!(compile(&(0..5_000).map(rule).collect::<Vec<_>>()).is_ok());
        let error = compile(&(0..50_000).map(rule).collect::<Vec<_>>()).unwrap_err();
        assert_eq!(error.to_string(), "compile the device filter: too many device rules");
    }
}
