//! The last part of every program: from the root switch to execve. The same steps serve a container's first
//! process and those that `exec` adds.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use anyhow::Result;

use super::{Origin, Program};
use crate::host::lsm::Labels;
use crate::init::step::{Identity, Step};
use crate::plan::hooks;
use crate::plan::linux::memory_policy::MemoryPolicy;
use crate::plan::linux::seccomp::Filter;
use crate::plan::process::{Affinity, ProcessPlan, Rlimit};
use crate::sys::cred::CAP_SYS_ADMIN;
use crate::sys::process::Argv;
use crate::sys::scheduling::Scheduler;
use crate::sys::weakened;

/// The inputs of the last part, besides the process.
pub(super) struct Last<'a> {
    /// `/linux/personality`.
    pub(super) personality: Option<u32>,
    /// `/linux/memoryPolicy`.
    pub(super) memory_policy: Option<MemoryPolicy>,
    pub(super) labels: Labels,
    /// `/linux/seccomp`.
    pub(super) filter: Option<Filter>,
    /// The CPUs that the program runs on. If none are given, it gets all of the cgroup's, not those of the
    /// runtime.
    pub(super) affinity: Affinity,
    /// Environment variables to add to those of the process.
    pub(super) env: Vec<CString>,
    /// Whether to report `Ready`, so that the parent can write `state.json` before the program starts.
    pub(super) is_recorded: bool,
    /// Whether the process is dumpable while it waits, so that an unprivileged runtime can read its files in
    /// /proc: for the seccomp listener, and for a concurrent `exec`.
    pub(super) is_shown: bool,
    /// The fifo that `start` writes to; without it the program starts at once.
    pub(super) fifo: Option<OwnedFd>,
    /// How many descriptors the program inherits, counted from 3.
    pub(super) inherited: u32,
    /// The startContainer hooks, and what all hooks need, if there are any.
    pub(super) hooks: &'a [hooks::Hook],
    pub(super) shared: Option<&'a hooks::HookInputs>,
}

impl Program {
    /// Adds the steps by which the init process becomes `process`, in order.
    ///
    /// # Errors
    /// If a startContainer hook cannot be run as configured.
    pub(super) fn become_process(&mut self, process: ProcessPlan, last: Last<'_>) -> Result<()> {
        let identity = identity(&process, last.filter.is_some());
        let is_root = process.uid == 0;

        self.replace_null_streams(process.terminal);
        self.set_personality_and_memory_policy(last.personality, last.memory_policy);
        let env = self.complete_environment(process.env, process.uid, last.env);
        // While still privileged: the user may be allowed in a directory that it cannot reach.
        self.change_directory(process.cwd.clone(), is_root);
        self.set_rlimits(&process.rlimits);
        self.set_affinity(last.affinity);
        self.set_priorities(process.scheduler, process.io_priority);
        self.set_labels(last.labels);
        // Before the seccomp filter, which may forbid it.
        if last.fifo.is_some() {
            self.add(Origin::Runtime, Step::EndOnSignals);
        }
        if process.no_new_privileges {
            self.add(Origin::Field("/process/noNewPrivileges"), Step::NoNewPrivileges);
        }
        self.add(Origin::Field("/process/user"), Step::Identity(identity));
        // A network file system may admit the user but not root.
        if !is_root {
            self.change_directory(process.cwd, true);
        }
        // As the user, because it depends on the user which files are executable; before `create` returns,
        // because its caller relies on the program being there.
        self.add(Origin::Field("/process/args/0"), Step::FindProgram { candidates: process.candidates });
        self.wait_for_parent(last.is_recorded, last.inherited, last.is_shown);
        let (early, late) = early_or_late(last.filter);
        self.load_filter(early);
        if let Some(fifo) = last.fifo {
            self.add(Origin::Runtime, Step::AwaitStart { fifo });
        }
        if let Some(shared) = last.shared {
            self.run_start_hooks(last.hooks, shared, &env, late.as_ref())?;
        }
        self.load_filter(late);
        self.execute(process.args, env);
        Ok(())
    }

    /// After the root switch, so that the nodes are the container's; while still root, who may create one if
    /// the container has none. With a terminal, the streams are the container's already.
    fn replace_null_streams(&mut self, has_terminal: bool) {
        if !has_terminal && !weakened::is_off("null-stream") {
            self.add(Origin::Runtime, Step::OwnStreams);
        }
    }

    fn set_personality_and_memory_policy(&mut self, personality: Option<u32>, policy: Option<MemoryPolicy>) {
        if let Some(domain) = personality {
            self.add(Origin::Field("/linux/personality"), Step::Personality { domain });
        }
        if let Some(policy) = policy {
            self.add(Origin::Field("/linux/memoryPolicy"), policy.step());
        }
    }

    /// The environment of the program: `env` and then `others`. An unset or empty `HOME` is looked up in the
    /// container's /etc/passwd.
    fn complete_environment(
        &mut self,
        mut env: Vec<CString>,
        uid: u32,
        others: Vec<CString>,
    ) -> Vec<CString> {
        let is_home = |entry: &CString| entry.as_bytes().starts_with(b"HOME=");
        if !env.iter().any(|entry| is_home(entry) && entry.as_bytes().len() > 5) {
            env.retain(|entry| !is_home(entry));
            self.add(Origin::Field("/process/user"), Step::FindHome { uid });
        }
        env.extend(others);
        env
    }

