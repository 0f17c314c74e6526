//! What a user namespace changes for the parent: which privileges there are, who writes the maps, and what only the parent may do
//! from outside; user_namespaces(7).

use anyhow::Result;

use crate::child::{Child, raise_hard_limits};
use crate::error::Pointer;
use crate::init::step::Point;
use crate::plan::Plan;
use crate::process::Rlimit;
use crate::program::NewUser;
use crate::sys::cred::Sets;
use crate::user_namespace::{IdMaps, Unwritten, Writer};

/// capabilities(7).
const CAP_SYS_ADMIN: u32 = 21;

/// A new user namespace whose maps are yet to be written.
#[derive(Debug)]
pub(super) struct NewUserNamespace {
    maps: Unwritten,
    pub(super) ids: NewUser,
    rlimits: Vec<Rlimit>,
    oom_score_adj: Option<i32>,
}

impl NewUserNamespace {
    /// What `plan` means for a runtime with the capabilities `own`; `None` without a new user namespace.
    ///
    /// # Errors
    /// What the runtime may not do without privileges.
    pub(super) fn of(plan: &Plan, own: Sets) -> Result<Option<Self>> {
        let Some(maps) = plan.id_maps.as_ref().filter(|_| plan.namespaces.is_new(libc::CLONE_NEWUSER)) else {
            return Ok(None);
        };
        let writer = Writer {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            capabilities: own,
        };
        let unwritten = Unwritten::by(writer, maps.clone());
        if unwritten.denies_setgroups() && !plan.process.groups.is_empty() {
            let at = Pointer::root().field("process").field("user").field("additionalGids");
            return Err(at.error_with_hint(
                "cannot set any additional groups in a rootless container that maps only its user's own group",
                "map more groups in /linux/gidMappings, which /etc/subgid must grant",
            ));
        }
        Ok(Some(Self {
            ids: ids(plan, maps, unwritten.needs_dumpable),
            maps: unwritten,
            rlimits: plan.process.rlimits.clone(),
            oom_score_adj: plan.process.oom_score_adj,
        }))
    }

    /// Does the parent's part when the init process has been born, and lets it go on.
    pub(super) fn set_up(&self, child: &Child<'_>) -> Result<()> {
        child.await_point(Point::Born)?;
        let pid = child.init.pid;
        self.maps.write(pid)?;
        // Both need privileges outside the namespace, or a process that is still its user's own.
        raise_hard_limits(pid, &self.rlimits);
        if let Some(score) = self.oom_score_adj {
            let at = Pointer::root().field("process").field("oomScoreAdj");
            child.init.adjust_oom_score(score, at)?;
        }
        child.go_on();
        Ok(())
    }
}

/// Who the init process is while it makes the container: root, or where the namespace has none, the program's user, as in crun.
fn ids(plan: &Plan, maps: &IdMaps, needs_dumpable: bool) -> NewUser {
    NewUser {
        uid: maps.users.outside(0).map_or(plan.process.uid, |_| 0),
        gid: maps.groups.outside(0).map_or(plan.process.gid, |_| 0),
        needs_dumpable,
    }
}

/// # Errors
/// Without privileges, there is no container but in a user namespace.
pub(super) fn require_privileges(plan: &Plan, own: Sets) -> Result<()> {
    if own.effective >> CAP_SYS_ADMIN & 1 == 1 || plan.namespaces.has(libc::CLONE_NEWUSER) {
        return Ok(());
    }
    let at = Pointer::root().field("linux").field("namespaces");
    Err(at.error_with_hint(
        "without CAP_SYS_ADMIN, a rootless container requires user namespaces",
        "add {\"type\": \"user\"} with uidMappings and gidMappings, as `runtime spec --rootless` does, or run this as root",
    ))
}
