//! Mounts and devices in a user namespace, whose root is an ordinary user of the host.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::bundle::{PROPAGATIONS, add_mount, bind};
use crate::support::container::NO_OPTIONS;
use crate::support::host::{kind, need_other_than, need_own, need_program, patience};
use crate::support::suite::suite;
use crate::support::{Container, Outcome, wait_until};

suite![
    what_only_the_hosts_root_can_reach_is_mounted,
    a_rootfs_that_only_the_hosts_root_can_reach_is_the_root,
    a_source_that_is_not_there_is_named,
    a_mount_below_a_source_is_left_out_unless_the_bind_is_recursive,
    mounts_do_not_pass_between_a_shared_source_and_the_container,
    a_file_and_a_link_are_bound_there_too,
    the_root_without_pivot_is_the_same_there,
    the_rootfs_propagation_shows_there_too,
    the_mounts_of_the_host_are_out_of_sight_there_too,
    readiness_is_reported_from_there_too,
    devices_have_the_mode_and_owner_that_was_asked_for,
    devices_are_mounted_as_no_more_than_devices,
    a_source_that_an_earlier_mount_covers_is_not_the_hosts,
    a_device_may_have_another_path_than_on_the_host,
    a_ptmx_in_the_list_stays_the_link_into_the_containers_devpts,
    a_device_of_somebody_who_is_not_mapped_is_refused,
    many_mounts_and_few_descriptors_go_together,
];

/// A directory that only root of the host can enter.
fn closed(container: &Container, name: &str) -> PathBuf {
    let path = container.beside(name);
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    path
}

fn what_only_the_hosts_root_can_reach_is_mounted() {
    let container = Container::with_script(
        "cat /tmp/inside/file /tmp/file; touch /tmp/inside/new 2>/dev/null || echo read-only",
    )
    .in_user_namespace();
    let source = closed(&container, "closed").join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "text\n").unwrap();
    let container = container.edit(|spec| {
        add_mount(spec, bind(&source, "/tmp/inside", &["ro"]));
        add_mount(spec, bind(&source.join("file"), "/tmp/file", &["rbind", "nosuid"]));
    });
    assert_eq!(container.says(), "text\ntext\nread-only");
    container.leaves_nothing();
}

fn a_rootfs_that_only_the_hosts_root_can_reach_is_the_root() -> Outcome {
    for peer in ["runc", "crun"] {
        need_other_than(peer, "cannot reach it either")?;
    }
    for option in ["--no-new-keyring", "--no-pivot"] {
        let container = Container::with_script("hostname; touch /new && echo written").in_user_namespace();
        fs::set_permissions(&container.bundle.home, fs::Permissions::from_mode(0o700)).unwrap();
        let output = container.run_with([option]).succeeds();
        assert_eq!(output.stdout, "inside\nwritten\n");
        assert!(container.bundle.rootfs().join("new").exists());
        container.leaves_nothing();
    }
    Ok(())
}

fn a_source_that_is_not_there_is_named() {
    let container = Container::new().in_user_namespace();
    let source = container.beside("not-there");
    let container = container.edit(|spec| add_mount(spec, bind(&source, "/tmp/inside", &[])));
    container.run_fails_with("not-there");
}

/// Runs the container where something is mounted below `source`, in a mount namespace that nobody else looks at.
fn with_a_mount_below(container: &Container, source: &Path) -> String {
    let mounted = source.join("mounted");
    let mounted = mounted.display();
    let script =
        format!("mount -t tmpfs -o mode=755 tmpfs {mounted} && touch {mounted}/below && exec \"$@\"");
    let call = container.run_with(NO_OPTIONS).called_by(["unshare", "--mount", "sh", "-c", &script, "sh"]);
    call.succeeds().stdout.trim().to_owned()
}

fn a_mount_below_a_source_is_left_out_unless_the_bind_is_recursive() -> Outcome {
    need_program("unshare")?;
    need_other_than("runc", "refuses a bind that leaves out a mount in a user namespace")?;
    for (option, sees) in [("bind", ""), ("rbind", "below")] {
        let container = Container::with_args(["ls", "/tmp/source/mounted"]).in_user_namespace();
        let source = container.beside("source");
        fs::create_dir_all(source.join("mounted")).unwrap();
        let container = container.edit(|spec| add_mount(spec, bind(&source, "/tmp/source", &[option])));
        assert_eq!(with_a_mount_below(&container, &source), sees, "{option}");
        container.leaves_nothing();
    }
    Ok(())
}

