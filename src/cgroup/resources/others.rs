//! pids.max, hugetlb.*.max, rdma.max, and the files of `unified`.

use std::collections::HashMap;

use anyhow::Result;
use oci_spec::runtime::{LinuxHugepageLimit, LinuxRdma};

use super::Write;
use crate::error::Pointer;

/// Negative means unlimited. 0 means not set, as in crun: clients send it, or an empty object, when no limit
/// was set. runc makes 0 a limit of 1, but can tell it from an empty object.
pub(super) fn pids(limit: i64, at: &Pointer) -> Option<Write> {
    match limit {
        0 => None,
        ..0 => Some(Write::new(at.clone(), "pids.max", "max").unneeded_if(true)),
        _ => Some(Write::new(at.clone(), "pids.max", limit.to_string())),
    }
}

/// Limits both pages in use and reserved pages; kernels before 5.7 do not count reservations.
pub(super) fn huge_pages(pages: &[LinuxHugepageLimit], at: &Pointer, writes: &mut Vec<Write>) -> Result<()> {
    for (index, page) in pages.iter().enumerate() {
        let at = at.index(index);
        let (size, limit) = (page.page_size(), page.limit());
        if !is_page_size(size) {
            let message = format!("invalid page size {size:?} (expected e.g. \"64KB\", \"2MB\" or \"1GB\")");
            return Err(at.field("pageSize").error(message));
        }
        if limit < 0 {
            return Err(at.field("limit").error(format_args!("invalid number of bytes: {limit}")));
        }
        let at = at.field("limit");
        writes.push(Write::new(at.clone(), format!("hugetlb.{size}.max"), limit.to_string()));
        writes.push(Write::new(at, format!("hugetlb.{size}.rsvd.max"), limit.to_string()).unneeded_if(true));
    }
    Ok(())
}

/// Validates a page size, which becomes part of a file name.
fn is_page_size(size: &str) -> bool {
    let number = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

pub(super) fn rdma(
    devices: &HashMap<String, LinuxRdma>,
    at: &Pointer,
    writes: &mut Vec<Write>,
) -> Result<()> {
    for (name, limit) in sorted(devices) {
        let at = at.field(name);
        if name.is_empty() || name.contains(|c: char| c.is_ascii_whitespace() || c == '\0') {
            return Err(at.error(format_args!("invalid device name {name:?}")));
        }
        let mut value = name.to_owned();
        for (key, number) in [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())] {
            if let Some(number) = number {
                value.push_str(&format!(" {key}={number}"));
            }
        }
        if value.len() > name.len() {
            writes.push(Write::new(at, "rdma.max", value));
        }
    }
    Ok(())
}

/// Plans the files by name; each line of a value is a separate write.
pub(super) fn unified(files: &HashMap<String, String>, at: &Pointer, writes: &mut Vec<Write>) -> Result<()> {
    /// These act on processes, possibly those of others, and limit nothing.
    const ACTIONS: [&str; 5] =
        ["cgroup.freeze", "cgroup.kill", "cgroup.procs", "cgroup.threads", "cgroup.type"];
    for (name, value) in sorted(files) {
        let at = at.field(name);
        if name.contains('/') {
            return Err(at.error(format_args!("unified resource {name:?} must be a file name (no slashes)")));
        }
        if name.contains('\0') || !name.split_once('.').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty()) {
            let message = format!("unified resource {name:?} must be in the form CONTROLLER.PARAMETER");
            return Err(at.error(message));
        }
        if ACTIONS.contains(&name) {
            return Err(at.error(format_args!("{name:?} is not a resource limit")));
        }
        let lines = value.trim_end_matches('\n');
        // An empty value, e.g. to clear cpuset.cpus, is also a write.
        for line in lines.split('\n').map(|line| if line.is_empty() { "\n" } else { line }) {
            writes.push(Write::new(at.clone(), name.to_owned(), line));
        }
    }
    Ok(())
}

/// Returns the entries of a map sorted, so that the order is the same on every run.
fn sorted<V>(map: &HashMap<String, V>) -> Vec<(&str, &V)> {
    let mut entries: Vec<_> = map.iter().map(|(key, value)| (key.as_str(), value)).collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    entries
}

#[cfg(test)]
mod tests {
    use super::super::tests::{refused, written};

    #[test]
    fn pids_zero_and_an_empty_object_set_nothing_and_negative_is_unlimited() {
        assert!(written(r#"{"pids": {"limit": 0}}"#).is_empty());
        assert!(written(r#"{"pids": {}}"#).is_empty());
        assert_eq!(written(r#"{"pids": {"limit": -1}}"#), ["pids.max=max"]);
        assert_eq!(written(r#"{"pids": {"limit": 77}}"#), ["pids.max=77"]);
    }

    #[test]
    fn huge_pages_limit_use_and_reservation() {
        let json = r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#;
        assert_eq!(written(json), ["hugetlb.2MB.max=4194304", "hugetlb.2MB.rsvd.max=4194304"]);
    }

    #[test]
    fn a_page_size_cannot_leave_the_cgroup() {
        for size in ["../../2MB", "2mb", "MB", "", "2MB/x", "2 MB"] {
            let json = format!(r#"{{"hugepageLimits": [{{"pageSize": "{size}", "limit": 1}}]}}"#);
            assert_eq!(
                refused(&json),
                format!(
                    "config.json: /hugepageLimits/0/pageSize: invalid page size {size:?} (expected e.g. \
                     \"64KB\", \"2MB\" or \"1GB\")"
                )
            );
        }
    }

    #[test]
    fn rdma_limits_are_one_line_for_each_device() {
        let json = r#"{"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {"hcaObjects": 1}, "x": {}}}"#;
        assert_eq!(
            written(json),
            ["rdma.max=mlx4_0 hca_object=1", "rdma.max=mlx5_1 hca_handle=3 hca_object=10000"]
        );
    }

    #[test]
    fn unified_is_sorted_and_written_line_by_line() {
        let json = r#"{"unified": {"memory.high": "100", "io.max": "8:0 rbps=1\n8:16 rbps=2\n", "cpuset.cpus": ""}}"#;
        let expected = ["cpuset.cpus=\n", "io.max=8:0 rbps=1", "io.max=8:16 rbps=2", "memory.high=100"];
        assert_eq!(written(json), expected);
    }

    #[test]
    fn unified_names_files_of_limits_only() {
        assert_eq!(
            refused(r#"{"unified": {"../x.y": "1"}}"#),
            "config.json: /unified/..~1x.y: unified resource \"../x.y\" must be a file name (no slashes)"
        );
        assert_eq!(
            refused(r#"{"unified": {"memory": "1"}}"#),
            "config.json: /unified/memory: unified resource \"memory\" must be in the form CONTROLLER.PARAMETER"
        );
        assert_eq!(
            refused(r#"{"unified": {"cgroup.procs": "1"}}"#),
            "config.json: /unified/cgroup.procs: \"cgroup.procs\" is not a resource limit"
        );
    }
}
