//! The names of the files in a state directory, besides the record (`state.rs`).

/// The fifo on which the init process of a created container waits for `start`.
pub(super) const FIFO: &str = "exec.fifo";

/// Exists once a process that can have CAP_SYS_PTRACE has been added to the container.
pub(super) const TRACER: &str = "tracer";

/// A symbolic link to the cgroup, made before the cgroup itself, for cleaning up after a killed `create`.
pub(super) const CGROUP: &str = "cgroup";

/// The systemd unit of that cgroup, if systemd created it.
pub(super) const UNIT: &str = "unit.json";

/// The part of `config.json` that `exec` needs.
pub(super) const EXCERPT: &str = "config.json";

/// The seccomp filter for `exec`, if there is one.
pub(super) const SECCOMP: &str = "seccomp";

/// The temporary name of the state file.
pub(super) const PREPARED: &str = ".state.json";

/// The [`crate::cgroup::OomCounts`] to disregard: kills counted before the container was created or was killed on
/// request. A missing file means none.
pub(super) const OOM_COUNTS: &str = "oom-kills";

/// The OOM report, written before the cgroup was removed.
pub(super) const OOM_REPORT: &str = "oom.json";

/// Exists if a process watches for OOM kills; whatever removes the cgroup writes their number to it.
pub(super) const OOM_WATCH: &str = "oom-news";

/// The lock file; created by the first command that takes the lock.
pub(super) const LOCK_FILE: &str = "update.lock";

/// The note about an update that has begun but not finished.
pub(super) const NOTE: &str = "unfinished-update.json";
