//! Namespaces, new and joined: config-linux.md § Namespaces.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::support::bundle::{join_namespace, remove_namespace};
use crate::support::container::NO_OPTIONS;
use crate::support::host::{is_own, kind, need, need_own, need_program};
use crate::support::suite::suite;
use crate::support::{Container, Invocation, Outcome};

suite![
    listed_namespaces_are_new_and_others_are_the_callers,
    a_container_without_any_namespace_but_mount_runs,
    each_namespace_can_be_joined_by_path,
    a_joined_pid_namespace_holds_the_process,
    a_path_that_is_no_namespace_is_refused,
    a_path_of_another_kind_is_refused,
    a_missing_path_is_refused,
    a_namespace_listed_twice_is_refused,
    the_hostname_is_set_inside_only,
    an_empty_hostname_is_not_set,
    a_hostname_without_a_uts_namespace_is_refused,
    the_domainname_is_set,
    the_loopback_device_is_up,
    a_joined_network_namespace_is_left_as_it_is,
    the_cgroup_namespace_shows_the_cgroup_as_its_root,
    the_proc_of_a_new_pid_namespace_shows_only_its_processes,
    a_message_queue_of_the_ipc_namespace_is_its_own,
    sysctls_of_new_namespaces_are_set,
    a_sysctl_with_slashes_is_set,
    a_sysctl_of_the_host_is_refused,
    a_sysctl_of_a_namespace_that_is_not_new_is_refused,
    an_unknown_sysctl_fails_and_is_named,
    joining_the_runtimes_own_namespace_never_changes_the_host,
    what_would_change_the_host_without_a_mount_namespace_is_refused,
    a_domain_name_may_be_said_twice,
];

const KINDS: [(&str, &str); 6] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
];

fn own(file: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{file}")).unwrap().to_str().unwrap().to_owned()
}

fn ns_path(container: &Container, file: &str) -> PathBuf {
    format!("/proc/{}/ns/{file}", container.pid()).into()
}

fn listed_namespaces_are_new_and_others_are_the_callers() {
    for (name, file) in KINDS {
        let shows = || Container::with_args(["readlink", &format!("/proc/self/ns/{file}")]);
        assert_ne!(shows().says(), own(file), "{name}");
        if name != "mount" {
            let shared = shows().edit(|spec| {
                remove_namespace(spec, name);
                if name == "uts" {
                    spec.as_object_mut().unwrap().remove("hostname");
                }
            });
            assert_eq!(shared.says(), own(file), "{name}");
        }
    }
}

fn a_container_without_any_namespace_but_mount_runs() {
    let container = Container::with_script("exit 6").edit(|spec| {
        spec["linux"]["namespaces"] = json!([{ "type": "mount" }]);
        spec.as_object_mut().unwrap().remove("hostname");
    });
    assert_eq!(container.run().code(), 6);
    container.leaves_nothing();
}

fn each_namespace_can_be_joined_by_path() {
    let first = Container::idle();
    first.launch();
    for (name, file) in KINDS {
        if name == "mount" {
            continue;
        }
        let path = ns_path(&first, file);
        let expected = fs::read_link(&path).unwrap().to_str().unwrap().to_owned();
        let container = Container::with_args(["readlink", &format!("/proc/self/ns/{file}")]).edit(|spec| {
            join_namespace(spec, name, &path);
            if name == "uts" {
                spec.as_object_mut().unwrap().remove("hostname");
            }
        });
        assert_eq!(container.says(), expected, "{name}");
        container.leaves_nothing();
    }
}

fn a_joined_pid_namespace_holds_the_process() {
    let first = Container::idle();
    first.launch();
    let second = Container::with_script("trap 'exit 0' TERM; echo $$; sleep 1000 & wait")
        .edit(|spec| join_namespace(spec, "pid", ns_path(&first, "pid")));
    let output = second.launch();
    output.wait_for_stdout("\n");
    assert_ne!(output.stdout_now().trim(), "1");
    assert_eq!(
        fs::read_link(ns_path(&first, "pid")).unwrap(),
        fs::read_link(ns_path(&second, "pid")).unwrap()
    );
    second.kill("KILL");
    second.wait_for("stopped");
    second.delete();
    second.leaves_nothing();
    assert_eq!(first.state()["status"], "running");
}

fn a_path_that_is_no_namespace_is_refused() {
    let container = Container::new().edit(|spec| join_namespace(spec, "ipc", "/etc/passwd"));
    let output = container.run_fails_with("");
    if is_own() {
        assert!(output.stderr.contains("/linux/namespaces/5/path"), "{output:#?}");
        assert!(output.stderr.contains("/etc/passwd"), "{output:#?}");
    }
}

