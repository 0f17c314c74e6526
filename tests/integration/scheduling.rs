//! Scheduler, I/O priority, CPU affinity and memory policy of the process.

use std::{fs, thread};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::{Value, json};

use crate::support::host::{has_capability, need, need_controller, need_other_than, need_own};
use crate::support::suite::suite;
use crate::support::{Container, Outcome};

suite![
    a_scheduler_is_set,
    a_real_time_scheduler_is_set_with_its_priority,
    a_deadline_is_set,
    a_deadline_on_some_processors_is_refused_in_the_words_that_callers_know,
    an_io_priority_is_set,
    an_idle_io_priority_is_set,
    the_processors_of_the_caller_are_not_the_containers,
    an_affinity_for_exec_leaves_the_init_process_alone,
    a_memory_policy_is_set,
    a_memory_policy_may_have_flags,
    the_default_memory_policy_needs_no_nodes,
    a_memory_node_that_is_not_there_is_named_by_its_field,
];

/// The fields of /proc/self/stat of the init process that sched(7) explains: nice value, real-time priority, policy.
fn schedule(process: impl FnOnce(&mut Value)) -> (String, String, String) {
    let container =
        Container::with_args(["cat", "/proc/self/stat"]).edit(|spec| process(&mut spec["process"]));
    let said = container.says();
    let fields: Vec<_> = said.rsplit(')').next().unwrap().split_whitespace().collect();
    // The state, which follows the name, is field 3; proc_pid_stat(5).
    let field = |number: usize| fields[number - 3].to_owned();
    (field(19), field(40), field(41))
}

fn triple(nice: &str, priority: &str, policy: &str) -> (String, String, String) {
    (nice.to_owned(), priority.to_owned(), policy.to_owned())
}

fn a_scheduler_is_set() {
    let batch = json!({ "policy": "SCHED_BATCH", "priority": 0, "nice": 19 });
    assert_eq!(schedule(|process| process["scheduler"] = batch), triple("19", "0", "3"));
    // The nice value stays that of the caller.
    let (_, priority, policy) = schedule(|process| process["scheduler"] = json!({ "policy": "SCHED_IDLE" }));
    assert_eq!((priority.as_str(), policy.as_str()), ("0", "5"));
}

fn a_real_time_scheduler_is_set_with_its_priority() -> Outcome {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    need(
        !cpus.contains("User Mode Linux"),
        "a kernel without real-time budgets of cgroups (RT_GROUP_SCHED)",
    )?;
    need(has_capability(23), "CAP_SYS_NICE")?;
    let (_, priority, policy) =
        schedule(|process| process["scheduler"] = json!({ "policy": "SCHED_RR", "priority": 7 }));
    assert_eq!((priority.as_str(), policy.as_str()), ("7", "2"));
    Ok(())
}

fn deadline() -> Value {
    json!({ "policy": "SCHED_DEADLINE", "nice": 19, "priority": 0, "flags": ["SCHED_FLAG_RESET_ON_FORK"],
        "runtime": 42_000, "deadline": 1_000_000, "period": 1_000_000 })
}

fn a_deadline_is_set() -> Outcome {
    need(has_capability(23), "CAP_SYS_NICE")?;
    let (_, _, policy) = schedule(|process| process["scheduler"] = deadline());
    assert_eq!(policy, "6");
    Ok(())
}

fn a_deadline_on_some_processors_is_refused_in_the_words_that_callers_know() -> Outcome {
    need_controller("cpuset")?;
    need(thread::available_parallelism().unwrap().get() > 1, "two processors")?;
    need_other_than("crun", "passes on what the kernel says")?;
    let container = Container::new().edit(|spec| {
        spec["linux"]["resources"]["cpu"] = json!({ "cpus": "0" });
        spec["process"]["scheduler"] = deadline();
    });
    container.run_fails_with("process scheduler can't be used together with AllowedCPUs");
    Ok(())
}

