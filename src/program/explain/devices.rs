//! Device nodes, links and directories of the rootfs; the terminal and the standard streams.

use nix::errno::Errno;

use super::{Failed, Sentence, place, plain, text, unknown};
use crate::init::step::{Entry, Part, Step};

pub(super) fn sentence(failed: Failed<'_>) -> Sentence {
    let Failed { step, errno, part, .. } = failed;
    match step {
        Step::HoldNodes { .. } => plain("open the devices".into()),
        Step::Populate { directory, entries } => match (part, entries.get(place(part))) {
            (Part::Item(_), Some(Entry::Node { name, .. })) => {
                let hint = match errno {
                    Errno::ENOENT => Some(
                        "in a user namespace, the host's device node of that path is used, which does not exist",
                    ),
                    Errno::ENODEV => Some(
                        "in a user namespace, the host's device node of that path is used, which is a different device",
                    ),
                    _ => None,
                };
                Sentence { hint, ..plain(format!("create device {}/{}", text(directory), text(name))) }
            }
            (Part::Item(_), Some(Entry::Link { name, .. } | Entry::ReplacingLink { name, .. })) => {
                plain(format!("create link {}/{}", text(directory), text(name)))
            }
            _ => plain(format!("open {} in the rootfs", text(directory))),
        },
        Step::MakeDirectory { path } => plain(format!("create directory {path:?}")),
        Step::Console { .. } => match part {
            Part::Source => Sentence {
                hint: Some("a terminal requires devpts mounted on /dev/pts"),
                ..plain("open a pty".into())
            },
            Part::Target => plain("mount the pty on /dev/console".into()),
            Part::OnProc => Sentence {
                hint: Some("a symbolic link in the image points there"),
                ..plain("/dev/console cannot be mounted because it is inside /proc".into())
            },
            _ => plain("set up the terminal".into()),
        },
        Step::OwnStreams => plain("reopen standard streams that are host devices".into()),
        _ => unknown(),
    }
}
