//! Namespaces, and what is set in a new one: ids, clocks, `lo`, names, kernel parameters.

use nix::errno::Errno;

use super::{Failed, Sentence, place, plain, text, unknown};
use crate::init::step::{Part, Step};
use crate::plan::linux::namespaces;
use crate::plan::linux::namespaces::word;
use crate::program::Origin;

pub(super) fn sentence(failed: Failed<'_>) -> Sentence {
    let Failed { origin, step, errno, part, .. } = failed;
    match step {
        Step::JoinNamespace { kind, .. } => Sentence {
            doing: match origin {
                Origin::Namespace(_, path) => format!("join the {} namespace {path:?}", word(*kind)),
                _ => format!("join a {} namespace", word(*kind)),
            },
            hint: (errno == Errno::EINVAL).then_some("the path may not be a namespace of that type"),
            field: Some(("path", None)),
            is_whole_message: false,
        },
        Step::JoinNamespacesOf { .. } if errno == Errno::ESRCH => {
            Sentence { is_whole_message: true, ..plain("cannot exec in a stopped container".into()) }
        }
        Step::JoinNamespacesOf { .. } => plain("join the container's namespaces".into()),
        Step::HoldPidNamespace { .. } => plain("open the pid namespace".into()),
        Step::Successor { kinds: 0 } => plain("clone the process in the pid namespace".into()),
        Step::Successor { kinds } => {
            plain(format!("clone the init process in the new {} namespace", namespaces::words(*kinds)))
        }
        Step::SwitchIds { uid, gid } => plain(format!("become user {uid}:{gid} of the user namespace")),
        Step::Loopback => plain("bring up interface lo".into()),
        Step::NewNamespaces { kinds } => plain(format!("create the {} namespace", namespaces::words(*kinds))),
        Step::TimeOffsets { .. } => Sentence {
            hint: match errno {
                Errno::ERANGE => Some("the offset would make the clock negative or too large"),
                Errno::EPERM | Errno::EACCES => Some("requires CAP_SYS_TIME"),
                _ => None,
            },
            ..plain("set the clocks of the time namespace".into())
        },
        Step::JoinNewNetwork => plain("join the new network namespace".into()),
        Step::Hostname { name } => plain(format!("set hostname {name:?}")),
        Step::Domainname { name } => plain(format!("set domain name {name:?}")),
        Step::Sysctl { settings } => match settings.get(place(part)) {
            Some((path, value)) if part != Part::Whole => Sentence {
                hint: (errno == Errno::ENOENT).then_some("this kernel has no such parameter"),
                ..plain(format!("write {value:?} to /proc/sys/{}", text(path)))
            },
            _ => plain("open procfs".into()),
        },
        _ => unknown(),
    }
}
