//! Reading untrusted files: never more than a limit, never devices or directories, and never waiting for a
//! writer that does not come.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Cursor, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::{Errno, retry_on_intr};

use crate::error::Hint;

/// The maximum size of a document, a thousand times the largest that engines write.
const MOST: u64 = 64 << 20;

/// How long to wait for a pipe to get a writer.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Whether a document may be a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipes {
    /// Yes: the user has named this file, and a shell's `<(…)` is a pipe.
    Taken,
    /// No: it is a file with a fixed name in a directory.
    Refused,
}

/// Reads a whole document that a caller provides.
///
/// # Errors
/// Errors of open(2) and read(2); not a regular file (or a pipe, if allowed); larger than 64 MiB; a pipe
/// without a writer.
pub fn document(path: &Path, pipes: Pipes) -> Result<Vec<u8>> {
    let refused = |what: String, hint: &str| {
        anyhow::Error::from(Hint(format!("read {}: {what}", path.display()), hint.to_owned()))
    };
    let failed = || format!("read {}", path.display());
    // Checked before opening, because opening a device can have side effects, e.g. start a watchdog.
    let found = std::fs::metadata(path).with_context(failed)?;
    let may_be_read = |kind: FileType| kind.is_file() || kind.is_fifo() && pipes == Pipes::Taken;
    let wrong = |found: &Metadata| {
        let hint = match pipes {
            Pipes::Taken => "it must be a regular file or a pipe containing JSON",
            Pipes::Refused => "it must be a regular file containing JSON",
        };
        if found.is_dir() {
            return anyhow!(Errno::ISDIR).context(Hint(failed(), hint.to_owned()));
        }
        refused(format!("is {}", name_of(found.file_type())), hint)
    };
    if !may_be_read(found.file_type()) {
        return Err(wrong(&found));
    }
    let file = open(path, 0).with_context(failed)?;
    let found = file.metadata().with_context(failed)?;
    if !may_be_read(found.file_type()) {
        return Err(wrong(&found));
    }
    if found.file_type().is_fifo() {
        let start = loop {
            match look(&file, &PATIENCE).with_context(failed)? {
                Seen::Nobody => {
                    return Err(refused("pipe has no writer".into(), "open it for writing first"));
                }
                Seen::Writer => {}
                Seen::Start(start) => break start,
            }
        };
        // There is a writer: from now on, wait for it.
        rustix::fs::fcntl_setfl(&file, OFlags::empty()).with_context(failed)?;
        return text(start.chain(&file)).with_context(failed);
    }
    text(&file).with_context(failed)
}

/// Reads `stream` to its end, with the size limit of [`document`].
pub fn text(stream: impl Read) -> io::Result<Vec<u8>> {
    at_most(MOST, stream)
}

/// Reads a file of the state directory, to which only this program writes. Does not follow a symbolic link.
///
/// # Errors
/// Errors of open(2), such as `NotFound`, unchanged.
pub fn record(path: &Path) -> io::Result<Vec<u8>> {
    opened_record(open(path, libc::O_NOFOLLOW)?.into())
}

/// As [`record`], for a file opened with [`RECORD`].
pub fn opened_record(file: OwnedFd) -> io::Result<Vec<u8>> {
    let file = File::from(file);
    let found = file.metadata()?;
    let kind = found.file_type();
    if !kind.is_file() {
        let message = format!("is {}, not a regular file", name_of(kind));
        return Err(io::Error::new(ErrorKind::InvalidData, message));
    }
    if !is_trusted(found.uid()) {
        let message = format!("owned by untrusted user {}", found.uid());
        return Err(io::Error::new(ErrorKind::InvalidData, message));
    }
    // With as few system calls as possible, since every command starts with this. The extra byte of capacity
    // lets the first read detect the end of the file.
    let mut text = Vec::with_capacity(usize::try_from(found.len().min(MOST)).unwrap_or(0).saturating_add(1));
    loop {
        let length = retry_on_intr(|| rustix::io::read(&file, spare_capacity(&mut text)))?;
        if length == 0 || text.len() < text.capacity() || text.len() as u64 > MOST {
            return no_longer_than(MOST, text);
        }
        text.reserve(4096);
    }
}

/// Whether files of this user are as trustworthy as this process's own, i.e. whether the user is root or the
/// process's. In a user namespace the host's root is unmapped, like all other host users.
pub fn is_trusted(owner: u32) -> bool {
    /// The default of /proc/sys/kernel/overflowuid, as which unmapped ids appear; user_namespaces(7).
    const UNMAPPED: u32 = 65_534;
    /// The initial user namespace: `PROC_USER_INIT_INO`, linux/proc_ns.h.
    const INITIAL: &str = "user:[4026531837]";
    owner == 0
        || owner == rustix::process::geteuid().as_raw()
        || owner == UNMAPPED
            && std::fs::read_link("/proc/self/ns/user").is_ok_and(|link| link.as_os_str() != INITIAL)
}

/// The flags for opening a record in a directory that is held open.
pub const RECORD: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

