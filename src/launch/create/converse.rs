//! Handles the init process's messages while it sets up the container, until only the start of the program is
//! left.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result};

use super::acquire::{Held, Pending};
use super::hooks;
use super::net_devices::NetDevices;
use super::user_namespace::{UserNamespace, oom_score_at};
use crate::bundle::Bundle;
use crate::cgroup::{Cgroup, intel_rdt};
use crate::container::filter;
use crate::container::state::State;
use crate::error::{Fault, Pointer, Stage};
use crate::host::process;
use crate::host::terminal::Terminal;
use crate::launch::conversation::{Conversation, Parent, Turn, WaitReason};
use crate::launch::netns;
use crate::plan::hooks::HookPlan;

/// A recorded container whose init process waits to start the program.
pub(super) struct Ready {
    pub(super) state: State,
    pub(super) terminal: Option<Terminal>,
    pub(super) pidfd: OwnedFd,
}

/// Handles the child's messages.
struct CreateEvents<'a> {
    cgroup: &'a mut Cgroup,
    net_devices: &'a mut NetDevices,
    user: &'a UserNamespace,
    hooks: &'a HookPlan,
    /// Set once the process is known.
    state: Option<&'a State>,
    terminal: Option<Terminal>,
}

impl Parent for CreateEvents<'_> {
    fn born(&mut self, child: &Conversation<'_>, duty: WaitReason) -> Result<()> {
        match duty {
            WaitReason::Attach => self.cgroup.attach(child.process.pid),
            WaitReason::SetUp => self.user.set_up(&child.process),
        }
    }

    fn in_namespaces(&mut self, child: &Conversation<'_>) -> Result<()> {
        self.net_devices.follow(child.process.pid)
    }

    fn mounted(&mut self, child: &Conversation<'_>) -> Result<()> {
        match self.state {
            Some(state) => hooks::before_the_switch(self.hooks, state, child).context(Stage::Init),
            None => Ok(()),
        }
    }

    // Before the program starts, so that it finds the window size set and its output is not altered on the
    // way.
    fn terminal(&mut self, master: OwnedFd) -> Result<()> {
        self.terminal = Some(Terminal::attach(master)?);
        Ok(())
    }
}

/// Talks to the child until it is ready, and records the container.
pub(super) fn converse(
    bundle: &Bundle,
    held: &mut Held,
    pending: &mut Pending,
    child: &mut Conversation<'_>,
) -> Result<Ready> {
    let Held { net_devices, cgroup, directory, rdt, .. } = held;
    let (user, hooks) = (&pending.user, &pending.hooks);
    let mut events = CreateEvents { cgroup, net_devices, user, hooks, state: None, terminal: None };

    be_born(child, pending, rdt.as_ref(), &mut events)?;
    child.process.send_pidfd(pending.pidfd_socket.take(), b"standard")?;
    let is_first = pending.setup.succeeded.is_none() && !pending.setup.late;
    let start = if is_first { pending.start } else { process::start(child.process.pid)? };
    let mut state = pending.record.of_process(child.process.pid, start);
    state.resources = bundle.resources()?;
    directory.save_excerpt(&bundle.excerpt()?)?;
    if let Some(filter) = &pending.filter {
        filter::save(filter, directory.path())?;
    }
    // Recorded only when complete: until then the init process is in the host's tree with all of the
    // runtime's privileges, and so would be a process that joined it. Only hooks see the record earlier, and
    // `exec` refuses it then.
    if state.creating {
        directory.prepare(&state)?.publish()?;
    }
    let prepared = directory.prepare(&State { creating: false, ..state.clone() })?;
    if let Some(score) = pending.oom_score_adj {
        child.process.adjust_oom_score(score, oom_score_at())?;
    }
    events.state = Some(&state);
    child.serve(state.creating.then_some(Turn::Mounted), &mut events)?;
    // Done here because the parent has nothing else to do until the init process is ready, and because
    // `start` or `exec` may come as soon as the container is recorded.
    pending.executable.release();
    let terminal = pending.relays_terminal.then_some(Turn::Terminal);
    child.serve([terminal, Some(Turn::Ready)].into_iter().flatten(), &mut events)?;
    let terminal = events.terminal;
    events.cgroup.release()?;
    let pidfd = child.process.pidfd.try_clone().context("duplicate the pidfd of the init process")?;
    prepared.publish()?;
    state.creating = false;
    // A concurrent `delete` need not wait for the hooks that are still to run.
    directory.release();
    Ok(Ready { state, terminal, pidfd })
}

/// Talks to the child until the process that stays the container's init process exists.
fn be_born(
    child: &mut Conversation<'_>,
    pending: &Pending,
    rdt: Option<&intel_rdt::Group>,
    events: &mut CreateEvents<'_>,
) -> Result<()> {
    let has_successor = pending.setup.succeeded.is_some();
    let is_set_up_first = has_successor && pending.user.is_set_up_first();
    let attach = events.cgroup.attaches_late().then_some(Turn::Born(WaitReason::Attach));
    let set_up = (!pending.user.is_own()).then_some(Turn::Born(WaitReason::SetUp));
    let before = set_up.filter(|_| is_set_up_first);
    let successor = has_successor.then_some(Turn::Successor);
    child.serve([attach, before, successor].into_iter().flatten(), events)?;
    if has_successor {
        events.cgroup.attach(child.process.pid)?;
    }
    if let Some(rdt) = rdt {
        rdt.member().add(child.process.pid)?;
    }
    let after = set_up.filter(|_| !is_set_up_first);
    let awaits_devices = pending.makes_network && events.net_devices.are_wanted();
    let in_namespaces = awaits_devices.then_some(Turn::InNamespaces);
    child.serve([after, in_namespaces].into_iter().flatten(), events)?;
    if pending.setup.beside != 0 {
        make_network(child, events.net_devices)?;
    }
    // Its successor is cloned in the cgroup and needs no attaching.
    child.serve(pending.setup.late.then_some(Turn::Successor), events)
}

/// Makes a network namespace while the child makes its mounts, which takes about as long.
fn make_network(child: &Conversation<'_>, net_devices: &mut NetDevices) -> Result<()> {
    let network = netns::make().with_context(|| Fault {
        pointer: Pointer::root().field("linux").field("namespaces"),
        message: "create a network namespace".into(),
        hint: None,
    })?;
    net_devices.move_into(network.as_fd())?;
    child.hand_network(&network)
}
