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
    /// The container's init process, as a pidfd.
    pub init: OwnedFd,
    /// Which of its namespaces to join (`CLONE_NEW*`).
    pub kinds: i32,
    /// Whether the process that joins them is an intermediate and continues in a successor.
    pub has_successor: bool,
    /// The process's ids in the user namespace until it takes those of the program's user.
    pub ids: Option<(u32, u32)>,
    /// The name of the container's session keyring.
    pub keyring: Option<CString>,
    pub in_user_namespace: bool,
    /// The rootfs of a container without a mount namespace.
    pub rootfs: Option<CString>,
    /// Where the terminal's master is sent; `None`: to the parent.
    pub console_socket: Option<OwnedFd>,
    pub labels: Labels,
    /// The container's filter, as saved by `create`.
    pub filter: Option<Filter>,
    /// How many descriptors the program inherits, counted from 3.
    pub inherited: u32,
}

impl Program {
    /// Orders the steps that `plan` decided on. Comments give the reason where the order matters.
    pub fn exec(plan: ExecPlan, inputs: ExecInputs) -> Result<Self> {
        let mut program = Self::empty(&plan.process, plan.source);
        let rootfs = inputs.rootfs;
        if inputs.kinds != 0 {
            let step = Step::JoinNamespacesOf { process: inputs.init, kinds: inputs.kinds };
            program.add(Origin::Runtime, step);
        }
        if inputs.has_successor {
            program.add(Origin::Runtime, Step::Successor { kinds: 0 });
        }
        if let Some((uid, gid)) = inputs.ids {
            program.take_ids(uid, gid);
        }
        if let Some(name) = inputs.keyring {
            program.join_keyring(name, inputs.labels.selinux.clone(), inputs.in_user_namespace);
        }
        program.add(Origin::Runtime, Step::NewSession);
        // Joining a mount namespace also sets the root directory, where pivot_root(2) or MS_MOVE has put the
        // rootfs.
        match rootfs {
            None => program.add(Origin::Runtime, Step::HoldRootfs { path: c"/".into() }),
            Some(path) => {
                program.add(Origin::Field("/root/path"), Step::HoldRootfs { path });
                program.add(Origin::Field("/root/path"), Step::ChangeRoot);
            }
        }
        if plan.process.terminal {
            let step = Step::Console {
                socket: inputs.console_socket,
                size: plan.process.console_size,
                // /dev/console is the terminal of the container's init process.
                mount: false,
            };
            program.add(Origin::Field("/process/terminal"), step);
        }
        let affinity = plan.process.affinity.clone();
        let last = Last {
            personality: plan.personality,
            memory_policy: plan.memory_policy,
            affinity,
            labels: inputs.labels,
            filter: inputs.filter,
            env: Vec::new(),
            is_recorded: false,
            // The container's other processes are running already.
            is_shown: false,
            fifo: None,
            inherited: inputs.inherited,
            hooks: &[],
            shared: None,
        };
        program.become_process(plan.process, last)?;
        Ok(program)
    }
}
