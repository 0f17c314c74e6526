//! The program of a process that `exec` adds to a container.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use anyhow::Result;

use super::process::Last;
use super::{Origin, Program};
use crate::host::lsm::Labels;
use crate::init::step::Step;
use crate::plan::ExecPlan;
use crate::plan::linux::seccomp::Filter;

/// What the parent has prepared for the new process.
#[derive(Debug)]
pub struct ExecInputs {
    /// The container's first process, as a pidfd.
    pub init: OwnedFd,
    /// Which namespaces of its to join (`CLONE_NEW*`).
    pub kinds: i32,
    /// Whether another process goes on in the place of the one that has joined them.
    pub is_succeeded: bool,
    /// Who the process is in the user namespace until it becomes the program's user.
    pub ids: Option<(u32, u32)>,
    /// The name of the container's session keyring.
    pub keyring: Option<CString>,
    pub in_user_namespace: bool,
    /// The root of a container that has no mount namespace.
    pub rootfs: Option<CString>,
    /// Where the console's master goes; `None`: to the parent.
    pub console_socket: Option<OwnedFd>,
    pub labels: Labels,
    /// The container's, as it was kept.
    pub filter: Option<Filter>,
    /// How many descriptors from 3 on the program inherits.
    pub inherited: u32,
}

impl Program {
    /// Orders what `plan` decided. Lines whose place matters say why.
    pub fn exec(plan: ExecPlan, wiring: ExecInputs) -> Result<Self> {
        let mut program = Self::empty(&plan.process, plan.source);
        let rootfs = wiring.rootfs;
        if wiring.kinds != 0 {
            let step = Step::JoinNamespacesOf { process: wiring.init, kinds: wiring.kinds };
            program.add(Origin::Runtime, step);
        }
        if wiring.is_succeeded {
            program.add(Origin::Runtime, Step::Successor { kinds: 0 });
        }
        if let Some((uid, gid)) = wiring.ids {
            program.take_ids(uid, gid);
        }
        if let Some(name) = wiring.keyring {
            program.join_keyring(name, wiring.labels.selinux.clone(), wiring.in_user_namespace);
        }
        program.add(Origin::Runtime, Step::NewSession);
        // A process that joins a mount namespace is at its root, where pivot_root(2) or MS_MOVE has put the container's.
        match rootfs {
            None => program.add(Origin::Runtime, Step::HoldRootfs { path: c"/".into() }),
            Some(path) => {
                program.add(Origin::Field("/root/path"), Step::HoldRootfs { path });
                program.add(Origin::Field("/root/path"), Step::ChangeRoot);
            }
        }
        if plan.process.terminal {
            let step = Step::Console {
                socket: wiring.console_socket,
                size: plan.process.console_size,
                // /dev/console is the terminal of the container's first process.
                mount: false,
            };
            program.add(Origin::Field("/process/terminal"), step);
        }
        let affinity = plan.process.affinity.clone();
        let last = Last {
            personality: plan.personality,
            memory_policy: plan.memory_policy,
            affinity,
            labels: wiring.labels,
            filter: wiring.filter,
            env: Vec::new(),
            is_recorded: false,
            // Others are there already.
            is_shown: false,
            fifo: None,
            inherited: wiring.inherited,
            hooks: &[],
            shared: None,
        };
        program.become_process(plan.process, last)?;
        Ok(program)
    }
}
