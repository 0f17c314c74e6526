//! The root file system: the root switch, read-only paths, masked paths, propagation.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use serde_json::json;

use crate::support::bundle::PROPAGATIONS;
use crate::support::container::NO_OPTIONS;
use crate::support::host::{is_own, need_other_than, need_own, need_program};
use crate::support::suite::suite;
use crate::support::{Container, Invocation, Outcome, wait_until};

suite![
    the_root_is_the_rootfs_and_nothing_else,
    the_root_without_pivot_is_the_same,
    a_read_only_root_cannot_be_written,
    a_read_only_root_without_pivot_cannot_be_written,
    a_read_only_root_still_gets_its_mount_points,
    a_writable_root_is_written_through,
    an_absolute_root_path_works,
    a_root_path_below_the_bundle_works,
    a_missing_root_is_refused,
    a_root_that_is_a_file_is_refused,
    masked_files_are_empty,
    masked_directories_are_empty_and_read_only,
    masked_paths_that_do_not_exist_are_left_out,
    read_only_paths_cannot_be_written,
    read_only_paths_that_do_not_exist_are_left_out,
    read_only_paths_keep_the_other_flags,
    a_read_only_path_that_is_the_root_is_in_force_for_the_program_too,
    a_masked_path_that_is_the_root_is_refused,
    a_path_both_masked_and_read_only_works,
    masked_paths_listed_twice_work,
    rootfs_propagation_shows,
    an_unknown_rootfs_propagation_is_refused,
    what_the_host_mounts_later_stays_out_unless_it_is_asked_for,
    the_root_takes_part_in_no_propagation_unless_it_is_asked_for,
    the_mounts_of_the_host_are_out_of_sight,
    the_host_sees_none_of_the_mounts,
    the_rootfs_keeps_its_owner_and_mode,
    two_containers_share_a_rootfs,
    a_root_path_that_is_a_link,
    a_private_tree_without_pivot_is_refused,
    a_masked_path_that_fails_is_named_by_its_own_place,
];

fn the_root_is_the_rootfs_and_nothing_else() {
    let said = Container::with_script("ls /; ls /..; awk '$5 == \"/\"' /proc/self/mountinfo | wc -l").says();
    assert!(said.ends_with("\n1"), "{said}");
    assert!(!said.contains("work"), "{said}");
}

fn the_root_without_pivot_is_the_same() {
    let container = Container::with_script("hostname; ls /..; cat /etc/passwd | head -1");
    let output = container.run_with(["--no-pivot"]).succeeds();
    assert!(output.stdout.starts_with("inside\n"), "{output:#?}");
    assert!(output.stdout.ends_with("root:x:0:0:root:/root:/bin/sh\n"), "{output:#?}");
    container.leaves_nothing();
}

fn a_private_tree_without_pivot_is_refused() -> Outcome {
    need_other_than("crun", "runs it")?;
    for propagation in ["private", "rprivate"] {
        let container = Container::new().edit(|spec| spec["linux"]["rootfsPropagation"] = json!(propagation));
        let text = "rootfsPropagation of [r]private is not safe without pivot_root";
        container.run_with(["--no-pivot"]).fails_with(text);
        container.leaves_nothing();
    }
    Ok(())
}

fn read_only(script: &str) -> Container {
    Container::with_script(script).edit(|spec| spec["root"]["readonly"] = json!(true))
}

fn a_read_only_root_cannot_be_written() {
    let container = read_only("touch /new; touch /tmp/new; touch /dev/shm/yes && echo shm");
    let output = container.run();
    assert_eq!(output.stderr.matches("Read-only file system").count(), 2, "{output:#?}");
    assert_eq!(output.stdout, "shm\n");
    assert!(!container.bundle.rootfs().join("new").exists());
}

fn a_read_only_root_without_pivot_cannot_be_written() {
    let container = read_only("touch /new");
    let output = container.run_with(["--no-pivot"]).output();
    assert!(output.stderr.contains("Read-only file system"), "{output:#?}");
}

