//! What is looked at before anything is made: whether this kernel, this bundle and these options go together, and what there is to
//! join.

use crate::plan::linux::namespaces::NamespacePlan;
use crate::sys::process::CLONE_NEWTIME;
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::Switch;
use crate::bundle::Bundle;
use crate::error::{Fault, Pointer};
use crate::plan::Plan;
use crate::plan::linux::namespaces;
use crate::plan::linux::namespaces::{Join, word};

/// What is not as the bundle asks, and no reason to fail.
pub(super) fn warnings(bundle: &Bundle, plan: &Plan) -> Vec<String> {
    let unknown = &bundle.unknown_capabilities;
    let unknown =
        (!unknown.is_empty()).then(|| format!("ignoring unknown capabilities: {}", unknown.join(", ")));
    let mounts = plan.mounts.warnings.iter().cloned();
    let rules = plan.cgroup.warnings.iter().cloned();
    unknown.into_iter().chain(plan.process.capabilities.warnings()).chain(mounts).chain(rules).collect()
}

/// Whether the processes cloned for the container run nothing and are seen by no other container's until the program may begin: no
/// process of one is in a pid namespace that is still to be made, or in the user namespace, and no hook comes before.
pub(super) fn is_born_alone(plan: &Plan) -> bool {
    let joins_user = plan.namespaces.join.iter().any(|join| join.kind == libc::CLONE_NEWUSER);
    plan.namespaces.is_new(libc::CLONE_NEWPID) && !joins_user && !plan.hooks.precede_the_switch()
}

/// # Errors
/// Without pivot_root(2) the host's mounts stay below the container's root. In a private tree they stay even when the host unmounts
/// them; runc refuses that, too.
pub(super) fn require_safe_switch(plan: &Plan, switch: Switch) -> Result<()> {
    match (switch, plan.propagation) {
        (Switch::Move, Some((libc::MS_PRIVATE | libc::MS_UNBINDABLE, _))) => {
            let at = Pointer::root().field("linux").field("rootfsPropagation");
            let message = "a rootfsPropagation of [r]private is not safe without pivot_root";
            Err(at.error_with_hint(message, "remove --no-pivot, or use \"rslave\""))
        }
        _ => Ok(()),
    }
}

/// # Errors
/// On a kernel older than 5.14, which lacks mount_setattr(2), cgroup.kill and others that there is no replacement for here.
pub(super) fn require_kernel() -> Result<()> {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next().unwrap_or(0)) {
        (Some(major), minor) if (major, minor) < (5, 14) => {
            bail!("Linux {release} is too old: 5.14 or newer is required")
        }
        _ => Ok(()),
    }
}

/// Opens the namespaces to join.
///
/// # Errors
/// Besides those of opening: a namespace that is the runtime's own, where something of the container would change the host.
pub(super) fn open_namespaces(plan: &Plan) -> Result<Vec<(Join, OwnedFd)>> {
    let open = |join: &Join| {
        let file = fs::File::open(&join.path).with_context(|| Fault {
            pointer: join.at(),
            message: format!("open {} namespace {:?}", word(join.kind), join.path),
            hint: None,
        })?;
        if let Some(changed) = plan.changes(join.kind)
            && is_own(file.as_fd(), join.kind)
        {
            let message = format!("{:?} is the runtime's own {} namespace", join.path, word(join.kind));
            return Err(join.at().error_with_hint(message, format_args!("{changed} would affect the host")));
        }
        Ok((join.clone(), file.into()))
    };
    plan.namespaces.join.iter().map(open).collect()
}

pub(super) fn is_own(namespace: BorrowedFd<'_>, kind: i32) -> bool {
    let Some((_, _, link)) = namespaces::LINKS.iter().find(|(other, _, _)| *other == kind) else {
        return false;
    };
    namespaces::is_at(namespace, Path::new(&format!("/proc/self/ns/{link}")))
}

/// # Errors
/// If there is to be a new time namespace and the kernel knows none.
pub(super) fn require_time_namespaces(namespaces: &NamespacePlan) -> Result<()> {
    if namespaces.is_new(CLONE_NEWTIME) && fs::symlink_metadata("/proc/self/timens_offsets").is_err() {
        let at = Pointer::root().field("linux").field("namespaces");
        return Err(at.error("time namespaces aren't enabled in the kernel"));
    }
    Ok(())
}
