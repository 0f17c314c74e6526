//! Clock offsets of a time namespace; config-linux.md § Offset for Time Namespace, time_namespaces(7).

use std::collections::HashMap;
use std::ffi::CString;

use anyhow::Result;
use oci_spec::runtime::LinuxTimeOffset;

use crate::error::Pointer;
use crate::plan::linux::namespaces::NamespacePlan;
use crate::sys::process::CLONE_NEWTIME;

/// The clocks that have an offset.
const CLOCKS: [&str; 2] = ["boottime", "monotonic"];

/// Returns the text for /proc/PID/timens_offsets from the object at `at` (`/linux/timeOffsets`); `None` if
/// there are no offsets.
pub fn plan(
    offsets: &HashMap<String, LinuxTimeOffset>,
    namespaces: &NamespacePlan,
    at: &Pointer,
) -> Result<Option<CString>> {
    if offsets.is_empty() {
        return Ok(None);
    }
    // runc's wording.
    if !namespaces.has(CLONE_NEWTIME) {
        return Err(at.error_with_hint(
            "time namespace offsets specified, but time namespace isn't enabled in the config",
            "add {\"type\": \"time\"} to /linux/namespaces",
        ));
    }
    if !namespaces.is_new(CLONE_NEWTIME) {
        return Err(at.error(
            "both namespace path and time offsets specified: an existing namespace already has its own offsets",
        ));
    }
    let mut names: Vec<_> = offsets.keys().collect();
    names.sort();
    if let Some(name) = names.into_iter().find(|name| !CLOCKS.contains(&name.as_str())) {
        return Err(at
            .field(name)
            .error_with_hint(format_args!("unknown clock {name:?}"), "use boottime or monotonic"));
    }
    let mut text = String::new();
    for clock in CLOCKS {
        let Some(offset) = offsets.get(clock) else { continue };
        let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        if nanoseconds > 999_999_999 {
            let message = format!("{nanoseconds} ns is a second or more");
            return Err(at.field(clock).field("nanosecs").error_with_hint(message, "add it to \"secs\""));
        }
        if (seconds, nanoseconds) != (0, 0) {
            text.push_str(&format!("{clock} {seconds} {nanoseconds}\n"));
        }
    }
    Ok(if text.is_empty() { None } else { Some(CString::new(text)?) })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::error::line;

    fn planned(value: Value, new: i32) -> Result<Option<CString>> {
        let offsets = serde_json::from_value(value).unwrap();
        let namespaces = NamespacePlan { new, ..NamespacePlan::default() };
        plan(&offsets, &namespaces, &Pointer::root().field("linux").field("timeOffsets"))
    }

    #[test]
    fn offsets_become_lines_for_the_kernel() {
        let text = planned(
            json!({"monotonic": {"secs": -7881, "nanosecs": 2_718_281}, "boottime": {"secs": 1337}}),
            CLONE_NEWTIME,
        );
        assert_eq!(text.unwrap().unwrap().as_c_str(), c"boottime 1337 0\nmonotonic -7881 2718281\n");
        let nothing = json!({"monotonic": {"secs": 0}, "boottime": {}});
        assert_eq!(planned(nothing, CLONE_NEWTIME).unwrap(), None);
        assert_eq!(planned(json!({}), 0).unwrap(), None);
    }

    #[test]
    fn offsets_say_what_is_wrong_with_them() {
        let refused = |value, new| line(&planned(value, new).unwrap_err());
        assert_eq!(
            refused(json!({"monotonic": {"secs": 1}}), 0),
            "config.json: /linux/timeOffsets: time namespace offsets specified, but time namespace isn't enabled in the \
             config (add {\"type\": \"time\"} to /linux/namespaces)"
        );
        assert_eq!(
            refused(json!({"monotonic": {"secs": 1}, "realtime": {"secs": 1}}), CLONE_NEWTIME),
            "config.json: /linux/timeOffsets/realtime: unknown clock \"realtime\" \
             (use boottime or monotonic)"
        );
        assert_eq!(
            refused(json!({"boottime": {"nanosecs": 1_000_000_000}}), CLONE_NEWTIME),
            "config.json: /linux/timeOffsets/boottime/nanosecs: 1000000000 ns is a second or more (add it \
             to \"secs\")"
        );
    }
}