fn a_read_only_root_still_gets_its_mount_points() {
    let container = read_only("stat -c %F /made/here").edit(|spec| {
        spec["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "destination": "/made/here", "type": "tmpfs", "source": "t" }));
    });
    assert_eq!(container.says(), "directory");
}

fn a_writable_root_is_written_through() {
    let container = Container::with_script("echo text >/new");
    container.says();
    assert_eq!(fs::read_to_string(container.bundle.rootfs().join("new")).unwrap(), "text\n");
}

fn an_absolute_root_path_works() {
    let container = Container::with_args(["hostname"]);
    let rootfs = container.bundle.rootfs();
    assert_eq!(container.edit(|spec| spec["root"]["path"] = json!(rootfs)).says(), "inside");
}

fn a_root_path_below_the_bundle_works() {
    let container = Container::with_args(["hostname"]);
    let bundle = container.bundle.path();
    fs::create_dir(bundle.join("deep")).unwrap();
    fs::rename(bundle.join("rootfs"), bundle.join("deep/root")).unwrap();
    assert_eq!(container.edit(|spec| spec["root"]["path"] = json!("./deep/root")).says(), "inside");
}

fn a_missing_root_is_refused() {
    let container = Container::new().edit(|spec| spec["root"]["path"] = json!("not-there"));
    let output = container.run_with(NO_OPTIONS).fails_with("not-there");
    container.leaves_nothing();
    if is_own() {
        assert!(output.stderr.contains("/root/path"), "{output:#?}");
    }
}

fn a_root_that_is_a_file_is_refused() {
    let container = Container::new().edit(|spec| spec["root"]["path"] = json!("config.json"));
    container.run_fails_with("");
}

fn masked_files_are_empty() {
    let container = Container::with_script(
        "cat /etc/secret; stat -c '%F %t:%T' /etc/secret; echo x >/etc/secret; cat /etc/secret",
    )
    .with_file("etc/secret", 0o644, "secret")
    .edit(|spec| spec["linux"]["maskedPaths"] = json!(["/etc/secret"]));
    assert_eq!(container.says(), "character special file 1:3");
    assert_eq!(fs::read_to_string(container.bundle.rootfs().join("etc/secret")).unwrap(), "secret");
}

fn masked_directories_are_empty_and_read_only() {
    let container = Container::with_script("ls -A /home /etc; touch /home/new")
        .with_file("home/secret", 0o644, "secret")
        .edit(|spec| spec["linux"]["maskedPaths"] = json!(["/home", "/etc"]));
    let output = container.run();
    assert_eq!(output.stdout, "/etc:\n\n/home:\n", "{output:#?}");
    assert!(output.stderr.contains("Read-only file system"), "{output:#?}");
}

fn masked_paths_that_do_not_exist_are_left_out() {
    let container = Container::with_script("ls /not")
        .edit(|spec| spec["linux"]["maskedPaths"] = json!(["/not/there", "/dev/none"]));
    let output = container.run();
    assert!(output.stderr.contains("/not: No such file"), "{output:#?}");
}

fn read_only_paths_cannot_be_written() {
    let container =
        Container::with_script("touch /home/new; echo x >>/etc/passwd; touch /tmp/yes && echo tmp")
            .edit(|spec| spec["linux"]["readonlyPaths"] = json!(["/home", "/etc/passwd"]));
    let output = container.run();
    assert_eq!(output.stderr.matches("Read-only file system").count(), 2, "{output:#?}");
    assert_eq!(output.stdout, "tmp\n");
}

fn read_only_paths_that_do_not_exist_are_left_out() {
    let container = Container::new().edit(|spec| spec["linux"]["readonlyPaths"] = json!(["/not/there"]));
    assert_eq!(container.says(), "");
    assert!(!container.bundle.rootfs().join("not").exists());
}

fn read_only_paths_keep_the_other_flags() {
    let container =
        Container::with_script("awk '$5 == \"/dev/shm\" { print $6 }' /proc/self/mountinfo | tail -1")
            .edit(|spec| spec["linux"]["readonlyPaths"] = json!(["/dev/shm"]));
    let said = container.says();
    for flag in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(said.split(',').any(|have| have == flag), "{flag} is not in {said}");
    }
}

