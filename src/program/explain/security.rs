//! What confines the process: LSM labels, no_new_privs, user and capabilities, seccomp.

use std::ffi::CStr;

use nix::errno::Errno;

use super::{Failed, Sentence, plain, unknown};
use crate::init::step::{Identity, Part, Step};
use crate::program::Origin;

pub(super) fn sentence(failed: Failed<'_>) -> Sentence {
    let Failed { step, errno, part, .. } = failed;
    match step {
        // Podman looks for the path in these quotes.
        Step::ApparmorProfile { command } => Sentence {
            hint: match (part, errno) {
                (Part::Whole, Errno::ENOENT) => {
                    Some("the profile may not be loaded; apparmor_status(8) lists loaded profiles")
                }
                (Part::Whole, Errno::EPERM) => Some("the runtime's own profile must allow the transition"),
                _ => None,
            },
            ..plain(label(part, command, "/proc/thread-self/attr/apparmor/exec"))
        },
        Step::SelinuxLabel { label: wanted } => Sentence {
            hint: match (part, errno) {
                (Part::Whole, Errno::EINVAL) => Some("the label is not valid in the loaded policy"),
                (Part::Whole, Errno::EACCES) => Some("the loaded policy denies the transition"),
                _ => None,
            },
            ..plain(label(part, wanted, "/proc/thread-self/attr/exec"))
        },
        Step::NoNewPrivileges => plain("set no_new_privs".into()),
        Step::Identity(who) => identity(who, errno, part),
        Step::LoadFilter { .. } => filter(errno, part),
        _ => unknown(),
    }
}

fn label(part: Part, wanted: &CStr, path: &str) -> String {
    match part {
        Part::Source => "open procfs".into(),
        Part::Target => format!("open `{path}`"),
        _ => format!("write {wanted:?} to `{path}`"),
    }
}

fn identity(who: &Identity, errno: Errno, part: Part) -> Sentence {
    match part {
        Part::Source => Sentence {
            hint: Some(match is_beyond_bounding(who) {
                true => "inheritable capabilities must also be in the bounding set",
                false => "the runtime cannot grant capabilities it does not have",
            }),
            ..plain("set the capabilities".into())
        },
        // runc's wording.
        Part::Item(0) if errno == Errno::EINVAL => Sentence {
            field: Some(("uid", None)),
            ..plain(format!("cannot setuid to unmapped uid {} in user namespace", who.uid))
        },
        Part::Item(_) if errno == Errno::EINVAL => Sentence {
            field: Some(("gid", None)),
            ..plain(format!("cannot setgid to unmapped gid {} in user namespace", who.gid))
        },
        Part::Target if !who.groups.is_empty() => Sentence {
            hint: match errno {
                Errno::EPERM => Some("setgroups is denied in this user namespace"),
                Errno::EINVAL => Some("not all of them are mapped in the user namespace"),
                _ => None,
            },
            field: Some(("additionalGids", None)),
            ..plain("set the groups".into())
        },
        _ => plain(format!("become user {}:{}", who.uid, who.gid)),
    }
}

/// The field of `config.json` whose capabilities could not be set.
pub(super) fn capabilities(who: &Identity, errno: Errno) -> &'static Origin {
    match is_beyond_bounding(who) && errno == Errno::EPERM {
        true => &Origin::Field("/process/capabilities/inheritable"),
        false => &Origin::Field("/process/capabilities"),
    }
}

/// The kernel adds no inheritable capability outside the bounding set; capabilities(7).
fn is_beyond_bounding(who: &Identity) -> bool {
    who.sets.inheritable & !who.bounding != 0
}

fn filter(errno: Errno, part: Part) -> Sentence {
    match part {
        Part::Source => Sentence {
            hint: Some("the seccomp profile must allow write and read until the agent is listening"),
            ..plain("pass the listener to the seccomp agent".into())
        },
        _ => Sentence {
            hint: match errno {
                Errno::EINVAL => {
                    Some("this kernel does not support seccomp filters, or a flag or action of this filter")
                }
                Errno::EACCES => Some("requires noNewPrivileges, or CAP_SYS_ADMIN in the user namespace"),
                Errno::EBUSY => {
                    Some("the runtime is already supervised by a seccomp agent, and only one is possible")
                }
                _ => None,
            },
            ..plain("load the seccomp filter".into())
        },
    }
}