fn a_path_of_another_kind_is_refused() {
    let container = Container::new().edit(|spec| join_namespace(spec, "ipc", "/proc/self/ns/uts"));
    let output = container.run_fails_with("");
    if is_own() {
        assert!(output.stderr.contains("/linux/namespaces/5/path"), "{output:#?}");
    }
}

fn a_missing_path_is_refused() {
    let container = Container::new().edit(|spec| join_namespace(spec, "network", "/not/there"));
    let output = container.run_with(NO_OPTIONS).fails_with_any_case("/not/there");
    container.leaves_nothing();
    assert!(output.stderr.to_lowercase().contains("no such file") || kind() == "runc", "{output:#?}");
}

fn a_namespace_listed_twice_is_refused() {
    let container = Container::new().edit(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "pid" }));
    });
    container.run_fails_with("");
}

fn the_hostname_is_set_inside_only() {
    let before = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let container = Container::with_args(["hostname"]).edit(|spec| spec["hostname"] = json!("a-new-name"));
    assert_eq!(container.says(), "a-new-name");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), before);
}

fn an_empty_hostname_is_not_set() {
    let outside = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    for empty in [json!(""), json!(null)] {
        let container = Container::with_args(["hostname"]).edit(|spec| {
            spec["hostname"] = empty.clone();
            if empty.is_null() {
                spec.as_object_mut().unwrap().remove("hostname");
            }
        });
        assert_eq!(container.says(), outside.trim());
    }
}

fn a_hostname_without_a_uts_namespace_is_refused() {
    let container = Container::new().edit(|spec| remove_namespace(spec, "uts"));
    container.run_fails_with("hostname");
}

fn the_domainname_is_set() {
    let container = Container::with_args(["cat", "/proc/sys/kernel/domainname"])
        .edit(|spec| spec["domainname"] = json!("example.org"));
    assert_eq!(container.says(), "example.org");
}

fn the_loopback_device_is_up() {
    let container =
        Container::with_script("ip addr show dev lo; ping -c 1 -W 2 127.0.0.1 >/dev/null && echo answered")
            .edit(|spec| {
                let raw = json!(["CAP_NET_RAW"]);
                spec["process"]["capabilities"] =
                    json!({ "bounding": raw, "permitted": raw, "effective": raw });
            });
    let said = container.says();
    assert!(said.contains("LOOPBACK,UP") && said.contains("127.0.0.1/8"), "{said}");
    assert!(said.contains("answered"), "{said}");
}

fn a_joined_network_namespace_is_left_as_it_is() {
    let first = Container::idle();
    first.launch();
    let second = Container::with_script("ip link show | grep -c '^[0-9]'")
        .edit(|spec| join_namespace(spec, "network", ns_path(&first, "net")));
    let inside: u32 = second.says().parse().unwrap();
    let path = format!("/proc/{}/net/dev", first.pid());
    let devices = fs::read_to_string(path).unwrap().lines().count() - 2;
    assert_eq!(usize::try_from(inside).unwrap(), devices);
}

fn the_cgroup_namespace_shows_the_cgroup_as_its_root() {
    let said = Container::with_args(["cat", "/proc/self/cgroup"]).says();
    assert!(said.lines().any(|line| line == "0::/"), "{said}");
    let shared =
        Container::with_args(["cat", "/proc/self/cgroup"]).edit(|spec| remove_namespace(spec, "cgroup"));
    let said = shared.says();
    assert!(said.lines().any(|line| line.starts_with("0::") && line.contains(&shared.id)), "{said}");
}

fn the_proc_of_a_new_pid_namespace_shows_only_its_processes() {
    let said = Container::with_script("ls /proc | grep -c '^[0-9]'; true").says();
    assert!(said.parse::<u32>().unwrap() <= 4, "{said}");
}

fn a_message_queue_of_the_ipc_namespace_is_its_own() {
    let container = Container::with_script("cat /proc/sys/kernel/msgmax; ls /dev/mqueue | wc -l");
    assert!(container.says().ends_with('0'));
}

fn sysctls_of_new_namespaces_are_set() {
    let container = Container::with_script(
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax /proc/sys/fs/mqueue/msg_max",
    )
    .edit(|spec| {
        spec["linux"]["sysctl"] = json!({
            "net.ipv4.ip_unprivileged_port_start": "42", "kernel.msgmax": "65536", "fs.mqueue.msg_max": "7"
        });
    });
    assert_eq!(container.says(), "42\n65536\n7");
}

