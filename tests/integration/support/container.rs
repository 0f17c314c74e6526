//! A container that a test drives through the command line.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, thread};

use serde_json::{Value, json};

use super::bundle::{remove_namespace, show_disk, user_namespace};
use super::host::{CGROUPS, by_systemd, kind};
use super::{Bundle, Invocation, Output, leftovers, rootfs, user, wait};

pub const NO_OPTIONS: [&str; 0] = [];

/// The beginning of a script that goes on after [`Container::go_on`].
pub const WAIT: &str = "while ! [ -e /tmp/go ]; do sleep 0.05; done;";

const SIGTERM: u32 = 15;

/// User and group that root of [`Container::in_user_namespace`] is outside; not the same number, so that nobody mixes them up.
pub const ROOT_OUTSIDE: [u32; 2] = [100_000, 300_000];

/// A bundle with an id and a container root of its own. When it goes, so does the container; what then remains fails
/// the test.
#[derive(Debug)]
pub struct Container {
    pub bundle: Bundle,
    pub id: String,
    forgiving: bool,
    is_the_users: bool,
}

impl Container {
    pub fn new() -> Self {
        let bundle = Bundle::new();
        // crun leaves the cgroup behind when create fails: its defect, and no use to hear of it in every test.
        Self { id: bundle.name.clone(), bundle, forgiving: kind() == "crun", is_the_users: false }
    }

    /// A container whose process is this.
    pub fn with_args<A: AsRef<str>>(args: impl IntoIterator<Item = A>) -> Self {
        let args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        Self::new().edit(|spec| spec["process"]["args"] = json!(args))
    }

    /// A container whose process is a shell with this script.
    pub fn with_script(script: &str) -> Self {
        Self::with_args(["sh", "-c", script])
    }

    /// A container that does nothing for long, and ends at once when asked to.
    pub fn idle() -> Self {
        Self::with_script("trap 'exit 0' TERM; sleep 1000 & wait")
    }

    /// The same, and it runs.
    pub fn idling() -> Self {
        let container = Self::idle();
        container.launch();
        container
    }

    /// A container whose process is a shell with this script, and which has these resources besides.
    pub fn limited(script: &str, resources: &Value) -> Self {
        Self::with_script(script).edit(|spec| {
            for (key, value) in resources.as_object().unwrap() {
                spec["linux"]["resources"][key] = value.clone();
            }
        })
    }

    /// A container that reads 256 KiB from the disk of these numbers, says that it is ready, and stays.
    pub fn that_reads_a_disk(numbers: (u32, u32)) -> Self {
        let script = "dd if=/dev/disk of=/dev/null bs=64k count=4 iflag=direct 2>&1; echo ready; sleep 1000";
        Self::with_script(script).edit(|spec| show_disk(spec, numbers))
    }

