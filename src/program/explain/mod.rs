//! Turns failures (step number, errno, part of the step) into error messages.
//!
//! The step says what was being done: each family of steps has a file, whose table gives a [`Sentence`]. The
//! step's [`Origin`] says where in `config.json` to look. [`Program::explain`] puts the two together.

mod devices;
mod hints;
mod mounts;
mod namespaces;
mod pointer;
mod process;
mod scheduling;
mod security;
mod start;

use std::ffi::CStr;

use anyhow::anyhow;
use nix::errno::Errno;

pub use self::mounts::describe_bind;
use super::{Origin, Program};
use crate::error::{Fault, Hint, Pointer, Stage};
use crate::init::step::{Part, RunHook, Step};
use crate::plan::hooks;

/// A step that failed, and how.
#[derive(Clone, Copy)]
struct Failed<'a> {
    program: &'a Program,
    step: &'a Step,
    origin: &'a Origin,
    errno: Errno,
    part: Part,
}

/// What an error message says about a failed step.
struct Sentence {
    /// What was being done, as a verb phrase: "mount ...".
    doing: String,
    /// What the user can do about it.
    hint: Option<&'static str>,
    /// The field below the origin's pointer that is to blame, and the index in it: `/options/2`.
    field: Option<(&'static str, Option<usize>)>,
    /// Whether engines look for `doing` as the whole message: then the text of the errno is left out.
    is_whole_message: bool,
}

/// The description for steps without a sentence and for unknown step numbers.
const UNKNOWN: &str = "start the container";

fn unknown() -> Sentence {
    plain(UNKNOWN.into())
}

/// A sentence without a hint.
fn plain(doing: String) -> Sentence {
    Sentence { doing, hint: None, field: None, is_whole_message: false }
}

impl Program {
    /// Turns a failure that the init process has reported into an error.
    ///
    /// `step` is the step's number, from 0; `said` is the output of a failed hook.
    pub fn explain(&self, step: u32, errno: crate::sys::Errno, part: Part, said: &[u8]) -> anyhow::Error {
        let index = usize::try_from(step).unwrap_or(usize::MAX);
        let errno = Errno::from_raw(errno.raw_os_error());
        let (Some(step), Some(origin)) = (self.steps.get(index), self.origins.get(index)) else {
            return anyhow!(errno).context(UNKNOWN);
        };
        let failed = Failed { program: self, step, origin, errno, part };
        let error = match step {
            Step::RunHook(hook) => failed.hook_error(hook, said),
            _ => failed.error(failed.sentence()),
        };
        error.context(stage(step))
    }
}

/// The phase of the start that the message names.
fn stage(step: &Step) -> Stage {
    match step {
        Step::Mount(_) | Step::Bind(_) | Step::Remount(_) | Step::Seal { .. } => Stage::Mount,
        Step::Execute { .. } => Stage::Program,
        _ => Stage::Init,
    }
}

impl Failed<'_> {
    /// Describes how a hook failed, in the words of `plan::hooks`.
    fn hook_error(self, hook: &RunHook, said: &[u8]) -> anyhow::Error {
        let pointer = self.program.pointer(self.origin, Part::Whole).unwrap_or_else(Pointer::root);
        let ended = match self.part {
            Part::Hook(ended) => Ok(ended),
            _ => Err(self.errno),
        };
        hooks::failure_of_step(pointer, hook, ended, said)
    }

    /// Builds the error from `sentence` and the step's place in `config.json`, if it has one.
    fn error(self, sentence: Sentence) -> anyhow::Error {
        let errno = anyhow!(self.errno);
        let pointer = self.pointer(sentence.field);
        let Sentence { doing, is_whole_message, .. } = sentence;
        let hint = sentence.hint.or_else(|| self.hint_of_user_namespace()).map(str::to_owned);
        match (pointer, hint) {
            (Some(pointer), hint) => {
                let fault = Fault { pointer, message: doing, hint };
                if is_whole_message { fault.into() } else { errno.context(fault) }
            }
            (None, _) if is_whole_message => anyhow!(doing),
            (None, Some(hint)) => errno.context(Hint(doing, hint)),
            (None, None) => errno.context(doing),
        }
    }

