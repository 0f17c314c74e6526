//! The log configured by `--log`, `--log-format`, `--log-level` and `--debug`; the only writer of log
//! records.
//!
//! Callers parse the file: Podman reads all of it as one JSON object, containerd the last object whose level
//! is "error". So a failure writes exactly one record and, without `--debug`, nothing else does. Several
//! invocations may share the file: it is appended to, never truncated, and each record is a single write.

mod daemons;

use std::borrow::Cow;
use std::cell::Cell;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::panic::Location;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime};
use std::{error, fmt, io};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Serialize, Serializer};

use self::daemons::Daemon;
use crate::error::printable::escape;
use crate::error::{Hint, errno, fault, hint, line};
use crate::host::clock;

/// The format of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `time="…" level=error msg="…"`
    #[default]
    Text,
    /// `{"level":"error","msg":"…","time":"…"}`
    Json,
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(UnknownFormat(text.to_owned())),
        }
    }
}

/// The error for a format other than `text` and `json`.
#[derive(Debug)]
pub struct UnknownFormat(String);

impl fmt::Display for UnknownFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown log format {:?} (must be \"text\" or \"json\")", self.0)
    }
}

impl error::Error for UnknownFormat {}

/// The least severe level that is written, and the level of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The one error that ends the invocation.
    Error,
    /// Something differs from what was requested, but it is not a failure.
    Warning,
    /// Progress.
    Debug,
}

impl FromStr for Level {
    type Err = UnknownLevel;

    /// Accepts crun's three levels and, like youki, those of Rust's log crates.
    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        match text {
            "error" => Ok(Self::Error),
            "warning" | "warn" | "info" => Ok(Self::Warning),
            "debug" | "trace" => Ok(Self::Debug),
            _ => Err(UnknownLevel(text.to_owned())),
        }
    }
}

/// The error for an unknown level.
#[derive(Debug)]
pub struct UnknownLevel(String);

impl fmt::Display for UnknownLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown log level {:?} (must be \"error\", \"warning\" or \"debug\")", self.0)
    }
}

impl error::Error for UnknownLevel {}

impl Level {
    const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Debug => "debug",
        }
    }
}

#[derive(Debug)]
pub struct Log {
    to: To,
    format: Format,
    level: Level,
    /// Set once the reader of a pipe has let it fill up; nothing is written after that.
    is_stuck: Cell<bool>,
}

/// Where records go.
#[derive(Debug)]
enum To {
    /// Everything except the error, which `main` prints.
    StandardError,
    File(File),
    Daemon(Daemon),
}

/// A record. The optional keys are ours; other parsers ignore them.
#[derive(Serialize)]
struct Record<'a> {
    #[serde(serialize_with = "word")]
    level: Level,
    msg: Cow<'a, str>,
    time: String,
    /// The place in `config.json`, as a JSON pointer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<Cow<'a, str>>,
    /// The name of the error number, such as `ENOENT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<String>,
    /// A way to fix it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<Cow<'a, str>>,
    /// The source location of the call, with `--debug`.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

fn word<S: Serializer>(level: &Level, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(level.word())
}

impl Log {
    /// Opens the destination given by `--log`: a file (mode 0644 if new), optionally prefixed with `file:`,
    /// or a daemon with crun's prefixes `journald:ID` and `syslog:ID`.
    ///
    /// # Errors
    /// If the file cannot be opened or the daemon cannot be reached.
    pub fn open(destination: Option<&OsStr>, format: Format, level: Level) -> Result<Self> {
        let Some(destination) = destination else {
            return Ok(Self { to: To::StandardError, format, level, is_stuck: Cell::new(false) });
        };
        let bytes = destination.as_bytes();
        let to = if let Some(id) = bytes.strip_prefix(b"journald:") {
            Daemon::journal(id).map(To::Daemon)
        } else if let Some(id) = bytes.strip_prefix(b"syslog:") {
            Daemon::syslog(id).map(To::Daemon)
        } else {
            let path = OsStr::from_bytes(bytes.strip_prefix(b"file:").unwrap_or(bytes));
            append_to(Path::new(path)).map(To::File)
        };
        let to = to.with_context(|| format!("open the log {}", Path::new(destination).display()))?;
        Ok(Self { to, format, level, is_stuck: Cell::new(false) })
    }

    /// Writes the record of the failure that ends this invocation. Does nothing if records go to standard
    /// error, where `main` prints it.
    pub fn error(&self, error: &anyhow::Error) {
        if matches!(self.to, To::StandardError) {
            return;
        }
        self.write(&Record {
            pointer: fault(error).map(|fault| escape(&fault.pointer.to_string()).into_owned().into()),
            errno: errno(error).map(|errno| format!("{errno:?}")),
            hint: hint(error).map(escape),
            ..Record::new(Level::Error, &line(error))
        });
    }

