//! The resctrl file system: creating groups, writing their limits, moving processes into them.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};

use super::{Class, RdtPlan, Schema};
use crate::error::{Fault, Pointer};
use crate::host::mountinfo;

/// The file with the limits of a class of service.
pub const SCHEMATA: &str = "schemata";

/// The resctrl groups of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// The class of service.
    pub class: PathBuf,
    /// Whether the class was made for the container, and is removed with it.
    pub is_own: bool,
    /// The monitoring group, if there is one.
    pub monitored: Option<PathBuf>,
}

impl Member {
    /// Adds a process of the container to its groups, unless they have been removed since.
    pub fn add(&self, pid: i32) -> Result<()> {
        for group in [Some(&self.class), self.monitored.as_ref()].into_iter().flatten() {
            let file = group.join("tasks");
            match write(&file, &pid.to_string()) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                written => written.with_context(|| Fault {
                    pointer: at(),
                    message: format!("write {pid} to {}", file.display()),
                    hint: None,
                })?,
            }
        }
        Ok(())
    }
}

/// The groups of a container that is being created. Dropping it removes what was made, unless kept.
#[derive(Debug)]
pub struct Group {
    member: Member,
    /// Innermost last.
    made: Vec<PathBuf>,
}

impl Group {
    /// Creates the groups that `plan` asks for, for container `id`, with all limits in force.
    ///
    /// # Errors
    /// No resctrl file system is mounted; a class that should exist does not, or has other limits; the kernel
    /// refuses a limit.
    pub fn create(plan: &RdtPlan, id: &str) -> Result<Self> {
        let mounts = mountinfo::read()?;
        let Some(mount) = mounts.into_iter().find(|mount| mount.fstype == "resctrl") else {
            return Err(at().error_with_hint(
                "intelRdt is set, but Intel RDT is not enabled: resctrl is not mounted",
                "run `mount -t resctrl resctrl /sys/fs/resctrl` if the CPU supports it, or remove intelRdt",
            ));
        };
        Self::below(&mount.mount_point, plan, id)
    }

    fn below(root: &Path, plan: &RdtPlan, id: &str) -> Result<Self> {
        let class = match &plan.class {
            Class::Own => root.join(id),
            Class::Named(name) => root.join(name),
            Class::Default => root.to_owned(),
        };
        let mut group = Self { member: Member { class, ..Member::default() }, made: Vec::new() };
        let class = group.member.class.clone();
        let is_new = match &plan.class {
            Class::Own => group.make(&class, root, &at())?,
            Class::Named(name) if plan.schemata.is_empty() => {
                if !class.is_dir() {
                    let message = format!("class of service {name:?} does not exist in {}", root.display());
                    let hint = "without a schema, closID must name an existing one";
                    return Err(at().field("closID").error_with_hint(message, hint));
                }
                false
            }
            Class::Named(_) => group.make(&class, root, &at().field("closID"))?,
            Class::Default => false,
        };
        group.member.is_own = is_new && plan.class == Class::Own;
        if !is_new && plan.class != Class::Own {
            plan.schemata.iter().filter(|schema| schema.must_match).try_for_each(|s| matches(&class, s))?;
        }
        plan.schemata.iter().try_for_each(|schema| write_schema(&class, root, schema))?;
        if plan.monitoring {
            let monitored = class.join("mon_groups").join(id);
            group.make(&monitored, root, &at().field("enableMonitoring"))?;
            group.member.monitored = Some(monitored);
        }
        Ok(group)
    }

    /// Creates a directory; returns false if it exists already.
    fn make(&mut self, path: &Path, root: &Path, at: &Pointer) -> Result<bool> {
        match DirBuilder::new().mode(0o755).create(path) {
            Ok(()) => {
                self.made.push(path.to_owned());
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(refused(error, root, at, format!("create {}", path.display()))),
        }
    }

    pub fn member(&self) -> &Member {
        &self.member
    }

    /// Leaves the groups to the container.
    pub fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        while let Some(path) = self.made.pop() {
            // An error here must not hide the original one.
            let _ = fs::remove_dir(path);
        }
    }
}

