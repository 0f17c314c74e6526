//! Sharing scarce resources: the weights and memory protections of cgroup v2, measured in effect.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::bundle::{cgroups_path, show_disk};
use crate::support::host::{CGROUPS, by_systemd, has_controller, need, need_controller, need_disk, need_own};
use crate::support::suite::suite;
use crate::support::{Container, Invocation, Outcome, rootfs, wait_until};

use super::cgroup::device_numbers;
use super::enforcement::counter;

suite![
    processor_time_goes_by_weight,
    an_idle_container_gets_what_others_leave,
    a_soft_limit_of_memory_slows_down_and_kills_nobody,
    protected_memory_is_left_alone_while_others_give_back,
    swap_is_used_up_to_its_limit,
];

const MIB: u64 = 1 << 20;

/// A container that wants a processor for itself, which is the first one.
fn busy(cpu: Value) -> Container {
    let container = Container::with_script("while :; do :; done").edit(|spec| {
        spec["linux"]["resources"]["cpu"] = cpu;
        if has_controller("cpuset") {
            spec["linux"]["resources"]["cpu"]["cpus"] = json!("0");
        }
    });
    container.launch();
    container
}

/// How much more processor time the first gets than the second, while they use a second of it together.
fn advantage(first: &Container, second: &Container) -> f64 {
    let used = || [first, second].map(|one| counter(&one.control_file("cpu.stat"), "usage_usec"));
    let before = used();
    let mut parts = [0, 0];
    wait_until("they have used a second", || {
        let now = used();
        parts = [now[0] - before[0], now[1] - before[1]];
        parts[0] + parts[1] >= 1_000_000
    });
    #[expect(clippy::cast_precision_loss, reason = "some millions")]
    let [first, second] = parts.map(|part| part as f64);
    first / second.max(1.0)
}

fn of(container: &Container, command: &str, options: &[&str]) -> Invocation {
    container.runtime().arg(command).args(options).arg(&container.id)
}

fn processor_time_goes_by_weight() -> Outcome {
    need_controller("cpu")?;
    let (much, little) = (busy(json!({ "shares": 4096 })), busy(json!({ "shares": 256 })));
    let ratio = advantage(&much, &little);
    assert!(ratio > 2.0, "as created: {ratio}");
    of(&much, "update", &["--cpu-share", "256"]).succeeds();
    of(&little, "update", &["--cpu-share", "4096"]).succeeds();
    let ratio = advantage(&little, &much);
    assert!(ratio > 2.0, "updated: {ratio}");
    need_own()?;
    of(&much, "rollback", &[]).succeeds();
    of(&little, "rollback", &[]).succeeds();
    let ratio = advantage(&much, &little);
    assert!(ratio > 2.0, "rolled back: {ratio}");
    Ok(())
}

fn an_idle_container_gets_what_others_leave() -> Outcome {
    need_controller("cpu")?;
    // Beside others it would take long to be made.
    let idle = busy(json!({ "idle": 1 }));
    let usual = busy(json!({}));
    let ratio = advantage(&usual, &idle);
    assert!(ratio > 10.0, "{ratio}");
    Ok(())
}

fn a_soft_limit_of_memory_slows_down_and_kills_nobody() -> Outcome {
    need_controller("memory")?;
    let limits = json!({ "unified": { "memory.high": "8388608", "memory.swap.max": "0" } });
    let container = Container::limited("exec dd if=/dev/zero of=/dev/null bs=16M count=1", &limits);
    container.launch();
    wait_until("it was slowed down", || counter(&container.control_file("memory.events"), "high") > 10);
    let events = container.control_file("memory.events");
    assert_eq!(counter(&events, "oom_kill"), 0, "{events}");
    container.delete_by_force();
    Ok(())
}

/// What is left of twelve MiB of one container's page cache when another has read a lot, with 32 MiB for both.
fn left_of_cache((major, minor): (u32, u32), protection: u64) -> u64 {
    let reader = |above: &str, script: &str, protection: u64| {
        let container = Container::with_script(script).edit(|spec| {
            show_disk(spec, (major, minor));
            spec["linux"]["resources"]["memory"] = json!({ "reservation": protection });
        });
        let path = format!("{above}/{}", container.id);
        container.edit(|spec| spec["linux"]["cgroupsPath"] = json!(path))
    };
    let above = cgroups_path(&format!("{}-above", Container::new().id));
    let directory = Path::new(CGROUPS).join(above.trim_start_matches('/'));
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("memory.max"), (32 * MIB).to_string()).unwrap();
    // Protection is a share of what the parent is granted.
    fs::write(directory.join("memory.low"), (32 * MIB).to_string()).unwrap();
    let quiet =
        reader(&above, "cat /dev/disk | head -c 12582912 >/dev/null; echo read; sleep 1000", protection);
    quiet.launch().wait_for_stdout("read");
    let greedy =
        reader(&above, "dd if=/dev/disk of=/dev/null bs=1M skip=100 count=200; echo read; sleep 1000", 0);
    greedy.launch().wait_for_stdout("read");
    let left = counter(&quiet.control_file("memory.stat"), "file");
    quiet.delete_by_force();
    greedy.delete_by_force();
    fs::remove_dir(&directory).unwrap();
    left
}

fn protected_memory_is_left_alone_while_others_give_back() -> Outcome {
    need_controller("memory")?;
    need(!by_systemd(), "a parent whose limit the test sets")?;
    let disk = need_disk()?;
    // Who closes a disk last takes its cache away.
    let _open = fs::File::open(&disk).unwrap();
    let disk = device_numbers(&disk);
    let (protected, unprotected) = (left_of_cache(disk, 16 * MIB), left_of_cache(disk, 0));
    assert!(protected > 10 * MIB && unprotected < 6 * MIB, "{protected} {unprotected}");
    Ok(())
}

/// Swap space of 32 MiB at the beginning of the disk, for as long as this is there.
struct Swap(String);

impl Swap {
    fn on(disk: String) -> Self {
        let busybox = |words: &[&str]| rootfs::busybox().args(words).succeeds();
        busybox(&["mkswap", &disk, "32768"]);
        busybox(&["swapon", &disk]);
        Self(disk)
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        rootfs::busybox().args(["swapoff", &self.0]).output();
        // Whoever looks for an empty disk finds one.
        let _ =
            fs::OpenOptions::new().write(true).open(&self.0).and_then(|mut disk| disk.write_all(&[0; 8192]));
    }
}

fn swap_is_used_up_to_its_limit() -> Outcome {
    need_controller("memory")?;
    let swap = Swap::on(need_disk()?);
    let limits = json!({ "memory": { "limit": 16 * MIB, "swap": 24 * MIB } });
    let dd = |size: &str| format!("exec dd if=/dev/zero of=/dev/null bs={size} count=1");
    let within = Container::limited(&dd("20M"), &limits).run();
    let above = Container::limited(&dd("40M"), &limits).run();
    drop(swap);
    assert_eq!((within.code(), above.code()), (0, 137), "{within:#?} {above:#?}");
    Ok(())
}