fn open(path: &Path, more: i32) -> io::Result<File> {
    // Neither wait for a pipe's writer, nor acquire a controlling terminal.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | more;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn at_most(most: u64, stream: impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    stream.take(most + 1).read_to_end(&mut text)?;
    no_longer_than(most, text)
}

fn no_longer_than(most: u64, text: Vec<u8>) -> io::Result<Vec<u8>> {
    match text.len() as u64 > most {
        true => Err(io::Error::new(ErrorKind::FileTooLarge, format!("larger than {} MiB", most >> 20))),
        false => Ok(text),
    }
}

/// The result of a non-blocking read from a pipe.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// There is no writer yet.
    Nobody,
    /// There is a writer that has not written yet, e.g. a slow program in `<(…)`.
    Writer,
    /// The first data; empty if a writer has closed the pipe without writing.
    Start(Cursor<Vec<u8>>),
}

/// Reads from `pipe` as soon as there is something to read, or after this time. Only read(2) shows whether
/// there is a writer: poll(2) reports a hangup only if something has been written since the pipe was opened
/// here; fs/pipe.c, `pipe_poll` and `pipe_read`.
fn look(pipe: impl AsFd, patience: &Timespec) -> io::Result<Seen> {
    let mut waiting = [PollFd::new(&pipe, PollFlags::IN)];
    let is_ready = retry_on_intr(|| poll(&mut waiting, Some(patience)))? > 0;
    let mut start = Vec::with_capacity(4096);
    match retry_on_intr(|| rustix::io::read(&pipe, spare_capacity(&mut start))) {
        Ok(0) if !is_ready => Ok(Seen::Nobody),
        Err(Errno::AGAIN) => Ok(Seen::Writer),
        read => Ok(read.map(|_| Seen::Start(Cursor::new(start)))?),
    }
}

fn name_of(kind: FileType) -> &'static str {
    match kind {
        kind if kind.is_file() => "a regular file",
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_block_device() || kind.is_char_device() => "a device",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::net::UnixListener;

    use nix::sys::stat::Mode;

    use super::*;
    use crate::error::line;

    #[test]
    fn what_is_no_file_is_refused_by_what_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let refused = |path: &Path| line(&document(path, Pipes::Refused).unwrap_err());
        assert_eq!(
            refused(Path::new("/dev/zero")),
            "read /dev/zero: is a device (it must be a regular file containing JSON)"
        );
        assert!(refused(directory.path()).contains(": is a directory (EISDIR) ("));
        assert!(refused(&path).ends_with("no such file or directory (ENOENT)"));
        let socket = UnixListener::bind(&path).unwrap();
        assert!(refused(&path).contains(": is a socket ("));
        drop(socket);
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        assert!(refused(&path).contains(": is a pipe ("));
        for path in [directory.path(), &path, Path::new("/dev/zero")] {
            assert_eq!(record(path).unwrap_err().kind(), ErrorKind::InvalidData, "{path:?}");
        }
        assert_eq!(record(Path::new("/not/there")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_pipe_that_was_asked_for_is_read_to_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let text = vec![b' '; 200_000];
        let writer = std::thread::spawn({
            let (path, text) = (path.clone(), text.clone());
            // Blocks in open(2) until there is a reader, and in write(2) until there is room.
            move || OpenOptions::new().write(true).open(path).unwrap().write_all(&text).unwrap()
        });
        assert!(document(&path, Pipes::Taken).unwrap() == text);
        writer.join().unwrap();
    }

    #[test]
    fn a_writer_is_waited_for_however_long_it_takes_and_nobody_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let pipe = open(&path, 0).unwrap();
        let now = || look(&pipe, &Timespec::default()).unwrap();
        let writer = || OpenOptions::new().write(true).open(&path).unwrap();
        assert_eq!(now(), Seen::Nobody);
        let mut slow = writer();
        assert_eq!((now(), now()), (Seen::Writer, Seen::Writer));
        slow.write_all(b"{}").unwrap();
        assert_eq!(now(), Seen::Start(Cursor::new(b"{}".to_vec())));
        assert_eq!(now(), Seen::Writer);
        drop(slow);
        assert_eq!(now(), Seen::Start(Cursor::default()));
    }

    #[test]
    fn no_more_is_read_than_may_be() {
        assert_eq!(at_most(4, &b"1234"[..]).unwrap(), b"1234");
        let error = at_most(1 << 20, io::repeat(b' ')).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::FileTooLarge, "larger than 1 MiB")
        );
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        File::create(&path).unwrap().set_len(MOST + 1).unwrap();
        let error = line(&document(&path, Pipes::Refused).unwrap_err());
        assert!(error.ends_with(": larger than 64 MiB"), "{error}");
    }

    #[test]
    fn a_link_in_the_place_of_a_record_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, file) = (directory.path().join("x"), directory.path().join("file"));
        fs::write(&file, "text").unwrap();
        std::os::unix::fs::symlink(&file, &path).unwrap();
        assert_eq!(record(&path).unwrap_err().raw_os_error(), Some(libc::ELOOP));
        assert_eq!(record(&file).unwrap(), b"text");
        assert_eq!(document(&path, Pipes::Refused).unwrap(), b"text");
    }
}
