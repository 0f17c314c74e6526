//! The first part of a container's program: from clone until the init process is in every namespace except,
//! possibly, the network namespace; user_namespaces(7).

use std::ffi::CString;
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};

use super::{Origin, Program};
use crate::init::step::{Point, Step};
use crate::plan::linux::namespaces::{Join, NamespacePlan};
use crate::sys::process::CLONE_NEWTIME;

/// The user namespace of the container.
#[derive(Clone, Copy, Debug, Default)]
pub enum User {
    /// The runtime's own.
    #[default]
    Own,
    /// The runtime's own, which is not the initial one. Namespaces of the runtime may be owned by a user
    /// namespace above: a process that leaves those cannot rejoin them.
    Nested,
    /// A new one, whose maps the parent writes.
    New(Ids),
    /// An existing one.
    Joined {
        ids: Ids,
        /// Where the process has the privileges to join the other namespaces.
        joins: Privileges,
    },
}

impl User {
    /// Whether it is new and made by an unprivileged user.
    pub(super) fn is_new_of_a_user(&self) -> bool {
        matches!(self, Self::New(ids) if ids.needs_dumpable)
    }
}

/// Where a process has privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privileges {
    /// As the runtime has them.
    Outside,
    /// In the container's user namespace.
    Inside,
}

/// The ids of the init process in a user namespace.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    /// 0, if it is mapped.
    pub uid: u32,
    pub gid: u32,
    /// Whether the parent can write the maps only while the process is dumpable, so that its user owns its
    /// files in /proc.
    pub needs_dumpable: bool,
}

/// Which process makes which new namespaces, as masks of `CLONE_NEW*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceSetup {
    /// Those that the parent clones the process into.
    pub cloned: i32,
    /// If set, the cloned process is an intermediate: it joins namespaces, then clones the init process into
    /// these.
    pub succeeded: Option<i32>,
    /// Those that the init process makes with unshare(2).
    later: i32,
    /// Those that the parent makes and sends to the init process; they must not be owned by the container's
    /// user namespace.
    pub beside: i32,
    /// Whether the pid namespace is joined only after the root switch, by a successor: with CAP_SYS_PTRACE,
    /// processes in it can follow the /proc links of any process there (CVE-2016-9962).
    pub late: bool,
}

impl NamespaceSetup {
    /// Decides for a container with this plan. `has_early_hooks`: whether hooks run before the root switch,
    /// which are told the pid of the init process.
    pub fn of(plan: &NamespacePlan, user: User, has_early_hooks: bool) -> Self {
        const CGROUP: i32 = libc::CLONE_NEWCGROUP;
        const NETWORK: i32 = libc::CLONE_NEWNET;
        // A time namespace with offsets is made separately: they are set before the first process is in it;
        // time_namespaces(7).
        let new = if plan.time_offsets.is_some() { plan.new & !CLONE_NEWTIME } else { plan.new };
        let none = Self { cloned: 0, succeeded: None, later: 0, beside: 0, late: false };
        let joins_pid = plan.join.iter().any(|join| join.kind == libc::CLONE_NEWPID);
        let late = joins_pid && !has_early_hooks;
        match user {
            // Not the cgroup namespace: its root would be the parent's cgroup; cgroup_namespaces(7).
            User::Own => {
                let cloned = new & !(CGROUP | NETWORK);
                Self { cloned, later: new & CGROUP, beside: new & NETWORK, late, ..none }
            }
            User::Nested => {
                let later = new & (CGROUP | NETWORK);
                let born = new & !later;
                match joins_pid && !late {
                    false => Self { cloned: born, later, late, ..none },
                    true => Self { succeeded: Some(born), later, ..none },
                }
            }
            // Not the network and ipc namespaces either: their files in /proc and /dev/mqueue would be owned
            // by nobody, because no ids are mapped yet.
            User::New(_) => {
                let later = new & (CGROUP | NETWORK | libc::CLONE_NEWIPC);
                let born = new & !later;
                match plan.join.is_empty() {
                    true => Self { cloned: born, later, ..none },
                    // Existing namespaces are owned by others, so they can only be joined from outside.
                    false => Self { succeeded: Some(born), later, ..none },
                }
            }
            // It must own all new ones, so it is joined first. Pid and time namespaces apply to children.
            User::Joined { .. } if plan.has(libc::CLONE_NEWPID) || new & CLONE_NEWTIME != 0 => {
                Self { succeeded: Some(new), ..none }
            }
            User::Joined { .. } => Self { later: new, ..none },
        }
    }
}

