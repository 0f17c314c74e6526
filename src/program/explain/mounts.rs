//! The rootfs, its mounts, the root switch, read-only and masked paths.

use nix::errno::Errno;

use super::{Failed, Sentence, place, plain, text, unknown};
use crate::init::step::{Bind, Parameter, Part, Step};

pub(super) fn sentence(failed: Failed<'_>) -> Sentence {
    let Failed { step, errno, part, .. } = failed;
    match step {
        Step::HostPropagation { path, .. } => plain(format!("change the propagation of {path:?}")),
        Step::HideHostMount { path } => plain(format!("hide the host's mount {path:?}")),
        Step::OpenRootfs { path, .. } | Step::HoldRootfs { path } => plain(format!("open rootfs {path:?}")),
        Step::Mount(_) | Step::Bind(_) | Step::Remount(_) | Step::Seal { .. } => mount(step, errno, part),
        Step::PivotRoot { .. } => Sentence {
            hint: (errno == Errno::EINVAL)
                .then_some("pivot_root does not work if the host's root is a ramdisk: use --no-pivot"),
            ..plain("pivot_root to the rootfs".into())
        },
        Step::MoveRoot => plain("move the rootfs onto /".into()),
        Step::ChangeRoot => plain("chroot to the rootfs".into()),
        Step::RootPropagation { .. } => plain("change the propagation of /".into()),
        Step::ReadOnlyPath { path } => Sentence {
            hint: (errno == Errno::EINVAL).then_some(TAKEN_AWAY),
            ..plain(format!("make {path:?} read-only"))
        },
        Step::MaskPaths { paths, .. } => {
            let path = paths.get(place(part)).map(|path| text(path)).unwrap_or_default();
            Sentence {
                hint: match errno {
                    Errno::ENODEV => Some("the container's /dev/null is not the null device"),
                    Errno::EBUSY => Some("the path resolves to the container's root, which cannot be masked"),
                    Errno::EINVAL => Some(TAKEN_AWAY),
                    _ => None,
                },
                ..plain(format!("mask {path:?}"))
            }
        }
        _ => unknown(),
    }
}

/// The mount was detached from its mount namespace or must not be cloned; move_mount(2), open_tree(2).
const TAKEN_AWAY: &str = "the mount is unbindable, or was unmounted by another process sharing the rootfs";

/// Describes a bind mount, for error messages.
pub fn describe_bind(bind: &Bind) -> String {
    format!("bind {:?} on {}", text(&bind.source), text(&bind.target.path))
}

/// The sentence for a mount of `/mounts`; it names the field of its entry that caused the failure.
fn mount(step: &Step, errno: Errno, part: Part) -> Sentence {
    let (doing, target, parameters) = match step {
        Step::Mount(mount) => (
            format!("mount {:?} on {}", text(&mount.fstype), text(&mount.target.path)),
            &mount.target.path,
            &mount.parameters[..],
        ),
        Step::Bind(bind) => (describe_bind(bind), &bind.target.path, &[][..]),
        Step::Remount(remount) => {
            (format!("remount {}", text(&remount.target.path)), &remount.target.path, &remount.parameters[..])
        }
        Step::Seal { path, .. } => (format!("make {} read-only", text(path)), path, &[][..]),
        _ => return unknown(),
    };
    let sentence = plain(doing);
    match part {
        Part::Whole if errno == Errno::ENODEV => Sentence {
            hint: Some("this kernel does not support that file system type"),
            field: Some(("type", None)),
            ..sentence
        },
        Part::Whole | Part::Hook(_) => sentence,
        Part::Source => Sentence { field: Some(("source", None)), ..sentence },
        Part::Target => on_target(sentence.doing, matches!(step, Step::Mount(_)), errno),
        Part::OnProc => Sentence {
            doing: format!("{:?} cannot be mounted because it is inside /proc", text(target)),
            field: Some(("destination", None)),
            ..sentence
        },
        Part::Item(index) => on_option(&sentence, parameters, index),
    }
}

/// The sentence for a failure at the mount point.
fn on_target(doing: String, is_new_file_system: bool, errno: Errno) -> Sentence {
    let sentence = Sentence { field: Some(("destination", None)), ..plain(doing) };
    match errno {
        Errno::ELOOP | Errno::ENOTDIR if is_new_file_system => Sentence {
            doing: format!("{}: must be mounted on ordinary directory", sentence.doing),
            ..sentence
        },
        Errno::ENOTDIR => {
            Sentence { hint: Some("source and destination must both be directories, or neither"), ..sentence }
        }
        Errno::EBUSY => Sentence {
            hint: Some("the path resolves to the container's root: set /root/path instead"),
            ..sentence
        },
        _ => sentence,
    }
}

/// The sentence for mount option `index`, from 0, or for the SELinux label, which is not in `/options`.
fn on_option(sentence: &Sentence, parameters: &[Parameter], index: u16) -> Sentence {
    if index == Parameter::NOT_AN_OPTION {
        return Sentence {
            hint: Some("the label is from /linux/mountLabel"),
            ..plain(format!("{}: set its SELinux label", sentence.doing))
        };
    }
    let option = parameters.iter().find(|parameter| parameter.option == index);
    let option = option.map(|Parameter { key, value, .. }| match value {
        Some(value) => format!("{}={}", text(key), text(value)),
        None => text(key),
    });
    Sentence {
        field: Some(("options", Some(usize::from(index)))),
        ..plain(format!(
            "{}: unknown mount option or invalid value {:?}",
            sentence.doing,
            option.unwrap_or_default()
        ))
    }
}