fn an_io_priority_is_set() {
    let container = Container::with_args(["ionice"]).edit(|spec| {
        spec["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 4 });
    });
    assert_eq!(container.says(), "best-effort: prio 4");
}

fn an_idle_io_priority_is_set() {
    let container = Container::with_args(["ionice"]).edit(|spec| {
        spec["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_IDLE" });
    });
    assert!(container.says().starts_with("idle"));
}

fn processors(container: &Container) -> String {
    let said = container.says();
    said.strip_prefix("Cpus_allowed_list:").unwrap_or(&said).trim().to_owned()
}

fn show_processors() -> Container {
    Container::with_args(["grep", "Cpus_allowed_list:", "/proc/self/status"])
}

/// Calls it on a thread that may run on one processor only.
fn on_one_processor<T: Send>(call: impl FnOnce() -> T + Send) -> T {
    let on_one = move || {
        let all = sched_getaffinity(None).unwrap();
        let mut one = CpuSet::new();
        one.set((0..CpuSet::MAX_CPU).find(|number| all.is_set(*number)).unwrap());
        sched_setaffinity(None, &one).unwrap();
        call()
    };
    thread::scope(|scope| scope.spawn(on_one).join().unwrap())
}

fn the_processors_of_the_caller_are_not_the_containers() -> Outcome {
    need(thread::available_parallelism().unwrap().get() > 1, "two processors")?;
    let container = show_processors();
    let usual = processors(&container);
    assert_eq!(on_one_processor(|| processors(&container)), usual);
    Ok(())
}

fn an_affinity_for_exec_leaves_the_init_process_alone() {
    let usual = processors(&show_processors());
    let container = show_processors()
        .edit(|spec| spec["process"]["execCPUAffinity"] = json!({ "initial": "0", "final": "0" }));
    assert_eq!(processors(&container), usual);
}

/// What /proc/self/numa_maps says of the first of the program's own pages.
fn memory_policy(policy: Value) -> Result<String, crate::support::host::Skip> {
    need(fs::exists("/proc/self/numa_maps").unwrap(), "a kernel that knows memory nodes")?;
    need_other_than("crun", "has memory policies since 1.25 only")?;
    need_other_than("runc", "has memory policies since 1.4 only")?;
    let container = Container::with_args(["head", "-n", "1", "/proc/self/numa_maps"])
        .edit(|spec| spec["linux"]["memoryPolicy"] = policy);
    Ok(container.says().split(' ').nth(1).unwrap().to_owned())
}

fn a_memory_policy_is_set() -> Outcome {
    let said = memory_policy(json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0" }))?;
    assert_eq!(said, "interleave:0");
    Ok(())
}

fn a_memory_policy_may_have_flags() -> Outcome {
    let flags = ["MPOL_F_STATIC_NODES"];
    let said = memory_policy(json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": flags }))?;
    assert_eq!(said, "bind=static:0");
    let flags = ["MPOL_F_RELATIVE_NODES"];
    let said = memory_policy(json!({ "mode": "MPOL_PREFERRED", "nodes": "0", "flags": flags }))?;
    assert!(said.starts_with("prefer") && said.ends_with("=relative:0"), "{said}");
    Ok(())
}

fn the_default_memory_policy_needs_no_nodes() -> Outcome {
    assert_eq!(memory_policy(json!({ "mode": "MPOL_DEFAULT" }))?, "default");
    Ok(())
}

fn a_memory_node_that_is_not_there_is_named_by_its_field() -> Outcome {
    need_own()?;
    need(fs::exists("/proc/self/numa_maps").unwrap(), "a kernel that knows memory nodes")?;
    let container = Container::new()
        .edit(|spec| spec["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_BIND", "nodes": "60000" }));
    container.run_fails_with(
        "config.json: /linux/memoryPolicy: set memory policy 0x2: invalid argument (EINVAL) (a memory \
         node does not exist on this host, or the flags conflict)",
    );
    Ok(())
}
