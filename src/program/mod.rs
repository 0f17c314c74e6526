//! The order of everything the init process does. Read [`Program::new`] from the top; `root.rs`, which it calls,
//! shows when /proc is mounted.
//!
//! Each step is stored with the place in `config.json` that it comes from, so that a failure, which arrives
//! as a step number and an errno, becomes a message about the bundle.

mod exec;
mod explain;
mod namespaces;
mod process;
mod root;

use std::ffi::CString;
use std::mem;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use anyhow::Result;

pub use self::exec::ExecInputs;
pub use self::explain::describe_bind;
use self::namespaces::First;
pub use self::namespaces::{Ids, NamespaceSetup, Privileges, User};
use self::process::Last;
use self::root::{Finish, Parts, Root};
use crate::error::Pointer;
use crate::host::lsm::Labels;
use crate::host::{notify, path};
use crate::init::step::{Bind, MountTarget, Point, RunHook, Step, TargetRule};
use crate::plan::linux::namespaces::Join;
use crate::plan::process::{Affinity, ProcessPlan};
use crate::plan::{Plan, Source, hooks};
use crate::sys::mount::{Attributes, Recursion};
use crate::sys::process::all_but;

/// Where a step comes from.
#[derive(Clone, Debug)]
enum Origin {
    /// The runtime itself.
    Runtime,
    /// A field, as a literal pointer.
    Field(&'static str),
    /// An element of an array.
    Item(&'static str, usize),
    /// An element of `/linux/namespaces`, and the path of its namespace.
    Namespace(usize, PathBuf),
    /// Elements of `/linux/devices`, one of which failed; `None` for devices that are not configured.
    Devices(Vec<Option<usize>>),
    /// Elements of `/linux/maskedPaths`, one of which failed.
    Masked(Vec<usize>),
    /// Keys of `/linux/sysctl`, one of which failed.
    Sysctl(Vec<String>),
}

/// The steps of the init process, in order.
#[derive(Debug)]
pub struct Program {
    pub steps: Vec<Step>,
    origins: Vec<Origin>,
    /// `args[0]`, for messages.
    name: String,
    /// Whether the cgroup restricts the process to some CPUs, which the kernel does not combine with
    /// SCHED_DEADLINE.
    has_cpu_list: bool,
    /// Whether the container is in a user namespace, where some operations are not permitted.
    is_in_user_namespace: bool,
    /// The document that fields below `/process` come from.
    source: Source,
}

/// What the parent has prepared for the init process.
#[derive(Debug, Default)]
pub struct ChildInputs {
    pub user: User,
    /// The namespaces to join, opened.
    pub join: Vec<(Join, OwnedFd)>,
    /// The name of the session keyring to join.
    pub keyring: Option<CString>,
    pub labels: Labels,
    pub root: RootSwitch,
    /// Where the terminal's master is sent; `None`: to the parent.
    pub console_socket: Option<OwnedFd>,
    /// The fifo that `start` writes to; without it the program starts at once.
    pub fifo: Option<OwnedFd>,
    /// How many descriptors the program inherits, counted from 3.
    pub inherited: u32,
    /// Environment variables besides those of `/process/env`.
    pub env: Vec<CString>,
    /// The host directory mounted at /run/notify, and a clone of its mount if the parent has made one.
    pub notify: Option<(CString, Option<OwnedFd>)>,
    /// A clone of the rootfs, for an init process that may be unable to reach it.
    pub rootfs_tree: Option<OwnedFd>,
    /// Clones of bind sources, with the index of their bind in `/mounts`.
    pub sources: Vec<(usize, SourceTree)>,
    /// The device nodes that the parent has made.
    pub nodes: Option<Nodes>,
    /// The mount that contains a rootfs with shared propagation; pivot_root(2) requires it to be private.
    pub rootfs_parent: Option<CString>,
    /// Whether /proc/kcore exists.
    pub has_kcore: bool,
    /// The container's cgroup, as a path on the host.
    pub cgroup: Option<CString>,
    /// What the init process's hooks need, if there are any.
    pub hooks: Option<hooks::HookInputs>,
}

/// A detached clone of a bind source, for an init process that may be unable to reach the source.
#[derive(Debug)]
pub struct SourceTree {
    pub tree: OwnedFd,
    /// Whether it is id-mapped: then the clone itself must be mounted.
    pub maps_ids: bool,
}

/// Device nodes that the parent has made for an init process that cannot.
#[derive(Debug)]
pub struct Nodes {
    /// The root of the file system they are in.
    pub directory: OwnedFd,
    /// Their names there, with their indices in `/linux/devices`.
    pub names: Vec<(usize, CString)>,
}

/// How `/` becomes the rootfs.
#[derive(Debug, Default)]
pub enum RootSwitch {
    #[default]
    Pivot,
    /// `--no-pivot`: moves the rootfs over `/`, after hiding these mounts of the host.
    Move { hide: Vec<CString> },
}

impl Program {
    /// Orders the steps that `plan` decided on, with what the host adds. Comments give the reason where the
    /// order matters.
    pub fn new(plan: Plan, mut inputs: ChildInputs) -> Result<Self> {
        let has_mounts = plan.namespaces.has(libc::CLONE_NEWNS);
        let (mut program, late) = Self::enter(&plan, &mut inputs);
        // Joined as late as possible: the parent makes it meanwhile.
        let mut new_network =
            NamespaceSetup::of(&plan.namespaces, inputs.user, plan.hooks.precede_the_switch()).beside != 0;
        let root = Root {
            path: path::c_string(&plan.rootfs, &Pointer::root())?,
            tree: inputs.rootfs_tree,
            parent: inputs.rootfs_parent,
            switch: inputs.root,
            propagation: plan.propagation,
        };
        let hooks = (&plan.hooks, inputs.hooks.as_ref());
        let seals = plan.mounts.seals;
        if has_mounts {
            let parts = Parts {
                mounts: plan.mounts.mounts,
                sources: inputs.sources,
                // With a cgroup namespace, only the container's cgroup and what is below it may be visible.
                stand_in: plan.namespaces.has(libc::CLONE_NEWCGROUP).then_some(inputs.cgroup),
                // A /dev bind-mounted from the host is left as it is.
                devices: Some(plan.devices).filter(|_| !plan.mounts.dev_is_bound),
                has_kcore: inputs.has_kcore,
                nodes: inputs.nodes,
                notify: inputs.notify,
            };
            program.build_root(root, parts, hooks, late.as_ref(), &mut new_network)?;
        } else {
            program.add(Origin::Field("/root/path"), Step::HoldRootfs { path: root.path });
            program.hooks_before_the_switch(hooks, &mut new_network)?;
            program.add(Origin::Field("/root/path"), Step::ChangeRoot);
        }
        program.join_network(&mut new_network);
        // Nothing of the host can be reached through the process any more, and the rest is done as a process
        // of the container.
        if let Some(late) = late {
            program.be_born_late(late);
        }
        program.finish_root(Finish {
            cwd: plan.process.cwd.clone(),
            console: plan.process.terminal.then_some(Step::Console {
                socket: inputs.console_socket,
                size: plan.process.console_size,
                mount: has_mounts,
            }),
            seals,
            is_read_only: plan.read_only,
            names: (plan.hostname, plan.domainname),
            sysctl: plan.sysctl,
            read_only_paths: plan.read_only_paths,
            masked_paths: plan.masked_paths,
            label: plan.label,
        });
        let last = Last {
            personality: plan.personality,
            memory_policy: plan.memory_policy,
            labels: inputs.labels,
            filter: plan.seccomp,
            affinity: Affinity::default(),
            env: inputs.env,
            is_recorded: true,
            // In a new pid namespace and a new user namespace only the creator can inspect the process.
            is_shown: inputs.user.is_new_of_a_user() && plan.namespaces.is_new(libc::CLONE_NEWPID),
            fifo: inputs.fifo,
            inherited: inputs.inherited,
            hooks: &plan.hooks.start_container,
            shared: inputs.hooks.as_ref(),
        };
        program.become_process(plan.process, last)?;
        Ok(program)
    }

    /// Adds the steps that enter the container's namespaces before the mounts. Returns the pid namespace that
    /// a successor is born into later, if there is one.
    fn enter(plan: &Plan, inputs: &mut ChildInputs) -> (Self, Option<(Join, OwnedFd)>) {
        let mut program = Self::empty(&plan.process, Source::default());
        program.has_cpu_list = plan.has_cpu_list;
        program.is_in_user_namespace = !matches!(inputs.user, User::Own);
        let first = First {
            user: inputs.user,
            join: mem::take(&mut inputs.join),
            keyring: inputs.keyring.take().map(|name| (name, inputs.labels.selinux.clone())),
            awaits_devices: !plan.net_devices.is_empty(),
            has_early_hooks: plan.hooks.precede_the_switch(),
        };
        let late = program.enter_namespaces(&plan.namespaces, first);
        (program, late)
    }

    fn empty(process: &ProcessPlan, source: Source) -> Self {
        let name = process.args.first().map(|arg| arg.to_string_lossy().into_owned()).unwrap_or_default();
        let mut program = Self {
            steps: Vec::with_capacity(48),
            origins: Vec::with_capacity(48),
            name,
            has_cpu_list: false,
            is_in_user_namespace: false,
            source,
        };
        program.add(Origin::Runtime, Step::CloseOthers { ranges: Vec::new() });
        program
    }

    /// Makes the init process close all descriptors except the standard streams, those for the program, those
    /// that steps use, and `socket`, which connects it to the parent.
    pub fn close_all_but(&mut self, socket: BorrowedFd<'_>, inherited: u32) {
        let used = self
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::JoinNamespace { namespace, .. } | Step::HoldPidNamespace { namespace } => {
                    Some(namespace.as_fd())
                }
                Step::JoinNamespacesOf { process, .. } => Some(process.as_fd()),
                Step::Console { socket, .. } => socket.as_ref().map(|socket| socket.as_fd()),
                Step::AwaitStart { fifo } => Some(fifo.as_fd()),
                Step::OpenRootfs { tree, .. } | Step::Bind(Bind { tree, .. }) => {
                    tree.as_ref().map(|tree| tree.as_fd())
                }
                Step::HoldNodes { nodes } => Some(nodes.as_fd()),
                _ => None,
            })
            .chain(self.hook_outputs())
            .chain([socket])
            .map(|descriptor| descriptor.as_raw_fd().unsigned_abs())
            .collect();
        if let Some(Step::CloseOthers { ranges }) = self.steps.first_mut() {
            *ranges = all_but(used, inherited.saturating_add(3));
        }
    }

