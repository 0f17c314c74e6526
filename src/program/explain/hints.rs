//! Hints for steps that fail in a user namespace although they work elsewhere; user_namespaces(7).

use nix::errno::Errno;

use crate::init::step::{Part, Step};

/// Returns what the user can do if the user namespace is a likely cause of the failure.
pub(super) fn in_user_namespace(step: &Step, errno: Errno, part: Part) -> Option<&'static str> {
    match (step, errno) {
        (Step::Mount(mount), Errno::EPERM) if part == Part::Whole => Some(match mount.fstype.to_bytes() {
            b"sysfs" => {
                "in a user namespace, sysfs requires a new network namespace and a host /sys without \
                 overmounts: bind-mount /sys instead"
            }
            b"proc" => {
                "in a user namespace, procfs requires a new pid namespace and a host /proc without \
                 overmounts: bind-mount /proc instead"
            }
            b"mqueue" => "in a user namespace, mqueue requires a new ipc namespace",
            _ => "this file system cannot be mounted in a user namespace",
        }),
        (Step::Mount(_) | Step::Remount(_), Errno::EINVAL) if matches!(part, Part::Item(_)) => {
            Some("all ids in it must be mapped in the user namespace")
        }
        (Step::Bind(_) | Step::Remount(_) | Step::Seal { .. }, Errno::EPERM) if part == Part::Whole => {
            Some("flags set on the host's mount cannot be cleared in a user namespace")
        }
        // The source is opened with the runtime's privileges; the rest is done as root of the user namespace.
        (Step::Mount(_) | Step::Bind(_), Errno::EACCES | Errno::EPERM | Errno::EOVERFLOW)
            if part == Part::Target =>
        {
            Some(OWNER)
        }
        (Step::Populate { .. } | Step::MakeDirectory { .. }, Errno::EACCES | Errno::EOVERFLOW) => Some(OWNER),
        (Step::Bind(_), Errno::EACCES) if part == Part::Source => {
            Some("the user running the runtime must have access to it")
        }
        (Step::Bind(_), Errno::EINVAL) if part == Part::Source => {
            Some("submounts cannot be omitted in a user namespace: use \"rbind\"")
        }
        (Step::OpenRootfs { .. }, Errno::EACCES) => {
            Some("the user running the runtime must have access to it")
        }
        // For example, a range of groups that may ping.
        (Step::Sysctl { .. }, Errno::EINVAL) if matches!(part, Part::Item(_)) => {
            Some("all ids in it must be mapped in the user namespace")
        }
        _ => None,
    }
}

const OWNER: &str =
    "the rootfs must be owned by ids mapped in the user namespace, or contain the mount point";
