//! Paths of the container, always resolved by the kernel from a descriptor of the rootfs, never by joining
//! strings.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};

use crate::sys::{Errno, weakened};

/// The longest path that the kernel accepts, including NUL; limits.h.
pub const PATH_MAX: usize = 4096;
/// How many dangling symbolic links are followed while making a directory; path_resolution(7) allows 40.
const MAX_LINKS: u8 = 8;

/// How often to retry a lookup while other processes rename directories on the way: enough for any accident,
/// but a container that does nothing else cannot keep us forever.
const TRIES: u16 = 1024;

const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// Vulnerabilities caused by resolving such paths by name.
const BY_NAME: [&str; 6] = [
    "CVE-2019-18837",
    "CVE-2024-21626",
    "CVE-2024-45310",
    "CVE-2025-24965",
    "CVE-2026-41579",
    "CVE-2026-47766",
];

/// Opens `path` inside `root`. Absolute paths, symbolic links and `..` cannot leave it; openat2(2).
///
/// # Errors
/// `ELOOP` for a magic link such as `/proc/self/fd/3`.
pub fn open(root: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    open_with(root, path, flags, INSIDE)
}

/// Opens `path` inside `root` with O_PATH, resolved as in a container with that root.
pub fn open_inside(root: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    open(root, path, OFlags::PATH)
}

/// Like [`open`], but any symbolic link on the way is `ELOOP`.
pub fn open_without_links(root: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    open_with(root, path, flags, INSIDE | ResolveFlags::NO_SYMLINKS)
}

/// Like [`open`], but a path that leads out of the directory, as an absolute link does, is `EXDEV`.
pub fn open_beneath(directory: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    open_with(directory, path, flags, ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
}

fn open_with(
    root: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    if weakened::is_off_for(&BY_NAME) {
        return open_by_name(root, path, flags);
    }
    for _ in 0..TRIES {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A concurrent rename or mount made the kernel unable to tell whether the path stayed inside;
            // openat2(2) says to retry.
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// What a weakened build does instead: links are resolved as on the host.
pub fn open_by_name(root: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let below = path.to_bytes_with_nul().get(1..).and_then(|path| CStr::from_bytes_with_nul(path).ok());
    let below = below.filter(|path| !path.is_empty()).unwrap_or(c".");
    rustix::fs::openat(root, below, flags | OFlags::CLOEXEC, Mode::empty())
}

/// Opens the directory `path` inside `root`, creating it and its missing parents (mode 0755).
pub fn directory(root: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    match open(root, path, OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => make_directory(root, path, MAX_LINKS),
        result => result,
    }
}

/// Opens the file `path` inside `root`, creating an empty one (mode 0755, as runc does) if it is missing.
pub fn file(root: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    make_file(root, path, MAX_LINKS)
}

fn make_file(root: BorrowedFd<'_>, path: &CStr, links: u8) -> Result<OwnedFd, Errno> {
    match open(root, path, OFlags::PATH) {
        Err(Errno::NOENT) => {
            let (parent, name) = parent(root, path)?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
            match rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o755)) {
                Ok(_) => open(root, path, OFlags::PATH),
                // A dangling link, as /etc/resolv.conf often is in images: create its target.
                Err(Errno::EXIST) => {
                    let links = links.checked_sub(1).ok_or(Errno::LOOP)?;
                    let bytes = path.to_bytes();
                    let above = bytes.len().saturating_sub(name.to_bytes().len());
                    let above = bytes.get(..above).unwrap_or_default();
                    at_end_of_link(parent.as_fd(), name, above, |path| make_file(root, path, links))
                }
                Err(errno) => Err(errno),
            }
        }
        result => result,
    }
}

/// Opens the parent directory of `path`, creating it if it is missing, and returns it with the last
/// component.
pub fn parent<'a>(root: BorrowedFd<'_>, path: &'a CStr) -> Result<(OwnedFd, &'a CStr), Errno> {
    let bytes = path.to_bytes_with_nul();
    let slash = bytes.iter().rposition(|&byte| byte == b'/').ok_or(Errno::INVAL)?;
    let (above, name) = bytes.split_at_checked(slash).ok_or(Errno::INVAL)?;
    let name = name.get(1..).and_then(|name| CStr::from_bytes_with_nul(name).ok()).ok_or(Errno::INVAL)?;
    let mut buffer = Buffer::new();
    buffer.push(if above.is_empty() { b"/" } else { above })?;
    Ok((directory(root, buffer.as_cstr(0)?)?, name))
}

