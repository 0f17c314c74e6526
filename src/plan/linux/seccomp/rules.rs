//! Seccomp rules, and which of several rules for a call decides.
//!
//! All conditions of a rule must hold. The specification does not say what several rules for a call mean.
//! Here they mean what libseccomp makes of them, which runc and crun use, where its answer does not depend on
//! chance:
//!
//! * A rule without conditions decides alone; if there are several, the first of them.
//! * Otherwise the first rule that applies decides, in an order given by the conditions, not by the profile:
//!   higher arguments first; equality (masked or not) and inequality before `<` and `<=`, these before `>=`
//!   and `>`; larger values first, for `<` and `<=` smaller ones. If one rule's conditions are a prefix of
//!   another's, the shorter rule comes first. Rules that are still equal stay in the order of the profile.
//! * If none applies, the default action is taken.
//!
//! So the order does not matter for rules that exclude each other or have the same action. libseccomp is not
//! followed where it is wrong (2.5.4 to 2.6.1):
//!
//! * If a call has several rules with several conditions that are not all equalities, or with `<` and the
//!   like beyond 32 bits, some rules apply that should not, and the reverse; for some profiles it never
//!   terminates.
//! * If inequalities have different actions, their order depends on the halves of their values.
//! * It refuses two rules with equal conditions and different actions.
//! * In a short program it forgets to load the call's number if the first call in its list does not exist on
//!   the architecture.

use std::cmp::Reverse;

use super::arch::Width;

/// An action of the kernel: `SECCOMP_RET_*` with its data; linux/seccomp.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Action(pub(super) u32);

impl Action {
    pub(super) const KILL_PROCESS: Self = Self(0x8000_0000);
    pub(super) const KILL_THREAD: Self = Self(0);
    pub(super) const TRAP: Self = Self(0x0003_0000);
    pub(super) const NOTIFY: Self = Self(0x7fc0_0000);
    pub(super) const LOG: Self = Self(0x7ffc_0000);
    pub(super) const ALLOW: Self = Self(0x7fff_0000);
    /// As for a call that the kernel lacks.
    pub(super) const NO_SUCH_CALL: Self = Self::errno(38);

    pub(super) const fn errno(number: u16) -> Self {
        Self(0x0005_0000 | number as u32)
    }

    pub(super) const fn trace(data: u16) -> Self {
        Self(0x7ff0_0000 | data as u32)
    }

    /// Whether the call is made or another process decides: a tracer knows about new calls.
    pub(super) const fn lets_through(self) -> bool {
        matches!(Self(self.0 & 0xffff_0000), Self::ALLOW | Self::LOG)
            || self.0 & 0xffff_0000 == Self::trace(0).0
    }
}

/// How an argument is compared with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
}

/// A condition: the argument, restricted to the bits in `mask`, is compared with `value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// 0 to 5.
    pub(super) argument: u8,
    pub(super) operator: Operator,
    /// For operators other than `Equal`: all bits, or the lower half.
    pub(super) mask: u64,
    /// Has no bits outside the mask.
    pub(super) value: u64,
}

impl Condition {
    /// Compares the whole argument.
    pub(super) const fn whole(argument: u8, operator: Operator, value: u64) -> Self {
        Self { argument, operator, mask: u64::MAX, value }
    }

    /// Compares `argument & mask` with `value & mask` for equality.
    pub(super) const fn masked(argument: u8, mask: u64, value: u64) -> Self {
        Self { argument, operator: Operator::Equal, mask, value: value & mask }
    }

    /// The same condition for an argument of this width; `None` if it always holds.
    fn on(self, width: Width) -> Option<Self> {
        let visible = match width {
            Width::Half => u32::MAX.into(),
            Width::Whole => u64::MAX,
        };
        let mask = self.mask & visible;
        (mask != 0).then_some(Self { mask, value: self.value & mask, ..self })
    }

    /// The sort key among conditions.
    fn rank(&self) -> (Reverse<u8>, u8, u64) {
        let (kind, value) = match self.operator {
            Operator::Equal | Operator::NotEqual => (0, !self.value),
            Operator::Less | Operator::LessOrEqual => (1, self.value),
            Operator::GreaterOrEqual | Operator::Greater => (2, !self.value),
        };
        (Reverse(self.argument), kind, value)
    }
}

/// The action for a call if all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) action: Action,
    /// Sorted by argument, each at most once.
    pub(super) conditions: Vec<Condition>,
}