    /// The pointer of the step, or of `field` below it with its index.
    fn pointer(self, field: Option<(&'static str, Option<usize>)>) -> Option<Pointer> {
        let origin = match self.step {
            Step::Identity(who) if self.part == Part::Source => security::capabilities(who, self.errno),
            _ => self.origin,
        };
        let pointer = self.program.pointer(origin, self.part)?;
        Some(match field {
            Some((field, Some(index))) => pointer.field(field).index(index),
            Some((field, None)) => pointer.field(field),
            None => pointer,
        })
    }

    fn hint_of_user_namespace(self) -> Option<&'static str> {
        let Self { program, step, errno, part, .. } = self;
        if program.is_in_user_namespace { hints::in_user_namespace(step, errno, part) } else { None }
    }

    /// Returns the sentence for the step from the table of its family.
    fn sentence(self) -> Sentence {
        match self.step {
            Step::JoinNamespace { .. }
            | Step::JoinNamespacesOf { .. }
            | Step::HoldPidNamespace { .. }
            | Step::Successor { .. }
            | Step::SwitchIds { .. }
            | Step::Loopback
            | Step::NewNamespaces { .. }
            | Step::TimeOffsets { .. }
            | Step::JoinNewNetwork
            | Step::Hostname { .. }
            | Step::Domainname { .. }
            | Step::Sysctl { .. } => namespaces::sentence(self),
            Step::HostPropagation { .. }
            | Step::HideHostMount { .. }
            | Step::OpenRootfs { .. }
            | Step::HoldRootfs { .. }
            | Step::Mount(_)
            | Step::Bind(_)
            | Step::Remount(_)
            | Step::Seal { .. }
            | Step::PivotRoot { .. }
            | Step::MoveRoot
            | Step::ChangeRoot
            | Step::RootPropagation { .. }
            | Step::ReadOnlyPath { .. }
            | Step::MaskPaths { .. } => mounts::sentence(self),
            Step::HoldNodes { .. }
            | Step::Populate { .. }
            | Step::MakeDirectory { .. }
            | Step::Console { .. }
            | Step::OwnStreams => devices::sentence(self),
            Step::CloseOthers { .. }
            | Step::Dumpable { .. }
            | Step::JoinSessionKeyring { .. }
            | Step::NewSession
            | Step::Rlimit { .. }
            | Step::Personality { .. }
            | Step::ChangeDirectory { .. }
            | Step::FindHome { .. } => process::sentence(self),
            Step::MemoryPolicy { .. }
            | Step::Scheduler(_)
            | Step::IoPriority { .. }
            | Step::Affinity { .. }
            | Step::ResetAffinity => scheduling::sentence(self),
            Step::ApparmorProfile { .. }
            | Step::SelinuxLabel { .. }
            | Step::NoNewPrivileges
            | Step::Identity(_)
            | Step::LoadFilter { .. } => security::sentence(self),
            Step::FindProgram { .. }
            | Step::Execute { .. }
            | Step::EndOnSignals
            | Step::Meet { .. }
            | Step::AwaitParent
            | Step::Ready
            | Step::AwaitStart { .. }
            | Step::CloseOnExec { .. } => start::sentence(self),
            // Worded by `plan::hooks`: see `hook_error`.
            Step::RunHook(hook) => plain(text(&hook.complaint)),
        }
    }
}

/// The index of the list element that failed, from 0.
fn place(part: Part) -> usize {
    match part {
        Part::Item(index) => usize::from(index),
        _ => 0,
    }
}

fn text(string: &CStr) -> String {
    string.to_string_lossy().into_owned()
}
