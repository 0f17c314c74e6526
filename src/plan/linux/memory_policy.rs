//! NUMA memory policy of the container; config-linux.md § Memory policy, set_mempolicy(2).

use anyhow::Result;
use oci_spec::runtime::{LinuxMemoryPolicy, MemoryPolicyFlagType, MemoryPolicyModeType};

use crate::error::Pointer;
use crate::init::step::Step;
use crate::plan::process::cpu_list::Mask;

/// A memory policy in kernel form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// `MPOL_*` with `MPOL_F_*`.
    mode: u32,
    nodes: Mask,
}

/// Plans the object at `at` (`/linux/memoryPolicy`). Messages are in runc's wording where tests look for it.
pub fn plan(wanted: &LinuxMemoryPolicy, at: &Pointer) -> Result<MemoryPolicy> {
    use MemoryPolicyModeType as M;
    let mode = wanted.mode();
    let list = wanted.nodes().as_deref().unwrap_or_default();
    let at_nodes = at.field("nodes");
    let nodes = Mask::parse(list)
        .map_err(|message| at_nodes.error(format_args!("invalid memory policy nodes {list:?}: {message}")))?
        .unwrap_or_default();
    match (mode, nodes.count()) {
        (M::MpolDefault | M::MpolLocal, count) if count > 0 => {
            return Err(
                at_nodes.error(format_args!("{mode}: memory policy mode requires 0 nodes but got {count}"))
            );
        }
        (M::MpolBind | M::MpolInterleave | M::MpolWeightedInterleave | M::MpolPreferredMany, 0) => {
            return Err(at_nodes
                .error(format_args!("{mode}: memory policy mode requires at least one node but got 0")));
        }
        _ => {}
    }
    let flags = wanted.flags().iter().flatten().fold(0, |flags, flag| flags | number(&FLAGS, flag));
    Ok(MemoryPolicy { mode: number(&MODES, &mode) | flags, nodes })
}

impl MemoryPolicy {
    pub fn step(self) -> Step {
        Step::MemoryPolicy { mode: self.mode, nodes: self.nodes.into_words() }
    }
}

/// linux/mempolicy.h.
const MODES: [(MemoryPolicyModeType, u32); 7] = [
    (MemoryPolicyModeType::MpolDefault, 0),
    (MemoryPolicyModeType::MpolPreferred, 1),
    (MemoryPolicyModeType::MpolBind, 2),
    (MemoryPolicyModeType::MpolInterleave, 3),
    (MemoryPolicyModeType::MpolLocal, 4),
    (MemoryPolicyModeType::MpolPreferredMany, 5),
    (MemoryPolicyModeType::MpolWeightedInterleave, 6),
];

const FLAGS: [(MemoryPolicyFlagType, u32); 3] = [
    (MemoryPolicyFlagType::MpolFNumaBalancing, 1 << 13),
    (MemoryPolicyFlagType::MpolFRelativeNodes, 1 << 14),
    (MemoryPolicyFlagType::MpolFStaticNodes, 1 << 15),
];

fn number<T: PartialEq>(table: &[(T, u32)], word: &T) -> u32 {
    table.iter().find(|(known, _)| known == word).map_or(0, |(_, number)| *number)
}

/// The names of modes, for `features`.
pub fn modes() -> impl Iterator<Item = String> {
    MODES.iter().map(|(mode, _)| mode.to_string())
}

/// The names of flags, for `features`.
pub fn flags() -> impl Iterator<Item = String> {
    FLAGS.iter().map(|(flag, _)| flag.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::error::line;

    fn planned(value: Value) -> Result<MemoryPolicy> {
        let wanted: LinuxMemoryPolicy = serde_json::from_value(value).unwrap();
        plan(&wanted, &Pointer::root().field("linux").field("memoryPolicy"))
    }

    fn refused(value: Value) -> String {
        line(&planned(value).unwrap_err())
    }

    #[test]
    fn a_policy_is_a_mode_with_flags_and_nodes() {
        let policy =
            planned(json!({"mode": "MPOL_BIND", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"]})).unwrap();
        assert_eq!(policy, MemoryPolicy { mode: 2 | 1 << 15, nodes: Mask::parse("0-1").unwrap().unwrap() });
        let policy = planned(json!({"mode": "MPOL_PREFERRED", "nodes": ""})).unwrap();
        assert_eq!(policy, MemoryPolicy { mode: 1, nodes: Mask::default() });
    }

    #[test]
    fn a_mode_has_as_many_nodes_as_it_takes() {
        assert_eq!(
            refused(json!({"mode": "MPOL_DEFAULT", "nodes": "0-7"})),
            "config.json: /linux/memoryPolicy/nodes: MPOL_DEFAULT: memory policy mode requires 0 nodes but got 8"
        );
        assert_eq!(
            refused(json!({"mode": "MPOL_INTERLEAVE"})),
            "config.json: /linux/memoryPolicy/nodes: MPOL_INTERLEAVE: memory policy mode requires at least one node \
             but got 0"
        );
        assert_eq!(
            refused(json!({"mode": "MPOL_BIND", "nodes": "0-9876543210"})),
            "config.json: /linux/memoryPolicy/nodes: invalid memory policy nodes \"0-9876543210\": \
             9876543210 exceeds 65536"
        );
    }
}
