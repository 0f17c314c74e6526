//! Hints for steps that fail in a user namespace although they work elsewhere; user_namespaces(7).

use nix::errno::Errno;

use crate::init::step::{Part, Step};

/// What the user can do about it, where the user namespace is a likely cause of the failure.
pub(super) fn in_user_namespace(step: &Step, errno: Errno, part: Part) -> Option<&'static str> {
    match (step, errno) {
        (Step::Mount(mount), Errno::EPERM) if part == Part::Whole => Some(match mount.fstype.to_bytes() {
            b"sysfs" => {
                "in a user namespace a sysfs needs a new network namespace beside it, and one of the host's that nothing \
                 covers: bind /sys instead"
            }
            b"proc" => {
                "in a user namespace a procfs needs a new pid namespace beside it, and one of the host's that nothing covers: \
                 bind /proc instead"
            }
            b"mqueue" => "in a user namespace an mqueue needs a new ipc namespace beside it",
            _ => "in a user namespace not every file system may be mounted",
        }),
        (Step::Mount(_) | Step::Remount(_), Errno::EINVAL) if matches!(part, Part::Item(_)) => {
            Some("are all ids in it mapped in the user namespace?")
        }
        (Step::Bind(_) | Step::Remount(_) | Step::Seal { .. }, Errno::EPERM) if part == Part::Whole => {
            Some("what the host has set on a mount cannot be taken away in a user namespace")
        }
        // The source is opened by whoever has privileges; the rest is root's of the user namespace.
        (Step::Mount(_) | Step::Bind(_), Errno::EACCES | Errno::EPERM | Errno::EOVERFLOW)
            if part == Part::Target =>
        {
            Some(OWNER)
        }
        (Step::Populate { .. } | Step::MakeDirectory { .. }, Errno::EACCES | Errno::EOVERFLOW) => Some(OWNER),
        (Step::Bind(_), Errno::EACCES) if part == Part::Source => {
            Some("the user who runs this must be able to reach it")
        }
        (Step::Bind(_), Errno::EINVAL) if part == Part::Source => {
            Some("in a user namespace what is mounted below cannot be left out: use \"rbind\"")
        }
        (Step::OpenRootfs { .. }, Errno::EACCES) => Some("the user who runs this must be able to reach it"),
        // A range of groups that may ping, for example.
        (Step::Sysctl { .. }, Errno::EINVAL) if matches!(part, Part::Item(_)) => {
            Some("are all ids in it mapped in the user namespace?")
        }
        _ => None,
    }
}

const OWNER: &str = "the rootfs must belong to ids that the user namespace maps, or have what is mounted on";
