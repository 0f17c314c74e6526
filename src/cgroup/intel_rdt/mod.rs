//! Intel RDT: cache and memory bandwidth allocation; config-linux.md § IntelRdt, the kernel's
//! filesystems/resctrl.rst.
//!
//! A class of service is a directory in the resctrl file system. Its limits are lines of the file `schemata`;
//! a process joins it by its pid being written to `tasks`, and its children inherit the class. `resctrl.rs`
//! does that before the container's program runs; `update.rs` changes the limits later.

mod resctrl;
mod update;

use anyhow::Result;
use oci_spec::runtime::LinuxIntelRdt;

#[cfg(any(test, feature = "fuzzing"))]
pub use self::resctrl::parse_schemata;
pub use self::resctrl::{Group, Member, SCHEMATA, remove};
pub use self::update::{OpenClass, Update, preview};
use crate::error::Pointer;

/// NAME_MAX.
const LONGEST: usize = 255;

/// The plan for `/linux/intelRdt`.
#[derive(Debug, PartialEq, Eq)]
pub struct RdtPlan {
    class: Class,
    /// In the order in which they are written.
    schemata: Vec<Schema>,
    /// Whether the container gets a monitoring group.
    monitoring: bool,
}

/// A class of service: a directory of the resctrl file system.
#[derive(Debug, PartialEq, Eq)]
enum Class {
    /// The container's own, named after its id.
    Own,
    /// A named one, which others may share.
    Named(String),
    /// `/`: the default class, with all processes that are in no other.
    Default,
}

/// A line for the file `schemata`.
#[derive(Debug, PartialEq, Eq)]
struct Schema {
    at: Pointer,
    text: String,
    /// Whether an existing class must have this limit already.
    must_match: bool,
}

/// Plans the object at `at` (`/linux/intelRdt`).
pub fn plan(rdt: &LinuxIntelRdt, at: &Pointer) -> Result<RdtPlan> {
    let class = match rdt.clos_id().as_deref() {
        None | Some("") => Class::Own,
        Some("/") => Class::Default,
        Some(name) => {
            if matches!(name, "." | "..") || name.contains(['/', '\0', '\n']) || name.len() > LONGEST {
                return Err(at.field("closID").error_with_hint(
                    format_args!("invalid intelRdt.ClosID {name:?}"),
                    "it must be a single directory name, or \"/\" for the default class",
                ));
            }
            Class::Named(name.to_owned())
        }
    };
    let mut schemata = Vec::new();
    let cache = rdt.l3_cache_schema().iter().map(|text| (text, at.field("l3CacheSchema")));
    for (text, at) in cache.filter(|(text, _)| !text.is_empty()) {
        // Usually a single line, but several are accepted.
        let lines = text.lines().filter(|line| !line.is_empty());
        schemata.extend(lines.map(|line| Schema { at: at.clone(), text: line.into(), must_match: true }));
    }
    let bandwidth = rdt.mem_bw_schema().iter().map(|text| (text, at.field("memBwSchema")));
    for (text, at) in bandwidth.filter(|(text, _)| !text.is_empty()) {
        if !text.starts_with("MB:") {
            return Err(at.error(format_args!("schema {text:?} must start with \"MB:\"")));
        }
        schemata.push(Schema { text: one_line(text, &at)?, at, must_match: true });
    }
    for (index, text) in rdt.schemata().iter().flatten().enumerate().filter(|(_, text)| !text.is_empty()) {
        let at = at.field("schemata").index(index);
        schemata.push(Schema { text: one_line(text, &at)?, at, must_match: false });
    }
    Ok(RdtPlan { class, schemata, monitoring: rdt.enable_monitoring().unwrap_or(false) })
}

fn one_line(text: &str, at: &Pointer) -> Result<String> {
    if text.contains('\n') {
        return Err(at.error(format_args!("schema {text:?} must be a single line")));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::error::line;

    pub fn planned(rdt: Value) -> Result<RdtPlan> {
        plan(&serde_json::from_value(rdt).unwrap(), &Pointer::root().field("linux").field("intelRdt"))
    }

    fn refused(rdt: Value) -> String {
        line(&planned(rdt).unwrap_err())
    }

    #[test]
    fn schemata_come_in_the_order_of_the_specification() {
        let plan = planned(json!({
            "schemata": ["L2:0=f", "", "L3:1=f"], "memBwSchema": "MB:0=20", "l3CacheSchema": "L3:0=ff\nL3:1=f0"
        }))
        .unwrap();
        let lines: Vec<_> = plan.schemata.iter().map(|schema| (&*schema.text, schema.must_match)).collect();
        let expected =
            [("L3:0=ff", true), ("L3:1=f0", true), ("MB:0=20", true), ("L2:0=f", false), ("L3:1=f", false)];
        assert_eq!(lines, expected);
        assert_eq!(plan.schemata.last().unwrap().at.to_string(), "/linux/intelRdt/schemata/2");
        assert_eq!((plan.class, plan.monitoring), (Class::Own, false));
    }

    #[test]
    fn a_class_is_the_containers_own_or_has_a_name_or_is_the_default() {
        assert_eq!(planned(json!({})).unwrap().class, Class::Own);
        assert_eq!(planned(json!({"closID": ""})).unwrap().class, Class::Own);
        assert_eq!(planned(json!({"closID": "/"})).unwrap().class, Class::Default);
        assert_eq!(planned(json!({"closID": "a"})).unwrap().class, Class::Named("a".into()));
        for name in [".", "..", "a/b", "/a", "a\nb"] {
            let text = refused(json!({"closID": name}));
            let expected = format!("config.json: /linux/intelRdt/closID: invalid intelRdt.ClosID {name:?}");
            assert!(text.starts_with(&expected), "{text}");
        }
    }

    #[test]
    fn a_schema_is_one_line() {
        assert_eq!(
            refused(json!({"memBwSchema": "L3:0=f"})),
            "config.json: /linux/intelRdt/memBwSchema: schema \"L3:0=f\" must start with \"MB:\""
        );
        assert_eq!(
            refused(json!({"memBwSchema": "MB:0=1\nMB:1=1"})),
            "config.json: /linux/intelRdt/memBwSchema: schema \"MB:0=1\\nMB:1=1\" must be a single line"
        );
        assert_eq!(
            refused(json!({"schemata": ["L2:0=f", "L3:0=f\n"]})),
            "config.json: /linux/intelRdt/schemata/1: schema \"L3:0=f\\n\" must be a single line"
        );
    }
}
