//! Tests with a fake systemd that replies as told, or not at all.

use std::time::{Duration, Instant};

use super::*;
use crate::error::{Pointer, line};
use crate::host::dbus::fake::{Call, Fake, Reply};

#[test]
fn the_version_is_the_first_number() {
    for (text, number) in [("257.4-1~deb13u1", 257), ("v245.4-1.fc32", 245), ("252 (252-13)", 252), ("x", 0)]
    {
        assert_eq!(version(text), number, "{text}");
    }
}

#[test]
fn a_refused_property_is_named_by_its_place() {
    let at = Pointer::root().field("annotations").field("org.systemd.property.Nonsense");
    let own = Property::new("Description", Value::text("x"), Pointer::root());
    let properties = [own, Property::new("Nonsense", Value::Int32(1), at)];
    let error = |text: &str| {
        let refused =
            Refused { name: "org.freedesktop.DBus.Error.PropertyReadOnly".into(), text: text.into() };
        line(&blame(told(refused.into(), None, &nowhere(), PATIENCE), &properties, || "start it".to_owned()))
    };
    assert_eq!(
        error("Cannot set property Nonsense, or unknown property."),
        "config.json: /annotations/org.systemd.property.Nonsense: unit property Nonsense: systemd replied: \
         org.freedesktop.DBus.Error.PropertyReadOnly: Cannot set property Nonsense, or unknown property."
    );
    assert_eq!(
        error("Description is out of range"),
        "start it: systemd replied: org.freedesktop.DBus.Error.PropertyReadOnly: Description is out of range"
    );
}

fn nowhere() -> Address {
    Address::of(std::path::Path::new("/nowhere"))
}

/// Long enough for a fake that replies, and short enough to wait for one that does not.
const SHORT: Duration = Duration::from_millis(400);

pub(in crate::cgroup::systemd) fn reach(fake: &Fake) -> Result<Manager> {
    Manager::within(SHORT, Duration::ZERO, vec![fake.address.clone()], None)
}

const JOB: &str = "/org/freedesktop/systemd1/job/7";

/// The replies of systemd and of the bus, except to `deaf_to`.
fn usual(deaf_to: &'static str) -> impl FnMut(&Call) -> Vec<Reply> + Send {
    move |call| {
        let job = || Value::Object(JOB.into());
        match &*call.member {
            member if member == deaf_to => Vec::new(),
            "Get" => vec![Reply::Answer(vec![Value::Variant(Box::new(Value::text("/")))])],
            "StartTransientUnit" if deaf_to == "job" => vec![Reply::Answer(vec![job()])],
            "StartTransientUnit" | "StopUnit" => {
                let told = vec![Value::Uint32(7), job(), Value::text("u.scope"), Value::text("done")];
                vec![Reply::Answer(vec![job()]), Reply::Signal(MANAGER, JOB_REMOVED, told)]
            }
            _ => vec![Reply::Answer(Vec::new())],
        }
    }
}

fn started(fake: &Fake) -> Result<()> {
    let mut manager = reach(fake)?;
    manager.control_group()?;
    manager.start("u.scope", &[], || Ok(false))
}

#[test]
fn the_manager_and_a_bus_before_it_are_asked_in_the_same_way() {
    let fake = Fake::start("systemd/private", usual(""));
    started(&fake).unwrap();
    assert_eq!(fake.members(), ["Get", "StartTransientUnit"]);
    let fake = Fake::start("bus", usual(""));
    started(&fake).unwrap();
    let expected = ["Hello", "GetNameOwner", "Get", "AddMatch", "Subscribe", "StartTransientUnit"];
    assert_eq!(fake.members(), expected);
}

#[test]
fn who_goes_deaf_is_waited_for_once_and_named() {
    for deaf_to in
        ["greeting", "Hello", "GetNameOwner", "Get", "AddMatch", "Subscribe", "StartTransientUnit", "job"]
    {
        let fake = Fake::start("bus", usual(deaf_to));
        let begin = Instant::now();
        let error = line(&started(&fake).unwrap_err());
        let expected = format!("systemd did not answer within 400ms at {}", fake.address.as_str());
        assert!(error.contains(&expected) && error.contains("(ETIMEDOUT)"), "{deaf_to}: {error}");
        assert!(begin.elapsed() < SHORT * 3, "{deaf_to}: {:?}", begin.elapsed());
        // The unit may be someone else's.
        assert!(!fake.members().iter().any(|member| member == "StopUnit"), "{deaf_to}");
        let cancelled = fake.calls().into_iter().filter(|call| call.member == "Cancel");
        let cancelled: Vec<_> = cancelled.map(|call| call.object).collect();
        assert_eq!(cancelled, if deaf_to == "job" { vec![JOB] } else { Vec::new() }, "{deaf_to}");
    }
}

/// A late reply leaves less time for the next request.
#[test]
fn all_requests_of_a_command_have_one_deadline() {
    let fake = Fake::start("bus", |_| {
        std::thread::sleep(SHORT / 3);
        vec![Reply::Answer(vec![Value::Variant(Box::new(Value::text("/")))])]
    });
    let begin = Instant::now();
    let error = started(&fake).unwrap_err();
    assert!(is_timeout(&error), "{error:?}");
    assert!(begin.elapsed() < SHORT * 2, "{:?}", begin.elapsed());
}

#[test]
fn a_bus_without_systemd_is_named_with_what_it_says() {
    for name in ["NameHasNoOwner", "ServiceUnknown"] {
        let kind = format!("org.freedesktop.DBus.Error.{name}");
        let answered = kind.clone();
        let fake = Fake::start("bus", move |call| match &*call.member {
            "GetNameOwner" => vec![Reply::Refusal(answered.clone(), "nobody has it".into())],
            _ => vec![Reply::Answer(Vec::new())],
        });
        let error = line(&reach(&fake).unwrap_err());
        assert_eq!(error, format!("connect to {}: {kind}: nobody has it", fake.address.as_str()));
    }
}

#[test]
fn who_listens_nowhere_is_told_what_it_takes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("systemd/private");
    let error = line(&Manager::connect(vec![Address::of(&path)], None).unwrap_err());
    assert!(
        error.starts_with(
            "systemd cgroup flag passed, but systemd support for managing cgroups is not available: open "
        ),
        "{error}"
    );
    assert!(error.contains("(ENOENT) (--systemd-cgroup requires a host"), "{error}");
    let error = line(&Manager::reach(vec![Address::of(&path)]).unwrap_err());
    assert!(error.starts_with("connect to the systemd that created the container's scope: open "), "{error}");
}
