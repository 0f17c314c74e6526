//! The systemd driver: the container's cgroup is that of a transient scope, which systemd creates in the
//! slice that the bundle names.
//!
//! A scope needs an existing process, but the init process is to be cloned into a cgroup with all limits in
//! force. So an idle placeholder process is in the scope until then. It stays even longer, because systemd
//! removes the cgroup when its last process exits, and with it the kernel's counters, which explain failures:
//! until only the start of the program is left ([`Scope::release`]). The rest is the same for both drivers:
//! the scope is delegated, so the runtime may write to its cgroup. systemd gets all limits that it has
//! properties for, since it rewrites them at any time; see `properties.rs`.
//!
//! Device rules are not passed to systemd: with `DevicePolicy=auto` the scope has none, so systemd attaches
//! no filter on `daemon-reload`, and leaves ours alone, since it detaches only its own. A second filter of
//! systemd's could only forbid what the rules allow, including devices that others have added since, such as
//! GPUs.
//!
//! Sources: systemd's "Control Group APIs and Delegation"; runc's docs/systemd.md.

mod annotations;
mod manager;
mod names;
mod properties;

use crate::host::environment::{Buses, SystemdInstance};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use self::manager::Manager;
use self::names::Names;
use self::properties::Property;
use super::fs::Mount;
use super::resources::Limits;
use super::{Destination, control_file, removal};
use crate::error::{Hint, Pointer, line};
use crate::host::dbus::{Address, Value};
use crate::host::placeholder::Placeholder;
use crate::host::signals::Signals;

const PIDS_MAX: &str = "pids.max";

/// How to reach systemd when creating a scope.
#[derive(Clone, Copy, Debug)]
pub struct ScopeRequest<'a> {
    pub buses: &'a Buses,
    /// Signals that abort waiting for systemd.
    pub signals: Option<&'a Signals>,
}

/// The unit of a container, as recorded in `state.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    pub name: String,
    pub slice: String,
    /// The inode of its cgroup, which tells it from a later one of the same name.
    cgroup_id: u64,
    /// The addresses of its manager; the first one that replies is used.
    buses: Vec<String>,
}

impl Unit {
    fn manager(&self) -> Result<Manager> {
        let buses: Vec<_> = self.buses.iter().map(|bus| Address::list(bus.as_ref())).collect();
        Manager::reach(buses.concat())
    }

    /// Whether the cgroup at `path` belongs to this unit, not to a later one of the same name.
    pub fn has(&self, path: &Path) -> bool {
        cgroup_id(path).is_ok_and(|id| id == self.cgroup_id)
    }

    /// Stops the unit with everything in it, and unloads it from systemd.
    pub fn stop(&self) -> Result<()> {
        self.manager()?.stop(&self.name)
    }

    /// Resets the unit if it has failed, which does not affect a later one of the same name. Errors are
    /// ignored: a manager that cannot be reached keeps no units.
    pub fn forget(&self) {
        if let Ok(mut manager) = self.manager() {
            manager.reset_failed(&self.name);
        }
    }

    /// Moves a process into the unit.
    pub fn attach(&self, pid: i32) -> Result<()> {
        self.manager()?.attach(&self.name, pid)
    }
}

/// The plan for a container's scope.
#[derive(Debug)]
pub(super) struct ScopePlan {
    names: Names,
    whose: SystemdInstance,
    properties: Vec<Property>,
}

