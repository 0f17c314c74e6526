//! The cgroupfs driver: the container's cgroup path, and creating its directories.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use super::{control_file, removal};
use crate::error::{Hint, Pointer};
use crate::host::mountinfo;

const USUAL_MOUNT: &str = "/sys/fs/cgroup";

/// The path of a container's cgroup; config-linux.md § Cgroups Path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CgroupPath {
    /// An absolute `cgroupsPath`: relative to the root of the hierarchy.
    BelowRoot(PathBuf),
    /// A relative `cgroupsPath`, or none: below the parent of the runtime's own cgroup. The latter has
    /// processes, so its children cannot have limits.
    BesideOwn(PathBuf),
}

impl CgroupPath {
    /// Plans the path from `cgroupsPath`, whose pointer is `at`; without one, the name is the container's
    /// `id`.
    ///
    /// A systemd `slice:prefix:name` is an ordinary relative path here, as in runc.
    pub(super) fn plan(path: Option<&Path>, id: &str, at: &Pointer) -> Result<Self> {
        let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) else {
            return Ok(Self::BesideOwn(id.into()));
        };
        let mut names = PathBuf::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => names.push(name),
                Component::ParentDir => {
                    return Err(at.error(format_args!("{path:?} must not contain \"..\"")));
                }
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        if names.as_os_str().is_empty() {
            return Err(at.error(format_args!("{path:?} is the root cgroup, which cannot be a container's")));
        }
        if names.as_os_str().as_bytes().iter().any(|byte| matches!(byte, 0 | b'\n')) {
            return Err(
                at.error(format_args!("{path:?} contains a character that is not allowed in a cgroup name"))
            );
        }
        Ok(if path.is_absolute() { Self::BelowRoot(names) } else { Self::BesideOwn(names) })
    }

    /// Returns the path relative to the root of the hierarchy.
    pub(super) fn resolve(&self) -> Result<PathBuf> {
        match self {
            Self::BelowRoot(names) => Ok(names.clone()),
            Self::BesideOwn(names) => {
                let text = control_file::read(CWD, "/proc/self/cgroup").context("read /proc/self/cgroup")?;
                Ok(parent_of_own(&text)?.join(names))
            }
        }
    }
}

/// Returns the parent of the cgroup in a `/proc/PID/cgroup` file, relative to the root; for the root, the
/// root.
pub(super) fn parent_of_own(text: &str) -> Result<PathBuf> {
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let own = own.context("find the runtime's own cgroup: no cgroup v2 entry in /proc/self/cgroup")?;
    // What is joined to the root must not lead out of it.
    let own = Path::new(own.trim_start_matches('/'));
    if own.components().any(|component| component == Component::ParentDir) {
        bail!(
            "the runtime's own cgroup, /{}, is outside its cgroup namespace (give an absolute cgroupsPath)",
            own.display()
        );
    }
    Ok(own.parent().unwrap_or(Path::new("")).to_owned())
}

/// Where the cgroup v2 hierarchy is mounted.
#[derive(Debug)]
pub(super) struct Mount {
    pub(super) dir: OwnedFd,
    pub(super) path: PathBuf,
}

impl Mount {
    /// Finds it at /sys/fs/cgroup or, on a host that also uses cgroup v1, wherever it is mounted.
    pub(super) fn find() -> Result<Self> {
        if let Some(mount) = Self::open(Path::new(USUAL_MOUNT)) {
            return Ok(mount);
        }
        let mut found = mountinfo::read()?.into_iter().filter(|mount| mount.fstype == "cgroup2");
        found.find_map(|mount| Self::open(&mount.mount_point)).with_context(|| {
            format!(
                "cgroup v2 is not mounted (run `mount -t cgroup2 cgroup2 {USUAL_MOUNT}`, or boot with \
                 systemd.unified_cgroup_hierarchy=1)"
            )
        })
    }

