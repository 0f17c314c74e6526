//! `runtime run`: create, start, wait, delete.

use super::Action;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow};

use super::create_args::CreateArgs;
use super::{Context, delete};
use crate::bundle::CONFIG;
use crate::cgroup;
use crate::cgroup::OomMonitor;
use crate::container::{Container, ContainerId};
use crate::host::signals::{Signal, Signals};
use crate::launch::create::{Created, Start, create};
use crate::launch::supervise::{End, supervise};
use crate::sys::process::set_child_subreaper;

/// Create and start a container, wait for it to exit and delete it
///
/// The exit status is that of the container process, or 128+N if it was killed by signal N.
#[derive(Debug, clap::Args)]
pub struct Run {
    #[command(flatten)]
    args: CreateArgs,
    /// Run the container in the background
    #[arg(short, long)]
    detach: bool,
    /// Do not delete the container after it exits
    #[arg(long)]
    keep: bool,
    /// Do not become a subreaper for processes the container leaves behind
    #[arg(long)]
    no_subreaper: bool,
    /// Container ID, unique on this host; or the path of a bundle, whose name becomes the ID
    #[arg(value_name = "ID|BUNDLE")]
    target: Option<String>,
}

impl Action for Run {
    fn run(&self, context: &Context) -> Result<ExitCode> {
        run(self, context).map(ExitCode::from)
    }
}

fn run(args: &Run, context: &Context) -> Result<u8> {
    let (bundle, id) = resolve(args.args.bundle.as_deref(), args.target.as_deref())?;
    let bundle = args.args.open(&bundle)?;
    if !args.no_subreaper {
        set_child_subreaper().context("become a subreaper")?;
    }
    // Before the container exists, so that no signal sent meanwhile is lost.
    let signals = Signals::block()?;
    if args.detach {
        let created = create(&bundle, &args.args.request(&id, Start::Detached, &signals, context))?;
        if let Some(notify) = &created.notify {
            notify.relay(created.pidfd.as_fd(), created.pid)?;
        }
        return Ok(0);
    }
    let created = create(&bundle, &args.args.request(&id, Start::Attached, &signals, context))?;
    let Created { container, pid, pidfd, terminal, notify, oom_files } = created;
    let mut oom =
        oom_files.zip(container.state.recorded_cgroup()).map(|(files, path)| OomMonitor::new(files, path));
    let ended = supervise(pid, pidfd.as_fd(), &signals, terminal, notify, oom.as_mut());
    if ended.is_err() {
        // The container can no longer be supervised.
        let _ = Signal::KILL.send(pidfd.as_fd());
    }
    if ended.as_ref().is_ok_and(|end| end.is_killed()) {
        warn_oom(&container, oom.as_ref(), args.keep, context);
    }
    if !args.keep {
        let warn = |warning: &str| match &ended {
            Ok(_) => context.log.warning(warning),
            Err(_) => context.log.aside(warning),
        };
        delete::remove(container, warn)?;
    }
    ended.map(End::exit_status)
}

/// Warns if the OOM killer killed the container's init process. `oom` watched the cgroup if it may be gone by
/// now.
fn warn_oom(container: &Container, oom: Option<&OomMonitor>, is_kept: bool, context: &Context) {
    let shortage = match oom {
        None => container.shortage(),
        Some(oom) => oom.seen().and_then(|seen| container.shortage_in(seen)),
    };
    if let Some(shortage) = shortage {
        container.tell_oom_kills(shortage.kills);
        if is_kept && oom.is_some() {
            container.note_shortage(&shortage);
        }
        return context.log.warning(shortage.of_killed());
    }
    let Some(oom) = oom.filter(|_| !container.is_asked_to_end()) else { return };
    let gone = "systemd removed its cgroup before this could be determined";
    match oom.missed() {
        Some(0) => {}
        Some(kills) => {
            // Too uncertain to record or to notify others.
            let killed = cgroup::counted(kills);
            context.log.warning(format_args!(
                "container init was killed, probably by the OOM killer: {gone}, but the OOM killer \
                 killed {killed} in its slice meanwhile (raise /linux/resources/memory/limit, or reduce the program's \
                 memory usage)",
            ));
        }
        None => context.log.warning(format_args!(
            "container init was killed by another process or by the OOM killer: {gone}",
        )),
    }
}

/// Interprets the argument. One that contains a slash, or that names a bundle while the current directory is
/// none, is a bundle path; any other is an ID.
fn resolve(bundle: Option<&Path>, target: Option<&str>) -> Result<(PathBuf, ContainerId)> {
    let names_bundle = |target: &str| {
        target.contains('/') || Path::new(target).join(CONFIG).exists() && !Path::new(CONFIG).exists()
    };
    match (bundle, target) {
        (None, Some(target)) if names_bundle(target) => named_after(Path::new(target)),
        (bundle, Some(id)) => Ok((bundle.unwrap_or(Path::new(".")).to_path_buf(), id.parse()?)),
        (bundle, None) => named_after(bundle.unwrap_or(Path::new("."))),
    }
}

fn named_after(bundle: &Path) -> Result<(PathBuf, ContainerId)> {
    let found = std::fs::canonicalize(bundle).with_context(|| format!("open bundle {}", bundle.display()))?;
    let name = found.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let id = name.parse().map_err(|error| {
        anyhow!(
            "{error}: the directory name is not a valid container ID; use `run --bundle {} ID`",
            bundle.display()
        )
    })?;
    Ok((bundle.to_path_buf(), id))
}
