//! cgroup v2: the container's cgroup path, and what is written to the cgroup before the workload runs.
//!
//! Every value is read from outside and, through /sys/fs/cgroup, from inside.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::bundle::cgroups_path;
use crate::support::container::NO_OPTIONS;
use crate::support::host::{
    CGROUPS, has_controller, is_own, kind, need, need_controller, need_disk, need_other_than, need_own,
};
use crate::support::suite::suite;
use crate::support::{Container, Outcome, leftovers};

suite![
    the_cgroup_is_where_the_path_says,
    a_cgroup_below_others_is_made_and_removed,
    a_container_without_a_path_gets_a_cgroup,
    the_process_is_in_its_cgroup_from_the_start,
    a_cgroup_with_processes_is_refused,
    an_empty_cgroup_that_exists_is_taken,
    cgroups_made_inside_are_removed,
    a_path_with_dots_stays_in_the_hierarchy,
    the_workload_cannot_write_its_limits,
    zeros_and_empty_objects_mean_unset,
    the_memory_limit_is_written,
    the_memory_limit_of_minus_one_is_max,
    the_memory_reservation_is_low,
    the_swap_limit_is_without_the_memory,
    equal_memory_and_swap_forbid_swapping,
    unlimited_swap_is_max,
    swap_below_memory_is_refused,
    swap_without_memory_is_refused,
    cpu_shares_become_a_weight,
    cpu_quota_and_period_are_written,
    a_cpu_period_alone_is_written,
    a_negative_cpu_quota_is_max,
    the_cpu_burst_is_written,
    cpu_idle_is_written,
    cpus_and_memory_nodes_are_written,
    cpus_that_do_not_exist_are_refused,
    the_pids_limit_is_written,
    an_unlimited_pids_limit_is_max,
    the_weight_of_block_io_is_written,
    the_throttles_of_block_io_are_written,
    huge_page_limits_are_written,
    a_huge_page_size_that_does_not_exist_is_refused,
    rdma_limits_are_written,
    an_rdma_device_that_does_not_exist_is_refused,
    a_miscellaneous_resource_that_does_not_exist_is_refused,
    unified_values_are_written_as_they_are,
    unified_values_come_after_the_others,
    a_unified_key_with_a_slash_is_refused,
    a_unified_key_that_is_no_file_is_refused,
    a_unified_value_the_kernel_refuses_is_named,
    a_limit_without_its_controller_is_refused_by_pointer,
    a_failed_limit_leaves_nothing,
    limits_of_v1_that_have_no_meaning_are_ignored_or_refused_by_pointer,
    deleting_a_stopped_container_spares_the_next_one_in_its_cgroup,
];

fn with_resources(resources: Value) -> Container {
    Container::idle().edit(|spec| {
        for (key, value) in resources.as_object().unwrap() {
            spec["linux"]["resources"][key] = value.clone();
        }
    })
}

/// Starts a container with these resources and holds what the files say against `expected`, outside and inside.
#[track_caller]
fn shows(resources: Value, expected: &[(&str, &str)]) {
    let script: String =
        expected.iter().map(|(file, _)| format!("cat /sys/fs/cgroup/{file}; echo ==;")).collect();
    let container = with_resources(resources.clone()).edit(|spec| {
        spec["process"]["args"] = json!(["sh", "-c", format!("{script} echo done; sleep 1000")])
    });
    let output = container.launch();
    output.wait_for_stdout("done");
    let said = output.stdout_now();
    for ((file, value), inside) in expected.iter().zip(said.split("==\n")) {
        assert_eq!(container.control_file(file), *value, "{file} for {resources}");
        assert_eq!(inside.trim_end(), *value, "{file} inside, for {resources}");
    }
    container.delete_by_force();
    container.leaves_nothing();
}

/// The container is refused, and our own message names the place.
#[track_caller]
fn refused(resources: Value, pointer: &str) {
    let container = with_resources(resources.clone());
    let output = container.run_with(NO_OPTIONS).output();
    assert_ne!(output.code(), 0, "{resources}: {output:#?}");
    if is_own() {
        assert!(output.stderr.contains(&format!("config.json: /linux/resources/{pointer}")), "{output:#?}");
    }
    container.leaves_nothing();
}

