//! Fuzz targets of this module; `command/fuzzing/` lists them.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a fuzz target fails by panicking"
)]

use oci_spec::runtime::LinuxResources;
use serde_json::Value;

use super::{avg10, control_file, filter, fs, resources, stats, update, usage};
use crate::bundle::document;
use crate::error::{Pointer, promised};
use crate::host::dice::Bytes;

/// A resources.json, applied to a container whose limits are those after the first NUL.
pub(crate) fn resources(text: &[u8]) {
    let (change, in_force) = match text.iter().position(|byte| *byte == 0) {
        Some(end) => (&text[..end], &text[end + 1..]),
        None => (text, &b"{}"[..]),
    };
    let at = Pointer::of("resources.json");
    let decoded = |text: &[u8], at: &Pointer| match document::resources(text, at) {
        Ok(mut resources) => {
            resources.set_devices(None);
            Some(resources)
        }
        Err(error) => {
            promised(&error, &[at.document()]);
            None
        }
    };
    let Some(change) = decoded(change, &at) else { return };
    match (resources::plan(&change, &at), resources::plan(&change.clone(), &at)) {
        (Ok(first), Ok(second)) => assert_eq!(format!("{first:?}"), format!("{second:?}")),
        (Err(first), Err(second)) => {
            let promise = ["resources.json: /"];
            return assert_eq!(promised(&first, &promise), promised(&second, &promise));
        }
        (first, second) => panic!("decided differently: {first:?}, {second:?}"),
    }
    let Some(in_force) = decoded(in_force, &Pointer::of("state.json")) else { return };
    merges(&change, &in_force);
}

/// The limits after a change can be stored and read again, and applying the change again gives the same
/// result. The exception is a change that contradicts itself: shares together with a `unified` file that
/// makes the cgroup idle, which the shares of the second time undo first. That takes one more round.
fn merges(change: &LinuxResources, in_force: &LinuxResources) {
    let after = |in_force: &Value| {
        let mut change = change.clone();
        let old = serde_json::from_value(in_force.clone()).unwrap();
        update::merge::complete(&mut change, &old, Some("20000 100000\n"));
        update::merge::merge(in_force.clone(), &change, ["memory.max"].into_iter()).unwrap()
    };
    let once = after(&serde_json::to_value(in_force).unwrap());
    let text = once.to_string();
    assert!(serde_json::from_str::<LinuxResources>(&text).is_ok(), "{text}");
    let twice = after(&once);
    let is_idle = change.unified().as_ref().is_some_and(|files| files.contains_key("cpu.idle"));
    assert!(is_idle || twice == once, "changed twice: {twice}\n{once}");
    assert_eq!(after(&twice), twice, "changed three times");
}

/// The rules of a device filter, and accesses to check.
pub(crate) fn device_rules(input: &[u8]) {
    filter::model::compare(&mut Bytes(input));
}

/// A control file: every parser gets it.
pub(crate) fn control_files(input: &[u8]) {
    let text = &*String::from_utf8_lossy(input);
    stats::parse(text);
    usage::parse(text);
    for who in ["some", "full"] {
        avg10(text, who);
    }
    for key in ["populated", "frozen", "oom_kill", "max"] {
        let value = control_file::value(text, key);
        assert!(value.is_none_or(|value| !value.contains('\n')), "{value:?}");
    }
    if let Ok(parent) = fs::parent_of_own(text) {
        assert!(parent.is_relative(), "{parent:?}");
    }
    update::journal::parse(text);
}
