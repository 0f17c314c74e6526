//! Talking to systemd over D-Bus: the system manager or a user's. All requests of a command share one
//! deadline, and systemd's replies are reported verbatim.
//!
//! A manager that does not reply in time may still carry out what it was asked to, and does so in the order
//! of the requests.
//!
//! Source: org.freedesktop.systemd1(5).

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::event::Timespec;
use rustix::io::Errno;

use super::properties::Property;
use crate::error::{Hint, errno, line};
use crate::host::dbus::{Address, BusObject, Connection, Interrupted, Refused, TimedOut, Value};
use crate::host::signals::{Signal, SignalQueue};

/// The deadline for all requests of a command and the jobs that they start. A manager that is reloading does
/// not reply for seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// The same for cleaning up: with a manager that has been replying, and with one that has not.
const CLEANING: Duration = Duration::from_secs(10);
const BRIEF: Duration = Duration::from_secs(1);

const MANAGER: BusObject<'static> = BusObject {
    program: "org.freedesktop.systemd1",
    object: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};
const PEER: BusObject<'static> = BusObject { interface: "org.freedesktop.DBus.Peer", ..MANAGER };
/// The job with this object path.
const fn job_at(object: &str) -> BusObject<'_> {
    BusObject { object, interface: "org.freedesktop.systemd1.Job", ..MANAGER }
}
const PROPERTIES: BusObject<'static> = BusObject { interface: "org.freedesktop.DBus.Properties", ..MANAGER };

/// The signal sent when a job has ended.
const JOB_REMOVED: &str = "JobRemoved";

/// The end of the path of a manager's private socket, which needs no bus.
const PRIVATE: &str = "/systemd/private";

const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// How long a manager that is re-executing itself may be gone, and how often to retry meanwhile.
const ABSENCE: Duration = Duration::from_secs(10);
const BETWEEN_LOOKS: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// How long to retry the first connection. Shorter, because a socket without a listener may be left over from
/// a manager that no longer exists.
const FIRST_ABSENCE: Duration = Duration::from_secs(2);

/// Errors by which a bus reports that a program has left it.
const GONE: [&str; 4] = [
    "org.freedesktop.DBus.Error.NoReply",
    "org.freedesktop.DBus.Error.Disconnected",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.ServiceUnknown",
];

/// A connection to one manager.
#[derive(Debug)]
pub(super) struct Manager {
    buses: Vec<Address>,
    /// Signals that ask this process to terminate.
    interrupts: Option<SignalQueue>,
    connection: Connection,
    /// The address in `buses` that it is connected to.
    address: Address,
    /// The total time limit, and when it expires.
    patience: Duration,
    deadline: Instant,
}

impl Manager {
    /// Connects to the first of `buses` that has a listener. `interrupts` abort waiting.
    pub(super) fn connect(buses: Vec<Address>, interrupts: Option<SignalQueue>) -> Result<Self> {
        // runc's wording.
        let doing = "systemd cgroup flag passed, but systemd support for managing cgroups is not available";
        let hint = "--systemd-cgroup requires a host booted with systemd; unprivileged users also need a \
                    session with XDG_RUNTIME_DIR or DBUS_SESSION_BUS_ADDRESS (`loginctl enable-linger \
                    USER` provides one without a login)";
        Self::within(PATIENCE, FIRST_ABSENCE, buses, interrupts).map_err(|error| {
            match error.is::<WasInterrupted>() {
                true => error,
                false => error.context(Hint(doing.into(), hint.into())),
            }
        })
    }

    /// Connects to the manager of an existing unit, at the first of `buses` that has a listener.
    pub(super) fn reach(buses: Vec<Address>) -> Result<Self> {
        let doing = "connect to the systemd that created the container's scope";
        let hint = "state.json lists the addresses it had when the container was created";
        Self::within(PATIENCE, FIRST_ABSENCE, buses, None)
            .map_err(|error| error.context(Hint(doing.into(), hint.into())))
    }

    fn within(
        patience: Duration,
        absence: Duration,
        buses: Vec<Address>,
        interrupts: Option<SignalQueue>,
    ) -> Result<Self> {
        let deadline = Instant::now() + patience;
        let (connection, address) = connect(&buses, interrupts.as_ref(), absence, patience, deadline)?;
        Ok(Self { buses, interrupts, connection, address, patience, deadline })
    }

