//! Disables single defences, so that the security tests can show that their attacks succeed without them.
//!
//! This takes a build with the feature `weakened`, which is never released. In all other builds [`is_off`] is
//! `false` at compile time, and nothing of this is in the program.

/// Whether the defence against `advisory` is disabled. `RUNTIME_WEAKENED` lists the names, separated by
/// commas.
#[cfg(feature = "weakened")]
pub fn is_off(advisory: &str) -> bool {
    static OFF: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    // `main` makes the first call: the init process, which calls this later, must not read the environment.
    let off = OFF.get_or_init(|| std::env::var("RUNTIME_WEAKENED").unwrap_or_default());
    off.split(',').any(|name| name == advisory)
}

/// Whether a defence against several advisories is disabled for one of them.
pub fn is_off_for(advisories: &[&str]) -> bool {
    cfg!(feature = "weakened") && advisories.iter().any(|advisory| is_off(advisory))
}

/// Whether the defence against this advisory is disabled: never.
#[cfg(not(feature = "weakened"))]
#[inline(always)]
pub const fn is_off(_: &str) -> bool {
    false
}
