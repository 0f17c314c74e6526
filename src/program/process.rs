//! The last part of every program: from the moment when `/` is the container's root to execve. A container's first process and
//! those that `exec` adds to it become what they are by the same steps.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use anyhow::Result;

use super::{Origin, Program};
use crate::host::lsm::Labels;
use crate::init::step::Step;
use crate::plan::hooks;
use crate::plan::linux::memory_policy::MemoryPolicy;
use crate::plan::linux::seccomp::Filter;
use crate::plan::process::{Affinity, ProcessPlan};
use crate::sys::cred::CAP_SYS_ADMIN;
use crate::sys::process::Argv;
use crate::sys::weakened;

/// What the last part needs besides the process.
pub(super) struct Last<'a> {
    /// `/linux/personality`.
    pub(super) personality: Option<u32>,
    /// `/linux/memoryPolicy`.
    pub(super) memory_policy: Option<MemoryPolicy>,
    pub(super) labels: Labels,
    /// `/linux/seccomp`.
    pub(super) filter: Option<Filter>,
    /// On which processors it runs in the end: without a word about it on all, not on those of the runtime.
    pub(super) affinity: Affinity,
    /// Variables besides those of the process.
    pub(super) env: Vec<CString>,
    /// Whether the parent has something to record once nothing is left but the program's start.
    pub(super) is_recorded: bool,
    /// Whether a runtime without privileges may look at the process while it waits: for the listener of a filter, and for
    /// `exec` beside it.
    pub(super) is_shown: bool,
    /// What `start` writes to; without it the program starts at once.
    pub(super) fifo: Option<OwnedFd>,
    /// How many descriptors from 3 on the program inherits.
    pub(super) inherited: u32,
    /// startContainer hooks, and what they need if there are any.
    pub(super) hooks: &'a [hooks::Hook],
    pub(super) shared: Option<&'a hooks::Shared>,
}