    /// `None` if nothing is mounted there, or it is hidden by another mount.
    fn open(path: &Path) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, path, flags, Mode::empty()).ok()?;
        let stat = fstatfs(dir.as_fd()).ok()?;
        (stat.filesystem_type() == CGROUP2_SUPER_MAGIC).then(|| Self { dir, path: path.to_owned() })
    }

    /// Returns the absolute path of `place`, which may be empty for the root.
    pub(super) fn path_of(&self, place: &Path) -> PathBuf {
        // Joining an empty path would append a slash.
        if place.as_os_str().is_empty() { self.path.clone() } else { self.path.join(place) }
    }
}

/// The container's cgroup and the directories created for it; dropping it removes them.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) path: PathBuf,
    pub(super) dir: OwnedFd,
    /// Whether the container's own directory was created, not found.
    pub(super) fresh: bool,
    directories: Directories,
}

impl Made {
    /// Opens a cgroup that systemd created, and that systemd removes.
    pub(super) fn found(path: &Path) -> Result<Self> {
        let dir = control_file::open_dir(path).with_context(|| format!("open cgroup {}", path.display()))?;
        Ok(Self { path: path.to_owned(), dir, fresh: true, directories: Directories::default() })
    }

    /// Leaves the directories in place.
    pub(super) fn keep(mut self) {
        self.directories.own = None;
        self.directories.above.clear();
    }
}

/// The directories that were created.
#[derive(Debug, Default)]
struct Directories {
    /// The container's own; its processes are killed.
    own: Option<PathBuf>,
    /// Those above it, outermost first. Other containers may use them by now.
    above: Vec<PathBuf>,
}

impl Drop for Directories {
    fn drop(&mut self) {
        // An error here must not hide the original one. A directory that is in use by others stays.
        let _ = self.own.take().map(|own| removal::remove(&own));
        while let Some(path) = self.above.pop() {
            let _ = unlinkat(CWD, &path, AtFlags::REMOVEDIR);
        }
    }
}

/// Creates the cgroup at `place` and those above it. An existing one is used if it is empty and not frozen.
pub(super) fn make(mount: &Mount, place: &Path) -> Result<Made> {
    let path = mount.path_of(place);
    let mut directories = Directories::default();
    make_directories(mount, place, &mut directories)?;
    let dir = control_file::open_dir_at(mount.dir.as_fd(), place)
        .with_context(|| format!("open cgroup {}", path.display()))?;
    let made = Made { path, dir, fresh: directories.own.is_some(), directories };
    if !made.fresh {
        check_unused(&made)?;
    }
    Ok(made)
}

fn make_directories(mount: &Mount, place: &Path, made: &mut Directories) -> Result<()> {
    let mkdir = |place: &Path| {
        let context = || format!("create cgroup {}", mount.path_of(place).display());
        match mkdirat(&mount.dir, place, Mode::from_raw_mode(0o755)) {
            Ok(()) => Ok(Outcome::Made(mount.path_of(place))),
            Err(Errno::EXIST) => Ok(Outcome::Found),
            Err(Errno::NOENT) => Ok(Outcome::NothingAbove),
            Err(Errno::AGAIN) => Err(Errno::AGAIN).with_context(|| Hint(context(), full(mount, place))),
            Err(errno) => Err(errno).with_context(context),
        }
    };
    let mut above: Vec<_> = place.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
    above.reverse();
    // Retries, because another runtime that fails may remove a parent directory that both need.
    for _ in 0..8 {
        match mkdir(place)? {
            Outcome::Made(path) => {
                made.own = Some(path);
                return Ok(());
            }
            Outcome::Found => return Ok(()),
            Outcome::NothingAbove => {}
        }
        for level in &above {
            if let Outcome::Made(path) = mkdir(level)? {
                made.above.push(path);
            }
        }
    }
    Err(Errno::NOENT).with_context(|| format!("create cgroup {}", mount.path_of(place).display()))
}

