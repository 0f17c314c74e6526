use super::model::{Question, allowed, any_rule, compare, is_all_reachable, run};
use super::*;
use crate::cgroup::devices;
use crate::host::dice::{Dice as _, Xorshift};

#[test]
fn the_program_answers_as_the_rules_do() {
    let mut dice = Xorshift(0x9e37_79b9_7f4a_7c15);
    let lengths: Vec<_> = (0..20_000).map(|_| compare(&mut dice)).collect();
    let none = lengths.iter().filter(|length| length.is_none()).count();
    let longest = lengths.into_iter().flatten().max().unwrap();
    // The rules were neither all trivial nor all alike.
    assert!(
        (100..5_000).contains(&none) && longest > 30,
        "{none} allow everything, the longest has {longest}"
    );
}

#[test]
fn long_programs_answer_as_the_rules_do() {
    let mut dice = Xorshift(0x0123_4567_89ab_cdef);
    for majors in [3, 200] {
        for any in [0, 40] {
            let numbers: Vec<_> = (0..majors).map(Some).chain(vec![None; any]).collect();
            let rules: Vec<_> = (0..1_000).map(|_| any_rule(&mut dice, &numbers)).collect();
            let filter = compile(&rules, &Pointer::root()).unwrap();
            assert!(filter.as_ref().is_none_or(is_all_reachable), "{majors} {any}");
            for _ in 0..20_000 {
                let mut number = || u32::try_from(dice.roll(u64::from(majors) + 1)).unwrap();
                let (major, minor) = (number(), number());
                let (kind, access) =
                    (dice.pick(&[DeviceKind::Block, DeviceKind::Char]), dice.pick(&[1, 2, 3, 4, 5, 6, 7]));
                let question = Question { kind, major, minor, access };
                assert_eq!(run(filter.as_ref(), question), allowed(&rules, question), "{question:?}");
            }
        }
    }
}

#[test]
fn rules_that_say_nothing_new_cost_nothing() {
    let deny = Rule { allow: false, kind: DeviceKind::Any, major: None, minor: None, access: Access::ALL };
    let one = |number| Rule { kind: DeviceKind::Block, major: Some(number), minor: Some(number), ..deny };
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
    // But it does if a later rule denies something.
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
        kind: DeviceKind::Char,
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
