//! `runtime exec`: adds a process to a container.

use super::Action;
use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use super::Context;
use crate::bundle::input;
use crate::bundle::input::Pipes;
use crate::cgroup::Below;
use crate::cli::fast_path;
use crate::cli::fast_path::{Known, Usual};
use crate::container::ContainerId;
use crate::host::signals::{Signal, Signals};
use crate::launch::exec;
use crate::launch::exec::{Added, Request, WhenPaused};
use crate::launch::supervise::{End, supervise};
use crate::plan::{Changes, Wanted};
use crate::sys::weakened;

/// Run a new process in a running container
///
/// Without --process, the process is configured like the container's own, except for its program, the options given here,
/// and that it has no terminal by default. The exit status is that of the process, 128+N if it was killed by signal N, or
/// 255 if it could not be started.
#[derive(Debug, Default, PartialEq, clap::Args)]
pub struct Exec {
    /// UNIX socket that receives the terminal (pty master)
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// UNIX socket that receives a pidfd of the process
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// Working directory in the container
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Set an environment variable; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<OsString>,
    /// Allocate a terminal
    #[arg(short, long)]
    tty: bool,
    /// User ID, and optionally group ID, of the process
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<String>,
    /// Additional group ID; may be repeated
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<String>,
    /// Path to a process.json that describes the process
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Run the process in the background
    #[arg(short, long)]
    detach: bool,
    /// Write the PID of the process to FILE
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Set no_new_privs for the process
    #[arg(long)]
    no_new_privs: bool,
    /// Add a capability for the process; may be repeated
    #[arg(short, long, value_name = "CAP")]
    cap: Vec<String>,
    /// Pass N additional file descriptors (3 and up) to the process
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Run the process in this sub-cgroup of the container
    #[arg(long, value_name = "PATH")]
    cgroup: Vec<String>,
    /// Allow exec in a paused container; the process starts once it is resumed
    #[arg(long)]
    ignore_paused: bool,
    /// Accepted for compatibility; exec never becomes a subreaper
    #[arg(long, hide = true)]
    no_subreaper: bool,
    /// Container ID, followed by the program and its arguments
    #[arg(value_name = "ID [PROGRAM [ARGUMENT...]]", required = true, trailing_var_arg = true)]
    words: Vec<OsString>,
}

/// The options known to the fast path.
pub const OPTIONS: [Known; 18] = [
    ("console-socket", None, true),
    ("pidfd-socket", None, true),
    ("cwd", None, true),
    ("env", Some('e'), true),
    ("tty", Some('t'), false),
    ("user", Some('u'), true),
    ("additional-gids", Some('g'), true),
    ("process", Some('p'), true),
    ("detach", Some('d'), false),
    ("pid-file", None, true),
    ("process-label", None, true),
    ("apparmor", None, true),
    ("no-new-privs", None, false),
    ("cap", Some('c'), true),
    ("preserve-fds", None, true),
    ("cgroup", None, true),
    ("ignore-paused", None, false),
    ("no-subreaper", None, false),
];

impl Exec {
    /// Parses a common command line without clap.
    pub fn usual(words: &[OsString]) -> Option<Self> {
        let Usual { options, rest } = fast_path::read(words, &OPTIONS)?;
        let mut exec = Self { words: rest.to_vec(), ..Self::default() };
        for (name, value) in options {
            match name {
                "console-socket" => exec.console_socket = Some(value.into()),
                "pidfd-socket" => exec.pidfd_socket = Some(value.into()),
                "cwd" => exec.cwd = Some(value.into()),
                "env" => exec.env.push(value.to_owned()),
                "tty" => exec.tty = true,
                "user" => exec.user = Some(value.to_str()?.to_owned()),
                "additional-gids" => exec.additional_gids.push(value.to_str()?.to_owned()),
                "process" => exec.process = Some(value.into()),
                "detach" => exec.detach = true,
                "pid-file" => exec.pid_file = Some(value.into()),
                "process-label" => exec.process_label = Some(value.to_str()?.to_owned()),
                "apparmor" => exec.apparmor = Some(value.to_str()?.to_owned()),
                "no-new-privs" => exec.no_new_privs = true,
                "cap" => exec.cap.push(value.to_str()?.to_owned()),
                "preserve-fds" => exec.preserve_fds = value.to_str()?.parse().ok()?,
                "cgroup" => exec.cgroup.push(value.to_str()?.to_owned()),
                "ignore-paused" => exec.ignore_paused = true,
                "no-subreaper" => exec.no_subreaper = true,
                _ => return None,
            }
        }
        (!exec.words.is_empty()).then_some(exec)
    }
}

