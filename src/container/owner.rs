//! Checks who owns the container root. State directories are trusted: they name the processes to kill and the
//! cgroups to remove.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Result, bail};
use rustix::process::geteuid;

use crate::bundle::input;
use crate::error::Hint;

/// Refuses a container root at `path` that an untrusted user could have filled; see [`input::is_trusted`]. A
/// missing one is accepted.
pub(super) fn check(path: &Path) -> Result<()> {
    let Ok(found) = fs::metadata(path) else { return Ok(()) };
    let owner = found.uid();
    if input::is_trusted(owner) {
        return Ok(());
    }
    let way_out = match geteuid().is_root() {
        true => format!("run as that user, use another --root, or chown {}", path.display()),
        false => "use --root to choose a directory you own".to_owned(),
    };
    bail!(Hint(
        format!(
            "root {} is owned by untrusted user {owner}, who could have tampered with container state",
            path.display()
        ),
        way_out
    ))
}
