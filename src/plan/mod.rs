//! Everything decided, before anything is made: defaults filled in, contradictions refused, names resolved to numbers.

mod exec;
pub mod hooks;
pub mod linux;
pub mod mounts;
pub mod process;

use std::collections::{BTreeMap, HashSet};
use std::ffi::CString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use oci_spec::runtime::{LinuxPersonalityDomain, Spec};

pub use self::exec::{Changes, ExecPlan, Source, Wanted};
use self::hooks::HookPlan;
use self::linux::devices::DevicePlan;
use self::linux::id_maps::IdMaps;
use self::linux::memory_policy::MemoryPolicy;
use self::linux::namespaces::NamespacePlan;
use self::linux::net_devices::NetDevice;
use self::linux::seccomp::Filter;
use self::linux::sysctl::Settings;
use self::linux::{devices, id_maps, memory_policy, namespaces, net_devices, seccomp, sysctl, time_offsets};
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

/// Annotations of crun's that have an effect, besides those that say where hooks write to.
pub const ANNOTATIONS: [&str; 2] = [CONTEXT_TYPE, UNKNOWN_SYSTEM_CALLS];
const CONTEXT_TYPE: &str = "run.oci.mount_context_type";
const UNKNOWN_SYSTEM_CALLS: &str = "run.oci.seccomp_fail_unknown_syscall";

/// What the host adds to what the bundle says.
#[derive(Debug)]
pub struct HostFacts {
    /// What makes the cgroup.
    pub driver: Driver,
    /// Whether there is to be one; not with `--cgroup-manager disabled`.
    pub has_cgroup: bool,
    /// The runtime's capabilities; `None`: not known.
    pub capabilities: Option<Sets>,
    pub joined_user: JoinedUser,
}

/// What there is to know of the user namespace to join.
#[derive(Debug)]
pub enum JoinedUser {
    /// None is joined, or nothing is known of it.
    Unknown,
    /// It is the runtime's own, which is not joined.
    Own,
    /// Another, with these maps.
    Maps(IdMaps),
}

impl HostFacts {
    fn cgroup(&self, plan: CgroupPlan) -> Result<CgroupPlan> {
        match self.has_cgroup {
            true => Ok(plan),
            false => plan.without_limits("remove --cgroup-manager disabled, or remove the limit"),
        }
    }
}

/// A container that can be made. It does not change any more: what the host adds later goes into the program by
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
    /// What its user namespace maps, as far as the bundle says.
    pub id_maps: Option<IdMaps>,
    pub mounts: MountPlan,
    /// SELinux's label of the container's files.
    pub label: Option<Label>,
    pub devices: DevicePlan,
    pub process: ProcessPlan,
    pub cgroup: CgroupPlan,
    pub sysctl: Settings,
    /// With their places in the arrays they come from.
    pub masked_paths: Vec<(usize, CString)>,
    pub read_only_paths: Vec<(usize, CString)>,
    /// `MS_*` of `/`, if asked for.
    pub propagation: Option<(u64, Recursion)>,
    pub personality: Option<u32>,
    pub memory_policy: Option<MemoryPolicy>,
    pub seccomp: Option<Filter>,
    /// Whether a cgroup of its own keeps the container from some of the processors.
    pub has_cpu_list: bool,
    pub hooks: HookPlan,
    pub net_devices: Vec<NetDevice>,
    pub intel_rdt: Option<RdtPlan>,
}

impl Plan {
    /// Decides about `bundle`, for a container `id` on this host. `namespaces` is what [`Plan::namespaces`] decided.
    ///
    /// # Errors
    /// Names the first value of `config.json` that is wrong, contradicts another or asks for what this version lacks.
    pub fn new(bundle: &Bundle, id: &str, namespaces: NamespacePlan, host: &HostFacts) -> Result<Self> {
        let rootfs = bundle.rootfs()?;
        Self::decide(&bundle.spec, &bundle.path, rootfs, id, namespaces, host)
    }

    /// Which namespaces `spec` asks for. They are decided first: what a user namespace to join maps is for the host to say.
    pub fn namespaces(spec: &Spec) -> Result<NamespacePlan> {
        let at = Pointer::root().field("linux");
        let linux = spec.linux().as_ref();
        let mut namespaces = namespaces::plan(
            linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default(),
            &at.field("namespaces"),
        )?;
        if let Some(offsets) = linux.and_then(|linux| linux.time_offsets().as_ref()) {
            namespaces.time_offsets = time_offsets::plan(offsets, &namespaces, &at.field("timeOffsets"))?;
        }
        Ok(namespaces)
    }

    /// What of the container changes the namespace of `kind` (`CLONE_NEW*`) that it is in, in words.
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

