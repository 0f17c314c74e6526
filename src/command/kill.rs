//! `runtime kill`: sends a signal to the init process.

use super::Action;
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::{Context, matching};
use crate::cgroup;
use crate::container::Container;
use crate::error::Refusal;
use crate::host::signals::Signal;
use crate::sys::Errno;

/// Send a signal to a container's init process
#[derive(Debug, clap::Args)]
pub struct Kill {
    /// Obsolete; a stopped container is not an error
    #[arg(short, long, hide = true)]
    all: bool,
    /// Treat ID as a regular expression and signal all matching containers
    #[arg(short, long)]
    regex: bool,
    /// Container ID
    #[arg(value_name = "ID")]
    id: String,
    /// Signal name or number, e.g. KILL, SIGKILL or 9
    #[arg(value_name = "SIGNAL", default_value = "TERM")]
    signal: Signal,
}

impl Action for Kill {
    fn run(&self, context: &Context) -> Result<ExitCode> {
        run(self, context).map(|()| ExitCode::SUCCESS)
    }
}

fn run(args: &Kill, context: &Context) -> Result<()> {
    if args.regex {
        return matching::for_each(&args.id, context, |container| kill(&container, args));
    }
    kill(&context.root.load(&args.id.parse()?)?, args)
}

fn kill(container: &Container, args: &Kill) -> Result<()> {
    let not_running = || Refusal::NotRunning(container.state.id.clone()).into();
    let init = container.init()?;
    // If the init process has already ended, the recorded reason stays.
    if args.signal == Signal::KILL && init.is_some() {
        container.note_kill();
    }
    // Without a pid namespace of its own, the other processes survive the init process.
    if args.signal == Signal::KILL && !container.state.private_pid_namespace {
        let is_gone = init.is_none() && !container.state.cgroup().is_some_and(cgroup::has_processes);
        if is_gone && !args.all {
            return Err(not_running());
        }
        return container.kill_all();
    }
    let sent = match init {
        Some(init) => args.signal.send(init.as_fd()),
        None => Err(Errno::SRCH),
    };
    match sent {
        Err(Errno::SRCH) if args.all => Ok(()),
        Err(Errno::SRCH) => Err(not_running()),
        sent => sent.with_context(|| format!("send {} to the init process", args.signal)),
    }
}
