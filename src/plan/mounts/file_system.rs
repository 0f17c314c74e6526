//! New file systems: their parameters and their labels; fsconfig(2), mount(2).

use std::ffi::{CStr, CString};
use std::path::Path;

use anyhow::Result;
use oci_spec::runtime;
use rustix::mount::MountAttrFlags;

use super::Label;
use super::options::Options;
use crate::error::Pointer;
use crate::host::path;
use crate::init::step::{Held, Mount, MountTarget, OldStyle, Parameter, Step};
use crate::sys::mount::{Attributes, Recursion};

/// Bytes of the longest value that fsconfig(2) takes, with its NUL; mount(2) takes a page for all values.
const LONGEST_VALUE: usize = 256;

/// Parameters with SELinux contexts. Their values contain commas, so mount(8) and the engines quote them.
const CONTEXTS: [&CStr; 4] = [c"context", c"fscontext", c"defcontext", c"rootcontext"];

/// The flags of a file system as mount(2) takes them; 0 for the defaults.
const OLD_FLAGS: [(&CStr, libc::c_ulong); 8] = [
    (c"ro", libc::MS_RDONLY),
    (c"sync", libc::MS_SYNCHRONOUS),
    (c"dirsync", libc::MS_DIRSYNC),
    (c"lazytime", MS_LAZYTIME),
    (c"mand", libc::MS_MANDLOCK),
    (c"async", 0),
    (c"nolazytime", 0),
    (c"nomand", 0),
];

/// linux/mount.h.
const MS_LAZYTIME: libc::c_ulong = 1 << 25;

/// The step that mounts a new file system, and one that makes it read-only at the end, if it has to be filled
/// before.
///
/// # Errors
/// If the mount has no type, or an option or the source is invalid.
pub(super) fn plan(
    mount: &runtime::Mount,
    sum: &Options<'_>,
    fstype: &str,
    label: Option<&Label>,
    target: MountTarget,
    at: &Pointer,
) -> Result<(Step, Option<Step>)> {
    if fstype == "none" || fstype.is_empty() {
        return Err(at.field("type").error_with_hint(
            "mount has no type",
            "set a file system type such as \"tmpfs\", or use option \"bind\" or \"rbind\"",
        ));
    }
    // The kernel's name for version 2, the only one supported here, is cgroup2.
    let kernel_type = if fstype == "cgroup" { "cgroup2" } else { fstype };
    // A new file system has no submounts.
    let mut flags = sum.this_mount.then(sum.whole_tree);
    // These are filled before they become read-only: with device nodes, mount points, copied files.
    let delay = flags.is_read_only() && (fstype == "tmpfs" || target.path.as_bytes() == b"/dev");
    if delay {
        flags = flags.writable();
    }
    let parameters = all_parameters(sum, fstype, kernel_type, flags.is_read_only(), label, at)?;
    let source = match mount.source().as_deref().filter(|source| !source.as_os_str().is_empty()) {
        Some(source) => Some(path::c_string(source, &at.field("source"))?),
        None => None,
    };
    let is_too_long = is_too_long(fstype, source.as_ref(), &parameters);
    let has_mode = sum.data.iter().any(|(_, option)| option.starts_with("mode="));
    let held = delay.then(Held::default);
    let seal = delay.then(|| seal(&target, held.clone()));
    let step = Step::Mount(Mount {
        old_style: is_too_long.then(|| old_style(&parameters, &at.field("options"))).transpose()?,
        fstype: path::c_string(Path::new(kernel_type), &at.field("type"))?,
        source,
        parameters,
        attributes: MountAttrFlags::from_bits_retain(u32::try_from(flags.attributes().set)?),
        propagation: propagation(sum),
        stand_in: (kernel_type == "cgroup2").then(|| c"/sys/fs/cgroup".into()),
        // mqueue takes no context as a parameter; as in runc and crun.
        label: label.filter(|_| kernel_type == "mqueue").map(|label| label.context.clone()),
        inherit_mode: fstype == "tmpfs" && !has_mode,
        copy_up: sum.copy_up.is_some(),
        held,
        target,
    });
    Ok((step, seal))
}

