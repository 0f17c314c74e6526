//! Limits in effect. `cgroup.rs` reads the values back; here the kernel has to enforce them.

use serde_json::{Value, json};

use crate::support::bundle::{add_mount, show_disk};
use crate::support::container::{NO_OPTIONS, WAIT};
use crate::support::host::{self, need, need_controller, need_disk, need_other_than, need_own};
use crate::support::suite::suite;
use crate::support::{Container, Outcome};

use super::cgroup::device_numbers;

suite![
    memory_max_kills_a_process_that_exceeds_it,
    memory_max_leaves_a_process_below_it_alone,
    pids_max_stops_a_fork_bomb,
    cpu_max_throttles,
    io_max_limits_reading,
    cpuset_pins,
    a_small_memory_limit_lets_the_container_start,
    an_updated_memory_limit_kills,
    an_updated_pids_limit_stops_forks,
    an_updated_cpu_quota_throttles,
    an_updated_throttle_limits_reading,
    updated_processors_pin,
    an_updated_huge_page_limit_is_met,
    a_memory_limit_kills_again_when_it_is_back,
    a_pids_limit_stops_forks_again_when_it_is_back,
    a_cpu_quota_throttles_again_when_it_is_back,
    a_throttle_limits_reading_again_when_it_is_back,
    processors_pin_again_when_they_are_back,
];

/// `key value` in a flat keyed control file.
pub fn counter(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key).and_then(|rest| rest.strip_prefix(' ')));
    line.unwrap_or_else(|| panic!("{key} is not in {text}")).parse().unwrap()
}

fn memory_max_kills_a_process_that_exceeds_it() -> Outcome {
    need_controller("memory")?;
    // tail keeps the last line of what it reads, and /dev/zero has no end of line.
    let container = Container::limited(
        "tail /dev/zero; echo \"status $?\"; cat /sys/fs/cgroup/memory.max; grep '^oom_kill ' /sys/fs/cgroup/memory.events",
        &json!({ "memory": { "limit": 33_554_432, "swap": 33_554_432 } }),
    );
    let output = container.run_with(NO_OPTIONS).succeeds();
    assert!(output.stdout.starts_with("status 137\n33554432\n"), "{output:#?}");
    assert!(counter(&output.stdout, "oom_kill") >= 1, "{output:#?}");
    container.leaves_nothing();
    // The main process itself: 137 comes out of run.
    let container = Container::limited(
        "exec tail /dev/zero",
        &json!({ "memory": { "limit": 33_554_432, "swap": 33_554_432 } }),
    );
    assert_eq!(container.run().code(), 137);
    container.leaves_nothing();
    Ok(())
}

fn memory_max_leaves_a_process_below_it_alone() -> Outcome {
    need_controller("memory")?;
    let container = Container::limited(
        "head -c 8000000 /dev/zero | tail | wc -c",
        &json!({ "memory": { "limit": 67_108_864 } }),
    );
    assert_eq!(container.says(), "8000000");
    Ok(())
}

fn pids_max_stops_a_fork_bomb() -> Outcome {
    need_controller("pids")?;
    let container = Container::limited(
        "sh -c 'for i in $(seq 100); do sleep 100 & done' 2>/tmp/error; cat /sys/fs/cgroup/pids.current; echo end; sleep 1000",
        &json!({ "pids": { "limit": 12 } }),
    );
    // A shell that cannot fork any more ends; one with a builtin cat would go on, busybox's may not.
    let output = container.launch();
    crate::support::wait_until("the limit was hit", || {
        counter(&container.control_file("pids.events"), "max") >= 1
            || container.state()["status"] == "stopped"
    });
    let events = container.control_file("pids.events");
    assert!(counter(&events, "max") >= 1, "{events} {}", output.stdout_now());
    let current: u64 = container.control_file("pids.current").parse().unwrap();
    assert!(current <= 12, "{current}");
    container.delete_by_force();
    container.leaves_nothing();
    Ok(())
}

