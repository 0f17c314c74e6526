//! The record of containers on disk: one state directory each, below the container root (`--root`).

mod directory;
mod files;
pub mod filter;
pub mod hooks;
mod liveness;
mod lock;
mod oom;
mod owner;
mod pid_file;
mod prepared;
mod removal;
mod start;
pub mod state;

use std::fs::{self, DirBuilder, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags};

use self::directory::Directory;
use self::files::{CGROUP, EXCERPT, FIFO, TRACER, UNIT};
pub use self::lock::{Interrupted, Lock};
pub use self::pid_file::PidFile;
pub use self::prepared::Prepared;
pub use self::removal::{Found, PATIENCE, busy};
use self::state::{Report, State, Status};
use crate::bundle::input;
use crate::bundle::input::Pipes;
use crate::cgroup;
use crate::error::{Hint, Refusal};
use crate::host::signals::Signal;
use crate::sys::Errno;

/// A container ID: letters, digits, `_`, `+`, `-` and `.`, but not `.` or `..`; at most 255 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerId(String);

impl ContainerId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
        if text.is_empty() {
            bail!("container ID cannot be empty");
        }
        if text.len() > 255 || matches!(text, "." | "..") || !text.chars().all(allowed) {
            bail!(
                "invalid container ID format: {text:?} (use letters, digits, \"_\", \"+\", \"-\" and \".\")"
            );
        }
        Ok(Self(text.to_owned()))
    }
}

/// The container root: the directory that holds the state directories.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    /// Whether it was given with `--root`.
    is_explicit: bool,
    /// Whether it is in `XDG_RUNTIME_DIR`, where old files without the sticky bit may be cleaned up.
    is_in_session: bool,
}

impl Root {
    /// The root given with `--root`, made absolute.
    ///
    /// # Errors
    /// If it is `/`, or owned by an untrusted user.
    pub fn explicit(path: &Path) -> Result<Self> {
        let absolute =
            std::path::absolute(path).with_context(|| format!("resolve root {}", path.display()))?;
        let place = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
        // `/` may have other names, such as a second mount of the same directory, so compare device and inode
        // first.
        let may_be_top = place(&absolute).is_some_and(|found| Some(found) == place(Path::new("/")));
        let is_top = || fs::canonicalize(&absolute).is_ok_and(|path| path == Path::new("/"));
        if may_be_top && is_top() {
            bail!("--root {}: the container root cannot be /", path.display());
        }
        owner::check(&absolute)?;
        Ok(Self { path: absolute, is_explicit: true, is_in_session: false })
    }

    /// The default root: `runtime` in `session` (`XDG_RUNTIME_DIR`) or, without one, in /run.
    ///
    /// # Errors
    /// If it is owned by an untrusted user.
    pub fn default_in(session: Option<&Path>) -> Result<Self> {
        let path = session.unwrap_or(Path::new("/run")).join("runtime");
        owner::check(&path)?;
        Ok(Self { path, is_explicit: false, is_in_session: session.is_some() })
    }

