//! Joining existing user namespaces, and joining other namespaces with a new user namespace: config-linux.md
//! § Namespaces.

use std::fs;

use serde_json::{Value, json};

use crate::support::bundle::{capabilities, join_namespace, remove_namespace};
use crate::support::container::{NO_OPTIONS, ROOT_OUTSIDE};
use crate::support::host::{is_own, need, need_other_than, need_own, need_program};
use crate::support::suite::suite;
use crate::support::{Container, Outcome};

suite![
    a_joined_user_namespace_owns_what_is_new_beside_it,
    a_joined_user_namespace_needs_no_pid_namespace,
    a_container_joins_all_namespaces_of_another_but_that_of_mounts,
    a_user_namespace_is_joined_by_a_path_that_names_no_process,
    the_mappings_of_a_joined_user_namespace_may_be_given_too,
    other_mappings_than_those_of_the_joined_user_namespace_are_refused,
    a_user_that_the_joined_user_namespace_does_not_map_is_refused,
    a_joined_user_namespace_that_is_the_runtimes_own_changes_nothing,
    a_path_that_is_no_user_namespace_is_refused,
    a_network_that_exists_goes_with_a_new_user_namespace,
    a_pid_namespace_that_exists_goes_with_a_new_user_namespace,
    a_cgroup_namespace_that_exists_goes_with_a_new_user_namespace,
    a_mount_namespace_that_exists_does_not_go_with_a_new_user_namespace,
    limits_are_set_in_a_joined_user_namespace,
    the_clocks_are_set_whichever_namespaces_are_joined,
    the_exit_status_of_a_successor_is_that_of_the_container,
    a_container_with_a_successor_lives_like_any_other,
];

/// A container to join, whose user namespace is its own.
fn other() -> Container {
    let other = Container::idle().in_user_namespace();
    other.launch();
    other
}

fn ns_path(container: &Container, file: &str) -> String {
    format!("/proc/{}/ns/{file}", container.pid())
}

fn ns(container: &Container, file: &str) -> String {
    fs::read_link(ns_path(container, file)).unwrap().to_str().unwrap().to_owned()
}

/// A container in the user namespace of `other`.
fn beside(other: &Container, script: &str) -> Container {
    let [user, group] = ROOT_OUTSIDE;
    Container::with_script(script)
        .owned_by(user, group)
        .edit(|spec| join_namespace(spec, "user", ns_path(other, "user")))
}

/// A new sysfs needs a network namespace of the user namespace's own.
fn with_the_hosts_sys(spec: &mut Value) {
    spec["mounts"].as_array_mut().unwrap().retain(|mount| {
        let at = mount["destination"].as_str().unwrap();
        !at.starts_with("/sys")
    });
    spec["linux"]["maskedPaths"] = json!(["/proc/keys"]);
}