/// The inputs of the first part.
pub(super) struct First {
    pub(super) user: User,
    pub(super) join: Vec<(Join, OwnedFd)>,
    /// The session keyring's name and its SELinux label.
    pub(super) keyring: Option<(CString, Option<CString>)>,
    /// Whether to wait while the parent moves network devices into a network namespace that the init process
    /// makes.
    pub(super) awaits_devices: bool,
    pub(super) has_early_hooks: bool,
}

/// The owner of a session keyring may search it, as with runc; keyrings(7).
const SEARCH_BY_USER: u32 = 0x0008_0000;
/// Everyone may search it: it is owned by root of the user namespace, whichever user the program runs as.
const SEARCH_BY_OTHERS: u32 = 0x8;

impl Program {
    /// Adds the steps from birth until the process is in every namespace, in order. Returns the pid namespace
    /// that is left for [`Self::be_born_late`], if there is one.
    pub(super) fn enter_namespaces(&mut self, plan: &NamespacePlan, first: First) -> Option<(Join, OwnedFd)> {
        let setup = NamespaceSetup::of(plan, first.user, first.has_early_hooks);
        let (user, mut others): (Vec<_>, Vec<_>) =
            first.join.into_iter().partition(|(join, _)| join.kind == libc::CLONE_NEWUSER);
        // The mount namespace last: once it is joined, paths mean something else; setns(2).
        others.sort_by_key(|(join, _)| join.kind == libc::CLONE_NEWNS);
        let is_late = |(join, _): &(Join, OwnedFd)| setup.late && join.kind == libc::CLONE_NEWPID;
        let late = others.iter().position(is_late).map(|place| others.remove(place));
        match first.user {
            User::Own | User::Nested => {
                self.change_clocks(plan, Privileges::Outside);
                self.join_all(others);
                self.clone_successor(setup.succeeded);
            }
            User::New(ids) => self.enter_new_user_namespace(plan, ids, others, setup.succeeded),
            User::Joined { ids, joins } => {
                // While no other process can inspect this one.
                self.wait_for_setup(ids);
                self.join_with_user_namespace(plan, ids, joins, user, others);
                self.clone_successor(setup.succeeded);
            }
        }
        self.make_namespaces(plan, setup, first.awaits_devices);
        if let Some((name, label)) = first.keyring {
            self.join_keyring(name, label, plan.has(libc::CLONE_NEWUSER));
        }
        self.add(Origin::Runtime, Step::NewSession);
        late
    }

    /// A process that has a successor is an intermediate outside the user namespace, and can join what
    /// belongs to others.
    fn enter_new_user_namespace(
        &mut self,
        plan: &NamespacePlan,
        ids: Ids,
        others: Vec<(Join, OwnedFd)>,
        succeeded: Option<i32>,
    ) {
        if succeeded.is_some() {
            self.change_clocks(plan, Privileges::Outside);
            self.join_all(others);
            self.clone_successor(succeeded);
        }
        // Before anything is made: with no ids mapped, nobody would own it.
        self.wait_for_setup(ids);
        self.take_ids(ids.uid, ids.gid);
        if succeeded.is_none() {
            self.change_clocks(plan, Privileges::Inside);
        }
    }

