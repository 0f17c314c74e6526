//! Classes of service in resctrl: config-linux.md § IntelRdt. No machine that runs these tests has the
//! hardware; creating and removing groups is covered by unit tests.

use std::fs;

use serde_json::json;

use crate::support::host::{is_own, need};
use crate::support::suite::suite;
use crate::support::{Container, Outcome};

suite![a_class_of_service_is_refused_where_there_are_none, a_wrong_class_of_service_is_refused];

fn a_class_of_service_is_refused_where_there_are_none() -> Outcome {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    need(!mounts.contains(" - resctrl "), "a host without resctrl")?;
    for rdt in [json!({}), json!({ "closID": "a" }), json!({ "schemata": ["L3:0=f"] })] {
        let container = Container::new().edit(|spec| spec["linux"]["intelRdt"] = rdt.clone());
        let output = container.run_fails_with("");
        if is_own() {
            let text = "error: config.json: /linux/intelRdt: intelRdt is set, but Intel RDT is not \
                        enabled: resctrl is not mounted (run `mount -t resctrl resctrl /sys/fs/resctrl` \
                        if the CPU supports it, or remove intelRdt)\n";
            assert_eq!(output.stderr, text);
        }
    }
    Ok(())
}

fn a_wrong_class_of_service_is_refused() {
    let wrong = [
        (json!({ "closID": ".." }), "/linux/intelRdt/closID: invalid intelRdt.ClosID \"..\""),
        (
            json!({ "memBwSchema": "L3:0=f" }),
            "/linux/intelRdt/memBwSchema: schema \"L3:0=f\" must start with \"MB:\"",
        ),
        (
            json!({ "schemata": ["a\nb"] }),
            "/linux/intelRdt/schemata/0: schema \"a\\nb\" must be a single line",
        ),
    ];
    for (rdt, text) in wrong {
        let container = Container::new().edit(|spec| spec["linux"]["intelRdt"] = rdt);
        container.run_fails_with(if is_own() { text } else { "" });
    }
}