fn cpu_max_throttles() -> Outcome {
    need_controller("cpu")?;
    let container =
        Container::limited("while :; do :; done", &json!({ "cpu": { "quota": 10_000, "period": 100_000 } }));
    container.launch();
    crate::support::wait_until("ten periods have passed", || {
        counter(&container.control_file("cpu.stat"), "nr_periods") >= 10
    });
    let stat = container.control_file("cpu.stat");
    assert!(counter(&stat, "nr_throttled") >= 3, "{stat}");
    // A tenth of a processor for the periods that went by, with room for the kernel's slices.
    let allowed = (counter(&stat, "nr_periods") + 2) * 10_000 * 3;
    assert!(counter(&stat, "usage_usec") < allowed, "{stat}");
    container.delete_by_force();
    Ok(())
}

fn io_max_limits_reading() -> Outcome {
    need_controller("io")?;
    let disk = need_disk()?;
    let (major, minor) = device_numbers(&disk);
    let container = Container::limited(
        "dd if=/dev/disk of=/dev/null bs=64k count=32 iflag=direct 2>&1; cat /proc/uptime; cat /sys/fs/cgroup/io.max",
        &json!({ "blockIO": { "throttleReadBpsDevice": [{ "major": major, "minor": minor, "rate": 1_048_576 }] } }),
    )
    .edit(|spec| {
        spec["linux"]["devices"] =
            json!([{ "path": "/dev/disk", "type": "b", "major": major, "minor": minor, "fileMode": 0o600 }]);
        spec["linux"]["resources"]["devices"] = json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "b", "major": major, "minor": minor, "access": "r" }
        ]);
    });
    let before = uptime();
    let output = container.run_with(NO_OPTIONS).succeeds();
    assert!(output.stdout.contains("32+0 records in"), "{output:#?}");
    // Two MiB at one MiB a second, of which the first slice is free.
    assert!(uptime() - before > 0.9, "{output:#?}");
    assert!(output.stdout.contains(&format!("{major}:{minor} rbps=1048576")), "{output:#?}");
    Ok(())
}

fn uptime() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

fn cpuset_pins() -> Outcome {
    need_controller("cpuset")?;
    let processors = std::thread::available_parallelism().unwrap().get();
    need(processors > 1, "more than one processor")?;
    let container = Container::limited(
        "grep Cpus_allowed_list /proc/self/status; nproc",
        &json!({ "cpu": { "cpus": "1" } }),
    );
    assert_eq!(container.says(), "Cpus_allowed_list:\t1\n1");
    Ok(())
}

/// Several times, because what the kernel counts before it looks differs from time to time. Half of it is margin, and more than
/// that for an optimised program.
fn a_small_memory_limit_lets_the_container_start() -> Outcome {
    need_controller("memory")?;
    need_other_than("runc", "needs some MiB")?;
    need_other_than("crun", "needs more on some machines")?;
    for _ in 0..5 {
        let container = Container::with_args(["true"])
            .edit(|spec| spec["linux"]["resources"]["memory"] = json!({ "limit": 262_144, "swap": 262_144 }));
        container.run_with(NO_OPTIONS).succeeds();
        container.leaves_nothing();
    }
    Ok(())
}

/// What a container with this script says that goes on only after `update` with these options.
fn after_update(script: &str, options: &[&str], edit: impl FnOnce(&mut Value)) -> crate::support::Output {
    let container = Container::with_script(&format!("{WAIT} {script}")).edit(edit);
    let running = container.run_beside();
    container.runtime().arg("update").args(options).arg(&container.id).succeeds();
    container.go_on();
    running.wait()
}

fn an_updated_memory_limit_kills() -> Outcome {
    need_controller("memory")?;
    let options = ["--memory", "33554432", "--memory-swap", "33554432"];
    assert_eq!(after_update("exec tail /dev/zero", &options, |_| ()).code(), 137);
    Ok(())
}

