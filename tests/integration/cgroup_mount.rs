//! The cgroups that a container sees, and who owns them: config-linux.md § Cgroup ownership.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use serde_json::{Value, json};

use crate::support::bundle::remove_namespace;
use crate::support::host::{need_other_than, need_own};
use crate::support::suite::suite;
use crate::support::{Container, Outcome};

suite![
    a_writable_cgroup_belongs_to_the_containers_user,
    a_read_only_cgroup_stays_the_hosts,
    a_cgroup_seen_from_the_hosts_namespace_stays_the_hosts,
    a_writable_cgroup_belongs_to_an_ordinary_user_too,
    a_user_who_owns_the_cgroup_makes_cgroups_below_it,
    cve_2023_25809_the_hosts_cgroups_are_as_read_only_as_they_are_to_be,
    without_a_cgroup_mount_the_cgroup_stays_the_hosts,
];

/// The owners of the cgroup, of a file that is for its owner, and of one that is not.
const OWNERS: [&str; 6] =
    ["stat", "-c", "%u", "/sys/fs/cgroup", "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/cgroup.max.depth"];

fn options(spec: &mut Value) -> &mut Vec<Value> {
    let mounts = spec["mounts"].as_array_mut().unwrap();
    let cgroup = mounts.iter_mut().find(|mount| mount["type"] == "cgroup").unwrap();
    cgroup["options"].as_array_mut().unwrap()
}

fn writable(spec: &mut Value) {
    options(spec).retain(|option| option != "ro");
}

fn a_writable_cgroup_belongs_to_the_containers_user() -> Outcome {
    need_other_than("runc", "gives it away with systemd only")?;
    let container = Container::with_args(OWNERS).in_user_namespace().edit(writable);
    assert_eq!(container.says(), "0\n0\n65534");
    let container = Container::with_args(OWNERS).in_user_namespace().edit(|spec| {
        writable(spec);
        spec["process"]["user"] = json!({ "uid": 7, "gid": 7 });
    });
    need_own()?;
    assert_eq!(container.says(), "7\n7\n65534");
    Ok(())
}

fn a_read_only_cgroup_stays_the_hosts() -> Outcome {
    need_other_than("crun", "gives it away in any case")?;
    let container = Container::with_args(OWNERS).in_user_namespace();
    assert_eq!(container.says(), "65534\n65534\n65534");
    Ok(())
}

fn a_cgroup_seen_from_the_hosts_namespace_stays_the_hosts() -> Outcome {
    need_other_than("crun", "gives it away in any case")?;
    let container = Container::idle().in_user_namespace().edit(|spec| {
        writable(spec);
        remove_namespace(spec, "cgroup");
    });
    container.launch();
    assert_eq!(fs::metadata(container.cgroup()).unwrap().uid(), 0);
    Ok(())
}

fn a_writable_cgroup_belongs_to_an_ordinary_user_too() -> Outcome {
    need_own()?;
    let container = Container::idle().edit(|spec| {
        writable(spec);
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    });
    container.launch();
    let owner = |name: &str| fs::metadata(container.cgroup().join(name)).unwrap().uid();
    assert_eq!([owner(""), owner("cgroup.threads"), owner("cgroup.kill")], [1000, 1000, 0]);
    Ok(())
}

fn a_user_who_owns_the_cgroup_makes_cgroups_below_it() -> Outcome {
    need_other_than("runc", "gives it away with systemd only")?;
    let container = Container::with_script("cd /sys/fs/cgroup && mkdir below && echo 0 >below/cgroup.procs && cat below/cgroup.procs | wc -l; cat /proc/self/cgroup | tail -n 1")
        .in_user_namespace()
        .edit(writable);
    let said = container.says();
    assert!(said.ends_with("0::/below"), "{said}");
    let made = container.cgroup().join("below");
    assert!(!made.exists(), "{}", made.display());
    container.leaves_nothing();
    Ok(())
}

/// Where the kernel mounts no cgroup2, because the cgroup namespace is not of the container's user namespace, the host's stands in.
fn cve_2023_25809_the_hosts_cgroups_are_as_read_only_as_they_are_to_be() {
    let script = "mkdir /sys/fs/cgroup/new 2>&1; grep -c /sys/fs/cgroup /proc/mounts; test -e /sys/fs/cgroup/cgroup.procs";
    let container =
        Container::with_script(script).in_user_namespace().edit(|spec| remove_namespace(spec, "cgroup"));
    let said = container.says();
    assert!(said.contains("Read-only file system") && said.ends_with('1'), "{said}");
}

fn without_a_cgroup_mount_the_cgroup_stays_the_hosts() -> Outcome {
    need_other_than("crun", "gives it away in any case")?;
    let container = Container::idle().in_user_namespace().edit(|spec| {
        spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "cgroup");
    });
    container.launch();
    assert_eq!(fs::metadata(container.cgroup()).unwrap().uid(), 0);
    Ok(())
}