/// The parameters from the mount's options, read-only for the file system itself, and the SELinux label.
fn all_parameters(
    sum: &Options<'_>,
    fstype: &str,
    kernel_type: &str,
    is_read_only: bool,
    label: Option<&Label>,
    at: &Pointer,
) -> Result<Vec<Parameter>> {
    // cgroup2 has no options but those of its first mount, which belong to the host.
    let mut parameters = if kernel_type == "cgroup2" { Vec::new() } else { parameters(sum, fstype, at)? };
    let of_kernel = matches!(kernel_type, "proc" | "sysfs" | "cgroup2" | "mqueue" | "devpts");
    if is_read_only && !of_kernel {
        parameters.push(Parameter { key: c"ro".into(), value: None, option: Parameter::NOT_AN_OPTION });
    }
    if let Some(label) = label.filter(|_| !matches!(kernel_type, "proc" | "sysfs" | "cgroup2" | "mqueue")) {
        parameters.push(Parameter {
            key: label.key.into(),
            value: Some(label.context.clone()),
            option: Parameter::NOT_AN_OPTION,
        });
    }
    Ok(parameters)
}

/// Whether a value is too long for fsconfig(2). A tmpfs has no such values.
fn is_too_long(fstype: &str, source: Option<&CString>, parameters: &[Parameter]) -> bool {
    let values = parameters.iter().filter_map(|parameter| parameter.value.as_ref());
    fstype != "tmpfs" && source.into_iter().chain(values).any(|text| text.as_bytes().len() >= LONGEST_VALUE)
}

fn seal(target: &MountTarget, mount: Option<Held>) -> Step {
    let attributes = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
    Step::Seal { path: target.path.clone(), mount, attributes }
}

fn propagation(sum: &Options<'_>) -> Option<(u64, Recursion)> {
    [(sum.whole_tree, Recursion::WholeTree), (sum.this_mount, Recursion::ThisMount)]
        .map(|(flags, reach)| (flags.attributes().propagation, reach))
        .into_iter()
        .find(|(kind, _)| *kind != 0)
}

/// The options that are parameters of the file system itself.
///
/// # Errors
/// If one has no name or contains a NUL; if there are too many for [`Parameter::option`].
pub(super) fn parameters(sum: &Options<'_>, fstype: &str, at: &Pointer) -> Result<Vec<Parameter>> {
    let at = at.field("options");
    let mut parameters = Vec::with_capacity(sum.data.len() + 2);
    let data = sum.data.iter().flat_map(|(index, option)| {
        // An option can be a list with commas, as for mount(2); but a comma can also be part of a value.
        let is_one = fstype == "overlay" || option.contains(['\\', '"']);
        let parts = option.splitn(if is_one { 1 } else { usize::MAX }, ',');
        parts.filter(|part| !part.is_empty()).map(|part| (*index, part))
    });
    for (index, option) in sum.flags.iter().copied().chain(data) {
        let at = at.index(index);
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (option, None),
        };
        if key.is_empty() {
            return Err(at.error(format_args!("unknown mount option {option:?}")));
        }
        let key = path::c_string(Path::new(key), &at)?;
        let value = value
            .map(|value| if is_context(&key) { unquoted(value) } else { value })
            .map(|value| path::c_string(Path::new(value), &at))
            .transpose()?;
        let option = u16::try_from(index)
            .ok()
            .filter(|index| *index < Parameter::NOT_AN_OPTION)
            .ok_or_else(|| at.error("too many options"))?;
        parameters.push(Parameter { key, value, option });
    }
    Ok(parameters)
}

fn is_context(key: &CStr) -> bool {
    CONTEXTS.contains(&key)
}

/// fsconfig(2) takes a value without quotes.
fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// All parameters in the form of mount(2).
///
/// # Errors
/// If they do not fit into a page.
fn old_style(parameters: &[Parameter], at: &Pointer) -> Result<OldStyle> {
    let mut flags = 0;
    let mut words = Vec::with_capacity(parameters.len());
    for Parameter { key, value, .. } in parameters {
        match value {
            None => match OLD_FLAGS.iter().find(|(flag, _)| *flag == key.as_c_str()) {
                Some((_, flag)) => flags |= flag,
                None => words.push(key.as_bytes().to_vec()),
            },
            Some(value) if is_context(key) => {
                words.push([key.as_bytes(), b"=\"", value.as_bytes(), b"\""].concat());
            }
            Some(value) => words.push([key.as_bytes(), b"=", value.as_bytes()].concat()),
        }
    }
    let data = CString::new(words.join(&b','))?;
    if data.as_bytes().len() > 4095 {
        return Err(at.error("options exceed the kernel's limit of 4095 bytes"));
    }
    Ok(OldStyle { data, flags })
}
