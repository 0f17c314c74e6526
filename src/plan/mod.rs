//! Decides everything before anything is made: fills in defaults, refuses contradictions, resolves names to
//! numbers.

mod exec;
mod fields;
pub mod hooks;
pub mod linux;
pub mod mounts;
pub mod process;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use oci_spec::runtime::{Linux, Spec};

pub use self::exec::{Changes, ExecPlan, Source, Wanted};
use self::fields::{LinuxFields, personality};
use self::hooks::HookPlan;
use self::linux::devices::DevicePlan;
use self::linux::id_maps::IdMaps;
use self::linux::memory_policy::MemoryPolicy;
use self::linux::namespaces::NamespacePlan;
use self::linux::net_devices::NetDevice;
use self::linux::seccomp::Filter;
use self::linux::sysctl::Settings;
use self::linux::{id_maps, memory_policy, seccomp, sysctl};
use self::mounts::{Label, MountPlan};
use self::process::ProcessPlan;
use crate::bundle::Bundle;
use crate::cgroup;
use crate::cgroup::intel_rdt::RdtPlan;
use crate::cgroup::{CgroupPlan, Driver, intel_rdt};
use crate::error::Pointer;
use crate::host::path;
use crate::sys::cred::Sets;
use crate::sys::mount::Recursion;

/// crun's annotations that have an effect, besides those for the output of hooks.
pub const ANNOTATIONS: [&str; 2] = [CONTEXT_TYPE, UNKNOWN_SYSTEM_CALLS];
const CONTEXT_TYPE: &str = "run.oci.mount_context_type";
const UNKNOWN_SYSTEM_CALLS: &str = "run.oci.seccomp_fail_unknown_syscall";

/// What the plan depends on besides the bundle.
#[derive(Debug)]
pub struct HostFacts {
    /// The cgroup driver.
    pub driver: Driver,
    /// Whether there is a cgroup; false with `--cgroup-manager disabled`.
    pub has_cgroup: bool,
    /// The runtime's capabilities; `None` if unknown.
    pub capabilities: Option<Sets>,
    pub joined_user: JoinedUser,
}

/// What is known about the user namespace to join.
#[derive(Debug)]
pub enum JoinedUser {
    /// None is joined, or nothing is known about it.
    Unknown,
    /// It is the runtime's own and need not be joined.
    Own,
    /// Another one, with these id maps.
    Maps(IdMaps),
}

impl JoinedUser {
    /// The id maps of the container, for which the bundle gives `id_maps`.
    ///
    /// # Errors
    /// If the bundle gives others than the namespace has.
    fn maps(&self, namespaces: &NamespacePlan, id_maps: Option<IdMaps>) -> Result<Option<IdMaps>> {
        let Self::Maps(maps) = self else { return Ok(id_maps) };
        maps.require_same(id_maps.as_ref(), namespaces)?;
        Ok(Some(maps.clone()))
    }

    /// `namespaces` without what cannot be joined.
    fn leave_out_own(&self, namespaces: NamespacePlan) -> NamespacePlan {
        match self {
            Self::Own => namespaces.without(libc::CLONE_NEWUSER),
            Self::Unknown | Self::Maps(_) => namespaces,
        }
    }
}

impl HostFacts {
    fn cgroup(&self, plan: CgroupPlan) -> Result<CgroupPlan> {
        match self.has_cgroup {
            true => Ok(plan),
            false => plan.without_limits("remove --cgroup-manager disabled, or remove the limit"),
        }
    }
}

/// The plan of a container. It is immutable: what the host adds later goes into the program through
/// [`ChildInputs`](crate::program::ChildInputs).
#[derive(Debug)]
pub struct Plan {
    pub oci_version: String,
    pub bundle: PathBuf,
    pub annotations: BTreeMap<String, String>,
    pub rootfs: PathBuf,
    pub read_only: bool,
    pub hostname: Option<CString>,
    pub domainname: Option<CString>,
    pub namespaces: NamespacePlan,
    /// The id maps of its user namespace, if known.
    pub id_maps: Option<IdMaps>,
    pub mounts: MountPlan,
    /// The SELinux label of the container's files.
    pub label: Option<Label>,
    pub devices: DevicePlan,
    pub process: ProcessPlan,
    pub cgroup: CgroupPlan,
    pub sysctl: Settings,
    /// With their indices in the bundle's array.
    pub masked_paths: Vec<(usize, CString)>,
    pub read_only_paths: Vec<(usize, CString)>,
    /// The propagation of `/` (`MS_*`), if requested.
    pub propagation: Option<(u64, Recursion)>,
    pub personality: Option<u32>,
    pub memory_policy: Option<MemoryPolicy>,
    pub seccomp: Option<Filter>,
    /// Whether the container's cgroup restricts it to some CPUs.
    pub has_cpu_list: bool,
    pub hooks: HookPlan,
    pub net_devices: Vec<NetDevice>,
    pub intel_rdt: Option<RdtPlan>,
}

