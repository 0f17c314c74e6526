//! Switches single defences off, so that the security tests can show that their attacks succeed without them.
//!
//! Only a build with the feature `weakened` can do that, and such a build is never released: otherwise
//! [`is_off`] is `false` at compile time, and nothing of this is in the program.

/// Whether the defence against `advisory` is switched off. `RUNTIME_WEAKENED` lists such names, separated by
/// commas.
#[cfg(feature = "weakened")]
pub fn is_off(advisory: &str) -> bool {
    static OFF: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    // The first call is that of `main`: the init process asks later, and must not look at the environment.
    let off = OFF.get_or_init(|| std::env::var("RUNTIME_WEAKENED").unwrap_or_default());
    off.split(',').any(|name| name == advisory)
}

/// Whether a defence against several advisories is switched off for one of them.
pub fn is_off_for(advisories: &[&str]) -> bool {
    cfg!(feature = "weakened") && advisories.iter().any(|advisory| is_off(advisory))
}

/// Whether the defence against this advisory is switched off: never.
#[cfg(not(feature = "weakened"))]
#[inline(always)]
pub const fn is_off(_: &str) -> bool {
    false
}
