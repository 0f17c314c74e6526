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
                    Some("is the profile loaded? apparmor_status(8) lists those that are")
                }
                (Part::Whole, Errno::EPERM) => {
                    Some("the profile that confines the runtime must allow the change")
                }
                _ => None,
            },
            ..plain(label(part, command, "/proc/thread-self/attr/apparmor/exec"))
        },
        Step::SelinuxLabel { label: wanted } => Sentence {
            hint: match (part, errno) {
                (Part::Whole, Errno::EINVAL) => Some("the loaded policy knows no such label"),
                (Part::Whole, Errno::EACCES) => Some("the loaded policy forbids the change"),
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
        Part::Source => "open a procfs".into(),
        Part::Target => format!("open `{path}`"),
        _ => format!("write {wanted:?} to `{path}`"),
    }
}

fn identity(who: &Identity, errno: Errno, part: Part) -> Sentence {
    match part {
        Part::Source => Sentence {
            hint: Some(match is_beyond_bounding(who) {
                true => "what is inheritable must be in the bounding set, too",
                false => "the runtime cannot give more capabilities than it has",
            }),
            ..plain("set the capabilities".into())
        },
        // The words of runc.
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
                Errno::EPERM => Some("this user namespace was made without the right to change groups"),
                Errno::EINVAL => Some("the user namespace maps not all of them"),
                _ => None,
            },
            field: Some(("additionalGids", None)),
            ..plain("set the groups".into())
        },
        _ => plain(format!("become user {}:{}", who.uid, who.gid)),
    }
}

/// Where the capabilities come from that could not be set.
pub(super) fn capabilities(who: &Identity, errno: Errno) -> &'static Origin {
    match is_beyond_bounding(who) && errno == Errno::EPERM {
        true => &Origin::Field("/process/capabilities/inheritable"),
        false => &Origin::Field("/process/capabilities"),
    }
}

/// The kernel takes no such inheritable capability that the process has not inherited itself;
/// capabilities(7).
fn is_beyond_bounding(who: &Identity) -> bool {
    who.sets.inheritable & !who.bounding != 0
}

fn filter(errno: Errno, part: Part) -> Sentence {
    match part {
        Part::Source => Sentence {
            hint: Some("until the agent listens, the seccomp profile must let write and read through"),
            ..plain("hand the listener over to the seccomp agent".into())
        },
        _ => Sentence {
            hint: match errno {
                Errno::EINVAL => Some("this kernel lacks seccomp filters, or a flag or action of this one"),
                Errno::EACCES => Some("it takes noNewPrivileges, or CAP_SYS_ADMIN in the user namespace"),
                Errno::EBUSY => {
                    Some("a seccomp agent listens to the runtime already, and there can be one only")
                }
                _ => None,
            },
            ..plain("load the seccomp filter".into())
        },
    }
}