impl Action for Exec {
    fn run(&self, context: &Context) -> Result<ExitCode> {
        run(self, context).map(ExitCode::from)
    }
}

fn run(args: &Exec, context: &Context) -> Result<u8> {
    let id: ContainerId = args.words.first().and_then(|id| id.to_str()).unwrap_or_default().parse()?;
    let container = context.root.load(&id)?;
    // Signals are not blocked yet and can end this process: the document may come through a pipe.
    let wanted = wanted(args)?;
    // Before the process exists, so that no signal sent meanwhile is lost.
    let signals = Signals::block()?;
    let request = Request {
        stays: !args.detach,
        pid_file: args.pid_file.as_deref(),
        console_socket: args.console_socket.as_deref(),
        pidfd_socket: args.pidfd_socket.as_deref(),
        preserve_fds: args.preserve_fds,
        cgroup: if args.cgroup.is_empty() { None } else { Some(Below::parse(&args.cgroup)?) },
        when_paused: if args.ignore_paused { WhenPaused::Wait } else { WhenPaused::Refuse },
        signals: &signals,
        log: &context.log,
        executable: context.executable.take(),
    };
    let Added { pid, pidfd, terminal } = exec::exec(&container, wanted, request)?;
    if args.detach {
        return Ok(0);
    }
    let ended = supervise(pid, pidfd.as_fd(), &signals, terminal, None, None);
    if ended.is_err() {
        // The process can no longer be supervised.
        let _ = Signal::KILL.send(pidfd.as_fd());
    }
    ended.map(End::exit_status)
}

fn wanted(args: &Exec) -> Result<Wanted> {
    if let Some(path) = &args.process {
        return Ok(Wanted::File(input::document(path, Pipes::Taken)?));
    }
    let (uid, gid) = args.user.as_deref().map(user).transpose()?.unwrap_or_default();
    // Other programs accept `--` at the end of their options, so do we.
    let is_dashes = |word: &&OsString| *word == "--";
    let words = args.words.iter().skip(1);
    let dashes = words.clone().take(1).filter(is_dashes).count();
    Ok(Wanted::Like(Box::new(Changes {
        args: words.skip(dashes).cloned().collect(),
        cwd: args.cwd.clone(),
        env: args.env.clone(),
        terminal: args.tty,
        uid,
        gid,
        groups: args.additional_gids.iter().map(|text| group(text)).collect::<Result<_>>()?,
        capabilities: args.cap.clone(),
        no_new_privileges: args.no_new_privs,
        apparmor_profile: args.apparmor.clone(),
        selinux_label: args.process_label.clone(),
    })))
}

/// Parses `UID[:GID]`; without a group, the container's is kept, as in runc.
fn user(text: &str) -> Result<(Option<u32>, Option<u32>)> {
    let (uid, gid) = text.split_once(':').map_or((text, None), |(uid, gid)| (uid, Some(gid)));
    let number = |part: &str, what: &str| match number(part) {
        Some(id) => Ok(Some(id)),
        None => bail!("--user {text:?}: bad {what}: must be a number from 0 to 4294967294"),
    };
    Ok((number(uid, "uid")?, gid.map(|gid| number(gid, "gid")).transpose()?.flatten()))
}

fn group(text: &str) -> Result<u32> {
    number(text)
        .with_context(|| format!("additional-gids must be a positive number {text} (from 0 to 4294967294)"))
}

/// Parses all of `text`, digits only: crun once used just the leading digits, and so ran as another user
/// (CVE-2026-30892). The largest number is rejected: to the kernel it means "unchanged".
fn number(text: &str) -> Option<u32> {
    if weakened::is_off("CVE-2026-30892") {
        let end = text.bytes().take_while(u8::is_ascii_digit).count();
        return Some(text.get(..end)?.parse().unwrap_or(0));
    }
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| is_number && *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_one_or_two_numbers_and_nothing_else() {
        assert_eq!(user("1000").unwrap(), (Some(1000), None));
        assert_eq!(user("0:5").unwrap(), (Some(0), Some(5)));
        for text in [
            "",
            ":",
            "1:",
            ":1",
            "1 ",
            "+1",
            "-1",
            "0x1",
            "1000:1000:1",
            "root",
            "4294967295",
            "99999999999",
            "1\n",
        ] {
            assert!(user(text).is_err(), "{text:?}");
        }
        assert_eq!(
            user("x").unwrap_err().to_string(),
            "--user \"x\": bad uid: must be a number from 0 to 4294967294"
        );
    }

    #[test]
    fn a_group_is_a_number() {
        assert_eq!(group("65534").unwrap(), 65_534);
        assert!(
            group("-1").unwrap_err().to_string().starts_with("additional-gids must be a positive number -1")
        );
    }
}
