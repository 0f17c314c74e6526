//! The daemons that keep a machine's log: systemd's journal and syslog, by a datagram for each record;
//! systemd.journal-fields(7), "Native Journal Protocol" of systemd's documentation, RFC 3164.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::net::{SendFlags, SocketType};

use super::Level;
use crate::error::Hint;
use crate::host::unix_socket;

const JOURNAL: &str = "/run/systemd/journal/socket";
const SYSLOG: &str = "/dev/log";

/// A daemon that takes records.
#[derive(Debug)]
pub struct Daemon {
    socket: OwnedFd,
    encode: fn(&[u8], Level, &str) -> Vec<u8>,
    id: Vec<u8>,
}

impl Daemon {
    /// systemd's journal; `id` becomes the field `ID` of each entry, as with crun.
    pub fn journal(id: &[u8]) -> Result<Self> {
        let socket = connect(JOURNAL, "is systemd-journald running?")?;
        Ok(Self { socket, encode: journal_entry, id: id.to_owned() })
    }

    /// Whoever listens on /dev/log; `id` becomes the name of the program in each line.
    pub fn syslog(id: &[u8]) -> Result<Self> {
        let socket = connect(SYSLOG, "is a syslog daemon running?")?;
        Ok(Self { socket, encode: syslog_line, id: id.to_owned() })
    }

    /// Sends one record; a daemon that does not take it has lost it.
    pub fn write(&self, level: Level, message: &str) {
        let datagram = (self.encode)(&self.id, level, message);
        let _ = rustix::net::send(&self.socket, &datagram, SendFlags::NOSIGNAL);
    }
}

fn connect(path: &str, hint: &str) -> Result<OwnedFd> {
    unix_socket::connect(Path::new(path), SocketType::DGRAM)
        .with_context(|| Hint("connect to the log daemon".into(), hint.into()))
}

/// Of syslog(3): `LOG_ERR`, `LOG_WARNING`, `LOG_DEBUG`.
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

/// `NAME=value`, or with a newline in the value the name on a line of its own, the length in 64 bits, little end first, and
/// the value.
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

/// Of the facility `LOG_USER`. Without a time, which the daemon has better.
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
