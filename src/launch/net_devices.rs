//! Moves network interfaces of the host into the container (`/linux/netDevices`).
//!
//! If the container is created they stay in its namespace, and the runtime never moves them back. If not,
//! they return with their names, addresses and state.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};

use anyhow::{Context as _, Result};

use crate::error::Fault;
use crate::host::netlink::{Address, Socket};
use crate::plan::linux::net_devices::NetDevice;
use crate::sys::Errno;
use crate::sys::process::setns;

/// The runtime's own network namespace.
const OWN: &str = "/proc/self/ns/net";

/// How many interface indices are tried.
const MOST_INDICES: i32 = 1 << 16;

/// Interfaces that were moved into the container's network namespace. On drop they return, unless kept.
#[derive(Debug)]
pub struct Moved {
    own: File,
    here: Socket,
    there: Socket,
    devices: Vec<Origin>,
}

/// Where an interface came from and what it had there.
#[derive(Debug)]
struct Origin {
    name: String,
    index: i32,
    /// Its index in the container's network namespace.
    new_index: i32,
    was_up: bool,
    addresses: Vec<Address>,
}

/// Moves `devices` into the network namespace `namespace` and sets them up there.
///
/// # Errors
/// All of them have returned to where they were.
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
        // Before the move sets the interface down, which removes its IPv6 addresses.
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

    /// Returns the interface's own index if it is free there, otherwise the next free one: with a known index
    /// the interface can be found even if the kernel chooses its name.
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
            // The interface was never moved.
            return Ok(());
        }
        let index = match self.there.move_link(origin.new_index, self.own.as_fd(), origin.index, &origin.name)
        {
            // Its old index has been taken meanwhile.
            Err(Errno::BUSY) => {
                self.there.move_link(origin.new_index, self.own.as_fd(), origin.new_index, &origin.name)?;
                origin.new_index
            }
            moved => moved.map(|()| origin.index)?,
        };
        for address in &origin.addresses {
            // The kernel adds some addresses itself; a failure must not prevent the rest.
            let _ = self.here.add_address(index, address);
        }
        if origin.was_up { self.here.set_up(index) } else { Ok(()) }
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        // In reverse order: an interface may have taken the former name of another.
        while let Some(origin) = self.devices.pop() {
            // An error here must not hide the one that led here.
            let _ = self.give_back(&origin);
        }
    }
}