fn a_joined_user_namespace_owns_what_is_new_beside_it() -> Outcome {
    need_other_than("runc", "makes the whole of sysfs read-only")?;
    let other = other();
    let container = beside(
        &other,
        "echo $$; id -u; readlink /proc/self/ns/user; hostname from-inside; hostname
         ip link set lo down && ip link show lo | grep -c UP
         for type in cgroup2 mqueue sysfs proc; do mount -t $type $type /tmp && echo $type; umount /tmp; done",
    )
    .edit(|spec| {
        capabilities(spec, &["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]);
        for hidden in ["maskedPaths", "readonlyPaths"] {
            spec["linux"].as_object_mut().unwrap().remove(hidden);
        }
    });
    let user = ns(&other, "user");
    assert_eq!(container.says(), format!("1\n0\n{user}\nfrom-inside\n0\ncgroup2\nmqueue\nsysfs\nproc"));
    container.leaves_nothing();
    Ok(())
}

fn a_joined_user_namespace_needs_no_pid_namespace() {
    let other = other();
    let container = beside(&other, "id -u; [ $$ = 1 ] || echo many; cat /proc/self/uid_map; stat -c %u /dev/mqueue").edit(|spec| {
        remove_namespace(spec, "pid");
        // The host's procfs is not for the user namespace to mount anew.
        for mount in spec["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/proc" {
                *mount = json!({ "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"] });
            }
        }
        for hidden in ["maskedPaths", "readonlyPaths"] {
            spec["linux"].as_object_mut().unwrap().remove(hidden);
        }
    });
    let said = container.says();
    let words: Vec<_> = said.split_whitespace().collect();
    assert_eq!(words, ["0", "many", "0", "100000", "65536", "0"]);
    container.leaves_nothing();
}

/// As in a pod of Kubernetes with a user namespace.
fn a_container_joins_all_namespaces_of_another_but_that_of_mounts() {
    let other = other();
    let kinds = [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")];
    let container = beside(&other, "for kind in user net ipc uts pid; do readlink /proc/self/ns/$kind; done")
        .edit(|spec| {
            spec.as_object_mut().unwrap().remove("hostname");
            for (name, file) in kinds {
                join_namespace(spec, name, ns_path(&other, file));
            }
        });
    let expected: Vec<_> = ["user", "net", "ipc", "uts", "pid"].map(|file| ns(&other, file)).into();
    assert_eq!(container.says(), expected.join("\n"));
    container.leaves_nothing();
    assert_eq!(other.state()["status"], "running");
}

fn a_user_namespace_is_joined_by_a_path_that_names_no_process() -> Outcome {
    need_program("unshare")?;
    let other = other();
    let container = beside(&other, "id -u; readlink /proc/self/ns/user");
    let path = container.beside("user");
    fs::write(&path, "").unwrap();
    let container = container.edit(|spec| join_namespace(spec, "user", &path));
    let script = format!("mount --bind {} {} && exec \"$@\"", ns_path(&other, "user"), path.display());
    let output = container
        .run_with(NO_OPTIONS)
        .called_by(["unshare", "--mount", "sh", "-c", &script, "sh"])
        .succeeds();
    assert_eq!(output.stdout, format!("0\n{}\n", ns(&other, "user")));
    container.leaves_nothing();
    Ok(())
}

fn the_mappings_of_a_joined_user_namespace_may_be_given_too() {
    let other = other();
    let container = beside(&other, "id -u").edit(|spec| {
        for field in ["uidMappings", "gidMappings"] {
            spec["linux"][field] = other.bundle.spec["linux"][field].clone();
        }
    });
    assert_eq!(container.says(), "0");
}

fn other_mappings_than_those_of_the_joined_user_namespace_are_refused() -> Outcome {
    need_other_than("crun", "ignores them")?;
    let other = other();
    let container = beside(&other, "id -u").edit(|spec| {
        for field in ["uidMappings", "gidMappings"] {
            spec["linux"][field] = json!([{ "containerID": 0, "hostID": 100_000, "size": 65535 }]);
        }
    });
    let output = container.run_fails_with("both namespace path and non-matching mapping specified");
    if is_own() {
        assert!(output.stderr.contains("/linux/uidMappings: "), "{output:#?}");
        assert!(output.stderr.contains("has uid mappings \"0 100000 65536\""), "{output:#?}");
    }
    Ok(())
}

fn a_user_that_the_joined_user_namespace_does_not_map_is_refused() {
    let other = other();
    let container = beside(&other, "id -u").edit(|spec| spec["process"]["user"]["uid"] = json!(65536));
    container.run_fails_with(if is_own() { "65536" } else { "" });
}

fn a_joined_user_namespace_that_is_the_runtimes_own_changes_nothing() -> Outcome {
    for peer in ["runc", "crun"] {
        need_other_than(peer, "fails, as the kernel does")?;
    }
    let own = fs::read_link("/proc/self/ns/user").unwrap();
    let container = Container::with_args(["readlink", "/proc/self/ns/user"])
        .edit(|spec| join_namespace(spec, "user", "/proc/self/ns/user"));
    assert_eq!(container.says(), own.to_str().unwrap());
    Ok(())
}

fn a_path_that_is_no_user_namespace_is_refused() {
    for path in ["/etc/passwd", "/proc/self/ns/net", "/not/there"] {
        let container = Container::new().edit(|spec| join_namespace(spec, "user", path));
        let output = container.run_fails_with("");
        if is_own() {
            assert!(output.stderr.contains("config.json: /linux/namespaces/6/path: "), "{output:#?}");
        }
    }
}

/// The network is not the user namespace's, so sysfs cannot be mounted and `lo` not changed, but it can be used.
fn a_network_that_exists_goes_with_a_new_user_namespace() {
    let other = Container::idle();
    other.launch();
    let container = Container::with_script(
        "id -u; readlink /proc/self/ns/net; ip link set lo down 2>/dev/null || echo refused; hostname",
    )
    .in_user_namespace()
    .edit(|spec| {
        join_namespace(spec, "network", ns_path(&other, "net"));
        capabilities(spec, &["CAP_NET_ADMIN"]);
        with_the_hosts_sys(spec);
    });
    assert_eq!(container.says(), format!("0\n{}\nrefused\ninside", ns(&other, "net")));
    container.leaves_nothing();
}

fn a_pid_namespace_that_exists_goes_with_a_new_user_namespace() -> Outcome {
    need_other_than("runc", "needs a /proc in every container")?;
    let other = Container::idle();
    other.launch();
    let container = Container::with_script("trap 'exit 0' TERM; echo $$; sleep 1000 & wait")
        .in_user_namespace()
        .edit(|spec| {
            join_namespace(spec, "pid", ns_path(&other, "pid"));
            spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc");
            for hidden in ["maskedPaths", "readonlyPaths"] {
                spec["linux"].as_object_mut().unwrap().remove(hidden);
            }
        });
    let output = container.launch();
    output.wait_for_stdout("\n");
    assert_ne!(output.stdout_now().trim(), "1");
    assert_eq!(ns(&container, "pid"), ns(&other, "pid"));
    assert_ne!(ns(&container, "user"), ns(&other, "user"));
    container.kill("KILL");
    container.wait_for("stopped");
    container.delete();
    container.leaves_nothing();
    assert_eq!(other.state()["status"], "running");
    Ok(())
}

fn a_cgroup_namespace_that_exists_goes_with_a_new_user_namespace() {
    let other = Container::idle();
    other.launch();
    let container =
        Container::with_script("readlink /proc/self/ns/cgroup").in_user_namespace().edit(|spec| {
            join_namespace(spec, "cgroup", ns_path(&other, "cgroup"));
            spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/sys/fs/cgroup");
        });
    assert_eq!(container.says(), ns(&other, "cgroup"));
    container.leaves_nothing();
}

fn a_mount_namespace_that_exists_does_not_go_with_a_new_user_namespace() -> Outcome {
    need_own()?;
    let other = Container::idle();
    other.launch();
    let container = Container::new()
        .in_user_namespace()
        .edit(|spec| join_namespace(spec, "mount", ns_path(&other, "mnt")));
    container.run_fails_with(
        "/linux/namespaces/6/path: a new user namespace has no privileges over an existing mount namespace",
    );
    Ok(())
}

fn limits_are_set_in_a_joined_user_namespace() {
    let other = other();
    let container = beside(&other, "ulimit -n; cat /proc/self/oom_score_adj").edit(|spec| {
        spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 300, "hard": 400 }]);
        spec["process"]["oomScoreAdj"] = json!(123);
    });
    assert_eq!(container.says(), "300\n123");
}

