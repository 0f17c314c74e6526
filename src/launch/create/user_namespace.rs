//! What a user namespace changes for the parent: which privileges there are, who writes the maps, and what only the parent may do
//! from outside; user_namespaces(7).

use crate::launch::user_namespace::id_maps;
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result};

use super::preflight::is_own;
use crate::error::{Fault, Pointer};
use crate::host::rootless::is_initial;
use crate::init::step::Point;
use crate::launch::child::{Child, raise_hard_limits};
use crate::launch::user_namespace::{Unwritten, Writer};
use crate::plan::Plan;
use crate::plan::linux::id_maps::IdMaps;
use crate::plan::linux::namespaces::Join;
use crate::plan::process::Rlimit;
use crate::program::{Ids, Privileges, User};
use crate::sys::cred::Sets;

/// capabilities(7).
const CAP_SYS_ADMIN: u32 = 21;

/// The container's user namespace, and what the parent has to do for the init process in it.
#[derive(Debug)]
pub(super) struct UserNamespace {
    pub(super) user: User,
    /// Of a new one.
    maps: Option<Unwritten>,
    rlimits: Vec<Rlimit>,
    oom_score_adj: Option<i32>,
}

impl UserNamespace {
    /// What `plan` means for a runtime with the capabilities `own`, with `join` the namespaces to join. Afterwards the plan knows
    /// what a joined user namespace maps; one that is the runtime's own is not joined.
    ///
    /// # Errors
    /// What the runtime may not do without privileges; what does not go with the maps of a joined one.
    pub(super) fn of(plan: &mut Plan, join: &mut Vec<(Join, OwnedFd)>, own: Sets) -> Result<Self> {
        let (user, maps) = match join.iter().position(|(join, _)| join.kind == libc::CLONE_NEWUSER) {
            Some(place) => (joined(plan, join, place, own)?, None),
            None => match plan.id_maps.as_ref().filter(|_| plan.namespaces.is_new(libc::CLONE_NEWUSER)) {
                Some(maps) => {
                    let unwritten = unwritten(plan, maps, own)?;
                    (User::New(ids(plan, maps)), Some(unwritten))
                }
                None => (runtimes_own(), None),
            },
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

    /// Whether the parent does its part for the intermediate rather than for its successor, who is then among strangers.
    pub(super) fn is_set_up_first(&self) -> bool {
        matches!(self.user, User::Joined { .. })
    }

    /// Does the parent's part when the process has been born, and lets it go on.
    pub(super) fn set_up(&self, child: &Child<'_>) -> Result<()> {
        if self.is_own() {
            return Ok(());
        }
        child.await_point(Point::Born)?;
        let pid = child.init.pid;
        if let Some(maps) = &self.maps {
            maps.write(pid, &Pointer::root().field("linux"))?;
        }
        // Both need privileges outside the namespace, or a process that is still its user's own.
        raise_hard_limits(pid, &self.rlimits);
        if let Some(score) = self.oom_score_adj {
            let at = Pointer::root().field("process").field("oomScoreAdj");
            child.init.adjust_oom_score(score, at)?;
        }
        child.go_on()
    }
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

fn runtimes_own() -> User {
    if is_initial() { User::Own } else { User::Nested }
}

/// Looks at the user namespace at `place` in `join`.
fn joined(plan: &mut Plan, join: &mut Vec<(Join, OwnedFd)>, place: usize, own: Sets) -> Result<User> {
    let Some((user, namespace)) = join.get(place) else { return Ok(runtimes_own()) };
    // The kernel would refuse: nobody is to become root by coming again.
    if is_own(namespace.as_fd(), libc::CLONE_NEWUSER) {
        plan.namespaces.join.retain(|join| join.kind != libc::CLONE_NEWUSER);
        join.remove(place);
        return Ok(runtimes_own());
    }
    let maps = id_maps(namespace.as_fd(), &user.path).with_context(|| Fault {
        pointer: user.at(),
        message: format!("read the id mappings of user namespace {:?}", user.path),
        hint: None,
    })?;
    if plan.id_maps.as_ref().is_some_and(|given| !given.is_same(&maps)) {
        let at = Pointer::root().field("linux").field("uidMappings");
        return Err(at.error_with_hint(
            "user namespaces enabled, but both namespace path and non-matching mapping specified -- you may only provide \
             one",
            format_args!(
                "{:?} has uid mappings {:?} and gid mappings {:?}",
                user.path,
                maps.users.text().trim_end(),
                maps.groups.text().trim_end()
            ),
        ));
    }
    let user = User::Joined {
        ids: ids(plan, &maps),
        joins: if is_privileged(own) { Privileges::Outside } else { Privileges::Inside },
    };
    plan.know_maps(maps)?;
    Ok(user)
}

/// Who the init process is while it makes the container: root, or where the namespace has none, the program's user, as in crun.
fn ids(plan: &Plan, maps: &IdMaps) -> Ids {
    Ids {
        uid: maps.users.outside(0).map_or(plan.process.uid, |_| 0),
        gid: maps.groups.outside(0).map_or(plan.process.gid, |_| 0),
        // Root's files in /proc are root's in any case.
        needs_dumpable: !rustix::process::geteuid().is_root(),
    }
}

fn is_privileged(own: Sets) -> bool {
    own.effective >> CAP_SYS_ADMIN & 1 == 1
}

/// # Errors
/// Without privileges, there is no container but in a user namespace, and no mount whose ids are mapped.
pub(super) fn require_privileges(plan: &Plan, own: Sets) -> Result<()> {
    if is_privileged(own) {
        return Ok(());
    }
    if let Some((_, mapping)) = plan.mounts.id_mappings.first() {
        let message = "id-mapped mounts are not supported for rootless containers";
        return Err(mapping.at.error_with_hint(message, "mapping ids requires CAP_SYS_ADMIN; run as root"));
    }
    if plan.namespaces.has(libc::CLONE_NEWUSER) {
        return Ok(());
    }
    let at = Pointer::root().field("linux").field("namespaces");
    Err(at.error_with_hint(
        "without CAP_SYS_ADMIN, a rootless container requires user namespaces",
        "add {\"type\": \"user\"} with uidMappings and gidMappings (see `runtime spec --rootless`), or run as root",
    ))
}
