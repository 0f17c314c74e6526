//! From rules to ranges of numbers, in each of which the same is done with every call.
//!
//! A call that is newer than the profile is answered as by a kernel that does not have it (`ENOSYS`), so that a C library
//! falls back to what it did before, as it cannot after `EPERM`. As in runc, newer is what has a larger number than all that
//! the profile names, and the answer is not given where the default action lets calls through. Otherwise than in runc, the
//! calls of i386 that also go through socketcall(2) and ipc(2) count with all their numbers.

use super::arch::Arch;
use super::profile::Profile;
use super::rules::{Action, Rule, Verdict};
use super::syscalls::bundled;

/// What is done with the calls from number `first` to where the next range begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u32,
    pub(super) verdict: Verdict,
}

/// What the kernel takes for one architecture.
#[derive(Debug)]
pub(super) struct Section {
    /// `AUDIT_ARCH_*`.
    pub(super) audit: u32,
    /// In order, the first from 0 on.
    pub(super) ranges: Vec<Range>,
}

/// The native architecture comes first.
pub(super) fn sections(profile: &Profile<'_>) -> Vec<Section> {
    // It is a part of x86_64.
    let own = profile.architectures.iter().filter(|arch| **arch != Arch::X32);
    own.map(|arch| Section { audit: arch.audit(), ranges: ranges(profile, *arch) }).collect()
}

fn ranges(profile: &Profile<'_>, arch: Arch) -> Vec<Range> {
    let mut line = Line(Vec::with_capacity(256));
    line.add(profile, arch, 0);
    if arch == Arch::X86_64 {
        let x32 = Arch::X32.bits_of_every_number();
        if profile.architectures.contains(&Arch::X32) {
            line.add(profile, Arch::X32, x32);
        } else {
            // As every architecture that is not listed. A tracer has -1 for a call that is not to be made; seccomp(2).
            line.from(x32, Verdict::Always(Action::KILL_THREAD));
            line.from(u32::MAX, Verdict::Always(profile.default));
        }
    }
    line.0
}

struct Line(Vec<Range>);

impl Line {
    /// From `first` on it is `verdict`.
    fn from(&mut self, first: u32, verdict: Verdict) {
        if self.0.last().is_some_and(|last| last.first == first) {
            self.0.pop();
        }
        if self.0.last().is_none_or(|last| last.verdict != verdict) {
            self.0.push(Range { first, verdict });
        }
    }

    /// From `first` on it is as the profile says of `arch`.
    fn add(&mut self, profile: &Profile<'_>, arch: Arch, first: u32) {
        let (mut rules, newest) = rules(profile, arch);
        // Stable: rules for one call stay in the order of the profile.
        rules.sort_by_key(|(number, _)| *number);
        self.from(first, Verdict::Always(profile.default));
        for rules in rules.chunk_by(|(a, _), (b, _)| a == b) {
            let Some((number, _)) = rules.first() else { continue };
            self.from(*number, Verdict::of(rules.iter().map(|(_, rule)| rule.clone()).collect()));
            self.from(number.saturating_add(1), Verdict::Always(profile.default));
        }
        // Number 0 alone is as good as none, to runc.
        if newest.is_some_and(|newest| newest > 0) && !profile.default.lets_through() {
            let newer = newest.unwrap_or(0).saturating_add(1);
            self.from(newer, Verdict::Always(Action::NO_SUCH_CALL));
        }
    }
}

/// Every rule with the number that it is for, and the largest number that the profile names.
fn rules(profile: &Profile<'_>, arch: Arch) -> (Vec<(u32, Rule)>, Option<u32>) {
    let mut all = Vec::with_capacity(512);
    let mut newest = None;
    for block in &profile.blocks {
        for (name, call) in &block.calls {
            let direct = call.number(arch);
            let bundled = bundled(name, arch);
            newest = newest.max(direct).max(bundled.map(|(number, _)| number));
            for rule in &block.rules {
                all.extend(bundled.map(|(number, which)| (number, rule.bundled(which).on(arch.width()))));
                all.extend(direct.map(|number| (number, rule.on(arch.width()))));
            }
        }
    }
    (all, newest)
}
