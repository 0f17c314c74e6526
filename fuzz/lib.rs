//! What the fuzz targets have in common: each runs one of `runtime::fuzzing::TARGETS`.

use std::sync::OnceLock;

use runtime::fuzzing::{self, FuzzTarget, Xorshift, mutation};

/// The target of this name, which this program is for.
pub fn target(name: &str) -> &'static FuzzTarget {
    static TARGET: OnceLock<FuzzTarget> = OnceLock::new();
    TARGET.get_or_init(|| fuzzing::target(name))
}

/// Changes the first `size` bytes of `data`, by what they mean or as libFuzzer does; the size they have then.
pub fn mutate(target: &FuzzTarget, data: &mut [u8], size: usize, most: usize, seed: u32) -> usize {
    let mut dice = Xorshift(u64::from(seed) << 16 | 1);
    if seed % 4 == 0 {
        return libfuzzer_sys::fuzzer_mutate(data, size, most);
    }
    let mutated = mutation::mutated(&data[..size], &data[..size], target.form, &mut dice);
    let size = mutated.len().min(most);
    data[..size].copy_from_slice(&mutated[..size]);
    size
}

pub use libfuzzer_sys;

/// The program for one target.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        $crate::libfuzzer_sys::fuzz_target!(|data: &[u8]| ($crate::target($name).run)(data));
        $crate::libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            $crate::mutate($crate::target($name), data, size, max_size, seed)
        });
    };
}
