//! Names that a profile may use, as listed by `features`.

use oci_spec::runtime::{Arch, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator};

use super::profile::FLAGS;
use crate::sys::seccomp;

/// Values of `action`.
pub fn actions() -> impl Iterator<Item = String> {
    use LinuxSeccompAction as A;
    [
        A::ScmpActKill,
        A::ScmpActKillThread,
        A::ScmpActKillProcess,
        A::ScmpActTrap,
        A::ScmpActErrno,
        A::ScmpActNotify,
        A::ScmpActTrace,
        A::ScmpActLog,
        A::ScmpActAllow,
    ]
    .into_iter()
    .map(|action| action.to_string())
}

/// Values of `op`.
pub fn operators() -> impl Iterator<Item = String> {
    use LinuxSeccompOperator as O;
    [O::ScmpCmpNe, O::ScmpCmpLt, O::ScmpCmpLe, O::ScmpCmpEq, O::ScmpCmpGe, O::ScmpCmpGt, O::ScmpCmpMaskedEq]
        .into_iter()
        .map(|operator| operator.to_string())
}

/// Values of `architectures` that have an effect on some machine.
pub fn architectures() -> impl Iterator<Item = String> {
    [Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32, Arch::ScmpArchAarch64, Arch::ScmpArchArm]
        .into_iter()
        .map(|arch| arch.to_string())
}

/// Values of `flags`, each with whether the running kernel supports it.
pub fn flags() -> impl Iterator<Item = (String, bool)> {
    FLAGS.iter().map(|(flag, bit): &(LinuxSeccompFilterFlag, u32)| (flag.to_string(), seccomp::knows(*bit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_that_config_json_has() {
        fn known<T: serde::de::DeserializeOwned>(mut names: impl Iterator<Item = String>) -> bool {
            names.all(|name| serde_json::from_value::<T>(name.into()).is_ok())
        }
        assert!(known::<LinuxSeccompAction>(actions()));
        assert!(known::<LinuxSeccompOperator>(operators()));
        assert!(known::<Arch>(architectures()));
        assert!(known::<LinuxSeccompFilterFlag>(flags().map(|(name, _)| name)));
    }
}