    /// Changes the spec.
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        self.bundle.edit(change);
        self
    }

    /// In a user namespace whose root is [`ROOT_OUTSIDE`] outside, to whom the root file system then belongs.
    pub fn in_user_namespace(self) -> Self {
        let [user, group] = ROOT_OUTSIDE;
        let container = self.edit(|spec| user_namespace(spec, &[[0, user, 65536]], &[[0, group, 65536]]));
        container.owned_by(user, group)
    }

    /// Of the ordinary user, who makes and handles it: as `spec --rootless` has it, with a user namespace of the user alone, the
    /// host's network and no cgroup of its own.
    pub fn of_user(self) -> Self {
        let mut container = self.edit(|spec| {
            user_namespace(spec, &[[0, user::UID, 1]], &[[0, user::GID, 1]]);
            remove_namespace(spec, "network");
            for field in ["resources", "cgroupsPath"] {
                spec["linux"].as_object_mut().unwrap().remove(field);
            }
            for mount in spec["mounts"].as_array_mut().unwrap() {
                if mount["destination"] == "/sys" {
                    let options = ["rbind", "nosuid", "noexec", "nodev", "ro"];
                    *mount = json!({ "destination": "/sys", "type": "none", "source": "/sys", "options": options });
                }
            }
        });
        container.is_the_users = true;
        user::give(&container.bundle.home);
        container
    }

    /// Gives the root file system to this user and group of the host.
    pub fn owned_by(self, user: u32, group: u32) -> Self {
        rootfs::give(&self.bundle.rootfs(), user, group);
        self
    }

    /// Puts a file into the root file system.
    pub fn with_file(self, path: &str, mode: u32, contents: &str) -> Self {
        let path = self.bundle.rootfs().join(path);
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    /// Leaves the cleaning up to the fixture without complaints: for tests of what goes wrong.
    pub fn forgive(mut self) -> Self {
        self.forgiving = true;
        self
    }

    /// A path beside the bundle, for what a test needs outside the container.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.bundle.home.join(name)
    }

    /// The container root.
    pub fn root(&self) -> PathBuf {
        self.beside("root")
    }

    pub fn state_directory(&self) -> PathBuf {
        self.root().join(&self.id)
    }

    pub fn cgroup(&self) -> PathBuf {
        let path = self.bundle.spec["linux"]["cgroupsPath"].as_str().unwrap_or_default();
        match path.splitn(3, ':').collect::<Vec<_>>()[..] {
            [slice, prefix, name] => Path::new(CGROUPS).join(slice).join(format!("{prefix}-{name}.scope")),
            _ => Path::new(CGROUPS).join(path.trim_start_matches('/')),
        }
    }

    /// The contents of a control file, without the newline at its end.
    #[track_caller]
    pub fn control_file(&self, name: &str) -> String {
        let path = self.cgroup().join(name);
        let contents =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        contents.trim_end().to_owned()
    }

    /// `runtime --root ROOT`.
    pub fn runtime(&self) -> Invocation {
        let runtime = match self.is_the_users {
            true => Invocation::new(user::runtime()).by_user(),
            false => Invocation::of_the_runtime(),
        };
        let runtime = if by_systemd() { runtime.arg("--systemd-cgroup") } else { runtime };
        runtime.arg("--root").arg(self.root())
    }

    /// `runtime --root ROOT COMMAND --bundle BUNDLE`, without the id.
    pub fn command(&self, command: &str) -> Invocation {
        self.runtime().arg(command).arg("--bundle").arg(self.bundle.path())
    }

    /// `run` with these options, ready to be called; [`Self::run`] calls it.
    pub fn run_with<A: AsRef<OsStr>>(&self, options: impl IntoIterator<Item = A>) -> Invocation {
        self.command("run").args(options).arg(&self.id)
    }

    pub fn create_with<A: AsRef<OsStr>>(&self, options: impl IntoIterator<Item = A>) -> Invocation {
        self.command("create").args(options).arg(&self.id)
    }

    /// `COMMAND ID`.
    pub fn on_id(&self, command: &str) -> Invocation {
        self.runtime().arg(command).arg(&self.id)
    }

    /// `exec ID` of this program.
    pub fn exec<A: AsRef<OsStr>>(&self, program: impl IntoIterator<Item = A>) -> Invocation {
        self.exec_with(NO_OPTIONS, program)
    }

    pub fn exec_with<A: AsRef<OsStr>, B: AsRef<OsStr>>(
        &self,
        options: impl IntoIterator<Item = A>,
        program: impl IntoIterator<Item = B>,
    ) -> Invocation {
        self.runtime().arg("exec").args(options).arg(&self.id).args(program)
    }

    pub fn spawn(&self) -> super::process::Running {
        self.run_with(NO_OPTIONS).spawn()
    }

    /// Runs the container in the foreground to its end.
    #[track_caller]
    pub fn run(&self) -> Output {
        self.run_with(NO_OPTIONS).output()
    }

    /// Runs it; it must end with 0. Returns what it wrote, without white space at both ends.
    #[track_caller]
    pub fn says(&self) -> String {
        self.run_with(NO_OPTIONS).succeeds().stdout.trim().to_owned()
    }

    /// Runs it; it must fail with this text, and leave nothing.
    #[track_caller]
    pub fn run_fails_with(&self, text: &str) -> Output {
        let output = self.run_with(NO_OPTIONS).fails_with(text);
        self.leaves_nothing();
        output
    }

    #[track_caller]
    pub fn create(&self) -> Output {
        self.create_with(NO_OPTIONS).succeeds()
    }

    #[track_caller]
    pub fn start(&self) -> Output {
        self.on_id("start").succeeds()
    }

    /// `create` and `start`; the output is that of the container.
    #[track_caller]
    pub fn launch(&self) -> Output {
        let output = self.create();
        self.start();
        output
    }

    #[track_caller]
    pub fn kill(&self, signal: &str) -> Output {
        self.on_id("kill").arg(signal).succeeds()
    }

    /// Lets a script go on that has begun with [`WAIT`].
    pub fn go_on(&self) {
        fs::write(self.bundle.rootfs().join("tmp/go"), "").unwrap();
    }

    /// Runs it in the foreground; its program has begun when this returns. The record is there a moment before: whoever is
    /// killed in between has not started.
    #[track_caller]
    pub fn run_beside(&self) -> super::process::Running {
        const PF_FORKNOEXEC: u64 = 0x40;
        let running = self.spawn();
        let mut pid = None;
        wait::wait_until("it runs", || {
            let output = self.on_id("state").output();
            let state: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
            pid = state["pid"].as_i64().filter(|_| state["status"] == "running");
            pid.is_some()
        });
        let stat = format!("/proc/{}/stat", pid.unwrap());
        wait::wait_until("its program has begun", || {
            // Whoever has ended meanwhile had begun.
            let stat = fs::read_to_string(&stat).unwrap_or_default();
            let flags =
                stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(6)?.parse::<u64>().ok());
            flags.is_none_or(|flags| flags & PF_FORKNOEXEC == 0)
        });
        running
    }

    /// Waits until the first process catches SIGTERM. The kernel drops what such a process does not catch: a signal that
    /// comes before the shell has set its trap is lost.
    #[track_caller]
    pub fn wait_for_trap(&self) {
        let status = format!("/proc/{}/status", self.pid());
        wait::wait_until("its process catches SIGTERM", || {
            let status = fs::read_to_string(&status).unwrap_or_default();
            let field = |name: &str| status.lines().find_map(|line| Some(line.strip_prefix(name)?.trim()));
            let caught = field("SigCgt:").map(|mask| u64::from_str_radix(mask, 16).unwrap());
            field("Name:") == Some("sh") && caught.is_some_and(|mask| mask & 1 << (SIGTERM - 1) != 0)
        });
    }

    /// Asks a container like [`Container::idle`] to end.
    #[track_caller]
    pub fn terminate(&self) -> Output {
        self.wait_for_trap();
        self.kill("TERM")
    }

    #[track_caller]
    pub fn delete(&self) -> Output {
        self.on_id("delete").succeeds()
    }

    #[track_caller]
    pub fn delete_by_force(&self) -> Output {
        self.runtime().args(["delete", "--force", &self.id]).succeeds()
    }

    #[track_caller]
    pub fn state(&self) -> Value {
        let output = self.on_id("state").succeeds();
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:#?}"))
    }

    #[track_caller]
    pub fn pid(&self) -> i32 {
        self.state()["pid"].as_i64().unwrap().try_into().unwrap()
    }

    #[track_caller]
    pub fn wait_for(&self, status: &str) {
        wait::wait_until(&format!("the container is {status}"), || self.state()["status"] == status);
    }

    /// Nothing must remain, except the bundle.
    #[track_caller]
    pub fn leaves_nothing(&self) {
        // A process that was just killed takes a moment to end.
        let mut remains = Vec::new();
        let gone = wait::holds_within(Duration::from_secs(3), || {
            remains = leftovers::of(&self.id);
            remains.retain(|what| !what.starts_with("directory "));
            if self.forgiving {
                remains.retain(|what| !what.starts_with("cgroup "));
            }
            if self.state_directory().exists() {
                remains.push(format!("state directory {}", self.state_directory().display()));
            }
            remains.is_empty()
        });
        assert!(gone, "left behind: {remains:#?}");
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.state_directory().exists() {
            self.runtime().args(["delete", "--force", &self.id]).spawn().end();
        }
        let mut remains = Vec::new();
        let cgroup = self.cgroup();
        let is_own = cgroup.file_name().is_some_and(|name| name.to_string_lossy().contains(&self.id));
        if is_own && cgroup.exists() {
            remains.push(format!("cgroup {}", cgroup.display()));
            // Without O_CREAT, in case this is no cgroup after all.
            let kill = fs::OpenOptions::new().write(true).open(cgroup.join("cgroup.kill"));
            let _ = kill.and_then(|mut file| file.write_all(b"1"));
            wait::holds_within(Duration::from_secs(5), || fs::remove_dir(&cgroup).is_ok());
        }
        if self.state_directory().exists() {
            remains.push(format!("state directory {}", self.state_directory().display()));
        }
        if !self.forgiving && !thread::panicking() {
            assert!(remains.is_empty(), "delete --force has left behind: {remains:#?}");
        }
    }
}
