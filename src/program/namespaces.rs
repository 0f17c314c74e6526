//! The first part of a container's program: from its birth until the init process is in every namespace but, perhaps, that of the
//! network; user_namespaces(7).

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
    /// The runtime's own, and there are others above, to which namespaces of the runtime may belong: who leaves those cannot come
    /// back.
    Nested,
    /// A new one, whose maps the parent writes.
    New(Ids),
    Joined {
        ids: Ids,
        /// Which it takes to join others.
        joins: Privileges,
    },
}

impl User {
    /// Whether it is a new one that is not made by root.
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

/// What the init process becomes in a user namespace.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    /// Root, where there is one.
    pub uid: u32,
    pub gid: u32,
    /// Whether the parent can do its part only while the files in /proc are this process's user's.
    pub needs_dumpable: bool,
}

/// Where new namespaces come from, as `CLONE_NEW*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceSetup {
    /// The process that the parent clones is born in them.
    pub cloned: i32,
    /// That process is an intermediate, which has joined some by then, and the init process is its successor, born in these.
    pub succeeded: Option<i32>,
    /// The init process makes them.
    later: i32,
    /// The parent makes them beside the init process and hands them to it: they are not to belong to a user namespace.
    pub beside: i32,
    /// That process stays outside the pid namespace to join, and the init process is its successor there, when `/` is the
    /// container's: whoever has CAP_SYS_PTRACE there can follow the links of what is born in it; CVE-2016-9962.
    pub late: bool,
}

impl NamespaceSetup {
    /// `has_early_hooks`: some are called before the switch of the root, who are told which process is the container's.
    pub fn of(plan: &NamespacePlan, user: User, has_early_hooks: bool) -> Self {
        const CGROUP: i32 = libc::CLONE_NEWCGROUP;
        const NETWORK: i32 = libc::CLONE_NEWNET;
        // One for time that is to have offsets is made apart: they are set before the first process is in it;
        // time_namespaces(7).
        let new = if plan.time_offsets.is_some() { plan.new & !CLONE_NEWTIME } else { plan.new };
        let none = Self { cloned: 0, succeeded: None, later: 0, beside: 0, late: false };
        let joins_pid = plan.join.iter().any(|join| join.kind == libc::CLONE_NEWPID);
        let late = joins_pid && !has_early_hooks;
        match user {
            // Not that of cgroups: its root would be the parent's cgroup; cgroup_namespaces(7).
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
            // Not those of the network and of ipc either: their files in /proc and /dev/mqueue would be nobody's, because at
            // birth there is no root yet.
            User::New(_) => {
                let later = new & (CGROUP | NETWORK | libc::CLONE_NEWIPC);
                let born = new & !later;
                match plan.join.is_empty() {
                    true => Self { cloned: born, later, ..none },
                    // What exists already belongs to others: only from outside can it be joined.
                    false => Self { succeeded: Some(born), later, ..none },
                }
            }
            // All are to belong to it, so it has to be joined first. Those of pids and time are for children.
            User::Joined { .. } if plan.has(libc::CLONE_NEWPID) || new & CLONE_NEWTIME != 0 => {
                Self { succeeded: Some(new), ..none }
            }
            User::Joined { .. } => Self { later: new, ..none },
        }
    }
}

/// What the parent has prepared for this part.
pub(super) struct First {
    pub(super) user: User,
    pub(super) join: Vec<(Join, OwnedFd)>,
    /// Its name and its SELinux label.
    pub(super) keyring: Option<(CString, Option<CString>)>,
    /// Whether network devices come into a network namespace that the init process makes.
    pub(super) awaits_devices: bool,
    pub(super) has_early_hooks: bool,
}

/// That whoever possesses a session keyring's user id may search it, as runc has it; keyrings(7).
const SEARCH_BY_USER: u32 = 0x0008_0000;
/// That anybody may: the keyring belongs to the namespace's root, whoever the program's user is.
const SEARCH_BY_OTHERS: u32 = 0x8;

impl Program {
    /// Lines whose place matters say why. The pid namespace that is given back is for [`Self::be_born_late`].
    pub(super) fn enter_namespaces(&mut self, plan: &NamespacePlan, first: First) -> Option<(Join, OwnedFd)> {
        let births = NamespaceSetup::of(plan, first.user, first.has_early_hooks);
        self.add(Origin::Runtime, Step::CloseOthers { ranges: Vec::new() });
        let (user, mut others): (Vec<_>, Vec<_>) =
            first.join.into_iter().partition(|(join, _)| join.kind == libc::CLONE_NEWUSER);
        // Joining a mount namespace changes what every path below means, so it comes last of the namespaces and they come
        // first; setns(2).
        others.sort_by_key(|(join, _)| join.kind == libc::CLONE_NEWNS);
        let is_late = |(join, _): &(Join, OwnedFd)| births.late && join.kind == libc::CLONE_NEWPID;
        let late = others.iter().position(is_late).map(|place| others.remove(place));
        match first.user {
            User::Own | User::Nested => {
                self.change_clocks(plan, Privileges::Outside);
                self.join_all(others);
                if let Some(kinds) = births.succeeded {
                    self.be_succeeded(kinds);
                }
            }
            User::New(ids) => {
                if let Some(kinds) = births.succeeded {
                    self.change_clocks(plan, Privileges::Outside);
                    self.join_all(others);
                    self.be_succeeded(kinds);
                }
                // Before anything is made: it would belong to nobody.
                self.meet_the_parent(ids);
                self.take_ids(ids.uid, ids.gid);
                if births.succeeded.is_none() {
                    self.change_clocks(plan, Privileges::Inside);
                }
            }
            User::Joined { ids, joins } => {
                // Before there is anybody who could look at this process.
                self.meet_the_parent(ids);
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
                if let Some(kinds) = births.succeeded {
                    self.be_succeeded(kinds);
                }
            }
        }
        if births.later != 0 {
            self.add(Origin::Field("/linux/namespaces"), Step::NewNamespaces { kinds: births.later });
        }
        if plan.is_new(libc::CLONE_NEWNET) && births.beside == 0 {
            self.add(Origin::Field("/linux/namespaces"), Step::Loopback);
            if first.awaits_devices {
                self.add(Origin::Field("/linux/netDevices"), Step::Meet { point: Point::InNamespaces });
            }
        }
        if let Some((name, label)) = first.keyring {
            self.join_keyring(name, label, plan.has(libc::CLONE_NEWUSER));
        }
        self.add(Origin::Runtime, Step::NewSession);
        late
    }

