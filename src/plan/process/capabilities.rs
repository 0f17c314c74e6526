//! The five capability sets as masks; config.md § Linux Process, capabilities(7).

use std::str::FromStr as _;

use anyhow::Result;
use oci_spec::runtime::{Capabilities, LinuxCapabilities};

use crate::error::Pointer;
use crate::sys::cred::Sets;
use crate::sys::weakened;

/// The sets of the init process: bit N is capability number N.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilityPlan {
    pub bounding: u64,
    pub sets: Sets,
    pub ambient: u64,
    /// Ambient capabilities that cannot be raised because they are not both permitted and inheritable.
    pub lost_ambient: u64,
    /// Capabilities that were dropped because the runtime itself lacks them.
    pub unavailable: u64,
}

impl CapabilityPlan {
    /// Drops what the runtime, whose sets are `own`, cannot grant; config.md § Linux Process requires a
    /// warning, not an error.
    pub fn limit_to(&mut self, own: Sets) {
        let wanted = self.sets.effective | self.sets.permitted | self.sets.inheritable;
        self.unavailable = wanted & !own.permitted;
        for set in [&mut self.sets.effective, &mut self.sets.permitted, &mut self.sets.inheritable] {
            *set &= own.permitted;
        }
        self.ambient &= own.permitted;
    }

    /// Whether a process can gain `capability`.
    pub fn may_gain(&self, capability: caps::Capability) -> bool {
        let possible = self.bounding | self.sets.permitted | self.sets.inheritable;
        possible & capability.bitmask() != 0
    }

    /// Whether a process can gain CAP_SYS_PTRACE.
    pub fn may_trace(&self) -> bool {
        self.may_gain(caps::Capability::CAP_SYS_PTRACE)
    }

    /// The deviations from the bundle, one message each.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let unavailable = (self.unavailable != 0).then(|| {
            format!("ignoring capability {}: the runtime does not have it", names(self.unavailable))
        });
        let ambient = (self.lost_ambient != 0).then(|| {
            format!(
                "can't raise ambient capability {}: not permitted and inheritable",
                names(self.lost_ambient)
            )
        });
        unavailable.into_iter().chain(ambient)
    }
}

/// Plans the object at `at` (`/process/capabilities`). Without it there are no capabilities at all, as in
/// crun; runc keeps its own.
pub fn plan(capabilities: Option<&LinuxCapabilities>, at: &Pointer) -> Result<CapabilityPlan> {
    let Some(capabilities) = capabilities else { return Ok(CapabilityPlan::default()) };
    let mut sets = Sets {
        effective: mask(capabilities.effective().as_ref(), &at.field("effective"))?,
        permitted: mask(capabilities.permitted().as_ref(), &at.field("permitted"))?,
        inheritable: mask(capabilities.inheritable().as_ref(), &at.field("inheritable"))?,
    };
    let excess = sets.effective & !sets.permitted;
    if excess != 0 {
        let message = format!("{} is effective but not permitted", names(excess));
        return Err(at.field("effective").error_with_hint(message, "add it to \"permitted\""));
    }
    let mut ambient = mask(capabilities.ambient().as_ref(), &at.field("ambient"))?;
    if weakened::is_off_for(&["CVE-2016-8867", "CVE-2022-27650"]) {
        sets.inheritable = sets.permitted;
    }
    if weakened::is_off("CVE-2016-8867") {
        ambient = sets.permitted;
    }
    let possible = sets.permitted & sets.inheritable;
    Ok(CapabilityPlan {
        bounding: mask(capabilities.bounding().as_ref(), &at.field("bounding"))?,
        sets,
        ambient: ambient & possible,
        lost_ambient: ambient & !possible,
        unavailable: 0,
    })
}

/// The names of the capabilities in `mask`, as `CAP_CHOWN, CAP_KILL`.
pub fn names(mask: u64) -> String {
    known().filter(|(bit, _)| mask & bit != 0).map(|(_, name)| name).collect::<Vec<_>>().join(", ")
}

/// The bit and the name of every capability, by number.
pub fn known() -> impl Iterator<Item = (u64, String)> {
    let mut all: Vec<_> = caps::all().into_iter().collect();
    all.sort_by_key(caps::Capability::index);
    all.into_iter().map(|capability| (capability.bitmask(), capability.to_string()))
}

/// The bit of the capability `name`, in any case, with or without `CAP_`.
pub fn bit(name: &str) -> Option<u64> {
    let name = name.to_ascii_uppercase();
    let name = format!("CAP_{}", name.strip_prefix("CAP_").unwrap_or(&name));
    caps::Capability::from_str(&name).ok().map(|known| known.bitmask())
}

fn mask(set: Option<&Capabilities>, at: &Pointer) -> Result<u64> {
    let mut mask = 0;
    for capability in set.into_iter().flatten() {
        let name = format!("CAP_{capability}");
        let known = caps::Capability::from_str(&name)
            .map_err(|_| at.error(format_args!("unknown capability {name:?}")))?;
        mask |= known.bitmask();
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::line;

    fn planned(value: serde_json::Value) -> Result<CapabilityPlan> {
        let capabilities: LinuxCapabilities = serde_json::from_value(value).unwrap();
        plan(Some(&capabilities), &Pointer::root().field("process").field("capabilities"))
    }

    #[test]
    fn a_name_becomes_the_bit_of_its_number() {
        let plan = planned(json!({"bounding": ["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"]})).unwrap();
        assert_eq!(plan.bounding, 1 | 1 << 40);
        assert_eq!(names(plan.bounding), "CAP_CHOWN, CAP_CHECKPOINT_RESTORE");
    }

    #[test]
    fn a_capability_is_named_with_or_without_its_prefix() {
        assert_eq!((bit("CAP_KILL"), bit("kill"), bit("FLY")), (Some(1 << 5), Some(1 << 5), None));
    }

    #[test]
    fn what_is_effective_must_be_permitted() {
        let error = planned(json!({"effective": ["CAP_KILL"]})).unwrap_err();
        assert_eq!(
            line(&error),
            "config.json: /process/capabilities/effective: CAP_KILL is effective but not permitted (add it to \
             \"permitted\")"
        );
    }

    #[test]
    fn what_the_runtime_lacks_is_left_out_with_a_warning() {
        let mut plan =
            planned(json!({"permitted": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL"]})).unwrap();
        plan.limit_to(Sets { permitted: 1, ..Sets::default() });
        assert_eq!((plan.sets.permitted, plan.sets.effective), (1, 0));
        assert_eq!(
            plan.warnings().collect::<Vec<_>>(),
            ["ignoring capability CAP_KILL: the runtime does not have it"]
        );
    }

    #[test]
    fn ambient_capabilities_need_the_permitted_and_the_inheritable_set() {
        let plan = planned(json!({
            "permitted": ["CAP_KILL", "CAP_CHOWN"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL", "CAP_CHOWN"]
        }))
        .unwrap();
        assert_eq!((plan.ambient, plan.lost_ambient), (1 << 5, 1));
    }
}
