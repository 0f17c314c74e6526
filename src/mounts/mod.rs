//! The mounts of `config.json`; config.md § Mounts. The one thing to know: everything is decided here, on the text alone;
//! what is on disk is looked at by the init process, through descriptors.

mod options;

use std::ffi::CString;
use std::path::Path;

use anyhow::Result;
use oci_spec::runtime;
use rustix::mount::MountAttrFlags;

use self::options::Options;
pub use self::options::known as known_options;
use crate::error::Pointer;
use crate::init::step::{Bind, Mount, Parameter, Remount, Step, Target, TargetRule};
use crate::path;
use crate::sys::mount::{Attributes, Reach};

/// Options of ID-mapped mounts, which are refused by name.
const IDMAP: [&str; 2] = ["idmap", "ridmap"];

/// The longest value, with its NUL, that fsconfig(2) takes; mount(2) takes a page for all of them.
const LONGEST_VALUE: usize = 256;

/// The files of procfs that may be covered; the list of runc and crun. Everything else there tells programs, security
/// modules among them, about the kernel (CVE-2019-16884).
const COVERABLE: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// What is mounted, in order.
#[derive(Debug, Default)]
pub struct MountPlan {
    pub mounts: Vec<Numbered>,
    /// What of it is to be read-only, but only after everything below it is in place: a tmpfs, or /dev.
    pub seals: Vec<Numbered>,
    /// Whether /dev is a part of the host's tree, in which nothing is made.
    pub dev_is_bound: bool,
}

/// A step and the index in `/mounts` of what it is for.
pub type Numbered = (usize, Step);

/// What the mounts depend on.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    /// Relative sources of binds start here.
    pub bundle: &'a Path,
    pub mount_namespace: bool,
}

/// Decides about `mounts`, the value at `at` (`/mounts`).
pub fn plan(mounts: &[runtime::Mount], around: Around<'_>, at: &Pointer) -> Result<MountPlan> {
    if !mounts.is_empty() && !around.mount_namespace {
        return Err(at.error_with_hint(
            "mounts need a mount namespace",
            "add {\"type\": \"mount\"} to /linux/namespaces; without one they would be made on the host",
        ));
    }
    let mut plan = MountPlan::default();
    for (index, mount) in mounts.iter().enumerate() {
        let (step, seal) = one(mount, around, &at.index(index))?;
        plan.dev_is_bound |= matches!(&step, Step::Bind(bind) if bind.target.path.as_bytes() == b"/dev");
        plan.mounts.push((index, step));
        plan.seals.extend(seal.map(|seal| (index, seal)));
    }
    Ok(plan)
}

/// The step, and the one that makes its mount read-only in the end.
fn one(mount: &runtime::Mount, around: Around<'_>, at: &Pointer) -> Result<(Step, Option<Step>)> {
    let empty = Vec::new();
    let options = mount.options().as_ref().unwrap_or(&empty);
    refuse_id_mapping(mount, options, at)?;
    let sum = Options::parse(options);
    let fstype = mount.typ().as_deref().unwrap_or("none");
    let is_bind = sum.bind.is_some() || fstype == "bind";
    let target = target(mount, &sum, fstype, is_bind, &at.field("destination"))?;
    let (this_mount, whole_tree) = (sum.this_mount.attributes(), sum.whole_tree.attributes());
    if sum.remount {
        let parameters = if is_bind { Vec::new() } else { parameters(&sum, fstype, at)? };
        return Ok((Step::Remount(Remount { parameters, this_mount, whole_tree, target }), None));
    }
    if is_bind {
        return bind(mount, &sum, options, around, target, at).map(|step| (step, None));
    }
    if let (true, "proc" | "sysfs" | "cgroup" | "cgroup2" | "mqueue" | "devpts") = (sum.copy_up, fstype) {
        return Err(at.field("options").error("option \"tmpcopyup\" needs type \"tmpfs\""));
    }
    file_system(mount, &sum, fstype, target, at)
}