    /// Writes a warning.
    pub fn warning(&self, message: impl fmt::Display) {
        if self.level >= Level::Warning {
            self.write(&Record::new(Level::Warning, &message.to_string()));
        }
    }

    /// Writes a warning that follows a failure: to standard error only, because a log file must contain
    /// nothing but the record of the failure.
    pub fn aside(&self, message: impl fmt::Display) {
        let line = self.line(&Record::new(Level::Warning, &message.to_string()));
        drop(io::stderr().write_all(line.as_bytes()));
    }

    /// Writes a debug record; only with `--debug`.
    #[track_caller]
    pub fn debug(&self, message: impl fmt::Display) {
        if self.level >= Level::Debug {
            let file = Some(Location::caller().to_string());
            self.write(&Record { file, ..Record::new(Level::Debug, &message.to_string()) });
        }
    }

    fn write(&self, record: &Record<'_>) {
        // Errors are ignored: the actual error is on standard error anyway.
        match &self.to {
            To::StandardError => drop(io::stderr().write_all(self.line(record).as_bytes())),
            To::File(_) if self.is_stuck.get() => {}
            To::File(file) => self.is_stuck.set(append(file, self.line(record).as_bytes()).is_err()),
            To::Daemon(daemon) => match self.format {
                Format::Text => daemon.write(record.level, &record.msg),
                Format::Json => daemon.write(record.level, self.line(record).trim_end()),
            },
        }
    }

    fn line(&self, record: &Record<'_>) -> String {
        match self.format {
            Format::Text => record.text(),
            // Cannot fail: all keys and values are strings.
            Format::Json => serde_json::to_string(record).unwrap_or_default() + "\n",
        }
    }
}

/// Opens a file for appending, creating it if necessary. It may be a device or a fifo.
///
/// # Errors
/// `ENXIO` for a fifo without a reader, instead of blocking.
fn append_to(path: &Path) -> Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().append(true).create(true).mode(0o644).custom_flags(flags).open(path);
    file.map_err(|error| {
        let is_pipe = || std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
        match error.raw_os_error() {
            Some(libc::ENXIO) if is_pipe() => {
                Hint("pipe has no reader".into(), "open it for reading first, or use a file".into()).into()
            }
            _ => error.into(),
        }
    })
}

/// How long to wait while a pipe is full.
const PATIENCE: Duration = Duration::from_secs(1);