/// Which ancestor of `place` has reached its limit on cgroups below it; cgroup-v2.rst § Core Interface Files.
fn full(mount: &Mount, place: &Path) -> String {
    for (depth, above) in (0_u64..).zip(place.ancestors().skip(1)) {
        let path = mount.path_of(above);
        let read = |name: &str| {
            let text = control_file::open_dir(&path).and_then(|dir| control_file::read(dir.as_fd(), name));
            text.unwrap_or_default()
        };
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let descendants = control_file::value(&read("cgroup.stat"), "nr_descendants").and_then(number);
        for (file, used) in [("cgroup.max.depth", Some(depth)), ("cgroup.max.descendants", descendants)] {
            if let Some(most) = number(&read(file)) {
                if used.is_some_and(|used| used >= most) {
                    return format!(
                        "{} is {most}: raise it, or choose another cgroupsPath",
                        path.join(file).display()
                    );
                }
            }
        }
    }
    "the kernel's limit on cgroups is reached".to_owned()
}

enum Outcome {
    Made(PathBuf),
    Found,
    NothingAbove,
}

/// Checks that an existing cgroup has no processes, with which the container would share it, and is not
/// frozen, because the container would never run.
fn check_unused(made: &Made) -> Result<()> {
    let events = control_file::read(made.dir.as_fd(), "cgroup.events")
        .with_context(|| format!("read {}/cgroup.events", made.path.display()))?;
    if control_file::value(&events, "populated") == Some("1") {
        let count = removal::tasks(&made.path).len();
        bail!("container's cgroup is not empty: {count} process(es) found in {}", made.path.display());
    }
    if super::is_frozen(&made.path) || control_file::value(&events, "frozen") == Some("1") {
        bail!("container's cgroup unexpectedly frozen: {}", made.path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> Result<CgroupPath> {
        CgroupPath::plan(Some(Path::new(path)), "c1", &Pointer::root().field("linux").field("cgroupsPath"))
    }

    #[test]
    fn an_absolute_path_is_below_the_root_and_any_other_beside_the_own_cgroup() {
        assert_eq!(place("/docker//x/./y/").unwrap(), CgroupPath::BelowRoot("docker/x/y".into()));
        assert_eq!(place("docker/x").unwrap(), CgroupPath::BesideOwn("docker/x".into()));
        assert_eq!(
            place("system.slice:docker:12").unwrap(),
            CgroupPath::BesideOwn("system.slice:docker:12".into())
        );
        assert_eq!(place("").unwrap(), CgroupPath::BesideOwn("c1".into()));
        assert_eq!(
            CgroupPath::plan(None, "c1", &Pointer::root()).unwrap(),
            CgroupPath::BesideOwn("c1".into())
        );
    }

    #[test]
    fn a_path_that_leaves_its_place_is_refused() {
        let refused = |path| crate::error::line(&place(path).unwrap_err());
        assert_eq!(
            refused("/a/../../b"),
            "config.json: /linux/cgroupsPath: \"/a/../../b\" must not contain \"..\""
        );
        assert_eq!(
            refused("/."),
            "config.json: /linux/cgroupsPath: \"/.\" is the root cgroup, which cannot be a container's"
        );
        assert_eq!(
            refused("a\0b"),
            "config.json: /linux/cgroupsPath: \"a\\0b\" contains a character that is not allowed in a cgroup name"
        );
    }

    #[test]
    fn the_parent_of_the_own_cgroup_is_found_among_those_of_cgroup_v1() {
        let parent = |text| parent_of_own(text).map(|path| path.to_str().unwrap().to_owned());
        assert_eq!(parent("5:cpu:/x\n0::/user.slice/session-1.scope\n").unwrap(), "user.slice");
        assert_eq!(parent("0::/\n").unwrap(), "");
        assert_eq!(parent("0::/a\n").unwrap(), "");
        assert!(parent("5:cpu:/x\n").is_err());
        assert!(parent("0::/../a\n").is_err());
    }
}