fn bind(
    mount: &runtime::Mount,
    sum: &Options<'_>,
    options: &[String],
    around: Around<'_>,
    target: Target,
    at: &Pointer,
) -> Result<Step> {
    if let Some((index, option)) = sum.data.first() {
        let message = match option.split_once('=') {
            Some(_) => format!("a bind mount has no file system to give option {option:?} to"),
            None => format!("unknown mount option {option:?}"),
        };
        return Err(at.field("options").index(*index).error(message));
    }
    if sum.copy_up {
        let index = options.iter().position(|option| option == "tmpcopyup").unwrap_or(0);
        return Err(at.field("options").index(index).error("option \"tmpcopyup\" needs type \"tmpfs\""));
    }
    let at = at.field("source");
    let source = mount.source().as_deref().filter(|source| !source.as_os_str().is_empty());
    let source = source.ok_or_else(|| at.error("a bind mount needs a source"))?;
    Ok(Step::Bind(Bind {
        source: path::c_string(&around.bundle.join(source), &at)?,
        follow_source: !sum.no_follow_source && !sum.copy_symlink,
        copy_symlink: sum.copy_symlink,
        recursive: sum.bind == Some(Reach::WholeTree),
        this_mount: sum.this_mount.attributes(),
        whole_tree: sum.whole_tree.attributes(),
        target,
    }))
}

fn file_system(
    mount: &runtime::Mount,
    sum: &Options<'_>,
    fstype: &str,
    target: Target,
    at: &Pointer,
) -> Result<(Step, Option<Step>)> {
    if fstype == "none" || fstype.is_empty() {
        return Err(at.field("type").error_with_hint(
            "a mount needs a type",
            "name a file system such as \"tmpfs\", or use option \"bind\" or \"rbind\"",
        ));
    }
    // The kernel knows version 2, the only one here, as cgroup2.
    let kernel_type = if fstype == "cgroup" { "cgroup2" } else { fstype };
    let of_kernel = matches!(fstype, "proc" | "sysfs" | "cgroup" | "cgroup2" | "mqueue" | "devpts");
    // These are to be filled before they can be read-only: device nodes, mount points, copied files.
    let read_only = sum.this_mount.is_read_only() || sum.whole_tree.is_read_only();
    let delay = read_only && (fstype == "tmpfs" || target.path.as_bytes() == b"/dev");
    let (mut flags, mut tree) = (sum.this_mount, sum.whole_tree);
    if delay {
        (flags, tree) = (flags.writable(), tree.writable());
    }
    let attributes = flags.attributes().set | tree.attributes().set;
    // Version 2 has no options but those of its first mount, which belong to the host; runc passes none either.
    let mut parameters = if kernel_type == "cgroup2" { Vec::new() } else { parameters(sum, fstype, at)? };
    if flags.is_read_only() && !of_kernel {
        parameters.push(Parameter { key: c"ro".into(), value: None, option: 0 });
    }
    let propagation = [(sum.whole_tree, Reach::WholeTree), (sum.this_mount, Reach::ThisMount)]
        .map(|(flags, reach)| (flags.attributes().propagation, reach))
        .into_iter()
        .find(|(kind, _)| *kind != 0);
    let has_mode = sum.data.iter().any(|(_, option)| option.starts_with("mode="));
    let seal = Step::Seal {
        path: target.path.clone(),
        attributes: Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() },
    };
    let source = match mount.source().as_deref().filter(|source| !source.as_os_str().is_empty()) {
        Some(source) => Some(path::c_string(source, &at.field("source"))?),
        None => None,
    };
    let too_long = |text: &CString| text.as_bytes().len() >= LONGEST_VALUE;
    // A tmpfs has no such values, and much to do that mount(2) cannot.
    let is_too_long = fstype != "tmpfs"
        && (source.as_ref().is_some_and(too_long)
            || parameters.iter().any(|parameter| parameter.value.as_ref().is_some_and(too_long)));
    if is_too_long && propagation.is_some() {
        return Err(at
            .field("options")
            .error("a propagation cannot be had together with options longer than 255 bytes"));
    }
    let step = Step::Mount(Mount {
        data: if is_too_long { Some(joined(&parameters, &at.field("options"))?) } else { None },
        fstype: path::c_string(Path::new(kernel_type), &at.field("type"))?,
        source,
        parameters,
        attributes: MountAttrFlags::from_bits_retain(u32::try_from(attributes)?),
        propagation,
        inherit_mode: fstype == "tmpfs" && !has_mode,
        copy_up: sum.copy_up,
        target,
    });
    Ok((step, delay.then_some(seal)))
}