    /// Prepares for cleaning up: a new deadline, and signals no longer abort waiting. `is_timeout` says whether
    /// the manager has failed to reply before.
    pub(super) fn clean_up(&mut self, is_timeout: bool) {
        self.interrupts = None;
        self.connection.ignore_interrupts();
        self.patience = if is_timeout { BRIEF } else { CLEANING };
        self.deadline = Instant::now() + self.patience;
    }

    fn is_private(&self) -> bool {
        is_private(&self.address)
    }

    fn told(&self, error: anyhow::Error) -> anyhow::Error {
        told(error, self.interrupts.as_ref(), &self.address, self.patience)
    }

    /// Repeats an idempotent `request` while the connection is lost: a manager drops all connections when it
    /// re-executes itself.
    fn persist<T>(&mut self, mut request: impl FnMut(&mut Self) -> Result<T>) -> Result<T> {
        let until = Instant::now() + ABSENCE;
        loop {
            match request(self) {
                Err(error) if was_cut_off(&error) && Instant::now() < until.min(self.deadline) => {
                    pause();
                    let interrupts = self.interrupts.as_ref();
                    (self.connection, self.address) =
                        connect(&self.buses, interrupts, ABSENCE, self.patience, self.deadline)?;
                }
                result => return result.map_err(|error| self.told(error)),
            }
        }
    }

    fn call(&mut self, place: BusObject<'_>, member: &str, arguments: &[Value]) -> Result<Vec<Value>> {
        self.persist(|manager| manager.connection.call(place, member, arguments, manager.deadline))
    }

    /// Returns the manager's own cgroup, below which all of its units are; empty for the root.
    pub(super) fn control_group(&mut self) -> Result<String> {
        self.property("ControlGroup")
    }

    /// Returns its version number; 0 if it cannot be parsed.
    pub(super) fn version(&mut self) -> Result<u32> {
        Ok(version(&self.property("Version")?))
    }

    fn property(&mut self, name: &str) -> Result<String> {
        let doing = || format!("get {name} from systemd");
        let arguments = [Value::text(MANAGER.interface), Value::text(name)];
        let answer = self.call(PROPERTIES, "Get", &arguments).with_context(doing)?;
        answer.into_iter().next().and_then(Value::into_text).with_context(doing)
    }

    /// Returns `properties` of the scope `unit` with their current values.
    pub(super) fn properties(&mut self, unit: &str, properties: &[Property]) -> Result<Vec<Property>> {
        let doing = || format!("get unit {unit:?} from systemd");
        let object = self.call(MANAGER, "GetUnit", &[Value::text(unit)]).with_context(doing)?;
        let object = object.into_iter().next().and_then(Value::into_text).with_context(doing)?;
        let place = BusObject { object: &object, ..PROPERTIES };
        let now = properties.iter().map(|property| {
            let arguments =
                [Value::text("org.freedesktop.systemd1.Scope"), Value::text(property.name.clone())];
            match self.call(place, "Get", &arguments).with_context(doing)?.pop() {
                Some(Value::Variant(value)) => Ok(Property { value: *value, ..property.clone() }),
                _ => bail!("{}: no value for {}", doing(), property.name),
            }
        });
        now.collect()
    }

    /// Starts the scope `unit` with `properties`, which include its processes, and waits until it has
    /// started. `is_there` says whether the processes are in it already.
    ///
    /// # Errors
    /// systemd's reply, with the pointer of the property that it names, if any. The scope may exist even
    /// then.
    pub(super) fn start(
        &mut self,
        unit: &str,
        properties: &[Property],
        is_there: impl Fn() -> Result<bool>,
    ) -> Result<()> {
        let doing = || format!("start unit {unit:?}");
        let arguments = [
            Value::text(unit),
            Value::text("replace"),
            encoded(properties),
            // Auxiliary units: none.
            Value::Array("(sa(sv))".into(), Vec::new()),
        ];
        let mut tries = 0_u32;
        let mut job = None;
        let result = self.persist(|manager| {
            tries = tries.saturating_add(1);
            // The previous request may have been carried out before the connection was lost.
            if tries > 1 && is_there()? {
                return Ok(None);
            }
            let deadline = manager.deadline;
            manager.await_jobs()?;
            let mut answer = manager.connection.call(MANAGER, "StartTransientUnit", &arguments, deadline);
            if answer.as_ref().is_err_and(|error| is_refused(error, UNIT_EXISTS)) {
                // A failed unit keeps its name until it is reset.
                manager.reset_failed(unit);
                answer = manager.connection.call(MANAGER, "StartTransientUnit", &arguments, deadline);
            }
            let begun = job.insert(job_of(answer?)?);
            manager.end_of(begun).map(Some)
        });
        if let (Err(error), Some(job)) = (&result, job) {
            if is_unanswered(error) {
                // Its dependencies may be met only after everyone has given up on the unit.
                self.clean_up(false);
                let _ = self.connection.call(job_at(&job), "Cancel", &[], self.deadline);
            }
        }
        match result.map_err(|error| blame(error, properties, doing))? {
            Some(result) if result != "done" => {
                bail!("{}: job ended with result {result:?} (see `systemctl status {unit}`)", doing())
            }
            _ => Ok(()),
        }
    }