impl ScopePlan {
    /// Plans name, slice and properties of the scope. Rounds `limits` to what systemd supports.
    pub(super) fn plan<'a>(
        path: Option<&Path>,
        id: &str,
        whose: SystemdInstance,
        annotations: impl Iterator<Item = (&'a String, &'a String)>,
        limits: &mut Limits,
    ) -> Result<Self> {
        let root = Pointer::root();
        let slice = match whose {
            SystemdInstance::System => "system.slice",
            SystemdInstance::User => "user.slice",
        };
        let names = Names::plan(path, id, slice, &root.field("linux").field("cgroupsPath"))?;
        properties::round(limits);
        let own = |name: &'static str, value| Property::new(name, value, Pointer::root());
        let mut all = vec![
            own("Description", Value::Text(format!("container {id}"))),
            Property::new("Slice", Value::text(&*names.slice), root.field("linux").field("cgroupsPath")),
            own("Delegate", Value::Bool(true)),
            own("DefaultDependencies", Value::Bool(false)),
            own("CPUAccounting", Value::Bool(true)),
            own("IOAccounting", Value::Bool(true)),
            own("MemoryAccounting", Value::Bool(true)),
            own("TasksAccounting", Value::Bool(true)),
            own("DevicePolicy", Value::text("auto")),
        ];
        all.extend(properties::oom_policy(limits));
        all.extend(annotations::plan(annotations, &root.field("annotations"))?);
        all.extend(properties::plan(limits));
        Ok(Self { names, whose, properties: all })
    }

    /// Creates the scope. `before` gets the expected cgroup path first.
    pub(super) fn start(
        &self,
        asking: ScopeRequest<'_>,
        mount: &Mount,
        before: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Scope> {
        let addresses = asking.buses.addresses(self.whose, rustix::process::geteuid().as_raw());
        let interrupts = asking.signals.map(Signals::interrupts).transpose()?;
        let mut manager = Manager::connect(addresses.clone(), interrupts)?;
        let unit = Unit {
            name: self.names.unit.clone(),
            slice: self.names.slice.clone(),
            cgroup_id: 0,
            buses: addresses.iter().map(|address| address.as_str().to_owned()).collect(),
        };
        let root = manager.control_group()?;
        let path = mount.path_of(&Path::new(root.trim_start_matches('/')).join(self.names.place()));
        before(&path)?;
        let holder = Placeholder::start(0, None).context("start a process for the scope")?;
        // The OOM killer is to kill the container's process, not this one. If this is not permitted, that is
        // still likely, since this one is smaller.
        let _ = std::fs::write(format!("/proc/{}/oom_score_adj", holder.pid()), "-1000");
        let mut properties = self.properties.clone();
        retain_known(&mut properties, &mut manager)?;
        let pids = Value::Array("u".into(), vec![Value::Uint32(holder.pid().unsigned_abs())]);
        properties.push(Property::new("PIDs", pids, Pointer::root()));
        let pid = holder.pid();
        let name = unit.name.clone();
        let place = || {
            let path = Destination::of_process(pid)?.path;
            Ok::<_, anyhow::Error>(Some(path).filter(|path| path.ends_with(&name)))
        };
        let mut scope =
            Scope { unit, path, manager, holder: Some(holder), pids: None, is_apart: false, keep: false };
        let started = scope.manager.start(&name, &properties, || Ok(place()?.is_some()));
        // The actual cgroup: a systemd inside a container may use another root.
        match (started, place()) {
            (started, Ok(Some(path))) => {
                scope.unit.cgroup_id =
                    cgroup_id(&path).with_context(|| format!("stat {}", path.display()))?;
                scope.path = path;
                started.map(|()| scope)
            }
            (started, place) => {
                // The unit may be someone else's, so it is not stopped. If ours is still to be created, it
                // will not be: systemd creates no scope for a process that is gone.
                scope.keep = true;
                scope.holder = None;
                scope.manager.clean_up(started.as_ref().is_err_and(manager::is_unanswered));
                scope.manager.reset_failed(&name);
                started?;
                place?;
                bail!("unit {name:?} was started, but process {pid} is not in it")
            }
        }
    }
}

fn cgroup_id(path: &Path) -> Result<u64, rustix::io::Errno> {
    rustix::fs::stat(path).map(|stat| stat.st_ino)
}

/// Removes properties that this version of systemd does not know. Asks for the version only if there are any
/// that depend on it.
fn retain_known(properties: &mut Vec<Property>, manager: &mut Manager) -> Result<()> {
    if properties.iter().any(|property| property.since > 0) {
        let version = manager.version()?;
        properties.retain(|property| property.since <= version);
    }
    Ok(())
}

/// A scope created by systemd, kept alive by a placeholder process. Dropping it stops the scope, unless kept.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) unit: Unit,
    pub(super) path: PathBuf,
    manager: Manager,
    /// The placeholder; `None` once the container's first process has been set up.
    holder: Option<Placeholder>,
    /// The wanted pids.max, while the placeholder counts as one more process.
    pids: Option<String>,
    /// Whether the container's first process was cloned outside, and systemd moves it in.
    is_apart: bool,
    pub(super) keep: bool,
}

impl Scope {
    /// Returns the value to write instead while the placeholder counts as a process, too.
    pub(super) fn meanwhile(&mut self, file: &str, value: &str) -> Option<String> {
        if file != PIDS_MAX {
            return None;
        }
        // Of several values the last one counts; "max" needs no change.
        let one_more = one_more(value);
        self.pids = one_more.as_ref().map(|_| value.to_owned());
        one_more
    }

    /// Notes that only systemd can move a process into the scope.
    pub(super) fn isolate(&mut self) {
        self.is_apart = true;
    }