fn the_cgroup_is_where_the_path_says() {
    let container = Container::idle();
    container.create();
    assert_eq!(container.control_file("cgroup.procs"), container.pid().to_string());
    container.start();
    container.delete_by_force();
    assert!(!container.cgroup().exists());
}

fn a_cgroup_below_others_is_made_and_removed() {
    let container = Container::idle();
    let parent = format!("{}-parent", container.id);
    let path = format!("{}/deep/{}", cgroups_path(&parent), container.id);
    let container = container.edit(|spec| spec["linux"]["cgroupsPath"] = json!(path));
    container.create();
    assert!(container.cgroup().ends_with(format!("{parent}/deep/{}", container.id)));
    assert_eq!(container.control_file("cgroup.procs"), container.pid().to_string());
    container.delete_by_force();
    assert!(!container.cgroup().exists());
    // The cgroups above are not the runtime's alone; what it leaves of them is empty.
    for above in
        [container.cgroup().parent().unwrap(), container.cgroup().parent().unwrap().parent().unwrap()]
    {
        let _ = fs::remove_dir(above);
        assert!(!above.exists(), "{}", above.display());
    }
}

fn a_container_without_a_path_gets_a_cgroup() -> Outcome {
    need_other_than("crun", "needs a path to be found again")?;
    let container = Container::idle().edit(|spec| {
        spec["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    });
    container.create();
    let line = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).unwrap();
    assert!(line.lines().any(|line| line.starts_with("0::") && line.contains(&container.id)), "{line}");
    container.delete_by_force();
    let left: Vec<_> =
        leftovers::of(&container.id).into_iter().filter(|what| what.starts_with("cgroup")).collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

fn the_process_is_in_its_cgroup_from_the_start() {
    let container = Container::with_args(["cat", "/sys/fs/cgroup/cgroup.procs"]);
    assert_eq!(container.says(), "1");
}

fn a_cgroup_with_processes_is_refused() -> Outcome {
    need_other_than("crun", "does not look")?;
    let first = Container::idle();
    first.launch();
    let second = Container::new();
    let path = first.bundle.spec["linux"]["cgroupsPath"].clone();
    let second = second.edit(|spec| spec["linux"]["cgroupsPath"] = path);
    let output = second.run_with(NO_OPTIONS).fails_with("");
    assert!(output.stderr.contains("cgroup is not empty"), "{output:#?}");
    assert_eq!(first.state()["status"], "running");
    assert!(first.cgroup().exists());
    Ok(())
}

fn an_empty_cgroup_that_exists_is_taken() {
    let container = Container::with_script("exit 3");
    fs::create_dir(container.cgroup()).unwrap();
    assert_eq!(container.run().code(), 3);
    container.leaves_nothing();
}

fn cgroups_made_inside_are_removed() {
    let container = Container::with_script(
        "mkdir -p /sys/fs/cgroup/a/b /sys/fs/cgroup/c && echo made; sleep 1000",
    )
    .edit(|spec| {
        for mount in spec["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/sys/fs/cgroup" {
                mount["options"] = json!(["rw"]);
            }
        }
    });
    container.launch().wait_for_stdout("made");
    container.delete_by_force();
    container.leaves_nothing();
}

fn a_path_with_dots_stays_in_the_hierarchy() -> Outcome {
    need_other_than("crun", "leaves the hierarchy and makes a directory on the host")?;
    let container = Container::new().forgive();
    let path = format!("{}/../../../../../../{}", cgroups_path("x"), container.id);
    let container = container.edit(|spec| spec["linux"]["cgroupsPath"] = json!(path));
    let output = container.run();
    assert!(output.code() == 0 || !output.stderr.is_empty());
    assert!(
        !Path::new("/").join(&container.id).exists() && !Path::new("/sys/fs").join(&container.id).exists()
    );
    let _ = fs::remove_dir(Path::new(CGROUPS).join(&container.id));
    Ok(())
}

fn the_workload_cannot_write_its_limits() {
    let container = Container::with_script("echo 1 >/sys/fs/cgroup/cgroup.max.depth");
    let output = container.run();
    assert!(output.stderr.contains("Read-only file system"), "{output:#?}");
}

/// As Docker, CRI-O and podman send them.
fn zeros_and_empty_objects_mean_unset() -> Outcome {
    need_other_than("crun", "asks for the controllers all the same")?;
    let resources = json!({
        "memory": { "limit": 0, "reservation": 0, "swap": 0 },
        "cpu": { "shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": "" },
        "blockIO": {},
        "hugepageLimits": [],

        "unified": {}
    });
    let container = with_resources(resources);
    container.launch();
    container.delete_by_force();
    container.leaves_nothing();
    let weight = with_resources(json!({ "blockIO": { "weight": 0 }, "memory": {}, "cpu": {}, "pids": null }));
    weight.launch();
    Ok(())
}

fn the_memory_limit_is_written() -> Outcome {
    need_controller("memory")?;
    shows(json!({ "memory": { "limit": 33_554_432 } }), &[("memory.max", "33554432")]);
    Ok(())
}

fn the_memory_limit_of_minus_one_is_max() -> Outcome {
    need_controller("memory")?;
    shows(json!({ "memory": { "limit": -1 } }), &[("memory.max", "max")]);
    Ok(())
}

fn the_memory_reservation_is_low() -> Outcome {
    need_controller("memory")?;
    shows(json!({ "memory": { "reservation": 16_777_216 } }), &[("memory.low", "16777216")]);
    Ok(())
}

fn need_swap_files() -> Outcome {
    need_controller("memory")?;
    let probe = Container::idle();
    fs::create_dir(probe.cgroup()).unwrap();
    let there = probe.cgroup().join("memory.swap.max").exists();
    fs::remove_dir(probe.cgroup()).unwrap();
    need(there, "a kernel that counts swap")
}

fn the_swap_limit_is_without_the_memory() -> Outcome {
    need_swap_files()?;
    shows(
        json!({ "memory": { "limit": 33_554_432, "swap": 50_331_648 } }),
        &[("memory.max", "33554432"), ("memory.swap.max", "16777216")],
    );
    Ok(())
}

fn equal_memory_and_swap_forbid_swapping() -> Outcome {
    need_swap_files()?;
    shows(json!({ "memory": { "limit": 33_554_432, "swap": 33_554_432 } }), &[("memory.swap.max", "0")]);
    Ok(())
}

fn unlimited_swap_is_max() -> Outcome {
    need_swap_files()?;
    shows(json!({ "memory": { "limit": 33_554_432, "swap": -1 } }), &[("memory.swap.max", "max")]);
    shows(json!({ "memory": { "limit": -1 } }), &[("memory.swap.max", "max"), ("memory.max", "max")]);
    Ok(())
}

fn swap_below_memory_is_refused() -> Outcome {
    need_controller("memory")?;
    refused(json!({ "memory": { "limit": 33_554_432, "swap": 1_000_000 } }), "memory/swap");
    Ok(())
}

fn swap_without_memory_is_refused() -> Outcome {
    need_controller("memory")?;
    refused(json!({ "memory": { "swap": 1_000_000 } }), "memory/swap");
    Ok(())
}

fn cpu_shares_become_a_weight() -> Outcome {
    need_controller("cpu")?;
    for (shares, weight) in
        [(2, "1"), (10, "4"), (100, "17"), (1024, "100"), (2048, "174"), (22_000, "1204"), (262_144, "10000")]
    {
        shows(json!({ "cpu": { "shares": shares } }), &[("cpu.weight", weight)]);
    }
    Ok(())
}

fn cpu_quota_and_period_are_written() -> Outcome {
    need_controller("cpu")?;
    shows(json!({ "cpu": { "quota": 25_000, "period": 50_000 } }), &[("cpu.max", "25000 50000")]);
    shows(json!({ "cpu": { "quota": 25_000 } }), &[("cpu.max", "25000 100000")]);
    Ok(())
}

fn a_cpu_period_alone_is_written() -> Outcome {
    need_controller("cpu")?;
    shows(json!({ "cpu": { "period": 50_000 } }), &[("cpu.max", "max 50000")]);
    Ok(())
}

fn a_negative_cpu_quota_is_max() -> Outcome {
    need_controller("cpu")?;
    shows(json!({ "cpu": { "quota": -1, "period": 100_000 } }), &[("cpu.max", "max 100000")]);
    Ok(())
}

fn the_cpu_burst_is_written() -> Outcome {
    need_controller("cpu")?;
    shows(
        json!({ "cpu": { "quota": 20_000, "burst": 10_000 } }),
        &[("cpu.max", "20000 100000"), ("cpu.max.burst", "10000")],
    );
    Ok(())
}

fn cpu_idle_is_written() -> Outcome {
    need_controller("cpu")?;
    shows(json!({ "cpu": { "idle": 1 } }), &[("cpu.idle", "1")]);
    Ok(())
}

fn cpus_and_memory_nodes_are_written() -> Outcome {
    need_controller("cpuset")?;
    shows(
        json!({ "cpu": { "cpus": "0", "mems": "0" } }),
        &[("cpuset.cpus", "0"), ("cpuset.mems", "0"), ("cpuset.cpus.effective", "0")],
    );
    Ok(())
}

fn cpus_that_do_not_exist_are_refused() -> Outcome {
    need_controller("cpuset")?;
    refused(json!({ "cpu": { "cpus": "x-y" } }), "cpu/cpus");
    Ok(())
}

fn the_pids_limit_is_written() -> Outcome {
    need_controller("pids")?;
    shows(json!({ "pids": { "limit": 17 } }), &[("pids.max", "17")]);
    Ok(())
}

fn an_unlimited_pids_limit_is_max() -> Outcome {
    need_controller("pids")?;
    shows(json!({ "pids": { "limit": -1 } }), &[("pids.max", "max")]);
    Ok(())
}

fn the_weight_of_block_io_is_written() -> Outcome {
    need_controller("io")?;
    let probe = Container::idle();
    fs::create_dir(probe.cgroup()).unwrap();
    let (bfq, io) =
        (probe.cgroup().join("io.bfq.weight").exists(), probe.cgroup().join("io.weight").exists());
    fs::remove_dir(probe.cgroup()).unwrap();
    need(bfq || io, "a kernel with io.weight or io.bfq.weight")?;
    let (file, value) = if bfq { ("io.bfq.weight", "default 500") } else { ("io.weight", "default 4950") };
    let value = if kind() == "runc" && bfq { "500" } else { value };
    shows(json!({ "blockIO": { "weight": 500 } }), &[(file, value)]);
    Ok(())
}

fn the_throttles_of_block_io_are_written() -> Outcome {
    need_controller("io")?;
    let (major, minor) = device_numbers(&need_disk()?);
    let rate = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let line = format!("{major}:{minor} rbps=1048576 wbps=2097152 riops=100 wiops=200");
    shows(
        json!({ "blockIO": {
            "throttleReadBpsDevice": rate(1_048_576), "throttleWriteBpsDevice": rate(2_097_152),
            "throttleReadIOPSDevice": rate(100), "throttleWriteIOPSDevice": rate(200)
        } }),
        &[("io.max", &line)],
    );
    Ok(())
}

/// The numbers of a device node, as in the `MAJ:MIN` of sysfs.
pub fn device_numbers(path: &str) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt as _;
    let device = fs::metadata(path).unwrap().rdev();
    (rustix::fs::major(device), rustix::fs::minor(device))
}

fn huge_page_size() -> Option<&'static str> {
    let sizes = [("2MB", "hugepages-2048kB"), ("1GB", "hugepages-1048576kB")];
    sizes.into_iter().find_map(|(name, directory)| {
        fs::exists(format!("/sys/kernel/mm/hugepages/{directory}")).unwrap_or(false).then_some(name)
    })
}

fn huge_page_limits_are_written() -> Outcome {
    need_controller("hugetlb")?;
    let size = huge_page_size();
    need(size.is_some(), "huge pages")?;
    let size = size.unwrap();
    shows(
        json!({ "hugepageLimits": [{ "pageSize": size, "limit": 1_073_741_824_u64 }] }),
        &[(&format!("hugetlb.{size}.max"), "1073741824")],
    );
    if kind() != "crun" {
        shows(
            json!({ "hugepageLimits": [{ "pageSize": size, "limit": 0 }] }),
            &[(&format!("hugetlb.{size}.rsvd.max"), "0")],
        );
    }
    Ok(())
}

fn a_huge_page_size_that_does_not_exist_is_refused() -> Outcome {
    need_controller("hugetlb")?;
    refused(json!({ "hugepageLimits": [{ "pageSize": "3MB", "limit": 0 }] }), "hugepageLimits/0");
    Ok(())
}

fn rdma_limits_are_written() -> Outcome {
    need_controller("rdma")?;
    let mut devices = fs::read_dir("/sys/class/infiniband").into_iter().flatten();
    let device = devices.next().map(|device| device.unwrap().file_name().into_string().unwrap());
    need(device.is_some(), "an RDMA device in /sys/class/infiniband")?;
    let name = device.unwrap();
    shows(
        json!({ "rdma": { &name: { "hcaHandles": 3, "hcaObjects": 10_000 } } }),
        &[("rdma.max", &format!("{name} hca_handle=3 hca_object=10000"))],
    );
    Ok(())
}

fn an_rdma_device_that_does_not_exist_is_refused() -> Outcome {
    need_controller("rdma")?;
    let container = with_resources(json!({ "rdma": { "nobody0": { "hcaHandles": 3 } } }));
    let output = container.run_with(NO_OPTIONS).fails_with("rdma.max");
    container.leaves_nothing();
    need_own()?;
    let says = "config.json: /linux/resources/rdma/nobody0: write \"nobody0 hca_handle=3\" to ";
    assert!(output.stderr.contains(says) && output.stderr.contains("ENODEV"), "{output:#?}");
    assert!(
        output
            .stderr
            .contains("(no such device; the RDMA devices of this host are listed in /sys/class/infiniband"),
        "{output:#?}"
    );
    Ok(())
}

fn a_miscellaneous_resource_that_does_not_exist_is_refused() -> Outcome {
    need_controller("misc")?;
    let container = with_resources(json!({ "unified": { "misc.max": "nothing 1" } }));
    let output = container.run_with(NO_OPTIONS).fails_with("misc.max");
    container.leaves_nothing();
    need_own()?;
    assert!(output.stderr.contains("config.json: /linux/resources/unified/misc.max: write "), "{output:#?}");
    assert!(output.stderr.contains("(misc.capacity in the root cgroup"), "{output:#?}");
    Ok(())
}

fn unified_values_are_written_as_they_are() -> Outcome {
    shows(
        json!({ "unified": { "cgroup.max.depth": "7", "cgroup.max.descendants": "9" } }),
        &[("cgroup.max.depth", "7"), ("cgroup.max.descendants", "9")],
    );
    if has_controller("memory") {
        shows(json!({ "unified": { "memory.high": "104857600" } }), &[("memory.high", "104857600")]);
    }
    Ok(())
}

fn unified_values_come_after_the_others() -> Outcome {
    need_controller("pids")?;
    shows(json!({ "pids": { "limit": 5 }, "unified": { "pids.max": "7" } }), &[("pids.max", "7")]);
    Ok(())
}

fn a_unified_key_with_a_slash_is_refused() {
    refused(json!({ "unified": { "../cgroup.max.depth": "7" } }), "unified/..~1cgroup.max.depth");
}

fn a_unified_key_that_is_no_file_is_refused() {
    refused(json!({ "unified": { "cgroup.nothing": "7" } }), "unified/cgroup.nothing");
}

fn a_unified_value_the_kernel_refuses_is_named() {
    let container = with_resources(json!({ "unified": { "cgroup.max.depth": "many" } }));
    let output = container.run_fails_with("cgroup.max.depth");
    if is_own() {
        assert!(output.stderr.contains("/linux/resources/unified/cgroup.max.depth"), "{output:#?}");
        assert!(output.stderr.contains("\"many\""), "{output:#?}");
    }
}

/// One test on every host: whichever controllers it lacks are refused.
fn a_limit_without_its_controller_is_refused_by_pointer() -> Outcome {
    let mut tried = 0;
    for (controller, resources, pointer) in [
        ("memory", json!({ "memory": { "limit": 33_554_432 } }), "memory/limit"),
        ("memory", json!({ "memory": { "reservation": 33_554_432 } }), "memory/reservation"),
        ("cpu", json!({ "cpu": { "shares": 512 } }), "cpu/shares"),
        ("cpu", json!({ "cpu": { "quota": 50_000 } }), "cpu/quota"),
        ("cpu", json!({ "cpu": { "idle": 1 } }), "cpu/idle"),
        ("cpuset", json!({ "cpu": { "cpus": "0" } }), "cpu/cpus"),
        ("cpuset", json!({ "cpu": { "mems": "0" } }), "cpu/mems"),
        ("pids", json!({ "pids": { "limit": 17 } }), "pids/limit"),
        ("io", json!({ "blockIO": { "weight": 500 } }), "blockIO/weight"),
        ("hugetlb", json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 0 }] }), "hugepageLimits/0"),
        ("memory", json!({ "unified": { "memory.high": "max" } }), "unified/memory.high"),
    ] {
        if has_controller(controller) {
            continue;
        }
        tried += 1;
        let container = with_resources(resources.clone());
        let output = container.run();
        assert_ne!(output.code(), 0, "{resources}: a limit was dropped silently");
        container.leaves_nothing();
        if is_own() {
            let place = format!("config.json: /linux/resources/{pointer}");
            assert!(output.stderr.contains(&place), "{output:#?}");
            assert!(output.stderr.contains(&format!("{controller} controller")), "{output:#?}");
        }
    }
    need(tried > 0, "a host that lacks a controller")
}

