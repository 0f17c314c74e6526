//! The cgroup that a process added to a container is cloned into.
//!
//! A write to `cgroup.kill` also kills processes that are just being cloned into the cgroup: the kernel
//! counts these writes, and at the end of a clone checks whether the count has changed since its beginning.
//! But Linux 6.18, at least, reads the first count from the caller's cgroup and the second from that of
//! CLONE_INTO_CGROUP. So if the two have been killed a different number of times, however long ago, it kills
//! whatever is cloned from one into the other. Such a process must be cloned without CLONE_INTO_CGROUP and
//! moved afterwards.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::control_file;
use super::control_file::lists;
use super::fs::Mount;

/// An open cgroup.
#[derive(Debug)]
pub struct Destination {
    pub path: PathBuf,
    dir: OwnedFd,
}

/// The `--cgroup` option: a cgroup below the container's, or the container's own.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Below {
    path: PathBuf,
    /// The controllers that were named, as for cgroup v1.
    controllers: Vec<String>,
}

impl Below {
    /// Parses `PATH` or `CONTROLLER[,CONTROLLER…]:PATH`; with cgroup v2, the path must be the same for all
    /// controllers.
    ///
    /// # Errors
    /// In runc's wording, where it has one.
    pub fn parse(arguments: &[String]) -> Result<Self> {
        if let [path] = arguments {
            if !path.contains(':') {
                return Ok(Self { path: clean(path)?, controllers: Vec::new() });
            }
        }
        let mut below = Self::default();
        for argument in arguments {
            let Some((controllers, path)) = argument.split_once(':') else {
                bail!("invalid --cgroup argument: {argument} (missing <controller>: prefix)");
            };
            let path = clean(path)?;
            if !below.controllers.is_empty() && path != below.path {
                bail!("invalid --cgroup argument(s): in cgroup v2, all controllers have the same path");
            }
            below.path = path;
            for controller in controllers.split(',') {
                if controller.is_empty() {
                    bail!("invalid --cgroup argument: {argument} (empty <controller> prefix)");
                }
                if below.controllers.iter().any(|known| known == controller) {
                    bail!("invalid --cgroup argument(s): controller {controller} specified multiple times");
                }
                below.controllers.push(controller.to_owned());
            }
        }
        Ok(below)
    }
}

/// Cleans a path; one that would lead out of the container's cgroup is an error.
fn clean(text: &str) -> Result<PathBuf> {
    let mut path = PathBuf::new();
    for component in Path::new(text).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::ParentDir if path.pop() => {}
            Component::ParentDir => bail!("bad sub cgroup path: {text}"),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(path)
}

impl Destination {
    /// Opens the container's own cgroup.
    pub fn of_container(path: &Path) -> Result<Self, Errno> {
        Ok(Self { path: path.to_owned(), dir: control_file::open_dir(path)? })
    }

    /// Opens the current cgroup of process `pid`, which may have moved.
    ///
    /// # Errors
    /// It is outside the runtime's cgroup namespace.
    pub fn of_process(pid: i32) -> Result<Self> {
        Self::of(&format!("/proc/{pid}/cgroup"), "the init process's")
    }

    fn of(file: &str, whose: &str) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("read {file}"))?;
        let place = text.lines().find_map(|line| line.strip_prefix("0::/"));
        let place = Path::new(place.with_context(|| format!("find {whose} cgroup: no cgroup v2 entry"))?);
        if place.components().any(|component| component == Component::ParentDir) {
            bail!("{whose} cgroup, /{}, is outside the runtime's cgroup namespace", place.display());
        }
        let path = Mount::find()?.path_of(place);
        let dir = control_file::open_dir(&path).with_context(|| format!("open cgroup {}", path.display()))?;
        Ok(Self { path, dir })
    }

    /// Opens the cgroup `below` this one.
    pub fn below(self, below: &Below) -> Result<Self> {
        if let Some(unknown) = self.lacks(&below.controllers)? {
            bail!("unknown controller {unknown} in --cgroup: {} does not have it", self.path.display());
        }
        if below.path.as_os_str().is_empty() {
            return Ok(self);
        }
        let path = self.path.join(&below.path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let dir = openat2(&self.dir, below.path.as_os_str().as_bytes(), flags, Mode::empty(), inside)
            .with_context(|| format!("open cgroup {}", path.display()))?;
        Ok(Self { path, dir })
    }

    fn lacks<'a>(&self, controllers: &'a [String]) -> Result<Option<&'a String>> {
        if controllers.is_empty() {
            return Ok(None);
        }
        let known = control_file::read(self.dir.as_fd(), "cgroup.controllers")
            .with_context(|| format!("read {}/cgroup.controllers", self.path.display()))?;
        Ok(controllers.iter().find(|controller| !lists(&known, controller)))
    }

    /// The directory, as clone3(2) takes it for CLONE_INTO_CGROUP.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Moves process `pid` into the cgroup.
    pub fn attach(&self, pid: i32) -> Result<(), Errno> {
        put(self.fd(), pid)
    }

    /// Whether this cgroup itself, not an ancestor, was set to frozen.
    pub fn is_frozen(&self) -> bool {
        control_file::read(self.dir.as_fd(), "cgroup.freeze").is_ok_and(|text| text.trim() == "1")
    }
}

/// Moves process `pid` into the cgroup with this directory.
pub(super) fn put(dir: BorrowedFd<'_>, pid: i32) -> Result<(), Errno> {
    control_file::write(dir, "cgroup.procs", &pid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::line;

    fn parsed(arguments: &[&str]) -> Result<Below> {
        Below::parse(&arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>())
    }

    fn refused(arguments: &[&str]) -> String {
        line(&parsed(arguments).unwrap_err())
    }

    #[test]
    fn a_path_stays_below_the_containers_cgroup() {
        for (text, path) in [("/", ""), ("a/b", "a/b"), ("/a/./b/", "a/b"), ("a/../b", "b"), ("..a", "..a")] {
            assert_eq!(parsed(&[text]).unwrap().path, Path::new(path), "{text}");
        }
        for text in ["..", "/..", "a/../..", "../container", "cpu:.."] {
            let path = text.strip_prefix("cpu:").unwrap_or(text);
            assert_eq!(refused(&[text]), format!("bad sub cgroup path: {path}"));
        }
    }

    #[test]
    fn controllers_are_named_once_and_all_with_the_same_path() {
        let below = parsed(&["cpu,memory:a", "pids:/a"]).unwrap();
        assert_eq!((below.path.as_path(), below.controllers.len()), (Path::new("a"), 3));
        assert_eq!(refused(&[":a"]), "invalid --cgroup argument: :a (empty <controller> prefix)");
        assert_eq!(refused(&["a", "b"]), "invalid --cgroup argument: a (missing <controller>: prefix)");
        assert_eq!(
            refused(&["cpu:a", "cpu:a"]),
            "invalid --cgroup argument(s): controller cpu specified multiple times"
        );
        assert_eq!(
            refused(&["cpu:a", "pids:b"]),
            "invalid --cgroup argument(s): in cgroup v2, all controllers have the same path"
        );
    }
}
