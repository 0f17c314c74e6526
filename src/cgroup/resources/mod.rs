//! Translating `linux.resources` to control files; pure, one file per group of controllers.
//!
//! The specification follows cgroup v1. The conversions are those of runc 1.3.2 and crun 1.23, so that a
//! container gets the same share of a host with each runtime. Zero means "not set" where clients send zeros
//! for what their user did not set.
//!
//! Accepted without effect, because cgroup v2 has no equivalent, as in runc:
//!
//! | field | why |
//! |---|---|
//! | `memory.kernel`, `memory.kernelTCP` | kernel memory counts as memory |
//! | `memory.swappiness` | one value for the machine: vm.swappiness |
//! | `memory.disableOOMKiller` | the OOM killer cannot be switched off |
//! | `memory.useHierarchy` | always hierarchical |
//! | `cpu.realtimeRuntime`, `cpu.realtimePeriod` | no controller |
//! | `blockIO.leafWeight`, `blockIO.weightDevice[].leafWeight` | a cgroup with processes has no children with limits |
//! | `network.classID`, `network.priorities` | replaced by BPF and nftables matching on cgroups |

mod block_io;
mod cpu;
mod memory;
mod others;

use std::borrow::Cow;

use anyhow::Result;
use oci_spec::runtime::LinuxResources;

use crate::error::Pointer;

/// All writes, in order, and the checks before them.
#[derive(Debug, Default)]
pub(super) struct Limits {
    pub(super) writes: Vec<Write>,
    pub(super) ceilings: Vec<Ceiling>,
}

/// One value for one control file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Write {
    /// Where in `config.json` it comes from.
    pub(super) at: Pointer,
    pub(super) file: Cow<'static, str>,
    pub(super) value: String,
    pub(super) refused: WhenRefused,
}

/// What to do if the file does not exist or the value is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WhenRefused {
    /// Fail.
    Fail,
    /// Ignore a missing file: the value only asks for the default.
    Unneeded,
    /// If the file is missing, use this one, which has the same effect.
    Instead { file: &'static str, value: String },
    /// `EINVAL` may be due to another value that is yet to be written: try again after the other writes.
    Again,
}

/// A limit that must be higher than the current usage: `memory.checkBeforeUpdate`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ceiling {
    pub(super) at: Pointer,
    /// What is limited, for the message that callers match: "memory" or "memory+swap".
    pub(super) what: &'static str,
    pub(super) bytes: u64,
}

/// Plans the limits in `resources`, which is at `at`.
pub(super) fn plan(resources: &LinuxResources, at: &Pointer) -> Result<Limits> {
    let mut limits = Limits::default();
    if let Some(pids) = resources.pids() {
        limits.writes.extend(others::pids(pids.limit(), &at.field("pids").field("limit")));
    }
    if let Some(memory) = resources.memory() {
        memory::plan(memory, &at.field("memory"), &mut limits)?;
    }
    if let Some(block_io) = resources.block_io() {
        block_io::plan(block_io, &at.field("blockIO"), &mut limits.writes)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu::plan(cpu, &at.field("cpu"), &mut limits.writes)?;
    }
    if let Some(pages) = resources.hugepage_limits() {
        others::huge_pages(pages, &at.field("hugepageLimits"), &mut limits.writes)?;
    }
    if let Some(devices) = resources.rdma() {
        others::rdma(devices, &at.field("rdma"), &mut limits.writes)?;
    }
    // Last, because a file named here overrides the other fields: config-linux.md § Unified.
    if let Some(files) = resources.unified() {
        others::unified(files, &at.field("unified"), &mut limits.writes)?;
    }
    Ok(limits)
}

impl Limits {
    /// Reorders the writes for a cgroup in use. Lowering `memory.max` below the usage kills processes at
    /// once, which cannot be undone, so it is written last, when nothing else can be refused, and only with
    /// its final value. `memory.high`, which makes the kernel reclaim memory first, comes just before it.
    pub(super) fn order_kills_last(&mut self) {
        let is_high = |write: &Write| write.file == "memory.high";
        let (last, others): (Vec<_>, Vec<_>) =
            self.writes.drain(..).partition(|write| is_high(write) || can_kill(&write.file));
        let (mut kills, last): (Vec<_>, Vec<_>) = last.into_iter().partition(|write| can_kill(&write.file));
        self.writes.extend(others.into_iter().chain(last).chain(kills.pop()));
    }