    /// Has systemd move the process into the scope, unless it was cloned into it.
    pub(super) fn attach(&self, pid: i32) -> Result<()> {
        if self.is_apart { self.unit.attach(pid) } else { Ok(()) }
    }

    /// Stops the placeholder, and sets the final pids.max.
    pub(super) fn release(&mut self, dir: &OwnedFd) -> Result<()> {
        // Waits for it to exit, so that it no longer counts.
        self.holder = None;
        let Some(pids) = self.pids.take() else { return Ok(()) };
        // A hook may have set another value.
        if control_file::read(dir.as_fd(), PIDS_MAX).ok().as_deref().map(str::trim)
            != one_more(&pids).as_deref()
        {
            return Ok(());
        }
        control_file::write(dir.as_fd(), PIDS_MAX, &pids)
            .with_context(|| format!("write {pids:?} to {}/pids.max", self.path.display()))
    }
}

fn one_more(value: &str) -> Option<String> {
    let number = value.trim().parse::<u64>().ok()?;
    Some(number.checked_add(1)?.to_string())
}

impl Drop for Scope {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        self.holder = None;
        self.manager.clean_up(false);
        // Once it is gone, its name may belong to another unit.
        if self.unit.has(&self.path) {
            // An error here must not hide the original one.
            let _ = removal::kill(&self.path);
            let _ = self.manager.stop(&self.unit.name);
        } else {
            self.manager.reset_failed(&self.unit.name);
        }
        if self.unit.has(&self.path) {
            let _ = removal::remove(&self.path);
        }
    }
}

/// A change of unit properties that can be undone.
#[derive(Debug)]
pub(super) struct UnitChange {
    unit: Unit,
    /// The old values.
    before: Vec<Property>,
}

impl UnitChange {
    /// Sets the properties for `limits`.
    ///
    /// # Errors
    /// systemd's reply; nothing has changed then. If it does not reply, it may still make the change later,
    /// so the old values are set as well, which it handles after that.
    pub(super) fn apply(unit: &Unit, limits: &Limits) -> Result<Self> {
        let after = properties::plan(limits);
        match after.is_empty() {
            true => Ok(Self { unit: unit.clone(), before: Vec::new() }),
            false => Self::tell(&mut unit.manager()?, unit, after),
        }
    }