    fn change_directory(&mut self, path: CString, last_try: bool) {
        self.add(Origin::Field("/process/cwd"), Step::ChangeDirectory { path, last_try });
    }

    /// Before the identity: raising a hard limit takes CAP_SYS_RESOURCE. After the steps that open files: the
    /// number of open files may be limited.
    fn set_rlimits(&mut self, rlimits: &[Rlimit]) {
        for (index, (resource, soft, hard)) in rlimits.iter().copied().enumerate() {
            let step = Step::Rlimit { resource, soft, hard };
            self.add(Origin::Item("/process/rlimits", index), step);
        }
    }

    /// Before the scheduler: SCHED_DEADLINE is refused to a process that may not run on all CPUs;
    /// sched_setattr(2).
    fn set_affinity(&mut self, affinity: Affinity) {
        match (affinity.last, affinity.initial) {
            (Some(mask), _) => {
                let step = Step::Affinity { mask: mask.into_words() };
                self.add(Origin::Field("/process/execCPUAffinity/final"), step);
            }
            (None, Some(_)) => {}
            (None, None) => self.add(Origin::Runtime, Step::ResetAffinity),
        }
    }

    /// Before the identity: both may take CAP_SYS_NICE.
    fn set_priorities(&mut self, scheduler: Option<Scheduler>, io_priority: Option<u16>) {
        if let Some(attributes) = scheduler {
            self.add(Origin::Field("/process/scheduler"), Step::Scheduler(attributes));
        }
        if let Some(priority) = io_priority {
            self.add(Origin::Field("/process/ioPriority"), Step::IoPriority { priority });
        }
    }

    /// Before no_new_privs, under which AppArmor refuses a profile to a confined process, and otherwise as
    /// late as possible: whatever is executed from here on is confined.
    fn set_labels(&mut self, labels: Labels) {
        if let Some(command) = labels.apparmor {
            self.add(Origin::Field("/process/apparmorProfile"), Step::ApparmorProfile { command });
        }
        if let Some(label) = labels.selinux {
            self.add(Origin::Field("/process/selinuxLabel"), Step::SelinuxLabel { label });
        }
    }

    /// Ends the preparation: reports `Ready` and waits for the parent.
    fn wait_for_parent(&mut self, is_recorded: bool, inherited: u32, is_shown: bool) {
        if is_recorded {
            self.add(Origin::Runtime, Step::Ready);
        }
        self.add(Origin::Runtime, Step::AwaitParent);
        // Before the seccomp filter, which may forbid it.
        self.add(Origin::Runtime, Step::CloseOnExec { from: inherited.saturating_add(3) });
        // After the identity, which clears it.
        if is_shown {
            self.add(Origin::Runtime, Step::Dumpable { yes: true });
        }
    }

    fn load_filter(&mut self, filter: Option<Filter>) {
        if let Some(filter) = filter {
            let step = Step::LoadFilter { filter: filter.step(), listens: filter.listener.is_some() };
            self.add(Origin::Field("/linux/seccomp"), step);
        }
    }

    /// With all restrictions of the program, because the hooks come from the image. Before the late filter,
    /// so that a profile need not allow the calls that running a hook needs: each hook loads the filter
    /// itself.
    fn run_start_hooks(
        &mut self,
        hooks: &[hooks::Hook],
        shared: &hooks::HookInputs,
        env: &[CString],
        filter: Option<&Filter>,
    ) -> Result<()> {
        let mut hooks = hooks::start_container(hooks, shared, env)?;
        for hook in &mut hooks {
            hook.filter = filter.map(Filter::step);
        }
        self.run_hooks(hooks::HookKind::StartContainer, hooks);
        Ok(())
    }

    fn execute(&mut self, args: Vec<CString>, env: Vec<CString>) {
        let step = Step::Execute { argv: Argv::new(args), envp: Argv::with_room(env) };
        self.add(Origin::Field("/process/args/0"), step);
    }
}

/// Without no_new_privs, seccomp(2) takes a filter only from a process with CAP_SYS_ADMIN. So the process
/// keeps that capability until execve, rather than load the filter before it becomes the user: then a profile
/// need not allow the calls which that takes. execve(2) drops the capability: what the program gets follows
/// from the bounding, inheritable and ambient sets alone, for any user; capabilities(7).
fn identity(process: &ProcessPlan, has_filter: bool) -> Identity {
    let mut identity = process.identity();
    if has_filter && !process.no_new_privileges {
        identity.sets.permitted |= CAP_SYS_ADMIN;
        identity.sets.effective |= CAP_SYS_ADMIN;
    }
    identity
}

/// A filter is loaded as late as possible, so that a profile need only allow execve and what the program
/// does. What can fail is known earlier: the filter is well formed, and `create` has asked the kernel about
/// its flags. One with an agent is loaded early: the parent passes the listener on, which for `create` means
/// before it returns. Telling the parent, and waiting for it, are filtered then.
fn early_or_late(filter: Option<Filter>) -> (Option<Filter>, Option<Filter>) {
    match filter {
        Some(filter) if filter.listener.is_some() => (Some(filter), None),
        filter => (None, filter),
    }
}
