//! The cgroups of the host.

use std::path::Path;

use super::attack::{Harm, attacks, harm_if};
use crate::rootless::Delegated;
use crate::support::Container;
use crate::support::bundle::remove_namespace;
use crate::support::container::NO_OPTIONS;
use crate::support::host::CGROUPS;
use crate::support::user::need_user_namespaces;

attacks![cve_2023_25809_the_cgroups_of_the_host_cannot_be_written: "CVE-2023-25809"];

/// Without a cgroup namespace what is mounted on /sys/fs/cgroup is the host's, and must be read-only as it
/// was asked to be.
fn cve_2023_25809_the_cgroups_of_the_host_cannot_be_written() -> Harm {
    need_user_namespaces()?;
    let delegated = Delegated::new();
    let inside = Path::new("/sys/fs/cgroup").join(delegated.path.strip_prefix(CGROUPS).unwrap()).join("made");
    let script = format!("mkdir {0} && rmdir {0} && echo made", inside.display());
    let container = Container::with_script(&script).of_user().edit(|spec| remove_namespace(spec, "cgroup"));
    let output = delegated.call(container.run_with(NO_OPTIONS)).output();
    harm_if(output.stdout.contains("made") || delegated.path.join("made").exists(), || format!("{output:#?}"))
}
