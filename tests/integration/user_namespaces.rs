//! User namespaces: config-linux.md § User namespace mappings.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::bundle::{add_mount, bind, capabilities, remove_namespace, user_namespace};
use crate::support::container::{NO_OPTIONS, ROOT_OUTSIDE};
use crate::support::host::{need_other_than, need_own, need_program, need_sys_resource};
use crate::support::suite::suite;
use crate::support::{Container, Outcome};

suite![
    root_inside_is_an_ordinary_user_outside,
    several_ranges_are_mapped,
    a_mapped_user_runs_the_program_with_its_groups,
    a_user_that_is_not_mapped_is_refused,
    without_a_mapped_root_the_user_makes_the_container,
    the_new_namespaces_belong_to_it,
    what_the_kernel_makes_for_the_new_namespaces_belongs_to_root,
    the_loopback_device_is_up_there_too,
    devices_can_be_used_though_nobody_can_make_them,
    a_device_that_the_host_does_not_have_is_named,
    paths_are_hidden_there_too,
    all_capabilities_can_be_had_but_only_inside,
    a_hard_limit_above_the_runtimes_is_set,
    the_oom_score_is_adjusted_there_too,
    sysctls_are_set_there_too,
    limits_of_the_user_namespace_are_set,
    an_option_with_an_id_is_understood_inside,
    what_fails_for_the_user_namespace_says_so,
    a_container_with_a_user_namespace_lives_like_any_other,
    what_the_host_forbids_on_a_mount_stays_forbidden_inside,
];

/// All of `names`, in all sets that a program needs.
/// A line of /proc/PID/status, without its name.
fn status(pid: i32, name: &str) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().skip(1).map(ToOwned::to_owned).collect()
}

/// The lines of a map, with one blank between numbers.
fn lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn root_inside_is_an_ordinary_user_outside() {
    let container =
        Container::with_script("id -u; id -g; trap 'exit 0' TERM; sleep 1000 & wait").in_user_namespace();
    container.launch().wait_for_stdout("0\n0\n");
    let [user, group] = ROOT_OUTSIDE.map(|id| id.to_string());
    assert_eq!(status(container.pid(), "Uid"), vec![user; 4]);
    assert_eq!(status(container.pid(), "Gid"), vec![group; 4]);
    assert!(status(container.pid(), "Groups").is_empty());
}

fn several_ranges_are_mapped() {
    let container =
        Container::with_script("cat /proc/self/uid_map; cat /proc/self/gid_map; cat /proc/self/setgroups")
            .edit(|spec| {
                user_namespace(
                    spec,
                    &[[0, 100_000, 1000], [5000, 7, 1], [1000, 200_000, 5]],
                    &[[0, 300_000, 10], [10, 400_000, 10]],
                );
            })
            .owned_by(100_000, 300_000);
    assert_eq!(
        lines(&container.says()),
        ["0 100000 1000", "5000 7 1", "1000 200000 5", "0 300000 10", "10 400000 10", "allow"]
    );
    container.leaves_nothing();
}

fn a_mapped_user_runs_the_program_with_its_groups() {
    let container = Container::with_script(
        "id -u; id -g; grep Groups /proc/self/status; touch /tmp/mine; stat -c %u:%g /tmp/mine",
    )
    .in_user_namespace()
    .edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 7] }));
    assert_eq!(lines(&container.says()), ["1000", "1001", "Groups: 5 7", "1000:1001"]);
    let [user, group] = ROOT_OUTSIDE;

    let made = fs::metadata(container.bundle.rootfs().join("tmp/mine")).unwrap();
    assert_eq!((made.uid(), made.gid()), (user + 1000, group + 1001));
}

fn a_user_that_is_not_mapped_is_refused() {
    for user in [
        json!({ "uid": 65536, "gid": 0 }),
        json!({ "uid": 0, "gid": 65536 }),
        json!({ "uid": 0, "gid": 0, "additionalGids": [65536] }),
    ] {
        let container =
            Container::new().in_user_namespace().edit(|spec| spec["process"]["user"] = user.clone());
        container.run_fails_with("");
    }
}

fn without_a_mapped_root_the_user_makes_the_container() -> Outcome {
    need_other_than("runc", "needs a mapped root")?;
    let container =
        Container::with_script("id -u; id -g; echo x >/dev/null; ls -ld /dev/shm | cut -d ' ' -f 1")
            .edit(|spec| {
                user_namespace(spec, &[[1000, 100_000, 1]], &[[1000, 300_000, 1]]);
                spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
            })
            .owned_by(100_000, 300_000);
    assert_eq!(container.says(), "1000\n1000\ndrwxrwxrwt");
    container.leaves_nothing();
    Ok(())
}

