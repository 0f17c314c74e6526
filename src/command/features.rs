//! `runtime features`: what this program supports, regardless of the host; features.md, features-linux.md.
//!
//! Engines read it: CRI-O and dockerd together with standard error, which must stay empty. Names come from
//! the tables that config.json is parsed with, so the document cannot be wrong about them.

use super::Action;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::PrettyFormatter;

use super::Context;
use crate::cli::global::{COMMIT, SPEC_VERSION};
use crate::plan::linux::{memory_policy, namespaces, seccomp};
use crate::plan::process::capabilities;
use crate::plan::{ANNOTATIONS, hooks, mounts};

/// Show the features of this runtime as JSON
///
/// The output follows features.md of the runtime specification, and describes this program, not the host.
#[derive(Debug, clap::Args)]
pub struct Features {}

impl Action for Features {
    fn run(&self, _context: &Context) -> Result<ExitCode> {
        run().map(|()| ExitCode::SUCCESS)
    }
}

fn run() -> Result<()> {
    let mut text = Vec::new();
    // runc's indentation.
    let mut json = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "));
    Document::new().serialize(&mut json).context("write the features as JSON")?;
    text.push(b'\n');
    std::io::stdout().lock().write_all(&text).context("write to standard output")
}

/// Fields are in the order of Go's types, as in other runtimes' documents.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: Vec<&'static str>,
    mount_options: Vec<&'static str>,
    linux: Linux,
    annotations: BTreeMap<&'static str, &'static str>,
    potentially_unsafe_config_annotations: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: Vec<&'static str>,
    capabilities: Vec<String>,
    cgroup: Cgroup,
    seccomp: Seccomp,
    apparmor: Enabled,
    selinux: Enabled,
    intel_rdt: IntelRdt,
    memory_policy: MemoryPolicy,
    mount_extensions: MountExtensions,
    net_devices: Enabled,
}

