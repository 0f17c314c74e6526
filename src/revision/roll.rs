//! Rolling updates: one change for several containers, a few at a time. Stops at the first container that
//! fails with the new limits, and rolls back all that have them.

use std::time::Duration;

use anyhow::{Result, anyhow};
use serde::Serialize;

use super::watch::{Verdict, Watch, settle};
use super::{ContainerRef, Loss, Made, Requester, Wanted, make, preview};
use crate::cgroup::change::Change;
use crate::container::state::Identity;
use crate::container::{ContainerId, Interrupted, Root};
use crate::error::{Refusal, line};
use crate::host::signals::{Signal, SignalQueue, Signals};

/// What to change, and how.
#[derive(Debug)]
pub struct Plan<'a> {
    pub ids: &'a [ContainerId],
    pub wanted: Wanted<'a>,
    pub by: Requester,
    /// How many containers are changed at a time; at least 1.
    pub step: usize,
    /// How long containers are watched after the change.
    pub settle: Duration,
    /// The percentage of time that a container may be stalled by memory or I/O pressure.
    pub most_pressure: f64,
}

/// A progress event; `Display` formats it as a line.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Event<'a> {
    /// The container has the new limits; without a revision if it had them already.
    Updated {
        id: &'a str,
        revision: Option<u64>,
        changes: &'a [Change],
    },
    /// The container was watched for the whole time, and neither failed nor stalled.
    Settled {
        id: &'a str,
    },
    Failed {
        id: &'a str,
        reason: &'a str,
    },
    Interrupted {
        reason: &'a str,
    },
    RolledBack {
        id: &'a str,
        to: u64,
        revision: Option<u64>,
        /// What the container has lost by the rollback.
        #[serde(skip_serializing_if = "Option::is_none")]
        loss: Option<&'a str>,
    },
    NotRolledBack {
        id: &'a str,
        reason: &'a str,
    },
    /// The last event: how many containers have the new limits, were rolled back, could not be rolled back,
    /// and were never changed.
    Summary {
        updated: usize,
        rolled_back: usize,
        not_rolled_back: usize,
        untouched: usize,
    },
}

impl std::fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Updated { id, revision: None, .. } => write!(f, "{id}: already has these limits"),
            Self::Updated { id, revision: Some(revision), changes } => {
                let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
                write!(f, "{id}: updated, revision {revision} ({})", changes.join(", "))
            }
            Self::Settled { id } => write!(f, "{id}: settled"),
            Self::Failed { id, reason } => write!(f, "{id}: failed: {reason}"),
            Self::Interrupted { reason } => write!(f, "interrupted: {reason}"),
            Self::RolledBack { id, to, revision, loss } => {
                match revision {
                    Some(revision) => {
                        write!(f, "{id}: rolled back to revision {to}, as revision {revision}")?;
                    }
                    None => write!(f, "{id}: already has the limits of revision {to}")?,
                }
                loss.map_or(Ok(()), |loss| write!(f, ", and {loss}"))
            }
            Self::NotRolledBack { id, reason } => write!(f, "{id}: not rolled back: {reason}"),
            Self::Summary { updated, rolled_back, not_rolled_back, untouched } => write!(
                f,
                "{updated} updated, {rolled_back} rolled back, {not_rolled_back} not rolled back, {untouched} untouched"
            ),
        }
    }
}

/// A container to change, with what tells it from a later one of the same name.
struct Member<'a> {
    id: &'a ContainerId,
    which: Identity,
}

/// Why the update stops.
enum Stop {
    /// This container failed.
    Failed(ContainerId, anyhow::Error),
    Interrupted(Signal),
}

/// Called with each event as it happens. It must not fail, nor delay the update once a signal is pending.
pub type Tell<'a> = dyn FnMut(&Event<'_>, &SignalQueue) + 'a;

/// Changes all containers, or none in the end.
///
/// # Errors
/// The first failure, or a signal that asks this process to terminate. The changed containers have their old
/// limits again, unless they have exited, have been replaced by others of the same name, or have been changed
/// by another update since; the message counts them.
pub fn roll(root: &Root, plan: &Plan<'_>, tell: &mut Tell<'_>) -> Result<()> {
    // Report errors that can be found in advance before anything is changed.
    let members = plan.ids.iter().map(|id| member(root, plan, id).map_err(|error| about(id, error)));
    let members: Vec<_> = members.collect::<Result<_>>()?;
    // From here on, a signal takes effect between two changes.
    let signals = Signals::block()?.interrupts()?;
    let rolling = Rolling { root, plan, signals };
    let mut tell = |event: &Event<'_>| tell(event, &rolling.signals);
    let mut done = Vec::new();
    let stopped =
        members.chunks(plan.step.max(1)).find_map(|batch| rolling.change(batch, &mut done, &mut tell).err());
    match stopped {
        None => {
            tell(&Event::Summary { updated: done.len(), rolled_back: 0, not_rolled_back: 0, untouched: 0 });
            Ok(())
        }
        Some(stop) => Err(rolling.stop(stop, done, &mut tell)),
    }
}

/// Checks that the container could be changed.
fn member<'a>(root: &Root, plan: &Plan<'_>, id: &'a ContainerId) -> Result<Member<'a>> {
    let (which, _) = preview(&ContainerRef::named(root, id), &plan.wanted)?;
    Ok(Member { id, which })
}

struct Rolling<'a> {
    root: &'a Root,
    plan: &'a Plan<'a>,
    signals: SignalQueue,
}

