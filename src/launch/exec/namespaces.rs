//! Into which namespaces the new process comes, and by whom it is taken there; setns(2).

use anyhow::{Context as _, Result};

use crate::container::state::State;
use crate::plan::ExecPlan;
use crate::plan::linux::namespaces::LINKS;
use crate::sys::cred::Sets;
use crate::sys::process::CLONE_NEWTIME;

/// The kinds of namespaces (`CLONE_NEW*`) in which the container is and this process is not.
///
/// One that this process is in already can be joined as well, in vain, so that those which are the container's own need no look,
/// but for a user namespace. Of the others, it may be that whoever made the container was in other namespaces than this process;
/// not in another user or time namespace, for none of the commands would work.
pub(super) fn kinds_to_join(state: &State) -> Result<i32> {
    let own = state.namespaces;
    let mut kinds = 0;
    for (kind, _, link) in LINKS {
        let is_own = own & kind != 0;
        let needs_no_look = match kind {
            libc::CLONE_NEWUSER | CLONE_NEWTIME if own != 0 && !is_own => continue,
            libc::CLONE_NEWUSER => false,
            _ => is_own,
        };
        if needs_no_look
            || differs(link, state.init_process_pid)
                .with_context(|| format!("inspect the container's {link} namespace"))?
        {
            kinds |= kind;
        }
    }
    Ok(kinds)
}

fn differs(link: &str, pid: i32) -> std::io::Result<bool> {
    let own = std::fs::read_link(format!("/proc/self/ns/{link}"));
    match (own, std::fs::read_link(format!("/proc/{pid}/ns/{link}"))) {
        (Ok(own), Ok(other)) => Ok(own != other),
        // A kernel without such namespaces.
        (Err(error), _) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

/// The kinds of namespaces that this process itself enters: that of pids for its children and, without privileges, before it the
/// user namespace, in which it has those to enter that of pids.
pub(super) fn parents_kinds(kinds: i32, own: Sets) -> i32 {
    match kinds & libc::CLONE_NEWPID {
        0 => 0,
        pid if is_privileged(own) => pid,
        pid => pid | kinds & libc::CLONE_NEWUSER,
    }
}

/// CAP_SYS_ADMIN; capabilities(7).
pub(super) fn is_privileged(own: Sets) -> bool {
    own.effective >> 21 & 1 == 1
}

/// Who the new process is in a user namespace that it comes into from outside, until it becomes the program's user: root, or
/// where the namespace has none, that user.
pub(super) fn ids_inside(plan: &ExecPlan, init: i32) -> Result<(u32, u32)> {
    let root_or = |user: u32, file: &str| -> Result<u32> {
        let path = format!("/proc/{init}/{file}");
        let map = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let has_root = map.lines().any(|line| line.split_whitespace().next() == Some("0"));
        Ok(if has_root { 0 } else { user })
    };
    Ok((root_or(plan.process.uid, "uid_map")?, root_or(plan.process.gid, "gid_map")?))
}