    /// Has a new procfs show the pid namespace that the process is not in yet.
    pub(super) fn hold_pid_namespace(&mut self, (join, namespace): &(Join, OwnedFd)) -> Result<()> {
        let namespace = namespace.try_clone().context("keep a namespace open")?;
        self.add(Origin::Namespace(join.index, join.path.clone()), Step::HoldPidNamespace { namespace });
        Ok(())
    }

    /// Goes on as a process of the pid namespace, with a session of its own, like one that `exec` adds.
    pub(super) fn be_born_late(&mut self, namespace: (Join, OwnedFd)) {
        self.join_all(vec![namespace]);
        self.be_succeeded(0);
        self.add(Origin::Runtime, Step::NewSession);
    }

    fn join_all(&mut self, namespaces: Vec<(Join, OwnedFd)>) {
        for (join, namespace) in namespaces {
            let origin = Origin::Namespace(join.index, join.path);
            self.add(origin, Step::JoinNamespace { namespace, kind: join.kind });
        }
    }

    /// Makes a time namespace with offsets, if there is to be one.
    fn change_clocks(&mut self, plan: &NamespacePlan, privileges: Privileges) {
        let Some(offsets) = &plan.time_offsets else { return };
        let origin = || Origin::Field("/linux/timeOffsets");
        self.add(origin(), Step::NewNamespaces { kinds: CLONE_NEWTIME });
        // In a user namespace a process that cannot be dumped may not write to its own files in /proc.
        if privileges == Privileges::Inside {
            self.add(Origin::Runtime, Step::Dumpable { yes: true });
        }
        self.add(origin(), Step::TimeOffsets { offsets: offsets.clone() });
        if privileges == Privileges::Inside {
            self.add(Origin::Runtime, Step::Dumpable { yes: false });
        }
    }

    fn be_succeeded(&mut self, kinds: i32) {
        self.add(Origin::Field("/linux/namespaces"), Step::Successor { kinds });
    }

    fn meet_the_parent(&mut self, ids: Ids) {
        if ids.needs_dumpable {
            self.add(Origin::Runtime, Step::Dumpable { yes: true });
        }
        self.add(Origin::Runtime, Step::Meet { point: Point::Born });
        if ids.needs_dumpable {
            self.add(Origin::Runtime, Step::Dumpable { yes: false });
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: Ids = Ids { uid: 0, gid: 0, needs_dumpable: false };
    const PID: i32 = libc::CLONE_NEWPID;
    const MOUNT: i32 = libc::CLONE_NEWNS;
    const NETWORK: i32 = libc::CLONE_NEWNET;
    const USER: i32 = libc::CLONE_NEWUSER;

    fn births(new: i32, join: &[i32], user: User) -> NamespaceSetup {
        let join = join.iter().map(|kind| Join { kind: *kind, path: "/x".into(), index: 0 }).collect();
        NamespaceSetup::of(&NamespacePlan { new, join, ..NamespacePlan::default() }, user, true)
    }

    #[test]
    fn an_intermediate_is_needed_only_where_something_must_be_joined_before_the_birth() {
        let new = User::New(IDS);
        let joined = User::Joined { ids: IDS, joins: Privileges::Outside };
        assert_eq!(births(PID | MOUNT, &[NETWORK], User::Own).succeeded, None);
        assert_eq!(births(MOUNT, &[PID], User::Own).succeeded, None);
        assert_eq!(births(PID | MOUNT, &[NETWORK], User::Nested).succeeded, None);
        assert_eq!(births(MOUNT, &[PID], User::Nested).succeeded, Some(MOUNT));
        assert_eq!(births(USER | PID | MOUNT, &[], new).succeeded, None);
        assert_eq!(births(USER | PID | MOUNT, &[NETWORK], new).succeeded, Some(USER | PID | MOUNT));
        assert_eq!(births(MOUNT, &[USER], joined).succeeded, None);
        assert_eq!(births(PID | MOUNT, &[USER], joined).succeeded, Some(PID | MOUNT));
        assert_eq!(births(MOUNT, &[USER, PID], joined).succeeded, Some(MOUNT));
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
            let births = late(&[PID], user, false);
            assert_eq!((births.late, births.succeeded, births.cloned), (true, None, MOUNT));
            // They are told its pid.
            assert!(!late(&[PID], user, true).late);
            assert!(!late(&[NETWORK], user, false).late);
        }
        // Nobody there is let at it.
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
            let NamespaceSetup { cloned, succeeded, later, beside, .. } = births(new, join, user);
            let all = [cloned, succeeded.unwrap_or(0), later, beside];
            assert_eq!(all.iter().fold(0, |sum, kinds| sum | kinds), new);
            assert_eq!(all.iter().map(|kinds| kinds.count_ones()).sum::<u32>(), new.count_ones());
        }
    }
}
