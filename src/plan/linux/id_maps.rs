//! Id maps of user namespaces; config-linux.md § User namespace mappings, user_namespaces(7).
//!
//! Errors that the kernel would report without a reason are found here. `launch/user_namespace/` writes the
//! maps once there is a process in the namespace.

use anyhow::Result;
use oci_spec::runtime::{Linux, LinuxIdMapping};

use crate::error::Pointer;
use crate::plan::linux::namespaces::NamespacePlan;

/// The kernel's limit of lines.
const MOST_RANGES: usize = 340;
/// The kernel's limit of bytes: less than a page.
const MOST_BYTES: usize = 4095;

/// Consecutive ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    pub inside: u32,
    pub outside: u32,
    /// At least 1; no range exceeds the largest id.
    pub size: u32,
}

/// The map of user or group ids, in the order of `config.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map(Vec<Range>);

/// The id maps of a user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMaps {
    pub users: Map,
    pub groups: Map,
}

impl Map {
    /// Returns the id outside the namespace that `inside` maps to.
    pub fn outside(&self, inside: u32) -> Option<u32> {
        let range = self.0.iter().find(|range| inside.wrapping_sub(range.inside) < range.size)?;
        range.outside.checked_add(inside.wrapping_sub(range.inside))
    }

    /// Parses the kernel's text of a map, as in /proc/PID/uid_map; `None` if it is invalid.
    pub fn parse(text: &str) -> Option<Self> {
        let one = |line: &str| {
            let mut numbers = line.split_ascii_whitespace().map(str::parse);
            let mut next = || numbers.next()?.ok();
            Some(Range { inside: next()?, outside: next()?, size: next()? })
        };
        text.lines().map(one).collect::<Option<Vec<_>>>().map(Self)
    }

    /// The map as the text of /proc/PID/uid_map.
    pub fn text(&self) -> String {
        self.0.iter().map(|Range { inside, outside, size }| format!("{inside} {outside} {size}\n")).collect()
    }

    /// Whether the map contains one id only, which is `id` outside: a process may write such a map without
    /// privileges.
    pub fn is_only(&self, id: u32) -> bool {
        matches!(&self.0[..], [range] if range.size == 1 && range.outside == id)
    }

    fn plan(ranges: &[LinuxIdMapping], at: &Pointer) -> Result<Self> {
        let range = |range: &LinuxIdMapping| Range {
            inside: range.container_id(),
            outside: range.host_id(),
            size: range.size(),
        };
        let place = |index: usize, field: &str| at.index(index).field(field);
        Self::checked(ranges.iter().map(range).collect(), at, place)
    }

    /// Checks the ranges of the array at `at`. `place` gives the pointer to a number of one of them.
    ///
    /// # Errors
    /// If the kernel would refuse the map without a reason.
    pub fn checked(
        ranges: Vec<Range>,
        at: &Pointer,
        place: impl Fn(usize, &'static str) -> Pointer,
    ) -> Result<Self> {
        if ranges.len() > MOST_RANGES {
            return Err(
                at.error(format_args!("{} ranges exceed the kernel's limit of {MOST_RANGES}", ranges.len()))
            );
        }
        for (index, range) in ranges.iter().enumerate() {
            if range.size == 0 {
                return Err(place(index, "size").error("size must be at least 1"));
            }
            for (first, field) in [(range.inside, "containerID"), (range.outside, "hostID")] {
                if first.checked_add(range.size).is_none() {
                    let message = format!("{} ids starting at {first} exceed 4294967294", range.size);
                    return Err(place(index, field).error(message));
                }
            }
            let overlap =
                |a: u32, b: u32, size: u32| a.wrapping_sub(b) < size || b.wrapping_sub(a) < range.size;
            for (other_index, other) in ranges.iter().enumerate().take(index) {
                for (first, other_first, field) in
                    [(range.inside, other.inside, "containerID"), (range.outside, other.outside, "hostID")]
                {
                    if overlap(first, other_first, other.size) {
                        let message = format!(
                            "{} ids starting at {first} overlap with range {other_index}",
                            range.size
                        );
                        return Err(place(index, field).error(message));
                    }
                }
            }
        }
        let map = Self(ranges);
        if map.text().len() > MOST_BYTES {
            return Err(at.error(format_args!("mappings exceed the kernel's limit of {MOST_BYTES} bytes")));
        }
        Ok(map)
    }
}

impl IdMaps {
    /// Plans `uidMappings` and `gidMappings` of the object at `at`; `None` if there are none.
    ///
    /// # Errors
    /// If only one of the two is given, or the kernel would refuse a range.
    pub fn plan(
        users: Option<&Vec<LinuxIdMapping>>,
        groups: Option<&Vec<LinuxIdMapping>>,
        at: &Pointer,
    ) -> Result<Option<Self>> {
        let given = |ranges: Option<&'_ Vec<LinuxIdMapping>>| ranges.is_some_and(|ranges| !ranges.is_empty());
        match (given(users), given(groups)) {
            (false, false) => return Ok(None),
            (true, true) => {}
            (has_users, _) => {
                let (missing, other) = if has_users { ("gid", "uid") } else { ("uid", "gid") };
                return Err(at.field(&format!("{missing}Mappings")).error_with_hint(
                    format_args!("required when {other}Mappings is set"),
                    "a user namespace needs both uid and gid mappings",
                ));
            }
        }
        let map = |ranges: Option<&Vec<LinuxIdMapping>>, field: &str| {
            Map::plan(ranges.map(Vec::as_slice).unwrap_or_default(), &at.field(field))
        };
        Ok(Some(Self { users: map(users, "uidMappings")?, groups: map(groups, "gidMappings")? }))
    }

