//! From the host's `/` to the container's: the rootfs, its mounts, the root switch, and what is done after
//! it.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use anyhow::Result;

use super::{Nodes, Origin, Program, RootSwitch, SourceTree, bind_notify_directory};
use crate::init::step::Step;
use crate::plan::hooks;
use crate::plan::linux::devices::DevicePlan;
use crate::plan::linux::namespaces::Join;
use crate::plan::linux::sysctl::Settings;
use crate::plan::mounts::{Label, Numbered};
use crate::sys::mount::{Attributes, Recursion};

/// File systems that do not depend on the network namespace they are mounted in.
const WITHOUT_NETWORK: [&CStr; 7] =
    [c"proc", c"tmpfs", c"devpts", c"mqueue", c"cgroup2", c"overlay", c"ramfs"];

/// The directory that becomes `/`.
pub(super) struct Root {
    pub(super) path: CString,
    pub(super) tree: Option<OwnedFd>,
    pub(super) parent: Option<CString>,
    pub(super) switch: RootSwitch,
    /// `MS_*`, if requested.
    pub(super) propagation: Option<(u64, Recursion)>,
}

/// What is mounted and created in the rootfs.
pub(super) struct Parts {
    pub(super) mounts: Vec<Numbered>,
    /// Clones made by the parent, with the index of their bind in `/mounts`.
    pub(super) sources: Vec<(usize, SourceTree)>,
    pub(super) stand_in: Option<Option<CString>>,
    pub(super) devices: Option<DevicePlan>,
    pub(super) has_kcore: bool,
    pub(super) nodes: Option<Nodes>,
    pub(super) notify: Option<(CString, Option<OwnedFd>)>,
}

/// What is done in the container's tree once it is `/`.
pub(super) struct Finish {
    pub(super) cwd: CString,
    pub(super) console: Option<Step>,
    pub(super) seals: Vec<Numbered>,
    pub(super) is_read_only: bool,
    /// Host name and domain name.
    pub(super) names: (Option<CString>, Option<CString>),
    pub(super) sysctl: Settings,
    pub(super) read_only_paths: Vec<(usize, CString)>,
    pub(super) masked_paths: Vec<(usize, CString)>,
    pub(super) label: Option<Label>,
}

/// How the opened directory becomes `/`.
struct PendingSwitch {
    switch: RootSwitch,
    /// Whether the rootfs is a tree opened by the parent, which is attached to `/` when it is opened.
    is_attached: bool,
    propagation: Option<(u64, Recursion)>,
}

impl Program {
    /// Adds everything from the host's tree to the container's.
    pub(super) fn build_root(
        &mut self,
        root: Root,
        parts: Parts,
        hooks: (&hooks::HookPlan, Option<&hooks::HookInputs>),
        late: Option<&(Join, OwnedFd)>,
        new_network: &mut bool,
    ) -> Result<()> {
        let (nodes, made) = match parts.nodes {
            Some(Nodes { directory, names }) => (Some(directory), names),
            None => (None, Vec::new()),
        };
        let switch = self.open_root(root, nodes);
        if let Some(late) = late {
            self.hold_pid_namespace(late)?;
        }
        self.mount(parts.mounts, parts.sources, parts.stand_in.as_ref(), new_network);
        // After the mounts: /dev is usually one of them.
        if let Some(devices) = parts.devices {
            for (places, step) in devices.steps(parts.has_kcore, made) {
                self.add(Origin::Devices(places), step);
            }
        }
        if let Some((source, tree)) = parts.notify {
            self.add(Origin::Runtime, bind_notify_directory(source, tree));
        }
        self.hooks_before_the_switch(hooks, new_network)?;
        self.switch_root(switch);
        Ok(())
    }

    /// Opens the directory that becomes `/`, with the device nodes that the parent has made.
    fn open_root(&mut self, root: Root, nodes: Option<OwnedFd>) -> PendingSwitch {
        self.set_host_propagation(root.propagation, root.parent);
        if let Some(nodes) = nodes {
            self.add(Origin::Field("/linux/devices"), Step::HoldNodes { nodes });
        }
        let is_pivoted_to = matches!(root.switch, RootSwitch::Pivot);
        // By default `/` is private, as with runc and crun: a mount that the host makes on the rootfs
        // directory later would otherwise cover the root for processes that join the container.
        let is_private = root.propagation.is_none();
        let is_attached = root.tree.is_some();
        let step = Step::OpenRootfs { path: root.path, tree: root.tree, is_pivoted_to, is_private };
        self.add(Origin::Field("/root/path"), step);
        PendingSwitch { switch: root.switch, is_attached, propagation: root.propagation }
    }

