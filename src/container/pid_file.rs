//! `--pid-file`.
//!
//! A regular file, or none: a new file with the whole number takes its place, so that a reader finds none,
//! the old one or the whole new one. It gets its name when it is complete (O_TMPFILE; open(2)), so whoever is
//! killed on the way leaves nothing, or the next one's way is not blocked by it.
//!
//! A device, a pipe: it is written to, and never replaced, as by crun. runc puts a file in its place, and
//! what was /dev/null for the whole host is a file then. It is opened without waiting for a reader.
//!
//! A symbolic link is not followed (crun follows it, runc does not): the file takes its place, unless it
//! leads to what is no regular file, as /dev/stdout does. What many use by that name is not ours to take
//! away, nor is what it leads to ours to write to.

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

/// How often others may be just as far with the same file.
const TRIES: u32 = 100;

/// Less what the umask takes away.
const MODE: Mode = Mode::from_raw_mode(0o666);

/// A pid file that has been written, by whoever has not succeeded yet: if that fails, it goes, unless it is
/// another's by then.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    /// `None` if it was there before, or is to stay.
    own: Option<File>,
}

impl PidFile {
    /// Writes `pid` to the file at `path`. Digits alone: go-runc's reader takes nothing else.
    ///
    /// # Errors
    /// `path` names no file; it leads, by a symbolic link, to what is no regular file; `ENXIO` if nobody
    /// reads the pipe there.
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

    /// Leaves it to whoever has asked for it.
    pub fn keep(mut self) {
        self.own = None;
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(own) = self.own.take()
            && let (Ok(own), Ok(found)) = (fstat(&own), statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW))
            && (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino)
        {
            let _ = unlinkat(CWD, &self.path, AtFlags::empty());
        }
    }
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Whether what is at `path` is there and is no regular file.
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
        // It is replaced, wherever it leads.
        _ => Ok(false),
    }
}

/// Writes to a device or a pipe.
fn write_into(path: &Path, text: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    File::from(openat(CWD, path, flags, Mode::empty())?).write_all(text)
}

/// Puts a new file in the place of what is at `path`. Where that takes a second name, it is `hidden`.
fn replace(path: &Path, hidden: &Path, text: &[u8]) -> io::Result<File> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for _ in 0..TRIES {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let mut file: File = match openat(CWD, parent, flags, MODE) {
            // Not every file system can have files without a name.
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
            // Somebody who was killed has left it; or somebody else, who is as far with a whole file of theirs, begins again.
            Err(Errno::EXIST) if is_pid_file(hidden) => drop(unlinkat(CWD, hidden, AtFlags::empty())),
            // That is nobody's pid file, and not ours to remove.
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

/// Whether what is at `path` is what [`replace`] writes: digits, and not many of them.
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

/// The same by a file whose name is nobody else's. Whoever is killed leaves it, but in nobody's way.
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
            // What a killed one leaves.
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
