//! Runs a program with a deadline.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use super::{host, user, wait, weakened};

/// A program that is about to be called. Its output goes to files, not pipes: a container that outlives the call
/// keeps them open.
#[derive(Debug)]
pub struct Invocation {
    pub(super) command: Command,
}

impl Invocation {
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).env_remove("NOTIFY_SOCKET").env_remove("LISTEN_FDS");
        if let Some((advisory, _)) = weakened::current() {
            command.env("RUNTIME_WEAKENED", advisory);
        }
        Self { command }
    }

    /// The runtime under test.
    pub fn of_the_runtime() -> Self {
        Self::new(host::runtime())
    }

    /// The same call made by the user of [`super::user`], without any further group.
    pub fn by_user(mut self) -> Self {
        self.command.uid(user::UID).gid(user::GID).env_remove("XDG_RUNTIME_DIR");
        self
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.command.current_dir(directory);
        self
    }

    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.command.stdin(stdin);
        self
    }

    /// Has the new process do this before it becomes the program.
    ///
    /// # Safety
    /// As of `pre_exec`: what it does must be possible in a copy of a process with several threads.
    #[allow(unsafe_code, reason = "handed on")]
    pub unsafe fn before_it_begins(mut self, what: fn() -> std::io::Result<()>) -> Self {
        // SAFETY: the caller's.
        unsafe { self.command.pre_exec(what) };
        self
    }

    /// The same call made by a shell, after the redirections and assignments in `prefix`.
    pub fn after_shell(self, prefix: &str) -> Self {
        let mut shell = Self::new("sh").arg("-c").arg(format!("{prefix} exec \"$@\"")).arg("sh");
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => shell.command.env(name, value),
                None => shell.command.env_remove(name),
            };
        }
        if let Some(directory) = self.command.get_current_dir() {
            shell.command.current_dir(directory);
        }
        shell.arg(self.command.get_program()).args(self.command.get_args())
    }

    /// The same call made by another program, whose last words it is.
    pub fn called_by<A: AsRef<OsStr>>(self, words: impl IntoIterator<Item = A>) -> Self {
        let mut words = words.into_iter();
        let program = words.next().expect("a program");
        let mut call = Self::new(program).args(words);
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => call.command.env(name, value),
                None => call.command.env_remove(name),
            };
        }
        call.args(self.words())
    }

    /// The same call in mount, network and uts namespaces of its own, which a faulty runtime may spoil; where it has
    /// returned, this script says on stdout what became of them.
    pub fn in_a_scratch_host(self, script: &str) -> Self {
        Self::new("unshare")
            .args(["--mount", "--net", "--uts", "--propagation", "private", "sh", "-c"])
            .arg(format!("\"$@\"; status=$?; {script}; exit $status"))
            .arg("sh")
            .args(self.words())
    }

    /// The words of the call.
    pub fn words(&self) -> Vec<String> {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        words.map(|word| word.to_string_lossy().into_owned()).collect()
    }

    pub fn spawn(mut self) -> Running {
        let stdout = tempfile::tempfile().unwrap();
        let stderr = tempfile::tempfile().unwrap();
        self.command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
        let name = self.words().join(" ");
        let child = self.command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        Running { child, stdout, stderr, name }
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn output(self) -> Output {
        self.spawn().wait()
    }

    /// Runs it to its end, which must be a good one.
    #[track_caller]
    pub fn succeeds(self) -> Output {
        let output = self.output();
        assert!(output.code() == 0, "{output:#?}");
        output
    }

    /// Runs it to its end, which must be a bad one with this text on stderr.
    #[track_caller]
    pub fn fails_with(self, text: &str) -> Output {
        let output = self.output();
        assert!(output.code() != 0, "it should have failed with {text:?}: {output:#?}");
        assert!(output.stderr.contains(text), "{text:?} is not in {output:#?}");
        output
    }

    /// As [`Self::fails_with`], for texts that callers look for in any case; `text` is in lower case.
    #[track_caller]
    pub fn fails_with_any_case(self, text: &str) -> Output {
        let output = self.fails_with("");
        assert!(output.stderr.to_lowercase().contains(text), "{text:?} is not in {output:#?}");
        output
    }
}

/// A program that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: File,
    stderr: File,
    name: String,
}

impl Running {
    pub fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    pub fn stdout(&self) -> String {
        contents(&self.stdout)
    }

    pub fn stderr(&self) -> String {
        contents(&self.stderr)
    }

    #[track_caller]
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits until this text is on stdout.
    #[track_caller]
    pub fn wait_for_stdout(&self, text: &str) {
        let there = wait::holds_within(host::patience(), || self.stdout().contains(text));
        assert!(there, "{text:?} does not come from {}: {:?} {:?}", self.name, self.stdout(), self.stderr());
    }

    /// Waits for the end, or makes it.
    pub fn end(mut self) {
        wait::ends_within(host::patience(), &mut self.child);
    }

    #[track_caller]
    pub fn wait(mut self) -> Output {
        let status = wait::ends_within(host::patience(), &mut self.child);
        let (stdout, stderr) = (self.stdout(), self.stderr());
        let Some(status) = status else {
            panic!("does not end: {}: {stdout:?} {stderr:?}", self.name);
        };
        let stdout_file = self.stdout.try_clone().unwrap();
        let stderr_file = self.stderr.try_clone().unwrap();
        Output { command: self.name.clone(), status, stdout, stderr, stdout_file, stderr_file }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What came of a call.
pub struct Output {
    pub command: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    stdout_file: File,
    stderr_file: File,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, status, stdout, stderr, .. } = self;
        write!(f, "\n  {command}\n  {status}\n  stdout: {stdout:?}\n  stderr: {stderr:?}")
    }
}

impl Output {
    /// The exit status, or 128 + the signal that ended the program itself.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap())
    }

    /// What is on stdout now: a container that outlived the call goes on writing.
    pub fn stdout_now(&self) -> String {
        contents(&self.stdout_file)
    }

    /// The same of stderr.
    pub fn stderr_now(&self) -> String {
        contents(&self.stderr_file)
    }

    #[track_caller]
    pub fn wait_for_stdout(&self, text: &str) {
        let there = wait::holds_within(host::patience(), || self.stdout_now().contains(text));
        assert!(there, "{text:?} does not come from {}: {:?}", self.command, self.stdout_now());
    }
}

fn contents(file: &File) -> String {
    let length = file.metadata().unwrap().len();
    let mut bytes = vec![0; length.try_into().unwrap()];
    // The program shares the offset of this file: read without moving it.
    file.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
