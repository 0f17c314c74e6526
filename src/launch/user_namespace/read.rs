//! Reads the id maps of an existing user namespace. The kernel shows them only through a process in it.

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};

use super::Holder;
use crate::plan::linux::id_maps::{IdMaps, Map};
use crate::plan::linux::namespaces;

/// Returns the id maps of the user namespace `namespace`, which was opened at `path`, as seen from the
/// runtime's own user namespace.
pub fn id_maps(namespace: BorrowedFd<'_>, path: &Path) -> Result<IdMaps> {
    if let Some(pid) = process_of(path) {
        if let Ok(maps) = read(pid) {
            // The pid has not been reused: its namespace is still the same one.
            if namespaces::is_at(namespace, path) {
                return Ok(maps);
            }
        }
    }
    read(Holder::joined(namespace)?.pid())
}

/// The pid in a path of the usual form, /proc/PID/ns/user.
fn process_of(path: &Path) -> Option<i32> {
    path.strip_prefix("/proc").ok()?.to_str()?.strip_suffix("/ns/user")?.parse().ok()
}

fn read(pid: i32) -> Result<IdMaps> {
    let map = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        Map::parse(&text).ok_or_else(|| anyhow!("{path}: invalid id map {text:?}"))
    };
    Ok(IdMaps { users: map("uid_map")?, groups: map("gid_map")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_usual_path_names_a_process() {
        assert_eq!(process_of(Path::new("/proc/123/ns/user")), Some(123));
        for path in ["/proc/self/ns/user", "/run/userns/a", "/proc/1/task/1/ns/user", "/proc/123/ns/net"] {
            assert_eq!(process_of(Path::new(path)), None);
        }
    }
}