    fn make(&self) -> Result<()> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.path).and_then(|()| {
            // The sticky bit keeps it from being cleaned up; XDG Base Directory Specification,
            // XDG_RUNTIME_DIR.
            match self.is_in_session {
                true => fs::set_permissions(&self.path, Permissions::from_mode(0o1700)),
                false => Ok(()),
            }
        });
        made.with_context(|| Hint(format!("create root {}", self.path.display()), self.way_out().into()))
    }

    fn way_out(&self) -> &'static str {
        match self.is_explicit {
            true => "--root must be a usable directory, or one that can be created",
            false => "set XDG_RUNTIME_DIR, or use --root, to choose a directory you own",
        }
    }

    fn directory(&self, id: &ContainerId) -> PathBuf {
        self.path.join(id.as_str())
    }

    /// Creates the state directory of a new container. It stays locked until the container is recorded.
    pub fn create(&self, id: &ContainerId) -> Result<NewContainer> {
        let mut made = Directory::make(&self.path, id.as_str());
        if matches!(made, Err(Errno::NOENT)) {
            self.make()?;
            made = Directory::make(&self.path, id.as_str());
        }
        let doing = || format!("create {}", self.directory(id).display());
        match made {
            Err(Errno::EXIST) => bail!("container with given ID already exists: {:?}", id.as_str()),
            Err(errno @ (Errno::ACCESS | Errno::PERM)) => {
                Err(anyhow!(errno).context(Hint(doing(), self.way_out().into())))
            }
            made => Ok(NewContainer { directory: made.with_context(doing)?, keep: false }),
        }
    }

    /// Loads a recorded container.
    ///
    /// # Errors
    /// [`Refusal::NoSuchContainer`].
    pub fn load(&self, id: &ContainerId) -> Result<Container> {
        match Directory::open(self.directory(id)) {
            Ok(directory) => Container::recorded(directory, id),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(Refusal::NoSuchContainer(id.as_str().to_owned()).into()),
            Err(errno) => Err(errno).with_context(|| format!("open {}", self.directory(id).display())),
        }
    }

    /// The names of all state directories, sorted; none if the default root does not exist.
    pub fn ids(&self) -> Result<Vec<ContainerId>> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound && !self.is_explicit => return Ok(Vec::new()),
            entries => entries.with_context(|| {
                Hint(format!("read root {}", self.path.display()), self.way_out().to_owned())
            })?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("read root {}", self.path.display()))?;
            if let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                ids.push(id);
            }
        }
        ids.sort();
        Ok(ids)
    }
}

/// The state directory of a container being created. It is removed on drop, unless it is kept or no longer
/// this process's.
#[derive(Debug)]
pub struct NewContainer {
    directory: Directory,
    keep: bool,
}

impl NewContainer {
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Creates the fifo that the init process will wait on. It is opened for reading and writing, because
    /// opening it for reading alone would block until there is a writer.
    pub fn make_fifo(&self) -> Result<OwnedFd> {
        let path = self.path().join(FIFO);
        let (from, way) = self.directory.way(FIFO);
        rustix::fs::mknodat(from, way, FileType::Fifo, Mode::from_raw_mode(0o622), 0)
            .with_context(|| format!("create {}", path.display()))?;
        let file = self.directory.open_file(FIFO, OFlags::RDWR);
        Ok(file.with_context(|| format!("open {}", path.display()))?.into())
    }

    /// Records the path of the cgroup before it is created.
    pub fn note_cgroup(&self, cgroup: &Path) -> Result<()> {
        let (from, way) = self.directory.way(CGROUP);
        rustix::fs::symlinkat(cgroup, from, way)
            .with_context(|| format!("create {}", self.path().join(CGROUP).display()))
    }

    /// Records the cgroup's systemd unit. Until that is done, the unit goes away with the placeholder process
    /// in it.
    pub fn note_unit(&self, unit: &cgroup::Unit) -> Result<()> {
        let text = serde_json::to_vec(unit).context("encode the unit")?;
        self.directory
            .write(UNIT, &text)
            .with_context(|| format!("write {}", self.path().join(UNIT).display()))
    }

    /// Writes the future state file.
    pub fn prepare(&self, state: &State) -> Result<Prepared<'_>> {
        Prepared::write(self.directory.way("").0, self.path(), state)
    }

    /// Writes what [`Container::excerpt`] reads.
    pub fn save_excerpt(&self, text: &[u8]) -> Result<()> {
        let made = self.directory.open_file(EXCERPT, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL);
        made.and_then(|mut file| file.write_all(text))
            .with_context(|| format!("write {}", self.path().join(EXCERPT).display()))
    }

    /// Unlocks the directory once the container has been recorded.
    pub fn release(&self) {
        self.directory.unlock();
    }

    /// Takes the lock again to undo a recorded container. Returns `false` if another process has deleted it,
    /// or is deleting it and does not finish within [`PATIENCE`]; then this process must not undo anything of
    /// it any more.
    pub fn take_back(&mut self) -> bool {
        let is_own = self.directory.lock(removal::PATIENCE).is_ok_and(|is_locked| is_locked)
            && self.directory.is_current().is_ok_and(|is_current| is_current);
        self.keep = !is_own;
        is_own
    }

    pub fn keep(mut self, state: State) -> Container {
        self.keep = true;
        Container { directory: std::mem::take(&mut self.directory), state }
    }
}

