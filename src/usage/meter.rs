//! Looks at containers again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::Result;

use super::{Rates, Seen, network};
use crate::cgroup;
use crate::container::{Container, ContainerId, Root};
use crate::error::{Refusal, line};
use crate::state::Status;

/// Which containers are looked at, and what the last look has shown.
///
/// Between two looks it holds no descriptor of a container, of which there can be more than a process may have open, but of
/// those that were named.
#[derive(Debug)]
pub struct Meter<'a> {
    root: &'a Root,
    /// Those that were named and have not ended, with their init processes; `None` if all that run are meant.
    named: Option<BTreeMap<ContainerId, OwnedFd>>,
    known: BTreeMap<ContainerId, (Container, Seen)>,
    /// Those about which there has been a complaint.
    unreadable: BTreeSet<ContainerId>,
    complaints: Vec<String>,
}

impl<'a> Meter<'a> {
    /// All containers of `root` that run, whenever they begin to, paused ones included; or, if there are any, those named by `ids`
    /// until they end, created ones included.
    ///
    /// # Errors
    /// One that is named is not there, or has ended.
    pub fn new(root: &'a Root, ids: &[ContainerId]) -> Result<Self> {
        let mut named = BTreeMap::new();
        for id in ids {
            let Some(init) = root.load(id)?.init()? else {
                return Err(Refusal::NotRunning(id.as_str().to_owned()).into());
            };
            named.insert(id.clone(), init);
        }
        Ok(Self {
            root,
            named: (!ids.is_empty()).then_some(named),
            known: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            complaints: Vec::new(),
        })
    }

    /// Whether all that were named have ended.
    pub fn is_over(&self) -> bool {
        self.named.as_ref().is_some_and(BTreeMap::is_empty)
    }

    /// Descriptors that become readable when one of those that were named ends.
    pub fn ends(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.named.iter().flatten().map(|(_, init)| init.as_fd())
    }

    /// What could not be looked at since this was asked last, each container once.
    pub fn complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }

    /// Looks at all of them now; in the order of their names.
    ///
    /// # Errors
    /// If the container root cannot be read. A container that cannot is left out, with a complaint.
    pub fn look(&mut self) -> Result<Vec<Seen>> {
        let ids: Vec<_> = match &self.named {
            Some(named) => named.keys().cloned().collect(),
            None => self.root.ids()?,
        };
        let mut before = std::mem::take(&mut self.known);
        let mut all = Vec::new();
        for id in ids {
            let seen = match before.remove(&id) {
                None => self.load(&id),
                Some((container, seen)) => match look(container, Some(&seen)) {
                    // The one of the same name that there may be by now is another.
                    Ok((container, now)) if now.status == Status::Stopped && self.named.is_none() => {
                        drop(container);
                        self.load(&id)
                    }
                    looked => looked,
                },
            };
            match seen {
                Ok((_, seen)) if !self.is_wanted(seen.status) => self.forget(&id),
                Ok((container, seen)) => {
                    all.push(seen.clone());
                    self.known.insert(id, (container, seen));
                }
                // In the making, or gone since.
                Err(error) if matches!(error.downcast_ref(), Some(Refusal::NoSuchContainer(_))) => {
                    self.forget(&id);
                }
                Err(error) => {
                    if self.unreadable.insert(id.clone()) {
                        self.complaints.push(format!("load container {}: {}", id.as_str(), line(&error)));
                    }
                    self.forget(&id);
                }
            }
        }
        Ok(all)
    }

    fn load(&self, id: &ContainerId) -> Result<(Container, Seen)> {
        look(self.root.load(id)?, None)
    }

    fn is_wanted(&self, status: Status) -> bool {
        match status {
            Status::Running | Status::Paused => true,
            Status::Created | Status::Creating => self.named.is_some(),
            Status::Stopped => false,
        }
    }

    fn forget(&mut self, id: &ContainerId) {
        if let Some(named) = &mut self.named {
            named.remove(id);
        }
    }
}

/// Reads first and asks for the status afterwards: what is alive then is what was read.
fn look(container: Container, before: Option<&Seen>) -> Result<(Container, Seen)> {
    let state = &container.state;
    let has_network = state.namespaces & libc::CLONE_NEWNET != 0;
    let usage = state.cgroup().and_then(cgroup::usage);
    let network = if has_network { network::transfers(state.init_process_pid) } else { None };
    let mut seen = Seen {
        id: state.id.clone(),
        status: container.status()?,
        pid: state.init_process_pid,
        usage,
        network,
        rates: Rates::default(),
    };
    seen.rates = before.map(|before| Rates::between(before, &seen)).unwrap_or_default();
    Ok((container, seen))
}