impl Rolling<'_> {
    /// Changes a batch of containers and watches them.
    fn change<'a>(
        &self,
        batch: &'a [Member<'a>],
        done: &mut Vec<(&'a Member<'a>, Made)>,
        tell: &mut dyn FnMut(&Event<'_>),
    ) -> Result<(), Stop> {
        let mut watches = Vec::new();
        for member in batch {
            let id = member.id;
            let failed = |error| Stop::failed(id, error);
            if let Some(signal) = self.signals.take().map_err(failed)? {
                return Err(Stop::Interrupted(signal));
            }
            // Before the change, so that nothing is missed.
            watches.push(self.root.load(id).and_then(|container| Watch::begin(&container)).map_err(failed)?);
            let made = self.make(member, &self.plan.wanted).map_err(failed)?;
            tell(&Event::Updated { id: id.as_str(), revision: made.revision, changes: &made.changes });
            done.push((member, made));
        }
        let verdict = settle(&mut watches, &self.signals, self.plan.settle, self.plan.most_pressure);
        let failed = |index: usize, error| match batch.get(index) {
            Some(member) => Err(Stop::failed(member.id, error)),
            None => Ok(()),
        };
        match verdict {
            Ok(Verdict::Settled) => {
                batch.iter().for_each(|member| tell(&Event::Settled { id: member.id.as_str() }));
                Ok(())
            }
            Ok(Verdict::Failed(index, problem)) => failed(index, anyhow!(problem)),
            Ok(Verdict::Interrupted(signal)) => Err(Stop::Interrupted(signal)),
            Err(error) => failed(0, error),
        }
    }

    /// Rolls back all of `done`, newest first, and returns the error.
    fn stop(
        &self,
        stop: Stop,
        done: Vec<(&Member<'_>, Made)>,
        tell: &mut dyn FnMut(&Event<'_>),
    ) -> anyhow::Error {
        let reason = stop.announce(tell);
        let mut changed = done.len();
        // This container has its old limits, but lost processes.
        if let Stop::Failed(id, error) = &stop {
            if let Some(loss) = error.downcast_ref::<Loss>() {
                changed += 1;
                tell(&Event::NotRolledBack { id: id.as_str(), reason: &loss.to_string() });
            }
        }
        let rolled_back = self.all_back(done, &reason, tell);
        let not_rolled_back = changed - rolled_back;
        let untouched = self.plan.ids.len() - changed;
        tell(&Event::Summary { updated: 0, rolled_back, not_rolled_back, untouched });
        let outcome =
            format!("{rolled_back} rolled back, {not_rolled_back} not rolled back, {untouched} untouched");
        match stop {
            Stop::Failed(id, error) => {
                about(&id, error).context(format!("rolling update stopped ({outcome})"))
            }
            Stop::Interrupted(signal) => anyhow!("rolling update interrupted by {signal} ({outcome})"),
        }
    }

    /// Returns how many were rolled back.
    fn all_back(
        &self,
        done: Vec<(&Member<'_>, Made)>,
        reason: &str,
        tell: &mut dyn FnMut(&Event<'_>),
    ) -> usize {
        let mut rolled_back = 0;
        for (member, made) in done.into_iter().rev() {
            let id = member.id.as_str();
            match self.back(member, &made, reason) {
                Ok((revision, loss)) => {
                    rolled_back += 1;
                    let loss = loss.map(|loss| loss.to_string());
                    tell(&Event::RolledBack { id, to: made.before, revision, loss: loss.as_deref() });
                }
                Err(error) => tell(&Event::NotRolledBack { id, reason: &line(&error) }),
            }
        }
        rolled_back
    }

    /// Rolls one container back; returns the new revision and what the container has lost. Another signal
    /// aborts waiting for a container that is locked.
    fn back(&self, member: &Member<'_>, made: &Made, reason: &str) -> Result<(Option<u64>, Option<Loss>)> {
        // Nothing was changed.
        if made.revision.is_none() {
            return Ok((None, None));
        }
        let wanted = Wanted::Rollback { to: Some(made.before), from: made.revision, reason: Some(reason) };
        let back = self.make(member, &wanted)?;
        Ok((back.revision, back.loss))
    }

    fn make(&self, member: &Member<'_>, wanted: &Wanted<'_>) -> Result<Made> {
        let Self { root, plan, signals } = self;
        let target = ContainerRef { root, id: member.id, only: Some(&member.which), signals: Some(signals) };
        make(&target, wanted, &plan.by)
    }
}

impl Stop {
    /// Reports why the update stops; returns that as the reason for the rollbacks.
    fn announce(&self, tell: &mut dyn FnMut(&Event<'_>)) -> String {
        match self {
            Self::Failed(id, error) => {
                let reason = line(error);
                tell(&Event::Failed { id: id.as_str(), reason: &reason });
                format!("{}: {reason}", id.as_str())
            }
            Self::Interrupted(signal) => {
                let reason = signal.to_string();
                tell(&Event::Interrupted { reason: &reason });
                format!("interrupted by {reason}")
            }
        }
    }

    fn failed(id: &ContainerId, error: anyhow::Error) -> Self {
        match error.downcast_ref() {
            Some(Interrupted(signal)) => Self::Interrupted(*signal),
            None => Self::Failed(id.clone(), error),
        }
    }
}

/// Adds the container's name, unless the message has it already.
fn about(id: &ContainerId, error: anyhow::Error) -> anyhow::Error {
    match error.is::<Refusal>() {
        true => error,
        false => error.context(format!("container {:?}", id.as_str())),
    }
}