impl Drop for NewContainer {
    fn drop(&mut self) {
        if !self.keep && self.directory.is_current().is_ok_and(|is_current| is_current) {
            let _ = self.directory.remove();
        }
    }
}

/// Reads the state file of a directory; `None` if it does not exist.
fn record(directory: &Directory) -> Result<Option<State>> {
    let path = || directory.path().join(state::FILE).display().to_string();
    match directory.read(state::FILE) {
        Ok(text) => serde_json::from_slice(&text).map(Some).with_context(|| {
            let way_out = "if it cannot be repaired, kill the container's processes and remove the directory";
            Hint(format!("decode {}", path()), way_out.to_owned())
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path())),
    }
}

/// A recorded container.
#[derive(Debug)]
pub struct Container {
    directory: Directory,
    pub state: State,
}

impl Container {
    /// Loads the container recorded in `directory`.
    fn recorded(directory: Directory, id: &ContainerId) -> Result<Self> {
        match record(&directory)? {
            Some(state) => Ok(Self { directory, state }),
            None => Err(Refusal::NoSuchContainer(id.as_str().to_owned()).into()),
        }
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A path to its state directory that stays valid as long as this is held, and never refers to a later
    /// container of the same name.
    pub fn held_directory(&self) -> PathBuf {
        self.directory.held_path()
    }

    /// Closes its directory, for commands that hold many containers only to show them.
    pub fn let_go(&mut self) {
        self.directory.let_go();
    }

    /// Whether processes of the container may be able to ptrace others that enter its pid namespace. With
    /// `more`, records that this is the case from now on; the result is the answer from before.
    pub fn may_trace(&self, more: bool) -> Result<bool> {
        if self.state.may_trace || self.directory.exists(TRACER) {
            return Ok(true);
        }
        if more {
            let made = self.directory.write(TRACER, b"");
            made.with_context(|| format!("create {}", self.directory().join(TRACER).display()))?;
        }
        Ok(false)
    }

    pub fn status(&self) -> Result<Status> {
        // Must come first: a container killed while paused is stopped, though its cgroup is still frozen.
        let Some(stat) = self.living()? else { return Ok(Status::Stopped) };
        // Before it has been created, it does not count as paused, even if a hook has frozen its cgroup.
        if self.state.creating {
            return Ok(Status::Creating);
        }
        if self.state.cgroup().is_some_and(cgroup::is_frozen) {
            return Ok(Status::Paused);
        }
        // The fifo alone proves nothing: a `start` killed before it removed the fifo may have written to it,
        // and then the init process has executed the program.
        let waits = stat.never_executed && self.directory.exists(FIFO);
        Ok(if waits { Status::Created } else { Status::Running })
    }

    /// The path of its cgroup.
    ///
    /// # Errors
    /// If it has no cgroup of its own, so that its processes cannot be told from others.
    pub fn cgroup(&self) -> Result<&Path> {
        self.state.cgroup().ok_or_else(|| {
            if let (Some(unit), Some(path)) = (&self.state.systemd, self.state.recorded_cgroup()) {
                let (id, name) = (&self.state.id, &unit.name);
                return anyhow!(
                    "container {id:?} no longer has a cgroup: {} was removed together with \
                                {name}",
                    path.display()
                );
            }
            if let Some(path) = self.state.recorded_cgroup() {
                let (id, path) = (&self.state.id, path.display());
                return anyhow!(
                    "container {id:?} no longer has a cgroup: {path} was removed and now \
                                belongs to another container"
                );
            }
            let message = format!("container {:?} has no cgroup of its own", self.state.id);
            let hint = "it was created with --cgroup-manager disabled, or by a user without permission to \
                        create one; `systemd-run --user --scope -p Delegate=yes` provides a delegated \
                        cgroup";
            Hint(message, hint.to_owned()).into()
        })
    }

    /// What `state` prints.
    pub fn report<'a>(&'a self, status: Status, owner: &'a str) -> Report<'a> {
        let state = &self.state;
        Report {
            oci_version: &state.oci_version,
            id: &state.id,
            pid: if status == Status::Stopped { 0 } else { state.init_process_pid },
            status,
            bundle: &state.bundle,
            rootfs: &state.rootfs,
            created: &state.created,
            annotations: &state.annotations,
            owner,
            oom_killed: status == Status::Stopped && self.shortage().is_some(),
        }
    }

    /// Opens a pidfd of the init process; `None` if it has exited.
    pub fn init(&self) -> Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.state.init_process_pid) else { return Ok(None) };
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            // EINVAL before Linux 6.9: the number is still in use for a session or a process group. ENOENT
            // (seen on 6.18): it now belongs to a thread of another process.
            Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => return Ok(None),
            pidfd => pidfd.with_context(|| format!("open process {pid}"))?,
        };
        // Checked after pidfd_open(2): if the init process is still alive now, the pidfd refers to it.
        Ok(self.is_alive()?.then_some(pidfd))
    }

    /// The part of `config.json` that `exec` needs, as it was at `create`. For containers created by older
    /// versions, which did not save it, reads `config.json` in the bundle.
    pub fn excerpt(&self) -> Result<Vec<u8>> {
        match self.directory.read(EXCERPT) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                input::document(&Path::new(&self.state.bundle).join(crate::bundle::CONFIG), Pipes::Refused)
            }
            text => text.with_context(|| format!("read {}", self.directory().join(EXCERPT).display())),
        }
    }

    /// Kills every process of the container at once. With a pid namespace of its own, killing the init
    /// process is enough, and the cgroup, which may hold processes of others, is left alone. With neither a
    /// pid namespace nor a cgroup of its own, the other processes are unknown, and only the init process is
    /// killed.
    pub fn kill_all(&self) -> Result<()> {
        match (self.state.cgroup(), self.init()?) {
            (Some(cgroup), _) if !self.state.private_pid_namespace => cgroup::kill(cgroup),
            (_, Some(init)) => Signal::KILL.send(init.as_fd()).context("kill the init process"),
            (_, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::files::{OOM_COUNTS, OOM_REPORT};
    use super::*;

    #[test]
    fn an_id_cannot_leave_the_container_root() {
        for id in ["", ".", "..", "a/b", "a b", "ä", "a\0", "a:b"] {
            assert!(id.parse::<ContainerId>().is_err(), "{id:?}");
        }
        for id in ["a", "A_1+2-3.4", "...", ".a"] {
            assert_eq!(id.parse::<ContainerId>().unwrap().as_str(), id);
        }
    }

    #[test]
    fn a_state_directory_goes_with_all_that_may_be_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c");
        for names in [&[UNIT, OOM_COUNTS][..], &[OOM_REPORT], &[state::FILE, OOM_COUNTS, "other"]] {
            let made = Directory::make(directory.path(), "c").unwrap();
            names.iter().for_each(|name| fs::write(path.join(name), "").unwrap());
            drop(NewContainer { directory: made, keep: false });
            assert!(!path.exists(), "{names:?}");
        }
        // A directory that no longer exists is no error either.
        let made = Directory::make(directory.path(), "c").unwrap();
        fs::remove_dir(&path).unwrap();
        made.remove().unwrap();
    }

    #[test]
    fn the_top_directory_cannot_be_the_container_root() {
        assert!(Root::explicit(Path::new("/")).is_err());
        assert!(Root::explicit(Path::new("/..//.")).is_err());
    }

    #[test]
    fn an_ordinary_user_has_a_root_of_their_own() {
        assert_eq!(
            Root::default_in(Some(Path::new("/run/user/1000"))).unwrap().path,
            Path::new("/run/user/1000/runtime")
        );
        assert_eq!(Root::default_in(None).unwrap().path, Path::new("/run/runtime"));
    }
}