/// The host's mounts are shared where systemd is init. What a container mounts must not appear on the host.
fn mounts_do_not_pass_between_a_shared_source_and_the_container() -> Outcome {
    need_program("unshare")?;
    let container = Container::with_script(
        "mount -t tmpfs tmpfs /tmp/source/mounted && touch /tmp/source/mounted/inside",
    )
    .in_user_namespace();
    let source = container.beside("source");
    fs::create_dir_all(source.join("mounted")).unwrap();
    let container = container.edit(|spec| {
        add_mount(spec, bind(&source, "/tmp/source", &["rbind"]));
        let sets = json!(["CAP_SYS_ADMIN"]);
        spec["process"]["capabilities"] = json!({ "bounding": sets, "permitted": sets, "effective": sets });
    });
    let script = format!("\"$@\" && ls {}", source.join("mounted").display());
    let shared = ["unshare", "--mount", "--propagation", "shared", "sh", "-c", &script, "sh"];
    let output = container.run_with(NO_OPTIONS).called_by(shared).succeeds();
    assert_eq!(output.stdout, "", "the host sees a mount of the container");
    container.leaves_nothing();
    Ok(())
}

/// Whatever the file system of the host is mounted as that they come from; and what the host may mount there later stays out.
fn devices_are_mounted_as_no_more_than_devices() -> Outcome {
    need_own()?;
    let container = Container::with_args(["cat", "/proc/self/mountinfo"]).in_user_namespace().edit(|spec| {
        spec["linux"]["devices"] = json!([{ "path": "/dev/own", "type": "c", "major": 1, "minor": 3 }]);
    });
    let shared = ["unshare", "--mount", "--propagation", "shared"];
    let said = container.run_with(NO_OPTIONS).called_by(shared).succeeds().stdout;
    for path in ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/own"]
    {
        let mount: Vec<_> = said.lines().map(|line| line.split(' ').collect::<Vec<_>>()).collect();
        let mount = mount.iter().find(|mount| mount[4] == path).unwrap_or_else(|| panic!("{path}: {said}"));
        for flag in ["nosuid", "noexec"] {
            assert!(mount[5].split(',').any(|have| have == flag), "{path}: {mount:?}");
        }
        assert_eq!(mount[6], "-", "{path}");
    }
    Ok(())
}

/// The rootfs is out of reach for the root inside, so that the runtime opens the sources before anything is mounted.
fn a_source_that_an_earlier_mount_covers_is_not_the_hosts() -> Outcome {
    need_own()?;
    let container = Container::with_args(["ls", "/tmp/seen"]).in_user_namespace();
    let other = closed(&container, "other");
    fs::create_dir(other.join("data")).unwrap();
    let inside = container.bundle.rootfs().join("home");
    let container = container.edit(|spec| {
        add_mount(spec, bind(&other.join("data"), "/home", &[]));
        add_mount(spec, bind(&inside, "/tmp/seen", &[]));
    });
    fs::set_permissions(container.bundle.path(), fs::Permissions::from_mode(0o700)).unwrap();
    container.run_fails_with("config.json: /mounts/8/source: ");
    Ok(())
}

fn a_file_and_a_link_are_bound_there_too() {
    let container = Container::with_args(["cat", "/tmp/file", "/tmp/link"]).in_user_namespace();
    let source = closed(&container, "closed");
    fs::write(source.join("file"), "text\n").unwrap();
    std::os::unix::fs::symlink("file", source.join("link")).unwrap();
    let container = container.edit(|spec| {
        for name in ["file", "link"] {
            add_mount(spec, bind(&source.join(name), &format!("/tmp/{name}"), &[]));
        }
    });
    assert_eq!(container.says(), "text\ntext");
}

fn the_root_without_pivot_is_the_same_there() {
    let container = Container::with_script("hostname; ls /..; ls -d /proc/1").in_user_namespace();
    let output = container.run_with(["--no-pivot"]).succeeds();
    assert!(output.stdout.starts_with("inside\n") && output.stdout.ends_with("/proc/1\n"), "{output:#?}");
    container.leaves_nothing();
}

fn the_rootfs_propagation_shows_there_too() -> Outcome {
    need_other_than("crun", "makes the root private")?;
    for (propagation, shows) in PROPAGATIONS {
        // Nor can runc then bind the devices.
        if kind() == "runc" && propagation.contains("unbindable") {
            continue;
        }
        let container = Container::with_script("awk '$5 == \"/\" { print $7 }' /proc/self/mountinfo")
            .in_user_namespace()
            .edit(|spec| {
                spec["linux"]["rootfsPropagation"] = json!(propagation);
                // A read-only or masked path is a bind mount, which unbindable forbids.
                spec["linux"]["maskedPaths"] = json!([]);
                spec["linux"]["readonlyPaths"] = json!([]);
            });
        let said = container.says();
        let right = if shows.is_empty() { said == "-" } else { said.starts_with(shows) };
        assert!(right, "{propagation}: {said:?}");
    }
    Ok(())
}

