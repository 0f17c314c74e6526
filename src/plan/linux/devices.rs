//! Device nodes and symbolic links of /dev; config-linux.md § Default Devices, § Devices.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::Result;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

use crate::error::Pointer;
use crate::host::path;
use crate::init::step::{Entry, Step};

/// The device nodes of every container: name, major, minor.
const DEFAULT: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// The symbolic links of every container.
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// What is made in each directory, beginning with /dev.
#[derive(Debug)]
pub struct DevicePlan {
    directories: Vec<Directory>,
}

#[derive(Debug)]
struct Directory {
    path: CString,
    entries: Vec<Entry>,
    /// For each entry, its index in `/linux/devices` if it comes from there.
    places: Vec<Option<usize>>,
}

/// Plans `devices`, the array at `at` (`/linux/devices`).
pub fn plan(devices: &[LinuxDevice], at: &Pointer) -> Result<DevicePlan> {
    let mut plan = DevicePlan {
        directories: vec![Directory { path: c"/dev".into(), entries: Vec::new(), places: Vec::new() }],
    };
    let mut own = Vec::new();
    for (index, device) in devices.iter().enumerate() {
        let at = at.index(index);
        let path = path::inside(device.path(), &at.field("path"))?;
        if device.path().is_relative() {
            return Err(at.field("path").error(format_args!("path {:?} must be absolute", device.path())));
        }
        let text = Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()));
        let (Some(directory), Some(name)) = (text.parent(), text.file_name()) else {
            return Err(at
                .field("path")
                .error(format_args!("path {:?} is the root directory", device.path())));
        };
        let entry = node(device, path::c_string(Path::new(name), &at)?, &at)?;
        // /dev/ptmx is always the link into the container's own devpts, see below.
        if path.as_bytes() == b"/dev/ptmx" {
            continue;
        }
        plan.add(path::c_string(directory, &at)?, entry, Some(index));
        own.push(path);
    }
    for (name, major, minor) in DEFAULT {
        if !own.iter().any(|path| path.as_bytes() == format!("/dev/{name}").as_bytes()) {
            let mode = libc::S_IFCHR | 0o666;
            let entry = Entry::Node {
                name: CString::new(name)?,
                mode,
                device: libc::makedev(major, minor),
                uid: 0,
                gid: 0,
                ready: None,
            };
            plan.add(c"/dev".into(), entry, None);
        }
    }
    for (name, target) in LINKS {
        plan.add(
            c"/dev".into(),
            Entry::Link { name: CString::new(name)?, target: CString::new(target)? },
            None,
        );
    }
    let ptmx = Entry::ReplacingLink { name: c"ptmx".into(), target: c"pts/ptmx".into() };
    plan.add(c"/dev".into(), ptmx, None);
    Ok(plan)
}

impl DevicePlan {
    /// Returns the steps, each with the indices of its entries in `/linux/devices`. `has_kcore`: whether
    /// /proc/kcore exists, for the link /dev/core. `made`: the nodes that the parent has made, by index.
    pub fn steps(mut self, has_kcore: bool, made: Vec<(usize, CString)>) -> Vec<(Vec<Option<usize>>, Step)> {
        let names: std::collections::HashMap<usize, CString> = made.into_iter().collect();
        for (place, entry) in self.configured_mut() {
            if let Entry::Node { ready, .. } = entry {
                *ready = names.get(&place).cloned();
            }
        }
        if has_kcore {
            let core = Entry::Link { name: c"core".into(), target: c"/proc/kcore".into() };
            self.add(c"/dev".into(), core, None);
        }
        self.directories
            .into_iter()
            .map(|Directory { path, entries, places }| (places, Step::Populate { directory: path, entries }))
            .collect()
    }

    /// The entries from `/linux/devices` with their indices.
    pub fn configured(&self) -> impl Iterator<Item = (usize, &Entry)> {
        let all =
            self.directories.iter().flat_map(|directory| directory.places.iter().zip(&directory.entries));
        all.filter_map(|(place, entry)| Some(((*place)?, entry)))
    }

    fn configured_mut(&mut self) -> impl Iterator<Item = (usize, &mut Entry)> {
        let all = self
            .directories
            .iter_mut()
            .flat_map(|directory| directory.places.iter().copied().zip(&mut directory.entries));
        all.filter_map(|(place, entry)| Some((place?, entry)))
    }

    fn add(&mut self, directory: CString, entry: Entry, place: Option<usize>) {
        match self.directories.iter_mut().find(|existing| existing.path == directory) {
            Some(existing) => {
                existing.entries.push(entry);
                existing.places.push(place);
            }
            None => self.directories.push(Directory {
                path: directory,
                entries: vec![entry],
                places: vec![place],
            }),
        }
    }
}

fn node(device: &LinuxDevice, name: CString, at: &Pointer) -> Result<Entry> {
    let kind = match device.typ() {
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
        LinuxDeviceType::P => libc::S_IFIFO,
        LinuxDeviceType::A => {
            return Err(at
                .field("type")
                .error_with_hint("type \"a\" is not a device", "use \"b\", \"c\" or \"p\""));
        }
    };
    let number = |value: i64, field: &str, most: u32| {
        u32::try_from(value)
            .ok()
            .filter(|number| *number <= most)
            .ok_or_else(|| at.field(field).error(format_args!("{value} is out of range (0 to {most})")))
    };
    for (id, field) in [(device.uid(), "uid"), (device.gid(), "gid")] {
        // To chown(2) this number means "leave the id unchanged".
        if id == Some(u32::MAX) {
            return Err(at.field(field).error(format_args!("invalid id {}", u32::MAX)));
        }
    }
    // The kernel has 12 bits for major and 20 bits for minor numbers.
    let device_number = match device.typ() {
        LinuxDeviceType::P => 0,
        _ => {
            libc::makedev(number(device.major(), "major", 0xfff)?, number(device.minor(), "minor", 0xf_ffff)?)
        }
    };
    Ok(Entry::Node {
        name,
        mode: kind | device.file_mode().map_or(0o666, |mode| mode & 0o7777),
        device: device_number,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        ready: None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::line;

    fn planned(value: serde_json::Value) -> Result<DevicePlan> {
        let devices: Vec<LinuxDevice> = serde_json::from_value(value).unwrap();
        plan(&devices, &Pointer::root().field("linux").field("devices"))
    }

    #[test]
    fn a_configured_device_takes_the_place_of_a_default_one() {
        let plan =
            planned(json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 384}]))
                .unwrap();
        let nodes: Vec<_> = plan.directories[0]
            .entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Node { name, mode, .. } if name.as_c_str() == c"null" => Some(mode & 0o7777),
                _ => None,
            })
            .collect();
        assert_eq!(nodes, [0o600]);
    }

    #[test]
    fn devices_are_made_in_the_directory_that_their_path_names() {
        let plan = planned(json!([{"path": "/dev/net/../net/tun", "type": "c", "major": 10, "minor": 200}]))
            .unwrap();
        assert_eq!(plan.directories[1].path.as_c_str(), c"/dev/net");
    }

    #[test]
    fn a_wrong_number_is_named_with_its_range() {
        let error = planned(json!([{"path": "/dev/x", "type": "b", "major": -2, "minor": 0}])).unwrap_err();
        assert_eq!(line(&error), "config.json: /linux/devices/0/major: -2 is out of range (0 to 4095)");
    }
}
