//! What a user namespace changes for the parent: its privileges, who writes the id maps, and what can only be
//! done from outside; user_namespaces(7).

use crate::launch::user_namespace::id_maps;
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result};

use super::preflight::is_own;
use crate::error::{Fault, Pointer};
use crate::host::process::Process;
use crate::host::rootless::is_initial;
use crate::launch::spawn::raise_hard_limits;
use crate::launch::user_namespace::{Unwritten, Writer};
use crate::plan::linux::id_maps::IdMaps;
use crate::plan::linux::namespaces::{Join, NamespacePlan};
use crate::plan::process::Rlimit;
use crate::plan::{JoinedUser, Plan};
use crate::program::{Ids, Privileges, User};
use crate::sys::cred::Sets;

/// capabilities(7).
const CAP_SYS_ADMIN: u32 = 21;

/// The container's user namespace and what the parent does for the init process in it.
#[derive(Debug)]
pub(super) struct UserNamespace {
    pub(super) user: User,
    /// The id maps of a new one.
    maps: Option<Unwritten>,
    rlimits: Vec<Rlimit>,
    oom_score_adj: Option<i32>,
}

impl UserNamespace {
    /// Decides how a runtime with the capabilities `own` handles the user namespace of `plan`. `joined`
    /// describes the one to join, if any.
    ///
    /// # Errors
    /// If the runtime lacks a privilege.
    pub(super) fn of(plan: &Plan, joined: &JoinedUser, own: Sets) -> Result<Self> {
        let new = plan.id_maps.as_ref().filter(|_| plan.namespaces.is_new(libc::CLONE_NEWUSER));
        let (user, maps) = match (joined, new) {
            (JoinedUser::Maps(maps), _) => {
                let joins = if is_privileged(own) { Privileges::Outside } else { Privileges::Inside };
                (User::Joined { ids: ids(plan, maps), joins }, None)
            }
            (_, Some(maps)) => (User::New(ids(plan, maps)), Some(unwritten(plan, maps, own)?)),
            (_, None) => (if is_initial() { User::Own } else { User::Nested }, None),
        };
        let (rlimits, oom_score_adj) = match user {
            User::Own | User::Nested => (Vec::new(), None),
            _ => (plan.process.rlimits.clone(), plan.process.oom_score_adj),
        };
        Ok(Self { user, maps, rlimits, oom_score_adj })
    }

    pub(super) fn is_own(&self) -> bool {
        matches!(self.user, User::Own | User::Nested)
    }

    /// Whether the parent sets up the intermediate rather than its successor, which is then among the
    /// container's other processes.
    pub(super) fn is_set_up_first(&self) -> bool {
        matches!(self.user, User::Joined { .. })
    }

    /// Sets up a process that has been cloned and waits: id maps, hard limits, `oom_score_adj`.
    pub(super) fn set_up(&self, process: &Process) -> Result<()> {
        if let Some(maps) = &self.maps {
            maps.write(process.pid, &Pointer::root().field("linux"))?;
        }
        // Both need privileges outside the namespace, or a process that its user still owns.
        raise_hard_limits(process.pid, &self.rlimits);
        match self.oom_score_adj {
            Some(score) => process.adjust_oom_score(score, oom_score_at()),
            None => Ok(()),
        }
    }
}

pub(super) fn oom_score_at() -> Pointer {
    Pointer::root().field("process").field("oomScoreAdj")
}

/// Reads the id maps of the user namespace in `join`, if there is one.
pub(super) fn look(join: &[(Join, OwnedFd)]) -> Result<JoinedUser> {
    let user = join.iter().find(|(join, _)| join.kind == libc::CLONE_NEWUSER);
    let Some((user, namespace)) = user else { return Ok(JoinedUser::Unknown) };
    // The kernel refuses to join one's own user namespace: that would regain dropped capabilities.
    if is_own(namespace.as_fd(), libc::CLONE_NEWUSER) {
        return Ok(JoinedUser::Own);
    }
    let maps = id_maps(namespace.as_fd(), &user.path).with_context(|| Fault {
        pointer: user.at(),
        message: format!("read the id mappings of user namespace {:?}", user.path),
        hint: None,
    })?;
    Ok(JoinedUser::Maps(maps))
}

fn unwritten(plan: &Plan, maps: &IdMaps, own: Sets) -> Result<Unwritten> {
    let unwritten = Unwritten::by(Writer::own(own), maps.clone());
    if unwritten.denies_setgroups() && !plan.process.groups.is_empty() {
        let at = Pointer::root().field("process").field("user").field("additionalGids");
        return Err(at.error_with_hint(
            "cannot set any additional groups in a rootless container that maps only the user's own group",
            "map more groups in /linux/gidMappings (/etc/subgid must allow them)",
        ));
    }
    Ok(unwritten)
}

/// The ids of the init process while it sets up the container: root, or the program's user where the
/// namespace maps no root, as in crun.
fn ids(plan: &Plan, maps: &IdMaps) -> Ids {
    Ids {
        uid: maps.users.outside(0).map_or(plan.process.uid, |_| 0),
        gid: maps.groups.outside(0).map_or(plan.process.gid, |_| 0),
        // Files in /proc of a process of root belong to root in any case.
        needs_dumpable: !rustix::process::geteuid().is_root(),
    }
}

fn is_privileged(own: Sets) -> bool {
    own.effective >> CAP_SYS_ADMIN & 1 == 1
}

/// # Errors
/// Without privileges: if there is no user namespace, or if a mount is id-mapped.
pub(super) fn require_privileges(plan: &Plan, own: Sets) -> Result<()> {
    if is_privileged(own) {
        return Ok(());
    }
    if let Some((_, mapping)) = plan.mounts.id_mappings.first() {
        let message = "id-mapped mounts are not supported for rootless containers";
        return Err(mapping.at.error_with_hint(message, "mapping ids requires CAP_SYS_ADMIN; run as root"));
    }
    require_user_namespace(&plan.namespaces, own)
}

/// # Errors
/// Without privileges, if the container is in no user namespace.
pub(super) fn require_user_namespace(namespaces: &NamespacePlan, own: Sets) -> Result<()> {
    if is_privileged(own) || namespaces.has(libc::CLONE_NEWUSER) {
        return Ok(());
    }
    let at = Pointer::root().field("linux").field("namespaces");
    Err(at.error_with_hint(
        "without CAP_SYS_ADMIN, a rootless container requires user namespaces",
        "add {\"type\": \"user\"} with uidMappings and gidMappings (see `runtime spec --rootless`), or run as root",
    ))
}
