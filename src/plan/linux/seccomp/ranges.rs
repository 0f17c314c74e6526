//! Turns rules into ranges of call numbers with the same verdict.
//!
//! Calls newer than the profile fail with `ENOSYS`, as on a kernel that lacks them, so that a C library falls
//! back to older calls; after `EPERM` it cannot. As in runc, a call is newer if its number is larger than all
//! that the profile names, and calls that the default action lets through are not affected. Unlike in runc,
//! i386 calls that also go through socketcall(2) and ipc(2) count with all their numbers.

use super::arch::Arch;
use super::profile::Profile;
use super::rules::{Action, Rule, Verdict};
use super::syscalls::bundled;

/// The verdict for calls from number `first` up to the next range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u32,
    pub(super) verdict: Verdict,
}

/// The filter for one `AUDIT_ARCH_*`.
#[derive(Debug)]
pub(super) struct Section {
    /// `AUDIT_ARCH_*`.
    pub(super) audit: u32,
    /// In ascending order; the first begins at 0.
    pub(super) ranges: Vec<Range>,
}

/// Returns the sections, the native architecture first.
pub(super) fn sections(profile: &Profile<'_>) -> Vec<Section> {
    // To the kernel, x32 is part of x86_64.
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
            // Like every architecture that is not listed. A tracer sets the number to -1 to skip a call;
            // seccomp(2).
            line.from(x32, Verdict::Always(Action::KILL_THREAD));
            line.from(u32::MAX, Verdict::Always(profile.default));
        }
    }
    line.0
}

struct Line(Vec<Range>);

impl Line {
    /// From number `first` on, the verdict is `verdict`.
    fn from(&mut self, first: u32, verdict: Verdict) {
        if self.0.last().is_some_and(|last| last.first == first) {
            self.0.pop();
        }
        if self.0.last().is_none_or(|last| last.verdict != verdict) {
            self.0.push(Range { first, verdict });
        }
    }

    /// From number `first` on, verdicts are those of the profile for `arch`.
    fn add(&mut self, profile: &Profile<'_>, arch: Arch, first: u32) {
        let (mut rules, newest) = rules(profile, arch);
        // A stable sort: rules for one call stay in the order of the profile.
        rules.sort_by_key(|(number, _)| *number);
        self.from(first, Verdict::Always(profile.default));
        for rules in rules.chunk_by(|(a, _), (b, _)| a == b) {
            let Some((number, _)) = rules.first() else { continue };
            self.from(*number, Verdict::of(rules.iter().map(|(_, rule)| rule.clone()).collect()));
            self.from(number.saturating_add(1), Verdict::Always(profile.default));
        }
        // runc treats a profile that only names call 0 like an empty one.
        if newest.is_some_and(|newest| newest > 0) && !profile.default.lets_through() {
            let newer = newest.unwrap_or(0).saturating_add(1);
            self.from(newer, Verdict::Always(Action::NO_SUCH_CALL));
        }
    }
}

/// Every rule with its call number, and the largest number that the profile names.
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
