//! Reading and writing cgroup control files.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, read as read_fd, retry_on_intr, write as write_fd};

const LONGEST_PROCESS_LINE: usize = "4194304\n".len();

/// Opens a cgroup's directory.
pub(super) fn open_dir(path: &Path) -> Result<OwnedFd, Errno> {
    open_dir_at(CWD, path)
}

/// Opens the directory of a cgroup below `dir`.
pub(super) fn open_dir_at(dir: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    openat(dir, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Reads a control file.
pub(super) fn read(dir: BorrowedFd<'_>, name: &str) -> Result<String, Errno> {
    let file = openat(dir, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let mut content = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = retry_on_intr(|| read_fd(&file, &mut buffer))?;
        content.extend(buffer.iter().take(length));
        // A read returns the whole file, except for lists of processes, of which it returns as many lines as
        // fit into a page.
        if length + LONGEST_PROCESS_LINE < buffer.len() {
            return Ok(String::from_utf8_lossy(&content).into_owned());
        }
    }
}

/// Writes `value` in a single write, as the kernel requires.
///
/// # Errors
/// `ENOENT` if there is no such file: O_CREAT is not used, because it would turn that into `EACCES`.
pub(super) fn write(dir: BorrowedFd<'_>, name: &str, value: &str) -> Result<(), Errno> {
    let file = openat(dir, name, OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let written = retry_on_intr(|| write_fd(&file, value.as_bytes()))?;
    if written == value.len() { Ok(()) } else { Err(Errno::IO) }
}

/// Whether a list such as `cgroup.controllers` contains `name`.
pub(super) fn lists(list: &str, name: &str) -> bool {
    list.split_ascii_whitespace().any(|word| word == name)
}

/// Returns the value of `key` in a file of `key value` lines, such as `cgroup.events`.
pub(super) fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
}