fn an_updated_pids_limit_stops_forks() -> Outcome {
    need_controller("pids")?;
    let output =
        after_update("for i in 1 2 3 4 5; do sleep 1 & done; echo forked", &["--pids-limit", "3"], |_| ());
    assert!(!output.stdout.contains("forked") && output.stderr.contains("fork"), "{output:#?}");
    Ok(())
}

fn an_updated_cpu_quota_throttles() -> Outcome {
    need_controller("cpu")?;
    let container = Container::with_script("while :; do :; done");
    container.launch();
    let options = ["update", "--cpu-quota", "10000", "--cpu-period", "100000"];
    container.runtime().args(options).arg(&container.id).succeeds();
    crate::support::wait_until("it was throttled", || {
        counter(&container.control_file("cpu.stat"), "nr_throttled") >= 3
    });
    Ok(())
}

fn an_updated_throttle_limits_reading() -> Outcome {
    need_controller("io")?;
    let disk = need_disk()?;
    let (major, minor) = device_numbers(&disk);
    let resources = json!({ "blockIO": { "throttleReadBpsDevice": [{ "major": major, "minor": minor, "rate": 1_048_576 }] } });
    let document = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(document.path(), resources.to_string()).unwrap();
    let script =
        "cat /proc/uptime; dd if=/dev/disk of=/dev/null bs=64k count=32 iflag=direct; cat /proc/uptime";
    let output = after_update(script, &["--resources", document.path().to_str().unwrap()], |spec| {
        show_disk(spec, (major, minor));
    });
    let times: Vec<f64> =
        output.stdout.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    // Two MiB at one MiB a second, of which the first slice is free.
    assert!(times.len() == 2 && times[1] - times[0] > 0.9, "{output:#?}");
    Ok(())
}

fn updated_processors_pin() -> Outcome {
    need_controller("cpuset")?;
    let processors = std::thread::available_parallelism().unwrap().get();
    need(processors > 1, "more than one processor")?;
    let output = after_update("grep Cpus_allowed_list /proc/self/status", &["--cpuset-cpus", "1"], |_| ());
    assert_eq!(output.stdout, "Cpus_allowed_list:\t1\n", "{output:#?}");
    Ok(())
}

fn an_updated_huge_page_limit_is_met() -> Outcome {
    need_controller("hugetlb")?;
    need_other_than("runc", "ignores it")?;
    need(host::machine() != "native", "a machine of its own, whose huge pages may be reserved")?;
    std::fs::write("/proc/sys/vm/nr_hugepages", "4").unwrap();
    let document = tempfile::NamedTempFile::new().unwrap();
    let pages = |limit: u64| json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": limit }] });
    std::fs::write(document.path(), pages(2_097_152).to_string()).unwrap();
    let script = "fallocate -l 2097152 /tmp/huge/a && echo one; fallocate -l 4194304 /tmp/huge/b || echo not two; rm /tmp/huge/*";
    let mount = |spec: &mut Value| {
        add_mount(
            spec,
            json!({ "destination": "/tmp/huge", "type": "hugetlbfs", "source": "huge", "options": ["pagesize=2M"] }),
        );
    };
    let updated = after_update(script, &["--resources", document.path().to_str().unwrap()], mount);
    // In one test, for the machine has one number of huge pages.
    let back = ("hugetlb.2MB.max", ["8388608", "2097152"]);
    let rolled_back =
        host::is_own().then(|| after_rollback(script, &pages(2_097_152), &pages(8_388_608), back, mount));
    std::fs::write("/proc/sys/vm/nr_hugepages", "0").unwrap();
    for output in [Some(updated), rolled_back].into_iter().flatten() {
        assert_eq!(output.stdout, "one\nnot two\n", "{output:#?}");
    }
    Ok(())
}

