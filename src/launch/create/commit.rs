//! What happens once the container is recorded: its program starts, or waits for `start`, and the guards are
//! disarmed.

use anyhow::Result;

use super::acquire::{Held, Pending};
use super::converse::Ready;
use super::hooks::PoststopState;
use super::{Created, Request, Start};
use crate::container::PidFile;
use crate::container::hooks::poststart;
use crate::container::state::{State, Status};
use crate::launch::conversation::{Conversation, Parent, Turn};
use crate::launch::seccomp_agent::Agent;

/// Lets the program start, writes the pid file, prints warnings, and disarms the guards.
pub(super) fn commit(
    request: &Request<'_>,
    mut held: Held,
    mut pending: Pending,
    mut child: Conversation<'_>,
    ready: Ready,
    undone: &mut PoststopState,
) -> Result<Created> {
    let Ready { state, terminal, pidfd } = ready;
    let pid_file = match begin(request, &mut child, &state, pending.agent.take()) {
        Ok(pid_file) => pid_file,
        Err(error) => {
            let is_ours = held.directory.take_back();
            drop(child);
            // What has this name and path now may belong to another container.
            if !is_ours {
                undone.forget();
                held.leave();
            }
            return Err(error);
        }
    };
    // Only now: when creation fails, the log must hold the failure alone, because some readers parse it as
    // one record.
    pending.warnings.iter().for_each(|warning| request.log.warning(warning));
    if let Some(filter) = &pending.filter {
        filter.notes().iter().for_each(|note| request.log.debug(note));
    }
    let oom_files = child.context.oom_files.take();
    let pid = child.process.pid;
    let Held { net_devices, notify, rdt, cgroup, directory } = held;
    cgroup.keep();
    if let Some(rdt) = rdt {
        rdt.keep();
    }
    net_devices.keep();
    if let Some(pid_file) = pid_file {
        pid_file.keep();
    }
    child.process.keep = true;
    Ok(Created { container: directory.keep(state), pid, pidfd, terminal, notify, oom_files })
}

/// Lets the recorded container's init process run its program or wait for `start`.
fn begin(
    request: &Request<'_>,
    child: &mut Conversation<'_>,
    state: &State,
    agent: Option<Agent>,
) -> Result<Option<PidFile>> {
    child.go_on()?;
    let listening = agent.is_some().then_some(Turn::Listening);
    let mut events = StartEvents { state, agent };
    child.serve(listening, &mut events)?;
    request.log.debug("init: closing the pipe to signal completion: the container is ready");
    if request.program != Start::Later {
        child.serve([Turn::Started], &mut events)?;
        poststart(state, &child.interrupts)?;
    }
    request.pid_file.map(|path| PidFile::write(path, child.process.pid)).transpose()
}

/// Handles the child's last messages.
struct StartEvents<'a> {
    state: &'a State,
    agent: Option<Agent>,
}

impl Parent for StartEvents<'_> {
    fn listening(&mut self, child: &Conversation<'_>, number: i32) -> Result<()> {
        match self.agent.take() {
            Some(agent) => agent.pass_on(&child.process, number, self.state, Status::Creating),
            None => Ok(()),
        }
    }
}