#[derive(Debug, Serialize)]
struct Enabled {
    enabled: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Cgroup {
    v1: bool,
    v2: bool,
    systemd: bool,
    systemd_user: bool,
    rdma: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Seccomp {
    enabled: bool,
    actions: Vec<String>,
    operators: Vec<String>,
    archs: Vec<String>,
    known_flags: Vec<String>,
    /// Those of the running kernel, as in runc.
    supported_flags: Vec<String>,
}

#[derive(Debug, Serialize)]
struct IntelRdt {
    enabled: bool,
    schemata: bool,
    monitoring: bool,
}

#[derive(Debug, Serialize)]
struct MemoryPolicy {
    modes: Vec<String>,
    flags: Vec<String>,
}

#[derive(Debug, Serialize)]
struct MountExtensions {
    idmap: Enabled,
}

impl Document {
    fn new() -> Self {
        Self {
            // The types of config.json are unchanged since then; newer properties are optional.
            oci_version_min: "1.0.0",
            oci_version_max: SPEC_VERSION,
            hooks: hooks::known().collect(),
            mount_options: sorted(mounts::known_options()),
            linux: Linux {
                namespaces: sorted(namespaces::known()),
                capabilities: capabilities::known().map(|(_, name)| name).collect(),
                cgroup: Cgroup { v1: false, v2: true, systemd: true, systemd_user: true, rdma: true },
                seccomp: Seccomp {
                    enabled: true,
                    actions: sorted(seccomp::actions()),
                    operators: sorted(seccomp::operators()),
                    archs: sorted(seccomp::architectures()),
                    known_flags: seccomp::flags().map(|(name, _)| name).collect(),
                    supported_flags: seccomp::flags()
                        .filter(|(_, is_known)| *is_known)
                        .map(|(name, _)| name)
                        .collect(),
                },
                apparmor: Enabled { enabled: true },
                selinux: Enabled { enabled: true },
                intel_rdt: IntelRdt { enabled: true, schemata: true, monitoring: true },
                memory_policy: MemoryPolicy {
                    modes: sorted(memory_policy::modes()),
                    flags: sorted(memory_policy::flags()),
                },
                mount_extensions: MountExtensions { idmap: Enabled { enabled: true } },
                net_devices: Enabled { enabled: true },
            },
            annotations: BTreeMap::from([
                // runc's annotation, which other runtimes report as well.
                ("org.opencontainers.runc.checkpoint.enabled", "false"),
                ("runtime.commit", COMMIT),
                ("runtime.version", env!("CARGO_PKG_VERSION")),
            ]),
            potentially_unsafe_config_annotations: std::iter::once(hooks::OUTPUT_ANNOTATIONS)
                .chain(ANNOTATIONS)
                .collect(),
        }
    }
}

fn sorted<T: Ord>(words: impl Iterator<Item = T>) -> Vec<T> {
    let mut words: Vec<T> = words.collect();
    words.sort();
    words
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::command::conformance::{planned, values};

    fn document() -> Value {
        serde_json::to_value(Document::new()).unwrap()
    }

    #[test]
    fn what_is_enabled_is_what_a_bundle_may_ask_for() {
        let mapping = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
        let seccomp = json!({"defaultAction": "SCMP_ACT_ALLOW"});
        let cases = [
            ("apparmor/enabled", json!({"process": {"apparmorProfile": "p"}})),
            ("selinux/enabled", json!({"process": {"selinuxLabel": "a:b:c:s0"}})),
            ("seccomp/enabled", json!({"linux": {"seccomp": seccomp}})),
            ("intelRdt/enabled", json!({"linux": {"intelRdt": {"closID": "c"}}})),
            ("intelRdt/schemata", json!({"linux": {"intelRdt": {"schemata": ["L3:0=f"]}}})),
            ("intelRdt/monitoring", json!({"linux": {"intelRdt": {"enableMonitoring": true}}})),
            ("netDevices/enabled", json!({"linux": {"netDevices": {"eth0": {}}}})),
            ("cgroup/rdma", json!({"linux": {"resources": {"rdma": {"x": {"hcaHandles": 1}}}}})),
            (
                "mountExtensions/idmap/enabled",
                json!({"mounts": [{
                    "destination": "/x", "type": "bind", "source": "/y", "options": ["bind"],
                    "uidMappings": mapping, "gidMappings": mapping
                }]}),
            ),
        ];
        for (place, patch) in cases {
            let says = document().pointer(&format!("/linux/{place}")).and_then(Value::as_bool);
            assert_eq!(says, Some(planned(&patch).is_ok()), "linux/{place}");
        }
    }

    #[test]
    fn what_is_listed_is_what_a_bundle_may_name() {
        let mapping = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
        let cases = [
            (
                "hooks",
                vec![
                    "prestart",
                    "createRuntime",
                    "createContainer",
                    "startContainer",
                    "poststart",
                    "poststop",
                ],
            ),
            ("linux/namespaces", vec!["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"]),
        ];
        for (place, names) in cases {
            let listed = document().pointer(&format!("/{place}")).unwrap().clone();
            for name in names {
                let patch = match place {
                    "hooks" => json!({"hooks": {name: [{"path": "/a"}]}}),
                    _ => {
                        let mapping = if name == "user" { mapping.clone() } else { Value::Null };
                        let namespaces = json!([{"type": "mount"}, {"type": name}]);
                        let namespaces = if name == "mount" { json!([{"type": name}]) } else { namespaces };
                        json!({"linux": {"namespaces": namespaces, "uidMappings": mapping, "gidMappings": mapping}})
                    }
                };
                let is_listed = listed.as_array().unwrap().contains(&json!(name));
                assert_eq!(
                    is_listed,
                    planned(&patch).is_ok(),
                    "{place}: {name}: {:?}",
                    planned(&patch).err()
                );
            }
        }
    }

    #[test]
    fn what_is_listed_is_all_that_the_specification_lists() {
        for (list, place) in [
            ("seccomp/actions", "/linux/seccomp/syscalls/*/action"),
            ("seccomp/operators", "/linux/seccomp/syscalls/*/args/*/op"),
            ("seccomp/knownFlags", "/linux/seccomp/flags/*"),
            ("memoryPolicy/modes", "/linux/memoryPolicy/mode"),
            ("memoryPolicy/flags", "/linux/memoryPolicy/flags/*"),
        ] {
            let document = document();
            let listed = document.pointer(&format!("/linux/{list}")).and_then(Value::as_array).unwrap();
            let listed: std::collections::BTreeSet<_> = listed.iter().filter_map(Value::as_str).collect();
            assert_eq!(listed, values(place), "{list}");
        }
        let known = values("/linux/seccomp/architectures/*");
        assert!(seccomp::architectures().all(|name| known.contains(name.as_str())));
    }
}
