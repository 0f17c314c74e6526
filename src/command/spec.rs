//! `runtime spec`: writes a template `config.json`, the same as `runc spec`.

use super::Action;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::PrettyFormatter;

use super::Context;
use crate::bundle::CONFIG;
use crate::cli::global::SPEC_VERSION;

/// Create a new specification file
///
/// The configuration runs a shell in the terminal, with the root file system in rootfs in the bundle.
#[derive(Debug, clap::Args)]
pub struct Spec {
    /// Path to the bundle directory [default: current directory]
    #[arg(short, long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Generate a configuration for a rootless container
    #[arg(long)]
    rootless: bool,
    /// Name of the file to create in the bundle
    #[arg(short, long, value_name = "FILE", default_value = CONFIG)]
    file: PathBuf,
}

impl Action for Spec {
    fn run(&self, _context: &Context) -> Result<ExitCode> {
        write(self).map(|()| ExitCode::SUCCESS)
    }
}

/// Writes the file into the bundle directory, where it must not exist yet.
fn write(args: &Spec) -> Result<()> {
    let config = if args.rootless {
        Config::rootless(rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    } else {
        Config::default()
    };
    let text = config.to_json()?;
    let path = args.bundle.as_deref().unwrap_or(Path::new("")).join(&args.file);
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o666).open(&path) {
        Ok(file) => file,
        // runc's wording, which scripts and users know.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("File {} exists. Remove it first", args.file.display())
        }
        Err(error) => return Err(error).with_context(|| format!("create {}", path.display())),
    };
    if let Err(error) = file.write_all(&text) {
        // A partial file would block the next attempt.
        drop(fs::remove_file(&path));
        return Err(error).with_context(|| format!("write {}", path.display()));
    }
    Ok(())
}