    /// Adds the mounts in order, with the clones that the parent has made (`sources`). If `stand_in` is set,
    /// its cgroup, if any, is bind-mounted where a cgroup file system cannot be mounted, instead of the one
    /// in the plan.
    fn mount(
        &mut self,
        mounts: Vec<Numbered>,
        mut sources: Vec<(usize, SourceTree)>,
        stand_in: Option<&Option<CString>>,
        new_network: &mut bool,
    ) {
        for (index, mut step) in mounts {
            match &mut step {
                Step::Bind(bind) => {
                    if let Some(place) = sources.iter().position(|(place, _)| *place == index) {
                        let (_, source) = sources.swap_remove(place);
                        bind.tree = Some(source.tree);
                        bind.maps_ids = source.maps_ids;
                    }
                }
                Step::Mount(mount) => {
                    if let Some(cgroup) = stand_in.filter(|_| mount.stand_in.is_some()) {
                        mount.stand_in.clone_from(cgroup);
                    }
                    // sysfs shows the network devices of the namespace it is mounted in; NFS uses its
                    // interfaces.
                    if !WITHOUT_NETWORK.contains(&mount.fstype.as_c_str()) {
                        self.join_network(new_network);
                    }
                }
                _ => {}
            }
            self.add(Origin::Item("/mounts", index), step);
        }
    }

    /// Makes the opened directory `/`.
    fn switch_root(&mut self, PendingSwitch { switch, is_attached, propagation }: PendingSwitch) {
        match switch {
            RootSwitch::Pivot => {
                let cut_off = matches!(propagation, Some((libc::MS_SHARED, _)));
                self.add(Origin::Field("/root/path"), Step::PivotRoot { cut_off });
            }
            RootSwitch::Move { hide } => {
                for path in hide {
                    self.add(Origin::Runtime, Step::HideHostMount { path });
                }
                // A tree opened by the parent is there already.
                let step = if is_attached { Step::ChangeRoot } else { Step::MoveRoot };
                self.add(Origin::Field("/root/path"), step);
            }
        }
        if let Some((propagation, reach)) = propagation {
            let step = Step::RootPropagation { propagation, reach };
            self.add(Origin::Field("/linux/rootfsPropagation"), step);
        }
    }

    /// Adds what is done in the container's tree once it is `/`.
    pub(super) fn finish_root(&mut self, finish: Finish) {
        // While the root is still writable.
        self.add(Origin::Field("/process/cwd"), Step::MakeDirectory { path: finish.cwd });
        // After the switch, so that no path of the host is reachable while the image's /dev is walked
        // (CVE-2025-52565), and before /dev becomes read-only.
        if let Some(step) = finish.console {
            self.add(Origin::Field("/process/terminal"), step);
        }
        self.seal(finish.seals, finish.is_read_only);
        self.name(finish.names);
        self.set_sysctls(finish.sysctl);
        // After the switch, because these are paths of the container. After the sysctls, because /proc/sys is
        // usually read-only.
        self.hide(finish.read_only_paths, finish.masked_paths, finish.label);
    }

    /// Makes read-only what had to be writable until now.
    fn seal(&mut self, seals: Vec<Numbered>, root_is_read_only: bool) {
        for (index, step) in seals {
            self.add(Origin::Item("/mounts", index), step);
        }
        if root_is_read_only {
            let attributes = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
            let step = Step::Seal { path: c"/".into(), mount: None, attributes };
            self.add(Origin::Field("/root/readonly"), step);
        }
    }

    fn name(&mut self, (hostname, domainname): (Option<CString>, Option<CString>)) {
        if let Some(name) = hostname {
            self.add(Origin::Field("/hostname"), Step::Hostname { name });
        }
        if let Some(name) = domainname {
            self.add(Origin::Field("/domainname"), Step::Domainname { name });
        }
    }

    fn set_sysctls(&mut self, sysctl: Settings) {
        if sysctl.is_empty() {
            return;
        }
        let keys = sysctl.iter().map(|setting| setting.key.clone()).collect();
        let settings = sysctl.into_iter().map(|setting| (setting.path, setting.value)).collect();
        self.add(Origin::Sysctl(keys), Step::Sysctl { settings });
    }

    fn hide(
        &mut self,
        read_only: Vec<(usize, CString)>,
        masked: Vec<(usize, CString)>,
        label: Option<Label>,
    ) {
        for (index, path) in read_only {
            self.add(Origin::Item("/linux/readonlyPaths", index), Step::ReadOnlyPath { path });
        }
        if !masked.is_empty() {
            let (places, paths) = masked.into_iter().unzip();
            let label = label.map(|label| (label.key.into(), label.context));
            self.add(Origin::Masked(places), Step::MaskPaths { paths, label });
        }
    }
}
