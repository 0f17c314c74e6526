//! Kernel parameters of the container's namespaces; config-linux.md § Sysctl, namespaces(7).

use std::collections::HashMap;
use std::ffi::{CStr, CString};

use anyhow::Result;

use crate::error::Pointer;
use crate::plan::linux::namespaces::NamespacePlan;

/// The parameters of ipc namespaces besides fs.mqueue.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// One kernel parameter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CloneOptions {
    /// The name in the bundle.
    pub key: String,
    /// Below /proc/sys.
    pub path: CString,
    pub value: CString,
    /// The kind of namespace (`CLONE_NEW*`) that it belongs to.
    pub namespace: i32,
}

/// Kernel parameters, sorted by name.
pub type Settings = Vec<CloneOptions>;

/// Plans the object at `at` (`/linux/sysctl`).
///
/// # Errors
/// If a parameter does not belong to a namespace of the container and so would change the host.
pub fn plan(sysctl: &HashMap<String, String>, namespaces: &NamespacePlan, at: &Pointer) -> Result<Settings> {
    let mut settings = Vec::with_capacity(sysctl.len());
    for (key, value) in sysctl {
        let at = at.field(key);
        let name = with_dots(key);
        let namespace = namespace_of(&name, &at)?;
        namespaces.require(namespace, &at, &format!("{name:?}"))?;
        // In a name with dots, a slash stands for a dot within a component, as in
        // net.ipv4.conf.eno1/100.rp_filter.
        let path: String = name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect();
        if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(at.error(format_args!("invalid sysctl name {key:?}")));
        }
        let c_string = |text: String| CString::new(text).map_err(|_| at.error("contains a NUL byte"));
        let (path, value) = (c_string(path)?, c_string(value.clone())?);
        settings.push(CloneOptions { key: key.clone(), path, value, namespace });
    }
    settings.sort();
    Ok(settings)
}

/// # Errors
/// If a parameter sets another domain name than `/domainname`; as in crun.
pub fn require_domainname(settings: &Settings, name: &CStr, at: &Pointer) -> Result<()> {
    let other =
        settings.iter().find(|set| set.path.as_c_str() == c"kernel/domainname" && *set.value != *name);
    match other {
        Some(CloneOptions { key, value, .. }) => Err(at.field(key).error_with_hint(
            format_args!("{value:?} conflicts with /domainname {name:?}"),
            "use only /domainname",
        )),
        None => Ok(()),
    }
}

/// Converts separators as sysctl(8) does: whichever of `.` and `/` comes first is the separator.
fn with_dots(key: &str) -> String {
    match key.find(['.', '/']).and_then(|first| key.get(first..=first)) {
        Some("/") => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => key.to_owned(),
    }
}

fn namespace_of(name: &str, at: &Pointer) -> Result<i32> {
    if IPC.contains(&name) || name.starts_with("fs.mqueue.") {
        return Ok(libc::CLONE_NEWIPC);
    }
    if name.starts_with("net.") {
        return Ok(libc::CLONE_NEWNET);
    }
    // Limits of the user namespace; namespaces(7), "The /proc/sys/user directory".
    if name.starts_with("user.") {
        return Ok(libc::CLONE_NEWUSER);
    }
    match name {
        "kernel.domainname" => Ok(libc::CLONE_NEWUTS),
        "kernel.hostname" => {
            Err(at.error_with_hint(format_args!("sysctl {name:?} is not allowed"), "use /hostname instead"))
        }
        _ => Err(at.error(format_args!("sysctl {name:?} is not namespaced and would affect the host"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::line;

    fn planned(name: &str, kinds: i32) -> Result<Settings> {
        let namespaces = NamespacePlan { new: kinds, ..NamespacePlan::default() };
        let at = Pointer::root().field("linux").field("sysctl");
        plan(&HashMap::from([(name.to_owned(), "1".to_owned())]), &namespaces, &at)
    }

    #[test]
    fn either_separator_names_the_same_file() {
        for name in ["net.ipv4.conf.eno1/100.rp_filter", "net/ipv4/conf/eno1.100/rp_filter"] {
            let settings = planned(name, libc::CLONE_NEWNET).unwrap();
            assert_eq!(settings[0].path.as_c_str(), c"net/ipv4/conf/eno1.100/rp_filter");
        }
    }

    #[test]
    fn a_parameter_of_the_host_is_refused() {
        let error = planned("kernel.panic", libc::CLONE_NEWIPC).unwrap_err();
        assert_eq!(
            line(&error),
            "config.json: /linux/sysctl/kernel.panic: sysctl \"kernel.panic\" is not namespaced and would \
             affect the host"
        );
        assert!(planned("net.ipv4.ip_forward", libc::CLONE_NEWIPC).is_err());
        assert!(planned("user.max_mnt_namespaces", libc::CLONE_NEWUSER).is_ok());
        assert!(
            line(&planned("user.max_mnt_namespaces", 0).unwrap_err()).contains("requires a user namespace")
        );
        assert!(
            line(&planned("kernel.hostname", libc::CLONE_NEWUTS).unwrap_err())
                .contains("sysctl \"kernel.hostname\" is not allowed (use /hostname instead)")
        );
        assert!(planned("net./../kernel/panic", libc::CLONE_NEWNET).is_err());
    }
}