fn a_sysctl_with_slashes_is_set() {
    let container = Container::with_args(["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"])
        .edit(|spec| spec["linux"]["sysctl"] = json!({ "net/ipv4/ip_unprivileged_port_start": "43" }));
    assert_eq!(container.says(), "43");
}

fn a_sysctl_of_the_host_is_refused() {
    for name in ["vm.swappiness", "kernel.panic", "fs.file-max", "kernel.hostname", "net", "../../etc/passwd"]
    {
        let container = Container::new().edit(|spec| spec["linux"]["sysctl"] = json!({ name: "1" }));
        container.run_fails_with("");
    }
}

fn a_sysctl_of_a_namespace_that_is_not_new_is_refused() {
    for (name, kind) in
        [("net.ipv4.ip_forward", "network"), ("kernel.msgmax", "ipc"), ("fs.mqueue.msg_max", "ipc")]
    {
        let container = Container::new().edit(|spec| {
            spec["linux"]["sysctl"] = json!({ name: "1" });
            remove_namespace(spec, kind);
        });
        container.run_fails_with(name.split('.').next_back().unwrap());
    }
}

fn an_unknown_sysctl_fails_and_is_named() -> Outcome {
    need(fs::exists("/proc/sys/net/ipv4").unwrap(), "IPv4")?;

    let container =
        Container::new().edit(|spec| spec["linux"]["sysctl"] = json!({ "net.ipv4.no_such": "1" }));
    container.run_fails_with("no_such");
    Ok(())
}

/// The runtime's own namespace is the host's, whatever path leads to it.
fn joining_the_runtimes_own_namespace_never_changes_the_host() -> Outcome {
    need_own()?;
    need_program("unshare")?;
    let changes = [
        ("network", "net", "sysctl"),
        ("uts", "uts", "hostname"),
        ("uts", "uts", "domainname"),
        ("mount", "mnt", ""),
    ];
    let look = "cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname \
                /proc/sys/net/ipv4/ip_unprivileged_port_start; cut -d ' ' -f 5- /proc/self/mountinfo";
    let before = Invocation::new("true").in_a_scratch_host(look).succeeds().stdout;
    for (kind, file, change) in changes {
        let container = Container::new().edit(|spec| {
            spec.as_object_mut().unwrap().remove("hostname");
            join_namespace(spec, kind, format!("/proc/self/ns/{file}"));
            match change {
                "sysctl" => {
                    spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_unprivileged_port_start": "777" });
                }
                "" => {}
                name => spec[name] = json!("changed-by-a-test"),
            }
        });
        let output = container.run_with(NO_OPTIONS).in_a_scratch_host(look).output();
        assert!(output.code() == 1 && output.stderr.contains("/linux/namespaces/5/path"), "{output:#?}");
        assert_eq!(output.stdout, before, "{kind} {change}: the host was changed");
        container.leaves_nothing();
    }
    Ok(())
}

fn a_domain_name_may_be_said_twice() {
    let container = Container::with_args(["cat", "/proc/sys/kernel/domainname"]).edit(|spec| {
        spec["domainname"] = json!("here");
        spec["linux"]["sysctl"] = json!({ "kernel.domainname": "here" });
    });
    assert_eq!(container.says(), "here");
}

fn what_would_change_the_host_without_a_mount_namespace_is_refused() -> Outcome {
    need_own()?;
    need_program("unshare")?;
    for pointer in ["/root/readonly", "/linux/devices"] {
        let container = Container::new();
        let device = container.beside("device");
        let container = container.edit(|spec| {
            remove_namespace(spec, "mount");
            spec["mounts"] = json!([]);
            for hidden in ["maskedPaths", "readonlyPaths"] {
                spec["linux"].as_object_mut().unwrap().remove(hidden);
            }
            if pointer == "/linux/devices" {
                spec["linux"]["devices"] = json!([{ "path": device, "type": "c", "major": 1, "minor": 3 }]);
            } else {
                spec["root"]["readonly"] = json!(true);
            }
        });
        let look = "cut -d ' ' -f 5- /proc/self/mountinfo";
        let before = Invocation::new("true").in_a_scratch_host(look).succeeds().stdout;
        let output = container.run_with(NO_OPTIONS).in_a_scratch_host(look).output();
        assert!(output.code() == 1 && output.stderr.contains(pointer), "{output:#?}");
        assert_eq!(output.stdout, before, "{pointer}: the host was changed");
        assert!(!device.exists(), "{pointer}: the host was changed");
        container.leaves_nothing();
    }
    Ok(())
}