fn the_new_namespaces_belong_to_it() -> Outcome {
    need_other_than("runc", "makes the whole of sysfs read-only")?;
    let container = Container::with_script(
        "hostname from-inside; hostname
         ip link set lo down && ip link show lo | grep -c UP
         mount -t cgroup2 cgroup2 /tmp && [ -f /tmp/cgroup.procs ] && echo cgroup; umount /tmp
         mount -t mqueue mqueue /tmp && echo ipc; umount /tmp
         mount -t sysfs sysfs /tmp && echo network; umount /tmp
         mount -t proc proc /tmp && echo pid",
    )
    .in_user_namespace()
    .edit(|spec| {
        capabilities(spec, &["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]);
        for hidden in ["maskedPaths", "readonlyPaths"] {
            spec["linux"].as_object_mut().unwrap().remove(hidden);
        }
    });
    assert_eq!(container.says(), "from-inside\n0\ncgroup\nipc\nnetwork\npid");
    Ok(())
}

fn what_the_kernel_makes_for_the_new_namespaces_belongs_to_root() -> Outcome {
    need_other_than("runc", "makes them before it is root there")?;
    let container = Container::with_script(
        "for file in /dev/mqueue /dev/shm /dev/pts/ptmx /proc/net/dev /proc/sys/net/ipv4/ip_forward; do
            stat -c %u:%g $file
         done",
    )
    .in_user_namespace();
    assert_eq!(container.says(), ["0:0"; 5].join("\n"));
    Ok(())
}

fn the_loopback_device_is_up_there_too() {
    let container = Container::with_args(["ip", "addr", "show", "dev", "lo"]).in_user_namespace();
    let said = container.says();
    assert!(said.contains("LOOPBACK,UP") && said.contains("127.0.0.1/8"), "{said}");
}

fn devices_can_be_used_though_nobody_can_make_them() {
    let container = Container::with_script(
        "for name in null zero full random urandom tty; do [ -c /dev/$name ] || echo no $name; done
         echo lost >/dev/null; head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c
         readlink /dev/ptmx; readlink /dev/fd; [ -c /dev/pts/ptmx ] && echo ptmx
         mknod /dev/made c 1 3 2>/dev/null || echo refused",
    )
    .in_user_namespace()
    .edit(|spec| capabilities(spec, &["CAP_MKNOD"]));
    assert_eq!(container.says(), "3\n3\npts/ptmx\n/proc/self/fd\nptmx\nrefused");
}

fn a_device_that_the_host_does_not_have_is_named() -> Outcome {
    need_own()?;
    need_program("setpriv")?;
    let container = Container::new().in_user_namespace().edit(|spec| {
        spec["linux"]["devices"] = json!([{ "path": "/dev/not-there", "type": "c", "major": 1, "minor": 3 }]);
    });
    let output = container
        .run_with(NO_OPTIONS)
        .called_by(["setpriv", "--bounding-set", "-mknod", "--"])
        .fails_with("/linux/devices/0: create device /dev/not-there: no such file or directory (ENOENT)");
    assert!(output.stderr.contains("the host's device node of that path"), "{output:#?}");
    container.leaves_nothing();
    Ok(())
}

fn paths_are_hidden_there_too() {
    let container = Container::with_script(
        "cat /proc/keys; ls /proc/acpi /sys/firmware 2>/dev/null | grep -v :; echo 1 2>/dev/null >/proc/sys/kernel/domainname || echo read-only",
    )
    .in_user_namespace()
    .edit(|spec| spec["root"]["readonly"] = json!(true));
    assert_eq!(container.says(), "read-only");
}

fn all_capabilities_can_be_had_but_only_inside() {
    let container =
        Container::with_script("grep CapEff /proc/self/status; echo 7 >/proc/sys/vm/swappiness || echo kept")
            .in_user_namespace()
            .edit(|spec| {
                capabilities(spec, &["CAP_SYS_ADMIN", "CAP_SYS_RESOURCE", "CAP_DAC_OVERRIDE"]);
                spec["linux"].as_object_mut().unwrap().remove("readonlyPaths");
            });
    assert_eq!(lines(&container.says()), ["CapEff: 0000000001200002", "kept"]);
}

fn a_hard_limit_above_the_runtimes_is_set() -> Outcome {
    need_sys_resource()?;
    let container = Container::with_script("ulimit -n; ulimit -Hn").in_user_namespace().edit(|spec| {
        spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 900, "hard": 1000 }]);
    });
    let output = container.run_with(NO_OPTIONS).after_shell("ulimit -n 800;").succeeds();
    assert_eq!(output.stdout.trim(), "900\n1000");
    Ok(())
}