    /// Whether something of the image can come to mount in the container: its program, and what it turns into, or a hook, which has
    /// all capabilities. Whom an administrator sends in by `exec` is his affair.
    pub fn may_mount(&self) -> bool {
        self.process.capabilities.may_have(caps::Capability::CAP_SYS_ADMIN)
            || !self.hooks.start_container.is_empty()
    }

    /// As [`Plan::new`], for a host of which nothing is known but the cgroup driver.
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

    /// Pure: looks at nothing but its arguments.
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
        let linux = spec.linux().as_ref();
        let id_maps = id_maps::plan(linux, &namespaces, &at)?;
        let (namespaces, id_maps) = match &host.joined_user {
            JoinedUser::Unknown => (namespaces, id_maps),
            JoinedUser::Own => (namespaces.without(libc::CLONE_NEWUSER), id_maps),
            JoinedUser::Maps(maps) => {
                maps.require_same(id_maps.as_ref(), &namespaces)?;
                (namespaces, Some(maps.clone()))
            }
        };
        let Some(process) = spec.process() else {
            return Err(root.field("process").error("is missing: no program to run"));
        };
        let mut process = process::plan(process, &root.field("process"))?;
        // In a user namespace its processes can have them all.
        if let Some(own) = host.capabilities.filter(|_| !namespaces.has(libc::CLONE_NEWUSER)) {
            process.capabilities.limit_to(own);
        }
        let label = linux
            .and_then(|linux| linux.mount_label().as_deref())
            .filter(|label| !label.is_empty())
            .map(|label| mount_label(label, spec, &root))
            .transpose()?;
        let around = mounts::Around {
            bundle,
            rootfs: &rootfs,
            mount_namespace: namespaces.has(libc::CLONE_NEWNS),
            label: label.as_ref(),
        };
        let mounts =
            mounts::plan(spec.mounts().as_deref().unwrap_or_default(), around, &root.field("mounts"))?;
        let devices = devices::plan(
            linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default(),
            &at.field("devices"),
        )?;
        require_mount_namespace(spec, &namespaces, &root)?;
        let name = |name: Option<&String>, field: &str| uts_name(name, &namespaces, &root.field(field));
        let paths = |paths: Option<&Vec<String>>, field: &str| hidden(paths, &namespaces, &at.field(field));
        let sysctl = match linux.and_then(|linux| linux.sysctl().as_ref()) {
            Some(values) => sysctl::plan(values, &namespaces, &at.field("sysctl"))?,
            None => Settings::default(),
        };
        let domainname = name(spec.domainname().as_ref(), "domainname")?;
        if let Some(name) = &domainname {
            sysctl::require_domainname(&sysctl, name, &at.field("sysctl"))?;
        }
        let owner = owner_of_cgroup(&namespaces, &mounts, process.uid, id_maps.as_ref());
        let plan = Self {
            oci_version: spec.version().clone(),
            annotations: spec.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
            read_only: spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or(false),
            hostname: name(spec.hostname().as_ref(), "hostname")?,
            domainname,
            masked_paths: without_root(
                paths(linux.and_then(|linux| linux.masked_paths().as_ref()), "maskedPaths")?,
                &at.field("maskedPaths"),
            )?,
            read_only_paths: paths(linux.and_then(|linux| linux.readonly_paths().as_ref()), "readonlyPaths")?,
            propagation: linux
                .and_then(|linux| linux.rootfs_propagation().as_deref())
                .filter(|text| !text.is_empty())
                .map(|text| propagation(text, &namespaces, &at.field("rootfsPropagation")))
                .transpose()?,
            personality: linux
                .and_then(|linux| linux.personality().as_ref())
                .map(|wanted| personality(wanted, &at.field("personality")))
                .transpose()?,
            memory_policy: linux
                .and_then(|linux| linux.memory_policy().as_ref())
                .map(|wanted| memory_policy::plan(wanted, &at.field("memoryPolicy")))
                .transpose()?,
            seccomp: linux
                .and_then(|linux| linux.seccomp().as_ref())
                .map(|wanted| seccomp::plan(wanted, unknown_system_calls(spec), &at.field("seccomp")))
                .transpose()?,
            has_cpu_list: linux
                .and_then(|linux| linux.resources().as_ref()?.cpu().as_ref()?.cpus().as_deref())
                .is_some_and(|list| !list.is_empty()),
            intel_rdt: linux
                .and_then(|linux| linux.intel_rdt().as_ref())
                .map(|wanted| intel_rdt::plan(wanted, &at.field("intelRdt")))
                .transpose()?,
            net_devices: linux
                .and_then(|linux| linux.net_devices().as_ref())
                .map(|devices| net_devices::plan(devices, &namespaces, &at.field("netDevices")))
                .transpose()?
                .unwrap_or_default(),
            hooks: hooks::plan(spec.hooks().as_ref(), &root.field("hooks"))?,
            cgroup: host
                .cgroup(cgroup::plan(linux, id, host.driver, spec.annotations().iter().flatten(), &at)?)?
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
        Ok(plan)
    }

