//! The fields of `/linux`, which are all optional.

use std::collections::HashSet;
use std::ffi::CString;
use std::path::Path;

use anyhow::Result;
use oci_spec::runtime::{Linux, LinuxPersonalityDomain, Spec};

use super::CONTEXT_TYPE;
use super::linux::devices::DevicePlan;
use super::linux::namespaces::NamespacePlan;
use super::linux::net_devices::NetDevice;
use super::linux::seccomp::Filter;
use super::linux::sysctl::Settings;
use super::linux::{devices, namespaces, net_devices, seccomp, sysctl, time_offsets};
use super::mounts::Label;
use crate::error::Pointer;
use crate::host::path;
use crate::sys::mount::Recursion;

/// The `/linux` object; it and all its fields are optional.
#[derive(Clone, Copy)]
pub(super) struct LinuxFields<'a> {
    pub(super) object: Option<&'a Linux>,
    pub(super) at: &'a Pointer,
}

/// A getter of [`Linux`].
pub(super) type Field<T> = fn(&Linux) -> &Option<T>;

impl<'a> LinuxFields<'a> {
    pub(super) fn get<T>(self, field: Field<T>) -> Option<&'a T> {
        self.object.and_then(|linux| field(linux).as_ref())
    }

    /// Plans the field `name` with `plan`, if it is present.
    pub(super) fn plan<T, P>(
        self,
        name: &str,
        field: Field<T>,
        plan: impl FnOnce(&T, &Pointer) -> Result<P>,
    ) -> Result<Option<P>> {
        self.get(field).map(|value| plan(value, &self.at.field(name))).transpose()
    }

    /// The same for a field that requires a namespace.
    pub(super) fn in_namespaces<T, P>(
        self,
        name: &str,
        field: Field<T>,
        namespaces: &NamespacePlan,
        plan: impl FnOnce(&T, &NamespacePlan, &Pointer) -> Result<P>,
    ) -> Result<Option<P>> {
        self.plan(name, field, |value, at| plan(value, namespaces, at))
    }

    pub(super) fn namespaces(self) -> Result<NamespacePlan> {
        let list = self.get(Linux::namespaces).map(Vec::as_slice).unwrap_or_default();
        let mut namespaces = namespaces::plan(list, &self.at.field("namespaces"))?;
        let offsets =
            self.in_namespaces("timeOffsets", Linux::time_offsets, &namespaces, time_offsets::plan)?;
        namespaces.time_offsets = offsets.flatten();
        Ok(namespaces)
    }

    pub(super) fn label(self, spec: &Spec, root: &Pointer) -> Result<Option<Label>> {
        let planned = |label: &String, at: &Pointer| mount_label(label, spec, at, root);
        Ok(self.plan("mountLabel", Linux::mount_label, planned)?.flatten())
    }

    pub(super) fn devices(self) -> Result<DevicePlan> {
        let list = self.get(Linux::devices).map(Vec::as_slice).unwrap_or_default();
        devices::plan(list, &self.at.field("devices"))
    }

    pub(super) fn sysctl(self, namespaces: &NamespacePlan) -> Result<Settings> {
        let settings = self.in_namespaces("sysctl", Linux::sysctl, namespaces, sysctl::plan)?;
        Ok(settings.unwrap_or_default())
    }

    pub(super) fn masked_paths(self, namespaces: &NamespacePlan) -> Result<Vec<(usize, CString)>> {
        let paths = self.hidden("maskedPaths", Linux::masked_paths, namespaces)?;
        without_root(paths, &self.at.field("maskedPaths"))
    }

    /// Plans paths to mask or to make read-only, with their indices in the array.
    pub(super) fn hidden(
        self,
        name: &str,
        field: Field<Vec<String>>,
        namespaces: &NamespacePlan,
    ) -> Result<Vec<(usize, CString)>> {
        let paths = self.get(field).map(Vec::as_slice).unwrap_or_default();
        hidden(paths, namespaces, &self.at.field(name))
    }

    pub(super) fn propagation(self, namespaces: &NamespacePlan) -> Result<Option<(u64, Recursion)>> {
        let field = Linux::rootfs_propagation;
        let planned = self.in_namespaces("rootfsPropagation", field, namespaces, propagation)?;
        Ok(planned.flatten())
    }

    pub(super) fn seccomp(self, unknown: seccomp::Unknown) -> Result<Option<Filter>> {
        self.plan("seccomp", Linux::seccomp, |wanted, at| seccomp::plan(wanted, unknown, at))
    }

    pub(super) fn has_cpu_list(self) -> bool {
        let cpu = self.get(Linux::resources).and_then(|resources| resources.cpu().as_ref());
        cpu.and_then(|cpu| cpu.cpus().as_deref()).is_some_and(|list| !list.is_empty())
    }

    pub(super) fn net_devices(self, namespaces: &NamespacePlan) -> Result<Vec<NetDevice>> {
        let devices = self.in_namespaces("netDevices", Linux::net_devices, namespaces, net_devices::plan)?;
        Ok(devices.unwrap_or_default())
    }
}

/// The SELinux label of new file systems, if it is not empty. An annotation of crun's names the mount option
/// that takes it; mount(8).
fn mount_label(context: &str, spec: &Spec, at: &Pointer, root: &Pointer) -> Result<Option<Label>> {
    if context.is_empty() {
        return Ok(None);
    }
    let context = path::c_string(Path::new(context), at)?;
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
    Ok(Some(Label { key, context }))
}

/// Drops repeated paths; the others keep their indices in the array.
fn hidden(paths: &[String], namespaces: &NamespacePlan, at: &Pointer) -> Result<Vec<(usize, CString)>> {
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
/// If `/` is masked: processes that join the container would find it empty, but the program would not.
fn without_root(paths: Vec<(usize, CString)>, at: &Pointer) -> Result<Vec<(usize, CString)>> {
    match paths.iter().find(|(_, path)| path.as_bytes() == b"/") {
        Some((index, _)) => Err(at.index(*index).error_with_hint(
            "\"/\" is the container's root, which cannot be masked",
            "mask paths below it instead",
        )),
        None => Ok(paths),
    }
}

/// Parses a propagation to `MS_*` and its recursion; `None` for an empty text.
fn propagation(text: &String, namespaces: &NamespacePlan, at: &Pointer) -> Result<Option<(u64, Recursion)>> {
    if text.is_empty() {
        return Ok(None);
    }
    namespaces.require(libc::CLONE_NEWNS, at, &format!("{text:?}"))?;
    let (kind, reach) = match text.strip_prefix('r') {
        Some(kind) => (kind, Recursion::WholeTree),
        None => (text.as_str(), Recursion::ThisMount),
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
    Ok(Some((flag, reach)))
}

pub(super) fn personality(wanted: &oci_spec::runtime::LinuxPersonality, at: &Pointer) -> Result<u32> {
    if wanted.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(at.field("flags").error("personality flags are not supported"));
    }
    Ok(match wanted.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        // PER_LINUX32; personality(2).
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}
