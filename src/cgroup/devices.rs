//! The devices that a container may use: `linux.resources.devices`.
//!
//! The rules follow cgroup v1: each allows or denies reading, writing and mknod of some devices. For each
//! kind of access, the last rule that matches the device decides; what matches no rule is denied. The default
//! devices of every container are added at the end, as in runc.
//!
//! runc takes a rule of type `a` to mean all devices and all access, whatever else it says; here it means
//! what it says.

use anyhow::Result;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::error::Pointer;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) allow: bool,
    pub(super) kind: DeviceKind,
    /// `None` matches any number.
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) access: Access,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DeviceKind {
    Any,
    Block,
    Char,
}

/// A set of kinds of access, in the kernel's bits: `BPF_DEVCG_ACC_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access(pub(super) u8);

impl Access {
    pub(super) const MKNOD: Self = Self(1);
    pub(super) const READ: Self = Self(2);
    pub(super) const WRITE: Self = Self(4);
    pub(super) const ALL: Self = Self(7);

    fn of(letter: char) -> Option<Self> {
        match letter {
            'r' => Some(Self::READ),
            'w' => Some(Self::WRITE),
            'm' => Some(Self::MKNOD),
            _ => None,
        }
    }
}

/// The devices of every container. mknod is allowed for all, because a node that the other rules do not allow
/// cannot be opened.
const DEFAULT: [Rule; 11] = [
    Rule { access: Access::MKNOD, ..allow(DeviceKind::Char, None, None) },
    Rule { access: Access::MKNOD, ..allow(DeviceKind::Block, None, None) },
    allow(DeviceKind::Char, Some(1), Some(3)),    // null
    allow(DeviceKind::Char, Some(1), Some(5)),    // zero
    allow(DeviceKind::Char, Some(1), Some(7)),    // full
    allow(DeviceKind::Char, Some(1), Some(8)),    // random
    allow(DeviceKind::Char, Some(1), Some(9)),    // urandom
    allow(DeviceKind::Char, Some(5), Some(0)),    // tty
    allow(DeviceKind::Char, Some(5), Some(2)),    // ptmx
    allow(DeviceKind::Char, Some(136), None),     // pts/*
    allow(DeviceKind::Char, Some(10), Some(200)), // net/tun, which VPNs in containers count on
];

const fn allow(kind: DeviceKind, major: Option<u32>, minor: Option<u32>) -> Rule {
    Rule { allow: true, kind, major, minor, access: Access::ALL }
}

/// Returns the rules of the specification, validated, followed by the defaults. `warn` receives what is
/// ignored.
pub(super) fn plan(
    rules: &[LinuxDeviceCgroup],
    at: &Pointer,
    mut warn: impl FnMut(String),
) -> Result<Vec<Rule>> {
    let given = rules.iter().enumerate().map(|(index, rule)| {
        let at = at.index(index);
        Ok(Rule {
            allow: rule.allow(),
            kind: match rule.typ() {
                None | Some(LinuxDeviceType::A) => DeviceKind::Any,
                Some(LinuxDeviceType::B) => DeviceKind::Block,
                Some(LinuxDeviceType::C | LinuxDeviceType::U) => DeviceKind::Char,
                Some(LinuxDeviceType::P) => {
                    return Err(at
                        .field("type")
                        .error("invalid device type \"p\": must be \"a\", \"b\" or \"c\""));
                }
            },
            major: number(rule.major(), &at.field("major"))?,
            minor: number(rule.minor(), &at.field("minor"))?,
            access: access(
                rule.access().as_deref().unwrap_or_default(),
                index,
                &at.field("access"),
                &mut warn,
            )?,
        })
    });
    given.chain(DEFAULT.map(Ok)).collect()
}

/// Absent or -1 matches any number.
fn number(given: Option<i64>, at: &Pointer) -> Result<Option<u32>> {
    match given {
        None | Some(-1) => Ok(None),
        Some(number) => match u32::try_from(number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(at.error(format_args!(
                "invalid device number {number}: must be -1 (any) or between 0 and 4294967295"
            ))),
        },
    }
}

/// Ignores unknown letters with a warning if there are valid ones; runc and crun ignore them, too.
fn access(text: &str, index: usize, at: &Pointer, mut warn: impl FnMut(String)) -> Result<Access> {
    let access = text.chars().filter_map(Access::of).fold(Access(0), |set, access| Access(set.0 | access.0));
    if access == Access(0) {
        let message = match text {
            "" => format!("device access at {index} field cannot be empty"),
            _ => format!("invalid device access {text:?}"),
        };
        return Err(at.error_with_hint(message, "use letters from \"rwm\""));
    }
    if text.chars().any(|letter| Access::of(letter).is_none()) {
        warn(format!("{at}: ignoring characters other than \"rwm\" in device access {text:?}"));
    }
    Ok(access)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(json: &str) -> Result<Vec<Rule>> {
        let warn = |warning: String| panic!("{warning}");
        plan(&serde_json::from_str::<Vec<_>>(json).unwrap(), &Pointer::root().field("devices"), warn)
    }

    #[test]
    fn the_default_devices_come_last() {
        let rules = planned(
            r#"[{"allow": false, "access": "rwm"}, {"allow": true, "type": "b", "major": 8, "minor": -1, "access": "mr"}]"#,
        );
        let (given, default) =
            (rules.as_deref().unwrap().split_at(2).0, rules.as_deref().unwrap().split_at(2).1);
        let deny = Rule { allow: false, ..allow(DeviceKind::Any, None, None) };
        assert_eq!(given, [deny, Rule { access: Access(3), ..allow(DeviceKind::Block, Some(8), None) }]);
        assert_eq!(default, DEFAULT);
    }

    #[test]
    fn letters_that_mean_nothing_are_left_out_with_a_warning() {
        let rules = serde_json::from_str::<Vec<_>>(r#"[{"allow": false, "access": "rwa"}]"#).unwrap();
        let mut warnings = Vec::new();
        let rules =
            plan(&rules, &Pointer::root().field("devices"), |warning| warnings.push(warning)).unwrap();
        assert_eq!(rules.first().unwrap().access, Access(Access::READ.0 | Access::WRITE.0));
        assert_eq!(
            warnings,
            ["/devices/0/access: ignoring characters other than \"rwm\" in device access \"rwa\""]
        );
    }

    #[test]
    fn a_rule_that_says_nothing_sensible_is_refused_where_it_stands() {
        let refused = |json| crate::error::line(&planned(json).unwrap_err());
        assert_eq!(
            refused(r#"[{"allow": false, "access": "rwm"}, {"allow": true, "type": "c"}]"#),
            "config.json: /devices/1/access: device access at 1 field cannot be empty (use letters from \"rwm\")"
        );
        assert_eq!(
            refused(r#"[{"allow": true, "access": "x"}]"#),
            "config.json: /devices/0/access: invalid device access \"x\" (use letters from \"rwm\")"
        );
        assert_eq!(
            refused(r#"[{"allow": true, "type": "p", "access": "r"}]"#),
            "config.json: /devices/0/type: invalid device type \"p\": must be \"a\", \"b\" or \"c\""
        );
        assert_eq!(
            refused(r#"[{"allow": true, "major": -2, "access": "r"}]"#),
            "config.json: /devices/0/major: invalid device number -2: must be -1 (any) or between 0 and 4294967295"
        );
        assert_eq!(
            refused(r#"[{"allow": true, "minor": 4294967296, "access": "r"}]"#),
            "config.json: /devices/0/minor: invalid device number 4294967296: must be -1 (any) or between \
             0 and 4294967295"
        );
    }
}
