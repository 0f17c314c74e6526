//! Holes that were found in container runtimes, each kept closed: attacks by the number of their advisory,
//! mounted through the command line on a real kernel.
//!
//! An attack says what harm it did. On the runtime under test it must do none: whether the container is
//! refused or runs harmlessly is the runtime's choice, unless the advisory says otherwise. On a build that
//! does without the defence (`src/sys/weakened.rs`) it must do harm, or it would prove nothing; those tests are
//! in `security::without_its_defence::`. SECURITY.md has the table.

mod attack;
mod births;
mod cgroups;
mod devices;
mod executable;
mod hidden_paths;
mod links;
mod netlink;
mod privileges;
mod procfs;
mod table;

use crate::support::suite::Test;

pub fn tests() -> Vec<Test> {
    [
        executable::tests(),
        births::tests(),
        procfs::tests(),
        hidden_paths::tests(),
        links::tests(),
        devices::tests(),
        privileges::tests(),
        cgroups::tests(),
        netlink::tests(),
        table::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
