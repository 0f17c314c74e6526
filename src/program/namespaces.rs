//! The first part of a container's program: from its birth until the init process is in every namespace but, perhaps, that of the
//! network; user_namespaces(7).

use std::ffi::CString;
use std::os::fd::OwnedFd;

use super::{Origin, Program};
use crate::init::step::{Point, Step};
use crate::namespaces::{Join, NamespacePlan};
use crate::sys::process::CLONE_NEWTIME;

/// What the init process becomes in the user namespace that it was born in.
#[derive(Clone, Copy, Debug)]
pub struct NewUser {
    /// Root, where there is one.
    pub uid: u32,
    pub gid: u32,
    /// Whether the parent can write the maps only while the files in /proc are this process's user's.
    pub needs_dumpable: bool,
}

/// What the parent has prepared for this part.
pub(super) struct First {
    pub(super) user: Option<NewUser>,
    pub(super) join: Vec<(Join, OwnedFd)>,
    /// Its name and its SELinux label.
    pub(super) keyring: Option<(CString, Option<CString>)>,
}

/// That whoever possesses a session keyring's user id may search it, as runc has it; keyrings(7).
const SEARCH_BY_USER: u32 = 0x0008_0000;
/// That anybody may: the keyring belongs to the namespace's root, whoever the program's user is.
const SEARCH_BY_OTHERS: u32 = 0x8;

/// The new namespaces that the init process is born in.
///
/// Not that of cgroups: its root would be the parent's cgroup; cgroup_namespaces(7). With a new user namespace, not those of the
/// network and of ipc: their files in /proc and /dev/mqueue would be nobody's, because at birth there is no root yet. Not that of
/// time, if it is to have offsets: they are set before the first process is in it; time_namespaces(7).
pub fn births(plan: &NamespacePlan, in_new_user_namespace: bool) -> i32 {
    let later = match in_new_user_namespace {
        true => libc::CLONE_NEWCGROUP | libc::CLONE_NEWNET | libc::CLONE_NEWIPC,
        false => libc::CLONE_NEWCGROUP | libc::CLONE_NEWNET,
    };
    let time = if plan.time_offsets.is_some() { CLONE_NEWTIME } else { 0 };
    plan.new & !later & !time
}

/// Those that the parent makes beside the init process and hands to it: they are not to belong to a user namespace.
pub fn made_beside(in_new_user_namespace: bool) -> i32 {
    if in_new_user_namespace { 0 } else { libc::CLONE_NEWNET }
}

impl Program {
    /// Lines whose place matters say why.
    pub(super) fn enter_namespaces(&mut self, plan: &NamespacePlan, first: First) {
        self.add(Origin::Runtime, Step::CloseOthers { ranges: Vec::new() });
        // Before anything is made: it would belong to nobody.
        if let Some(user) = first.user {
            if user.needs_dumpable {
                self.add(Origin::Runtime, Step::Dumpable { yes: true });
            }
            self.add(Origin::Runtime, Step::Meet { point: Point::Born });
            if user.needs_dumpable {
                self.add(Origin::Runtime, Step::Dumpable { yes: false });
            }
            self.take_ids(user.uid, user.gid);
        }
        if let Some(offsets) = &plan.time_offsets {
            let origin = || Origin::Field("/linux/timeOffsets");
            self.add(origin(), Step::NewNamespaces { kinds: CLONE_NEWTIME });
            // In a user namespace a process that cannot be dumped may not write to its own files in /proc. Before anything is
            // joined: nobody else there can look at it meanwhile.
            let changes = first.user.is_some();
            if changes {
                self.add(Origin::Runtime, Step::Dumpable { yes: true });
            }
            self.add(origin(), Step::TimeOffsets { offsets: offsets.clone() });
            if changes {
                self.add(Origin::Runtime, Step::Dumpable { yes: false });
            }
        }
        // Joining a mount namespace changes what every path below means, so it comes last of the namespaces and they come
        // first; setns(2).
        let (mount, other): (Vec<_>, Vec<_>) =
            first.join.into_iter().partition(|(join, _)| join.kind == libc::CLONE_NEWNS);
        for (join, namespace) in other.into_iter().chain(mount) {
            let origin = Origin::Namespace(join.index, join.path);
            self.add(origin, Step::JoinNamespace { namespace, kind: join.kind });
        }
        let earlier = births(plan, first.user.is_some()) | made_beside(first.user.is_some()) | CLONE_NEWTIME;
        let kinds = plan.new & !earlier;
        if kinds != 0 {
            self.add(Origin::Field("/linux/namespaces"), Step::NewNamespaces { kinds });
        }
        if kinds & libc::CLONE_NEWNET != 0 {
            self.add(Origin::Field("/linux/namespaces"), Step::Loopback);
        }
        if let Some((name, label)) = first.keyring {
            self.join_keyring(name, label, plan.has(libc::CLONE_NEWUSER));
        }
        self.add(Origin::Runtime, Step::NewSession);
    }

    /// Becomes somebody in the user namespace that it has just come into.
    pub(super) fn take_ids(&mut self, uid: u32, gid: u32) {
        self.add(Origin::Field("/linux/uidMappings"), Step::TakeIds { uid, gid });
    }

    pub(super) fn join_keyring(&mut self, name: CString, label: Option<CString>, in_user_namespace: bool) {
        let permissions = if in_user_namespace { SEARCH_BY_OTHERS } else { SEARCH_BY_USER };
        self.add(Origin::Runtime, Step::JoinSessionKeyring { name, permissions, label });
    }
}