fn parameters(sum: &Options<'_>, fstype: &str, at: &Pointer) -> Result<Vec<Parameter>> {
    let at = at.field("options");
    let mut parameters = Vec::with_capacity(sum.data.len());
    let data = sum.data.iter().flat_map(|(index, option)| {
        // One option can hold several, as mount(2) would take it apart; but a comma can also belong to a value.
        let is_one = fstype == "overlay" || option.contains(['\\', '"']);
        let parts = option.splitn(if is_one { 1 } else { usize::MAX }, ',');
        parts.filter(|part| !part.is_empty()).map(|part| (*index, part))
    });
    for (index, option) in sum.flags.iter().copied().chain(data) {
        let at = at.index(index);
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key, Some(c_string(value, &at)?)),
            None => (option, None),
        };
        if key.is_empty() {
            return Err(at.error(format_args!("unknown mount option {option:?}")));
        }
        let option = u16::try_from(index).map_err(|_| at.error("there are too many options"))?;
        parameters.push(Parameter { key: c_string(key, &at)?, value, option });
    }
    Ok(parameters)
}

/// All parameters as mount(2) takes them.
fn joined(parameters: &[Parameter], at: &Pointer) -> Result<CString> {
    let one = |parameter: &Parameter| match &parameter.value {
        Some(value) => [parameter.key.as_bytes(), b"=", value.as_bytes()].concat(),
        None => parameter.key.as_bytes().to_vec(),
    };
    let words: Vec<_> =
        parameters.iter().filter(|parameter| parameter.key.as_c_str() != c"ro").map(one).collect();
    CString::new(words.join(&b','))
        .ok()
        .filter(|data| data.as_bytes().len() < 4096)
        .ok_or_else(|| at.error("the options are longer than the 4095 bytes that the kernel takes"))
}

fn target(
    mount: &runtime::Mount,
    sum: &Options<'_>,
    fstype: &str,
    is_bind: bool,
    at: &Pointer,
) -> Result<Target> {
    let path = path::inside(mount.destination(), at)?;
    let text = path.to_str().unwrap_or_default();
    if text == "/" {
        return Err(at.error_with_hint(
            format_args!("{:?} is the root itself", mount.destination()),
            "set /root/path to what is to be the root",
        ));
    }
    let rule = match text {
        "/proc" if is_bind => TargetRule::ProcFromHost,
        "/proc" if fstype != "proc" && !sum.remount => {
            return Err(at.error(format_args!("only type \"proc\" can be mounted on /proc, not {fstype:?}")));
        }
        _ if matches!(fstype, "proc" | "sysfs") && !is_bind => TargetRule::KernelDirectory,
        _ if COVERABLE.contains(&text) => TargetRule::ListedProcFile,
        _ if text.starts_with("/proc/") && !sum.remount => {
            return Err(at.error(format_args!(
                "{:?} cannot be mounted because it is inside /proc",
                mount.destination()
            )));
        }
        _ if sum.no_follow_target => TargetRule::NoFollow,
        _ => TargetRule::Usual,
    };
    Ok(Target { path, rule })
}

fn refuse_id_mapping(mount: &runtime::Mount, options: &[String], at: &Pointer) -> Result<()> {
    if let Some((index, option)) =
        options.iter().enumerate().find(|(_, option)| IDMAP.iter().any(|idmap| option.starts_with(idmap)))
    {
        let message = format!("option {option:?} is refused: this version makes no ID-mapped mounts");
        return Err(at.field("options").index(index).error(message));
    }
    for (name, mappings) in [("uidMappings", mount.uid_mappings()), ("gidMappings", mount.gid_mappings())] {
        if mappings.as_ref().is_some_and(|mappings| !mappings.is_empty()) {
            return Err(at.field(name).error("mappings are refused: this version makes no ID-mapped mounts"));
        }
    }
    Ok(())
}

