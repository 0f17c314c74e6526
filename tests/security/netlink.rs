//! Messages that the runtime writes byte by byte.

use serde_json::json;

use super::attack::{Harm, attacks, harm_if};
use crate::net_devices::{PAIR, need_pairs, run_in_a_net};
use crate::support::Container;
use crate::support::host::need_own;

attacks![cve_2021_43784_a_name_cannot_outgrow_its_length_field: "CVE-2021-43784"];

/// An attribute of a netlink message has 16 bits for its length, and a bundle names a network device. A name
/// of 64 KiB more than that says brings attributes of the attacker's: here `IFLA_MTU`, and what the kernel
/// skips.
fn cve_2021_43784_a_name_cannot_outgrow_its_length_field() -> Harm {
    need_own()?;
    need_pairs()?;
    const MTU: u8 = 4;
    let attribute = |length: u16, kind: u8, value: &[u8]| {
        let [low, high] = length.to_le_bytes();
        let mut bytes = [&[low, high, kind, 0x7f * u8::from(kind != MTU)], value].concat();
        bytes.resize(length.into(), 0);
        bytes
    };
    // To the next multiple of four.
    let mut name = b"evil0\0\0\0".to_vec();
    name.extend(attribute(8, MTU, &1300_u32.to_le_bytes()));
    for length in [0x7f7c, 0x7f7c, 100, 100, 56] {
        name.extend(attribute(length, 1, b""));
    }
    // The last three: the NUL at the end, and what is added to come to a multiple of four.
    name.truncate(name.len() - 3);
    let name = String::from_utf8(name).unwrap();
    let container = Container::with_args(["cat", "/sys/class/net/evil0/mtu"])
        .edit(|spec| spec["linux"]["netDevices"] = json!({ "hk0": { "name": name } }));
    let output = run_in_a_net(&container, PAIR, ":");
    harm_if(output.stdout.trim() == "1300", || "the name has brought an MTU".to_owned())
}
