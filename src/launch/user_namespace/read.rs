//! What an existing user namespace maps. The kernel tells only of a process, so there must be one in it.

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};

use super::Holder;
use crate::plan::linux::id_maps::{IdMaps, Map};
use crate::plan::linux::namespaces;

/// The maps of the user namespace that `namespace` is open on and that was found at `path`, as the runtime's own user
/// namespace sees it.
pub fn id_maps(namespace: BorrowedFd<'_>, path: &Path) -> Result<IdMaps> {
    if let Some(pid) = process_of(path)
        && let Ok(maps) = read(pid)
        // The process still is the one that it was.
        && namespaces::is_at(namespace, path)
    {
        return Ok(maps);
    }
    read(Holder::joined(namespace)?.pid())
}

/// As most callers name it: /proc/PID/ns/user.
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