    /// Joins `user`, the user namespace, and `others` where the process has the privileges to: before it or
    /// after it.
    fn join_with_user_namespace(
        &mut self,
        plan: &NamespacePlan,
        ids: Ids,
        joins: Privileges,
        user: Vec<(Join, OwnedFd)>,
        others: Vec<(Join, OwnedFd)>,
    ) {
        if joins == Privileges::Outside {
            self.change_clocks(plan, joins);
            self.join_all(others);
            self.join_all(user);
            self.take_ids(ids.uid, ids.gid);
        } else {
            self.join_all(user);
            self.take_ids(ids.uid, ids.gid);
            self.change_clocks(plan, joins);
            self.join_all(others);
        }
    }

    /// Makes the namespaces that the process was not cloned into. Sets `lo` up and waits for network devices
    /// in a new network namespace.
    fn make_namespaces(&mut self, plan: &NamespacePlan, setup: NamespaceSetup, awaits_devices: bool) {
        if setup.later != 0 {
            self.add(Origin::Field("/linux/namespaces"), Step::NewNamespaces { kinds: setup.later });
        }
        if plan.is_new(libc::CLONE_NEWNET) && setup.beside == 0 {
            self.add(Origin::Field("/linux/namespaces"), Step::Loopback);
            if awaits_devices {
                self.add(Origin::Field("/linux/netDevices"), Step::Meet { point: Point::InNamespaces });
            }
        }
    }

    /// Makes a new procfs show the pid namespace that the process is going to join.
    pub(super) fn hold_pid_namespace(&mut self, (join, namespace): &(Join, OwnedFd)) -> Result<()> {
        let namespace = namespace.try_clone().context("keep a namespace open")?;
        self.add(Origin::Namespace(join.index, join.path.clone()), Step::HoldPidNamespace { namespace });
        Ok(())
    }

    /// Joins the pid namespace and continues in a successor there, in a new session, like a process that
    /// `exec` adds.
    pub(super) fn be_born_late(&mut self, namespace: (Join, OwnedFd)) {
        self.join_all(vec![namespace]);
        self.clone_successor(Some(0));
        self.add(Origin::Runtime, Step::NewSession);
    }

    fn join_all(&mut self, namespaces: Vec<(Join, OwnedFd)>) {
        for (join, namespace) in namespaces {
            let origin = Origin::Namespace(join.index, join.path);
            self.add(origin, Step::JoinNamespace { namespace, kind: join.kind });
        }
    }

    /// Makes a time namespace with offsets, if the plan has offsets.
    fn change_clocks(&mut self, plan: &NamespacePlan, privileges: Privileges) {
        let Some(offsets) = &plan.time_offsets else { return };
        let origin = || Origin::Field("/linux/timeOffsets");
        self.add(origin(), Step::NewNamespaces { kinds: CLONE_NEWTIME });
        // In a user namespace, a process that is not dumpable may not write to its own files in /proc.
        if privileges == Privileges::Inside {
            self.add(Origin::Runtime, Step::Dumpable { yes: true });
        }
        self.add(origin(), Step::TimeOffsets { offsets: offsets.clone() });
        if privileges == Privileges::Inside {
            self.add(Origin::Runtime, Step::Dumpable { yes: false });
        }
    }

    /// Continues in a successor, cloned into new namespaces of these kinds (`CLONE_NEW*`), if there is one.
    fn clone_successor(&mut self, kinds: Option<i32>) {
        if let Some(kinds) = kinds {
            self.add(Origin::Field("/linux/namespaces"), Step::Successor { kinds });
        }
    }

    fn wait_for_setup(&mut self, ids: Ids) {
        if ids.needs_dumpable {
            self.add(Origin::Runtime, Step::Dumpable { yes: true });
        }
        self.add(Origin::Runtime, Step::Meet { point: Point::Born });
        if ids.needs_dumpable {
            self.add(Origin::Runtime, Step::Dumpable { yes: false });
        }
    }

    /// Takes ids of the user namespace that the process has just entered.
    pub(super) fn take_ids(&mut self, uid: u32, gid: u32) {
        self.add(Origin::Field("/linux/uidMappings"), Step::SwitchIds { uid, gid });
    }

