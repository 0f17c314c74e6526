//! The mounts of `config.json`; config.md § Mounts. Everything is decided on the text alone: the init process
//! looks at the disk, through descriptors.

mod file_system;
mod id_map;
mod options;

use std::ffi::{CStr, CString};
use std::path::Path;

use anyhow::Result;
use oci_spec::runtime;
use rustix::mount::MountAttrFlags;

pub use self::id_map::{IdMapping, Origin};
use self::options::Options;
pub use self::options::known as known_options;
use crate::error::Pointer;
use crate::host::path;
use crate::init::step::{Bind, MountTarget, Remount, Step, TargetRule};
use crate::sys::mount::Recursion;
use crate::sys::weakened;

/// The files of procfs that may be mounted over; the list of runc and crun. Everything else in procfs tells
/// programs, including security modules, about the kernel (CVE-2019-16884).
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

/// The mounts, in order.
#[derive(Debug, Default)]
pub struct MountPlan {
    pub mounts: Vec<Numbered>,
    /// The mounts that become read-only only after everything below them is in place: tmpfs and /dev.
    pub seals: Vec<Numbered>,
    /// The id-mapped bind mounts, with their indices in `/mounts`.
    pub id_mappings: Vec<(usize, IdMapping)>,
    /// Whether /dev is bind-mounted from the host, so that nothing is created in it.
    pub dev_is_bound: bool,
    /// Deprecated usage, one message each.
    pub warnings: Vec<String>,
}

/// A step and the index of its mount in `/mounts`.
pub type Numbered = (usize, Step);

/// What the mounts depend on.
#[derive(Debug, Clone, Copy)]
pub struct MountContext<'a> {
    /// Relative bind sources start here.
    pub bundle: &'a Path,
    pub rootfs: &'a Path,
    pub mount_namespace: bool,
    pub label: Option<&'a Label>,
}

/// The SELinux label of the container's files.
#[derive(Clone, Debug)]
pub struct Label {
    /// The mount option that takes it: `context` or a related one; mount(8).
    pub key: &'static CStr,
    pub context: CString,
}

impl MountPlan {
    /// The user and group ids in options of new file systems: `uid` or `gid`, the id, and the indices of
    /// mount and option.
    pub fn ids(&self) -> impl Iterator<Item = (&str, u32, usize, usize)> {
        self.mounts.iter().flat_map(|(mount, step)| {
            let parameters = match step {
                Step::Mount(mount) => &mount.parameters[..],
                _ => &[],
            };
            parameters.iter().filter_map(|parameter| {
                let key = parameter.key.to_str().ok().filter(|key| matches!(*key, "uid" | "gid"))?;
                let id = parameter.value.as_ref()?.to_str().ok()?.parse().ok()?;
                Some((key, id, *mount, usize::from(parameter.option)))
            })
        })
    }

    /// Whether the container can write to its cgroups, as defined in config-linux.md § Cgroup ownership.
    pub fn has_writable_cgroups(&self) -> bool {
        self.mounts.iter().any(|(_, step)| match step {
            Step::Mount(mount) => {
                mount.fstype.as_c_str() == c"cgroup2"
                    && mount.target.path.as_c_str() == c"/sys/fs/cgroup"
                    && mount.source.as_deref() == Some(c"cgroup")
                    && !mount.attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY)
            }
            _ => false,
        })
    }
}

/// Plans `mounts`, the array at `at` (`/mounts`).
pub fn plan(mounts: &[runtime::Mount], around: MountContext<'_>, at: &Pointer) -> Result<MountPlan> {
    if !mounts.is_empty() && !around.mount_namespace {
        return Err(at.error_with_hint(
            "mounts require a mount namespace",
            "add {\"type\": \"mount\"} to /linux/namespaces; otherwise they would be created on the host",
        ));
    }
    let mut plan = MountPlan::default();
    for (index, mount) in mounts.iter().enumerate() {
        let (step, seal, id_mapping) = one(mount, around, &at.index(index))?;
        plan.dev_is_bound |= matches!(&step, Step::Bind(bind) if bind.target.path.as_bytes() == b"/dev");
        if mount.destination().is_relative() {
            let at = at.index(index).field("destination");
            let destination = mount.destination();
            plan.warnings
                .push(format!("{at}: relative path {destination:?} is deprecated, using it relative to /"));
        }
        plan.mounts.push((index, step));
        plan.seals.extend(seal.map(|seal| (index, seal)));
        plan.id_mappings.extend(id_mapping.map(|mapping| (index, mapping)));
    }
    Ok(plan)
}

/// The step, the step that makes the mount read-only at the end, and the id mapping.
type Planned = (Step, Option<Step>, Option<IdMapping>);

