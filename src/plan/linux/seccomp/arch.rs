//! Architectures; config-linux.md § Seccomp, `architectures`.
//!
//! A kernel runs programs of a few architectures only, and its filters are never asked about others. Filters
//! are compiled for those; what a profile says about others has no effect on this machine.

use oci_spec::runtime;

/// The architectures that supported kernels can run. The order is that of the columns of the system call
/// table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Arch {
    X86_64,
    X86,
    /// x86_64 programs with 32-bit pointers. The kernel reports them as x86_64, with a bit set in every call
    /// number.
    X32,
    Aarch64,
    Arm,
}

/// How many bits of an argument are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Half,
    Whole,
}

impl Arch {
    pub(super) const ALL: [Self; 5] = [Self::X86_64, Self::X86, Self::X32, Self::Aarch64, Self::Arm];
    pub(super) const COUNT: usize = Self::ALL.len();

    /// The architecture that this program is built for, if filters are supported on it.
    pub(super) const fn native() -> Option<Self> {
        if cfg!(target_arch = "x86_64") {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Aarch64)
        } else {
            None
        }
    }

    /// The other architectures that a kernel of this one runs.
    pub(super) const fn companions(self) -> &'static [Self] {
        match self {
            Self::X86_64 => &[Self::X86, Self::X32],
            Self::Aarch64 => &[Self::Arm],
            _ => &[],
        }
    }

    pub(super) const fn index(self) -> usize {
        self as usize
    }

    /// `AUDIT_ARCH_*`, as in `seccomp_data`; linux/audit.h.
    pub(super) const fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// `__X32_SYSCALL_BIT`; asm/unistd.h.
    pub(super) const fn bits_of_every_number(self) -> u32 {
        match self {
            Self::X32 => 0x4000_0000,
            _ => 0,
        }
    }

    /// The width of arguments. A condition written for 64 bits must hold for 32-bit programs, too.
    pub(super) const fn width(self) -> Width {
        match self {
            Self::X86_64 | Self::Aarch64 => Width::Whole,
            Self::X86 | Self::X32 | Self::Arm => Width::Half,
        }
    }

    /// Returns `native` and those of `named` that its kernel runs, each once, x32 included.
    pub(super) fn of_profile(named: &[runtime::Arch], native: Self) -> Vec<Self> {
        let is_named = |arch: &&Self| named.iter().any(|named| Self::named(*named) == Some(**arch));
        [native].into_iter().chain(native.companions().iter().filter(is_named).copied()).collect()
    }

    fn named(arch: runtime::Arch) -> Option<Self> {
        Some(match arch {
            runtime::Arch::ScmpArchX86_64 => Self::X86_64,
            runtime::Arch::ScmpArchX86 => Self::X86,
            runtime::Arch::ScmpArchX32 => Self::X32,
            runtime::Arch::ScmpArchAarch64 => Self::Aarch64,
            runtime::Arch::ScmpArchArm => Self::Arm,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Arch as Named;

    use super::*;

    #[test]
    fn a_filter_asks_about_what_the_kernel_runs_and_the_profile_names() {
        let of = |named: &[Named], native| Arch::of_profile(named, native);
        assert_eq!(of(&[], Arch::X86_64), [Arch::X86_64]);
        let docker = [Named::ScmpArchX86_64, Named::ScmpArchX86, Named::ScmpArchX32];
        assert_eq!(of(&docker, Arch::X86_64), [Arch::X86_64, Arch::X86, Arch::X32]);
        assert_eq!(of(&docker, Arch::Aarch64), [Arch::Aarch64]);
        let others = [Named::ScmpArchNative, Named::ScmpArchS390x, Named::ScmpArchArm, Named::ScmpArchArm];
        assert_eq!(of(&others, Arch::Aarch64), [Arch::Aarch64, Arch::Arm]);
    }
}
