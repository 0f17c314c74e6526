//! The resource usage of containers, sampled repeatedly, as shown by `stats` and `top`.
//!
//! `meter.rs` takes samples; this file computes rates from two of them. `table.rs` and `report.rs` (JSON) are
//! the output formats of `stats`, `screen/` is that of `top`. All formatting is pure: numbers and the size of
//! a terminal in, lines out.

mod amounts;
mod columns;
mod graph;
pub mod host;
mod meter;
pub mod network;
pub mod processes;
mod report;
pub mod screen;
mod table;
pub mod text;

use std::time::Duration;

use crate::cgroup::{Transfers, Usage};
use crate::container::state::Status;

pub use columns::lines;
pub use host::memory as host_memory;
pub use meter::Meter;
pub use processes::Watch;
pub use report::report;
pub use table::{Io, table};

/// A sample of one container.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub id: String,
    pub status: Status,
    /// The pid of the init process.
    pub pid: i32,
    /// `None` if the container has no cgroup of its own.
    pub usage: Option<Usage>,
    /// Received and sent bytes of all interfaces except `lo`; `None` if it has no network namespace of its
    /// own.
    pub network: Option<Transfers>,
    /// Since the previous sample; empty in the first one.
    pub rates: Rates,
}

/// Rates of change; `None` if unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// The share of one processor, in hundredths of a percent.
    pub cpu: Option<u64>,
    /// In bytes per second.
    pub io: Option<Transfers>,
    pub network: Option<Transfers>,
}

/// The growth of a counter per second. `None` if the counter has decreased, because it was reset at an
/// unknown value.
fn per_second(before: u64, now: u64, elapsed: Duration) -> Option<u64> {
    let growth = now.checked_sub(before)?;
    let rate = (u128::from(growth) * 1_000_000_000).checked_div(elapsed.as_nanos())?;
    Some(u64::try_from(rate).unwrap_or(u64::MAX))
}

fn transfers_per_second(before: Transfers, now: Transfers, elapsed: Duration) -> Option<Transfers> {
    Some(Transfers {
        read: per_second(before.read, now.read, elapsed)?,
        written: per_second(before.written, now.written, elapsed)?,
    })
}

impl Rates {
    /// The rates between two samples of the same container.
    fn between(before: &Sample, now: &Sample) -> Self {
        let (Some(then), Some(usage)) = (&before.usage, &now.usage) else { return Self::default() };
        let elapsed = usage.at.saturating_duration_since(then.at);
        let transfers =
            |before: Option<Transfers>, now: Option<Transfers>| transfers_per_second(before?, now?, elapsed);
        // 1,000,000,000 ns per second are one processor, that is 10,000 hundredths of a percent.
        let cpu = || Some(per_second(then.cpu_ns?, usage.cpu_ns?, elapsed)? / 100_000);
        Self { cpu: cpu(), io: transfers(then.io, usage.io), network: transfers(before.network, now.network) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    use crate::cgroup::{Limit, Memory, Pressure};

    const MIB: u64 = 1 << 20;

    /// A container that uses some of everything, for tests of output formats.
    pub fn example(id: &str) -> Sample {
        let memory = Memory { current: 60 * MIB, inactive_file: 12 * MIB, limit: Limit::At(64 * MIB) };
        Sample {
            id: id.to_owned(),
            status: Status::Running,
            pid: 4711,
            usage: Some(Usage {
                at: Instant::now(),
                cpu_ns: Some(12_345_678_000),
                cpu_limit: Limit::At(5_000),
                memory: Some(memory),
                pids: Some(3),
                pids_limit: Limit::At(100),
                io: Some(Transfers { read: 5 * MIB, written: 1536 }),
                pressure: Pressure { cpu: Some(1.25), memory: Some(0.0), io: Some(12.5) },
                oom_kills: Some(1),
            }),
            network: Some(Transfers { read: 2048, written: 100 }),
            rates: Rates {
                cpu: Some(2_513),
                io: Some(Transfers { read: MIB, written: 0 }),
                network: Some(Transfers { read: 1024, written: 50 }),
            },
        }
    }

    /// A container of which little is known: no controllers, no pressure, no previous sample.
    pub fn bare(id: &str) -> Sample {
        let usage = Usage {
            at: Instant::now(),
            cpu_ns: Some(1000),
            cpu_limit: Limit::Unknown,
            memory: None,
            pids: Some(1),
            pids_limit: Limit::Unknown,
            io: None,
            pressure: Pressure::default(),
            oom_kills: None,
        };
        Sample { usage: Some(usage), network: None, rates: Rates::default(), ..example(id) }
    }

    #[test]
    fn a_rate_is_growth_by_time() {
        let half = Duration::from_millis(500);
        assert_eq!(per_second(100, 150, half), Some(100));
        assert_eq!(per_second(100, 100, half), Some(0));
        assert_eq!(per_second(0, u64::MAX, Duration::from_nanos(1)), Some(u64::MAX));
    }

    #[test]
    fn a_counter_that_began_anew_and_no_time_give_no_rate() {
        assert_eq!(per_second(100, 99, Duration::from_secs(1)), None);
        assert_eq!(per_second(100, 150, Duration::ZERO), None);
    }

    #[test]
    fn a_processor_for_the_whole_time_is_a_hundred_percent() {
        let before = example("a");
        let mut now = before.clone();
        let usage = now.usage.as_mut().unwrap();
        usage.at += Duration::from_millis(250);
        usage.cpu_ns = usage.cpu_ns.map(|ns| ns + 250_000_000);
        usage.io = Some(Transfers { read: 6 * MIB, written: 0 });
        let rates = Rates::between(&before, &now);
        assert_eq!(rates.cpu, Some(10_000));
        // The counter of written bytes has decreased: a device has been removed.
        assert_eq!(rates.io, None);
        assert_eq!(rates.network, Some(Transfers::default()));
        assert_eq!(Rates::between(&bare("a"), &bare("a")).io, None);
    }
}
