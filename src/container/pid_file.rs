//! Writes `--pid-file`.
//!
//! A regular or missing file is replaced atomically, so that a reader finds no file, the old one or the
//! complete new one. The new file is written without a name (O_TMPFILE; open(2)), so a process killed on the
//! way leaves nothing that blocks the next one.
//!
//! A device or fifo is written to and never replaced, as in crun. (runc replaces it, which turns /dev/null
//! into a regular file for the whole host.) A fifo is opened without waiting for a reader.
//!
//! A symbolic link is replaced, not followed (crun follows it, runc does not). It is an error if it leads to
//! something other than a regular file, as /dev/stdout does: the link is shared, so it must not be replaced,
//! and its target was not given by name, so it must not be written to.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, linkat, openat, renameat, statat, unlinkat,
};

use crate::error::Hint;
use crate::sys::Errno;

/// How often to retry when other processes write the same file at the same time.
const TRIES: u32 = 100;

/// Subject to the umask.
const MODE: Mode = Mode::from_raw_mode(0o666);

/// A pid file that has been written by a command that may still fail. It is removed on drop, unless it is
/// kept or has been replaced by another file.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    /// `None` if it is not a file that we created, or is to be kept.
    own: Option<File>,
}

impl PidFile {
    /// Writes `pid` to the file at `path`: digits only, because go-runc does not parse anything else.
    ///
    /// # Errors
    /// If `path` has no file name, or is a symbolic link to something other than a regular file; `ENXIO` if
    /// it is a fifo without a reader.
    pub fn write(path: &Path, pid: i32) -> Result<Self> {
        let name =
            path.file_name().ok_or_else(|| anyhow!("--pid-file {}: has no file name", path.display()))?;
        let doing = || format!("write pid file {}", path.display());
        let text = pid.to_string();
        let path = path.to_owned();
        if is_special(&path).with_context(doing)? {
            write_into(&path, text.as_bytes()).with_context(doing)?;
            return Ok(Self { path, own: None });
        }
        let mut hidden = OsString::from(".");
        hidden.push(name);
        let own = replace(&path, &path.with_file_name(hidden), text.as_bytes()).with_context(doing)?;
        Ok(Self { path, own: Some(own) })
    }

    /// Keeps the file: the command has succeeded.
    pub fn keep(mut self) {
        self.own = None;
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(own) = self.own.take() {
            if let (Ok(own), Ok(found)) = (fstat(&own), statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW)) {
                if (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino) {
                    let _ = unlinkat(CWD, &self.path, AtFlags::empty());
                }
            }
        }
    }
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Whether `path` exists and is not a regular file.
fn is_special(path: &Path) -> Result<bool> {
    let found = match statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(false),
        found => kind(&found?),
    };
    if found != FileType::Symlink {
        return Ok(found != FileType::RegularFile);
    }
    match statat(CWD, path, AtFlags::empty()) {
        Ok(target) if kind(&target) != FileType::RegularFile => {
            let message = "it is a symbolic link to something that is not a regular file".to_owned();
            Err(Hint(message, "specify the target itself".to_owned()).into())
        }
        // A link to a regular file, or a dangling one: replace the link itself.
        _ => Ok(false),
    }
}

/// Writes to a device or fifo.
fn write_into(path: &Path, text: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    File::from(openat(CWD, path, flags, Mode::empty())?).write_all(text)
}

/// Replaces `path` with a new file. `hidden` is the temporary name if `path` already exists.
fn replace(path: &Path, hidden: &Path, text: &[u8]) -> io::Result<File> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for _ in 0..TRIES {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let mut file: File = match openat(CWD, parent, flags, MODE) {
            // Not every file system supports O_TMPFILE.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                return replace_by_name(path, hidden, text);
            }
            file => file?.into(),
        };
        file.write_all(text)?;
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        let link = |name: &Path| linkat(CWD, &own, CWD, name, AtFlags::SYMLINK_FOLLOW);
        match link(path) {
            Err(Errno::EXIST) => {}
            linked => return linked.map(|()| file).map_err(io::Error::from),
        }
        match link(hidden).and_then(|()| renameat(CWD, hidden, CWD, path)) {
            Ok(()) => return Ok(file),
            // Left by a process that was killed, or in use by a concurrent one, which then retries.
            Err(Errno::EXIST) if is_pid_file(hidden) => drop(unlinkat(CWD, hidden, AtFlags::empty())),
            // Not a pid file, so not ours to remove.
            Err(Errno::EXIST) => return replace_by_name(path, hidden, text),
            Err(Errno::NOENT) => {}
            Err(errno) => {
                let _ = unlinkat(CWD, hidden, AtFlags::empty());
                return Err(errno.into());
            }
        }
    }
    Err(Errno::BUSY.into())
}

