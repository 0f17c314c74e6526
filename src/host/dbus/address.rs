//! Addresses of buses; the D-Bus Specification, § Server Addresses. Only UNIX sockets are supported:
//! authentication needs peer credentials, so the other end must be on this machine.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::host::unix_socket::SocketName;

/// An address in text form: `unix:path=/run/dbus/system_bus_socket`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// The address of the socket at `path`.
    pub fn of(path: &Path) -> Self {
        let mut text = "unix:path=".to_owned();
        for byte in path.as_os_str().as_bytes() {
            match byte {
                b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' | b'/' | b'\\' | b'*' | b'.' => {
                    text.push(char::from(*byte));
                }
                _ => text.push_str(&format!("%{byte:02x}")),
            }
        }
        Self(text)
    }

    /// Splits a list such as that in `DBUS_SESSION_BUS_ADDRESS`, in the order in which to try the addresses.
    pub fn list(text: &OsStr) -> Vec<Self> {
        let text = text.to_string_lossy();
        text.split(';')
            .filter(|address| !address.is_empty())
            .map(|address| Self(address.to_owned()))
            .collect()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses the address.
    ///
    /// # Errors
    /// If it is malformed or not that of a UNIX socket.
    pub(super) fn socket(&self) -> Result<SocketName> {
        let refused = || format!("parse D-Bus address {:?}", self.0);
        let Some(keys) = self.0.strip_prefix("unix:") else {
            bail!("{}: only UNIX sockets are supported", refused());
        };
        for key in keys.split(',') {
            match key.split_once('=') {
                Some(("path", path)) => {
                    return Ok(SocketName::Path(PathBuf::from(unescape(path).with_context(refused)?)));
                }
                Some(("abstract", name)) => {
                    return Ok(SocketName::Abstract(unescape(name).with_context(refused)?.into_vec()));
                }
                _ => {}
            }
        }
        bail!("{}: neither path nor abstract socket given", refused())
    }
}

fn unescape(text: &str) -> Result<OsString> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, behind) = rest.split_first_chunk::<2>().context("truncated escape sequence")?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits)?, 16)?);
        rest = behind;
    }
    Ok(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_survives_its_address() {
        for path in ["/run/dbus/system_bus_socket", "/a b,c;d%e=ä"] {
            let address = Address::of(Path::new(path));
            assert!(!address.as_str().contains([' ', ',', ';']), "{address:?}");
            assert_eq!(address.socket().unwrap(), SocketName::Path(path.into()));
        }
    }

    #[test]
    fn addresses_are_tried_in_their_order_and_other_keys_passed_over() {
        let list = Address::list(OsStr::new("unix:abstract=/tmp/x%20y,guid=12;unix:guid=3,path=/b;;"));
        let sockets: Vec<_> = list.iter().map(|address| address.socket().unwrap()).collect();
        assert_eq!(sockets, [SocketName::Abstract(b"/tmp/x y".to_vec()), SocketName::Path("/b".into())]);
    }

    #[test]
    fn other_addresses_are_refused() {
        for text in ["tcp:host=localhost,port=1", "unix:tmpdir=/tmp", "unix:path=%2", "unix:path=%zz", "x"] {
            assert!(Address(text.into()).socket().is_err(), "{text}");
        }
    }
}
