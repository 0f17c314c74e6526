//! The order of everything that the init process does. To know when /proc is mounted, read [`Program::new`] from the top.
//!
//! Each step is kept with the place in `config.json` that it comes from, so that a failure, which arrives as a step's
//! number and an errno, becomes a sentence about the bundle.

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
    /// A field, as a pointer written out.
    Field(&'static str),
    /// An element of an array.
    Item(&'static str, usize),
    /// An element of `/linux/namespaces`, and the path of its namespace.
    Namespace(usize, PathBuf),
    /// One of several elements of `/linux/devices`, if configured at all.
    Devices(Vec<Option<usize>>),
    /// One of several elements of `/linux/maskedPaths`.
    Masked(Vec<usize>),
    /// One of several keys of `/linux/sysctl`.
    Sysctl(Vec<String>),
}

/// The steps of the init process, in order.
#[derive(Debug)]
pub struct Program {
    pub steps: Vec<Step>,
    origins: Vec<Origin>,
    /// What `args[0]` says, for sentences about it.
    name: String,
    /// Whether the cgroup keeps the process from some of the processors, which SCHED_DEADLINE does not go with.
    has_cpu_list: bool,
    /// Where some things are not permitted that are outside.
    is_in_user_namespace: bool,
    /// Where what is below `/process` comes from.
    source: Source,
}

/// What the parent has prepared for the init process.
#[derive(Debug, Default)]
pub struct ChildInputs {
    pub user: User,
    /// The namespaces to join, opened.
    pub join: Vec<(Join, OwnedFd)>,
    /// The name of a session keyring to join.
    pub keyring: Option<CString>,
    pub labels: Labels,
    pub root: RootSwitch,
    /// Where the console's master goes; `None`: to the parent.
    pub console_socket: Option<OwnedFd>,
    /// What `start` writes to; without it the program starts at once.
    pub fifo: Option<OwnedFd>,
    /// How many descriptors from 3 on the program inherits.
    pub inherited: u32,
    /// Variables besides those of `/process/env`.
    pub env: Vec<CString>,
    /// A directory of the host that appears as /run/notify, and a clone of its mount if the parent has made one.
    pub notify: Option<(CString, Option<OwnedFd>)>,
    /// A clone of the rootfs, for an init process that may be unable to reach it.
    pub rootfs_tree: Option<OwnedFd>,
    /// Clones of the sources of binds, by the places of these in `/mounts`.
    pub sources: Vec<(usize, SourceTree)>,
    /// The devices that the parent has made.
    pub nodes: Option<Nodes>,
    /// The mount above a rootfs in a shared tree, which pivot_root(2) wants private.
    pub rootfs_parent: Option<CString>,
    /// Whether /proc/kcore exists.
    pub has_kcore: bool,
    /// The container's cgroup, a path of the host.
    pub cgroup: Option<CString>,
    /// What hooks of the init process need, if there are any.
    pub hooks: Option<hooks::Shared>,
}

/// A clone of what a bind mounts, for an init process that may be unable to reach it.
#[derive(Debug)]
pub struct SourceTree {
    pub tree: OwnedFd,
    /// Whether it shows other ids than the source: then it is what is mounted.
    pub maps_ids: bool,
}

/// Devices that the parent has made for an init process that makes none.
#[derive(Debug)]
pub struct Nodes {
    /// The root of the file system that they are in.
    pub directory: OwnedFd,
    /// Their names there, by their places in `/linux/devices`.
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
    /// Orders what `plan` decided, with what the host adds. Lines whose place matters say why.
    pub fn new(plan: Plan, mut inputs: ChildInputs) -> Result<Self> {
        let has_mounts = plan.namespaces.has(libc::CLONE_NEWNS);
        let (mut program, late) = Self::enter(&plan, &mut inputs);
        // As late as possible: the parent makes it meanwhile.
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
                // In a cgroup namespace only its own cgroup and what is below it is to be seen.
                stand_in: plan.namespaces.has(libc::CLONE_NEWCGROUP).then_some(inputs.cgroup),
                // A /dev of the host's is the host's to fill.
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
        // Nothing of the host is in reach by it any more, and whatever else it does it does as the container's process.
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
            // In a new pid namespace and a new user namespace, nobody but whoever makes the container can look at its process.
            is_shown: inputs.user.is_new_of_a_user() && plan.namespaces.is_new(libc::CLONE_NEWPID),
            fifo: inputs.fifo,
            inherited: inputs.inherited,
            hooks: &plan.hooks.start_container,
            shared: inputs.hooks.as_ref(),
        };
        program.become_process(plan.process, last)?;
        Ok(program)
    }

    /// The container's namespaces, as far as the process enters them before its mounts; and one of pids that its successor is to
    /// be born into.
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

    /// Has the init process close everything that is neither a standard stream, nor for the program, nor used by a step, nor
    /// `socket`, on which it talks with the parent.
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

    /// Files that hooks of the init process write to.
    fn hook_outputs(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let hooks = self.steps.iter().filter_map(|step| match step {
            Step::RunHook(what) => Some(&what.outputs),
            _ => None,
        });
        let files = hooks.flat_map(|outputs| outputs.stdout.iter().chain(&outputs.stderr));
        files.map(|file| file.as_fd())
    }

    /// The hooks that see the mounts, but not yet the new root: runtime.md § Lifecycle, steps 3 to 5. They find all namespaces.
    fn hooks_before_the_switch(
        &mut self,
        (hooks, shared): (&hooks::HookPlan, Option<&hooks::Shared>),
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

    /// Whether a seccomp filter has its say before the program begins.
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

    /// Has the process wait for its parent, at [`Point::Born`], before it does anything.
    pub fn wait_at_birth(&mut self) {
        // It has to have closed the parent's end of the socket by then, or it would not hear of the parent's end.
        let place = usize::from(matches!(self.steps.first(), Some(Step::CloseOthers { .. })));
        self.steps.insert(place, Step::Meet { point: Point::Born });
        self.origins.insert(place, Origin::Runtime);
    }

    /// No mount made from here on reaches the host. A container that wants to share its mounts keeps the host's
    /// propagation, but for the mount above the rootfs: pivot_root(2) refuses a shared one.
    fn cut_off_the_host(&mut self, wanted: Option<(u64, Recursion)>, rootfs_parent: Option<CString>) {
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

/// The directory with the socket through which the program says that it is ready; sd_notify(3).
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