    /// Returns the pointers of all values.
    pub(super) fn places(&mut self) -> impl Iterator<Item = &mut Pointer> {
        let writes = self.writes.iter_mut().map(|write| &mut write.at);
        writes.chain(self.ceilings.iter_mut().map(|ceiling| &mut ceiling.at))
    }
}

/// Whether the kernel may kill processes because of a write to this file.
pub(super) fn can_kill(file: &str) -> bool {
    file == "memory.max"
}

impl Write {
    fn new(at: Pointer, file: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        Self { at, file: file.into(), value: value.into(), refused: WhenRefused::Fail }
    }

    fn unneeded_if(self, unneeded: bool) -> Self {
        if unneeded { Self { refused: WhenRefused::Unneeded, ..self } } else { self }
    }

    fn or(self, file: &'static str, value: String) -> Self {
        Self { refused: WhenRefused::Instead { file, value }, ..self }
    }

    /// The controller of the file; `cgroup` for the core files that every cgroup has.
    pub(super) fn controller(&self) -> &str {
        self.file.split_once('.').map_or(&*self.file, |(controller, _)| controller)
    }

    /// Whether the write requires its controller to be enabled.
    pub(super) fn needs_controller(&self) -> bool {
        self.refused != WhenRefused::Unneeded && self.controller() != "cgroup"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The writes for a `resources` object, as `file=value`.
    pub(super) fn written(json: &str) -> Vec<String> {
        let limits = plan(&serde_json::from_str(json).unwrap(), &Pointer::root()).unwrap();
        limits.writes.iter().map(|write| format!("{}={}", write.file, write.value)).collect()
    }

    /// The error for a `resources` object.
    pub(super) fn refused(json: &str) -> String {
        crate::error::line(&plan(&serde_json::from_str(json).unwrap(), &Pointer::root()).unwrap_err())
    }

    #[test]
    fn zeros_and_empty_objects_ask_for_nothing() {
        let json = r#"{"memory": {"limit": 0, "reservation": 0, "swap": 0, "kernel": 0, "disableOOMKiller": false},
            "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""}, "blockIO": {"weight": 0},
            "hugepageLimits": [], "rdma": {}, "unified": {}, "network": {"classID": 7}}"#;
        assert_eq!(written(json), [""; 0]);
        assert_eq!(written(r#"{"memory": {}, "cpu": {}, "blockIO": {}, "network": {}}"#), [""; 0]);
    }

    #[test]
    fn docker_limits_become_control_files_in_order() {
        let json = r#"{"memory": {"limit": 67108864, "swap": 134217728, "disableOOMKiller": false},
            "cpu": {"quota": 50000, "period": 100000, "cpus": "0"}, "pids": {"limit": 50}, "blockIO": {}}"#;
        let expected = [
            "pids.max=50",
            "memory.swap.max=67108864",
            "memory.max=67108864",
            "cpu.max=50000 100000",
            "cpuset.cpus=0",
        ];
        assert_eq!(written(json), expected);
    }

    #[test]
    fn a_write_knows_its_place_and_its_controller() {
        let json = r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 9}]}"#;
        let limits = plan(&serde_json::from_str(json).unwrap(), &Pointer::root().field("linux")).unwrap();
        let first = limits.writes.first().unwrap();
        assert_eq!(first.at.to_string(), "/linux/hugepageLimits/0/limit");
        assert_eq!(first.controller(), "hugetlb");
    }

    #[test]
    fn what_can_kill_is_written_once_and_last_to_a_cgroup_in_use() {
        let json = r#"{"memory": {"limit": 100, "swap": 150, "reservation": 50}, "cpu": {"quota": 5000},
            "unified": {"memory.high": "70", "memory.max": "90", "misc.max": "a 1", "pids.max": "9"}}"#;
        let mut limits = plan(&serde_json::from_str(json).unwrap(), &Pointer::root()).unwrap();
        limits.order_kills_last();
        let written: Vec<_> =
            limits.writes.iter().map(|write| format!("{}={}", write.file, write.value)).collect();
        let expected = [
            "memory.swap.max=50",
            "memory.low=50",
            "cpu.max=5000 100000",
            "misc.max=a 1",
            "pids.max=9",
            "memory.high=70",
            "memory.max=90",
        ];
        assert_eq!(written, expected);
    }

    #[test]
    fn unified_has_the_last_word() {
        let json = r#"{"unified": {"pids.max": "9"}, "pids": {"limit": 50}}"#;
        assert_eq!(written(json), ["pids.max=50", "pids.max=9"]);
    }
}
