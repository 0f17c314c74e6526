//! `org.systemd.property.NAME` annotations: unit properties that are passed to systemd. Pure.

use std::collections::BTreeMap;

use anyhow::Result;

use super::properties::Property;
use crate::error::{Pointer, line};
use crate::host::dbus;
use crate::host::dbus::Value;

const PREFIX: &str = "org.systemd.property.";

/// Properties that annotations may not set, and why.
const OWN: [(&str, &str); 5] = [
    ("Slice", "set the slice in /linux/cgroupsPath"),
    ("Delegate", "the scope is always delegated"),
    ("PIDs", "it would move host processes into the container's scope"),
    ("PIDFDs", "it would move host processes into the container's scope"),
    ("Controller", "it would tie the container's lifetime to a host program"),
];

/// Returns the properties among `annotations`, which are at `at`.
pub(super) fn plan<'a>(
    annotations: impl Iterator<Item = (&'a String, &'a String)>,
    at: &Pointer,
) -> Result<Vec<Property>> {
    // Sorted, so that the order is the same on every run.
    let annotations: BTreeMap<_, _> = annotations.collect();
    let properties = annotations.into_iter().filter_map(|(key, text)| {
        let name = key.strip_prefix(PREFIX)?;
        property(name, text, at.field(key)).transpose()
    });
    properties.collect()
}

/// Returns `None` for what every unit gets anyway.
fn property(name: &str, text: &str, at: Pointer) -> Result<Option<Property>> {
    // runc's wording.
    let wrong = |why: &str| Err(at.error(format_args!("annotation name incorrect: {name:?} {why}")));
    if name.len() < 3 {
        return wrong("is too short");
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return wrong("contains a non-alphabetic character");
    }
    if name == "Delegate" && matches!(dbus::parse(text), Ok(Value::Bool(true))) {
        return Ok(None);
    }
    if let Some((_, why)) = OWN.iter().find(|(own, _)| *own == name) {
        return Err(at.error_with_hint(format_args!("{name} cannot be set by annotation"), why));
    }
    let unparsed = |error: &dyn std::fmt::Display| at.error(format_args!("value parse error: {error}"));
    let value = dbus::parse(text).map_err(|error| unparsed(&line(&error)))?;
    // The manual pages say e.g. TimeoutStopSec, D-Bus has TimeoutStopUSec, in microseconds.
    let stem = name.strip_suffix("Sec").filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase()));
    let (name, value) = match stem {
        Some(stem) => match microseconds(&value) {
            Some(value) => (format!("{stem}USec"), value),
            None => return Err(unparsed(&format_args!("invalid number of seconds {text:?}"))),
        },
        None => (name.to_owned(), value),
    };
    Ok(Some(Property::new(name, value, at)))
}

fn microseconds(value: &Value) -> Option<Value> {
    const MILLION: u64 = 1_000_000;
    let seconds = match value {
        Value::Byte(seconds) => u64::from(*seconds),
        Value::Int16(seconds) => u64::try_from(*seconds).ok()?,
        Value::Uint16(seconds) => u64::from(*seconds),
        Value::Int32(seconds) => u64::try_from(*seconds).ok()?,
        Value::Uint32(seconds) => u64::from(*seconds),
        Value::Int64(seconds) => u64::try_from(*seconds).ok()?,
        Value::Uint64(seconds) => *seconds,
        Value::Double(seconds) => {
            let duration = std::time::Duration::try_from_secs_f64(*seconds).ok()?;
            return u64::try_from(duration.as_micros()).ok().map(Value::Uint64);
        }
        _ => return None,
    };
    seconds.checked_mul(MILLION).map(Value::Uint64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(name: &str, text: &str) -> Result<Vec<Property>> {
        let annotations =
            [(format!("org.systemd.property.{name}"), text.to_owned()), ("other".into(), "0".into())];
        plan(annotations.iter().map(|(key, value)| (key, value)), &Pointer::root().field("annotations"))
    }

    #[track_caller]
    fn is(name: &str, text: &str, expected: &str, value: &Value) {
        let properties = planned(name, text).unwrap();
        let [property] = properties.as_slice() else { panic!("{properties:?}") };
        assert_eq!((&*property.name, &property.value), (expected, value));
        assert_eq!(property.at.to_string(), format!("/annotations/org.systemd.property.{name}"));
    }

    #[test]
    fn seconds_become_microseconds() {
        is("TimeoutStopUSec", "uint64 123456789", "TimeoutStopUSec", &Value::Uint64(123_456_789));
        is("TimeoutStopSec", "456", "TimeoutStopUSec", &Value::Uint64(456_000_000));
        is("TimeoutStopSec", "byte 234", "TimeoutStopUSec", &Value::Uint64(234_000_000));
        is("TimeoutStopSec", "uint16 234", "TimeoutStopUSec", &Value::Uint64(234_000_000));
        is("TimeoutStopSec", "int64 234", "TimeoutStopUSec", &Value::Uint64(234_000_000));
        is("TimeoutStopSec", "234.789", "TimeoutStopUSec", &Value::Uint64(234_789_000));
        // Only "Sec" after a lower-case letter is a unit.
        is("FOOSec", "123", "FOOSec", &Value::Int32(123));
        is("Sec", "123", "Sec", &Value::Int32(123));
    }

    #[test]
    fn engines_write_these() {
        is("KillSignal", "15", "KillSignal", &Value::Int32(15));
        is("CollectMode", "'inactive-or-failed'", "CollectMode", &Value::text("inactive-or-failed"));
        is(
            "After",
            "['crio.service']",
            "After",
            &Value::Array("s".into(), vec![Value::text("crio.service")]),
        );
    }

    #[test]
    fn what_the_scope_is_in_any_case_may_be_asked_for() {
        assert_eq!(planned("Delegate", "true").unwrap(), []);
        assert_eq!(planned("Delegate", "boolean true").unwrap(), []);
        for text in ["false", "'yes'", "['cpu']", "truth"] {
            let error = line(&planned("Delegate", text).unwrap_err());
            assert!(error.contains("Delegate cannot be set by annotation"), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_no_property_is_refused_where_it_stands() {
        let refused = |name: &str, text: &str| line(&planned(name, text).unwrap_err());
        assert_eq!(
            refused("Xo", "1"),
            "config.json: /annotations/org.systemd.property.Xo: annotation name incorrect: \"Xo\" is too short"
        );
        assert!(refused("Number1", "1").contains("contains a non-alphabetic character"));
        assert_eq!(
            refused("ValidName", "invalid-value"),
            "config.json: /annotations/org.systemd.property.ValidName: value parse error: \
             \"invalid-value\" is not a value in GVariant text format: invalid number \"invalid-value\""
        );
        for text in ["false", "'covfefe'", "-1", "-1.5", "uint64 18446744073709551615"] {
            assert!(refused("TimeoutStopSec", text).contains("invalid number of seconds "), "{text}");
        }
        assert_eq!(
            refused("PIDs", "[uint32 1]"),
            "config.json: /annotations/org.systemd.property.PIDs: PIDs cannot be set by annotation (it \
             would move host processes into the container's scope)"
        );
    }
}