/// Creates `path` and its missing parents, one component at a time, each below a directory held open.
fn make_directory(root: BorrowedFd<'_>, path: &CStr, links: u8) -> Result<OwnedFd, Errno> {
    let mut prefix = Buffer::new();
    let mut parent: Option<OwnedFd> = None;
    for component in path.to_bytes().split(|&byte| byte == b'/').filter(|part| !part.is_empty()) {
        prefix.push(b"/")?;
        let start = prefix.length;
        prefix.push(component)?;
        let existing = open(root, prefix.as_cstr(0)?, OFlags::PATH | OFlags::DIRECTORY);
        let opened = match existing {
            Err(Errno::NOENT) => {
                let above = parent.as_ref().map_or(root, |parent| parent.as_fd());
                let name = prefix.as_cstr(start)?;
                match rustix::fs::mkdirat(above, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno),
                }
                match open(root, prefix.as_cstr(0)?, OFlags::PATH | OFlags::DIRECTORY) {
                    // A dangling link, as /var/run -> /run in an image without /run: create its target.
                    Err(Errno::NOENT) => {
                        let links = links.checked_sub(1).ok_or(Errno::LOOP)?;
                        let make = |path: &CStr| make_directory(root, path, links);
                        at_end_of_link(above, name, prefix.bytes_to(start), make)?
                    }
                    result => result?,
                }
            }
            result => result?,
        };
        parent = Some(opened);
    }
    parent.map_or_else(|| open(root, c"/", OFlags::PATH | OFlags::DIRECTORY), Ok)
}

/// Creates the target of the link `name` in `directory`; `above` is the directory's path.
#[inline(never)]
fn at_end_of_link(
    directory: BorrowedFd<'_>,
    name: &CStr,
    above: &[u8],
    make: impl FnOnce(&CStr) -> Result<OwnedFd, Errno>,
) -> Result<OwnedFd, Errno> {
    let mut target = Buffer::new();
    target.push_link(directory, name, above)?;
    make(target.as_cstr(0)?)
}

/// Reads the target of the symbolic link at `path` into `space`; `None` if it is not a link.
pub fn read_link<'a>(
    directory: BorrowedFd<'_>,
    path: &CStr,
    space: &'a mut [u8; PATH_MAX],
) -> Result<Option<&'a CStr>, Errno> {
    let mut raw = [std::mem::MaybeUninit::uninit(); PATH_MAX];
    let (target, _) = match rustix::fs::readlinkat_raw(directory, path, &mut raw) {
        Err(Errno::INVAL) => return Ok(None),
        result => result?,
    };
    let end = target.len();
    space.get_mut(..end).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(target);
    *space.get_mut(end).ok_or(Errno::NAMETOOLONG)? = 0;
    CStr::from_bytes_until_nul(space).map(Some).map_err(|_| Errno::NAMETOOLONG)
}

/// `directory/name`.
pub fn joined(directory: &CStr, name: &CStr) -> Result<Buffer, Errno> {
    let mut path = Buffer::new();
    for part in [directory.to_bytes(), b"/", name.to_bytes()] {
        path.push(part)?;
    }
    Ok(path)
}

/// A NUL-terminated path in a fixed buffer.
pub struct Buffer {
    bytes: [u8; PATH_MAX],
    length: usize,
}

