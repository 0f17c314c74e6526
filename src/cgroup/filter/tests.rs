use super::super::devices;
use super::*;

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

/// Whether something leads to every instruction, as the verifier demands.
fn is_all_reachable(filter: &Filter) -> bool {
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
        let filter = compile(&rules, &Pointer::root()).unwrap();
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

#[test]
fn long_programs_answer_as_the_rules_do() {
    let mut dice = Dice(0x0123_4567_89ab_cdef);
    for majors in [3, 200] {
        for any in [0, 40] {
            let numbers: Vec<_> = (0..majors).map(Some).chain(vec![None; any]).collect();
            let rules: Vec<_> = (0..1_000).map(|_| dice.rule(&numbers)).collect();
            let filter = compile(&rules, &Pointer::root()).unwrap();
            assert!(filter.as_ref().is_none_or(is_all_reachable), "{majors} {any}");
            for _ in 0..20_000 {
                let mut number = || u32::try_from(dice.roll(u64::from(majors) + 1)).unwrap();
                let (major, minor) = (number(), number());
                let (kind, access) =
                    (dice.pick(&[Kind::Block, Kind::Char]), dice.pick(&[1, 2, 3, 4, 5, 6, 7]));
                let question = Question { kind, major, minor, access };
                assert_eq!(run(filter.as_ref(), question), allowed(&rules, question), "{question:?}");
            }
        }
    }
}

#[test]
fn rules_that_say_nothing_new_cost_nothing() {
    let deny = Rule { allow: false, kind: Kind::Any, major: None, minor: None, access: Access::ALL };
    let one = |number| Rule { kind: Kind::Block, major: Some(number), minor: Some(number), ..deny };
    let all: Vec<_> = (0..50_000).map(one).chain([deny]).collect();
    assert_eq!(compile(&all, &Pointer::root()).unwrap().unwrap().0.len(), 2);
    let denied: Vec<_> = [deny].into_iter().chain((0..50_000).map(one)).collect();
    assert_eq!(compile(&denied, &Pointer::root()).unwrap().unwrap().0.len(), 2);
}

fn planned(json: &str) -> Option<Filter> {
    let rules = serde_json::from_str::<Vec<_>>(json).unwrap();
    compile(&devices::plan(&rules, &Pointer::root(), drop).unwrap(), &Pointer::root()).unwrap()
}

#[test]
fn the_usual_program_is_short() {
    assert_eq!(planned("[]").unwrap().0.len(), 27);
    assert_eq!(planned(r#"[{"allow": false, "access": "rwm"}]"#).unwrap().0.len(), 27);
}

#[test]
fn a_privileged_container_needs_no_program() {
    assert!(planned(r#"[{"allow": false, "access": "rwm"}, {"allow": true, "access": "rwm"}]"#).is_none());
    // Not so if a later rule takes something back.
    assert!(
        planned(r#"[{"allow": true, "access": "rwm"}, {"allow": false, "type": "b", "access": "w"}]"#)
            .is_some()
    );
}

#[test]
fn without_a_rule_nothing_is_allowed() {
    assert_eq!(compile(&[], &Pointer::root()).unwrap().unwrap().0.len(), 2);
}

#[test]
fn more_rules_than_a_program_can_hold_are_an_error() {
    let at = Pointer::root().field("linux").field("resources").field("devices");
    let rule = |major| Rule {
        allow: true,
        kind: Kind::Char,
        major: Some(major),
        minor: Some(1),
        access: Access::READ,
    };
    assert!(compile(&(0..8_000).map(rule).collect::<Vec<_>>(), &at).is_ok());
    let error = compile(&(0..50_000).map(rule).collect::<Vec<_>>(), &at).unwrap_err();
    let error = crate::error::line(&error);
    assert!(
        error.starts_with(
            "config.json: /linux/resources/devices: compile the device filter: too many device rules ("
        ),
        "{error}"
    );
}