    /// Stops `unit` with everything in it, and resets it if it has failed. One that does not exist counts as
    /// stopped.
    pub(super) fn stop(&mut self, unit: &str) -> Result<()> {
        let arguments = [Value::text(unit), Value::text("replace")];
        let stopped = self.persist(|manager| {
            manager.await_jobs()?;
            match manager.connection.call(MANAGER, "StopUnit", &arguments, manager.deadline) {
                // The job's result does not matter: whoever removes the cgroup sees what is left of the unit.
                Ok(answer) => {
                    manager.end_of(&job_of(answer)?)?;
                    manager.reset_failed(unit);
                    Ok(())
                }
                Err(error) if is_refused(&error, NO_SUCH_UNIT) => Ok(()),
                Err(error) => Err(error),
            }
        });
        stopped.with_context(|| format!("stop unit {unit:?}"))
    }

    /// Sets properties of `unit` for its runtime, all or none, and waits until systemd has written the
    /// control files. It writes them after it has replied, but before it handles the next request.
    pub(super) fn set_properties(&mut self, unit: &str, properties: &[Property]) -> Result<()> {
        let arguments = [Value::text(unit), Value::Bool(true), encoded(properties)];
        let doing = || format!("set properties of unit {unit:?}");
        let set = self.call(MANAGER, "SetUnitProperties", &arguments);
        set.map_err(|error| blame(error, properties, doing))?;
        self.call(PEER, "Ping", &[]).map(drop).with_context(doing)
    }

    /// Moves a process into the cgroup of `unit`, which this process may lack the permission for.
    pub(super) fn attach(&mut self, unit: &str, pid: i32) -> Result<()> {
        let pids = Value::Array("u".into(), vec![Value::Uint32(pid.unsigned_abs())]);
        let attached =
            self.call(MANAGER, "AttachProcessesToUnit", &[Value::text(unit), Value::text(""), pids]);
        attached.map(drop).with_context(|| format!("attach process {pid} to unit {unit:?}"))
    }

    /// Resets a failed unit. Errors are ignored: a unit that has not failed or does not exist needs no reset.
    pub(super) fn reset_failed(&mut self, unit: &str) {
        let _ = self.connection.call(MANAGER, "ResetFailedUnit", &[Value::text(unit)], self.deadline);
    }

    /// Subscribes to the ends of jobs; call this before starting one. On the private socket the manager sends
    /// them to every peer.
    fn await_jobs(&mut self) -> Result<()> {
        self.connection.expect(MANAGER, JOB_REMOVED);
        if self.is_private() {
            return Ok(());
        }
        self.connection.subscribe(MANAGER, JOB_REMOVED, self.deadline)?;
        self.connection.call(MANAGER, "Subscribe", &[], self.deadline).map(drop)
    }

    /// Waits for the job with this object path to end, and returns its result.
    fn end_of(&mut self, job: &str) -> Result<String> {
        loop {
            let told = self.connection.signal(self.deadline)?;
            // Job id, object path, unit, result.
            if let [_, Value::Object(path), _, Value::Text(result)] = told.as_slice() {
                if path == job {
                    return Ok(result.clone());
                }
            }
        }
    }
}

fn is_private(address: &Address) -> bool {
    address.as_str().ends_with(PRIVATE)
}

fn job_of(answer: Vec<Value>) -> Result<String> {
    answer.into_iter().next().and_then(Value::into_text).context("systemd returned no job")
}

