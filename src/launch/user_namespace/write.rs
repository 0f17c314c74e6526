//! Writes the id maps of a new user namespace: directly where the runtime is permitted to, otherwise with
//! newuidmap(1) and newgidmap(1), which may map what /etc/subuid and /etc/subgid grant.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, anyhow};

use crate::error::{Fault, Pointer};
use crate::plan::linux::id_maps::{IdMaps, Map};
use crate::sys::cred::Sets;

/// capabilities(7).
const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;

/// Who writes the maps.
#[derive(Clone, Copy, Debug)]
pub struct Writer {
    pub uid: u32,
    pub gid: u32,
    pub capabilities: Sets,
}

/// How a map is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Directly, any map: the writer has CAP_SETUID or CAP_SETGID.
    Directly,
    /// Directly, the writer's own id and no other, which needs no privileges.
    OwnId,
    Tool,
}

/// Id maps that have not been written yet.
#[derive(Debug)]
pub struct Unwritten {
    maps: IdMaps,
    users: Way,
    groups: Way,
}

impl Writer {
    /// This process, with these capabilities.
    pub fn own(capabilities: Sets) -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        Self { uid: uid.as_raw(), gid: gid.as_raw(), capabilities }
    }
}

impl Unwritten {
    /// Decides how `writer` writes `maps`.
    pub fn by(writer: Writer, maps: IdMaps) -> Self {
        let may = |capability: u32| writer.capabilities.effective >> capability & 1 == 1;
        let way = |map: &Map, capability: u32, id: u32| match () {
            () if may(capability) => Way::Directly,
            () if map.is_only(id) => Way::OwnId,
            () => Way::Tool,
        };
        Self {
            users: way(&maps.users, CAP_SETUID, writer.uid),
            groups: way(&maps.groups, CAP_SETGID, writer.gid),
            maps,
        }
    }

    /// Whether setgroups(2) is denied in the namespace. The kernel requires this to map one's own group
    /// without privileges, because a process could otherwise drop a group that restricts it;
    /// user_namespaces(7).
    pub fn denies_setgroups(&self) -> bool {
        self.groups == Way::OwnId
    }

    /// Writes the maps for the user namespace of process `pid`, a child of this one that has not been reaped.
    ///
    /// # Errors
    /// Points at the field of the object at `at`; includes the output of a failed newuidmap or newgidmap.
    pub fn write(&self, pid: i32, at: &Pointer) -> Result<()> {
        if self.denies_setgroups() {
            write(pid, "setgroups", "deny").with_context(|| Fault {
                pointer: at.field("gidMappings"),
                message: format!("write \"deny\" to /proc/{pid}/setgroups"),
                hint: None,
            })?;
        }
        let users = MapWriter::new(pid, IdKind { word: "uid", at }, self.users, &self.maps.users)?;
        let groups = MapWriter::new(pid, IdKind { word: "gid", at }, self.groups, &self.maps.groups)?;
        users.end()?;
        groups.end()
    }
}

/// `uid` or `gid`, and the object that holds the mappings.
#[derive(Clone, Copy)]
struct IdKind<'a> {
    word: &'static str,
    at: &'a Pointer,
}

impl IdKind<'_> {
    fn fault(self, message: String, hint: Option<String>) -> Fault {
        Fault { pointer: self.at.field(&format!("{}Mappings", self.word)), message, hint }
    }

    fn tool(self) -> String {
        format!("new{}map", self.word)
    }
}

/// A map that is being written. A tool takes a moment, so both run at the same time.
struct MapWriter<'a> {
    kind: IdKind<'a>,
    tool: Option<Child>,
}