    /// Whether both map the same ids, in any order.
    pub fn is_same(&self, other: &Self) -> bool {
        let sorted = |Map(ranges): &Map| {
            let mut ranges = ranges.clone();
            ranges.sort_unstable();
            ranges
        };
        sorted(&self.users) == sorted(&other.users) && sorted(&self.groups) == sorted(&other.groups)
    }

    /// # Errors
    /// If the bundle gives other maps than these, which are those of the user namespace to join.
    pub fn require_same(&self, given: Option<&Self>, namespaces: &NamespacePlan) -> Result<()> {
        let (Some(given), Some(user)) = (given, namespaces.joined(libc::CLONE_NEWUSER)) else {
            return Ok(());
        };
        if given.is_same(self) {
            return Ok(());
        }
        let at = Pointer::root().field("linux").field("uidMappings");
        Err(at.error_with_hint(
            "user namespaces enabled, but both namespace path and non-matching mapping specified -- you may only provide \
             one",
            format_args!(
                "{:?} has uid mappings {:?} and gid mappings {:?}",
                user.path,
                self.users.text().trim_end(),
                self.groups.text().trim_end()
            ),
        ))
    }

    /// # Errors
    /// If an id of the object at `at` (`/process/user`) is unmapped.
    pub fn require(&self, uid: u32, gid: u32, more_groups: &[u32], at: &Pointer) -> Result<()> {
        let missing = |at: Pointer, message: String, field: &str| {
            Err(at.error_with_hint(message, format_args!("add it to /linux/{field}")))
        };
        // runc's wording.
        if self.users.outside(uid).is_none() {
            let message = format!("cannot setuid to unmapped uid {uid} in user namespace");
            return missing(at.field("uid"), message, "uidMappings");
        }
        if self.groups.outside(gid).is_none() {
            let message = format!("cannot setgid to unmapped gid {gid} in user namespace");
            return missing(at.field("gid"), message, "gidMappings");
        }
        match more_groups.iter().enumerate().find(|(_, gid)| self.groups.outside(**gid).is_none()) {
            Some((index, gid)) => missing(
                at.field("additionalGids").index(index),
                format!("gid {gid} is unmapped in the user namespace"),
                "gidMappings",
            ),
            None => Ok(()),
        }
    }
}

/// Plans the mappings of `linux`, the object at `at`.
///
/// # Errors
/// If there are mappings but no user namespace, or a new user namespace without mappings.
pub fn plan(linux: Option<&Linux>, namespaces: &NamespacePlan, at: &Pointer) -> Result<Option<IdMaps>> {
    let users = linux.and_then(|linux| linux.uid_mappings().as_ref());
    let groups = linux.and_then(|linux| linux.gid_mappings().as_ref());
    for (ranges, field) in [(users, "uidMappings"), (groups, "gidMappings")] {
        if ranges.is_some_and(|ranges| !ranges.is_empty()) {
            namespaces.require(libc::CLONE_NEWUSER, &at.field(field), "mapping ids")?;
        }
    }
    let maps = IdMaps::plan(users, groups, at)?;
    if maps.is_none() && namespaces.is_new(libc::CLONE_NEWUSER) {
        return Err(at.field("uidMappings").error_with_hint(
            "required for a new user namespace",
            "e.g. [{\"containerID\": 0, \"hostID\": 100000, \"size\": 65536}], and gidMappings as well; \
             or set the path of a user namespace to join",
        ));
    }
    Ok(maps)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::error::line;

    fn planned(linux: Value) -> Result<Option<IdMaps>> {
        let mut linux = linux;
        let namespaces = linux["namespaces"].take();
        let at = Pointer::root().field("linux");
        let namespaces: Vec<_> = serde_json::from_value(namespaces).unwrap_or_default();
        let namespaces = crate::plan::linux::namespaces::plan(&namespaces, &at.field("namespaces"))?;
        plan(Some(&serde_json::from_value(linux).unwrap()), &namespaces, &at)
    }

    fn new(uids: &Value) -> Value {
        json!({"namespaces": [{"type": "user"}], "uidMappings": uids,
            "gidMappings": [{"containerID": 0, "hostID": 5, "size": 1}]})
    }

    fn refused(linux: Value) -> String {
        line(&planned(linux).unwrap_err())
    }

    #[test]
    fn the_kernels_text_becomes_ranges() {
        let map = Map::parse("         0     100000      65536\n     70000          7          1\n").unwrap();
        assert_eq!(map.text(), "0 100000 65536\n70000 7 1\n");
        assert_eq!(Map::parse("").unwrap(), Map::default());
        assert_eq!(Map::parse("0 1\n"), None);
    }

    #[test]
    fn several_ranges_are_kept_in_their_order() {
        let maps = planned(new(&json!([
            {"containerID": 10, "hostID": 1000, "size": 5}, {"containerID": 0, "hostID": 2000, "size": 1}
        ])))
        .unwrap()
        .unwrap();
        assert_eq!(maps.users.text(), "10 1000 5\n0 2000 1\n");
        assert_eq!(maps.users.outside(14), Some(1004));
        assert_eq!((maps.users.outside(15), maps.users.outside(9)), (None, None));
        assert_eq!(maps.users.outside(0), Some(2000));
    }

    #[test]
    fn ranges_that_the_kernel_would_refuse_are_named() {
        assert_eq!(
            refused(new(&json!([{"containerID": 0, "hostID": 1, "size": 0}]))),
            "config.json: /linux/uidMappings/0/size: size must be at least 1"
        );
        assert_eq!(
            refused(new(&json!([{"containerID": 0, "hostID": 4_294_967_290_u32, "size": 6}]))),
            "config.json: /linux/uidMappings/0/hostID: 6 ids starting at 4294967290 exceed 4294967294"
        );
        assert!(planned(new(&json!([{"containerID": 0, "hostID": 4_294_967_290_u32, "size": 5}]))).is_ok());
        assert_eq!(
            refused(new(&json!([
                {"containerID": 0, "hostID": 100, "size": 10}, {"containerID": 5, "hostID": 200, "size": 1}
            ]))),
            "config.json: /linux/uidMappings/1/containerID: 1 ids starting at 5 overlap with range 0"
        );
        assert_eq!(
            refused(new(&json!([
                {"containerID": 0, "hostID": 100, "size": 10}, {"containerID": 50, "hostID": 91, "size": 10}
            ]))),
            "config.json: /linux/uidMappings/1/hostID: 10 ids starting at 91 overlap with range 0"
        );
    }

    #[test]
    fn there_are_no_more_ranges_than_the_kernel_takes() {
        let ranges = |count: u32, first: u32| {
            let one = |i| json!({"containerID": first + 2 * i, "hostID": first + 2 * i, "size": 1});
            new(&Value::Array((0..count).map(one).collect()))
        };
        assert!(planned(ranges(340, 0)).is_ok());
        assert_eq!(
            refused(ranges(341, 0)),
            "config.json: /linux/uidMappings: 341 ranges exceed the kernel's limit of 340"
        );
        assert_eq!(
            refused(ranges(340, 1_000_000_000)),
            "config.json: /linux/uidMappings: mappings exceed the kernel's limit of 4095 bytes"
        );
    }

    #[test]
    fn mappings_and_a_new_user_namespace_need_each_other() {
        let one = json!([{"containerID": 0, "hostID": 5, "size": 1}]);
        assert!(
            refused(json!({"namespaces": [{"type": "user"}]}))
                .starts_with("config.json: /linux/uidMappings: required for a new user namespace")
        );
        assert_eq!(
            refused(json!({"namespaces": [], "uidMappings": one, "gidMappings": one})),
            "config.json: /linux/uidMappings: mapping ids requires a user namespace (add {\"type\": \"user\"} to \
             /linux/namespaces)"
        );
        assert!(
            refused(json!({"namespaces": [{"type": "user"}], "uidMappings": one}))
                .starts_with("config.json: /linux/gidMappings: required when uidMappings is set")
        );
    }

    #[test]
    fn ids_of_the_process_must_be_mapped() {
        let maps = planned(new(&json!([{"containerID": 1, "hostID": 1000, "size": 5}]))).unwrap().unwrap();
        let at = Pointer::root().field("process").field("user");
        let refused = |uid, gid, groups: &[u32]| line(&maps.require(uid, gid, groups, &at).unwrap_err());
        assert!(maps.require(5, 0, &[0], &at).is_ok());
        assert_eq!(
            refused(0, 0, &[]),
            "config.json: /process/user/uid: cannot setuid to unmapped uid 0 in user namespace (add it to \
             /linux/uidMappings)"
        );
        assert_eq!(
            refused(5, 1, &[]),
            "config.json: /process/user/gid: cannot setgid to unmapped gid 1 in user namespace (add it to \
             /linux/gidMappings)"
        );
        assert_eq!(
            refused(5, 0, &[0, 7]),
            "config.json: /process/user/additionalGids/1: gid 7 is unmapped in the user namespace (add it to \
             /linux/gidMappings)"
        );
    }
}
