//! Giving a cgroup to the container's user, who may then create cgroups below it; config-linux.md § Cgroup
//! ownership, cgroups(7).

use std::fs;
use std::os::fd::BorrowedFd;

use anyhow::{Context as _, Result};
use rustix::fs::{AtFlags, chownat, fchown, fstat};
use rustix::io::Errno;

use super::fs::Made;
use crate::error::Hint;
use crate::sys::cred;

/// Lists the files of a cgroup that the new owner gets.
const LIST: &str = "/sys/kernel/cgroup/delegate";

/// The specification's list, for kernels without [`LIST`].
const USUAL: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

/// Makes the host user `uid` the owner of the cgroup and of its delegatable files, which cannot lift its own
/// limits.
pub(super) fn give(made: &Made, uid: u32) -> Result<()> {
    let failed = || {
        Hint(
            format!("chown cgroup {} to user {uid}", made.path.display()),
            "required because cgroup2 is mounted writable on /sys/fs/cgroup; mount it \"ro\" to avoid this"
                .into(),
        )
    };
    let stat = fstat(&made.dir).with_context(failed)?;
    if stat.st_uid == uid {
        return Ok(());
    }
    let owner = Some(cred::uid(uid));
    fchown(&made.dir, owner, None).with_context(failed)?;
    let list = fs::read_to_string(LIST).unwrap_or_else(|_| USUAL.to_owned());
    let names = list.lines().filter(|name| !name.is_empty() && !name.contains('/'));
    for name in names {
        match chown(std::os::fd::AsFd::as_fd(&made.dir), name, owner) {
            // Not every cgroup has all the files of the list.
            Err(Errno::NOENT) => {}
            result => result.with_context(failed)?,
        }
    }
    Ok(())
}

fn chown(dir: BorrowedFd<'_>, name: &str, owner: Option<rustix::process::Uid>) -> Result<(), Errno> {
    chownat(dir, name, owner, None, AtFlags::SYMLINK_NOFOLLOW)
}