fn one(mount: &runtime::Mount, around: MountContext<'_>, at: &Pointer) -> Result<Planned> {
    let empty = Vec::new();
    let options = mount.options().as_ref().unwrap_or(&empty);
    let sum = Options::parse(options);
    let fstype = mount.typ().as_deref().unwrap_or("none");
    let is_bind = sum.bind.is_some() || fstype == "bind";
    let id_mapping = id_map::plan(mount, &sum, is_bind, at)?;
    if let Some(index) = sum.copy_up {
        if is_bind || fstype != "tmpfs" {
            return Err(at
                .field("options")
                .index(index)
                .error("option \"tmpcopyup\" requires type \"tmpfs\""));
        }
    }
    let target = target(mount, &sum, fstype, is_bind, around.rootfs, &at.field("destination"))?;
    let (this_mount, whole_tree) = (sum.this_mount.attributes(), sum.whole_tree.attributes());
    if sum.remount {
        let parameters = if is_bind { Vec::new() } else { file_system::parameters(&sum, fstype, at)? };
        return Ok((Step::Remount(Remount { parameters, this_mount, whole_tree, target }), None, None));
    }
    if is_bind {
        return bind(mount, &sum, around, target, at).map(|step| (step, None, id_mapping));
    }
    let (step, seal) = file_system::plan(mount, &sum, fstype, around.label, target, at)?;
    Ok((step, seal, None))
}

fn bind(
    mount: &runtime::Mount,
    sum: &Options<'_>,
    around: MountContext<'_>,
    target: MountTarget,
    at: &Pointer,
) -> Result<Step> {
    if let Some((index, option)) = sum.data.first() {
        let message = match option.split_once('=') {
            Some(_) => format!("bind mounts do not support file system option {option:?}"),
            None => format!("unknown mount option {option:?}"),
        };
        return Err(at.field("options").index(*index).error(message));
    }
    let at = at.field("source");
    let source = mount.source().as_deref().filter(|source| !source.as_os_str().is_empty());
    let source = source.ok_or_else(|| at.error("bind mount has no source"))?;
    Ok(Step::Bind(Bind {
        source: path::c_string(&around.bundle.join(source), &at)?,
        tree: None,
        maps_ids: false,
        follow_source: !sum.no_follow_source && !sum.copy_symlink,
        copy_symlink: sum.copy_symlink,
        recursive: sum.bind == Some(Recursion::WholeTree),
        this_mount: sum.this_mount.exactly(),
        beside_locked: sum.this_mount.beside_locked(),
        whole_tree: sum.whole_tree.attributes(),
        target,
    }))
}

