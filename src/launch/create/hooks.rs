//! The hooks that are called while a container is made.

use std::os::fd::AsFd as _;

use anyhow::Result;

use crate::container::hooks::{Runner, open_outputs, poststop};
use crate::container::state::{State, Status};
use crate::host::log::Log;
use crate::init;
use crate::launch::conversation::Conversation;
use crate::plan::hooks::{HookKind, HookPlan, Shared};
use crate::plan::process::inherited_environment;

/// Calls those that the runtime runs before the switch of the root; runtime.md § Lifecycle, steps 3 and 4.
///
/// They end with the init process, for which they are: whoever deletes the container meanwhile need not wait for them.
pub(super) fn before_the_switch(hooks: &HookPlan, state: &State, child: &Conversation<'_>) -> Result<()> {
    let init = child.process.pidfd.as_fd();
    let runner = Runner::new(state, Status::Creating, &child.interrupts, Some(init))?;
    runner.run(HookKind::Prestart, &hooks.prestart)?;
    runner.run(HookKind::CreateRuntime, &hooks.create_runtime)
}

/// What the hooks of the init process need, if there are any.
pub(super) fn of_init(hooks: &HookPlan, state: &State) -> Result<Option<Shared>> {
    if hooks.create_container.is_empty() && hooks.start_container.is_empty() {
        return Ok(None);
    }
    let mut outputs = open_outputs(&state.annotations)?;
    // A hook in the container could change the mode of the host's null device. What it says is then read and thrown away here.
    for output in [&mut outputs.stdout, &mut outputs.stderr] {
        output.take_if(|output| init::is_null_device(output.as_fd()));
    }
    Ok(Some(Shared {
        creating: state.for_hooks(Status::Creating)?.into(),
        created: state.for_hooks(Status::Created)?.into(),
        outputs: outputs.into(),
        env: inherited_environment(),
    }))
}

/// A container that has been undone; runtime.md § Lifecycle, step 13, follows.
#[derive(Default)]
pub(super) struct Undone(Option<State>);

impl Undone {
    /// From now on there is something to undo.
    pub(super) fn remember(&mut self, state: &State) {
        if !state.hooks.poststop.is_empty() {
            self.0 = Some(state.clone());
        }
    }

    /// Somebody else has deleted it, and it is theirs to call the hooks.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }

    pub(super) fn run_poststop(&self, log: &Log) {
        if let Some(state) = &self.0 {
            // The log file is for the failure that brought us here.
            poststop(state, |warning| log.aside(warning));
        }
    }
}
