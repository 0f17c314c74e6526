//! Which namespaces the new process joins, and which process joins them; setns(2).

use anyhow::{Context as _, Result};

use crate::container::state::State;
use crate::plan::ExecPlan;
use crate::plan::linux::namespaces::LINKS;
use crate::sys::cred::Sets;
use crate::sys::process::CLONE_NEWTIME;

/// Returns the kinds of namespaces (`CLONE_NEW*`) that the container is in and this process is not.
///
/// Joining one that this process is already in does no harm, so namespaces made for the container need no
/// check, except a user namespace. For the others the container may have been created from other namespaces
/// than this process's, but not from another user or time namespace: then no command would work.
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
        // The kernel has no namespaces of this kind.
        (Err(error), _) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

/// Returns the kinds of namespaces that the parent joins itself: the pid namespace, for its children, and,
/// without privileges, the user namespace before it, which gives the capabilities to join the pid namespace.
pub(super) fn joined_by_parent(kinds: i32, own: Sets) -> i32 {
    match kinds & libc::CLONE_NEWPID {
        0 => 0,
        pid if is_privileged(own) => pid,
        pid => pid | kinds & libc::CLONE_NEWUSER,
    }
}

/// Whether the runtime has CAP_SYS_ADMIN; capabilities(7).
pub(super) fn is_privileged(own: Sets) -> bool {
    own.effective >> 21 & 1 == 1
}

/// Returns the ids that the new process takes in a user namespace that it joins, until it becomes the
/// program's user: root, or that user where the namespace maps no root.
pub(super) fn ids_inside(plan: &ExecPlan, init: i32) -> Result<(u32, u32)> {
    let root_or = |user: u32, file: &str| -> Result<u32> {
        let path = format!("/proc/{init}/{file}");
        let map = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let has_root = map.lines().any(|line| line.split_whitespace().next() == Some("0"));
        Ok(if has_root { 0 } else { user })
    };
    Ok((root_or(plan.process.uid, "uid_map")?, root_or(plan.process.gid, "gid_map")?))
}