fn target(
    mount: &runtime::Mount,
    sum: &Options<'_>,
    fstype: &str,
    is_bind: bool,
    rootfs: &Path,
    at: &Pointer,
) -> Result<MountTarget> {
    // Some tools give the destination as a path on the host; runc accepts that as well.
    let destination = mount.destination();
    let path = path::inside(destination.strip_prefix(rootfs).unwrap_or(destination), at)?;
    let text = path.to_str().unwrap_or_default();
    if text == "/" {
        return Err(at.error_with_hint(
            format_args!("destination {:?} is the root directory", mount.destination()),
            "set /root/path to the wanted root instead",
        ));
    }
    let rule = match text {
        _ if weakened::is_off("CVE-2019-16884") => TargetRule::Usual,
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
    Ok(MountTarget { path, rule })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::line;

    fn around() -> MountContext<'static> {
        let (bundle, rootfs) = (Path::new("/bundle"), Path::new("/bundle/rootfs"));
        MountContext { bundle, rootfs, mount_namespace: true, label: None }
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
        let old_style = mount.old_style.as_ref().unwrap();
        assert_eq!(old_style.data.to_str().unwrap(), format!("{long},index=off"));
        assert_eq!(old_style.flags, libc::MS_RDONLY);
    }

    #[test]
    fn a_destination_as_the_host_sees_it_is_understood() {
        let path = |destination: &str| {
            let mount = json!([{"destination": destination, "type": "tmpfs"}]);
            let [Step::Mount(mount)] = &planned(&mount).unwrap()[..] else { panic!("one mount") };
            mount.target.path.to_str().unwrap().to_owned()
        };
        assert_eq!(path("/bundle/rootfs/mnt"), "/mnt");
        assert_eq!(path("/bundle/rootfs2/mnt"), "/bundle/rootfs2/mnt");
        assert_eq!(path("/bundle"), "/bundle");
        let refused = refused(&json!({"destination": "/bundle/rootfs/proc/self", "type": "tmpfs"}));
        assert!(refused.contains("cannot be mounted because it is inside /proc"), "{refused}");
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
        let around = MountContext { mount_namespace: false, ..around() };
        let error = plan(&mounts, around, &Pointer::root().field("mounts")).unwrap_err();
        assert!(line(&error).starts_with("config.json: /mounts: mounts require a mount namespace"));
    }

    #[test]
    fn only_a_tmpfs_can_start_with_what_it_covers() {
        for mount in [
            json!({"destination": "/a", "type": "overlay", "options": ["ro", "tmpcopyup"]}),
            json!({"destination": "/a", "type": "proc", "options": ["ro", "tmpcopyup"]}),
            json!({"destination": "/a", "source": "/b", "options": ["bind", "tmpcopyup"]}),
            json!({"destination": "/a", "type": "tmpfs", "source": "/b", "options": ["rbind", "tmpcopyup"]}),
        ] {
            assert_eq!(
                refused(&mount),
                "config.json: /mounts/0/options/1: option \"tmpcopyup\" requires type \"tmpfs\""
            );
        }
    }

    #[test]
    fn recursive_options_of_a_new_file_system_come_after_the_others() {
        let attributes = |options: &[&str]| {
            let mount = json!([{"destination": "/a", "type": "ramfs", "options": options}]);
            let [Step::Mount(mount)] = &planned(&mount).unwrap()[..] else { panic!("one mount") };
            mount.attributes
        };
        assert_eq!(attributes(&["rrw", "ro"]), MountAttrFlags::empty());
        assert_eq!(attributes(&["rnosuid", "suid"]), MountAttrFlags::MOUNT_ATTR_NOSUID);
        assert_eq!(attributes(&["noatime", "rstrictatime"]), MountAttrFlags::MOUNT_ATTR_STRICTATIME);
    }

    #[test]
    fn the_label_goes_to_the_file_systems_that_take_it() {
        let label = Label { key: c"fscontext", context: c"u:r:t:s0:c1,c2".into() };
        let around = MountContext { label: Some(&label), ..around() };
        let planned = |kind: &str| {
            let mount = json!([{"destination": "/sys", "type": kind, "options": ["context=\"x:y,z\""]}]);
            let mounts: Vec<runtime::Mount> = serde_json::from_value(mount).unwrap();
            match plan(&mounts, around, &Pointer::root()).unwrap().mounts.pop() {
                Some((_, Step::Mount(mount))) => mount,
                other => panic!("{other:?}"),
            }
        };
        let mount = planned("tmpfs");
        let [own, label] = &mount.parameters[..] else { panic!("{mount:?}") };
        assert_eq!((own.key.as_c_str(), own.value.as_deref()), (c"context", Some(c"x:y,z")));
        assert_eq!((label.key.as_c_str(), label.value.as_deref()), (c"fscontext", Some(c"u:r:t:s0:c1,c2")));
        assert_eq!(planned("sysfs").parameters.len(), 1);
        assert!(planned("cgroup").parameters.is_empty());
        assert_eq!(planned("mqueue").label.as_deref(), Some(c"u:r:t:s0:c1,c2"));
    }

    #[test]
    fn a_label_among_long_options_keeps_its_commas() {
        let label = Label { key: c"context", context: c"u:r:t:s0:c1,c2".into() };
        let around = MountContext { label: Some(&label), ..around() };
        let long = format!("lowerdir={}", "/layer".repeat(60));
        let mount = json!([{"destination": "/a", "type": "overlay", "options": [long, "sync", "shared"]}]);
        let mounts: Vec<runtime::Mount> = serde_json::from_value(mount).unwrap();
        let Some((_, Step::Mount(mount))) = plan(&mounts, around, &Pointer::root()).unwrap().mounts.pop()
        else {
            panic!("one mount")
        };
        let old_style = mount.old_style.unwrap();
        assert_eq!(old_style.data.to_str().unwrap(), format!("{long},context=\"u:r:t:s0:c1,c2\""));
        assert_eq!(old_style.flags, libc::MS_SYNCHRONOUS);
        assert_eq!(mount.propagation, Some((libc::MS_SHARED, Recursion::ThisMount)));
    }

    #[test]
    fn a_mount_without_a_type_is_refused() {
        assert_eq!(
            refused(&json!({"destination": "/a"})),
            "config.json: /mounts/0/type: mount has no type (set a file system type such as \"tmpfs\", or \
             use option \"bind\" or \"rbind\")"
        );
    }

    #[test]
    fn the_root_cannot_be_a_destination() {
        assert!(refused(&json!({"destination": "/a/..", "type": "tmpfs"})).contains("is the root directory"));
    }
}
