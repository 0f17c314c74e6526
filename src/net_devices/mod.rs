//! Interfaces of the host that become the container's; config-linux.md § Network Devices.
//!
//! The parent moves them as soon as there is a network namespace to move them to. When the container comes to be they are the
//! namespace's, and nobody moves them back; when it does not, they return with name, addresses and state.

pub mod netlink;

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};

use anyhow::{Context as _, Result};
use oci_spec::runtime::LinuxNetDevice;

use self::netlink::{Address, Socket};
use crate::error::{Fault, Pointer};
use crate::namespaces::NamespacePlan;
use crate::sys::Errno;
use crate::sys::process::setns;
use crate::weakened;

/// IFNAMSIZ less the NUL at the end; netdevice(7).
const LONGEST: usize = 15;

/// The runtime's own network namespace.
const OWN: &str = "/proc/self/ns/net";

/// How many indices are tried for an interface.
const MOST_INDICES: i32 = 1 << 16;

/// An interface and its name in the container, which may have one `%d` for a number of the kernel's choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetDevice {
    host: String,
    inside: String,
}

impl NetDevice {
    fn at(&self) -> Pointer {
        Pointer::root().field("linux").field("netDevices").field(&self.host)
    }

    fn is_template(&self) -> bool {
        self.inside.contains('%')
    }
}

/// Decides about the object at `at` (`/linux/netDevices`); in the order of their names.
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
        if !device.is_template()
            && let Some(other) = planned.iter().find(|other| other.inside == device.inside)
        {
            let message = format!("name {inside:?} is already used by {:?}", other.host);
            return Err(at.field("name").error(message));
        }
        planned.push(device);
    }
    Ok(planned)
}

/// The kernel's rules for a name; dev_valid_name in its net/core/dev.c.
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

/// Interfaces in the container's network namespace. They return on drop, unless kept there.
#[derive(Debug)]
pub struct Moved {
    own: File,
    here: Socket,
    there: Socket,
    devices: Vec<Origin>,
}

/// Where an interface comes from, and what it had there.
#[derive(Debug)]
struct Origin {
    name: String,
    index: i32,
    /// The index there.
    new_index: i32,
    was_up: bool,
    addresses: Vec<Address>,
}

/// Moves `devices` into the network namespace `namespace`, and sets them up there.
///
/// # Errors
/// Then all of them are where they were.
pub fn move_into(namespace: BorrowedFd<'_>, devices: &[NetDevice]) -> Result<Moved> {
    let own = File::open(OWN).with_context(|| format!("open {OWN}"))?;
    let here = Socket::open().context("open a netlink socket")?;
    setns(namespace, libc::CLONE_NEWNET).context("enter the container's network namespace")?;
    let there = Socket::open();
    setns(own.as_fd(), libc::CLONE_NEWNET).context("return to the runtime's own network namespace")?;
    let there = there.context("open a netlink socket in the container's network namespace")?;
    let mut moved = Moved { own, here, there, devices: Vec::with_capacity(devices.len()) };
    for device in devices {
        moved.take(device, namespace)?;
    }
    Ok(moved)
}

impl Moved {
    /// Leaves the interfaces to the container.
    pub fn keep(mut self) {
        self.devices.clear();
    }

    fn take(&mut self, device: &NetDevice, namespace: BorrowedFd<'_>) -> Result<()> {
        let doing = |what: String, hint: Option<&str>| Fault {
            pointer: device.at(),
            message: what,
            hint: hint.map(str::to_owned),
        };
        let name = &device.host;
        let look = || doing(format!("query network device {name:?}"), None);
        let Some(link) = self.here.link(name).with_context(look)? else {
            return Err(Errno::NODEV).with_context(|| {
                doing(format!("find network device {name:?} in the runtime's network namespace"), None)
            });
        };
        let inside = &device.inside;
        if !device.is_template() && self.there.link(inside).with_context(look)?.is_some() {
            let message =
                format!("network device {inside:?} already exists in the container's network namespace");
            return Err(device.at().error_with_hint(message, "set another \"name\""));
        }
        // Before it goes down, with which those of IPv6 go.
        let addresses = self.here.addresses(link.index).with_context(look)?;
        let addresses: Vec<_> = addresses.into_iter().filter(Address::is_permanent).collect();
        let new_index = self.free_index(link.index).with_context(look)?;
        self.devices.push(Origin {
            name: name.clone(),
            index: link.index,
            new_index,
            was_up: link.is_up,
            addresses: addresses.clone(),
        });
        self.here.move_link(link.index, namespace, new_index, inside).map_err(|errno| {
            let hint = match errno {
                Errno::INVAL => Some("this kind of device cannot be moved between namespaces"),
                Errno::PERM => Some(
                    "requires CAP_NET_ADMIN in the device's current namespace, which rootless containers lack",
                ),
                _ => None,
            };
            let what = format!("move network device {name:?} to the container's network namespace");
            anyhow::Error::from(errno).context(doing(what, hint))
        })?;
        for address in addresses.iter().filter(|address| address.is_global()) {
            let give = || doing(format!("restore the addresses of network device {inside:?}"), None);
            self.there.add_address(new_index, address).with_context(give)?;
        }
        let set_up = || doing(format!("set network device {inside:?} up"), None);
        self.there.set_up(new_index).with_context(set_up)
    }

    /// Its own, if nobody there has it, or the next after it: a known index finds an interface whose name the kernel chooses.
    fn free_index(&mut self, wanted: i32) -> Result<i32, Errno> {
        for index in wanted..wanted.saturating_add(MOST_INDICES) {
            let is_promised = self.devices.iter().any(|device| device.new_index == index);
            if !is_promised && !self.there.is_used(index)? {
                return Ok(index);
            }
        }
        Err(Errno::BUSY)
    }

    fn give_back(&mut self, origin: &Origin) -> Result<(), Errno> {
        if self.here.link(&origin.name)?.is_some() {
            // It has never left.
            return Ok(());
        }
        let index = match self.there.move_link(origin.new_index, self.own.as_fd(), origin.index, &origin.name)
        {
            // Somebody has taken its old one.
            Err(Errno::BUSY) => {
                self.there.move_link(origin.new_index, self.own.as_fd(), origin.new_index, &origin.name)?;
                origin.new_index
            }
            moved => moved.map(|()| origin.index)?,
        };
        for address in &origin.addresses {
            // The kernel gives some by itself, and the next one matters as much.
            let _ = self.here.add_address(index, address);
        }
        if origin.was_up { self.here.set_up(index) } else { Ok(()) }
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        // The last one first: its name may be that which another had.
        while let Some(origin) = self.devices.pop() {
            // An error here must not hide the one that led here.
            let _ = self.give_back(&origin);
        }
    }
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