fn a_failed_limit_leaves_nothing() {
    let resources = json!({ "unified": { "cgroup.max.depth": "7", "cgroup.nothing": "7" } });
    let container = with_resources(resources);
    container.create_with(NO_OPTIONS).fails_with("");
    container.leaves_nothing();
    container.on_id("state").fails_with("does not exist");
}

fn limits_of_v1_that_have_no_meaning_are_ignored_or_refused_by_pointer() -> Outcome {
    need_own()?;
    for (resources, pointer) in [
        (json!({ "memory": { "swappiness": 60 } }), "memory/swappiness"),
        (json!({ "memory": { "kernel": 1_000_000 } }), "memory/kernel"),
        (json!({ "memory": { "disableOOMKiller": false } }), "memory/disableOOMKiller"),
        (json!({ "cpu": { "realtimeRuntime": 950_000 } }), "cpu/realtimeRuntime"),
        (json!({ "network": { "classID": 1 } }), "network/classID"),
    ] {
        let container =
            with_resources(resources.clone()).edit(|spec| spec["process"]["args"] = json!(["true"]));
        let output = container.run();
        assert!(output.code() == 0 || output.stderr.contains(pointer), "{resources}: {output:#?}");
        container.leaves_nothing();
    }
    Ok(())
}

/// A cgroup that is named by an absolute path can be that of several containers, one after the other.
fn deleting_a_stopped_container_spares_the_next_one_in_its_cgroup() -> Outcome {
    need_other_than("crun", "kills it")?;
    need_other_than("runc", "keeps the stopped container for as long")?;
    let first = Container::with_args(["true"]);
    first.launch();
    first.wait_for("stopped");
    let second = Container::idle().edit(|spec| {
        spec["linux"]["cgroupsPath"] = first.bundle.spec["linux"]["cgroupsPath"].clone();
    });
    second.launch();
    for command in [&["delete"][..], &["delete", "--force"]] {
        first.runtime().args(command).arg(&first.id).output();
        assert_eq!(second.state()["status"], "running", "{command:?}");
        assert!(second.control_file("cgroup.procs").contains(&second.pid().to_string()));
    }
    first.on_id("state").fails_with("does not exist");
    second.terminate();
    second.wait_for("stopped");
    second.delete();
    second.leaves_nothing();
    first.leaves_nothing();
    Ok(())
}
