//! Builds a bundle: a root file system, and a config.json that starts as the one of `spec`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::host::{CGROUPS, by_systemd, cgroup_parent};
use super::{rootfs, workspace};

/// A bundle in a directory of its own, which goes when the fixture goes.
#[derive(Debug)]
pub struct Bundle {
    /// The directory of the test: the bundle and what else it needs.
    pub home: PathBuf,
    /// Also the name of the container and of its cgroup.
    pub name: String,
    pub spec: Value,
}

impl Bundle {
    pub fn new() -> Self {
        let name = workspace::unique_name();
        let home = workspace::directory().join(&name);
        let cgroups_path = if by_systemd() { scope_path(&name) } else { cgroups_path(&name) };
        let bundle = Self { spec: default_spec(&cgroups_path), home, name };
        rootfs::make(&bundle.rootfs());
        bundle.write();
        bundle
    }

    pub fn path(&self) -> PathBuf {
        self.home.join("bundle")
    }

    pub fn rootfs(&self) -> PathBuf {
        self.home.join("bundle/rootfs")
    }

    /// Changes the spec and writes config.json.
    pub fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.spec);
        self.write();
    }

    pub fn write(&self) {
        self.write_raw(&serde_json::to_string_pretty(&self.spec).unwrap());
    }

    /// Writes a config.json that may be anything.
    pub fn write_raw(&self, text: &str) {
        fs::write(self.path().join("config.json"), text).unwrap();
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        workspace::remove_tree(&self.home);
    }
}

/// The `cgroupsPath` of a cgroup of this name where tests may make cgroups.
pub fn cgroups_path(name: &str) -> String {
    let parent = cgroup_parent().strip_prefix(CGROUPS).unwrap();
    Path::new("/").join(parent).join(name).to_str().unwrap().to_owned()
}

/// The `cgroupsPath` of systemd's scope of this name.
pub fn scope_path(name: &str) -> String {
    format!("system.slice:test:{name}")
}

/// Adds a mount to the end of the list.
pub fn add_mount(spec: &mut Value, mount: Value) {
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

/// A bind mount of `source`, with further `options`.
pub fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    let options: Vec<_> = ["bind"].iter().chain(options).collect();
    json!({ "destination": destination, "type": "bind", "source": source, "options": options })
}

/// Lets the container read the disk of these numbers, as /dev/disk.
pub fn show_disk(spec: &mut Value, (major, minor): (u32, u32)) {
    spec["linux"]["devices"] = json!([{ "path": "/dev/disk", "type": "b", "major": major, "minor": minor }]);
    spec["linux"]["resources"]["devices"] = json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "b", "major": major, "minor": minor, "access": "r" }
    ]);
}

/// Gives the process these capabilities, and no others.
pub fn capabilities(spec: &mut Value, names: &[&str]) {
    spec["process"]["capabilities"] = json!({ "bounding": names, "permitted": names, "effective": names });
}

/// Takes the namespace away.
pub fn remove_namespace(spec: &mut Value, kind: &str) {
    spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != kind);
}

/// Makes the namespace one that is joined.
pub fn join_namespace(spec: &mut Value, kind: &str, path: impl AsRef<Path>) {
    remove_namespace(spec, kind);
    let list = spec["linux"]["namespaces"].as_array_mut().unwrap();
    list.push(json!({ "type": kind, "path": path.as_ref() }));
}

/// Gives the container a user namespace with these ranges of users and of groups: inside, outside, how many.
pub fn user_namespace(spec: &mut Value, users: &[[u32; 3]], groups: &[[u32; 3]]) {
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    for (field, ranges) in [("uidMappings", users), ("gidMappings", groups)] {
        let one = |[inside, outside, size]: &[u32; 3]| json!({ "containerID": inside, "hostID": outside, "size": size });
        spec["linux"][field] = ranges.iter().map(one).collect();
    }
}

/// What `runc spec` writes, without a terminal, and with a cgroup of its own.
fn default_spec(cgroups_path: &str) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["true"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities
            },
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "inside",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }
        ],
        "linux": {
            "cgroupsPath": cgroups_path,
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" },
                { "type": "mount" }, { "type": "cgroup" }
            ],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

/// Every propagation that a mount can be given, and what /proc/self/mountinfo shows of it.
pub const PROPAGATIONS: [(&str, &str); 6] = [
    ("private", ""),
    ("rprivate", ""),
    ("shared", "shared:"),
    ("rshared", "shared:"),
    ("unbindable", "unbindable"),
    ("runbindable", "unbindable"),
];
