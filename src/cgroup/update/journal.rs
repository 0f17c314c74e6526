//! Writing control files in a way that can be undone: the old value is read before each write.

use std::borrow::Cow;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use rustix::fs::{Access, AtFlags, accessat};
use rustix::io::Errno;

use crate::cgroup::change::Change;
use crate::cgroup::control_file;

/// The writes to one cgroup: for each, in order, what restores the state before it.
#[derive(Debug, Default)]
pub(super) struct Journal(Vec<Vec<Restoring>>);

/// A value that restores a file, or one line of it.
#[derive(Debug, PartialEq, Eq)]
struct Restoring {
    file: String,
    value: String,
    /// The value that was written, which says which line of the file it is.
    written: String,
}

/// Whether what `value` would replace in `file` can be read and restored later. A missing file is left for
/// the write to report.
pub(super) fn can_restore(cgroup: BorrowedFd<'_>, file: &str, value: &str) -> bool {
    match control_file::read(cgroup, file) {
        Ok(before) => all_restoring(file, &before, value).is_some(),
        Err(errno) => errno == Errno::NOENT,
    }
}

/// Returns what `value` would replace in `file`, without a newline.
///
/// # Errors
/// As [`Journal::write`], as far as they can be found without writing; whether the kernel would accept the
/// value is unknown.
pub(super) fn would_replace(cgroup: BorrowedFd<'_>, file: &str, value: &str) -> Result<String, Errno> {
    let before = control_file::read(cgroup, file)?;
    let restoring = all_restoring(file, &before, value).ok_or(Errno::INVAL)?;
    accessat(cgroup, file, Access::WRITE_OK, AtFlags::empty())?;
    Ok(restoring.iter().map(|restoring| restoring.value.trim()).collect::<Vec<_>>().join(" "))
}

/// The value of an empty file.
pub(super) const NOTHING: &str = "\n";

/// Returns what to write now to `file`, which once held `value`. It differs only for [`NOTHING`].
///
/// The cpuset lists of a cgroup with processes cannot be emptied again once set (`ENOSPC`). An empty list
/// means the parent's effective CPUs or memory nodes, so these are written instead. CPUs or nodes that come
/// online later are then not picked up, but a longer list would invalidate the partitions of sibling cgroups;
/// cgroup-v2.rst § Cpuset.
pub(super) fn meant<'a>(cgroup: BorrowedFd<'_>, file: &str, value: &'a str) -> Cow<'a, str> {
    let above = || {
        let events = control_file::read(cgroup, "cgroup.events").ok()?;
        (control_file::value(&events, "populated") == Some("1")).then_some(())?;
        let above = control_file::open_dir_at(cgroup, Path::new("..")).ok()?;
        control_file::read(above.as_fd(), &format!("{file}.effective")).ok()
    };
    let is_list = value == NOTHING && matches!(file, "cpuset.cpus" | "cpuset.mems");
    match is_list.then(above).flatten() {
        Some(list) => list.trim().to_owned().into(),
        None => value.into(),
    }
}

/// Returns what writing `value` to `file` would change.
///
/// # Errors
/// As [`would_replace`].
pub(super) fn would_change(cgroup: BorrowedFd<'_>, file: &str, value: &str) -> Result<Vec<Change>, Errno> {
    let change = |file: &str, from: &str, to: &str| {
        let of = line_of(file, to).to_owned();
        let [file, from, to] = [file, from.trim(), to.trim()].map(str::to_owned);
        Change { file, of, from, to }
    };
    let before = would_replace(cgroup, file, value)?;
    if let Some(whole) = whole_of(file) {
        return Ok(vec![change(whole, &control_file::read(cgroup, whole)?, "")]);
    }
    let mut changes = vec![change(file, &before, value)];
    // As in [`Journal::write`].
    if file == "cpu.idle" && before == "0" {
        changes.push(change("cpu.weight", &control_file::read(cgroup, "cpu.weight")?, ""));
    }
    Ok(changes)
}

impl Journal {
    /// Writes `value` to `file` and remembers the old one.
    ///
    /// # Errors
    /// As [`control_file::write`]; `EINVAL` if [`can_restore`] is false.
    pub(super) fn write(&mut self, cgroup: BorrowedFd<'_>, file: &str, value: &str) -> Result<(), Errno> {
        let (place, written) = whole_of(file).map_or((file, value), |whole| (whole, ""));
        let before = control_file::read(cgroup, place)?;
        let mut restoring = all_restoring(place, &before, written).ok_or(Errno::INVAL)?;
        // A cgroup loses its weight when it becomes idle, and gets the default one when it no longer is.
        if file == "cpu.idle" && before.trim() == "0" {
            let weight = control_file::read(cgroup, "cpu.weight")?;
            let (value, written) = (weight.trim().into(), String::new());
            restoring.push(Restoring { file: "cpu.weight".into(), value, written });
        }
        control_file::write(cgroup, file, value)?;
        self.0.push(restoring);
        Ok(())
    }