/// With and without an intermediate, made before a user namespace is joined and after.
fn the_clocks_are_set_whichever_namespaces_are_joined() -> Outcome {
    need(fs::exists("/proc/self/timens_offsets").unwrap(), "time namespaces")?;
    need_other_than("crun", "may not set them in a user namespace that it has joined")?;
    let (mapped, plain) = (other(), Container::idle());
    plain.launch();
    let script = "cut -d . -f 1 /proc/uptime";
    let joined = beside(&mapped, script);
    let joined_without_pids = beside(&mapped, script).edit(|spec| {
        join_namespace(spec, "pid", ns_path(&mapped, "pid"));
    });
    let new = Container::with_script(script).in_user_namespace();
    let new_beside_others = Container::with_script(script).in_user_namespace().edit(|spec| {
        join_namespace(spec, "network", ns_path(&plain, "net"));
        with_the_hosts_sys(spec);
    });
    for container in [joined, joined_without_pids, new, new_beside_others] {
        let container = container.edit(|spec| {
            spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "time" }));
            spec["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1_000_000_000 } });
        });
        let seconds: u64 = container.says().parse().unwrap();
        assert!(seconds >= 1_000_000_000, "{seconds}");
        container.leaves_nothing();
    }
    Ok(())
}

fn the_exit_status_of_a_successor_is_that_of_the_container() {
    let other = other();
    let container = beside(&other, "exit 42");
    assert_eq!(container.run().code(), 42);
    container.leaves_nothing();
}

fn a_container_with_a_successor_lives_like_any_other() {
    let other = other();
    let container = beside(&other, "trap 'exit 0' TERM; sleep 1000 & wait");
    let pid_file = container.beside("pid");
    container.create_with(["--pid-file".as_ref(), pid_file.as_os_str()]).succeeds();
    assert_eq!(container.state()["status"], "created");
    assert_eq!(fs::read_to_string(pid_file).unwrap(), container.pid().to_string());
    assert_eq!(ns(&container, "user"), ns(&other, "user"));
    container.start();
    // Not TERM: process 1 ignores it until its trap is set.
    container.kill("KILL");
    container.wait_for("stopped");
    container.delete();
    container.leaves_nothing();
}
