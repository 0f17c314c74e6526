//! The hooks that run while a container is made.

use std::os::fd::AsFd as _;

use anyhow::Result;

use crate::container::hooks::{Runner, open_outputs, poststop};
use crate::container::state::{State, Status};
use crate::host::log::Log;
use crate::init;
use crate::launch::conversation::Conversation;
use crate::plan::hooks::{HookInputs, HookKind, HookPlan};
use crate::plan::process::inherited_environment;

/// Runs the prestart and createRuntime hooks; runtime.md § Lifecycle, steps 3 and 4.
///
/// They are killed when the init process ends: a concurrent `delete` need not wait for them.
pub(super) fn before_the_switch(hooks: &HookPlan, state: &State, child: &Conversation<'_>) -> Result<()> {
    let init = child.process.pidfd.as_fd();
    let runner = Runner::new(state, Status::Creating, &child.interrupts, Some(init))?;
    runner.run(HookKind::Prestart, &hooks.prestart)?;
    runner.run(HookKind::CreateRuntime, &hooks.create_runtime)
}

/// What the hooks of the init process need, if there are any.
pub(super) fn of_init(hooks: &HookPlan, state: &State) -> Result<Option<HookInputs>> {
    if hooks.create_container.is_empty() && hooks.start_container.is_empty() {
        return Ok(None);
    }
    let mut outputs = open_outputs(&state.annotations)?;
    // A hook in the container could change the mode of the host's null device. Its output is read and
    // discarded instead.
    for output in [&mut outputs.stdout, &mut outputs.stderr] {
        output.take_if(|output| init::is_null_device(output.as_fd()));
    }
    Ok(Some(HookInputs {
        creating: state.for_hooks(Status::Creating)?.into(),
        created: state.for_hooks(Status::Created)?.into(),
        outputs: outputs.into(),
        env: inherited_environment(),
    }))
}

/// The state of a container that has been undone, for its poststop hooks; runtime.md § Lifecycle, step 13.
#[derive(Default)]
pub(super) struct PoststopState(Option<State>);

impl PoststopState {
    /// From now on the poststop hooks run if creation fails.
    pub(super) fn remember(&mut self, state: &State) {
        if !state.hooks.poststop.is_empty() {
            self.0 = Some(state.clone());
        }
    }

    /// Another process has deleted the container and runs its hooks.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }

    pub(super) fn run_poststop(&self, log: &Log) {
        if let Some(state) = &self.0 {
            // The log file is reserved for the error that led here.
            poststop(state, |warning| log.aside(warning));
        }
    }
}
