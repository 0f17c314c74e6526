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

/// The longest value, with its NUL, that fsconfig(2) takes; mount(2) takes a page for all of them.
const LONGEST_VALUE: usize = 256;

/// Parameters with SELinux's contexts: their values have commas of their own, for which mount(8) and the engines put them
/// between quotes.
const CONTEXTS: [&CStr; 4] = [c"context", c"fscontext", c"defcontext", c"rootcontext"];

/// What the flags of a file system are called in mount(2); the others are so without being asked for.
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

/// The step, and the one that makes its mount read-only in the end.
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
    // The kernel knows version 2, the only one here, as cgroup2.
    let kernel_type = if fstype == "cgroup" { "cgroup2" } else { fstype };
    let of_kernel = matches!(kernel_type, "proc" | "sysfs" | "cgroup2" | "mqueue" | "devpts");
    // A new file system is a tree of one mount.
    let mut flags = sum.this_mount.then(sum.whole_tree);
    // These are to be filled before they can be read-only: device nodes, mount points, copied files.
    let delay = flags.is_read_only() && (fstype == "tmpfs" || target.path.as_bytes() == b"/dev");
    if delay {
        flags = flags.writable();
    }
    // Version 2 has no options but those of its first mount, which belong to the host.
    let mut parameters = if kernel_type == "cgroup2" { Vec::new() } else { parameters(sum, fstype, at)? };
    if flags.is_read_only() && !of_kernel {
        parameters.push(Parameter { key: c"ro".into(), value: None, option: Parameter::NOT_AN_OPTION });
    }
    if let Some(label) = label.filter(|_| !matches!(kernel_type, "proc" | "sysfs" | "cgroup2" | "mqueue")) {
        parameters.push(Parameter {
            key: label.key.into(),
            value: Some(label.context.clone()),
            option: Parameter::NOT_AN_OPTION,
        });
    }
    let source = match mount.source().as_deref().filter(|source| !source.as_os_str().is_empty()) {
        Some(source) => Some(path::c_string(source, &at.field("source"))?),
        None => None,
    };
    let too_long = |text: &CString| text.as_bytes().len() >= LONGEST_VALUE;
    // A tmpfs has no such values.
    let is_too_long = fstype != "tmpfs"
        && (source.as_ref().is_some_and(too_long)
            || parameters.iter().any(|parameter| parameter.value.as_ref().is_some_and(too_long)));
    let has_mode = sum.data.iter().any(|(_, option)| option.starts_with("mode="));
    let held = delay.then(Held::default);
    let seal = Step::Seal {
        path: target.path.clone(),
        mount: held.clone(),
        attributes: Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() },
    };
    let step = Step::Mount(Mount {
        old_style: is_too_long.then(|| old_style(&parameters, &at.field("options"))).transpose()?,
        fstype: path::c_string(Path::new(kernel_type), &at.field("type"))?,
        source,
        parameters,
        attributes: MountAttrFlags::from_bits_retain(u32::try_from(flags.attributes().set)?),
        propagation: propagation(sum),
        stand_in: (kernel_type == "cgroup2").then(|| c"/sys/fs/cgroup".into()),
        // It takes no context as a parameter; as in runc and crun.
        label: label.filter(|_| kernel_type == "mqueue").map(|label| label.context.clone()),
        inherit_mode: fstype == "tmpfs" && !has_mode,
        copy_up: sum.copy_up.is_some(),
        held,
        target,
    });
    Ok((step, delay.then_some(seal)))
}

fn propagation(sum: &Options<'_>) -> Option<(u64, Recursion)> {
    [(sum.whole_tree, Recursion::WholeTree), (sum.this_mount, Recursion::ThisMount)]
        .map(|(flags, reach)| (flags.attributes().propagation, reach))
        .into_iter()
        .find(|(kind, _)| *kind != 0)
}

/// What of the options is for the file system itself.
pub(super) fn parameters(sum: &Options<'_>, fstype: &str, at: &Pointer) -> Result<Vec<Parameter>> {
    let at = at.field("options");
    let mut parameters = Vec::with_capacity(sum.data.len() + 2);
    let data = sum.data.iter().flat_map(|(index, option)| {
        // One option can hold several, as mount(2) would take it apart; but a comma can also belong to a value.
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

/// fsconfig(2) takes the value itself.
fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// All parameters as mount(2) takes them.
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
