//! Finds what a container has left on the machine: cgroups, mounts, processes, files.
//!
//! Everything that belongs to a test is identified by its unique name, which is part of the paths of its
//! cgroup, bundle and state directory, and of its mounts and processes.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use super::host::CGROUPS;
use super::workspace;

thread_local! {
    static WATCHED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Makes `name` one of those that [`of_this_thread`] looks for.
pub fn watch(name: &str) {
    WATCHED.with_borrow_mut(|watched| watched.push(name.to_owned()));
}

/// The test of this thread is over, and well.
pub fn forget() {
    WATCHED.take();
}

/// What remains of the test that this thread has run, each in a few words.
pub fn of_this_thread() -> Vec<String> {
    WATCHED.take().iter().flat_map(|name| of(name)).collect()
}

/// What remains under `name`.
pub fn of(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    find_directories(Path::new(CGROUPS), name, &mut found);
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    found.extend(mountinfo.lines().filter(|line| has_word(line, name)).map(|line| format!("mount {line}")));
    found.extend(processes(name));
    let directory = workspace::directory().join(name);
    if directory.exists() {
        found.push(format!("directory {}", directory.display()));
    }
    found
}

/// Processes whose command line, environment, cgroup or root file system belongs to `name`.
fn processes(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|byte| byte.is_ascii_digit()) || pid == std::process::id().to_string() {
            continue;
        }
        // Any of these fails when the process ends meanwhile, which is no leftover.
        let of = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        if has_ended(&String::from_utf8_lossy(&of("stat"))) {
            continue;
        }
        if ["cmdline", "environ", "cgroup", "mountinfo"]
            .iter()
            .any(|file| has_word(&String::from_utf8_lossy(&of(file)), name))
        {
            let command = String::from_utf8_lossy(&of("cmdline")).replace('\0', " ");
            found.push(format!("process {pid}: {command}"));
        }
    }
    found
}

/// A zombie waits for its parent, which after create and start is this machine's first process; and the first process of a pid
/// namespace, which is exiting, for that to wait for the zombies there. proc_pid_stat(5): state, flags (PF_EXITING).
fn has_ended(stat: &str) -> bool {
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let flags = fields.get(6).and_then(|flags| flags.parse::<u32>().ok()).unwrap_or(0);
    fields.first() == Some(&"Z") || flags & 0x4 != 0
}

fn find_directories(directory: &Path, name: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if has_word(&entry.file_name().to_string_lossy(), name) {
            found.push(format!("cgroup {}", entry.path().display()));
        }
        find_directories(&entry.path(), name, found);
    }
}

/// Whether `name` stands in `text` and does not go on with a digit: rt-7-1 is not rt-7-12.
pub fn has_word(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        text.get(at + name.len()..).is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
    })
}
