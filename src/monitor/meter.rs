//! Samples the resource usage of containers repeatedly.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::Result;

use super::{Rates, Sample, network};
use crate::cgroup;
use crate::container::state::Status;
use crate::container::{Container, ContainerId, Root};
use crate::error::{Refusal, line};

/// The containers to sample, and their last samples.
///
/// Between samples, it holds no descriptors except the pidfds of named containers: there may be more
/// containers than a process may have open files.
#[derive(Debug)]
pub struct Meter<'a> {
    root: &'a Root,
    /// The named containers that have not stopped, with pidfds of their init processes; `None` to sample all
    /// running ones.
    named: Option<BTreeMap<ContainerId, OwnedFd>>,
    /// The containers known so far, with their last sample, if any.
    known: BTreeMap<ContainerId, (Container, Option<Sample>)>,
    /// Containers that have already been complained about.
    unreadable: BTreeSet<ContainerId>,
    complaints: Vec<String>,
}

impl<'a> Meter<'a> {
    /// Samples the containers named by `ids` until they stop, including created ones. Without `ids`, samples
    /// all running or paused containers of `root`, including those started later. A name stands for the
    /// container that has it now: one created under the same name later is not included.
    ///
    /// # Errors
    /// If a named container does not exist or has stopped.
    pub fn new(root: &'a Root, ids: &[ContainerId]) -> Result<Self> {
        let (mut named, mut known) = (BTreeMap::new(), BTreeMap::new());
        for id in ids {
            let mut container = root.load(id)?;
            let Some(init) = container.init()? else {
                return Err(Refusal::NotRunning(id.as_str().to_owned()).into());
            };
            named.insert(id.clone(), init);
            container.let_go();
            known.insert(id.clone(), (container, None));
        }
        Ok(Self {
            root,
            named: (!ids.is_empty()).then_some(named),
            known,
            unreadable: BTreeSet::new(),
            complaints: Vec::new(),
        })
    }

    /// Whether all named containers have stopped.
    pub fn is_over(&self) -> bool {
        self.named.as_ref().is_some_and(BTreeMap::is_empty)
    }

    /// Pidfds that become readable when a named container stops.
    pub fn ends(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.named.iter().flatten().map(|(_, init)| init.as_fd())
    }

    /// Returns the errors since the last call, at most one per container.
    pub fn complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }

    /// Samples all containers now and returns the samples sorted by name.
    ///
    /// # Errors
    /// If the container root cannot be read. A container that cannot be read is left out, with a complaint.
    pub fn look(&mut self) -> Result<Vec<Sample>> {
        let ids: Vec<_> = match &self.named {
            Some(named) => named.keys().cloned().collect(),
            None => self.root.ids()?,
        };
        let mut before = std::mem::take(&mut self.known);
        let mut all = Vec::new();
        for id in ids {
            let seen = match before.remove(&id) {
                None => self.load(&id),
                Some((container, seen)) => match look(self.renew(&id, container), seen.as_ref()) {
                    // There may be a new container of the same name.
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
                    self.known.insert(id, (container, Some(seen)));
                }
                // Being created, or deleted meanwhile.
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

    fn load(&self, id: &ContainerId) -> Result<(Container, Sample)> {
        look(self.root.load(id)?, None)
    }

    /// Reloads a container whose record says that it is being created: the record is replaced once it has
    /// been created. A different container has a different init process.
    fn renew(&self, id: &ContainerId, container: Container) -> Container {
        let init = |of: &Container| (of.state.init_process_pid, of.state.init_process_start);
        if !container.state.creating {
            return container;
        }
        self.root.load(id).ok().filter(|now| init(now) == init(&container)).unwrap_or(container)
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

/// Takes a sample. The status is read last: if the container is alive then, it was alive during the sample.
fn look(mut container: Container, before: Option<&Sample>) -> Result<(Container, Sample)> {
    let state = &container.state;
    let has_network = state.namespaces & libc::CLONE_NEWNET != 0;
    let usage = state.cgroup().and_then(cgroup::usage);
    let network = if has_network { network::transfers(state.init_process_pid) } else { None };
    let mut seen = Sample {
        id: state.id.clone(),
        status: container.status()?,
        pid: state.init_process_pid,
        usage,
        network,
        rates: Rates::default(),
    };
    seen.rates = before.map(|before| Rates::between(before, &seen)).unwrap_or_default();
    container.let_go();
    Ok((container, seen))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use serde_json::{Value, json};

    use super::*;
    use crate::container::state;

    /// An idle process, killed and reaped on drop.
    struct Init(Child);

    impl Init {
        fn new() -> Self {
            Self(Command::new("sleep").arg("1000").spawn().unwrap())
        }

        fn end(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    impl Drop for Init {
        fn drop(&mut self) {
            self.end();
        }
    }

    struct Fixture {
        directory: tempfile::TempDir,
        root: Root,
        id: ContainerId,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            std::fs::create_dir(directory.path().join("a")).unwrap();
            Self { root: Root::explicit(directory.path()).unwrap(), directory, id: "a".parse().unwrap() }
        }

        fn record(&self, init: &Init, changes: &[(&str, Value)]) {
            let pid = i32::try_from(init.0.id()).unwrap();
            let mut record = json!({
                "id": "a", "init_process_pid": pid,
                "init_process_start": crate::host::process::process_stat(pid).unwrap().unwrap().start,
                "created": "", "ociVersion": "1.3.0", "bundle": "/", "rootfs": "/", "annotations": {}, "owner": 0,
                "rootless": false, "cgroup_manager": "disabled", "cgroup_paths": {}, "namespace_paths": {},
                "private_pid_namespace": true, "config": {"rootfs": "/", "labels": []},
            });
            for (name, value) in changes {
                record[*name] = value.clone();
            }
            std::fs::write(self.directory.path().join("a").join(state::FILE), record.to_string()).unwrap();
        }

        fn meter(&self, is_named: bool) -> Meter<'_> {
            Meter::new(&self.root, if is_named { std::slice::from_ref(&self.id) } else { &[] }).unwrap()
        }
    }

    fn pids(meter: &mut Meter<'_>) -> Vec<i32> {
        meter.look().unwrap().iter().map(|seen| seen.pid).collect()
    }

    #[test]
    fn another_of_the_same_name_is_not_the_one_that_was_named() {
        for looks_before in [false, true] {
            let (fixture, mut first, second) = (Fixture::new(), Init::new(), Init::new());
            fixture.record(&first, &[]);
            let (mut named, mut all) = (fixture.meter(true), fixture.meter(false));
            if looks_before {
                assert_eq!(pids(&mut named), pids(&mut all));
            }
            first.end();
            fixture.record(&second, &[]);
            assert_eq!(pids(&mut named), [0_i32; 0]);
            assert!(named.is_over() && named.ends().count() == 0);
            assert_eq!(pids(&mut all), [i32::try_from(second.0.id()).unwrap()]);
        }
    }

    #[test]
    fn one_that_was_in_the_making_runs_as_soon_as_it_does() {
        let (fixture, init) = (Fixture::new(), Init::new());
        fixture.record(&init, &[("creating", true.into())]);
        let mut meter = fixture.meter(true);
        assert_eq!(meter.look().unwrap()[0].status, Status::Creating);
        fixture.record(&init, &[]);
        assert_eq!(meter.look().unwrap()[0].status, Status::Running);
        assert!(!meter.is_over());
    }
}