fn the_mounts_of_the_host_are_out_of_sight_there_too() {
    let container = Container::with_args(["cat", "/proc/self/mountinfo"]).in_user_namespace();
    let said = container.says();
    let below_root = |line: &&str| {
        let path = line.split(' ').nth(4).unwrap();
        path == "/" || ["/proc", "/dev", "/sys"].iter().any(|top| path.starts_with(top))
    };
    let strange: Vec<_> = said.lines().filter(|line| !below_root(line)).collect();
    assert!(strange.is_empty(), "{strange:#?}");
}

fn readiness_is_reported_from_there_too() -> Outcome {
    need_other_than("crun", "binds the caller's socket directly")?;
    let container = Container::with_script("ls $NOTIFY_SOCKET; trap 'exit 0' TERM; sleep 1000 & wait")
        .in_user_namespace();
    let path = container.beside("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(patience())).unwrap();
    let running = container.run_with(NO_OPTIONS).env("NOTIFY_SOCKET", &path).spawn();
    running.wait_for_stdout("/run/notify/notify.sock");
    let inside = container.state_directory().join("notify/notify.sock");
    wait_until("the socket is there", || inside.exists());
    UnixDatagram::unbound().unwrap().send_to(b"READY=1\n", &inside).unwrap();
    let mut buffer = [0; 1024];
    let length = socket.recv(&mut buffer).unwrap();
    assert!(buffer[..length].starts_with(b"READY=1\n"));
    container.delete_by_force();
    Ok(())
}

fn devices_have_the_mode_and_owner_that_was_asked_for() -> Outcome {
    need_other_than("crun", "takes the host's node for the usual ones")?;
    need_other_than("runc", "mounts the host's node, whatever its mode and owner")?;
    let container = Container::with_script("stat -c '%a %u %g %t:%T' /dev/mine; head -c 2 /dev/mine | wc -c; stat -c %u /dev/null")
        .in_user_namespace()
        .edit(|spec| {
            spec["linux"]["devices"] = json!([
                { "path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8 },
                { "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 9 }
            ]);
        });
    assert_eq!(container.says(), "640 7 8 1:5\n0\n9");
    Ok(())
}

/// It would be a mount, which no link can replace.
fn a_ptmx_in_the_list_stays_the_link_into_the_containers_devpts() {
    let container = Container::with_args(["readlink", "/dev/ptmx"]).in_user_namespace().edit(|spec| {
        spec["linux"]["devices"] = json!([{ "path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2 }]);
    });
    assert_eq!(container.says(), "pts/ptmx");
}

fn a_device_may_have_another_path_than_on_the_host() -> Outcome {
    need_other_than("crun", "makes another device of it")?;
    need_other_than("runc", "mounts the host's node of the same path")?;
    let container = Container::with_script("head -c 3 /dev/deep/zero | wc -c; ls -l /dev/deep | wc -l")
        .in_user_namespace()
        .edit(|spec| {
            spec["linux"]["devices"] = json!([
                { "path": "/dev/deep/zero", "type": "c", "major": 1, "minor": 5 },
                { "path": "/dev/deep/fifo", "type": "p" }
            ]);
        });
    assert_eq!(container.says(), "3\n3");
    Ok(())
}

fn a_device_of_somebody_who_is_not_mapped_is_refused() -> Outcome {
    need_other_than("runc", "ignores the owner")?;
    need_other_than("crun", "gives it to nobody")?;
    let container = Container::new().in_user_namespace().edit(|spec| {
        spec["linux"]["devices"] =
            json!([{ "path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "gid": 65536 }]);
    });
    container.run_fails_with("/linux/devices/0/gid: 65536 is unmapped in the user namespace");
    Ok(())
}

fn many_mounts_and_few_descriptors_go_together() -> Outcome {
    need_other_than("crun", "runs out of descriptors")?;
    let container = Container::with_script("ls /tmp | wc -l; ulimit -n").in_user_namespace();
    let source = closed(&container, "closed");
    let container = container.edit(|spec| {
        for number in 0..40 {
            add_mount(spec, bind(&source, &format!("/tmp/{number}"), &[]));
        }
        spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 20, "hard": 20 }]);
    });
    assert_eq!(container.says(), "40\n20");
    Ok(())
}