    /// Remembers what `value` will replace in `file`, without writing it.
    ///
    /// # Errors
    /// As [`would_replace`].
    pub(super) fn note(&mut self, cgroup: BorrowedFd<'_>, file: &str, value: &str) -> Result<(), Errno> {
        let before = control_file::read(cgroup, file)?;
        let restoring = all_restoring(file, &before, value).ok_or(Errno::INVAL)?;
        accessat(cgroup, file, Access::WRITE_OK, AtFlags::empty())?;
        self.0.push(restoring);
        Ok(())
    }

    /// Returns what differs from before the first write, in order.
    pub(super) fn changes(&self, cgroup: BorrowedFd<'_>) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        for Restoring { file, value, written } in self.0.iter().flatten() {
            let of = line_of(file, written);
            if changes.iter().any(|change| change.place() == (file, of)) {
                continue;
            }
            // Read back, because the kernel rounds. If the cgroup is gone, the written value counts.
            let now = control_file::read(cgroup, file).ok();
            let now = now.and_then(|now| restoring(file, &now, written)).map(|now| now.value);
            let (from, to) = (value.trim(), now.as_deref().unwrap_or(written).trim());
            let [file, of, from, to] = [file, of, from, to].map(str::to_owned);
            changes.push(Change { file, of, from, to });
        }
        changes.retain(|change| change.from != change.to);
        changes
    }

    /// Undoes all writes, the last one first; returns the files that could not be restored.
    pub(super) fn undo(&mut self, cgroup: BorrowedFd<'_>) -> Vec<String> {
        let mut lost = Vec::new();
        for Restoring { file, value, .. } in self.0.drain(..).rev().flatten() {
            if control_file::write(cgroup, &file, &meant(cgroup, &file, &value)).is_err() {
                lost.push(file);
            }
        }
        lost
    }

    /// Keeps all writes.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

/// Returns the file with the exact value of which `file` shows a rounded one: a nice value stands for one of
/// 40 of the 10000 weights, and the kernel shows the nearest.
fn whole_of(file: &str) -> Option<&'static str> {
    (file == "cpu.weight.nice").then_some("cpu.weight")
}

/// Files with a line per device, and what to write after the device to restore a line that did not exist.
const BY_DEVICE: [(&str, &str); 6] = [
    ("io.max", "rbps=max wbps=max riops=max wiops=max"),
    ("io.weight", "default"),
    ("io.bfq.weight", "default"),
    ("io.latency", "target=max"),
    // These always list all devices or resources.
    ("rdma.max", ""),
    ("misc.max", ""),
];

/// The device of a line. A weight without a device is the default.
fn device(line: &str) -> &str {
    line.split_once(' ').map_or("default", |(device, _)| device)
}

/// The line of `file` that a value is for, if the file has several.
pub(super) fn line_of<'a>(file: &str, value: &'a str) -> &'a str {
    match file {
        "cgroup.subtree_control" => value.get(1..).unwrap_or_default(),
        file if BY_DEVICE.iter().any(|(name, _)| *name == file) => device(value),
        _ => "",
    }
}

/// Returns what restores a `file` that contains `before` after `value` has been written to it; `None` if
/// unknown.
fn all_restoring(file: &str, before: &str, value: &str) -> Option<Vec<Restoring>> {
    if file == "cgroup.subtree_control" {
        return value.split_ascii_whitespace().map(|word| restoring(file, before, word)).collect();
    }
    Some(vec![restoring(file, before, value)?])
}

/// The same for one part of the value.
fn restoring(file: &str, before: &str, written: &str) -> Option<Restoring> {
    let write = |value: &str| {
        let (file, value, written) = (file.to_owned(), value.to_owned(), written.to_owned());
        Some(Restoring { file, value, written })
    };
    if let Some((_, absent)) = BY_DEVICE.iter().find(|(name, _)| *name == file) {
        let device = device(written);
        let old = before.lines().find(|line| line.split(' ').next() == Some(device));
        return match old {
            Some(line) => write(line.trim()),
            None if device == "default" => write(before.trim()),
            None if absent.is_empty() => None,
            None => write(&format!("{device} {absent}")),
        };
    }
    match (file, before.trim_end_matches('\n')) {
        // What is written adds to or removes from the list.
        ("cgroup.subtree_control", list) => {
            let name = written.get(1..)?;
            write(&format!("{}{name}", if control_file::lists(list, name) { '+' } else { '-' }))
        }
        // After the type, the kernel shows why the partition is invalid.
        ("cpuset.cpus.partition", kind) => write(kind.split(' ').next().unwrap_or_default()),
        (_, "") => write(NOTHING),
        (_, line) if !line.contains('\n') => write(line),
        _ => None,
    }
}

