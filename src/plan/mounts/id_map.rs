//! Id-mapped bind mounts; config.md § Mounts, `uidMappings`, mount_setattr(2).

use anyhow::Result;
use oci_spec::runtime;

use super::options::Options;
use crate::error::Pointer;
use crate::plan::linux::id_maps::{IdMaps, Map, Range};
use crate::sys::mount::Recursion;

/// How a bind mount is id-mapped.
#[derive(Clone, Debug)]
pub struct IdMapping {
    wanted: Wanted,
    /// Whether submounts are id-mapped, too.
    pub reach: Recursion,
    /// The pointer to the option or field that requests it.
    pub at: Pointer,
    /// The pointer to the mount.
    pub mount: Pointer,
}

#[derive(Clone, Debug)]
enum Wanted {
    /// The same maps as the container's user namespace.
    AsContainer,
    These(IdMaps),
    /// crun's option, whose ranges may refer to ids of the container.
    Option {
        users: Vec<Triplet>,
        groups: Vec<Triplet>,
    },
}

/// Ids in the source, ids shown, and their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Triplet {
    range: Range,
    /// Whether the shown ids are given as ids in the container's user namespace.
    is_relative: bool,
}

/// Which user namespace supplies the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The container's user namespace.
    Container,
    /// A new one.
    Own,
}

/// Plans the id mapping of `mount`, the object at `at`; `None` if it has none.
///
/// # Errors
/// If it is not a bind mount, if user or group ids are missing, or if mappings are given twice.
pub(super) fn plan(
    mount: &runtime::Mount,
    sum: &Options<'_>,
    is_bind: bool,
    at: &Pointer,
) -> Result<Option<IdMapping>> {
    let given = IdMaps::plan(mount.uid_mappings().as_ref(), mount.gid_mappings().as_ref(), at)?;
    let (place, reach, text) = match (&given, sum.id_map) {
        (None, None) => return Ok(None),
        (_, Some((index, reach, text))) => (at.field("options").index(index), reach, text),
        (Some(_), None) => (at.field("uidMappings"), Recursion::ThisMount, None),
    };
    if !is_bind {
        return Err(place.error("id-mapped mounts are only supported for bind-mounts"));
    }
    if sum.remount {
        return Err(place.error("id mappings cannot be changed by a remount"));
    }
    let wanted = match (given, text) {
        (Some(_), Some(_)) => {
            let message = "id mappings are given both by the option and by uidMappings and gidMappings";
            return Err(place.error_with_hint(message, "remove one of them"));
        }
        (Some(maps), None) => Wanted::These(maps),
        (None, Some(text)) => by_option(text, &place)?,
        (None, None) => Wanted::AsContainer,
    };
    Ok(Some(IdMapping { wanted, reach, at: place, mount: at.clone() }))
}

impl IdMapping {
    /// Returns the maps, given the maps of the container's user namespace, if it has one.
    pub fn resolve(&self, container: Option<&IdMaps>) -> Result<(IdMaps, Origin)> {
        match (&self.wanted, container) {
            (Wanted::AsContainer, Some(container)) => Ok((container.clone(), Origin::Container)),
            (Wanted::AsContainer, None) => Err(self.at.error_with_hint(
                "id-mapped mounts must have both uid and gid mappings specified",
                "set uidMappings and gidMappings, or use a user namespace",
            )),
            (Wanted::These(maps), _) => Ok((maps.clone(), Origin::Own)),
            (Wanted::Option { users, groups }, _) => {
                let absolute = |triplets: &[Triplet], container: Option<&Map>| {
                    let ranges = triplets.iter().map(|triplet| triplet.absolute(container, &self.at));
                    Map::checked(ranges.collect::<Result<_>>()?, &self.at, |_, _| self.at.clone())
                };
                let maps = IdMaps {
                    users: absolute(users, container.map(|maps| &maps.users))?,
                    groups: absolute(groups, container.map(|maps| &maps.groups))?,
                };
                Ok((maps, Origin::Own))
            }
        }
    }
}

impl Triplet {
    fn absolute(self, container: Option<&Map>, at: &Pointer) -> Result<Range> {
        if !self.is_relative {
            return Ok(self.range);
        }
        let Range { outside: id, size, .. } = self.range;
        let Some(container) = container else {
            return Err(at.error("a mapping with \"@\" requires a user namespace"));
        };
        let last = id.checked_add(size.saturating_sub(1));
        match (container.outside(id), last.and_then(|last| container.outside(last))) {
            (Some(outside), Some(end)) if end.checked_sub(outside) == size.checked_sub(1) => {
                Ok(Range { outside, ..self.range })
            }
            _ => {
                let message = format!(
                    "{size} ids starting at {id} are not covered by a single range of the container's mappings"
                );
                Err(at.error(message))
            }
        }
    }
}

/// Parses `uids=FROM-TO-SIZE#…;gids=…`; an `@` before a triplet means that TO is an id of the container.
fn by_option(text: &str, at: &Pointer) -> Result<Wanted> {
    let (mut users, mut groups) = (Vec::new(), Vec::new());
    for part in text.split(';').filter(|part| !part.is_empty()) {
        let (list, triplets) = match part.split_once('=') {
            Some(("uids", list)) => (list, &mut users),
            Some(("gids", list)) => (list, &mut groups),
            _ => return Err(malformed(part, at)),
        };
        for text in list.split('#').filter(|text| !text.is_empty()) {
            triplets.push(triplet(text).ok_or_else(|| malformed(text, at))?);
        }
    }
    if users.is_empty() || groups.is_empty() {
        return Err(at.error("id-mapped mounts must have both uid and gid mappings specified"));
    }
    Ok(Wanted::Option { users, groups })
}

