//! Network interfaces of the host that are moved into the container; config-linux.md § Network Devices.
//!
//! `launch/net_devices.rs` moves them.

use std::collections::HashMap;

use anyhow::Result;
use oci_spec::runtime::LinuxNetDevice;

use crate::error::Pointer;
use crate::plan::linux::namespaces::NamespacePlan;
use crate::sys::weakened;

/// IFNAMSIZ without the final NUL; netdevice(7).
const LONGEST: usize = 15;

/// An interface and its name in the container, in which one `%d` lets the kernel choose a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetDevice {
    pub host: String,
    pub inside: String,
}

impl NetDevice {
    pub fn at(&self) -> Pointer {
        Pointer::root().field("linux").field("netDevices").field(&self.host)
    }

    pub fn is_template(&self) -> bool {
        self.inside.contains('%')
    }
}

/// Plans the object at `at` (`/linux/netDevices`); the result is sorted by name.
pub fn plan(
    devices: &HashMap<String, LinuxNetDevice>,
    namespaces: &NamespacePlan,
    at: &Pointer,
) -> Result<Vec<NetDevice>> {
    if devices.is_empty() {
        return Ok(Vec::new());
    }
    namespaces.require(libc::CLONE_NEWNET, at, "moving network devices")?;
    let mut names: Vec<_> = devices.iter().collect();
    names.sort_by_key(|(host, _)| *host);
    let mut planned: Vec<NetDevice> = Vec::with_capacity(names.len());
    for (host, device) in names {
        let at = at.field(host);
        let inside = device.name().as_ref().filter(|name| !name.is_empty()).unwrap_or(host);
        valid(host, &at)?;
        valid(inside, &at.field("name"))?;
        let device = NetDevice { host: host.clone(), inside: inside.clone() };
        if device.is_template() && inside.matches('%').count() != inside.matches("%d").count()
            || inside.matches('%').count() > 1
        {
            return Err(at.field("name").error_with_hint(
                format_args!("invalid network device name {inside:?}"),
                "a name may contain one %d, which the kernel replaces with a number",
            ));
        }
        if !device.is_template() {
            if let Some(other) = planned.iter().find(|other| other.inside == device.inside) {
                let message = format!("name {inside:?} is already used by {:?}", other.host);
                return Err(at.field("name").error(message));
            }
        }
        planned.push(device);
    }
    Ok(planned)
}

/// Checks the kernel's rules for a name; dev_valid_name in net/core/dev.c.
fn valid(name: &str, at: &Pointer) -> Result<()> {
    if weakened::is_off("CVE-2021-43784") {
        return Ok(());
    }
    let is_wrong = |c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace();
    if name.is_empty() || matches!(name, "." | "..") || name.contains(is_wrong) {
        return Err(at.error(format_args!("invalid network device name {name:?}")));
    }
    if name.len() > LONGEST {
        let message = format!("invalid network device name {name:?}: longer than {LONGEST} bytes");
        return Err(at.error(message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::error::line;

    fn planned(devices: Value) -> Result<Vec<NetDevice>> {
        let devices: HashMap<String, LinuxNetDevice> = serde_json::from_value(devices).unwrap();
        let namespaces = NamespacePlan { new: libc::CLONE_NEWNET, ..NamespacePlan::default() };
        plan(&devices, &namespaces, &Pointer::root().field("linux").field("netDevices"))
    }

    fn refused(devices: Value) -> String {
        line(&planned(devices).unwrap_err())
    }

    #[test]
    fn a_device_keeps_its_name_unless_it_is_given_another() {
        let devices = planned(json!({"b": {"name": "c%d"}, "a": {}, "d": {"name": ""}})).unwrap();
        let names: Vec<_> = devices.iter().map(|device| (&*device.host, &*device.inside)).collect();
        assert_eq!(names, [("a", "a"), ("b", "c%d"), ("d", "d")]);
    }

    #[test]
    fn a_name_that_the_kernel_refuses_is_refused() {
        for name in ["a/b", "a:b", "a b", ".", "..", "a\tb", "sixteen-letters-"] {
            let text = refused(json!({"eth0": {"name": name}}));
            let expected =
                format!("config.json: /linux/netDevices/eth0/name: invalid network device name {name:?}");
            assert!(text.starts_with(&expected), "{text}");
        }
        for name in ["a%", "a%s", "a%d%d", "%%d"] {
            assert!(
                refused(json!({"eth0": {"name": name}}))
                    .ends_with("(a name may contain one %d, which the kernel replaces with a number)")
            );
        }
        assert!(planned(json!({"fifteen-letters": {"name": "eth%d"}})).is_ok());
        assert!(refused(json!({"a b": {}})).starts_with("config.json: /linux/netDevices/a b: invalid"));
    }

    #[test]
    fn two_devices_cannot_have_one_name() {
        assert_eq!(
            refused(json!({"a": {}, "b": {"name": "a"}})),
            "config.json: /linux/netDevices/b/name: name \"a\" is already used by \"a\""
        );
        assert!(planned(json!({"a": {"name": "e%d"}, "b": {"name": "e%d"}})).is_ok());
    }

    #[test]
    fn the_container_needs_a_network_namespace() {
        let devices = HashMap::from([("a".to_owned(), serde_json::from_value(json!({})).unwrap())]);
        let error = plan(&devices, &NamespacePlan::default(), &Pointer::root()).unwrap_err();
        assert!(line(&error).contains("moving network devices requires a network namespace"));
        assert!(plan(&HashMap::new(), &NamespacePlan::default(), &Pointer::root()).unwrap().is_empty());
    }
}
