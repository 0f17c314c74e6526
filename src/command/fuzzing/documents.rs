//! Documents from outside: config.json, process.json, the state file, and mount options.

use std::path::{Path, PathBuf};

use anyhow::Result;
use oci_spec::runtime::Spec;
use serde_json::json;

use super::promised;
use crate::bundle::document;
use crate::cgroup::Driver;
use crate::container::state::{State, Status};
use crate::error::Pointer;
use crate::host::environment::SystemdInstance;
use crate::init::step::{Ended, Part};
use crate::plan::{Changes, ExecPlan, Plan, Wanted, mounts};
use crate::program::{ChildInputs, Program};
use crate::revision::History;
use crate::sys::Errno;

const CONFIG: &[&str] = &["config.json"];

/// A config.json, up to the init process's program.
pub(super) fn config(text: &[u8]) {
    let ((spec, _), (again, _)) = match (document::spec(text), document::spec(text)) {
        (Ok(spec), Ok(again)) => (spec, again),
        (Err(error), Err(again)) => {
            let line = promised(&error, CONFIG);
            return assert_eq!(line, promised(&again, CONFIG), "decoded twice");
        }
        (first, second) => panic!("once {first:?}, and then {second:?}"),
    };
    is_kept(&spec);
    for driver in [Driver::Cgroupfs, Driver::Systemd(SystemdInstance::System)] {
        // Decoded a second time, maps may have another order.
        let plan = same(planned(&spec, driver), planned(&again, driver), CONFIG);
        let Some(plan) = plan else { continue };
        for warning in plan.mounts.warnings.iter().chain(&plan.cgroup.warnings) {
            assert!(!warning.chars().any(char::is_control), "{warning:?}");
        }
        match Program::new(plan, ChildInputs::default()) {
            Ok(program) => explains(&program),
            Err(error) => drop(promised(&error, CONFIG)),
        }
    }
}

fn planned(spec: &Spec, driver: Driver) -> Result<Plan> {
    Plan::with_rootfs(spec, Path::new("/bundle"), PathBuf::from("/bundle/rootfs"), "id", driver)
}

/// Returns the first of two results that must be equal; `None` if both are errors.
fn same<T: std::fmt::Debug>(first: Result<T>, second: Result<T>, documents: &[&str]) -> Option<T> {
    match (first, second) {
        (Ok(first), Ok(second)) => {
            let (one, other) = (format!("{first:?}"), format!("{second:?}"));
            assert!(one == other, "decided differently:\n{one}\n{other}");
            Some(first)
        }
        (Err(first), Err(second)) => {
            assert_eq!(promised(&first, documents), promised(&second, documents), "refused differently");
            None
        }
        (first, second) => panic!("decided differently: {:?}, {:?}", first.err(), second.err()),
    }
}

/// Asserts that what is written to the state directory is read back unchanged.
fn is_kept(spec: &Spec) {
    let text = document::keep(spec).unwrap();
    if let Some(process) = spec.process() {
        let (excerpt, _) = document::excerpt(&text).unwrap();
        assert_eq!(&excerpt.process, process, "kept for exec");
    }
    let linux = spec.linux().as_ref();
    if let Some(resources) = linux.and_then(|linux| linux.resources().as_ref()) {
        let text = serde_json::to_vec(resources).unwrap();
        let read = document::resources(&text, &Pointer::of("state.json")).unwrap();
        assert_eq!(&read, resources, "kept for update");
    }
}

/// Asserts that there is an error message for every step.
fn explains(program: &Program) {
    for step in 0..=program.steps.len() {
        let step = u32::try_from(step).unwrap();
        let parts = [Part::Whole, Part::Source, Part::Target, Part::OnProc, Part::Item(0), Part::Item(1)];
        for part in parts.into_iter().chain([Part::Item(u16::MAX), Part::Hook(Ended::Exited(1))]) {
            promised(&program.explain(step, Errno::PERM, part, b"\x1b[2J"), &[]);
        }
        for errno in [Errno::NOENT, Errno::INVAL, Errno::ACCESS, Errno::BUSY, Errno::NODEV] {
            promised(&program.explain(step, errno, Part::Whole, b""), &[]);
        }
    }
}

/// The container that a process is added to.
const CONTAINER: &[u8] =
    br#"{"process":{"args":["init"],"env":["PATH=/bin"],"cwd":"/","user":{"uid":1,"gid":2},
    "rlimits":[{"type":"RLIMIT_CORE","soft":5,"hard":5}],"capabilities":{"bounding":["CAP_KILL"]}}}"#;

/// A process.json.
pub(super) fn process(text: &[u8]) {
    let planned = || ExecPlan::new(CONTAINER, Wanted::File(text.to_vec()), None);
    same(planned(), planned(), &["process.json"]);
}

/// The parts of a config.json that `create` keeps for `exec`.
pub(super) fn excerpt(text: &[u8]) {
    let planned = || {
        let changes = Changes { args: vec!["sh".into()], env: vec!["A=b".into()], ..Changes::default() };
        ExecPlan::new(text, Wanted::Like(Box::new(changes)), None)
    };
    same(planned(), planned(), CONFIG);
}

/// A state file.
pub(super) fn state(text: &[u8]) {
    let state = match serde_json::from_slice::<State>(text) {
        Ok(state) => state,
        Err(error) => return drop(promised(&error.into(), &[])),
    };
    let written = serde_json::to_vec(&state).unwrap();
    let read: State = serde_json::from_slice(&written).unwrap();
    assert_eq!(serde_json::to_vec(&read).unwrap(), written);
    assert_eq!((read.identity(), read.cgroup()), (state.identity(), state.cgroup()));
    for status in [Status::Running, Status::Stopped] {
        let text = state.text(status).unwrap();
        assert!(serde_json::from_slice::<serde_json::Value>(&text).is_ok(), "{text:?}");
    }
    match History::of(&state) {
        Ok(history) => {
            let numbers: Vec<_> = history.revisions().iter().map(|revision| revision.revision).collect();
            assert!(numbers.is_sorted() && numbers.last() == Some(&history.current()), "{numbers:?}");
        }
        Err(error) => drop(promised(&error, &[])),
    }
}

/// A mount: type, source and destination on a line each, then its options.
pub(super) fn mount_options(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.split('\n');
    let [kind, source, destination] = [(); 3].map(|()| lines.next().unwrap_or_default());
    let mount = json!({"type": kind, "source": source, "destination": destination, "options": lines.collect::<Vec<_>>()});
    let mounts = [serde_json::from_value(mount).unwrap()];
    let around = mounts::MountContext {
        bundle: Path::new("/bundle"),
        rootfs: Path::new("/bundle/rootfs"),
        mount_namespace: true,
        label: None,
    };
    let planned = || mounts::plan(&mounts, around, &Pointer::root().field("mounts"));
    same(planned(), planned(), &["config.json: /mounts/0"]);
}