    /// The files that the init process's hooks write to.
    fn hook_outputs(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let hooks = self.steps.iter().filter_map(|step| match step {
            Step::RunHook(what) => Some(&what.outputs),
            _ => None,
        });
        let files = hooks.flat_map(|outputs| outputs.stdout.iter().chain(&outputs.stderr));
        files.map(|file| file.as_fd())
    }

    /// Adds the hooks that see the mounts but not the new root (runtime.md § Lifecycle, steps 3 to 5). They
    /// run in all of the container's namespaces.
    fn hooks_before_the_switch(
        &mut self,
        (hooks, shared): (&hooks::HookPlan, Option<&hooks::HookInputs>),
        new_network: &mut bool,
    ) -> Result<()> {
        if hooks.precede_the_switch() {
            self.join_network(new_network);
        }
        if hooks.meets() {
            self.add(Origin::Runtime, Step::Meet { point: Point::Mounted });
        }
        if let Some(shared) = shared {
            self.run_hooks(
                hooks::HookKind::CreateContainer,
                hooks::create_container(&hooks.create_container, shared)?,
            );
        }
        Ok(())
    }

    fn run_hooks(&mut self, kind: hooks::HookKind, hooks: Vec<RunHook>) {
        for (index, hook) in hooks.into_iter().enumerate() {
            self.add(Origin::Item(kind.path(), index), Step::RunHook(hook));
        }
    }