/// Removes the container's own groups. Processes that are still in one move to its parent.
pub fn remove(member: &Member) -> Result<()> {
    let own = member.is_own.then_some(&member.class);
    for path in [member.monitored.as_ref(), own].into_iter().flatten() {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.with_context(|| format!("remove {}", path.display()))?,
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}

fn at() -> Pointer {
    Pointer::root().field("linux").field("intelRdt")
}

/// Writes to an existing file in a single write.
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    OpenOptions::new().write(true).open(file)?.write_all(text.as_bytes())
}

fn write_schema(class: &Path, root: &Path, schema: &Schema) -> Result<()> {
    let file = class.join(SCHEMATA);
    let text = &schema.text;
    write(&file, &format!("{text}\n"))
        .map_err(|error| refused(error, root, &schema.at, format!("write {text:?} to {}", file.display())))
}

/// Adds the kernel's explanation (`info/last_cmd_status`) as a hint.
fn refused(error: std::io::Error, root: &Path, at: &Pointer, doing: String) -> anyhow::Error {
    let status = fs::read_to_string(root.join("info/last_cmd_status")).unwrap_or_default();
    let hint = Some(status.trim()).filter(|status| !matches!(*status, "" | "ok")).map(str::to_owned);
    anyhow!(error).context(Fault { pointer: at.clone(), message: doing, hint })
}

/// Checks an existing class against `schema`.
///
/// # Errors
/// The class has other limits than those in `schema`.
fn matches(class: &Path, schema: &Schema) -> Result<()> {
    let file = class.join(SCHEMATA);
    let text = read(&file)?;
    let (resource, wanted) = schema.text.split_once(':').unwrap_or((&schema.text, ""));
    let has = text.lines().find_map(|line| line.trim().strip_prefix(resource)?.strip_prefix(':'));
    let value_of = |domain: &str| limits(has?).find(|(other, _)| *other == domain).map(|(_, value)| value);
    let is_bandwidth = resource.ends_with("MB") || resource.ends_with("MBA");
    let same = |a: &str, b: &str| match is_bandwidth {
        true => a.trim().parse::<u64>().ok() == b.trim().parse().ok(),
        false => mask(a) == mask(b),
    };
    if limits(wanted).all(|(domain, value)| value_of(domain).is_some_and(|other| same(value, other))) {
        return Ok(());
    }
    let message = format!(
        "schema {:?} differs from that in {}: {:?}",
        schema.text,
        class.display(),
        has.map_or_else(String::new, |has| format!("{resource}:{has}"))
    );
    Err(schema.at.error_with_hint(message, "an existing class of service is used unchanged"))
}

/// Parses `0=ff;1=c0` into pairs.
fn limits(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(';').filter_map(|part| part.split_once('=')).map(|(domain, value)| (domain.trim(), value))
}