/// The parts of a spec that the template uses, in the order of Go's types, as in other runtimes' files.
/// `oci_spec`'s types would write empty fields that runc leaves out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    oci_version: &'static str,
    process: Process,
    root: Root,
    hostname: &'static str,
    mounts: Vec<Mount>,
    linux: Linux,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    terminal: bool,
    user: User,
    args: [&'static str; 1],
    env: [&'static str; 2],
    cwd: &'static str,
    capabilities: Capabilities,
    rlimits: [Rlimit; 1],
    no_new_privileges: bool,
}

#[derive(Debug, Default, Serialize)]
struct User {
    uid: u32,
    gid: u32,
}

#[derive(Debug, Serialize)]
struct Capabilities {
    bounding: [&'static str; 3],
    effective: [&'static str; 3],
    permitted: [&'static str; 3],
}

#[derive(Debug, Serialize)]
struct Rlimit {
    r#type: &'static str,
    hard: u64,
    soft: u64,
}

#[derive(Debug, Serialize)]
struct Root {
    path: &'static str,
    readonly: bool,
}

#[derive(Debug, Serialize)]
struct Mount {
    destination: &'static str,
    r#type: &'static str,
    source: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    options: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(skip_serializing_if = "Option::is_none")]
    uid_mappings: Option<[IdMapping; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid_mappings: Option<[IdMapping; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Resources>,
    namespaces: Vec<Namespace>,
    masked_paths: [&'static str; 10],
    readonly_paths: [&'static str; 5],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct IdMapping {
    #[serde(rename = "containerID")]
    container_id: u32,
    #[serde(rename = "hostID")]
    host_id: u32,
    size: u32,
}

#[derive(Debug, Serialize)]
struct Resources {
    devices: [DeviceRule; 1],
}

#[derive(Debug, Serialize)]
struct DeviceRule {
    allow: bool,
    access: &'static str,
}

#[derive(Debug, Serialize)]
struct Namespace {
    r#type: &'static str,
}

const CAPABILITIES: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

impl Default for Config {
    fn default() -> Self {
        Self {
            oci_version: SPEC_VERSION,
            process: Process {
                terminal: true,
                user: User::default(),
                args: ["sh"],
                env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
                cwd: "/",
                capabilities: Capabilities {
                    bounding: CAPABILITIES,
                    effective: CAPABILITIES,
                    permitted: CAPABILITIES,
                },
                rlimits: [Rlimit { r#type: "RLIMIT_NOFILE", hard: 1024, soft: 1024 }],
                no_new_privileges: true,
            },
            root: Root { path: "rootfs", readonly: true },
            // Each runtime puts its own name here.
            hostname: "runtime",
            mounts: mounts(),
            linux: Linux {
                uid_mappings: None,
                gid_mappings: None,
                resources: Some(Resources { devices: [DeviceRule { allow: false, access: "rwm" }] }),
                // runc adds "cgroup" on cgroup v2 hosts only, the only ones supported here.
                namespaces: namespaces(&["pid", "network", "ipc", "uts", "mount", "cgroup"]),
                masked_paths: [
                    "/proc/acpi",
                    "/proc/asound",
                    "/proc/kcore",
                    "/proc/keys",
                    "/proc/latency_stats",
                    "/proc/timer_list",
                    "/proc/timer_stats",
                    "/proc/sched_debug",
                    "/sys/firmware",
                    "/proc/scsi",
                ],
                readonly_paths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            },
        }
    }
}

fn mounts() -> Vec<Mount> {
    let mount = |destination, r#type, source, options: &[&'static str]| Mount {
        destination,
        r#type,
        source,
        options: options.to_vec(),
    };
    vec![
        mount("/proc", "proc", "proc", &[]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ]
}

fn namespaces(types: &[&'static str]) -> Vec<Namespace> {
    types.iter().map(|r#type| Namespace { r#type }).collect()
}

impl Config {
    /// The template for rootless containers: only root is mapped, to user `uid` and group `gid`; the host's
    /// network is used, because a new network namespace could not be connected; no resources, because the
    /// cgroup may not be writable.
    fn rootless(uid: u32, gid: u32) -> Self {
        let mut config = Self::default();
        let linux = &mut config.linux;
        linux.uid_mappings = Some([IdMapping { container_id: 0, host_id: uid, size: 1 }]);
        linux.gid_mappings = Some([IdMapping { container_id: 0, host_id: gid, size: 1 }]);
        linux.resources = None;
        linux.namespaces = namespaces(&["pid", "ipc", "uts", "mount", "cgroup", "user"]);
        for mount in &mut config.mounts {
            // sysfs belongs to the network namespace, here the host's: the kernel refuses to mount a new one.
            if mount.destination == "/sys" {
                mount.r#type = "none";
                mount.source = "/sys";
                mount.options = vec!["rbind", "nosuid", "noexec", "nodev", "ro"];
            }
            // Group 5 (tty) is not mapped.
            mount.options.retain(|option| !option.starts_with("gid=") && !option.starts_with("uid="));
        }
        config
    }

    /// Indented with tabs and without a final newline, as runc writes it.
    fn to_json(&self) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        self.serialize(&mut Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"\t")))
            .context("write the spec as JSON")?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::error::line;

    fn spec_in(directory: &Path, rootless: bool) -> Spec {
        Spec { bundle: Some(directory.to_owned()), rootless, file: CONFIG.into() }
    }

    #[test]
    fn the_default_is_a_spec_that_oci_spec_reads() {
        let directory = tempfile::tempdir().unwrap();
        write(&spec_in(directory.path(), false)).unwrap();
        let spec = oci_spec::runtime::Spec::load(directory.path().join("config.json")).unwrap();
        assert_eq!(spec.version(), "1.3.0");
        assert_eq!(spec.mounts().as_ref().unwrap().len(), 7);
    }

    #[test]
    fn the_fields_come_in_the_order_of_everybodys_files() {
        let text = String::from_utf8(Config::default().to_json().unwrap()).unwrap();
        assert!(
            text.starts_with("{\n\t\"ociVersion\": \"1.3.0\",\n\t\"process\": {\n\t\t\"terminal\": true,")
        );
        assert!(text.ends_with("\t\t]\n\t}\n}"));
    }

    #[test]
    fn a_rootless_spec_maps_the_caller_and_keeps_the_hosts_network() {
        let text = Config::rootless(1000, 1001).to_json().unwrap();
        let spec: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(spec["linux"]["uidMappings"], json!([{"containerID": 0, "hostID": 1000, "size": 1}]));
        assert_eq!(spec["linux"]["gidMappings"], json!([{"containerID": 0, "hostID": 1001, "size": 1}]));
        assert!(spec["linux"].get("resources").is_none());
        assert_eq!(spec["linux"]["namespaces"][5], json!({"type": "user"}));
        assert!(!String::from_utf8(text).unwrap().contains("gid="));
        assert_eq!(spec["mounts"][5]["options"][0], "rbind");
    }

    #[test]
    fn an_existing_file_is_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("config.json"), "mine").unwrap();
        let error = write(&spec_in(directory.path(), false)).unwrap_err();
        assert_eq!(line(&error), "File config.json exists. Remove it first");
        assert_eq!(fs::read_to_string(directory.path().join("config.json")).unwrap(), "mine");
    }

    #[test]
    fn a_missing_bundle_is_named() {
        let error = write(&spec_in(Path::new("/nonexistent"), false)).unwrap_err();
        assert_eq!(line(&error), "create /nonexistent/config.json: no such file or directory (ENOENT)");
    }
}
