//! The `state.json` of a new container.

use std::path::Path;
use std::time::SystemTime;

use super::{Keyring, Request};
use crate::cgroup::{Cgroup, intel_rdt};
use crate::container::state::{Config, State};
use crate::host::clock;
use crate::plan::Plan;
use crate::plan::linux::namespaces;

/// The state without pid and start time.
pub(super) struct Record(State);

impl Record {
    pub(super) fn of(
        plan: &Plan,
        request: &Request<'_>,
        cgroup: &Cgroup,
        rdt: Option<&intel_rdt::Member>,
    ) -> Self {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut labels = vec![format!("bundle={}", plan.bundle.display())];
        labels.extend(plan.annotations.iter().map(|(key, value)| format!("{key}={value}")));
        let joined = plan.namespaces.join.iter();
        let joins_pid = joined.clone().any(|join| join.kind == libc::CLONE_NEWPID);
        Self(State {
            id: request.id.as_str().to_owned(),
            init_process_pid: 0,
            init_process_start: 0,
            created: clock::rfc3339_nanos(SystemTime::now()),
            oci_version: plan.oci_version.clone(),
            bundle: text(&plan.bundle),
            rootfs: text(&plan.rootfs),
            annotations: plan.annotations.clone(),
            owner: rustix::process::getuid().as_raw(),
            rootless: !rustix::process::geteuid().is_root(),
            cgroup_manager: match (cgroup.path(), cgroup.unit()) {
                (None, _) => "disabled",
                (_, None) => "cgroupfs",
                (_, Some(_)) => "systemd",
            }
            .into(),
            systemd: cgroup.unit().cloned(),
            cgroup_paths: cgroup.path().map(|path| (String::new(), text(path))).into_iter().collect(),
            cgroup_id: cgroup.id().filter(|_| cgroup.unit().is_none()),
            namespace_paths: joined
                .filter_map(|join| {
                    let (_, name, _) = namespaces::LINKS.iter().find(|(kind, _, _)| *kind == join.kind)?;
                    Some(((*name).to_owned(), text(&join.path)))
                })
                .collect(),
            private_pid_namespace: plan.namespaces.is_new(libc::CLONE_NEWPID),
            namespaces: plan.namespaces.kinds(),
            keyring: request.keyring == Keyring::New,
            // Nothing is known about processes that are in a joined pid namespace already.
            may_trace: plan.process.capabilities.may_trace() || joins_pid,
            config: Config { rootfs: text(&plan.rootfs), labels },
            resources: None,
            history: None,
            intel_rdt_path: rdt.map(|rdt| rdt.class.clone()),
            intel_rdt_own: rdt.is_some_and(|rdt| rdt.is_own),
            intel_rdt_mon_path: rdt.and_then(|rdt| rdt.monitored.clone()),
            creating: plan.hooks.meets(),
            hooks: plan.hooks.later(),
        })
    }

    pub(super) fn state(&self) -> &State {
        &self.0
    }

    pub(super) fn of_process(&self, pid: i32, start: u64) -> State {
        let mut state = self.0.clone();
        state.init_process_pid = pid;
        state.init_process_start = start;
        for (_, name, link) in namespaces::LINKS {
            state.namespace_paths.entry(name.to_owned()).or_insert_with(|| format!("/proc/{pid}/ns/{link}"));
        }
        state
    }
}
