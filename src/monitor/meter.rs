//! Looks at containers again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::Result;

use super::{Rates, Seen, network};
use crate::cgroup;
use crate::container::state::Status;
use crate::container::{Container, ContainerId, Root};
use crate::error::{Refusal, line};

/// Which containers are looked at, and what the last look has shown.
///
/// Between two looks it holds no descriptor of a container, of which there can be more than a process may have open, but of
/// those that were named.
#[derive(Debug)]
pub struct Meter<'a> {
    root: &'a Root,
    /// Those that were named and have not ended, with their init processes; `None` if all that run are meant.
    named: Option<BTreeMap<ContainerId, OwnedFd>>,
    /// With what the last look has shown, if there was one.
    known: BTreeMap<ContainerId, (Container, Option<Seen>)>,
    /// Those about which there has been a complaint.
    unreadable: BTreeSet<ContainerId>,
    complaints: Vec<String>,
}

impl<'a> Meter<'a> {
    /// All containers of `root` that run, whenever they begin to, paused ones included; or, if there are any, those named by `ids`
    /// until they end, created ones included. Who has named one means that one: another of the same name, made after it has ended
    /// or has been deleted, is none of those that were named.
    ///
    /// # Errors
    /// One that is named is not there, or has ended.
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
                Some((container, seen)) => match look(self.renew(&id, container), seen.as_ref()) {
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
                    self.known.insert(id, (container, Some(seen)));
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

    /// As long as a container is in the making, its record says so; what comes in its place is of the same init process.
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

/// Reads first and asks for the status afterwards: what is alive then is what was read.
fn look(mut container: Container, before: Option<&Seen>) -> Result<(Container, Seen)> {
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
    container.let_go();
    Ok((container, seen))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use serde_json::{Value, json};

    use super::*;
    use crate::container::state;

    /// A process that does nothing, ended and waited for on drop.
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