impl Plan {
    /// Plans a container `id` from `bundle` on this host. `namespaces` is the result of [`Plan::namespaces`].
    ///
    /// # Errors
    /// If a value of `config.json` is invalid, contradicts another or requires what this version lacks; the
    /// first one is named.
    pub fn new(bundle: &Bundle, id: &str, namespaces: NamespacePlan, host: &HostFacts) -> Result<Self> {
        let rootfs = bundle.rootfs()?;
        Self::decide(&bundle.spec, &bundle.path, rootfs, id, namespaces, host)
    }

    /// Plans the namespaces of `spec`. This comes first because the host has to look up the id maps of a user
    /// namespace to join.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn namespaces(spec: &Spec) -> Result<NamespacePlan> {
        let at = Pointer::root().field("linux");
        LinuxFields { object: spec.linux().as_ref(), at: &at }.namespaces()
    }

    /// Returns the field of the bundle that changes the container's namespace of `kind` (`CLONE_NEW*`), for a
    /// message; `None` if there is none.
    pub fn changes(&self, kind: i32) -> Option<&'static str> {
        match kind {
            libc::CLONE_NEWNS => Some("its mounts"),
            libc::CLONE_NEWUTS if self.hostname.is_some() => Some("/hostname"),
            libc::CLONE_NEWUTS if self.domainname.is_some() => Some("/domainname"),
            libc::CLONE_NEWNET if !self.net_devices.is_empty() => Some("/linux/netDevices"),
            kind if self.sysctl.iter().any(|setting| setting.namespace == kind) => Some("/linux/sysctl"),
            _ => None,
        }
    }

    /// Whether code from the image may be able to mount in the container: the program and what it executes,
    /// or a startContainer hook, which has all capabilities. Processes that an administrator adds with `exec`
    /// do not count.
    pub fn may_mount(&self) -> bool {
        self.process.capabilities.may_gain(caps::Capability::CAP_SYS_ADMIN)
            || !self.hooks.start_container.is_empty()
    }

    /// As [`Plan::new`], for a host about which only the cgroup driver is known.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn with_rootfs(
        spec: &Spec,
        bundle: &Path,
        rootfs: PathBuf,
        id: &str,
        driver: Driver,
    ) -> Result<Self> {
        let host =
            HostFacts { driver, has_cgroup: true, capabilities: None, joined_user: JoinedUser::Unknown };
        Self::decide(spec, bundle, rootfs, id, Self::namespaces(spec)?, &host)
    }

    /// Pure: depends on its arguments only.
    fn decide(
        spec: &Spec,
        bundle: &Path,
        rootfs: PathBuf,
        id: &str,
        namespaces: NamespacePlan,
        host: &HostFacts,
    ) -> Result<Self> {
        let root = Pointer::root();
        let at = root.field("linux");
        let linux = LinuxFields { object: spec.linux().as_ref(), at: &at };
        let id_maps = id_maps::plan(linux.object, &namespaces, &at)?;
        let id_maps = host.joined_user.maps(&namespaces, id_maps)?;
        let mut process = first_process(spec, &root)?;
        // Within a user namespace of its own a process can have all capabilities.
        let is_inside = namespaces.has(libc::CLONE_NEWUSER) && !matches!(host.joined_user, JoinedUser::Own);
        if let Some(own) = host.capabilities.filter(|_| !is_inside) {
            process.capabilities.limit_to(own);
        }
        let label = linux.label(spec, &root)?;
        let around = mounts::MountContext {
            bundle,
            rootfs: &rootfs,
            mount_namespace: namespaces.has(libc::CLONE_NEWNS),
            label: label.as_ref(),
        };
        let mounts =
            mounts::plan(spec.mounts().as_deref().unwrap_or_default(), around, &root.field("mounts"))?;
        let devices = linux.devices()?;
        require_mount_namespace(spec, &namespaces, &root)?;
        let sysctl = linux.sysctl(&namespaces)?;
        let domainname = uts_name(spec.domainname().as_ref(), &namespaces, &root.field("domainname"))?;
        if let Some(name) = &domainname {
            sysctl::require_domainname(&sysctl, name, &at.field("sysctl"))?;
        }
        let owner = owner_of_cgroup(&namespaces, &mounts, process.uid, id_maps.as_ref());
        let plan = Self {
            oci_version: spec.version().clone(),
            annotations: spec.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
            read_only: spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or(false),
            hostname: uts_name(spec.hostname().as_ref(), &namespaces, &root.field("hostname"))?,
            domainname,
            masked_paths: linux.masked_paths(&namespaces)?,
            read_only_paths: linux.hidden("readonlyPaths", Linux::readonly_paths, &namespaces)?,
            propagation: linux.propagation(&namespaces)?,
            personality: linux.plan("personality", Linux::personality, personality)?,
            memory_policy: linux.plan("memoryPolicy", Linux::memory_policy, memory_policy::plan)?,
            seccomp: linux.seccomp(unknown_system_calls(spec))?,
            has_cpu_list: linux.has_cpu_list(),
            intel_rdt: linux.plan("intelRdt", Linux::intel_rdt, intel_rdt::plan)?,
            net_devices: linux.net_devices(&namespaces)?,
            hooks: hooks::plan(spec.hooks().as_ref(), &root.field("hooks"))?,
            cgroup: host
                .cgroup(cgroup::plan(
                    linux.object,
                    id,
                    host.driver,
                    spec.annotations().iter().flatten(),
                    &at,
                )?)?
                .owned_by(owner),
            bundle: bundle.to_path_buf(),
            rootfs,
            namespaces,
            id_maps,
            mounts,
            label,
            devices,
            process,
            sysctl,
        };
        plan.require_mapped()?;
        Ok(Self { namespaces: host.joined_user.leave_out_own(plan.namespaces), ..plan })
    }

    /// # Errors
    /// If an id in the bundle is unmapped in the container's user namespace, or an id-mapped mount has no
    /// maps.
    fn require_mapped(&self) -> Result<()> {
        let maps = self.id_maps.as_ref();
        if maps.is_some() || !self.namespaces.has(libc::CLONE_NEWUSER) {
            for (_, mapping) in &self.mounts.id_mappings {
                mapping.resolve(maps)?;
            }
        }
        let Some(maps) = maps else { return Ok(()) };
        let process = &self.process;
        let at = Pointer::root().field("process").field("user");
        maps.require(process.uid, process.gid, &process.groups, &at)?;
        for (key, id, mount, option) in self.mounts.ids() {
            let (map, field) =
                if key == "uid" { (&maps.users, "uidMappings") } else { (&maps.groups, "gidMappings") };
            if map.outside(id).is_none() {
                let at = Pointer::root().field("mounts").index(mount).field("options").index(option);
                return Err(at.error_with_hint(
                    format_args!("\"{key}={id}\": {id} is unmapped in the user namespace"),
                    format_args!("add it to /linux/{field}, or remove the option"),
                ));
            }
        }
        Ok(())
    }
}

