//! Logging to systemd's journal and to syslog, one datagram per record; systemd.journal-fields(7), systemd's
//! "Native Journal Protocol", RFC 3164.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::net::{SendFlags, SocketType};

use super::Level;
use crate::error::Hint;
use crate::host::unix_socket;

const JOURNAL: &str = "/run/systemd/journal/socket";
const SYSLOG: &str = "/dev/log";

/// A log daemon.
#[derive(Debug)]
pub struct Daemon {
    socket: OwnedFd,
    encode: fn(&[u8], Level, &str) -> Vec<u8>,
    id: Vec<u8>,
}

impl Daemon {
    /// Connects to systemd's journal; `id` becomes the field `ID` of each entry, as in crun.
    pub fn journal(id: &[u8]) -> Result<Self> {
        let socket = connect(JOURNAL, "is systemd-journald running?")?;
        Ok(Self { socket, encode: journal_entry, id: id.to_owned() })
    }

    /// Connects to /dev/log; `id` becomes the program name in each line.
    pub fn syslog(id: &[u8]) -> Result<Self> {
        let socket = connect(SYSLOG, "is a syslog daemon running?")?;
        Ok(Self { socket, encode: syslog_line, id: id.to_owned() })
    }

    /// Sends one record; errors are ignored.
    pub fn write(&self, level: Level, message: &str) {
        let datagram = (self.encode)(&self.id, level, message);
        let _ = rustix::net::send(&self.socket, &datagram, SendFlags::NOSIGNAL);
    }
}

fn connect(path: &str, hint: &str) -> Result<OwnedFd> {
    unix_socket::connect(Path::new(path), SocketType::DGRAM)
        .with_context(|| Hint("connect to the log daemon".into(), hint.into()))
}

/// The severity in syslog(3): `LOG_ERR`, `LOG_WARNING` or `LOG_DEBUG`.
const fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warning => 4,
        Level::Debug => 7,
    }
}

fn journal_entry(id: &[u8], level: Level, message: &str) -> Vec<u8> {
    let mut entry = Vec::new();
    field(&mut entry, "PRIORITY", severity(level).to_string().as_bytes());
    field(&mut entry, "SYSLOG_IDENTIFIER", b"runtime");
    field(&mut entry, "ID", id);
    field(&mut entry, "MESSAGE", message.as_bytes());
    entry
}

/// Appends `NAME=value` or, if the value contains a newline, the name on a line of its own, the length as a
/// 64-bit little-endian number, and the value.
fn field(entry: &mut Vec<u8>, name: &str, value: &[u8]) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

/// A line of the facility `LOG_USER`, without a timestamp, which the daemon adds.
fn syslog_line(id: &[u8], level: Level, message: &str) -> Vec<u8> {
    let id = if id.is_empty() { b"runtime" } else { id };
    let priority = format!("<{}>", 1 << 3 | severity(level));
    let process = format!("[{}]: ", std::process::id());
    [priority.as_bytes(), id, process.as_bytes(), message.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_the_journal_is_fields_on_lines() {
        let entry = journal_entry(b"abc", Level::Error, "no such file");
        assert_eq!(
            String::from_utf8(entry).unwrap(),
            "PRIORITY=3\nSYSLOG_IDENTIFIER=runtime\nID=abc\nMESSAGE=no such file\n"
        );
    }

    #[test]
    fn a_value_of_several_lines_has_its_length_before_it() {
        let entry = journal_entry(b"", Level::Debug, "a\nb");
        assert!(entry.ends_with(b"ID=\nMESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n"), "{entry:?}");
    }

    #[test]
    fn a_line_for_syslog_begins_with_its_priority() {
        let line = String::from_utf8(syslog_line(b"abc", Level::Warning, "odd")).unwrap();
        assert_eq!(line, format!("<12>abc[{}]: odd", std::process::id()));
    }

    #[test]
    fn a_daemon_that_is_not_there_is_named() {
        let error = connect("/nonexistent/socket", "is there a daemon?").unwrap_err();
        assert_eq!(
            crate::error::line(&error),
            "connect to the log daemon: open /nonexistent/socket: no such file or directory (ENOENT) (is \
             there a daemon?)"
        );
    }
}
