//! Security modules: the labels for the container's process, and whether this host supports them; config.md §
//! Linux Process, apparmor(7), selinux(8).

use std::ffi::CString;
use std::fs;

use anyhow::{Context as _, Result};

use crate::error::Pointer;

/// selinuxfs; linux/magic.h.
const SELINUX_MAGIC: u64 = 0xf97c_ff8c;

/// The labels that the process gets when it executes its program.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    /// The command for AppArmor, such as `exec PROFILE`.
    pub apparmor: Option<CString>,
    pub selinux: Option<CString>,
}

/// The requested labels: `/process/apparmorProfile`, `/process/selinuxLabel`.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub apparmor_profile: Option<&'a CString>,
    pub selinux_label: Option<&'a CString>,
    pub no_new_privileges: bool,
}

/// Resolves the `wanted` labels of the process at `at`.
///
/// # Errors
/// If this host lacks the security module: a container must not run with less protection than its bundle asks
/// for.
pub fn labels(wanted: Wanted<'_>, at: &Pointer) -> Result<Labels> {
    let apparmor = match wanted.apparmor_profile {
        Some(profile) if apparmor_is_enabled() => Some(apparmor_command(profile, wanted.no_new_privileges)?),
        // Same wording as runc.
        Some(profile) => {
            let message = format!("{profile:?}: apparmor: config provided but apparmor not supported");
            return Err(at
                .field("apparmorProfile")
                .error_with_hint(message, "boot with AppArmor enabled, or remove the profile"));
        }
        None => None,
    };
    if let Some(label) = wanted.selinux_label {
        require_selinux(label, &at.field("selinuxLabel"))?;
    }
    Ok(Labels { apparmor, selinux: wanted.selinux_label.cloned() })
}

/// Checks that SELinux is enabled, for the label at `at`.
///
/// # Errors
/// If it is not.
pub fn require_selinux(label: &CString, at: &Pointer) -> Result<()> {
    if selinux_is_enabled() {
        return Ok(());
    }
    // Same wording as runc.
    let message =
        format!("{label:?}: selinux label is specified in config, but selinux is disabled or not supported");
    Err(at.error_with_hint(message, "boot with SELinux enabled, or remove the label"))
}

fn apparmor_is_enabled() -> bool {
    fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
}

/// Whether selinuxfs is mounted, which it is not if SELinux is disabled, and a policy is loaded.
fn selinux_is_enabled() -> bool {
    let Ok(found) = rustix::fs::statfs("/sys/fs/selinux") else { return false };
    u64::try_from(found.f_type) == Ok(SELINUX_MAGIC)
        && fs::read("/proc/self/attr/current").is_ok_and(|label| !label.starts_with(b"kernel"))
}

/// If the runtime itself is confined, a process with no_new_privs may only stack a profile on the current
/// one, as in crun.
fn apparmor_command(profile: &CString, no_new_privileges: bool) -> Result<CString> {
    let verb: &[u8] = if no_new_privileges && is_confined()? { b"stack " } else { b"exec " };
    Ok(CString::new([verb, profile.as_bytes()].concat())?)
}

fn is_confined() -> Result<bool> {
    let path = "/proc/self/attr/apparmor/current";
    let text = match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => fs::read("/proc/self/attr/current"),
        text => text,
    };
    Ok(text.with_context(|| format!("read {path}"))?.trim_ascii_end() != b"unconfined")
}
