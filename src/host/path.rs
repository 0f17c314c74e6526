//! Paths as text: what can be decided without looking at the disk.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

use anyhow::Result;

use crate::error::Pointer;

/// Converts `path` to a C string.
///
/// # Errors
/// If it contains a NUL.
pub fn c_string(path: &Path, at: &Pointer) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| at.error(format_args!("{path:?} contains a NUL byte")))
}

/// Normalises `path` to an absolute path of the container without `.`, `..` and double slashes. A relative
/// path starts at the root, as in runc.
///
/// # Errors
/// If it is empty or contains a NUL.
pub fn inside(path: &Path, at: &Pointer) -> Result<CString> {
    if path.as_os_str().is_empty() {
        return Err(at.error("path must not be empty"));
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.as_bytes()),
            Component::ParentDir => drop(parts.pop()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    let mut clean = Vec::with_capacity(path.as_os_str().len() + 1);
    for part in &parts {
        clean.push(b'/');
        clean.extend_from_slice(part);
    }
    if clean.is_empty() {
        clean.push(b'/');
    }
    CString::new(clean).map_err(|_| at.error(format_args!("{path:?} contains a NUL byte")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_container_cannot_climb_above_its_root() {
        let clean = |path: &str| inside(Path::new(path), &Pointer::root()).unwrap().into_string().unwrap();
        assert_eq!(clean("/a//b/./c/"), "/a/b/c");
        assert_eq!(clean("../../etc/passwd"), "/etc/passwd");
        assert_eq!(clean("/a/../../b"), "/b");
        assert_eq!(clean("/"), "/");
    }

    #[test]
    fn a_nul_character_is_refused() {
        assert!(inside(Path::new("/a\0b"), &Pointer::root()).is_err());
    }
}