fn the_oom_score_is_adjusted_there_too() {
    let container = Container::with_args(["cat", "/proc/self/oom_score_adj"])
        .in_user_namespace()
        .edit(|spec| spec["process"]["oomScoreAdj"] = json!(321));
    assert_eq!(container.says(), "321");
}

fn sysctls_are_set_there_too() {
    let container = Container::with_args(["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"])
        .in_user_namespace()
        .edit(|spec| spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_unprivileged_port_start": "42" }));
    assert_eq!(container.says(), "42");
}

fn limits_of_the_user_namespace_are_set() -> Outcome {
    need_other_than("runc", "takes them since 1.5 only")?;
    need_other_than("crun", "takes them for the host's")?;
    let container = Container::with_args(["cat", "/proc/sys/user/max_mnt_namespaces"])
        .in_user_namespace()
        .edit(|spec| spec["linux"]["sysctl"] = json!({ "user.max_mnt_namespaces": "12" }));
    assert_eq!(container.says(), "12");
    Ok(())
}

fn an_option_with_an_id_is_understood_inside() {
    let container = Container::with_args(["stat", "-c", "%u:%g", "/tmp/owned"]).in_user_namespace().edit(|spec| {
        add_mount(
            spec,
            json!({ "destination": "/tmp/owned", "type": "tmpfs", "source": "tmpfs", "options": ["uid=5", "gid=6"] }),
        );
    });
    assert_eq!(container.says(), "5:6");
}

/// What is not permitted there, and what would do instead.
fn what_fails_for_the_user_namespace_says_so() -> Outcome {
    need_own()?;
    type Edit = fn(&mut Value);
    let cases: [(Edit, &str, &str); 4] = [
        (
            |spec| remove_namespace(spec, "network"),
            "/mounts/5: mount \"sysfs\" on /sys: operation not permitted (EPERM)",
            "bind-mount /sys instead",
        ),
        (
            |spec| remove_namespace(spec, "ipc"),
            "/mounts/4: mount \"mqueue\" on /dev/mqueue: operation not permitted (EPERM)",
            "requires a new ipc namespace",
        ),
        (
            |spec| spec["linux"]["sysctl"] = json!({ "net.ipv4.ping_group_range": "0 65536" }),
            "/linux/sysctl/net.ipv4.ping_group_range: ",
            "all ids in it must be mapped",
        ),
        (
            |spec| {
                add_mount(spec, json!({ "destination": "/not/there", "type": "tmpfs", "source": "tmpfs" }))
            },
            "/mounts/7/destination: mount \"tmpfs\" on /not/there: permission denied (EACCES)",
            "must be owned by ids mapped in the user namespace",
        ),
    ];
    for (edit, text, hint) in cases {
        let container = Container::new().in_user_namespace().edit(edit);
        let container = if hint.contains("owned") { container.owned_by(0, 0) } else { container };
        let output = container.run_fails_with(text);
        assert!(output.stderr.contains(hint), "{output:#?}");
    }
    Ok(())
}

fn a_container_with_a_user_namespace_lives_like_any_other() {
    let container = Container::idle().in_user_namespace();
    let source = container.beside("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "text").unwrap();
    let container = container.edit(|spec| add_mount(spec, bind(&source, "/tmp/source", &["ro"])));
    container.create();
    assert_eq!(container.state()["status"], "created");
    container.start();
    let inside = format!("/proc/{}/root/tmp/source/file", container.pid());
    assert_eq!(fs::read_to_string(inside).unwrap(), "text");
    // Not TERM: process 1 ignores it until its trap is set.
    container.kill("KILL");
    container.wait_for("stopped");
    container.delete();
    container.leaves_nothing();
}

fn what_the_host_forbids_on_a_mount_stays_forbidden_inside() -> Outcome {
    need_other_than("crun", "hands such a mount over without its locks")?;
    let container = Container::with_script(
        "mount -o remount,bind,rw /tmp/source; touch /tmp/source/file; grep -c ' /tmp/source ro,' /proc/self/mountinfo",
    );
    let source = container.beside("source");
    fs::create_dir(&source).unwrap();
    let mount = |options: &[&str]| {
        assert!(Command::new("mount").args(options).arg(&source).status().unwrap().success(), "{options:?}");
    };
    mount(&["-t", "tmpfs", "-o", "mode=777,ro", "tmpfs"]);
    let container = container.in_user_namespace().edit(|spec| {
        capabilities(spec, &["CAP_SYS_ADMIN"]);
        add_mount(spec, bind(&source, "/tmp/source", &[]));
    });
    let output = container.run();
    assert!(Command::new("umount").arg(&source).status().unwrap().success());
    assert_eq!(output.stdout.trim(), "1", "{output:#?}");
    assert!(output.stderr.contains("ermission") || output.stderr.contains("ermitted"), "{output:#?}");
    Ok(())
}
