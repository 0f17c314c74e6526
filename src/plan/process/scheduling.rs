//! CPU scheduling, CPU affinity and I/O priority of the process; config.md § Linux Process.

use anyhow::Result;
use oci_spec::runtime::{self, IOPriorityClass, LinuxSchedulerFlag, LinuxSchedulerPolicy};

use crate::error::Pointer;
use crate::plan::process::cpu_list::Mask;
use crate::sys::scheduling::Scheduler;

/// The CPU affinity of a process that is added to a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    /// The CPUs that the runtime runs on until the process is in the container's cgroup.
    pub initial: Option<Mask>,
    /// The CPUs of the program.
    pub last: Option<Mask>,
}

/// Plans the object at `at` (`/process/scheduler`). Missing values are 0.
pub fn scheduler(wanted: &runtime::Scheduler, at: &Pointer) -> Result<Scheduler> {
    use LinuxSchedulerPolicy as P;
    let policy = *wanted.policy();
    let only = |field: &str, for_what: &str| {
        Err(at.field(field).error(format_args!("only valid for {for_what}, not {policy}")))
    };
    let nice = wanted.nice().unwrap_or(0);
    if matches!(policy, P::SchedOther | P::SchedBatch) && !(-20..=19).contains(&nice) {
        return Err(at.field("nice").error(format_args!("{nice} is out of range (-20 to 19)")));
    }
    let priority = wanted.priority().unwrap_or(0);
    match policy {
        P::SchedFifo | P::SchedRr if !(1..=99).contains(&priority) => {
            return Err(at.field("priority").error(format_args!("{priority} is out of range (1 to 99)")));
        }
        P::SchedFifo | P::SchedRr => {}
        _ if priority != 0 => return only("priority", "SCHED_FIFO and SCHED_RR"),
        _ => {}
    }
    let times = [
        ("runtime", wanted.runtime().unwrap_or(0)),
        ("deadline", wanted.deadline().unwrap_or(0)),
        ("period", wanted.period().unwrap_or(0)),
    ];
    if policy == P::SchedDeadline {
        deadlines(times, at)?;
    } else if let Some((field, _)) = times.iter().find(|(_, time)| *time != 0) {
        return only(field, "SCHED_DEADLINE");
    }
    let [(_, runtime_ns), (_, deadline_ns), (_, period_ns)] = times;
    Ok(Scheduler {
        policy: match policy {
            P::SchedOther => 0,
            P::SchedFifo => 1,
            P::SchedRr => 2,
            P::SchedBatch => 3,
            P::SchedIso => 4,
            P::SchedIdle => 5,
            P::SchedDeadline => 6,
        },
        flags: wanted.flags().iter().flatten().fold(0, |flags, flag| flags | bit(*flag)),
        nice,
        priority: priority.unsigned_abs(),
        runtime_ns,
        deadline_ns,
        period_ns,
    })
}

/// Checks the rules of sched(7): all three from 1024 ns to below 2^63, each at most as large as the next; a
/// period of 0 means the deadline.
fn deadlines(times: [(&str, u64); 3], at: &Pointer) -> Result<()> {
    let mut before = ("", 0);
    for (field, time) in times {
        if field == "period" && time == 0 {
            continue;
        }
        if !(1024..1 << 63).contains(&time) {
            let message = format!("{time} ns is out of range (1024 to 2^63)");
            return Err(at
                .field(field)
                .error_with_hint(message, "SCHED_DEADLINE requires runtime and deadline"));
        }
        if time < before.1 {
            let message = format!("{time} ns is less than {} ({} ns)", before.0, before.1);
            return Err(at.field(field).error_with_hint(message, "must be runtime <= deadline <= period"));
        }
        before = (field, time);
    }
    Ok(())
}

/// `SCHED_FLAG_*`; linux/sched.h.
fn bit(flag: LinuxSchedulerFlag) -> u64 {
    use LinuxSchedulerFlag as F;
    match flag {
        F::SchedResetOnFork => 0x01,
        F::SchedFlagReclaim => 0x02,
        F::SchedFlagDLOverrun => 0x04,
        F::SchedFlagKeepPolicy => 0x08,
        F::SchedFlagKeepParams => 0x10,
        F::SchedFlagUtilClampMin => 0x20,
        F::SchedFlagUtilClampMax => 0x40,
    }
}

/// Plans the object at `at` (`/process/ioPriority`); returns class and level in one number, as in
/// linux/ioprio.h.
pub fn io_priority(wanted: &runtime::LinuxIOPriority, at: &Pointer) -> Result<u16> {
    let class = match wanted.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    let level = u16::try_from(wanted.priority()).ok().filter(|level| *level <= 7).ok_or_else(|| {
        at.field("priority").error(format_args!("{} is out of range (0 to 7)", wanted.priority()))
    })?;
    Ok(class << 13 | level)
}

