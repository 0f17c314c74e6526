//! The names of a container's scope and slice, from the `slice:prefix:name` that engines write to
//! `cgroupsPath` for systemd. Pure.
//!
//! Sources: runc's docs/systemd.md; systemd.slice(5), systemd.unit(5).

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::error::Pointer;

/// systemd's UNIT_NAME_MAX.
const LONGEST: usize = 255;

const SCOPE: &str = ".scope";
const SLICE: &str = ".slice";

/// A scope and its slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) unit: String,
    pub(super) slice: String,
}

impl Names {
    /// Plans the names from `cgroupsPath`, whose pointer is `at`; without one, from the container's `id`.
    /// `slice` is the default slice.
    pub(super) fn plan(path: Option<&Path>, id: &str, slice: &str, at: &Pointer) -> Result<Self> {
        let path = path.map(Path::to_string_lossy).unwrap_or_default();
        let given: Vec<_> = path.split(':').collect();
        let (given_slice, prefix, name) = match given.as_slice() {
            // `+` is the only character of an id that a unit name cannot have; systemd-escape(1).
            [""] => ("", "runtime", id.replace('+', "\\x2b")),
            [slice, prefix, name] => (*slice, *prefix, (*name).to_owned()),
            _ => {
                let message = format!(
                    "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
                );
                return Err(at.error_with_hint(message, "such as \"system.slice:docker:1234\""));
            }
        };
        let slice = if given_slice.is_empty() { slice } else { given_slice };
        if slice_path(slice).is_none() {
            let hint = "e.g. \"a-b.slice\" for a slice inside \"a.slice\", or \"-.slice\" for the root";
            return Err(at.error_with_hint(format_args!("invalid slice name: {slice}"), hint));
        }
        if name.ends_with(SLICE) {
            let hint = "use a name without \".slice\": processes go into a scope";
            return Err(
                at.error_with_hint(format_args!("{name:?} is a slice, which cannot contain processes"), hint)
            );
        }
        let unit = format!("{prefix}-{name}{SCOPE}");
        if name.is_empty() || !is_name(&unit) {
            let message = format!("invalid unit name {unit:?}");
            let hint = "at most 255 letters, digits, \":\", \"-\", \"_\", \".\", \"\\\" and \"@\"";
            return Err(at.error_with_hint(message, hint));
        }
        Ok(Self { unit, slice: slice.to_owned() })
    }

    /// Returns the cgroup of the unit, relative to systemd's.
    pub(super) fn place(&self) -> PathBuf {
        slice_path(&self.slice).unwrap_or_default().join(&self.unit)
    }
}

fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '\\' | '@');
    text.len() <= LONGEST && text.chars().all(allowed)
}

/// Returns the path of a slice: `a-b.slice` is in `a.slice`. `None` if the name is invalid.
fn slice_path(slice: &str) -> Option<PathBuf> {
    let stem = slice.strip_suffix(SLICE).filter(|_| is_name(slice))?;
    let mut path = PathBuf::new();
    if stem == "-" {
        return Some(path);
    }
    let mut name = String::new();
    for part in stem.split('-') {
        if part.is_empty() {
            return None;
        }
        name.push_str(part);
        path.push(format!("{name}{SLICE}"));
        name.push('-');
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(path: &str) -> Result<Names> {
        let at = Pointer::root().field("linux").field("cgroupsPath");
        Names::plan(Some(Path::new(path)), "c1", "system.slice", &at)
    }

    #[track_caller]
    fn is(path: &str, unit: &str, slice: &str) {
        assert_eq!(planned(path).unwrap(), Names { unit: unit.into(), slice: slice.into() });
    }

    #[test]
    fn a_path_has_a_slice_a_prefix_and_a_name() {
        is("system.slice:docker:1234", "docker-1234.scope", "system.slice");
        is(
            "kubepods-burstable-pod1.slice:cri-containerd:ab",
            "cri-containerd-ab.scope",
            "kubepods-burstable-pod1.slice",
        );
        is(":libpod:x", "libpod-x.scope", "system.slice");
        is("-.slice::x", "-x.scope", "-.slice");
        is("", "runtime-c1.scope", "system.slice");
        let escaped = Names::plan(None, "a+b", "user.slice", &Pointer::root()).unwrap();
        assert_eq!(escaped.unit, "runtime-a\\x2bb.scope");
        assert_eq!(Names::plan(None, "c1", "user.slice", &Pointer::root()).unwrap().slice, "user.slice");
    }

    #[test]
    fn dashes_in_a_slice_are_levels() {
        let place = |path| planned(path).unwrap().place().to_str().unwrap().to_owned();
        assert_eq!(place("a-b-c.slice:p:x"), "a.slice/a-b.slice/a-b-c.slice/p-x.scope");
        assert_eq!(place("machine.slice:p:x"), "machine.slice/p-x.scope");
        assert_eq!(place("-.slice:p:x"), "p-x.scope");
    }

    #[test]
    fn what_is_no_such_path_is_refused() {
        let refused = |path: &str| crate::error::line(&planned(path).unwrap_err());
        for path in ["/docker/1234", "a:b", "a:b:c:d"] {
            assert_eq!(
                refused(path),
                format!(
                    "config.json: /linux/cgroupsPath: expected cgroupsPath to be of format \"slice:prefix:name\" for \
                     systemd cgroups, got {path:?} instead (such as \"system.slice:docker:1234\")"
                )
            );
        }
        for slice in ["system", "a--b.slice", "-a.slice", "a-.slice", ".slice", "a/b.slice", "a b.slice", "-"]
        {
            let path = format!("{slice}:p:x");
            let message = format!("config.json: /linux/cgroupsPath: invalid slice name: {slice} (");
            assert!(refused(&path).starts_with(&message), "{slice}");
        }
        assert!(
            refused("a.slice:p:x.slice").contains("\"x.slice\" is a slice, which cannot contain processes")
        );
        for path in ["a.slice:p:", "a.slice:p:../x", "a.slice:p/q:x", "a.slice:p:ä", "a.slice:p:x\ny"] {
            assert!(refused(path).contains("invalid unit name "), "{path}");
        }
        let long = format!("a.slice:p:{}", "x".repeat(248));
        assert!(refused(&long).contains("invalid unit name "));
    }
}