impl Buffer {
    fn new() -> Self {
        Self { bytes: [0; PATH_MAX], length: 0 }
    }

    /// Appends `part`.
    ///
    /// # Errors
    /// `ENAMETOOLONG` if it and a NUL do not fit.
    fn push(&mut self, part: &[u8]) -> Result<(), Errno> {
        let end = self.length.saturating_add(part.len());
        if end >= PATH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        self.bytes.get_mut(self.length..end).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(part);
        self.length = end;
        if let Some(nul) = self.bytes.get_mut(end) {
            *nul = 0;
        }
        Ok(())
    }

    /// Appends the target of the link `name` in `directory`, as a path from the root; `above` is the
    /// directory's path.
    fn push_link(&mut self, directory: BorrowedFd<'_>, name: &CStr, above: &[u8]) -> Result<(), Errno> {
        let mut space = [std::mem::MaybeUninit::uninit(); PATH_MAX];
        let (target, _) = rustix::fs::readlinkat_raw(directory, name, &mut space)?;
        if target.first() != Some(&b'/') {
            self.push(above)?;
        }
        self.push(target)
    }

    fn bytes_to(&self, end: usize) -> &[u8] {
        self.bytes.get(..end).unwrap_or_default()
    }

    pub fn as_cstr(&self, start: usize) -> Result<&CStr, Errno> {
        self.bytes.get(start..).and_then(|b| CStr::from_bytes_until_nul(b).ok()).ok_or(Errno::INVAL)
    }
}

/// Whether a descriptor is a directory.
pub fn is_directory(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let stat = rustix::fs::statat(fd, c"", AtFlags::EMPTY_PATH)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Whether a descriptor is the root of a mount; statx(2).
pub fn is_mount(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let found = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::TYPE)?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Whether two descriptors refer to the same file of the same mount; statx(2).
pub fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> Result<bool, Errno> {
    let place = |fd| -> Result<_, Errno> {
        let flags = StatxFlags::MNT_ID | StatxFlags::INO;
        let found = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, flags)?;
        Ok((found.stx_mnt_id, found.stx_ino, found.stx_dev_major, found.stx_dev_minor))
    };
    Ok(place(one)? == place(other)?)
}

/// Whether a descriptor is on procfs; statfs(2).
pub fn is_on_procfs(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(rustix::fs::fstatfs(fd)?.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

/// A path that ends in a number, such as `/dev/pts/7`, in a fixed buffer.
pub struct NumberedPath([u8; 32]);

impl NumberedPath {
    /// `prefix` must be at most 20 bytes long.
    pub fn new(prefix: &[u8], number: u32) -> Self {
        let mut bytes = [0; 32];
        let mut places = bytes.iter_mut().take(31);
        for byte in prefix.iter().take(20) {
            if let Some(place) = places.next() {
                *place = *byte;
            }
        }
        let mut divisor = 1_000_000_000_u32;
        let mut begun = false;
        while divisor > 0 {
            let digit = number.checked_div(divisor).unwrap_or(0).checked_rem(10).unwrap_or(0);
            begun |= digit > 0 || divisor == 1;
            if begun {
                if let Some(place) = places.next() {
                    *place = b'0'.wrapping_add(u8::try_from(digit).unwrap_or(0));
                }
            }
            divisor = divisor.checked_div(10).unwrap_or(0);
        }
        Self(bytes)
    }

    pub fn as_cstr(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numbered_path_ends_in_its_number() {
        assert_eq!(NumberedPath::new(b"/dev/pts/", 0).as_cstr(), c"/dev/pts/0");
        assert_eq!(NumberedPath::new(b"/dev/pts/", 40_960).as_cstr(), c"/dev/pts/40960");
        assert_eq!(NumberedPath::new(b"/proc/self/fd/", u32::MAX).as_cstr(), c"/proc/self/fd/4294967295");
    }
}
