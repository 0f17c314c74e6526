//! The state of a container: the state file that commands after `create` read, and the JSON that `state`
//! prints; runtime.md § State. Keys are those of runc's state file where the meaning is the same, for
//! programs that read it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::cgroup::{Unit, intel_rdt};
use crate::plan::hooks;

/// The name of the file in the state directory.
pub const FILE: &str = "state.json";

/// The contents of the state file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    pub id: String,
    pub init_process_pid: i32,
    /// Start time of the init process in clock ticks since boot, to detect a reused pid; proc_pid_stat(5).
    pub init_process_start: u64,
    /// RFC 3339, UTC, with nanoseconds.
    pub created: String,
    #[serde(rename = "ociVersion")]
    pub oci_version: String,
    pub bundle: String,
    pub rootfs: String,
    pub annotations: BTreeMap<String, String>,
    /// The user ID of its creator.
    pub owner: u32,
    pub rootless: bool,
    /// The driver that created the cgroup: `cgroupfs`, `systemd`, or `disabled` if the container has no
    /// cgroup of its own.
    pub cgroup_manager: String,
    /// The unit of the cgroup, if systemd created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub systemd: Option<Unit>,
    /// The only key is empty, as in runc: there is a single hierarchy.
    pub cgroup_paths: BTreeMap<String, String>,
    /// The inode number of the cgroup, to tell it from a later one at the same path. Older versions did not
    /// write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<u64>,
    pub namespace_paths: BTreeMap<String, String>,
    /// Whether the container has a pid namespace of its own, so that killing the init process kills all other
    /// processes.
    pub private_pid_namespace: bool,
    /// The kinds of namespaces (`CLONE_NEW*`) in which it differs from the runtime that created it.
    #[serde(default)]
    pub namespaces: i32,
    /// Whether it has a session keyring.
    #[serde(default)]
    pub keyring: bool,
    /// Whether its processes, or others in a pid namespace that it joined, may have CAP_SYS_PTRACE and so be
    /// able to inspect processes that enter that namespace.
    #[serde(default = "yes")]
    pub may_trace: bool,
    pub config: Config,
    /// The effective `linux.resources`: as in the bundle, with later changes by `update`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Box<RawValue>>,
    /// The changes made by `update` and when: a `revision::History`; absent before the first one. Kept
    /// undecoded because few commands need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<Box<RawValue>>,
    /// The resctrl group (class of service) of the container's processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt_path: Option<PathBuf>,
    /// Whether the container owns that group, which is then removed with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub intel_rdt_own: bool,
    /// Their resctrl monitoring group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt_mon_path: Option<PathBuf>,
    /// True while the hooks that run before the container is created are running.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub creating: bool,
    #[serde(default, skip_serializing_if = "hooks::RecordedHooks::is_empty")]
    pub hooks: hooks::RecordedHooks,
}

/// Tells apart containers that have had the same name one after the other.
///
/// Neither field is enough on its own: pids are reused, even within a clock tick where few are available, and
/// the clock may be set back.
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

    /// The name of the container's session keyring, as in runc.
    pub fn keyring_name(id: &str) -> String {
        format!("_ses.{id}")
    }

    /// The resctrl groups of its processes.
    pub fn intel_rdt(&self) -> Option<intel_rdt::Member> {
        Some(intel_rdt::Member {
            class: self.intel_rdt_path.clone()?,
            is_own: self.intel_rdt_own,
            monitored: self.intel_rdt_mon_path.clone(),
        })
    }

    /// The host path of the container's cgroup. `None` if it has no cgroup of its own and stays in its
    /// creator's, if systemd has removed it, or if the cgroup at that path is now a different one.
    pub fn cgroup(&self) -> Option<&std::path::Path> {
        let is_own = |path: &&std::path::Path| match &self.systemd {
            Some(unit) => unit.has(path),
            None => self.cgroup_id.is_none_or(|own| crate::cgroup::id(path).is_none_or(|id| id == own)),
        };
        self.recorded_cgroup().filter(is_own)
    }

    /// The path of the cgroup as recorded at `create`, whether or not it still exists.
    pub fn recorded_cgroup(&self) -> Option<&std::path::Path> {
        self.cgroup_paths.get("").map(std::path::Path::new)
    }

    /// The state as the specification defines it, as JSON. The pid is 0 if the container has stopped.
    pub fn text(&self, status: Status) -> Result<Vec<u8>> {
        let pid = if status == Status::Stopped { 0 } else { self.init_process_pid };
        let mut text = self.for_hooks(status)?;
        text.extend(format!("{pid}}}").bytes());
        Ok(text)
    }

    /// The state that hooks read on their standard input, up to the value of `pid`; the caller appends the
    /// pid and `}`.
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

/// The properties required by the specification, except the pid.
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
    /// Empty in the output of `state`, as in runc.
    pub owner: &'a str,
    /// Whether a process of a stopped container was killed by the OOM killer. Not in runc; the specification
    /// allows additional properties.
    #[serde(rename = "oomKilled", skip_serializing_if = "std::ops::Not::not")]
    pub oom_killed: bool,
}
