//! The last part of every program: from the moment when `/` is the container's root to execve. A container's first process and
//! those that `exec` adds to it become what they are by the same steps.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use super::{Origin, Program};
use crate::init::step::Step;
use crate::process::ProcessPlan;
use crate::sys::process::Argv;

/// What the last part needs besides the process.
pub(super) struct Last {
    /// `/linux/personality`.
    pub(super) personality: Option<u32>,
    /// Variables besides those of the process.
    pub(super) env: Vec<CString>,
    /// What `start` writes to; without it the program starts at once.
    pub(super) fifo: Option<OwnedFd>,
    /// How many descriptors from 3 on the program inherits.
    pub(super) inherited: u32,
}

impl Program {
    /// Becomes `process`. Lines whose place matters say why.
    pub(super) fn become_process(&mut self, process: ProcessPlan, last: Last) {
        if let Some(domain) = last.personality {
            self.add(Origin::Field("/linux/personality"), Step::Personality { domain });
        }
        let identity = process.identity();
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
        self.add(Origin::Runtime, Step::AwaitParent);
        if let Some(fifo) = last.fifo {
            self.add(Origin::Runtime, Step::Ready);
            self.add(Origin::Runtime, Step::AwaitStart { fifo });
        }
        let argv = Argv::new(process.args);
        let step = Step::Execute { argv, envp: Argv::with_room(env), keep: last.inherited.saturating_add(3) };
        self.add(Origin::Field("/process/args/0"), step);
    }
}