impl<'a> MapWriter<'a> {
    fn new(pid: i32, kind: IdKind<'a>, way: Way, map: &Map) -> Result<Self> {
        let text = map.text();
        if way == Way::Tool {
            return Ok(Self { kind, tool: Some(run_tool(pid, kind, &text)?) });
        }
        let file = format!("{}_map", kind.word);
        write(pid, &file, &text).map_err(|error| {
            let hint = (error.raw_os_error() == Some(libc::EPERM)).then(|| {
                "the ids must be mapped in the runtime's own user namespace, and it needs CAP_SETUID or \
                 CAP_SETGID there"
                    .into()
            });
            let message = format!("write {:?} to /proc/{pid}/{file}", text.trim_end());
            anyhow!(error).context(kind.fault(message, hint))
        })?;
        Ok(Self { kind, tool: None })
    }

    fn end(self) -> Result<()> {
        let Self { kind, tool } = self;
        let Some(running) = tool else { return Ok(()) };
        let ended = running.wait_with_output().with_context(|| kind.fault(kind.tool(), None))?;
        if ended.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&ended.stderr);
        let said = said.trim().replace('\n', "; ");
        let said = said.strip_prefix(&format!("{}: ", kind.tool())).unwrap_or(&said);
        let said = if said.is_empty() { ended.status.to_string() } else { said.to_owned() };
        let hint =
            format!("allow these ids for the user in /etc/sub{0}, or map only the user's own {0}", kind.word);
        Err(kind.fault(format!("{}: {said}", kind.tool()), Some(hint)).into())
    }
}

fn run_tool(pid: i32, kind: IdKind<'_>, text: &str) -> Result<Child> {
    let mut command = Command::new(kind.tool());
    command.arg(pid.to_string()).args(text.split_ascii_whitespace());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            let message = format!(
                "{} is not installed, but is required to map ids other than the user's own",
                kind.tool()
            );
            kind.fault(message, Some("install package uidmap or shadow-utils".into())).into()
        }
        _ => anyhow!(error).context(kind.fault(kind.tool(), None)),
    })
}

/// Writes an existing file of the process in one write(2), as the kernel requires.
fn write(pid: i32, file: &str, text: &str) -> std::io::Result<()> {
    OpenOptions::new().write(true).open(format!("/proc/{pid}/{file}"))?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(ranges: &[(u32, u32, u32)]) -> Map {
        let line = |(inside, outside, size): &(u32, u32, u32)| format!("{inside} {outside} {size}\n");
        Map::parse(&ranges.iter().map(line).collect::<String>()).unwrap()
    }

    fn ways(uids: &[(u32, u32, u32)], gids: &[(u32, u32, u32)], effective: u64) -> (Way, Way) {
        let capabilities = Sets { effective, ..Sets::default() };
        let writer = Writer { uid: 1000, gid: 1001, capabilities };
        let unwritten = Unwritten::by(writer, IdMaps { users: map(uids), groups: map(gids) });
        assert_eq!(unwritten.denies_setgroups(), unwritten.groups == Way::OwnId);
        (unwritten.users, unwritten.groups)
    }

    #[test]
    fn an_ordinary_user_maps_their_own_ids_directly_and_others_by_a_tool() {
        assert_eq!(ways(&[(0, 1000, 1)], &[(7, 1001, 1)], 0), (Way::OwnId, Way::OwnId));
        assert_eq!(ways(&[(0, 1000, 2)], &[(0, 1000, 1)], 0), (Way::Tool, Way::Tool));
        assert_eq!(ways(&[(0, 1000, 1)], &[(0, 1001, 1), (1, 100_000, 9)], 0), (Way::OwnId, Way::Tool));
    }

    #[test]
    fn whoever_may_become_anybody_needs_no_tool_and_denies_nothing() {
        let both = 1 << CAP_SETUID | 1 << CAP_SETGID;
        assert_eq!(ways(&[(0, 1000, 1)], &[(0, 1001, 1)], both), (Way::Directly, Way::Directly));
        assert_eq!(ways(&[(0, 5, 9)], &[(0, 5, 9)], 1 << CAP_SETUID), (Way::Directly, Way::Tool));
    }
}
