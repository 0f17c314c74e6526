//! `blockIO` → io.bfq.weight or io.weight, io.max.

use anyhow::Result;
use oci_spec::runtime::LinuxBlockIo;

use super::Write;
use crate::error::Pointer;

pub(super) fn plan(block_io: &LinuxBlockIo, at: &Pointer, writes: &mut Vec<Write>) -> Result<()> {
    if let Some(weight) = block_io.weight().filter(|weight| *weight > 0) {
        let at = at.field("weight");
        let io_weight = io_weight(weight, &at)?;
        writes
            .push(Write::new(at, "io.bfq.weight", weight.to_string()).or("io.weight", io_weight.to_string()));
    }
    let list = at.field("weightDevice");
    for (index, device) in block_io.weight_device().iter().flatten().enumerate() {
        let at = list.index(index);
        if let Some(weight) = device.weight().filter(|weight| *weight > 0) {
            let number = number(device.major(), device.minor(), &at)?;
            let io_weight = io_weight(weight, &at.field("weight"))?;
            let write = Write::new(at.field("weight"), "io.bfq.weight", format!("{number} {weight}"));
            writes.push(write.or("io.weight", format!("{number} {io_weight}")));
        }
    }

    let throttles = [
        ("throttleReadBpsDevice", "rbps", block_io.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", "wbps", block_io.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", "riops", block_io.throttle_read_iops_device()),
        ("throttleWriteIOPSDevice", "wiops", block_io.throttle_write_iops_device()),
    ];
    for (field, key, devices) in throttles {
        let list = at.field(field);
        for (index, device) in devices.iter().flatten().enumerate() {
            let at = list.index(index);
            let number = number(device.major(), device.minor(), &at)?;
            // In cgroup v1, 0 lifts a limit; io.max does not accept 0, but max.
            let rate = if device.rate() == 0 { "max".into() } else { device.rate().to_string() };
            let write = Write::new(at.field("rate"), "io.max", format!("{number} {key}={rate}"));
            writes.push(write.unneeded_if(device.rate() == 0));
        }
    }
    Ok(())
}

/// Converts the specification's weight (10 to 1000) to io.weight (1 to 10,000).
fn io_weight(weight: u16, at: &Pointer) -> Result<u32> {
    if !(10..=1000).contains(&weight) {
        return Err(at.error(format_args!("weight {weight} is out of range (10 to 1000)")));
    }
    Ok(1 + u32::from(weight - 10) * 9999 / 990)
}

/// Formats a device number as control files do: `8:0`.
fn number(major: i64, minor: i64, at: &Pointer) -> Result<String> {
    let part = |field: &str, number: i64| {
        u32::try_from(number)
            .map_err(|_| at.field(field).error(format_args!("invalid device number {number}")))
    };
    Ok(format!("{}:{}", part("major", major)?, part("minor", minor)?))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{refused, written};
    use super::super::{WhenRefused, plan};
    use crate::error::Pointer;

    #[test]
    fn weights_go_to_bfq_or_else_to_io_weight() {
        let json = r#"{"blockIO": {"weight": 1000, "weightDevice": [{"major": 8, "minor": 0, "weight": 10},
            {"major": 8, "minor": 16, "leafWeight": 500}]}}"#;
        assert_eq!(written(json), ["io.bfq.weight=1000", "io.bfq.weight=8:0 10"]);
        let limits = plan(&serde_json::from_str(json).unwrap(), &Pointer::root()).unwrap();
        let instead = |value: &str| WhenRefused::Instead { file: "io.weight", value: value.into() };
        let refused: Vec<_> = limits.writes.into_iter().map(|write| write.refused).collect();
        assert_eq!(refused, [instead("10000"), instead("8:0 1")]);
    }

    #[test]
    fn every_throttle_has_its_key() {
        let json = r#"{"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
            "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 2}],
            "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 3}],
            "throttleWriteIOPSDevice": [{"major": 8, "minor": 1, "rate": 0}]}}"#;
        let expected =
            ["io.max=8:0 rbps=1", "io.max=8:0 wbps=2", "io.max=8:0 riops=3", "io.max=8:1 wiops=max"];
        assert_eq!(written(json), expected);
    }

    #[test]
    fn numbers_out_of_range_are_refused_where_they_stand() {
        assert_eq!(
            refused(r#"{"blockIO": {"weight": 9}}"#),
            "config.json: /blockIO/weight: weight 9 is out of range (10 to 1000)"
        );
        assert_eq!(
            refused(r#"{"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": -1, "rate": 1}]}}"#),
            "config.json: /blockIO/throttleReadBpsDevice/0/minor: invalid device number -1"
        );
    }
}