/// The root and all that is mounted below it: for the program, and for whoever joins it.
fn a_read_only_path_that_is_the_root_is_in_force_for_the_program_too() -> Outcome {
    need_other_than("runc", "makes the root read-only for the first process alone")?;
    for path in ["/", "//", "/.", "/link"] {
        let container =
            Container::with_script("touch /new /tmp/new /dev/shm/new; echo x >/dev/null; sleep 1000")
                .edit(|spec| spec["linux"]["readonlyPaths"] = json!(["/proc/sys", path]));
        symlink("..", container.bundle.rootfs().join("link")).unwrap();
        let output = container.launch();
        wait_until("it has tried", || output.stderr_now().matches("Read-only file system").count() == 3);
        assert!(!output.stderr_now().contains("null"), "{}", output.stderr_now());
        container.exec(["touch", "/new"]).fails_with("Read-only file system");
        assert!(!container.bundle.rootfs().join("new").exists());
        let other = Container::with_script("touch /new").in_user_namespace();
        let other = other.edit(|spec| spec["linux"]["readonlyPaths"] = json!([path]));
        symlink("..", other.bundle.rootfs().join("link")).unwrap();
        other.run_with(NO_OPTIONS).fails_with("Read-only file system");
    }
    Ok(())
}

fn a_masked_path_that_is_the_root_is_refused() -> Outcome {
    need_own()?;
    for path in ["/", "//", "/.", "/link"] {
        let container =
            Container::new().edit(|spec| spec["linux"]["maskedPaths"] = json!(["/proc/keys", path]));
        symlink("..", container.bundle.rootfs().join("link")).unwrap();
        container.run_fails_with("config.json: /linux/maskedPaths/1: ");
    }
    Ok(())
}

fn a_path_both_masked_and_read_only_works() {
    let container =
        Container::with_script("cat /etc/secret").with_file("etc/secret", 0o644, "secret").edit(|spec| {
            spec["linux"]["maskedPaths"] = json!(["/etc/secret"]);
            spec["linux"]["readonlyPaths"] = json!(["/etc/secret"]);
        });
    assert_eq!(container.says(), "");
}

fn masked_paths_listed_twice_work() {
    let container = Container::with_script("ls -A /home; cat /etc/passwd").edit(|spec| {
        spec["linux"]["maskedPaths"] = json!(["/home", "/home", "/home/", "/etc/passwd", "/etc/passwd"]);
    });
    assert_eq!(container.says(), "");
}