/// Connects to the first of `buses` that has a listener, and returns it. Retries for up to `absence` while
/// connections are refused or lost. A manager that does not reply is an error: the other addresses are not
/// tried.
fn connect(
    buses: &[Address],
    interrupts: Option<&SignalQueue>,
    absence: Duration,
    patience: Duration,
    deadline: Instant,
) -> Result<(Connection, Address)> {
    let until = deadline.min(Instant::now() + absence);
    loop {
        let mut failures = Vec::new();
        for address in buses {
            let interrupt = interrupts.map(|queue| queue.as_fd().try_clone_to_owned()).transpose()?;
            let connection = match is_private(address) {
                true => Connection::direct(address, interrupt, deadline),
                false => Connection::bus(address, MANAGER.program, interrupt, deadline),
            };
            match connection {
                Ok(connection) => return Ok((connection, address.clone())),
                Err(error) if error.is::<Interrupted>() || error.is::<TimedOut>() => {
                    return Err(told(error, interrupts, address, patience));
                }
                // The other errors name the address themselves.
                Err(error) if errno(&error).is_none() => {
                    failures.push(error.context(format!("connect to {}", address.as_str())));
                }
                Err(error) => failures.push(error),
            }
        }
        if failures.iter().any(was_cut_off) && Instant::now() < until {
            pause();
            continue;
        }
        // The most useful error is the last one other than ENOENT.
        let is_missing = |error: &anyhow::Error| errno(error) == Some(nix::errno::Errno::ENOENT);
        let shown = failures.iter().rposition(|error| !is_missing(error)).unwrap_or(0);
        return Err(match failures.is_empty() {
            true => anyhow!("no D-Bus address to connect to"),
            false => failures.swap_remove(shown),
        });
    }
}

/// Sleeps before the next attempt; there is nothing to poll(2) yet.
fn pause() {
    let _ = rustix::event::poll(&mut [], Some(&BETWEEN_LOOKS));
}

/// Whether the connection was lost, as when the manager re-executes itself.
fn was_cut_off(error: &anyhow::Error) -> bool {
    use nix::errno::Errno::{ECONNREFUSED, ECONNRESET, EPIPE};
    matches!(errno(error), Some(ECONNREFUSED | ECONNRESET | EPIPE))
        || GONE.iter().any(|name| is_refused(error, name))
}

fn encoded(properties: &[Property]) -> Value {
    let pair = |property: &Property| {
        let value = Value::Variant(Box::new(property.value.clone()));
        Value::Struct(vec![Value::text(property.name.clone()), value])
    };
    Value::Array("(sv)".into(), properties.iter().map(pair).collect())
}

fn is_refused(error: &anyhow::Error, name: &str) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.name == name)
}

/// Whether it is unknown if systemd has carried out or will carry out the request, as opposed to refused.
pub(super) fn is_unanswered(error: &anyhow::Error) -> bool {
    error.is::<NoReply>() || error.is::<WasInterrupted>() || was_cut_off(error)
}

/// Whether systemd has not replied in time.
pub(super) fn is_timeout(error: &anyhow::Error) -> bool {
    error.is::<NoReply>()
}

/// No reply in time from this address.
#[derive(Debug)]
struct NoReply {
    address: Address,
    patience: Duration,
}

impl fmt::Display for NoReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "systemd did not answer within {:?} at {}", self.patience, self.address.as_str())
    }
}

/// Waiting was aborted by this signal.
#[derive(Debug)]
struct WasInterrupted(Signal);

impl fmt::Display for WasInterrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interrupted by {} before the container was started", self.0)
    }
}

impl std::error::Error for WasInterrupted {}

/// Adds to `error` who did not reply in time, who replied, or which signal came.
fn told(
    error: anyhow::Error,
    interrupts: Option<&SignalQueue>,
    address: &Address,
    patience: Duration,
) -> anyhow::Error {
    if error.is::<Interrupted>() {
        if let Some(Ok(Some(signal))) = interrupts.map(SignalQueue::take) {
            return WasInterrupted(signal).into();
        }
    }
    if error.is::<TimedOut>() {
        return anyhow!(Errno::TIMEDOUT).context(NoReply { address: address.clone(), patience });
    }
    match error.downcast::<Refused>() {
        Ok(refused) => anyhow!(refused).context("systemd replied"),
        Err(error) => error,
    }
}

/// Adds the pointer of the property that the error names, or else what was being done.
fn blame(error: anyhow::Error, properties: &[Property], doing: impl Fn() -> String) -> anyhow::Error {
    let text = error.downcast_ref::<Refused>().map(|refused| refused.text.clone()).unwrap_or_default();
    let words: Vec<_> = text.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let named = properties.iter().find(|property| words.contains(&&*property.name));
    match named.filter(|property| !property.at.is_root()) {
        Some(Property { name, at, .. }) => at.error(format_args!("unit property {name}: {}", line(&error))),
        None => error.context(doing()),
    }
}

/// Parses the leading number of `257.4-1~deb13`, `v252` or `252 (252-13.el9)`.
fn version(text: &str) -> u32 {
    let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits.get(..end).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
pub(super) mod tests;