fn malformed(text: &str, at: &Pointer) -> anyhow::Error {
    at.error_with_hint(
        format_args!("invalid id mapping {text:?}"),
        "expected FROM-TO-SIZE triplets, e.g. \"idmap=uids=0-1000-1#1-2000-9;gids=@0-0-10\"; with \"@\", \
         TO is an id in the container",
    )
}

fn triplet(text: &str) -> Option<Triplet> {
    let (is_relative, numbers) = match text.strip_prefix('@') {
        Some(numbers) => (true, numbers),
        None => (false, text),
    };
    let mut numbers = numbers.split('-').map(str::parse);
    let mut next = || numbers.next()?.ok();
    let range = Range { inside: next()?, outside: next()?, size: next()? };
    numbers.next().is_none().then_some(Triplet { range, is_relative })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::error::line;

    fn planned(value: Value) -> Result<Option<IdMapping>> {
        let mount: runtime::Mount = serde_json::from_value(value).unwrap();
        let options = mount.options().clone().unwrap_or_default();
        let sum = Options::parse(&options);
        let is_bind = sum.bind.is_some();
        plan(&mount, &sum, is_bind, &Pointer::root().field("mounts").index(0))
    }

    fn bind(options: &[&str], mappings: Option<Value>) -> Value {
        let options: Vec<_> = ["rbind"].iter().chain(options).collect();
        let mut mount = json!({ "destination": "/a", "source": "/a", "options": options });
        if let Some(mappings) = mappings {
            mount["uidMappings"] = mappings.clone();
            mount["gidMappings"] = mappings;
        }
        mount
    }

    fn container() -> IdMaps {
        let range = Range { inside: 0, outside: 1000, size: 10 };
        let map = Map::checked(vec![range], &Pointer::root(), |_, _| Pointer::root()).unwrap();
        IdMaps { users: map.clone(), groups: map }
    }

    fn refused(value: Value) -> String {
        let planned = planned(value);
        let resolved = planned.and_then(|mapping| mapping.unwrap().resolve(Some(&container())));
        line(&resolved.unwrap_err())
    }

    #[test]
    fn mappings_are_for_the_mount_itself_unless_an_option_says_otherwise() {
        let one = json!([{ "containerID": 5, "hostID": 7, "size": 1 }]);
        let reach = |options: &[&str]| planned(bind(options, Some(one.clone()))).unwrap().unwrap().reach;
        assert_eq!(reach(&[]), Recursion::ThisMount);
        assert_eq!(reach(&["idmap"]), Recursion::ThisMount);
        assert_eq!(reach(&["idmap", "ridmap"]), Recursion::WholeTree);
        assert!(planned(bind(&[], None)).unwrap().is_none());
    }

    #[test]
    fn an_option_alone_means_the_containers_mapping() {
        let mapping = planned(bind(&["idmap"], None)).unwrap().unwrap();
        assert_eq!(mapping.resolve(Some(&container())).unwrap(), (container(), Origin::Container));
        assert_eq!(
            line(&mapping.resolve(None).unwrap_err()),
            "config.json: /mounts/0/options/1: id-mapped mounts must have both uid and gid mappings \
             specified (set uidMappings and gidMappings, or use a user namespace)"
        );
    }

    #[test]
    fn crun_s_option_maps_from_the_source_to_outside_or_to_the_container() {
        let option = "idmap=uids=0-1-10#10-11-10;gids=@3-5-2";
        let mapping = planned(bind(&[option], None)).unwrap().unwrap();
        let (maps, origin) = mapping.resolve(Some(&container())).unwrap();
        assert_eq!((maps.users.text(), origin), ("0 1 10\n10 11 10\n".into(), Origin::Own));
        assert_eq!(maps.groups.text(), "3 1005 2\n");
        assert!(line(&mapping.resolve(None).unwrap_err()).contains("requires a user namespace"));
    }

    #[test]
    fn an_option_that_makes_no_sense_is_refused() {
        let at = "config.json: /mounts/0/options/1: ";
        for (option, message) in [
            ("idmap=uids=0-1", "invalid id mapping \"0-1\""),
            ("idmap=uids=0-1-2-3;gids=0-1-2", "invalid id mapping \"0-1-2-3\""),
            ("idmap=0-1-2", "invalid id mapping \"0-1-2\""),
            ("idmap=uids=0-1-2", "id-mapped mounts must have both uid and gid mappings specified"),
            (
                "ridmap=uids=@0-8-3;gids=0-0-1",
                "3 ids starting at 8 are not covered by a single range of the container's mappings",
            ),
            ("idmap=uids=0-1-0;gids=0-0-1", "size must be at least 1"),
        ] {
            let said = refused(bind(&[option], None));
            assert!(said.starts_with(&format!("{at}{message}")), "{option}: {said}");
        }
        let one = json!([{ "containerID": 5, "hostID": 7, "size": 1 }]);
        let twice = refused(bind(&["idmap=uids=0-1-2;gids=0-1-2"], Some(one.clone())));
        assert!(twice.contains("mappings are given both by the option and by uidMappings"), "{twice}");
        let tmpfs = json!({ "destination": "/a", "type": "tmpfs", "uidMappings": one, "gidMappings": one });
        assert_eq!(
            refused(tmpfs),
            "config.json: /mounts/0/uidMappings: id-mapped mounts are only supported for bind-mounts"
        );
        let one_kind = json!({ "destination": "/a", "options": ["bind"], "uidMappings": one });
        assert!(
            refused(one_kind)
                .starts_with("config.json: /mounts/0/gidMappings: required when uidMappings is set")
        );
    }
}