    /// # Errors
    /// If an id that the bundle names is not among those that its user namespace is known to map; if a mount is to be mapped as
    /// none.
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

/// Whose the cgroup is to be, outside of the container: that of `uid`, its process's user, if the container can write to it.
/// Nobody's, if that user is not mapped, or in a user namespace of which nothing is known.
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

/// crun's annotation.
fn unknown_system_calls(spec: &Spec) -> seccomp::Unknown {
    let mut annotations = spec.annotations().iter().flatten();
    match annotations.find(|(key, _)| *key == UNKNOWN_SYSTEM_CALLS) {
        Some((_, value)) if value != "0" => seccomp::Unknown::Refuse,
        _ => seccomp::Unknown::Ignore,
    }
}

/// Which of SELinux's parameters the label is for is told in an annotation of crun's; mount(8).
fn mount_label(context: &str, spec: &Spec, root: &Pointer) -> Result<Label> {
    let context = path::c_string(Path::new(context), &root.field("linux").field("mountLabel"))?;
    let key = match spec.annotations().as_ref().and_then(|all| all.get(CONTEXT_TYPE)).map(String::as_str) {
        None | Some("context") => c"context",
        Some("fscontext") => c"fscontext",
        Some("defcontext") => c"defcontext",
        Some("rootcontext") => c"rootcontext",
        Some(other) => {
            return Err(root.field("annotations").field(CONTEXT_TYPE).error_with_hint(
                format_args!("unknown context type {other:?}"),
                "use context, fscontext, defcontext or rootcontext",
            ));
        }
    };
    Ok(Label { key, context })
}

/// Without a mount namespace the root would be made read-only, and the devices in it, on the host.
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

fn hidden(
    paths: Option<&Vec<String>>,
    namespaces: &NamespacePlan,
    at: &Pointer,
) -> Result<Vec<(usize, CString)>> {
    let paths = paths.map(Vec::as_slice).unwrap_or_default();
    if !paths.is_empty() {
        namespaces.require(libc::CLONE_NEWNS, at, "masking paths")?;
    }
    let mut planned: Vec<(usize, CString)> = Vec::with_capacity(paths.len());
    let mut seen = HashSet::with_capacity(paths.len());
    for (index, path) in paths.iter().enumerate() {
        let at = at.index(index);
        if !path.starts_with('/') {
            return Err(at.error(format_args!("path {path:?} must be absolute")));
        }
        let clean = path::inside(Path::new(path), &at)?;
        if seen.insert(clean.clone()) {
            planned.push((index, clean));
        }
    }
    Ok(planned)
}

/// # Errors
/// For the root: whoever joins the container would find nothing there, the program all that there was.
fn without_root(paths: Vec<(usize, CString)>, at: &Pointer) -> Result<Vec<(usize, CString)>> {
    match paths.iter().find(|(_, path)| path.as_bytes() == b"/") {
        Some((index, _)) => Err(at.index(*index).error_with_hint(
            "\"/\" is the container's root, which cannot be masked",
            "mask paths below it instead",
        )),
        None => Ok(paths),
    }
}

fn propagation(text: &str, namespaces: &NamespacePlan, at: &Pointer) -> Result<(u64, Recursion)> {
    namespaces.require(libc::CLONE_NEWNS, at, &format!("{text:?}"))?;
    let (kind, reach) = match text.strip_prefix('r') {
        Some(kind) => (kind, Recursion::WholeTree),
        None => (text, Recursion::ThisMount),
    };
    let flag = match kind {
        "private" => libc::MS_PRIVATE,
        "slave" => libc::MS_SLAVE,
        "shared" => libc::MS_SHARED,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => {
            return Err(at.error_with_hint(
                format_args!("unknown propagation {text:?}"),
                "use private, slave, shared or unbindable, or their recursive forms rprivate, rslave, \
                 rshared or runbindable",
            ));
        }
    };
    Ok((flag, reach))
}

fn personality(wanted: &oci_spec::runtime::LinuxPersonality, at: &Pointer) -> Result<u32> {
    if wanted.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(at.field("flags").error("personality flags are not supported"));
    }
    Ok(match wanted.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        // PER_LINUX32; personality(2).
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}
