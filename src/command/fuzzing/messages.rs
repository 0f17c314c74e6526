//! Messages of other programs and of the kernel, and seccomp filters.

use super::{Bytes, Dice as _, promised};
use crate::host::dbus::message::{Header, Message};
use crate::host::dbus::{BusObject, Value, message};
use crate::host::{dbus, netlink};

/// A destination for a method call.
const PLACE: BusObject<'_> =
    BusObject { program: "org.example", object: "/org/example", interface: "org.example.Fuzz" };

/// A message as received from a bus: header and body.
pub(super) fn dbus(input: &[u8]) {
    let Some((start, rest)) = input.split_first_chunk() else { return };
    let header = match Header::decode(start) {
        Ok(header) => header,
        Err(error) => return drop(promised(&error, &[])),
    };
    let Some(length) = header.length() else { return };
    // As much as the header announces, as read from the socket.
    let Some(rest) = rest.get(..length) else { return };
    let values = Message::decode(&header, rest).and_then(|message| message.values());
    match values {
        Ok(values) => sent(&values),
        Err(error) => drop(promised(&error, &[])),
    }
}

/// Asserts that what can be sent is received unchanged.
fn sent(values: &[Value]) {
    // A string with a NUL, or a type that is too long.
    let Ok(bytes) = message::call(1, PLACE, "Fuzz", values) else { return };
    let (start, rest) = bytes.split_first_chunk().unwrap();
    let header = Header::decode(start).unwrap();
    assert_eq!(header.length(), Some(rest.len()), "{values:?}");
    let read = Message::decode(&header, rest).unwrap();
    let is_basic = |value: &Value| !matches!(value, Value::Array(..) | Value::Struct(_) | Value::Variant(_));
    let basic = values.iter().take_while(|value| is_basic(value)).count();
    if let Ok(read) = read.values() {
        // Compared as text, because NaN is not equal to itself.
        assert_eq!(format!("{:?}", &read[..basic]), format!("{:?}", &values[..basic]));
    }
}

/// The value of an annotation.
pub(super) fn gvariant(input: &[u8]) {
    let text = &*String::from_utf8_lossy(input);
    match dbus::parse(text) {
        Ok(value) => {
            // The same value with an explicit type.
            let signature = value.signature();
            if let Ok(again) = dbus::parse(&format!("@{signature} {text}")) {
                assert_eq!(format!("{again:?}"), format!("{value:?}"), "{text:?}");
            }
            sent(&[value]);
        }
        Err(error) => drop(promised(&error, &[])),
    }
}

/// A reply of the kernel about network interfaces.
pub(super) fn netlink(input: &[u8]) {
    netlink::read_all(input);
}

/// A message of the init process.
pub(super) fn sync(input: &[u8]) {
    use crate::init::protocol::{LONGEST, Message, SIZE, said};

    let input = input.get(..LONGEST).unwrap_or(input);
    if let Some(words) = said(input) {
        assert!(words.len() < input.len());
    }
    if let Ok(bytes) = <[u8; SIZE]>::try_from(input) {
        if let Some(message) = Message::from_bytes(bytes) {
            assert_eq!(Message::from_bytes(message.to_bytes()), Some(message));
        }
    }
}

/// A filter: one saved by `create`, or one compiled from rules that the input selects.
pub(super) fn seccomp(input: &[u8]) {
    let mut choices = Bytes(input);
    if choices.roll(4) == 0 {
        crate::plan::linux::seccomp::model::read_kept(choices.0);
    } else {
        let count = if choices.is_used_up() { 1 } else { 40 };
        crate::plan::linux::seccomp::model::compare(&mut choices, count);
    }
}