    pub(super) fn join_keyring(&mut self, name: CString, label: Option<CString>, in_user_namespace: bool) {
        let permissions = if in_user_namespace { SEARCH_BY_OTHERS } else { SEARCH_BY_USER };
        self.add(Origin::Runtime, Step::JoinSessionKeyring { name, permissions, label });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: Ids = Ids { uid: 0, gid: 0, needs_dumpable: false };
    const PID: i32 = libc::CLONE_NEWPID;
    const MOUNT: i32 = libc::CLONE_NEWNS;
    const NETWORK: i32 = libc::CLONE_NEWNET;
    const USER: i32 = libc::CLONE_NEWUSER;

    fn setup(new: i32, join: &[i32], user: User) -> NamespaceSetup {
        let join = join.iter().map(|kind| Join { kind: *kind, path: "/x".into(), index: 0 }).collect();
        NamespaceSetup::of(&NamespacePlan { new, join, ..NamespacePlan::default() }, user, true)
    }

    #[test]
    fn an_intermediate_is_needed_only_where_something_must_be_joined_before_the_birth() {
        let new = User::New(IDS);
        let joined = User::Joined { ids: IDS, joins: Privileges::Outside };
        assert_eq!(setup(PID | MOUNT, &[NETWORK], User::Own).succeeded, None);
        assert_eq!(setup(MOUNT, &[PID], User::Own).succeeded, None);
        assert_eq!(setup(PID | MOUNT, &[NETWORK], User::Nested).succeeded, None);
        assert_eq!(setup(MOUNT, &[PID], User::Nested).succeeded, Some(MOUNT));
        assert_eq!(setup(USER | PID | MOUNT, &[], new).succeeded, None);
        assert_eq!(setup(USER | PID | MOUNT, &[NETWORK], new).succeeded, Some(USER | PID | MOUNT));
        assert_eq!(setup(MOUNT, &[USER], joined).succeeded, None);
        assert_eq!(setup(PID | MOUNT, &[USER], joined).succeeded, Some(PID | MOUNT));
        assert_eq!(setup(MOUNT, &[USER, PID], joined).succeeded, Some(MOUNT));
    }

    #[test]
    fn a_process_is_born_late_into_a_pid_namespace_whose_processes_could_look_into_it() {
        let late = |join: &[i32], user: User, has_early_hooks: bool| {
            let join = join.iter().map(|kind| Join { kind: *kind, path: "/x".into(), index: 0 }).collect();
            NamespaceSetup::of(
                &NamespacePlan { new: MOUNT, join, ..NamespacePlan::default() },
                user,
                has_early_hooks,
            )
        };
        for user in [User::Own, User::Nested] {
            let setup = late(&[PID], user, false);
            assert_eq!((setup.late, setup.succeeded, setup.cloned), (true, None, MOUNT));
            // The hooks are told the init process's pid.
            assert!(!late(&[PID], user, true).late);
            assert!(!late(&[NETWORK], user, false).late);
        }
        // Processes in that pid namespace may not inspect it.
        assert!(!late(&[PID], User::New(IDS), false).late);
    }

    #[test]
    fn every_new_namespace_is_made_once() {
        let new = MOUNT | PID | NETWORK | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
        for (new, join, user) in [
            (new, &[][..], User::Own),
            (new, &[], User::Nested),
            (new & !PID, &[PID], User::Nested),
            (new | USER, &[], User::New(IDS)),
            (new | USER, &[PID], User::New(IDS)),
            (new, &[USER], User::Joined { ids: IDS, joins: Privileges::Inside }),
            (new & !PID, &[USER], User::Joined { ids: IDS, joins: Privileges::Inside }),
        ] {
            let NamespaceSetup { cloned, succeeded, later, beside, .. } = setup(new, join, user);
            let all = [cloned, succeeded.unwrap_or(0), later, beside];
            assert_eq!(all.iter().fold(0, |sum, kinds| sum | kinds), new);
            assert_eq!(all.iter().map(|kinds| kinds.count_ones()).sum::<u32>(), new.count_ones());
        }
    }
}
