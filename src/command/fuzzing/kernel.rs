//! Kernel files about processes, mounts and the host, and the files about users that belong to them.

use crate::cgroup::intel_rdt;
use crate::host::{mountinfo, process};
use crate::init::home;
use crate::monitor::{host, network, processes};
use crate::plan::linux::id_maps::Map;

/// Any text file; every decoder gets it.
pub(super) fn files(input: &[u8]) {
    let text = &*String::from_utf8_lossy(input);
    let (stat, shown) = (process::parse_stat(input), processes::parse(1, input, 4096));
    if let (Some(stat), Some(shown)) = (stat, shown) {
        assert_eq!(stat.start, shown.start, "{text:?}");
    }
    mounts(input);
    if let Some(map) = Map::parse(text) {
        assert_eq!(Map::parse(&map.text()), Some(map));
    }
    host::parse(text);
    network::sums(text);
    intel_rdt::parse_schemata(text);
    for line in input.split(|byte| *byte == b'\n') {
        let home = home::home_of(line, 0);
        assert!(home.is_none_or(|home| !home.is_empty() && !home.contains(&0)), "{home:?}");
    }
}

/// Asserts that paths are unescaped like the kernel escapes them.
fn mounts(input: &[u8]) {
    use std::os::unix::ffi::OsStrExt as _;

    for mount in mountinfo::parse(input) {
        let escaped = mount.mount_point.as_os_str().as_bytes().iter().map(|byte| match byte {
            b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
            other => vec![*other],
        });
        let line = [b"1 1 1:1 / ", &*escaped.collect::<Vec<_>>().concat(), b" rw - ext4 /dev/a rw"].concat();
        assert_eq!(mountinfo::parse(&line).first().map(|mount| &mount.mount_point), Some(&mount.mount_point));
    }
}
