//! Keeps descriptors of the mounts on /proc and /sys. Paths below them are resolved from there instead of by
//! name: another container that shares the rootfs or a volume in it may have renamed the directory meanwhile,
//! and the paths to be masked would be missed; openat2(2), rename(2).

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::path;

const TOPS: [&CStr; 2] = [c"/proc", c"/sys"];

/// One slot for each of [`TOPS`].
#[derive(Default)]
pub struct KernelTrees([Option<Tree>; 2]);

struct Tree {
    mount: OwnedFd,
    /// A mount of the same file system type on top of it, made by a hook. Other processes see this one.
    above: Option<OwnedFd>,
}

/// What a path resolves to: no file, one, or one in each of two stacked mounts.
pub type Found = [Option<OwnedFd>; 2];

impl KernelTrees {
    /// Whether `target`, a normalised path of the container, is /proc or /sys.
    pub fn is_top(target: &CStr) -> bool {
        TOPS.contains(&target)
    }

    /// Keeps `mount` if it was mounted on /proc or /sys.
    pub fn hold(&mut self, target: &CStr, mount: OwnedFd) {
        let mut places = TOPS.into_iter().zip(&mut self.0);
        if let Some((_, tree)) = places.find(|(top, _)| *top == target) {
            *tree = Some(Tree { mount, above: None });
        }
    }

    /// Records what has been mounted on top of /proc and /sys since.
    pub fn look_above(&mut self, root: BorrowedFd<'_>) {
        for (top, tree) in TOPS.into_iter().zip(&mut self.0) {
            let Some(tree) = tree else { continue };
            let named = path::open(root, top, OFlags::PATH | OFlags::DIRECTORY);
            tree.above = named.ok().filter(|named| {
                let kind = |fd| rustix::fs::fstatfs(fd).map(|status| status.f_type);
                let is_other = path::is_same(named.as_fd(), tree.mount.as_fd()) == Ok(false);
                is_other && kind(named).is_ok_and(|named| Ok(named) == kind(&tree.mount))
            });
        }
    }

    /// Opens `path`, a normalised path of the container. Missing files are left out.
    pub fn find(&self, root: BorrowedFd<'_>, path: &CStr) -> Result<Found, Errno> {
        let mut trees = TOPS.into_iter().zip(&self.0);
        let found = trees.find_map(|(top, tree)| Some((tree.as_ref()?, below(path, top)?)));
        let by_name = || Ok([existing(path::open(root, path, OFlags::PATH))?, None]);
        let Some((tree, rest)) = found else { return by_name() };
        let inside = |mount: &OwnedFd| {
            existing(match rest.is_empty() {
                true => rustix::io::fcntl_dupfd_cloexec(mount, 0),
                false => path::open_beneath(mount.as_fd(), rest, OFlags::PATH),
            })
        };
        match inside(&tree.mount) {
            // A link that leads out of a bind-mounted directory. Links in the kernel's own trees do not.
            Err(Errno::XDEV) => by_name(),
            own => Ok([own?, tree.above.as_ref().map_or(Ok(None), inside)?]),
        }
    }
}

/// The rest of `path` after `top`, if `path` is `top` or below it.
fn below<'a>(path: &'a CStr, top: &CStr) -> Option<&'a CStr> {
    match path.to_bytes_with_nul().strip_prefix(top.to_bytes())? {
        [0] => Some(c""),
        [b'/', rest @ ..] => CStr::from_bytes_with_nul(rest).ok(),
        _ => None,
    }
}

fn existing(opened: Result<OwnedFd, Errno>) -> Result<Option<OwnedFd>, Errno> {
    match opened {
        Err(Errno::NOENT) => Ok(None),
        opened => opened.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_components_are_below() {
        assert_eq!(below(c"/proc/sys/kernel", c"/proc"), Some(c"sys/kernel"));
        assert_eq!(below(c"/proc", c"/proc"), Some(c""));
        assert_eq!(below(c"/process", c"/proc"), None);
        assert_eq!(below(c"/", c"/proc"), None);
    }
}