fn append(mut file: &File, mut text: &[u8]) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    while !text.is_empty() {
        match file.write(text) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => text = text.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let left = until.saturating_duration_since(Instant::now());
                let timeout = Timespec::try_from(left).map_err(|_| ErrorKind::TimedOut)?;
                if left.is_zero() || poll(&mut [PollFd::new(file, PollFlags::OUT)], Some(&timeout))? == 0 {
                    return Err(ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl<'a> Record<'a> {
    fn new(level: Level, msg: &'a str) -> Self {
        let time = clock::rfc3339_nanos(SystemTime::now());
        Self { level, msg: escape(msg), time, pointer: None, errno: None, hint: None, file: None }
    }

    /// Formats it as logrus, and thus runc, does.
    fn text(&self) -> String {
        let mut line = format!("time={:?} level={} msg={:?}", self.time, self.level.word(), self.msg);
        let extras = [
            ("errno", self.errno.as_deref()),
            ("file", self.file.as_deref()),
            ("hint", self.hint.as_deref()),
            ("pointer", self.pointer.as_deref()),
        ];
        for (key, value) in extras {
            if let Some(value) = value {
                // Writing to a string cannot fail.
                let _ = write!(line, " {key}={value:?}");
            }
        }
        line.push('\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use nix::errno::Errno;
    use serde_json::Value;

    use super::*;
    use crate::error::Pointer;

    fn logged(format: Format, level: Level, record: impl Fn(&Log)) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        record(&Log::open(Some(path.as_os_str()), format, level).unwrap());
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_failure_is_one_json_object_with_what_is_known_of_it() {
        let error = Pointer::root().field("hostname").error_with_hint("needs a uts namespace", "add one");
        let text = logged(Format::Json, Level::Error, |log| log.error(&error));
        let record: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(record["level"], "error");
        assert_eq!(record["msg"], "config.json: /hostname: needs a uts namespace (add one)");
        assert_eq!(record["pointer"], "/hostname");
        assert_eq!(record["hint"], "add one");
        assert!(record["time"].as_str().unwrap().ends_with('Z'));
        assert!(record.get("errno").is_none());
        assert!(text.ends_with("}\n"));
    }

    #[test]
    fn an_errno_is_logged_by_name() {
        let error = anyhow::Error::from(Errno::ENOENT).context("open /x");
        let text = logged(Format::Json, Level::Error, |log| log.error(&error));
        let record: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(record["errno"], "ENOENT");
        assert_eq!(record["msg"], "open /x: no such file or directory (ENOENT)");
    }

    #[test]
    fn text_is_key_value_pairs() {
        let error = anyhow::Error::from(Errno::ENOENT).context("open \"/x\"");
        let text = logged(Format::Text, Level::Error, |log| log.error(&error));
        assert!(text.starts_with("time=\"2"));
        assert!(text.ends_with(
            " level=error msg=\"open \\\"/x\\\": no such file or directory (ENOENT)\" errno=\"ENOENT\"\n"
        ));
    }

    #[test]
    fn a_record_is_one_line_without_control_characters() {
        let error = Pointer::root().field("a\nb\u{9b}").error_with_hint("is \u{1b}[2J", "\u{202e}no\0");
        let wrong = |log: &Log| {
            log.error(&error);
            log.warning("odd\ntime=\"\" level=error msg=\"forged\"");
            log.debug("\u{7f}");
        };
        for format in [Format::Text, Format::Json] {
            let text = logged(format, Level::Debug, wrong);
            assert_eq!(text.lines().count(), 3, "{text}");
            assert!(!text.replace('\n', "").contains(crate::error::printable::is_harmful), "{text:?}");
        }
        let text = logged(Format::Json, Level::Error, wrong);
        let record: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(record["msg"], "config.json: /a\\nb\\u{9b}: is \\u{1b}[2J (\\u{202e}no\\0)");
        assert_eq!(
            (&record["pointer"], &record["hint"]),
            (&"/a\\nb\\u{9b}".into(), &"\\u{202e}no\\0".into())
        );
    }

    #[test]
    fn debug_records_need_debug() {
        assert_eq!(logged(Format::Json, Level::Error, |log| log.debug("cloned")), "");
        let text = logged(Format::Json, Level::Debug, |log| log.debug(format_args!("pid {}", 7)));
        assert!(text.starts_with(r#"{"level":"debug","msg":"pid 7","time":"#));
        assert!(text.contains(r#","file":"src/host/log/mod.rs:"#), "{text}");
    }

    #[test]
    fn a_warning_is_written_unless_only_errors_are_asked_for() {
        assert_eq!(logged(Format::Text, Level::Error, |log| log.warning("odd")), "");
        let text = logged(Format::Text, Level::Warning, |log| log.warning("odd"));
        assert!(text.ends_with(" level=warning msg=\"odd\"\n"), "{text}");
        assert_eq!("warn".parse::<Level>().unwrap(), Level::Warning);
        assert_eq!(
            "loud".parse::<Level>().unwrap_err().to_string(),
            "unknown log level \"loud\" (must be \"error\", \"warning\" or \"debug\")"
        );
    }

    #[test]
    fn the_log_is_appended_to_and_readable_by_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        for _ in 0..2 {
            Log::open(Some(path.as_os_str()), Format::Json, Level::Error)
                .unwrap()
                .error(&anyhow::anyhow!("no"));
        }
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn a_format_is_text_or_json() {
        assert_eq!("json".parse::<Format>().unwrap(), Format::Json);
        let error = "yaml".parse::<Format>().unwrap_err();
        assert_eq!(error.to_string(), "unknown log format \"yaml\" (must be \"text\" or \"json\")");
    }

    #[test]
    fn a_path_may_be_marked_as_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("syslog:x");
        let marked = format!("file:{}", path.display());
        Log::open(Some(OsStr::new(&marked)), Format::Json, Level::Error).unwrap();
        assert!(path.exists());
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_no_log_and_a_full_one_keeps_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let open = || Log::open(Some(path.as_os_str()), Format::Text, Level::Warning);
        assert_eq!(
            line(&open().unwrap_err()),
            format!(
                "open the log {}: pipe has no reader (open it for reading first, or use a file)",
                path.display()
            )
        );
        let reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        let log = open().unwrap();
        log.warning("odd");
        assert!(!log.is_stuck.get());
        log.warning("x".repeat(1 << 20));
        assert!(log.is_stuck.get());
        assert!(fs::metadata(&path).unwrap().file_type().is_fifo());
        drop(reader);
    }

    #[test]
    fn a_log_that_is_no_regular_file_stays_what_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let (link, file) = (directory.path().join("link"), directory.path().join("file"));
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for path in [Path::new("/dev/null"), &link] {
            let log = Log::open(Some(path.as_os_str()), Format::Text, Level::Error).unwrap();
            log.error(&anyhow::anyhow!("no"));
        }
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        assert!(fs::symlink_metadata(&link).unwrap().file_type().is_symlink());
        assert!(fs::read_to_string(&file).unwrap().contains("msg=\"no\""));
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_named() {
        let error = Log::open(Some(OsStr::new("/nonexistent/log")), Format::Text, Level::Error).unwrap_err();
        assert_eq!(line(&error), "open the log /nonexistent/log: no such file or directory (ENOENT)");
    }
}