    fn tell(manager: &mut Manager, unit: &Unit, mut after: Vec<Property>) -> Result<Self> {
        retain_known(&mut after, manager)?;
        let before = manager.properties(&unit.name, &after)?;
        match manager.set_properties(&unit.name, &after) {
            Ok(()) => Ok(Self { unit: unit.clone(), before }),
            Err(error) if manager::is_unanswered(&error) => {
                manager.clean_up(manager::is_timeout(&error));
                Err(match manager.set_properties(&unit.name, &before) {
                    Err(undo) if !manager::is_timeout(&undo) => error.context(Hint(
                        "set the limits in systemd".to_owned(),
                        format!(
                            "systemd may keep the new limits, as restoring the old ones failed: {}",
                            line(&undo)
                        ),
                    )),
                    // The request to restore is queued: systemd handles it when it replies again.
                    _ => error,
                })
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn undo(&mut self) -> Result<()> {
        match self.before.as_slice() {
            [] => Ok(()),
            before => self.unit.manager()?.set_properties(&self.unit.name, before),
        }
    }

    pub(super) fn forget(&mut self) {
        self.before.clear();
    }
}

/// Rounds the limits to what systemd supports.
pub(super) fn round(limits: &mut Limits) {
    properties::round(limits);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::resources;
    use crate::host::dbus::fake::{Call, Fake, Reply};

    #[test]
    fn a_manager_is_asked_directly_before_a_bus_is() {
        let buses = Buses {
            runtime_dir: Some("/run/user/1".into()),
            session: Some("unix:path=/tmp/bus,guid=1".into()),
            system: None,
        };
        let addresses = |buses: &Buses, whose, uid| {
            buses.addresses(whose, uid).iter().map(|bus| bus.as_str().to_owned()).collect::<Vec<_>>()
        };
        let expected = [
            "unix:path=/run/user/1/systemd/private",
            "unix:path=/tmp/bus,guid=1",
            "unix:path=/run/user/1/bus",
        ];
        assert_eq!(addresses(&buses, SystemdInstance::User, 1), expected);
        let expected = ["unix:path=/run/systemd/private", "unix:path=/run/dbus/system_bus_socket"];
        assert_eq!(addresses(&buses, SystemdInstance::System, 0), expected);
        let expected = ["unix:path=/run/user/1000/systemd/private", "unix:path=/run/user/1000/bus"];
        assert_eq!(addresses(&Buses::default(), SystemdInstance::User, 1000), expected);
        assert_eq!(addresses(&Buses::default(), SystemdInstance::User, 0), [""; 0]);
        let session = Buses { session: Some("unix:path=/b".into()), ..Buses::default() };
        assert_eq!(addresses(&session, SystemdInstance::User, 1000), ["unix:path=/b"]);
    }

    #[test]
    fn limits_come_after_annotations_and_have_the_last_word() {
        let json = r#"{"pids": {"limit": 7}, "unified": {"memory.oom.group": "1"}}"#;
        let mut limits = resources::plan(&serde_json::from_str(json).unwrap(), &Pointer::root()).unwrap();
        let annotations = [("org.systemd.property.TasksMax".to_owned(), "uint64 9".to_owned())];
        let annotations = annotations.iter().map(|(key, value)| (key, value));
        let plan = ScopePlan::plan(None, "c", SystemdInstance::User, annotations, &mut limits).unwrap();
        let tasks: Vec<_> =
            plan.properties.iter().filter(|property| property.name == "TasksMax").map(|p| &p.value).collect();
        assert_eq!(tasks, [&Value::Uint64(9), &Value::Uint64(7)]);
        let has = |name: &str, value: Value| {
            plan.properties.iter().any(|property| property.name == name && property.value == value)
        };
        assert!(has("OOMPolicy", Value::text("kill")) && has("Slice", Value::text("user.slice")));
    }

    /// A fake that accepts every change of properties, except one to `deaf_to`, which gets no reply.
    fn changing(deaf_to: u64, refuses: Option<u64>) -> Fake {
        Fake::start("systemd/private", move |call| {
            let sets = |number: u64| call.member == "SetUnitProperties" && has(call, number);
            let tasks = || Value::Variant(Box::new(Value::Uint64(OLD)));
            match &*call.member {
                _ if sets(deaf_to) => Vec::new(),
                _ if refuses.is_some_and(sets) => vec![Reply::Refusal("a.b.No".into(), "not today".into())],
                "GetUnit" => vec![Reply::Answer(vec![Value::Object("/unit".into())])],
                "Get" => vec![Reply::Answer(vec![tasks()])],
                _ => vec![Reply::Answer(Vec::new())],
            }
        })
    }

    const OLD: u64 = 0x1111_2222_3333_4444;
    const NEW: u64 = 0x5555_6666_7777_8888;

    fn has(call: &Call, number: u64) -> bool {
        call.body.windows(8).any(|bytes| bytes == number.to_ne_bytes())
    }

    fn tell(fake: &Fake) -> Result<UnitChange> {
        let unit = Unit { name: "u.scope".into(), slice: "s.slice".into(), cgroup_id: 1, buses: Vec::new() };
        let tasks = Property::new("TasksMax", Value::Uint64(NEW), Pointer::root());
        UnitChange::tell(&mut manager::tests::reach(fake).unwrap(), &unit, vec![tasks])
    }

    fn set(fake: &Fake) -> Vec<[bool; 2]> {
        let calls = fake.calls().into_iter().filter(|call| call.member == "SetUnitProperties");
        calls.map(|call| [has(&call, OLD), has(&call, NEW)]).collect()
    }

    /// It may make the change when it replies again, and then restores the old values, too.
    #[test]
    fn who_does_not_answer_to_a_change_is_told_the_old_values_after_it() {
        let fake = changing(NEW, None);
        let error = line(&tell(&fake).unwrap_err());
        assert!(error.contains("set properties of unit \"u.scope\": systemd did not answer"), "{error}");
        assert!(!error.contains("systemd may keep the new limits"), "{error}");
        assert_eq!(set(&fake), [[false, true], [true, false]]);
    }

    #[test]
    fn a_change_that_could_not_be_taken_back_is_told() {
        let fake = changing(NEW, Some(OLD));
        let error = line(&tell(&fake).unwrap_err());
        assert!(
            error.contains("systemd did not answer") && error.contains("systemd may keep the new limits"),
            "{error}"
        );
        assert!(error.contains("a.b.No: not today"), "{error}");
    }

    #[test]
    fn a_change_that_is_refused_has_nothing_to_take_back() {
        let fake = changing(0, Some(NEW));
        assert!(line(&tell(&fake).unwrap_err()).contains("systemd replied: a.b.No: not today"));
        assert_eq!(set(&fake), [[false, true]]);
    }
}
