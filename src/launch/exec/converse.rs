//! The parent's side until the program has started.

use std::os::fd::OwnedFd;

use anyhow::Result;

use super::birth::PendingAttach;
use super::preflight::{Checked, OomScoreOf};
use crate::container::Container;
use crate::container::state::{State, Status};
use crate::host::terminal::Terminal;
use crate::launch::conversation::{Conversation, Parent, Turn, WaitReason};
use crate::launch::seccomp_agent::Agent;

/// Handles the child's messages.
struct ExecEvents<'a> {
    state: &'a State,
    awaiting: Option<PendingAttach>,
    agent: Option<Agent>,
    terminal: Option<Terminal>,
}

impl Parent for ExecEvents<'_> {
    fn born(&mut self, child: &Conversation<'_>, _duty: WaitReason) -> Result<()> {
        self.awaiting.take().map_or(Ok(()), |cgroup| cgroup.attach(child.process.pid, self.state))
    }

    // Before the program starts, so that it finds the window size set and its output is not altered on the
    // way.
    fn terminal(&mut self, master: OwnedFd) -> Result<()> {
        self.terminal = Some(Terminal::attach(master)?);
        Ok(())
    }

    fn listening(&mut self, child: &Conversation<'_>, number: i32) -> Result<()> {
        match self.agent.take() {
            Some(agent) => agent.pass_on(&child.process, number, self.state, Status::Running),
            None => Ok(()),
        }
    }
}

/// Talks to the child until its program has started; returns the terminal if there is one to relay.
pub(super) fn converse(
    container: &Container,
    checked: &mut Checked,
    awaiting: Option<PendingAttach>,
    child: &mut Conversation<'_>,
) -> Result<Option<Terminal>> {
    let born = awaiting.is_some().then_some(Turn::Born(WaitReason::Attach));
    let successor = checked.has_successor.then_some(Turn::Successor);
    let state = &container.state;
    let mut events = ExecEvents { state, awaiting, agent: checked.agent.take(), terminal: None };
    child.serve([born, successor].into_iter().flatten(), &mut events)?;
    child.process.send_pidfd(checked.pidfd_socket.take(), b"setns")?;
    if let Some(rdt) = state.intel_rdt() {
        rdt.add(child.process.pid)?;
    }
    if let OomScoreOf::Child(score) = checked.oom_score {
        child.process.adjust_oom_score(score, checked.at.field("oomScoreAdj"))?;
    }
    child.serve(checked.relays_terminal.then_some(Turn::Terminal), &mut events)?;
    child.go_on()?;
    let listening = events.agent.is_some().then_some(Turn::Listening);
    child.serve([listening, Some(Turn::Started)].into_iter().flatten(), &mut events)?;
    Ok(events.terminal)
}