fn c_string(text: &str, at: &Pointer) -> Result<CString> {
    path::c_string(Path::new(text), at)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::line;

    fn around() -> Around<'static> {
        Around { bundle: Path::new("/bundle"), mount_namespace: true }
    }

    fn planned(value: &serde_json::Value) -> Result<Vec<Step>> {
        let mounts: Vec<runtime::Mount> = serde_json::from_value(value.clone()).unwrap();
        let MountPlan { mounts, seals, .. } = plan(&mounts, around(), &Pointer::root().field("mounts"))?;
        Ok(mounts.into_iter().chain(seals).map(|(_, step)| step).collect())
    }

    fn refused(value: &serde_json::Value) -> String {
        line(&planned(&json!([value])).unwrap_err())
    }

    #[test]
    fn an_unknown_option_of_a_bind_is_named_with_its_place() {
        assert_eq!(
            refused(&json!({"destination": "/a", "type": "bind", "source": "/", "options": ["ro", "rbnid"]})),
            "config.json: /mounts/0/options/1: unknown mount option \"rbnid\""
        );
    }

    #[test]
    fn one_option_can_hold_several_unless_its_commas_are_its_own() {
        let keys = |fstype: &str, option: &str| -> Vec<String> {
            let mount = json!([{"destination": "/a", "type": fstype, "options": ["nosuid", option]}]);
            let [Step::Mount(mount)] = &planned(&mount).unwrap()[..] else { panic!("one mount") };
            assert!(mount.parameters.iter().all(|parameter| parameter.option == 1));
            mount.parameters.iter().map(|parameter| parameter.key.to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(keys("tmpfs", "size=64k,mode=700"), ["size", "mode"]);
        assert_eq!(keys("overlay", "lowerdir=/a,b"), ["lowerdir"]);
        assert_eq!(keys("tmpfs", "context=\"a:b,c\""), ["context"]);
    }

    #[test]
    fn options_too_long_for_the_new_interface_are_given_to_the_old_one() {
        let long = format!("lowerdir={}", ["/layer"; 60].join(":"));
        let mount = json!([{"destination": "/a", "type": "overlay", "options": [long, "index=off", "ro"]}]);
        let [Step::Mount(mount)] = &planned(&mount).unwrap()[..] else { panic!("one mount") };
        assert_eq!(mount.data.as_ref().unwrap().to_str().unwrap(), format!("{long},index=off"));
    }

    #[test]
    fn a_relative_source_of_a_bind_starts_at_the_bundle() {
        let steps = planned(&json!([{"destination": "/a", "source": "data", "options": ["rbind"]}])).unwrap();
        let [Step::Bind(bind)] = steps.as_slice() else { panic!("{steps:?}") };
        assert_eq!(bind.source.as_c_str(), c"/bundle/data");
        assert!(bind.recursive);
    }

    #[test]
    fn a_read_only_tmpfs_is_sealed_after_all_mounts() {
        let steps = planned(&json!([
            {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "size=1m"]},
            {"destination": "/run/a", "type": "bind", "source": "/a"}
        ]))
        .unwrap();
        let [Step::Mount(mount), Step::Bind(_), Step::Seal { path, .. }] = steps.as_slice() else {
            panic!("{steps:?}")
        };
        assert!(!mount.attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY));
        assert_eq!(path.as_c_str(), c"/run");
    }

    #[test]
    fn nothing_but_proc_is_mounted_on_proc() {
        assert_eq!(
            refused(&json!({"destination": "/proc/", "type": "tmpfs"})),
            "config.json: /mounts/0/destination: only type \"proc\" can be mounted on /proc, not \"tmpfs\""
        );
        assert_eq!(
            refused(&json!({"destination": "/proc/../proc/self", "type": "bind", "source": "/a"})),
            "config.json: /mounts/0/destination: \"/proc/../proc/self\" cannot be mounted because it is inside /proc"
        );
        assert!(planned(&json!([{"destination": "/proc/uptime", "type": "bind", "source": "/a"}])).is_ok());
    }

    #[test]
    fn mounts_without_a_mount_namespace_are_refused() {
        let mounts: Vec<runtime::Mount> = serde_json::from_value(json!([{"destination": "/a"}])).unwrap();
        let around = Around { mount_namespace: false, ..around() };
        let error = plan(&mounts, around, &Pointer::root().field("mounts")).unwrap_err();
        assert!(line(&error).starts_with("config.json: /mounts: mounts need a mount namespace"));
    }

    #[test]
    fn a_mount_without_a_type_is_refused() {
        assert_eq!(
            refused(&json!({"destination": "/a"})),
            "config.json: /mounts/0/type: a mount needs a type (name a file system such as \"tmpfs\", or use option \
             \"bind\" or \"rbind\")"
        );
    }

    #[test]
    fn the_root_cannot_be_a_destination() {
        assert!(refused(&json!({"destination": "/a/..", "type": "tmpfs"})).contains("is the root itself"));
    }
}
