//! Which namespaces are made and which are joined; config-linux.md § Namespaces, namespaces(7).

use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use anyhow::Result;
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};

use crate::error::Pointer;
use crate::sys::process::CLONE_NEWTIME;

/// The supported kinds of namespaces: `CLONE_NEW*` and the name in the specification.
const KINDS: [(LinuxNamespaceType, i32, &str); 8] = [
    (LinuxNamespaceType::Pid, libc::CLONE_NEWPID, "pid"),
    (LinuxNamespaceType::Network, libc::CLONE_NEWNET, "network"),
    (LinuxNamespaceType::Mount, libc::CLONE_NEWNS, "mount"),
    (LinuxNamespaceType::Ipc, libc::CLONE_NEWIPC, "ipc"),
    (LinuxNamespaceType::Uts, libc::CLONE_NEWUTS, "uts"),
    (LinuxNamespaceType::User, libc::CLONE_NEWUSER, "user"),
    (LinuxNamespaceType::Cgroup, libc::CLONE_NEWCGROUP, "cgroup"),
    (LinuxNamespaceType::Time, CLONE_NEWTIME, "time"),
];

/// The container's namespaces.
#[derive(Debug, Default)]
pub struct NamespacePlan {
    /// The kinds to make (`CLONE_NEW*`).
    pub new: i32,
    pub join: Vec<Join>,
    /// The clock offsets of a new time namespace, as written to /proc/PID/timens_offsets.
    pub time_offsets: Option<CString>,
}

/// A namespace that exists already.
#[derive(Clone, Debug)]
pub struct Join {
    /// `CLONE_NEW*`.
    pub kind: i32,
    pub path: PathBuf,
    /// Its index in `/linux/namespaces`.
    pub index: usize,
}

impl Join {
    /// The pointer to its path in `config.json`.
    pub fn at(&self) -> Pointer {
        Pointer::root().field("linux").field("namespaces").index(self.index).field("path")
    }
}

/// The name of a `CLONE_NEW*` in the specification.
pub fn word(kind: i32) -> &'static str {
    KINDS.iter().find(|(_, bit, _)| *bit == kind).map_or("unknown", |(_, _, word)| word)
}

/// The names of all supported kinds.
pub fn known() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(_, _, word)| *word)
}

/// The names of several kinds, as `ipc, network`.
pub fn words(kinds: i32) -> String {
    let these = KINDS.iter().filter(|(_, bit, _)| kinds & bit != 0);
    these.map(|(_, _, word)| *word).collect::<Vec<_>>().join(", ")
}

/// `CLONE_NEW*`, the name in the state file, and the name in /proc/PID/ns.
pub const LINKS: [(i32, &str, &str); 8] = [
    (libc::CLONE_NEWCGROUP, "NEWCGROUP", "cgroup"),
    (libc::CLONE_NEWIPC, "NEWIPC", "ipc"),
    (libc::CLONE_NEWNET, "NEWNET", "net"),
    (libc::CLONE_NEWNS, "NEWNS", "mnt"),
    (libc::CLONE_NEWPID, "NEWPID", "pid"),
    (CLONE_NEWTIME, "NEWTIME", "time"),
    (libc::CLONE_NEWUSER, "NEWUSER", "user"),
    (libc::CLONE_NEWUTS, "NEWUTS", "uts"),
];

/// Whether `path` leads to the namespace that `namespace` refers to.
pub fn is_at(namespace: BorrowedFd<'_>, path: &Path) -> bool {
    let pair = (rustix::fs::fstat(namespace), rustix::fs::stat(path));
    matches!(pair, (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

/// Plans `namespaces`, the array at `at` (`/linux/namespaces`).
pub fn plan(namespaces: &[LinuxNamespace], at: &Pointer) -> Result<NamespacePlan> {
    let mut plan = NamespacePlan::default();
    let mut seen = 0;
    for (index, namespace) in namespaces.iter().enumerate() {
        let at = at.index(index);
        let kind = KINDS.iter().find(|(kind, _, _)| *kind == namespace.typ()).map_or(0, |(_, bit, _)| *bit);
        if seen & kind != 0 {
            return Err(at.field("type").error(format_args!("duplicate namespace {:?}", word(kind))));
        }
        seen |= kind;
        match namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
            None => plan.new |= kind,
            Some(path) if path.is_absolute() => plan.join.push(Join { kind, path: path.clone(), index }),
            Some(path) => {
                let message = format!("path {path:?} must be absolute");
                return Err(at.field("path").error_with_hint(message, "e.g. \"/proc/PID/ns/net\""));
            }
        }
    }
    if plan.is_new(libc::CLONE_NEWUSER) {
        if let Some(join) = plan.join.iter().find(|join| join.kind == libc::CLONE_NEWNS) {
            return Err(join.at().error_with_hint(
                "a new user namespace has no privileges over an existing mount namespace",
                "create a new mount namespace as well, or join the user namespace that owns it",
            ));
        }
    }
    Ok(plan)
}

impl NamespacePlan {
    /// Whether the container has a namespace of `kind` (`CLONE_NEW*`) other than the runtime's.
    pub fn has(&self, kind: i32) -> bool {
        self.is_new(kind) || self.join.iter().any(|join| join.kind == kind)
    }

    /// All kinds (`CLONE_NEW*`) of which the container's namespace is not the runtime's.
    pub fn kinds(&self) -> i32 {
        self.join.iter().fold(self.new, |kinds, join| kinds | join.kind)
    }

    /// The same plan without joining a namespace of `kind`.
    pub fn without(mut self, kind: i32) -> Self {
        self.join.retain(|join| join.kind != kind);
        self
    }

    /// The namespace of `kind` to join, if there is one.
    pub fn joined(&self, kind: i32) -> Option<&Join> {
        self.join.iter().find(|join| join.kind == kind)
    }

    pub fn is_new(&self, kind: i32) -> bool {
        self.new & kind != 0
    }

    /// # Errors
    /// If the container has no namespace of `kind`, which the value at `at` requires.
    pub fn require(&self, kind: i32, at: &Pointer, what: &str) -> Result<()> {
        if self.has(kind) {
            return Ok(());
        }
        let word = word(kind);
        Err(at.error_with_hint(
            format_args!("{what} requires a {word} namespace"),
            format_args!("add {{\"type\": \"{word}\"}} to /linux/namespaces"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::line;

    fn planned(value: serde_json::Value) -> Result<NamespacePlan> {
        let namespaces: Vec<LinuxNamespace> = serde_json::from_value(value).unwrap();
        plan(&namespaces, &Pointer::root().field("linux").field("namespaces"))
    }

    #[test]
    fn a_namespace_with_a_path_is_joined_and_one_without_is_made() {
        let plan = planned(json!([{"type": "pid"}, {"type": "network", "path": "/proc/1/ns/net"}])).unwrap();
        assert_eq!(plan.new, libc::CLONE_NEWPID);
        assert!(plan.has(libc::CLONE_NEWNET) && !plan.is_new(libc::CLONE_NEWNET));
        assert!(!plan.has(libc::CLONE_NEWUTS));
    }

    #[test]
    fn a_namespace_named_twice_is_refused_even_if_one_of_them_is_joined() {
        let error = planned(json!([{"type": "ipc"}, {"type": "ipc", "path": "/proc/1/ns/ipc"}])).unwrap_err();
        assert_eq!(line(&error), "config.json: /linux/namespaces/1/type: duplicate namespace \"ipc\"");
    }
}
