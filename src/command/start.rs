//! `runtime start`: starts the program of a created container.

use super::Action;
use crate::host::environment::Environment;
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use super::{Context, delete};
use crate::container::hooks::poststart;
use crate::container::state::Status;
use crate::container::{Container, ContainerId};
use crate::error::Refusal;
use crate::host::notify::NotifySocket;
use crate::host::signals::Signals;
use crate::sys::process::unblock_all_signals;

/// Start a created container
#[derive(Debug, clap::Args)]
pub struct Start {
    /// Container ID
    #[arg(value_name = "ID")]
    id: ContainerId,
}

impl Action for Start {
    fn run(&self, context: &Context) -> Result<ExitCode> {
        run(self, context).map(|()| ExitCode::SUCCESS)
    }
}

fn run(args: &Start, context: &Context) -> Result<()> {
    let container = context.root.load(&args.id)?;
    match container.status()? {
        Status::Created => {}
        Status::Stopped => return Err(container.stopped()),
        Status::Running => bail!("cannot start an already running container"),
        status => bail!("cannot start a container in the {status} state"),
    }
    // Before the program can use it.
    let notify = match &Environment::own().notify_socket {
        Some(host) => Some(NotifySocket::bind(&container.held_directory(), host)?),
        None => None,
    };
    let init = container.init()?;
    let pid = container.state.init_process_pid;
    if container.state.hooks.start_container || !container.state.hooks.poststart.is_empty() {
        start_with_hooks(container, context)?;
    } else {
        container.start()?;
    }
    match (notify, init) {
        (Some(notify), Some(init)) => notify.relay(init.as_fd(), pid),
        _ => Ok(()),
    }
}

/// Runs startContainer and poststart hooks. If one fails, the container is stopped: runtime.md § Lifecycle,
/// steps 7 and 9.
fn start_with_hooks(container: Container, context: &Context) -> Result<()> {
    let interrupts = Signals::block()?.interrupts()?;
    let started =
        container.start_and_watch(&interrupts).and_then(|()| poststart(&container.state, &interrupts));
    // A container that another process has started must not be killed here.
    if started.as_ref().is_err_and(|error| !error.is::<Refusal>()) {
        // The first error is the one to report.
        let _ = delete::kill(&container)
            .and_then(|()| delete::remove(container, |warning| context.log.aside(warning)).map(drop));
    }
    // From here on no signal undoes anything.
    unblock_all_signals().context("unblock signals")?;
    started
}
