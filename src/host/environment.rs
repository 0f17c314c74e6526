//! What the runtime reads from its own environment.

use crate::host::dbus::Address;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The variables needed to create and start containers.
#[derive(Debug, Default)]
pub struct Environment {
    /// `NOTIFY_SOCKET`; sd_notify(3).
    pub notify_socket: Option<OsString>,
    /// `LISTEN_FDS`, if `LISTEN_PID` is this process; sd_listen_fds(3).
    pub listen_fds: u32,
    /// Where to find systemd.
    pub buses: Buses,
}

/// Where to find systemd.
#[derive(Clone, Debug, Default)]
pub struct Buses {
    /// `XDG_RUNTIME_DIR`
    pub runtime_dir: Option<PathBuf>,
    /// `DBUS_SESSION_BUS_ADDRESS`
    pub session: Option<OsString>,
    /// `DBUS_SYSTEM_BUS_ADDRESS`
    pub system: Option<OsString>,
}

/// Which systemd instance to talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemdInstance {
    System,
    /// The user's instance, for callers other than root of the host.
    User,
}

impl Buses {
    /// The addresses to try, in order. The manager's private socket comes first, because it needs neither a
    /// bus nor its permission. If the environment says nothing, as after `su` or from cron, the runtime
    /// directory is where logind creates it for `uid`, unless that is 0: root of a user namespace may be any
    /// user.
    pub fn addresses(&self, whose: SystemdInstance, uid: u32) -> Vec<Address> {
        let own = |directory: &Path| Address::of(&directory.join("systemd/private"));
        let list = |text: &Option<std::ffi::OsString>| text.as_deref().map(Address::list).unwrap_or_default();
        match whose {
            SystemdInstance::System => {
                let mut addresses = vec![own(Path::new("/run"))];
                addresses.extend(list(&self.system));
                addresses.push(Address::of(Path::new("/run/dbus/system_bus_socket")));
                addresses
            }
            SystemdInstance::User => {
                let session = list(&self.session);
                let is_usual = self.runtime_dir.is_none() && session.is_empty() && uid != 0;
                let usual = is_usual.then(|| PathBuf::from(format!("/run/user/{uid}")));
                let directory = self.runtime_dir.as_ref().or(usual.as_ref());
                let mut addresses: Vec<_> = directory.iter().map(|directory| own(directory)).collect();
                addresses.extend(session);
                addresses.extend(directory.iter().map(|directory| Address::of(&directory.join("bus"))));
                addresses
            }
        }
    }
}

impl Environment {
    /// Reads the environment of this process.
    pub fn own() -> Self {
        let is_ours = number("LISTEN_PID") == Some(std::process::id());
        Self {
            notify_socket: std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()),
            listen_fds: number("LISTEN_FDS").filter(|_| is_ours).unwrap_or(0),
            buses: Buses {
                runtime_dir: std::env::var_os("XDG_RUNTIME_DIR")
                    .filter(|path| !path.is_empty())
                    .map(PathBuf::from),
                session: std::env::var_os("DBUS_SESSION_BUS_ADDRESS"),
                system: std::env::var_os("DBUS_SYSTEM_BUS_ADDRESS"),
            },
        }
    }
}

/// The user ID of the user who ran sudo(8), if any (`SUDO_UID`).
pub fn sudo_uid() -> Option<u32> {
    number("SUDO_UID")
}

/// Reads a number from an environment variable.
fn number(name: &str) -> Option<u32> {
    std::env::var(name).ok()?.parse().ok()
}