    /// Whether a seccomp filter is loaded before the program starts.
    pub fn has_filter(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::LoadFilter { .. }))
    }

    fn join_network(&mut self, wanted: &mut bool) {
        if std::mem::take(wanted) {
            self.add(Origin::Field("/linux/namespaces"), Step::JoinNewNetwork);
        }
    }

    fn add(&mut self, origin: Origin, step: Step) {
        self.steps.push(step);
        self.origins.push(origin);
    }

    /// Makes the process wait for its parent, at [`Point::Born`], before it does anything else.
    pub fn wait_at_birth(&mut self) {
        // After closing the parent's end of the socket: otherwise the process would not notice when the
        // parent dies.
        let place = usize::from(matches!(self.steps.first(), Some(Step::CloseOthers { .. })));
        self.steps.insert(place, Step::Meet { point: Point::Born });
        self.origins.insert(place, Origin::Runtime);
    }

    /// Keeps the container's mounts from propagating to the host. A container with shared propagation keeps
    /// the host's, except for the mount that contains the rootfs: pivot_root(2) refuses a shared one.
    fn set_host_propagation(&mut self, wanted: Option<(u64, Recursion)>, rootfs_parent: Option<CString>) {
        let propagation = match wanted {
            Some((libc::MS_SHARED, _)) => {
                if let Some(path) = rootfs_parent {
                    let step = Step::HostPropagation {
                        path,
                        propagation: libc::MS_PRIVATE,
                        reach: Recursion::ThisMount,
                    };
                    self.add(Origin::Field("/linux/rootfsPropagation"), step);
                }
                return;
            }
            Some((libc::MS_PRIVATE | libc::MS_UNBINDABLE, _)) => libc::MS_PRIVATE,
            _ => libc::MS_SLAVE,
        };
        self.add(
            Origin::Runtime,
            Step::HostPropagation { path: c"/".into(), propagation, reach: Recursion::WholeTree },
        );
    }
}

/// Mounts the directory with the program's sd_notify(3) socket.
fn bind_notify_directory(source: CString, tree: Option<OwnedFd>) -> Step {
    let set =
        libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    Step::Bind(Bind {
        source,
        tree,
        maps_ids: false,
        follow_source: true,
        copy_symlink: false,
        recursive: false,
        this_mount: Attributes { set, ..Attributes::default() },
        beside_locked: Attributes { set, ..Attributes::default() },
        whole_tree: Attributes::default(),
        target: MountTarget { path: notify::MOUNT_POINT.into(), rule: TargetRule::Usual },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_at_birth_has_closed_the_parents_end_before() {
        let plan = crate::command::conformance::planned(&serde_json::json!({})).unwrap();
        let mut program = Program::new(plan, ChildInputs::default()).unwrap();
        let count = program.steps.len();
        program.wait_at_birth();
        assert!(matches!(
            program.steps.as_slice(),
            [Step::CloseOthers { .. }, Step::Meet { point: Point::Born }, ..]
        ));
        assert_eq!((program.steps.len(), program.origins.len()), (count + 1, count + 1));
    }
}