fn rootfs_propagation_shows() -> Outcome {
    need_other_than("crun", "makes the root private")?;
    for (propagation, shows) in PROPAGATIONS {
        let container =
            Container::with_script("awk '$5 == \"/\" { print $7 }' /proc/self/mountinfo").edit(|spec| {
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

fn an_unknown_rootfs_propagation_is_refused() -> Outcome {
    need_other_than("crun", "ignores it")?;
    let container = Container::new().edit(|spec| spec["linux"]["rootfsPropagation"] = json!("sideways"));
    container.run_fails_with("");
    Ok(())
}

/// What a container says where the rootfs is a shared mount of the host, as all are that systemd makes: when it runs, the host mounts
/// something below its root, and then something else over all of it.
fn with_late_mounts(container: &Container, options: &[&str]) -> String {
    let rootfs = container.bundle.rootfs();
    let rootfs = rootfs.display();
    let look = container.exec(["sh", "-c", "ls /mnt; ls -d /late"]).words();
    let look = format!("{} sh -c 'ls /mnt; ls -d /late'", look[..look.len() - 3].join(" "));
    let script = format!(
        "mkdir {rootfs}/mnt && mount --bind {rootfs} {rootfs} && mount --make-shared {rootfs} && \"$@\" || exit
        mount -t tmpfs t {rootfs}/mnt && touch {rootfs}/mnt/below && {look}
        mount -t tmpfs t {rootfs} && mkdir {rootfs}/late && {look}; true"
    );
    let call = container.run_with(["--detach"].iter().chain(options)).words();
    let host = Invocation::new("unshare").args(["--mount", "--propagation", "private", "sh", "-c"]);
    let output = host.arg(script).arg("sh").args(call).output();
    assert_eq!(output.code(), 0, "{output:#?}");
    output.stdout
}

fn what_the_host_mounts_later_stays_out_unless_it_is_asked_for() -> Outcome {
    need_program("unshare")?;
    let sleeping = || Container::with_args(["sleep", "1000"]);
    assert_eq!(with_late_mounts(&sleeping(), &[]), "");
    assert_eq!(with_late_mounts(&sleeping(), &["--no-pivot"]), "");
    assert_eq!(with_late_mounts(&sleeping().in_user_namespace(), &[]), "");
    for propagation in ["private", "rprivate"] {
        let container = sleeping().edit(|spec| spec["linux"]["rootfsPropagation"] = json!(propagation));
        assert_eq!(with_late_mounts(&container, &[]), "", "{propagation}");
    }
    if is_own() {
        for propagation in ["slave", "rslave"] {
            let container = sleeping().edit(|spec| spec["linux"]["rootfsPropagation"] = json!(propagation));
            let said = with_late_mounts(&container, &[]);
            assert!(said.starts_with("below\n"), "{propagation}: {said}");
        }
    }
    Ok(())
}

fn the_root_takes_part_in_no_propagation_unless_it_is_asked_for() -> Outcome {
    need_program("unshare")?;
    let show = || Container::with_script("awk '$5 == \"/\" { print $7 }' /proc/self/mountinfo");
    for (container, options) in
        [(show(), &[][..]), (show(), &["--no-pivot"]), (show().in_user_namespace(), &[])]
    {
        let rootfs = container.bundle.rootfs();
        let shared = format!("mount --bind {0} {0} && mount --make-shared {0} && \"$@\"", rootfs.display());
        let host = Invocation::new("unshare").args(["--mount", "--propagation", "private", "sh", "-c"]);
        let call = container.run_with(options).words();
        assert_eq!(host.arg(shared).arg("sh").args(call).succeeds().stdout, "-\n");
    }
    Ok(())
}

fn the_mounts_of_the_host_are_out_of_sight() {
    let container = Container::with_args(["cat", "/proc/self/mountinfo"]);
    let said = container.says();
    let below_root = |line: &&str| {
        let path = line.split(' ').nth(4).unwrap();
        path == "/" || ["/proc", "/dev", "/sys"].iter().any(|top| path.starts_with(top))
    };
    let strange: Vec<_> = said.lines().filter(|line| !below_root(line)).collect();
    assert!(strange.is_empty(), "{strange:#?}");
}

fn the_host_sees_none_of_the_mounts() {
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let container = Container::idle();
    container.launch();
    let during = fs::read_to_string("/proc/self/mountinfo").unwrap();
    // Other tests run beside this one; ours carries its name.
    assert!(!during.lines().any(|line| line.contains(&format!("{}/bundle", container.id))), "{during}");
    assert!(before.lines().count() > 1);
}

fn the_rootfs_keeps_its_owner_and_mode() {
    let container = Container::with_args(["stat", "-c", "%a %u", "/"]);
    let rootfs = container.bundle.rootfs();
    fs::set_permissions(&rootfs, fs::Permissions::from_mode(0o751)).unwrap();
    assert_eq!(container.says(), "751 0");
}

fn two_containers_share_a_rootfs() {
    let first = Container::idle();
    first.launch();
    let second = Container::with_args(["hostname"]);
    let rootfs = first.bundle.rootfs();
    assert_eq!(second.edit(|spec| spec["root"]["path"] = json!(rootfs)).says(), "inside");
    assert_eq!(first.state()["status"], "running");
}

/// Where root.path goes through a link, what it points at counts; runc refuses, crun follows.
fn a_root_path_that_is_a_link() -> Outcome {
    need_own()?;
    let container = Container::with_args(["hostname"]).edit(|spec| spec["root"]["path"] = json!("link"));
    symlink("rootfs", container.bundle.path().join("link")).unwrap();
    let output = container.run();
    assert!(output.stdout == "inside\n" || output.stderr.contains("/root/path"), "{output:#?}");
    Ok(())
}

/// Paths listed twice are hidden once; what is wrong is still found where it stands.
fn a_masked_path_that_fails_is_named_by_its_own_place() -> Outcome {
    need_own()?;
    let container = Container::new().edit(|spec| {
        spec["linux"]["maskedPaths"] =
            json!(["/proc/kcore", "/proc/kcore", "/proc/./kcore", "/loop", "/proc/keys"]);
    });
    symlink("loop", container.bundle.rootfs().join("loop")).unwrap();
    let output = container.run_fails_with("/linux/maskedPaths/3: ");
    assert!(output.stderr.contains("/loop"), "{output:#?}");
    Ok(())
}
