//! The record of a container: the file that the commands after `create` read, and the JSON that `state` prints;
//! runtime.md § State. The names in the file are those of runc's where both say the same, for the programs that read it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::cgroup::Unit;
use crate::sys::Errno;
use crate::{hooks, intel_rdt};

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
    /// Whether its processes can have CAP_SYS_PTRACE, and with it look into others that come into their pid namespace.
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

/// What /proc says about a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStat {
    pub is_zombie: bool,
    pub start: u64,
    /// Forked and never been through execve(2): PF_FORKNOEXEC; linux/sched.h.
    pub never_executed: bool,
    /// SIGKILL is on its way to it, or it is ending: PF_EXITING.
    pub is_dying: bool,
    /// It has touched no memory and so never run outside the kernel, or no more than an instant.
    pub has_not_run: bool,
}

impl ProcessStat {
    /// Of a process that was cloned just now, whether it is not to live.
    pub fn was_killed_at_birth(&self) -> bool {
        self.is_dying && self.never_executed && self.has_not_run
    }
}

/// Whether process `pid`, which was cloned just now, is there and is not to live.
pub fn was_killed_at_birth(pid: i32) -> Result<bool> {
    Ok(process_stat(pid)?.is_some_and(|stat| stat.was_killed_at_birth()))
}

/// Longer than the file, which is one line of a name of at most 64 bytes and 52 numbers.
const STAT: usize = 2048;

/// Reads `/proc/PID/stat`; `None` if there is no such process.
pub fn process_stat(pid: i32) -> Result<Option<ProcessStat>> {
    let path = format!("/proc/{pid}/stat");
    let mut buffer = [0; STAT];
    let read = |buffer: &mut [u8; STAT]| {
        let file = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut buffer[..]))
    };
    match read(&mut buffer) {
        Ok(length) => {
            let text = buffer.get(..length).unwrap_or_default();
            parse_stat(text).map(Some).with_context(|| format!("parse {path}"))
        }
        Err(Errno::NOENT | Errno::SRCH) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("read {path}")),
    }
}

/// The name in parentheses may contain anything, so the fields are counted from the last parenthesis on.
pub fn parse_stat(text: &[u8]) -> Option<ProcessStat> {
    let end = text.iter().rposition(|&byte| byte == b')')?;
    let mut fields = text.get(end + 1..)?.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    let state = fields.next()?;
    let number = |field: Option<&[u8]>| std::str::from_utf8(field?).ok()?.parse::<u64>().ok();
    // The state is field 3, the flags are field 9, page faults are field 10, the start is field 22 and pending signals are field 31.
    let flags = number(fields.nth(5))?;
    let faults = number(fields.next())?;
    let start = number(fields.nth(11))?;
    let pending = number(fields.nth(8)).unwrap_or(0);
    let is_zombie = matches!(state, b"Z" | b"X" | b"x");
    Some(ProcessStat {
        is_zombie,
        start,
        never_executed: flags & 0x40 != 0,
        is_dying: is_zombie || flags & 0x4 != 0 || pending & 1 << (libc::SIGKILL - 1) != 0,
        has_not_run: faults == 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_have_any_name() {
        let text =
            b"7 (a) Z 1 (b)) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 0 0 18446744073709551615";
        assert_eq!(
            parse_stat(text),
            Some(ProcessStat {
                is_zombie: false,
                start: 12_345,
                never_executed: false,
                is_dying: false,
                has_not_run: false
            })
        );
        assert_eq!(parse_stat(b"7 (a) Z"), None);
    }

    #[test]
    fn a_process_that_was_killed_before_its_program_began_is_recognised() {
        let text = b"7 (a) Z 1 7 7 0 -1 4194372 1 0 0 0 0 0 0 0 20 0 1 0 12345 0 0 18446744073709551615";
        assert_eq!(
            parse_stat(text),
            Some(ProcessStat {
                is_zombie: true,
                start: 12_345,
                never_executed: true,
                is_dying: true,
                has_not_run: false
            })
        );
    }

    #[test]
    fn a_process_that_was_killed_at_birth_is_recognised() {
        let text = b"7 (a) R 1 7 7 0 -1 4194368 0 0 0 0 0 0 0 0 20 0 1 0 12345 9 9 18446744073709551615 1 1 1 0 0 256 0 0 0";
        let stat = parse_stat(text).unwrap();
        assert!(stat.is_dying && stat.has_not_run && !stat.is_zombie, "{stat:?}");
    }
}