/// Whether `path` looks like something [`replace`] wrote: 1 to 10 digits.
fn is_pid_file(path: &Path) -> bool {
    const LONGEST: u64 = 10;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = openat(CWD, path, flags, Mode::empty()) else { return false };
    if !fstat(&file).is_ok_and(|stat| kind(&stat) == FileType::RegularFile) {
        return false;
    }
    let mut text = Vec::new();
    let read = File::from(file).take(LONGEST + 1).read_to_end(&mut text);
    read.is_ok_and(|length| length > 0 && length as u64 <= LONGEST) && text.iter().all(u8::is_ascii_digit)
}

/// Like [`replace`], through a temporary file with a unique name. If killed, it leaves that file, which
/// blocks nobody.
fn replace_by_name(path: &Path, hidden: &Path, text: &[u8]) -> io::Result<File> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos());
    let mut temporary = hidden.as_os_str().to_owned();
    temporary.push(format!(".{}.{now}", std::process::id()));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file: File = openat(CWD, &temporary, flags, MODE)?.into();
    let written = file.write_all(text).and_then(|()| Ok(renameat(CWD, &temporary, CWD, path)?));
    if written.is_err() {
        let _ = unlinkat(CWD, &temporary, AtFlags::empty());
    }
    written.map(|()| file)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};

    use super::*;
    use crate::error::line;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn it_is_written_whatever_was_there_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        for pid in 1..4 {
            PidFile::write(&path, pid).unwrap().keep();
            assert_eq!(fs::read_to_string(&path).unwrap(), pid.to_string());
            assert_eq!(names(directory.path()), ["pid"]);
            // What a killed process leaves.
            fs::write(directory.path().join(".pid"), "9").unwrap();
        }
        let hidden = directory.path().join(".pid");
        replace_by_name(&path, &hidden, b"7").unwrap();
        assert_eq!(
            (&*fs::read_to_string(&path).unwrap(), fs::read_to_string(hidden).unwrap().as_str()),
            ("7", "9")
        );
        assert_eq!(names(directory.path()), [".pid", "pid"]);
    }

    #[test]
    fn a_hidden_file_that_is_no_pid_file_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (path, hidden) = (directory.path().join("pid"), directory.path().join(".pid"));
        for text in ["", "precious", "12345678901"] {
            fs::write(&hidden, text).unwrap();
            fs::write(&path, "1").unwrap();
            PidFile::write(&path, 2).unwrap().keep();
            assert_eq!(fs::read_to_string(&path).unwrap(), "2");
            assert_eq!(fs::read_to_string(&hidden).unwrap(), text);
            assert_eq!(names(directory.path()), [".pid", "pid"]);
        }
    }

    #[test]
    fn a_failure_takes_away_its_own_file_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        drop(PidFile::write(&path, 1).unwrap());
        assert!(!path.exists());
        let first = PidFile::write(&path, 1).unwrap();
        PidFile::write(&path, 2).unwrap().keep();
        drop(first);
        assert_eq!(fs::read_to_string(&path).unwrap(), "2");
    }

    #[test]
    fn what_is_no_regular_file_is_written_to_and_a_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = line(&PidFile::write(&at("fifo"), 1).unwrap_err());
        assert!(error.ends_with("(ENXIO)"), "{error}");
        let mut reader = fs::OpenOptions::new().read(true).write(true).open(at("fifo")).unwrap();
        drop(PidFile::write(&at("fifo"), 77).unwrap());
        let mut text = [0; 2];
        io::Read::read_exact(&mut reader, &mut text).unwrap();
        assert!(&text == b"77" && fs::metadata(at("fifo")).unwrap().file_type().is_fifo());

        symlink(at("fifo"), at("to-fifo")).unwrap();
        let error = line(&PidFile::write(&at("to-fifo"), 1).unwrap_err());
        assert!(error.contains("it is a symbolic link to something that is not a regular file"), "{error}");
        fs::write(at("target"), "").unwrap();
        for link in ["target", "nothing"] {
            symlink(at(link), at("link")).unwrap();
            PidFile::write(&at("link"), 5).unwrap().keep();
            assert!(fs::symlink_metadata(at("link")).unwrap().is_file());
            fs::remove_file(at("link")).unwrap();
        }
        assert_eq!(fs::read_to_string(at("target")).unwrap(), "");
        assert!(!at("nothing").exists());
        let error = line(&PidFile::write(directory.path(), 1).unwrap_err());
        assert!(error.ends_with("(EISDIR)"), "{error}");
        let umask = fs::metadata(at("target")).unwrap().permissions().mode();
        PidFile::write(&at("pid"), 5).unwrap().keep();
        assert_eq!(fs::metadata(at("pid")).unwrap().permissions().mode(), umask);
    }
}