fn mask(text: &str) -> Option<u64> {
    let text = text.trim();
    u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

#[cfg(any(test, feature = "fuzzing"))]
/// For fuzz targets: parses any text as limits.
pub fn parse_schemata(text: &str) {
    for (domain, value) in limits(text) {
        assert!(!domain.contains(['=', ';']) && !value.contains(';'), "{text:?}");
        mask(value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::super::tests::planned;
    use super::*;
    use crate::error::line;

    /// Uses plain directories with the files that the kernel would create: no test machine has the hardware,
    /// and nothing emulates resctrl.
    fn root(classes: &[(&str, &str)]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for (class, schemata) in classes {
            let class = root.path().join(class);
            fs::create_dir_all(class.join("mon_groups")).unwrap();
            fs::write(class.join("schemata"), schemata).unwrap();
            fs::write(class.join("tasks"), "").unwrap();
        }
        root
    }

    fn group(root: &TempDir, rdt: Value) -> Result<Group> {
        Group::below(root.path(), &planned(rdt).unwrap(), "id")
    }

    fn entries(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_class_without_a_schema_must_exist_and_stays_as_it_is() {
        let root = root(&[("there", "    L3:0=7ff;1=7ff\n")]);
        let found = group(&root, json!({"closID": "there"})).unwrap();
        found.member().add(7).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("there/tasks")).unwrap(), "7");
        remove(found.member()).unwrap();
        drop(found);
        assert_eq!(entries(root.path()), ["there"]);
        let error = group(&root, json!({"closID": "not-there"})).unwrap_err();
        assert_eq!(
            line(&error),
            format!(
                "config.json: /linux/intelRdt/closID: class of service \"not-there\" does not exist in {} \
                 (without a schema, closID must name an existing one)",
                root.path().display()
            )
        );
        assert_eq!(entries(root.path()), ["there"]);
    }

    #[test]
    fn a_class_that_exists_must_have_the_limits_that_are_asked_for() {
        let schemata = "    MB:0= 20;1=100\n    L3:0=0ff;1=7f0\n";
        for rdt in [
            json!({"closID": "there", "l3CacheSchema": "L3:1=7f0;0=ff"}),
            json!({"closID": "there", "l3CacheSchema": "L3:0=0xff"}),
            json!({"closID": "there", "memBwSchema": "MB:0=20"}),
        ] {
            let root = root(&[("there", schemata)]);
            group(&root, rdt).unwrap();
        }
        let root = root(&[("there", schemata)]);
        for (field, text) in
            [("l3CacheSchema", "L3:0=f"), ("l3CacheSchema", "L3:2=ff"), ("memBwSchema", "MB:0=30")]
        {
            let error = line(&group(&root, json!({"closID": "there", field: text})).unwrap_err());
            let start =
                format!("config.json: /linux/intelRdt/{field}: schema {text:?} differs from that in ");
            assert!(error.starts_with(&start), "{error}");
        }
        assert_eq!(fs::read_to_string(root.path().join("there/schemata")).unwrap(), schemata);
    }

    #[test]
    fn the_default_class_is_the_root_and_is_never_removed() {
        let root = root(&[(".", "L3:0=f\n")]);
        let group = group(&root, json!({"closID": "/", "schemata": ["L3:0=7"]})).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("schemata")).unwrap(), "L3:0=7\n");
        assert_eq!(group.member().class, root.path());
        remove(group.member()).unwrap();
        drop(group);
        assert!(root.path().exists());
    }

    #[test]
    fn what_was_made_goes_when_the_container_fails_and_stays_otherwise() {
        let root = root(&[("there", "")]);
        let rdt = json!({"closID": "there", "enableMonitoring": true});
        let made = group(&root, rdt.clone()).unwrap();
        assert_eq!(entries(&root.path().join("there/mon_groups")), ["id"]);
        drop(made);
        assert!(entries(&root.path().join("there/mon_groups")).is_empty());
        let made = group(&root, rdt).unwrap();
        let member = made.member().clone();
        made.keep();
        remove(&member).unwrap();
        assert!(entries(&root.path().join("there/mon_groups")).is_empty());
        assert_eq!(entries(root.path()), ["there"]);
    }

    #[test]
    fn a_class_of_the_containers_own_is_made_and_goes_with_it() {
        let root = root(&[]);
        let made = group(&root, json!({})).unwrap();
        let member = made.member().clone();
        made.keep();
        assert_eq!(entries(root.path()), ["id"]);
        remove(&member).unwrap();
        assert!(entries(root.path()).is_empty());
        // It belongs to someone else if it existed before.
        fs::create_dir(root.path().join("id")).unwrap();
        let found = group(&root, json!({})).unwrap();
        remove(found.member()).unwrap();
        drop(found);
        assert_eq!(entries(root.path()), ["id"]);
    }

    #[test]
    fn a_refusal_says_what_the_kernel_says() {
        let root = root(&[]);
        fs::create_dir(root.path().join("info")).unwrap();
        fs::write(root.path().join("info/last_cmd_status"), "Unknown resource name 'L9'\n").unwrap();
        // A plain directory has no `schemata` file.
        let error = line(&group(&root, json!({"schemata": ["L9:0=f"]})).unwrap_err());
        let start = "config.json: /linux/intelRdt/schemata/0: write \"L9:0=f\" to ";
        assert!(error.starts_with(start) && error.ends_with("(Unknown resource name 'L9')"), "{error}");
        assert_eq!(entries(root.path()), ["info"]);
    }
}