impl Program {
    /// Becomes `process`. Lines whose place matters say why.
    pub(super) fn become_process(&mut self, process: ProcessPlan, last: Last<'_>) -> Result<()> {
        // After the switch of the root, so that the nodes are the container's; while still root, who may make one where the
        // container has none. A terminal's streams are the container's already.
        if !process.terminal && !weakened::is_off("null-stream") {
            self.add(Origin::Runtime, Step::OwnStreams);
        }
        if let Some(domain) = last.personality {
            self.add(Origin::Field("/linux/personality"), Step::Personality { domain });
        }
        if let Some(policy) = last.memory_policy {
            self.add(Origin::Field("/linux/memoryPolicy"), policy.step());
        }
        let mut identity = process.identity();
        // Without no_new_privs a filter is taken only from a process with this capability; seccomp(2). It is kept to the last,
        // instead of loading the filter here, so that a profile need not allow all that becoming the user takes. execve(2)
        // takes it away: what the program gets follows from the bounding, inheritable and ambient sets alone, for any user;
        // capabilities(7).
        if last.filter.is_some() && !process.no_new_privileges {
            identity.sets.permitted |= CAP_SYS_ADMIN;
            identity.sets.effective |= CAP_SYS_ADMIN;
        }
        let is_root = process.uid == 0;
        let mut env = process.env;
        let home =
            !env.iter().any(|entry| entry.as_bytes().starts_with(b"HOME=") && entry.as_bytes().len() > 5);
        if home {
            env.retain(|entry| !entry.as_bytes().starts_with(b"HOME="));
            self.add(Origin::Field("/process/user"), Step::FindHome { uid: process.uid });
        }
        env.extend(last.env);
        // While still privileged: the directory may be one that the user can be in but not reach.
        let cwd = process.cwd;
        self.add(
            Origin::Field("/process/cwd"),
            Step::ChangeDirectory { path: cwd.clone(), last_try: is_root },
        );
        // Before the identity: hard limits are raised with CAP_SYS_RESOURCE. After what opens files: there may be a limit.
        for (index, (resource, soft, hard)) in process.rlimits.iter().copied().enumerate() {
            let step = Step::Rlimit { resource, soft, hard };
            self.add(Origin::Item("/process/rlimits", index), step);
        }
        // Before the scheduler: SCHED_DEADLINE is refused to a process that may not run on all processors; sched_setattr(2).
        match (last.affinity.last, last.affinity.initial) {
            (Some(mask), _) => {
                let step = Step::Affinity { mask: mask.into_words() };
                self.add(Origin::Field("/process/execCPUAffinity/final"), step);
            }
            (None, Some(_)) => {}
            (None, None) => self.add(Origin::Runtime, Step::ResetAffinity),
        }
        // Before the identity: both may need CAP_SYS_NICE.
        if let Some(attributes) = process.scheduler {
            self.add(Origin::Field("/process/scheduler"), Step::Scheduler(attributes));
        }
        if let Some(priority) = process.io_priority {
            self.add(Origin::Field("/process/ioPriority"), Step::IoPriority { priority });
        }
        // Before no_new_privs, under which AppArmor takes no profile from a confined process, and as late as that allows: whatever
        // is executed from here on is confined.
        if let Some(command) = last.labels.apparmor {
            self.add(Origin::Field("/process/apparmorProfile"), Step::ApparmorProfile { command });
        }
        if let Some(label) = last.labels.selinux {
            self.add(Origin::Field("/process/selinuxLabel"), Step::SelinuxLabel { label });
        }
        // Before the filter of system calls, which may forbid it.
        if last.fifo.is_some() {
            self.add(Origin::Runtime, Step::EndOnSignals);
        }
        if process.no_new_privileges {
            self.add(Origin::Field("/process/noNewPrivileges"), Step::NoNewPrivileges);
        }
        self.add(Origin::Field("/process/user"), Step::Identity(identity));
        // On a network file system it may be the user who can be there, and root who cannot.
        if !is_root {
            self.add(Origin::Field("/process/cwd"), Step::ChangeDirectory { path: cwd, last_try: true });
        }
        // As the user, because who may execute a file depends on it; before `create` returns, because its caller wants to
        // know that there is a program.
        let candidates = process.candidates;
        self.add(Origin::Field("/process/args/0"), Step::FindProgram { candidates });
        if last.is_recorded {
            self.add(Origin::Runtime, Step::Ready);
        }
        self.add(Origin::Runtime, Step::AwaitParent);
        // Before the filter, which may not let us.
        self.add(Origin::Runtime, Step::CloseOnExec { from: last.inherited.saturating_add(3) });
        // After the identity, which takes it back.
        if last.is_shown {
            self.add(Origin::Runtime, Step::Dumpable { yes: true });
        }
        // As late as can be, so that a profile need allow nothing but execve and what the program does. What can go wrong is
        // known before: the program is well formed, and `create` has asked the kernel about its flags. With an agent, the
        // parent must be there to pass the listener on, which for `create` means before it returns; telling it, and waiting,
        // are then also filtered.
        let (early, late) = match last.filter {
            Some(filter) if filter.listener.is_some() => (Some(filter), None),
            filter => (None, filter),
        };
        self.load_filter(early);
        if let Some(fifo) = last.fifo {
            self.add(Origin::Runtime, Step::AwaitStart { fifo });
        }
        // With all the restrictions of the program: what they run comes from the image. Not after the filter: what it takes to run
        // a hook is for no profile to allow.
        if let Some(shared) = last.shared {
            let mut hooks = hooks::start_container(last.hooks, shared, &env)?;
            for hook in &mut hooks {
                hook.filter = late.as_ref().map(Filter::step);
            }
            self.run_hooks(hooks::HookKind::StartContainer, hooks);
        }
        self.load_filter(late);
        let argv = Argv::new(process.args);
        let step = Step::Execute { argv, envp: Argv::with_room(env) };
        self.add(Origin::Field("/process/args/0"), step);
        Ok(())
    }

    fn load_filter(&mut self, filter: Option<Filter>) {
        if let Some(filter) = filter {
            let step = Step::LoadFilter { filter: filter.step(), listens: filter.listener.is_some() };
            self.add(Origin::Field("/linux/seccomp"), step);
        }
    }
}