/// What a container with this script and these limits says that goes on only after they were lifted and, by `rollback`, given
/// back; `back` tells what the file holds each time.
fn after_rollback(
    script: &str,
    limited: &Value,
    lifted: &Value,
    (file, back): (&str, [&str; 2]),
    edit: impl FnOnce(&mut Value),
) -> crate::support::Output {
    let container = Container::with_script(&format!("{WAIT} {script}")).edit(|spec| {
        for (key, value) in limited.as_object().unwrap() {
            spec["linux"]["resources"][key] = value.clone();
        }
        edit(spec);
    });
    let running = container.run_beside();
    let document = container.beside("limits.json");
    std::fs::write(&document, lifted.to_string()).unwrap();
    container.runtime().args(["update", "-r"]).arg(document).arg(&container.id).succeeds();
    assert_eq!(container.control_file(file), back[0]);
    container.on_id("rollback").succeeds();
    assert_eq!(container.control_file(file), back[1]);
    container.go_on();
    running.wait()
}

fn a_memory_limit_kills_again_when_it_is_back() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    let memory = |limit: i64| json!({ "memory": { "limit": limit, "swap": limit } });
    let back = ("memory.max", ["268435456", "33554432"]);
    let output = after_rollback("exec tail /dev/zero", &memory(32 << 20), &memory(256 << 20), back, |_| ());
    assert_eq!(output.code(), 137);
    Ok(())
}

fn a_pids_limit_stops_forks_again_when_it_is_back() -> Outcome {
    need_own()?;
    need_controller("pids")?;
    let pids = |limit: i64| json!({ "pids": { "limit": limit } });
    let script = "for i in 1 2 3 4 5; do sleep 1 & done; echo forked";
    let output = after_rollback(script, &pids(3), &pids(-1), ("pids.max", ["max", "3"]), |_| ());
    assert!(!output.stdout.contains("forked") && output.stderr.contains("fork"), "{output:#?}");
    Ok(())
}

fn a_cpu_quota_throttles_again_when_it_is_back() -> Outcome {
    need_own()?;
    need_controller("cpu")?;
    let quota = |quota: i64| json!({ "cpu": { "quota": quota, "period": 100_000 } });
    // It waits at first without being throttled, for sleeping takes no time.
    let script = "was=$(grep '^nr_throttled ' /sys/fs/cgroup/cpu.stat); \
                  while [ \"$(grep '^nr_throttled ' /sys/fs/cgroup/cpu.stat)\" = \"$was\" ]; do :; done; echo throttled";
    let back = ("cpu.max", ["max 100000", "5000 100000"]);
    let output = after_rollback(script, &quota(5_000), &quota(-1), back, |_| ());
    assert!(output.stdout.ends_with("throttled\n"), "{output:#?}");
    Ok(())
}

fn a_throttle_limits_reading_again_when_it_is_back() -> Outcome {
    need_own()?;
    need_controller("io")?;
    let disk = need_disk()?;
    let (major, minor) = device_numbers(&disk);
    let rate = |rate: u64| json!({ "blockIO": { "throttleReadBpsDevice": [{ "major": major, "minor": minor, "rate": rate }] } });
    let script =
        "cat /proc/uptime; dd if=/dev/disk of=/dev/null bs=64k count=32 iflag=direct; cat /proc/uptime";
    let limited = format!("{major}:{minor} rbps=1048576 wbps=max riops=max wiops=max");
    let output = after_rollback(script, &rate(1_048_576), &rate(0), ("io.max", ["", &limited]), |spec| {
        show_disk(spec, (major, minor));
    });
    let times: Vec<f64> =
        output.stdout.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    assert!(times.len() == 2 && times[1] - times[0] > 0.9, "{output:#?}");
    Ok(())
}

fn processors_pin_again_when_they_are_back() -> Outcome {
    need_own()?;
    need_controller("cpuset")?;
    let processors = std::thread::available_parallelism().unwrap().get();
    need(processors > 1, "more than one processor")?;
    let cpus = |list: &str| json!({ "cpu": { "cpus": list } });
    let script = "grep Cpus_allowed_list /proc/self/status";
    let output = after_rollback(script, &cpus("1"), &cpus("0-1"), ("cpuset.cpus", ["0-1", "1"]), |_| ());
    assert_eq!(output.stdout, "Cpus_allowed_list:\t1\n", "{output:#?}");
    Ok(())
}
