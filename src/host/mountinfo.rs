//! The mounts of the runtime's own mount namespace; proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    pub mount_point: PathBuf,
    pub fstype: String,
    /// Per-superblock options, such as the controllers of a cgroup v1 hierarchy.
    pub super_options: String,
}

/// Reads all mounts, in the order in which they were made.
pub fn read() -> Result<Vec<MountInfo>> {
    let text = fs::read("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(parse(&text))
}

/// Returns the mount point of the mount that contains `path`, which must be absolute and without symbolic
/// links.
pub fn mount_point_of(path: &Path) -> Result<PathBuf> {
    let deepest = read()?
        .into_iter()
        .map(|mount| mount.mount_point)
        .filter(|point| path.starts_with(point))
        .max_by_key(|point| point.components().count());
    Ok(deepest.unwrap_or_else(|| PathBuf::from("/")))
}

pub fn parse(text: &[u8]) -> Vec<MountInfo> {
    text.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<MountInfo> {
    let mut fields = line.split(|&byte| byte == b' ');
    let mount_point = unescape(fields.nth(4)?);
    // A single hyphen ends the optional fields.
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let fstype = String::from_utf8_lossy(rest.next()?).into_owned();
    let super_options = String::from_utf8_lossy(rest.nth(1).unwrap_or_default()).into_owned();
    Some(MountInfo { mount_point, fstype, super_options })
}

/// Decodes octal escapes: space, tab, newline and backslash are written as a backslash and three octal
/// digits.
fn unescape(text: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        if let ([a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..], b'\\') = (tail, first) {
            plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = tail;
        } else {
            plain.push(*first);
            rest = tail;
        }
    }
    PathBuf::from(OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whatever_optional_fields_it_has() {
        let text =
            b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue\n\
                     37 35 0:5 / /proc rw - proc proc rw\n";
        let mounts = parse(text);
        assert_eq!(mounts[0].mount_point, Path::new("/mnt 2"));
        assert_eq!(mounts[0].super_options, "rw,errors=continue");
        assert_eq!(
            (mounts[1].fstype.as_str(), mounts[1].mount_point.as_path()),
            ("proc", Path::new("/proc"))
        );
    }
}