/// Plans the object at `at` (`/process/execCPUAffinity`).
pub fn affinity(wanted: &runtime::ExecCPUAffinity, at: &Pointer) -> Result<Affinity> {
    let mask = |list: &Option<String>, field: &str| {
        Mask::parse(list.as_deref().unwrap_or_default()).map_err(|message| at.field(field).error(message))
    };
    Ok(Affinity {
        initial: mask(wanted.initial(), "initial")?,
        last: mask(wanted.cpu_affinity_final(), "final")?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::error::line;

    fn planned(value: Value) -> Result<Scheduler> {
        let wanted: runtime::Scheduler = serde_json::from_value(value).unwrap();
        scheduler(&wanted, &Pointer::root().field("process").field("scheduler"))
    }

    fn refused(value: Value) -> String {
        line(&planned(value).unwrap_err())
    }

    #[test]
    fn a_scheduler_is_given_to_the_kernel_in_its_numbers() {
        let expected = Scheduler { policy: 3, nice: 19, ..Scheduler::default() };
        assert_eq!(planned(json!({"policy": "SCHED_BATCH", "nice": 19, "priority": 0})).unwrap(), expected);
        let expected = Scheduler { policy: 2, priority: 99, flags: 1, ..Scheduler::default() };
        let value = json!({"policy": "SCHED_RR", "priority": 99, "flags": ["SCHED_RESET_ON_FORK"]});
        assert_eq!(planned(value).unwrap(), expected);
        let expected =
            Scheduler { policy: 6, runtime_ns: 42_000, deadline_ns: 100_000, ..Scheduler::default() };
        let value = json!({"policy": "SCHED_DEADLINE", "runtime": 42_000, "deadline": 100_000});
        assert_eq!(planned(value).unwrap(), expected);
    }

    #[test]
    fn a_scheduler_says_what_is_wrong_with_it() {
        assert_eq!(
            refused(json!({"policy": "SCHED_OTHER", "nice": 20})),
            "config.json: /process/scheduler/nice: 20 is out of range (-20 to 19)"
        );
        assert_eq!(
            refused(json!({"policy": "SCHED_FIFO"})),
            "config.json: /process/scheduler/priority: 0 is out of range (1 to 99)"
        );
        assert_eq!(
            refused(json!({"policy": "SCHED_IDLE", "priority": 1})),
            "config.json: /process/scheduler/priority: only valid for SCHED_FIFO and SCHED_RR, not SCHED_IDLE"
        );
        assert_eq!(
            refused(json!({"policy": "SCHED_RR", "priority": 1, "period": 5000})),
            "config.json: /process/scheduler/period: only valid for SCHED_DEADLINE, not SCHED_RR"
        );
        assert_eq!(
            refused(json!({"policy": "SCHED_DEADLINE", "deadline": 5000})),
            "config.json: /process/scheduler/runtime: 0 ns is out of range (1024 to 2^63) \
             (SCHED_DEADLINE requires runtime and deadline)"
        );
        assert_eq!(
            refused(json!({"policy": "SCHED_DEADLINE", "runtime": 5000, "deadline": 6000, "period": 5500})),
            "config.json: /process/scheduler/period: 5500 ns is less than deadline (6000 ns) \
             (must be runtime <= deadline <= period)"
        );
    }

    #[test]
    fn an_io_priority_is_class_and_level() {
        let planned = |value: Value| {
            let wanted: runtime::LinuxIOPriority = serde_json::from_value(value).unwrap();
            io_priority(&wanted, &Pointer::root().field("process").field("ioPriority"))
        };
        assert_eq!(planned(json!({"class": "IOPRIO_CLASS_BE", "priority": 4})).unwrap(), 2 << 13 | 4);
        assert_eq!(planned(json!({"class": "IOPRIO_CLASS_IDLE"})).unwrap(), 3 << 13);
        for level in [-1, 8] {
            assert_eq!(
                line(&planned(json!({"class": "IOPRIO_CLASS_RT", "priority": level})).unwrap_err()),
                format!("config.json: /process/ioPriority/priority: {level} is out of range (0 to 7)")
            );
        }
    }

    #[test]
    fn an_affinity_is_two_masks_either_of_which_may_be_missing() {
        let planned = |value: Value| {
            let wanted: runtime::ExecCPUAffinity = serde_json::from_value(value).unwrap();
            affinity(&wanted, &Pointer::root().field("process").field("execCPUAffinity"))
        };
        let both = planned(json!({"initial": "0-1", "final": "3000"})).unwrap();
        assert_eq!(both.initial, Mask::parse("0-1").unwrap());
        assert_eq!(both.last, Mask::parse("3000").unwrap());
        assert_eq!(planned(json!({})).unwrap(), Affinity::default());
        assert_eq!(
            line(&planned(json!({"final": "0,70000"})).unwrap_err()),
            "config.json: /process/execCPUAffinity/final: 70000 exceeds 65536"
        );
    }
}
