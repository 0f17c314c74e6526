//! The record of a container: the file that the commands after `create` read, and the JSON that `state` prints;
//! runtime.md § State. The names in the file are those of runc's where both say the same, for the programs that read it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::cgroup::{Unit, intel_rdt};
use crate::plan::hooks;

/// The name of the file in the state directory.
pub const FILE: &str = "state.json";

/// What is written to the state file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    pub id: String,
    pub init_process_pid: i32,
    /// When it started, in clock ticks since the boot, so that a process that gets the same pid later is not mistaken for
    /// it; proc_pid_stat(5).
    pub init_process_start: u64,
    /// RFC 3339, UTC, nanoseconds.
    pub created: String,
    #[serde(rename = "ociVersion")]
    pub oci_version: String,
    pub bundle: String,
    pub rootfs: String,
    pub annotations: BTreeMap<String, String>,
    /// The user id of whoever made it.
    pub owner: u32,
    pub rootless: bool,
    /// Which driver made the cgroup: `cgroupfs`, `systemd`, or `disabled` if the container has none of its own.
    pub cgroup_manager: String,
    /// The unit whose cgroup it is, if systemd made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub systemd: Option<Unit>,
    /// The key is empty, as in runc's: there is one hierarchy.
    pub cgroup_paths: BTreeMap<String, String>,
    /// The inode of the cgroup, which another one of that path does not have. Older versions of this program have not written it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<u64>,
    pub namespace_paths: BTreeMap<String, String>,
    /// Whether killing the init process ends all others, because they share a pid namespace of its own.
    pub private_pid_namespace: bool,
    /// The kinds of namespaces (`CLONE_NEW*`) that it has other than those of the runtime that made it.
    #[serde(default)]
    pub namespaces: i32,
    /// Whether it has a session keyring.
    #[serde(default)]
    pub keyring: bool,
    /// Whether its processes, or others in a pid namespace that it has joined, can have CAP_SYS_PTRACE, and with it look into those that
    /// come there.
    #[serde(default = "yes")]
    pub may_trace: bool,
    pub config: Config,
    /// `linux.resources` as it is in force: as it was given, with what `update` has changed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Box<RawValue>>,
    /// What `update` has changed, and when: a `revision::History`; absent before the first one. Left undecoded, for hardly
    /// a command looks at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<Box<RawValue>>,
    /// The class of service, in the resctrl file system, of the container's processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt_path: Option<PathBuf>,
    /// Whether it is the container's own, and goes with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub intel_rdt_own: bool,
    /// The group that they are monitored in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt_mon_path: Option<PathBuf>,
    /// While hooks run that are called before the container is made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub creating: bool,
    #[serde(default, skip_serializing_if = "hooks::Later::is_empty")]
    pub hooks: hooks::Later,
}

/// Which container it is, of those that have the same name one after the other.
///
/// Neither part would do alone: numbers of processes come back, within a clock tick where there are few of them, and the clock may
/// be set back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    init_process: (i32, u64),
    created: String,
}

fn yes() -> bool {
    true
}

/// The part of runc's `config` that other programs read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    pub rootfs: String,
    /// `NAME=value`: the bundle and the annotations.
    pub labels: Vec<String>,
}

impl State {
    pub fn identity(&self) -> Identity {
        Identity {
            init_process: (self.init_process_pid, self.init_process_start),
            created: self.created.clone(),
        }
    }

    /// What the container's session keyring is called, as by runc.
    pub fn keyring_name(id: &str) -> String {
        format!("_ses.{id}")
    }

    /// Where its processes are in the resctrl file system.
    pub fn intel_rdt(&self) -> Option<intel_rdt::Member> {
        Some(intel_rdt::Member {
            class: self.intel_rdt_path.clone()?,
            is_own: self.intel_rdt_own,
            monitored: self.intel_rdt_mon_path.clone(),
        })
    }

    /// The container's cgroup, a path of the host; `None` if it has none of its own and stays in that of whoever made it, if
    /// systemd has taken it away, or if somebody has and what is there now is another's.
    pub fn cgroup(&self) -> Option<&std::path::Path> {
        let is_own = |path: &&std::path::Path| match &self.systemd {
            Some(unit) => unit.has(path),
            None => self.cgroup_id.is_none_or(|own| crate::cgroup::id(path).is_none_or(|id| id == own)),
        };
        self.recorded_cgroup().filter(is_own)
    }

    /// Where the container's cgroup was made.
    pub fn recorded_cgroup(&self) -> Option<&std::path::Path> {
        self.cgroup_paths.get("").map(std::path::Path::new)
    }

    /// What the specification calls the state, as JSON, with the number of the container's first process unless it has ended.
    pub fn text(&self, status: Status) -> Result<Vec<u8>> {
        let pid = if status == Status::Stopped { 0 } else { self.init_process_pid };
        let mut text = self.for_hooks(status)?;
        text.extend(format!("{pid}}}").bytes());
        Ok(text)
    }

    /// What hooks find on their standard input, up to the pid, after which `}` comes.
    pub fn for_hooks(&self, status: Status) -> Result<Vec<u8>> {
        let state = ForHooks {
            oci_version: &self.oci_version,
            id: &self.id,
            status,
            bundle: &self.bundle,
            annotations: &self.annotations,
        };
        let mut text = serde_json::to_vec(&state).context("encode the state for hooks")?;
        text.pop();
        text.extend(b",\"pid\":");
        Ok(text)
    }
}

/// The status of a container; runtime.md § State.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// The properties that the specification names, but for the pid.
#[derive(Serialize)]
struct ForHooks<'a> {
    #[serde(rename = "ociVersion")]
    oci_version: &'a str,
    id: &'a str,
    status: Status,
    bundle: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

/// What `state` and `list --format json` print, in runc's order.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    #[serde(rename = "ociVersion")]
    pub oci_version: &'a str,
    pub id: &'a str,
    /// 0 for a stopped container.
    pub pid: i32,
    pub status: Status,
    pub bundle: &'a str,
    pub rootfs: &'a str,
    pub created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: &'a BTreeMap<String, String>,
    /// Empty in the output of `state`, as runc's is.
    pub owner: &'a str,
    /// Of a stopped container: whether the kernel has killed a process of it for want of memory. Not among runc's; the
    /// specification allows more.
    #[serde(rename = "oomKilled", skip_serializing_if = "std::ops::Not::not")]
    pub oom_killed: bool,
}
