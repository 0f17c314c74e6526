//! The log that `--log`, `--log-format` and `--debug` ask for; the only writer of log records.
//!
//! The programs above us parse it. Podman reads the whole file as one JSON object, containerd the last object whose
//! level is "error": so a failure writes exactly one record, and without `--debug` nothing else does. Several
//! invocations share one file: it is appended to, never truncated, and each record is one write.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::str::FromStr;
use std::time::SystemTime;
use std::{error, fmt, io};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::clock;
use crate::error::{Fault, errno, line};

/// How a record is written.
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

/// Neither `text` nor `json`.
#[derive(Debug)]
pub struct UnknownFormat(String);

impl fmt::Display for UnknownFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown log format {:?} (known are \"text\" and \"json\")", self.0)
    }
}

impl error::Error for UnknownFormat {}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The one error.
    Error,
    /// With `--debug`: what happens, too.
    Debug,
}

#[derive(Debug)]
pub struct Log {
    file: Option<File>,
    format: Format,
    level: Level,
}

/// What the log says of one event; the optional keys are this runtime's own, which others' readers skip.
#[derive(Serialize)]
struct Record<'a> {
    level: &'static str,
    msg: &'a str,
    time: String,
    /// The place in `config.json`, as a JSON pointer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<String>,
    /// The name of the kernel's answer, as `ENOENT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<String>,
    /// What would make it right.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl Log {
    /// Opens, or makes with mode 0644, the file at `path`, if there is one.
    pub fn open(path: Option<&Path>, format: Format, level: Level) -> Result<Self> {
        let file = path
            .map(|path| {
                OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(0o644)
                    .open(path)
                    .with_context(|| format!("open the log {}", path.display()))
            })
            .transpose()?;
        Ok(Self { file, format, level })
    }

    /// Writes the record of the failure that ends this invocation, if there is a log file; standard error is `main`'s.
    pub fn error(&self, error: &anyhow::Error) {
        let Some(file) = &self.file else { return };
        let fault = error.downcast_ref::<Fault>();
        let record = Record {
            level: "error",
            msg: &line(error),
            time: clock::rfc3339_nanos(SystemTime::now()),
            pointer: fault.map(|fault| fault.pointer.to_string()),
            errno: errno(error).map(|errno| format!("{errno:?}")),
            hint: fault.and_then(|fault| fault.hint.as_deref()),
        };
        self.write(file, &record);
    }

    /// Writes what is not as asked for but no failure: to the log file, else to standard error.
    pub fn warning(&self, message: impl fmt::Display) {
        self.note("warning", &message.to_string());
    }

    /// Writes what happens, with `--debug` only: to the log file, else to standard error.
    pub fn debug(&self, message: impl fmt::Display) {
        if self.level != Level::Debug {
            return;
        }
        self.note("debug", &message.to_string());
    }

    fn note(&self, level: &'static str, msg: &str) {
        let time = clock::rfc3339_nanos(SystemTime::now());
        let record = Record { level, msg, time, pointer: None, errno: None, hint: None };
        match &self.file {
            Some(file) => self.write(file, &record),
            None => self.write(io::stderr(), &record),
        }
    }

    fn write(&self, mut to: impl io::Write, record: &Record<'_>) {
        let line = match self.format {
            Format::Text => record.text(),
            // Strings under keys that are strings: nothing in it can fail.
            Format::Json => serde_json::to_string(record).unwrap_or_default() + "\n",
        };
        // A log that cannot be written must not become a second failure: the error itself is on standard error.
        drop(to.write_all(line.as_bytes()));
    }
}

impl Record<'_> {
    /// As logrus, and so runc, writes it.
    fn text(&self) -> String {
        let mut line = format!("time={:?} level={} msg={:?}", self.time, self.level, self.msg);
        let extras =
            [("errno", self.errno.as_deref()), ("hint", self.hint), ("pointer", self.pointer.as_deref())];
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
        record(&Log::open(Some(&path), format, level).unwrap());
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
    fn debug_records_need_debug() {
        assert_eq!(logged(Format::Json, Level::Error, |log| log.debug("cloned")), "");
        let text = logged(Format::Json, Level::Debug, |log| log.debug(format_args!("pid {}", 7)));
        assert!(text.starts_with(r#"{"level":"debug","msg":"pid 7","time":"#));
    }

    #[test]
    fn the_log_is_appended_to_and_readable_by_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        for _ in 0..2 {
            Log::open(Some(&path), Format::Json, Level::Error).unwrap().error(&anyhow::anyhow!("no"));
        }
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn a_format_is_text_or_json() {
        assert_eq!("json".parse::<Format>().unwrap(), Format::Json);
        let error = "yaml".parse::<Format>().unwrap_err();
        assert_eq!(error.to_string(), "unknown log format \"yaml\" (known are \"text\" and \"json\")");
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_named() {
        let error = Log::open(Some(Path::new("/nonexistent/log")), Format::Text, Level::Error).unwrap_err();
        assert_eq!(line(&error), "open the log /nonexistent/log: no such file or directory (ENOENT)");
    }
}