#[cfg(any(test, feature = "fuzzing"))]
/// For fuzz targets: finds what restores a file that contains `text`.
pub(in crate::cgroup) fn parse(text: &str) {
    let (before, value) = text.split_once('\0').unwrap_or((text, "8:0 max"));
    let files = ["cgroup.subtree_control", "cpuset.cpus.partition", "memory.max"];
    for file in files.into_iter().chain(BY_DEVICE.map(|(file, _)| file)) {
        for restoring in all_restoring(file, before, value).into_iter().flatten() {
            assert_eq!(restoring.file, file, "{text:?}");
        }
        line_of(file, value);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd as _;

    use super::*;

    #[track_caller]
    fn restores(file: &str, before: &str, value: &str, expected: Option<&str>) {
        let values = all_restoring(file, before, value);
        let values = values.map(|all| all.into_iter().map(|part| part.value).collect::<Vec<_>>().join(" "));
        assert_eq!(values.as_deref(), expected);
    }

    #[test]
    fn a_file_of_one_value_gets_it_back() {
        restores("memory.max", "max\n", "5", Some("max"));
        restores("cpu.max", "max 100000\n", "5000 100000", Some("max 100000"));
        restores("cpuset.cpus", "\n", "1", Some("\n"));
        restores("cpuset.cpus.partition", "root invalid (cpu list is empty)\n", "member", Some("root"));
    }

    #[test]
    fn a_device_gets_back_what_it_had_or_nothing() {
        let before = "8:0 rbps=1 wbps=max riops=max wiops=max\n8:16 rbps=max wbps=2 riops=max wiops=max\n";
        restores("io.max", before, "8:16 rbps=7", Some("8:16 rbps=max wbps=2 riops=max wiops=max"));
        restores("io.max", before, "8:1 rbps=7", Some("8:1 rbps=max wbps=max riops=max wiops=max"));
        restores("io.max", "", "8:1 rbps=7", Some("8:1 rbps=max wbps=max riops=max wiops=max"));
        restores("io.weight", "default 100\n8:0 50\n", "700", Some("default 100"));
        restores("io.weight", "default 100\n8:0 50\n", "default 700", Some("default 100"));
        restores("io.weight", "default 100\n8:0 50\n", "8:0 60", Some("8:0 50"));
        restores("io.bfq.weight", "default 100\n", "8:0 60", Some("8:0 default"));
        restores("io.bfq.weight", "100\n", "700", Some("100"));
        restores(
            "rdma.max",
            "mlx4_0 hca_handle=2 hca_object=max\n",
            "mlx4_0 hca_handle=9",
            Some("mlx4_0 hca_handle=2 hca_object=max"),
        );
        restores("rdma.max", "mlx4_0 hca_handle=2 hca_object=max\n", "mlx4_1 hca_handle=9", None);
    }

    #[test]
    fn changes_of_a_list_are_turned_round() {
        restores("cgroup.subtree_control", "cpu pids\n", "+memory -pids +cpu", Some("-memory +pids +cpu"));
    }

    #[test]
    fn what_has_several_lines_of_unknown_meaning_cannot_be_put_back() {
        restores("memory.pressure", "some avg10=0.00\nfull avg10=0.00\n", "some 1 2", None);
    }

    #[test]
    fn everything_is_taken_back_in_reverse() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        for (name, text) in [("cpu.idle", "0\n"), ("cpu.weight", "174\n"), ("pids.max", "max\n")] {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let open = fs::File::open(directory.path()).unwrap();
        let mut journal = Journal::default();
        journal.write(open.as_fd(), "pids.max", "5").unwrap();
        journal.write(open.as_fd(), "cpu.idle", "1").unwrap();
        // As the kernel does.
        fs::write(directory.path().join("cpu.weight"), "0\n").unwrap();
        assert_eq!(journal.write(open.as_fd(), "cpu.none", "1"), Err(Errno::NOENT));
        assert_eq!(journal.undo(open.as_fd()), [""; 0]);
        let now = ["pids.max", "cpu.idle", "cpu.weight"].map(file);
        assert_eq!(now, ["max\n", "0\n", "174"]);
    }

    #[test]
    fn a_nice_value_is_taken_back_as_the_weight() {
        let directory = tempfile::tempdir().unwrap();
        let weight = || fs::read_to_string(directory.path().join("cpu.weight")).unwrap();
        for (name, text) in [("cpu.weight", "174\n"), ("cpu.weight.nice", "-2\n")] {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let open = fs::File::open(directory.path()).unwrap();
        let noted = would_change(open.as_fd(), "cpu.weight.nice", "-5").unwrap();
        let noted: Vec<_> = noted.iter().map(|change| (change.place(), &*change.from)).collect();
        assert_eq!(noted, [(("cpu.weight", ""), "174")]);
        let mut journal = Journal::default();
        journal.write(open.as_fd(), "cpu.weight.nice", "-5").unwrap();
        // As the kernel does.
        fs::write(directory.path().join("cpu.weight"), "305\n").unwrap();
        let changes = journal.changes(open.as_fd());
        assert_eq!(changes.first().map(Change::to_string).as_deref(), Some("cpu.weight 174 -> 305"));
        assert_eq!(journal.undo(open.as_fd()), [""; 0]);
        assert_eq!(weight(), "174\n");
        let none = tempfile::tempdir().unwrap();
        let none = fs::File::open(none.path()).unwrap();
        assert_eq!(journal.write(none.as_fd(), "cpu.weight.nice", "-5"), Err(Errno::NOENT));
    }

    #[test]
    fn a_cgroup_in_use_gets_the_processors_of_the_one_above_for_none() {
        let above = tempfile::tempdir().unwrap();
        let cgroup = above.path().join("cgroup");
        fs::create_dir(&cgroup).unwrap();
        fs::write(above.path().join("cpuset.cpus.effective"), "0-2,4\n").unwrap();
        fs::write(cgroup.join("cpuset.cpus"), "\n").unwrap();
        let open = fs::File::open(&cgroup).unwrap();
        let restored = |populated: &str| {
            fs::write(cgroup.join("cgroup.events"), format!("populated {populated}\nfrozen 0\n")).unwrap();
            fs::write(cgroup.join("cpuset.cpus"), "\n").unwrap();
            let mut journal = Journal::default();
            journal.write(open.as_fd(), "cpuset.cpus", "1").unwrap();
            assert_eq!(journal.undo(open.as_fd()), [""; 0]);
            fs::read_to_string(cgroup.join("cpuset.cpus")).unwrap()
        };
        assert_eq!(restored("1"), "0-2,4");
        assert_eq!(restored("0"), "\n");
        fs::write(cgroup.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        let meant = |file, value| meant(open.as_fd(), file, value).into_owned();
        assert_eq!(meant("cpuset.cpus", NOTHING), "0-2,4");
        assert_eq!(meant("cpuset.cpus", "1"), "1");
        assert_eq!(meant("cpuset.mems", NOTHING), NOTHING);
        assert_eq!(meant("cpuset.cpus.exclusive", NOTHING), NOTHING);
    }

    #[test]
    fn a_change_is_from_the_first_value_to_the_last_one() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [("pids.max", "20\n"), ("memory.low", "10\n"), ("io.weight", "default 100\n")] {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let open = fs::File::open(directory.path()).unwrap();
        let mut journal = Journal::default();
        for (file, value) in
            [("pids.max", "30"), ("memory.low", "10"), ("io.weight", "default 300"), ("pids.max", "40")]
        {
            journal.write(open.as_fd(), file, value).unwrap();
        }
        let changes = journal.changes(open.as_fd());
        let change = |file: &str, of: &str, from: &str, to: &str| {
            let [file, of, from, to] = [file, of, from, to].map(str::to_owned);
            Change { file, of, from, to }
        };
        let expected = [
            change("pids.max", "", "20", "40"),
            change("io.weight", "default", "default 100", "default 300"),
        ];
        assert_eq!(changes, expected);
        journal.forget();
    }

    #[test]
    fn what_would_be_replaced_is_told_without_writing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("io.max");
        fs::write(&file, "8:0 rbps=1 wbps=max riops=max wiops=max\n").unwrap();
        let open = fs::File::open(directory.path()).unwrap();
        let would = |value| would_replace(open.as_fd(), "io.max", value).unwrap();
        assert_eq!(would("8:0 rbps=7"), "8:0 rbps=1 wbps=max riops=max wiops=max");
        assert_eq!(would("8:16 rbps=7"), "8:16 rbps=max wbps=max riops=max wiops=max");
        assert_eq!(would_replace(open.as_fd(), "io.none", "1"), Err(Errno::NOENT));
        assert!(fs::read_to_string(&file).unwrap().starts_with("8:0 rbps=1 "));
    }
}