/// Returns the owner that the cgroup gets, as an id outside the container: the process's user `uid` if the
/// container can write to its cgroups. `None` if that user is unmapped or the user namespace's maps are
/// unknown.
fn owner_of_cgroup(
    namespaces: &NamespacePlan,
    mounts: &MountPlan,
    uid: u32,
    id_maps: Option<&IdMaps>,
) -> Option<u32> {
    if !namespaces.is_new(libc::CLONE_NEWCGROUP) || !mounts.has_writable_cgroups() {
        return None;
    }
    match id_maps {
        Some(maps) => maps.users.outside(uid),
        None => Some(uid).filter(|_| !namespaces.has(libc::CLONE_NEWUSER)),
    }
}

fn first_process(spec: &Spec, root: &Pointer) -> Result<ProcessPlan> {
    let Some(process) = spec.process() else {
        return Err(root.field("process").error("is missing: no program to run"));
    };
    process::plan(process, &root.field("process"))
}

/// Whether unknown system calls are an error, according to crun's annotation.
fn unknown_system_calls(spec: &Spec) -> seccomp::Unknown {
    let mut annotations = spec.annotations().iter().flatten();
    match annotations.find(|(key, _)| *key == UNKNOWN_SYSTEM_CALLS) {
        Some((_, value)) if value != "0" => seccomp::Unknown::Refuse,
        _ => seccomp::Unknown::Ignore,
    }
}

/// Errors where, without a mount namespace, the host's root would become read-only or devices would be
/// created in it.
fn require_mount_namespace(spec: &Spec, namespaces: &NamespacePlan, root: &Pointer) -> Result<()> {
    if spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly) == Some(true) {
        namespaces.require(libc::CLONE_NEWNS, &root.field("root").field("readonly"), "a read-only root")?;
    }
    match spec.linux().as_ref().and_then(|linux| linux.devices().as_ref()) {
        Some(devices) if !devices.is_empty() => {
            namespaces.require(libc::CLONE_NEWNS, &root.field("linux").field("devices"), "creating devices")
        }
        _ => Ok(()),
    }
}

fn uts_name(name: Option<&String>, namespaces: &NamespacePlan, at: &Pointer) -> Result<Option<CString>> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
    namespaces.require(libc::CLONE_NEWUTS, at, &format!("{name:?}"))?;
    // __NEW_UTS_LEN; sethostname(2).
    if name.len() > 64 {
        return Err(at.error(format_args!("name {name:?} exceeds 64 bytes")));
    }
    path::c_string(Path::new(name), at).map(Some)
}
