//! What is in a state directory, by name, beside the record (`state.rs`).

/// The pipe that a created container waits on for its start.
pub(super) const FIFO: &str = "exec.fifo";

/// There since a process was added that can have CAP_SYS_PTRACE.
pub(super) const TRACER: &str = "tracer";

/// A link that names the cgroup from before it is made, for who cleans up after a `create` that was killed.
pub(super) const CGROUP: &str = "cgroup";

/// The unit of that cgroup, if systemd has made it.
pub(super) const UNIT: &str = "unit.json";

/// What of `config.json` is kept for `exec`.
pub(super) const EXCERPT: &str = "config.json";

/// The filter for `exec`, if there is one.
pub(super) const SECCOMP: &str = "seccomp";

/// What is to be the state file.
pub(super) const PREPARED: &str = ".state.json";

/// What its cgroup had counted, [`crate::cgroup::OomCounts`], when that was no reason for the container's end; missing for nothing.
pub(super) const OOM_COUNTS: &str = "oom-kills";

/// Why the kernel has killed processes, from whoever saw it before the cgroup went.
pub(super) const SHORTAGE: &str = "oom.json";

/// There if somebody wants to hear of kills for want of memory: how many there were, from whoever takes the cgroup away.
pub(super) const OOM_NEWS: &str = "oom-news";

/// The file whose lock says whose turn it is; made by the first who wants one.
pub(super) const TURNS: &str = "update.lock";

/// What an update notes that has begun and not ended.
pub(super) const NOTE: &str = "unfinished-update.json";