impl Rule {
    /// The same rule for arguments of this width.
    pub(super) fn on(&self, width: Width) -> Self {
        let conditions = self.conditions.iter().filter_map(|condition| condition.on(width)).collect();
        Self { action: self.action, conditions }
    }

    /// The same rule for a call that multiplexes others, this one being number `which`. Conditions on the
    /// first argument are dropped, because it lies in memory that a filter cannot read; the others mean
    /// little, as in libseccomp.
    pub(super) fn bundled(&self, which: u64) -> Self {
        let others = self.conditions.iter().filter(|condition| condition.argument != 0).copied();
        let first = Condition::whole(0, Operator::Equal, which);
        Self { action: self.action, conditions: [first].into_iter().chain(others).collect() }
    }
}

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Always(Action),
    /// The first rule that applies decides, otherwise the default action.
    Depends(Vec<Rule>),
}

impl Verdict {
    /// Combines `rules`, the rules for one call in the order of the profile; there must be at least one.
    pub(super) fn of(mut rules: Vec<Rule>) -> Self {
        if let Some(rule) = rules.iter().find(|rule| rule.conditions.is_empty()) {
            return Self::Always(rule.action);
        }
        let ranks = |rule: &Rule| rule.conditions.iter().map(Condition::rank).collect::<Vec<_>>();
        rules.sort_by_cached_key(ranks);
        Self::Depends(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Action = Action::errno(1);
    const B: Action = Action::errno(2);

    fn rule(action: Action, conditions: &[Condition]) -> Rule {
        Rule { action, conditions: conditions.to_vec() }
    }

    fn order(rules: &[Rule]) -> Vec<Action> {
        match Verdict::of(rules.to_vec()) {
            Verdict::Always(action) => vec![action],
            Verdict::Depends(rules) => rules.iter().map(|rule| rule.action).collect(),
        }
    }

    #[test]
    fn the_first_rule_without_conditions_decides() {
        let equal = Condition::whole(0, Operator::Equal, 1);
        assert_eq!(order(&[rule(A, &[equal]), rule(B, &[]), rule(A, &[])]), [B]);
    }

    #[test]
    fn the_order_of_rules_is_that_of_their_conditions() {
        use Operator as O;
        let one = |argument, operator, value| [Condition::whole(argument, operator, value)];
        let sorted = |first: &[Condition], second: &[Condition]| {
            assert_eq!(order(&[rule(A, first), rule(B, second)]), [A, B]);
            assert_eq!(order(&[rule(B, second), rule(A, first)]), [A, B]);
        };
        sorted(&one(1, O::Greater, 0), &one(0, O::Equal, 9));
        sorted(&one(0, O::NotEqual, 0), &one(0, O::Less, 9));
        sorted(&one(0, O::LessOrEqual, 9), &one(0, O::Greater, 0));
        sorted(&one(0, O::Equal, 40), &one(0, O::NotEqual, 16));
        sorted(&one(0, O::Less, 4), &one(0, O::LessOrEqual, 5));
        sorted(&one(0, O::GreaterOrEqual, 5), &one(0, O::Greater, 4));
        let longer = [Condition::whole(0, O::Equal, 4), Condition::whole(1, O::Equal, 4)];
        sorted(&one(0, O::Equal, 4), &longer);
        assert_eq!(order(&[rule(B, &longer), rule(A, &longer)]), [B, A]);
    }

    #[test]
    fn a_condition_keeps_what_an_argument_of_half_the_width_can_show() {
        let minus_one = Condition::whole(0, Operator::Equal, u64::MAX).on(Width::Half).unwrap();
        assert_eq!((minus_one.mask, minus_one.value), (0xffff_ffff, 0xffff_ffff));
        assert_eq!(Condition::masked(0, 0xff_0000_0000, 5).on(Width::Half), None);
        assert_eq!(Condition::masked(0, 0xf0, 0xff).on(Width::Half).unwrap().value, 0xf0);
    }

    #[test]
    fn only_what_is_let_through_counts_as_that() {
        let through = [Action::ALLOW, Action::LOG, Action::trace(0), Action::trace(7)];
        assert!(through.into_iter().all(Action::lets_through));
        let not = [
            Action::KILL_PROCESS,
            Action::KILL_THREAD,
            Action::TRAP,
            Action::NOTIFY,
            A,
            Action::errno(u16::MAX),
        ];
        assert!(!not.into_iter().any(Action::lets_through));
    }
}
