//! The directory of this test process and the names used in it.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

use super::leftovers;

static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
    let directory = env::temp_dir().join(format!("runtime-tests-{}", process::id()));
    fs::create_dir_all(&directory).unwrap();
    directory
});

pub fn directory() -> &'static Path {
    &DIRECTORY
}

/// A name that no other test of any process uses; good as a container's id, a cgroup or a file.
pub fn unique_name() -> String {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let name = format!("rt-{}-{}", process::id(), LAST.fetch_add(1, Ordering::Relaxed));
    leftovers::watch(&name);
    name
}

/// Ends what there is of this test process on the disk.
pub fn remove() {
    remove_tree(directory());
}

/// Removes a directory and all in it, unless something is mounted there: what a faulty runtime has left mounted may be
/// a directory of the host, whose files are not ours to delete.
pub fn remove_tree(directory: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let inside = |line: &&str| line.split(' ').nth(4).is_some_and(|at| Path::new(at).starts_with(directory));
    if let Some(mount) = mounts.lines().find(inside) {
        eprintln!("not removed, for something is mounted there: {mount}");
    } else if let Err(error) = fs::remove_dir_all(directory) {
        if directory.exists() {
            eprintln!("remove {}: {error}", directory.display());
        }
    }
}
