//! A build of the runtime in which single defences can be switched off (`src/sys/weakened.rs`), to prove that
//! the tests' attacks work.
//!
//! `WEAKENED` is its path: `cargo build --features weakened --target-dir target/weakened`, as in
//! scripts/test.

use std::cell::Cell;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::host::{Outcome, need, need_own};

thread_local! {
    static WITHOUT: Cell<Option<&'static str>> = const { Cell::new(None) };
}

static WEAKENED: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| env::var_os("WEAKENED").filter(|path| !path.is_empty()).map(PathBuf::from));

/// Skips what needs that build.
pub fn need_weakened() -> Outcome {
    need_own()?;
    need(WEAKENED.is_some(), "WEAKENED, a build with --features weakened")
}

/// What this thread calls as the runtime while `act` runs does without the defence against `advisory`.
pub fn without<T>(advisory: &'static str, act: impl FnOnce() -> T) -> T {
    struct Back;
    impl Drop for Back {
        fn drop(&mut self) {
            WITHOUT.set(None);
        }
    }
    WITHOUT.set(Some(advisory));
    let _back = Back;
    act()
}

/// The defence that this thread's runtime does without, and that runtime.
pub fn current() -> Option<(&'static str, &'static Path)> {
    Some((WITHOUT.get()?, WEAKENED.as_deref()?))
}
