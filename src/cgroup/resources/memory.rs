//! `memory` → memory.max, memory.swap.max, memory.low.

use anyhow::Result;
use oci_spec::runtime::LinuxMemory;

use super::{Ceiling, Limits, Write};
use crate::error::Pointer;

pub(super) fn plan(memory: &LinuxMemory, at: &Pointer, limits: &mut Limits) -> Result<()> {
    let limit = bytes(memory.limit(), &at.field("limit"))?;
    let reservation = bytes(memory.reservation(), &at.field("reservation"))?;
    let swap = bytes(memory.swap(), &at.field("swap"))?;

    // swap.max first: if memory.max were lowered first, pages could be swapped out although swap is about to
    // be forbidden.
    if let Some(value) = swap_max(limit, swap, &at.field("swap"))? {
        let from = if swap.is_some() { "swap" } else { "limit" };
        // A kernel without swap accounting lacks the file; then there is nothing to forbid or to allow.
        let unneeded = matches!(&*value, "max" | "0");
        limits.writes.push(Write::new(at.field(from), "memory.swap.max", value).unneeded_if(unneeded));
    }
    if let Some(limit) = limit {
        let write = Write::new(at.field("limit"), "memory.max", limit.value());
        limits.writes.push(write.unneeded_if(limit == Bytes::Unlimited));
    }
    if let Some(reservation) = reservation {
        limits.writes.push(Write::new(at.field("reservation"), "memory.low", reservation.value()));
    }
    if memory.check_before_update() == Some(true) {
        for (what, field, given) in [("memory+swap", "swap", swap), ("memory", "limit", limit)] {
            if let Some(Bytes::Of(bytes)) = given {
                limits.ceilings.push(Ceiling { at: at.field(field), what, bytes });
            }
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bytes {
    Unlimited,
    Of(u64),
}

impl Bytes {
    fn value(self) -> String {
        match self {
            Self::Unlimited => "max".into(),
            Self::Of(bytes) => bytes.to_string(),
        }
    }
}

/// Parses a number of bytes: absent or 0 means not set, -1 unlimited.
fn bytes(given: Option<i64>, at: &Pointer) -> Result<Option<Bytes>> {
    match given {
        None | Some(0) => Ok(None),
        Some(-1) => Ok(Some(Bytes::Unlimited)),
        Some(number) => match u64::try_from(number) {
            Ok(number) => Ok(Some(Bytes::Of(number))),
            Err(_) => Err(at.error(format_args!(
                "invalid size {number}: must be a number of bytes, or -1 for unlimited"
            ))),
        },
    }
}

/// Returns memory.swap.max, which limits swap alone, whereas the specification limits memory plus swap.
fn swap_max(limit: Option<Bytes>, swap: Option<Bytes>, at: &Pointer) -> Result<Option<String>> {
    match (limit, swap) {
        // As in cgroup v1, where unlimited memory implies unlimited swap.
        (Some(Bytes::Unlimited), None) => Ok(Some("max".into())),
        (_, None) => Ok(None),
        (_, Some(Bytes::Unlimited)) => Ok(Some("max".into())),
        (Some(Bytes::Unlimited), Some(Bytes::Of(swap))) => Ok(Some(swap.to_string())),
        (None, Some(Bytes::Of(swap))) => Err(at.error_with_hint(
            format_args!("{swap}: unable to set swap limit without memory limit"),
            "\"swap\" is the sum of memory and swap: set \"limit\" as well",
        )),
        (Some(Bytes::Of(limit)), Some(Bytes::Of(swap))) => match swap.checked_sub(limit) {
            Some(swap_alone) => Ok(Some(swap_alone.to_string())),
            None => Err(at.error_with_hint(
                format_args!("{swap}: memory+swap limit should be >= memory limit, {limit}"),
                "\"swap\" is the sum of memory and swap",
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{refused, written};

    #[test]
    fn swap_counts_memory_too_and_is_written_first() {
        let of = |json: &str| written(&format!(r#"{{"memory": {json}}}"#));
        assert_eq!(of(r#"{"limit": 100, "swap": 150}"#), ["memory.swap.max=50", "memory.max=100"]);
        assert_eq!(of(r#"{"limit": 100, "swap": 100}"#), ["memory.swap.max=0", "memory.max=100"]);
        assert_eq!(of(r#"{"limit": 100, "swap": -1}"#), ["memory.swap.max=max", "memory.max=100"]);
        assert_eq!(of(r#"{"limit": 100, "swap": 0}"#), ["memory.max=100"]);
        assert_eq!(of(r#"{"limit": 100}"#), ["memory.max=100"]);
        assert_eq!(of(r#"{"limit": -1}"#), ["memory.swap.max=max", "memory.max=max"]);
        assert_eq!(of(r#"{"limit": -1, "swap": 70}"#), ["memory.swap.max=70", "memory.max=max"]);
        assert_eq!(of(r#"{"swap": -1}"#), ["memory.swap.max=max"]);
        assert_eq!(of(r#"{"reservation": 7}"#), ["memory.low=7"]);
    }

    #[test]
    fn swap_without_or_below_the_memory_limit_is_refused() {
        assert_eq!(
            refused(r#"{"memory": {"swap": 100}}"#),
            "config.json: /memory/swap: 100: unable to set swap limit without memory limit \
             (\"swap\" is the sum of memory and swap: set \"limit\" as well)"
        );
        assert_eq!(
            refused(r#"{"memory": {"limit": 100, "swap": 99}}"#),
            "config.json: /memory/swap: 99: memory+swap limit should be >= memory limit, 100 \
             (\"swap\" is the sum of memory and swap)"
        );
    }

    #[test]
    fn only_minus_one_is_a_negative_number_of_bytes() {
        assert_eq!(
            refused(r#"{"memory": {"reservation": -2}}"#),
            "config.json: /memory/reservation: invalid size -2: must be a number of bytes, or -1 for unlimited"
        );
    }
}
