//! config.md § Mounts.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use serde_json::{Value, json};

use crate::support::bundle::{PROPAGATIONS, add_mount, bind, remove_namespace};
use crate::support::container::NO_OPTIONS;
use crate::support::host::{is_own, kind, need, need_other_than, need_own};
use crate::support::suite::suite;
use crate::support::{Container, Outcome};

suite![
    the_default_mounts_are_there,
    mounts_are_made_in_their_order,
    a_missing_target_is_made_for_a_directory,
    a_missing_target_is_made_for_a_file,
    a_bind_mount_shows_the_source,
    a_relative_source_is_relative_to_the_bundle,
    a_bind_mount_without_the_type_bind_works,
    a_bind_mount_writes_through,
    a_read_only_bind_mount_cannot_be_written,
    a_bind_mount_leaves_the_source_as_it_was,
    rbind_takes_the_mounts_below_and_bind_does_not,
    ro_leaves_mounts_below_writable_and_rro_does_not,
    every_flag_of_mount_attributes_shows,
    every_clearing_option_clears,
    every_atime_option_shows,
    a_bind_mount_has_the_attributes_that_are_named_and_no_others,
    a_bind_mount_without_attributes_has_those_of_its_source,
    a_destination_as_the_host_sees_it_is_understood,
    recursive_options_reach_the_mounts_below,
    later_options_win,
    nosymfollow_shows,
    a_tmpfs_takes_its_size_and_mode,
    a_tmpfs_with_tmpcopyup_keeps_what_was_there,
    a_tmpfs_on_a_missing_directory_has_the_usual_mode,
    propagation_options_show,
    a_private_mount_does_not_propagate,
    a_devpts_has_its_own_terminals,
    a_sysfs_is_read_only,
    a_mqueue_can_be_used,
    the_cgroup_mount_shows_the_cgroup,
    the_cgroup_mount_without_a_namespace_is_cgroup2_and_read_only,
    a_second_proc_can_be_mounted_elsewhere,
    a_mount_over_the_root_is_refused_or_works,
    a_link_to_the_root_is_no_target,
    a_bind_mount_of_a_file_over_a_directory_fails,
    a_bind_mount_of_a_directory_over_a_file_fails,
    a_missing_source_fails_and_is_named,
    an_unknown_file_system_fails_and_is_named,
    an_unknown_option_of_a_file_system_fails,
    a_mount_with_many_options_works,
    two_hundred_mounts_work,
    a_target_through_a_symlink_stays_inside,
    a_target_with_dots_stays_inside,
    a_source_that_is_a_socket_or_pipe_can_be_bound,
    an_empty_list_of_mounts_works,
    an_overlay_with_a_long_list_of_layers_is_mounted,
    layers_of_an_overlay_are_not_looked_up_in_the_image,
    one_option_can_hold_several,
    a_relative_target_is_below_the_root_and_warned_of,
    a_tmpfs_takes_the_mode_of_what_it_covers_or_is_everybodys,
    a_dev_that_is_recursively_read_only_still_has_its_devices,
];

/// The line of /proc/self/mountinfo inside, of the last mount on this path.
fn mountinfo(container: Container, path: &str) -> Line {
    let container = container.edit(|spec| spec["process"]["args"] = json!(["cat", "/proc/self/mountinfo"]));
    let said = container.says();
    let line = said.lines().rfind(|line| line.split(' ').nth(4) == Some(path));
    let line = line.unwrap_or_else(|| panic!("{path} is not in {said}"));
    let (mount, superblock) = line.split_once(" - ").unwrap();
    let fields: Vec<_> = mount.split(' ').collect();
    let options = superblock.split(' ').nth(2).unwrap();
    Line {
        attributes: fields[5].split(',').map(ToOwned::to_owned).collect(),
        propagation: fields[6..].join(" "),
        fstype: superblock.split(' ').next().unwrap().to_owned(),
        superblock: options.split(',').map(ToOwned::to_owned).collect(),
    }
}

#[derive(Debug)]
struct Line {
    attributes: Vec<String>,
    propagation: String,
    fstype: String,
    superblock: Vec<String>,
}

impl Line {
    fn has(&self, attribute: &str) -> bool {
        self.attributes.iter().any(|have| have == attribute)
    }
}

fn tmpfs(destination: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options })
}

/// A container with a directory of the host mounted at /mnt.
fn with_bind(options: &[&str]) -> Container {
    let container = Container::new();
    let source = container.beside("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "from outside\n").unwrap();
    container.edit(|spec| add_mount(spec, bind(&source, "/mnt", options)))
}

fn script(container: Container, script: &str) -> Container {
    container.edit(|spec| spec["process"]["args"] = json!(["sh", "-c", script]))
}

fn the_default_mounts_are_there() {
    let container = Container::with_script("awk '{ print $2, $3 }' /proc/mounts");
    let said = container.says();
    for (path, fstype) in [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
        ("/sys", "sysfs"),
        ("/sys/fs/cgroup", "cgroup2"),
    ] {
        assert!(said.lines().any(|line| line == format!("{path} {fstype}")), "{path} is not in {said}");
    }
    assert!(!said.contains("oldroot") && !said.contains(&container.id), "{said}");
}

fn mounts_are_made_in_their_order() {
    let container = Container::with_script("ls /mnt /mnt/below").edit(|spec| {
        add_mount(spec, tmpfs("/mnt", &[]));
        add_mount(spec, tmpfs("/mnt/below", &[]));
    });
    assert_eq!(container.says(), "/mnt:\nbelow\n\n/mnt/below:");
    let hidden = Container::with_script("ls /mnt").edit(|spec| {
        add_mount(spec, tmpfs("/mnt/below", &[]));
        add_mount(spec, tmpfs("/mnt", &[]));
    });
    assert_eq!(hidden.says(), "");
}

fn a_missing_target_is_made_for_a_directory() -> Outcome {
    need_other_than("crun", "sets the sticky bit")?;
    let container = Container::with_script("stat -c '%F %a' /made /made/for")
        .edit(|spec| add_mount(spec, tmpfs("/made/for/it", &[])));
    assert_eq!(container.says(), "directory 755\ndirectory 755");
    Ok(())
}

fn a_missing_target_is_made_for_a_file() {
    let container = Container::with_script("cat /made/for/file");
    let source = container.beside("file");
    fs::write(&source, "text").unwrap();
    assert_eq!(container.edit(|spec| add_mount(spec, bind(&source, "/made/for/file", &[]))).says(), "text");
}

fn a_bind_mount_shows_the_source() {
    assert_eq!(script(with_bind(&[]), "cat /mnt/file").says(), "from outside");
}

fn a_relative_source_is_relative_to_the_bundle() {
    let container = Container::with_args(["cat", "/mnt/file"]);
    let source = container.bundle.path().join("data");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "beside config.json").unwrap();
    let container = container.edit(|spec| add_mount(spec, bind("data".as_ref(), "/mnt", &["ro"])));
    assert_eq!(container.says(), "beside config.json");
}

/// config.md: the type of a bind mount is ignored, and may be missing or "none".
fn a_bind_mount_without_the_type_bind_works() {
    for kind in [json!("none"), json!(""), json!(null)] {
        let container = script(with_bind(&[]), "cat /mnt/file").edit(|spec| {
            let mount = spec["mounts"].as_array_mut().unwrap().last_mut().unwrap();
            mount["type"] = kind.clone();
            if kind.is_null() {
                mount.as_object_mut().unwrap().remove("type");
            }
        });
        assert_eq!(container.says(), "from outside", "{kind}");
    }
}

fn a_bind_mount_writes_through() {
    let container = script(with_bind(&["rw"]), "echo written >/mnt/new");
    container.says();
    assert_eq!(fs::read_to_string(container.beside("source/new")).unwrap(), "written\n");
}

fn a_read_only_bind_mount_cannot_be_written() {
    let container = script(with_bind(&["ro"]), "touch /mnt/new");
    let output = container.run();
    assert!(output.stderr.contains("Read-only file system"), "{output:#?}");
    assert!(!container.beside("source/new").exists());
}

fn a_bind_mount_leaves_the_source_as_it_was() {
    let container = with_bind(&["ro", "nosuid", "noexec"]);
    container.says();
    fs::write(container.beside("source/new"), "still writable").unwrap();
}

/// /proc/self/mountinfo inside, of /mnt and below, when /mnt is a bind of a tree of two tmpfs mounts.
///
/// The tree is made inside the container: its first mounts make it, a bind mount of the finished rootfs would not see
/// it. /sys and /sys/fs/cgroup are such a tree on every host.
fn below(options: &[&str]) -> Container {
    Container::new().edit(|spec| {
        let mount = json!({ "destination": "/mnt", "type": "bind", "source": "/sys", "options": options });
        add_mount(spec, mount);
    })
}

fn rbind_takes_the_mounts_below_and_bind_does_not() {
    let count = "grep -c ' /mnt/fs/cgroup ' /proc/self/mountinfo; true";
    assert_ne!(script(below(&["rbind"]), count).says(), "0");
    assert_eq!(script(below(&["bind"]), count).says(), "0");
}

fn ro_leaves_mounts_below_writable_and_rro_does_not() {
    assert!(mountinfo(below(&["rbind", "ro"]), "/mnt").has("ro"));
    assert!(mountinfo(below(&["rbind", "ro"]), "/mnt/fs/cgroup").has("rw"));
    assert!(mountinfo(below(&["rbind", "rro"]), "/mnt").has("ro"));
    assert!(mountinfo(below(&["rbind", "rro"]), "/mnt/fs/cgroup").has("ro"));
}

fn every_flag_of_mount_attributes_shows() {
    for flag in ["ro", "nosuid", "nodev", "noexec", "nodiratime"] {
        assert!(mountinfo(with_bind(&[flag]), "/mnt").has(flag), "{flag}");
        let new = Container::new().edit(|spec| add_mount(spec, tmpfs("/mnt", &[flag])));
        assert!(mountinfo(new, "/mnt").has(flag), "{flag}");
    }
}

fn every_clearing_option_clears() -> Outcome {
    need_other_than("crun", "keeps the first")?;
    for (set, clear) in
        [("ro", "rw"), ("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec"), ("nodiratime", "diratime")]
    {
        let line = mountinfo(with_bind(&[set, clear]), "/mnt");
        assert!(!line.has(set), "{clear}: {line:?}");
    }
    need_other_than("runc", "takes `defaults` for an option of the file system")?;
    let line = mountinfo(with_bind(&["defaults"]), "/mnt");
    assert!(line.has("rw"), "{line:?}");
    Ok(())
}

fn every_atime_option_shows() {
    for (option, shows) in [("noatime", "noatime"), ("relatime", "relatime")] {
        assert!(mountinfo(with_bind(&[option]), "/mnt").has(shows), "{option}");
    }
    let strict =
        mountinfo(Container::new().edit(|spec| add_mount(spec, tmpfs("/mnt", &["strictatime"]))), "/mnt");
    assert!(!strict.has("relatime") && !strict.has("noatime"), "{strict:?}");
}

/// A container that shows at /mnt, with these options, another of its mounts, which `has` those.
fn with_bind_of_a_mount(has: &[&str], options: &[&str]) -> Container {
    let container = Container::new();
    let source = container.beside("source");
    fs::create_dir(&source).unwrap();
    let shown = container.bundle.rootfs().join("first");
    container.edit(|spec| {
        add_mount(spec, bind(&source, "/first", has));
        add_mount(spec, bind(&shown, "/mnt", options));
    })
}

fn a_bind_mount_has_the_attributes_that_are_named_and_no_others() -> Outcome {
    need_other_than("crun", "sees below such a mount, and with ro keeps what is not named")?;
    for (options, shows) in [
        (&["nodev"][..], &["rw", "nodev", "noatime"][..]),
        (&["nosuid", "exec"], &["rw", "nosuid", "noatime"]),
        (&["noexec", "relatime"], &["rw", "noexec", "relatime"]),
        (&["nodiratime"], &["rw", "nodiratime", "relatime"]),
        (&["strictatime"], &["rw"]),
    ] {
        let container = with_bind_of_a_mount(&["ro", "noexec", "noatime"], options);
        assert_eq!(mountinfo(container, "/mnt").attributes, shows, "{options:?}");
    }
    for options in [["dev"], ["rw"], ["atime"]] {
        let container = with_bind_of_a_mount(&["ro", "noexec", "noatime"], &options);
        assert_eq!(mountinfo(container, "/mnt").attributes, ["rw", "noatime"], "{options:?}");
    }
    Ok(())
}

fn a_bind_mount_without_attributes_has_those_of_its_source() -> Outcome {
    need_other_than("crun", "sees below such a mount")?;
    let container = with_bind_of_a_mount(&["ro", "nodev", "nodiratime"], &["rprivate"]);
    assert_eq!(mountinfo(container, "/mnt").attributes, ["ro", "nodev", "nodiratime", "relatime"]);
    Ok(())
}

fn a_destination_as_the_host_sees_it_is_understood() -> Outcome {
    need_other_than("crun", "mounts below a copy of the host's path")?;
    let container = Container::new();
    let at = container.bundle.rootfs().join("mnt/new");
    let line =
        mountinfo(container.edit(|spec| add_mount(spec, tmpfs(at.to_str().unwrap(), &[]))), "/mnt/new");
    assert_eq!(line.fstype, "tmpfs");
    Ok(())
}

fn recursive_options_reach_the_mounts_below() -> Outcome {
    need_other_than("crun", "knows fewer")?;
    for (option, shows) in [
        ("rro", "ro"),
        ("rnosuid", "nosuid"),
        ("rnodev", "nodev"),
        ("rnoexec", "noexec"),
        ("rnoatime", "noatime"),
    ] {
        let line = mountinfo(below(&["rbind", option]), "/mnt/fs/cgroup");
        assert!(line.has(shows), "{option}: {line:?}");
    }

    for (options, gone) in [
        (["rbind", "rro", "rrw"], "ro"),
        (["rbind", "rnosuid", "rsuid"], "nosuid"),
        (["rbind", "rnodev", "rdev"], "nodev"),
        (["rbind", "rnoexec", "rexec"], "noexec"),
    ] {
        let line = mountinfo(below(&options), "/mnt/fs/cgroup");
        assert!(!line.has(gone), "{options:?}: {line:?}");
    }
    Ok(())
}

fn later_options_win() -> Outcome {
    need_other_than("crun", "keeps the first")?;
    assert!(mountinfo(with_bind(&["ro", "rw"]), "/mnt").has("rw"));
    assert!(mountinfo(with_bind(&["rw", "ro"]), "/mnt").has("ro"));
    Ok(())
}

fn nosymfollow_shows() -> Outcome {
    need_other_than("crun", "does not know it")?;
    assert!(mountinfo(with_bind(&["nosymfollow"]), "/mnt").has("nosymfollow"));
    let new = Container::new().edit(|spec| add_mount(spec, tmpfs("/mnt", &["nosymfollow"])));
    assert!(mountinfo(new, "/mnt").has("nosymfollow"));
    assert!(!mountinfo(with_bind(&["nosymfollow", "symfollow"]), "/mnt").has("nosymfollow"));
    Ok(())
}

fn a_tmpfs_takes_its_size_and_mode() {
    let with =
        || Container::new().edit(|spec| add_mount(spec, tmpfs("/mnt", &["size=128k", "mode=1733", "uid=7"])));
    assert_eq!(script(with(), "stat -c '%a %u' /mnt").says(), "1733 7");
    let line = mountinfo(with(), "/mnt");
    assert!(line.fstype == "tmpfs" && line.superblock.contains(&"size=128k".to_owned()), "{line:?}");
    let full = script(with(), "dd if=/dev/zero of=/mnt/file bs=64k count=3").run();
    assert!(full.stderr.contains("No space left"), "{full:#?}");
}

fn a_tmpfs_with_tmpcopyup_keeps_what_was_there() {
    let container = Container::with_script("ls -1 /home /home/dir; cat /home/file; touch /home/new")
        .with_file("home/file", 0o640, "kept\n")
        .edit(|spec| add_mount(spec, tmpfs("/home", &["tmpcopyup"])));
    fs::create_dir(container.bundle.rootfs().join("home/dir")).unwrap();
    fs::write(container.bundle.rootfs().join("home/dir/deep"), "").unwrap();
    assert_eq!(container.says(), "/home:\ndir\nfile\n\n/home/dir:\ndeep\nkept");
    assert!(!container.bundle.rootfs().join("home/new").exists());
}

fn a_tmpfs_on_a_missing_directory_has_the_usual_mode() {
    let container =
        Container::with_args(["stat", "-c", "%a", "/new"]).edit(|spec| add_mount(spec, tmpfs("/new", &[])));
    let mode = container.says();
    // The kernel's own default is 1777; runc and crun take that of the directory they have made.
    assert!(mode == "755" || mode == "1777", "{mode}");
}

fn propagation_options_show() -> Outcome {
    need_other_than("crun", "makes all mounts private afterwards")?;
    for (option, shows) in PROPAGATIONS {
        let line = mountinfo(with_bind(&[option]), "/mnt");
        let right =
            if shows.is_empty() { line.propagation.is_empty() } else { line.propagation.contains(shows) };
        assert!(right, "{option}: {line:?}");
    }
    Ok(())
}

fn a_private_mount_does_not_propagate() {
    let container = Container::with_script("mount -t tmpfs t /mnt && grep -c ' /mnt ' /proc/self/mountinfo")
        .edit(|spec| {
            let admin = json!(["CAP_SYS_ADMIN"]);
            spec["process"]["capabilities"] =
                json!({ "bounding": admin, "permitted": admin, "effective": admin });
        });
    fs::create_dir(container.bundle.rootfs().join("mnt")).unwrap();
    assert_eq!(container.says(), "1");
    container.leaves_nothing();
}

fn a_devpts_has_its_own_terminals() {
    let said = Container::with_script("ls /dev/pts; stat -c %a /dev/pts/ptmx; readlink /dev/ptmx").says();
    assert!(said.starts_with("ptmx\n666\n"), "{said}");
    assert!(said.ends_with("pts/ptmx"), "{said}");
}

fn a_sysfs_is_read_only() {
    let line = mountinfo(Container::new(), "/sys");
    assert!(line.has("ro") && line.has("nosuid") && line.has("nodev") && line.has("noexec"), "{line:?}");
}

fn a_mqueue_can_be_used() {
    assert_eq!(Container::with_script("touch /dev/mqueue/q && ls /dev/mqueue").says(), "q");
}

fn the_cgroup_mount_shows_the_cgroup() {
    let container = Container::with_script("cat /sys/fs/cgroup/cgroup.procs; cat /sys/fs/cgroup/cgroup.type");
    let said = container.says();
    assert!(said.starts_with("1\n") && said.ends_with("domain"), "{said}");
    assert!(mountinfo(Container::new(), "/sys/fs/cgroup").has("ro"));
}

fn the_cgroup_mount_without_a_namespace_is_cgroup2_and_read_only() {
    let container = Container::new().edit(|spec| remove_namespace(spec, "cgroup"));
    let line = mountinfo(container, "/sys/fs/cgroup");
    assert!(line.fstype == "cgroup2" && line.has("ro"), "{line:?}");
}

fn a_second_proc_can_be_mounted_elsewhere() {
    let container = Container::with_args(["cat", "/mnt/self/comm"]).edit(|spec| {
        add_mount(
            spec,
            json!({ "destination": "/mnt", "type": "proc", "source": "proc", "options": ["nosuid"] }),
        );
    });
    assert_eq!(container.says(), "cat");
}

/// config.md does not forbid it; the runtimes differ. Whatever happens, nothing remains.
fn a_mount_over_the_root_is_refused_or_works() {
    let container = Container::new().edit(|spec| add_mount(spec, tmpfs("/", &[])));
    let output = container.run();
    assert!(output.code() != 0 || output.stderr.is_empty(), "{output:#?}");
    container.leaves_nothing();
}

/// The program would be below what is mounted there, and whoever joins the container above it.
fn a_link_to_the_root_is_no_target() -> Outcome {
    need_other_than("crun", "mounts it")?;
    for mount in [tmpfs("/link", &[]), bind("source".as_ref(), "/link", &[])] {
        let container = Container::new().edit(|spec| add_mount(spec, mount));
        fs::create_dir(container.bundle.path().join("source")).unwrap();
        symlink("/", container.bundle.rootfs().join("link")).unwrap();
        let output = container.run_fails_with("/link");
        if is_own() {
            assert!(output.stderr.contains("config.json: /mounts/7/destination: "), "{output:#?}");
            assert!(output.stderr.contains("(the path resolves to the container's root"), "{output:#?}");
        }
    }
    Ok(())
}

fn a_bind_mount_of_a_file_over_a_directory_fails() {
    let container = Container::new();
    let source = container.beside("file");
    fs::write(&source, "").unwrap();
    let container = container.edit(|spec| add_mount(spec, bind(&source, "/home", &[])));
    container.run_with(NO_OPTIONS).fails_with_any_case("directory");
    container.leaves_nothing();
}

fn a_bind_mount_of_a_directory_over_a_file_fails() {
    let container = with_bind(&[]).edit(|spec| {
        spec["mounts"].as_array_mut().unwrap().last_mut().unwrap()["destination"] = json!("/etc/passwd");
    });
    container.run_with(NO_OPTIONS).fails_with_any_case("not a directory");
    container.leaves_nothing();
}

fn a_missing_source_fails_and_is_named() {
    let container = Container::new().edit(|spec| add_mount(spec, bind("/not/there".as_ref(), "/mnt", &[])));
    let output = container.run_with(NO_OPTIONS).fails_with_any_case("no such file or directory");
    assert!(output.stderr.contains("/not/there"), "{output:#?}");
    container.leaves_nothing();
    if is_own() {
        assert!(output.stderr.contains("/mounts/7"), "{output:#?}");
    }
}

fn an_unknown_file_system_fails_and_is_named() {
    let container = Container::new().edit(|spec| {
        add_mount(spec, json!({ "destination": "/mnt", "type": "nosuchfs", "source": "x" }));
    });
    let output = container.run_fails_with("");
    if is_own() {
        assert!(output.stderr.contains("/mounts/7") && output.stderr.contains("nosuchfs"), "{output:#?}");
    }
}

fn an_unknown_option_of_a_file_system_fails() {
    let container = Container::new().edit(|spec| add_mount(spec, tmpfs("/mnt", &["nosuchoption=1"])));
    let output = container.run_fails_with("");
    if is_own() {
        assert!(output.stderr.contains("/mounts/7") && output.stderr.contains("nosuchoption"), "{output:#?}");
    }
}

fn a_mount_with_many_options_works() {
    let all = [
        "nosuid",
        "nodev",
        "noexec",
        "noatime",
        "nodiratime",
        "size=64k",
        "nr_inodes=10",
        "mode=700",
        "uid=1",
        "gid=2",
    ];
    let container =
        Container::with_script("stat -c '%a %u %g' /mnt").edit(|spec| add_mount(spec, tmpfs("/mnt", &all)));
    assert_eq!(container.says(), "700 1 2");
}

fn two_hundred_mounts_work() {
    let container = Container::with_script("grep -c ' /mnt/' /proc/self/mountinfo");
    let source = container.beside("source");
    fs::create_dir(&source).unwrap();
    let container = container.edit(|spec| {
        for i in 0..200 {
            add_mount(spec, bind(&source, &format!("/mnt/{i}"), &["ro", "nosuid"]));
        }
    });
    assert_eq!(container.says(), "200");
    container.leaves_nothing();
}

/// CVE-2019-18837, CVE-2024-45310: an absolute link in the image is followed as the container would.
fn a_target_through_a_symlink_stays_inside() {
    let outside = Container::new();
    let target = outside.beside("target");
    fs::create_dir(&target).unwrap();
    let container = with_bind(&[]).edit(|spec| {
        spec["mounts"].as_array_mut().unwrap().last_mut().unwrap()["destination"] = json!("/link/new");
        spec["process"]["args"] = json!(["true"]);
    });
    symlink(&target, container.bundle.rootfs().join("link")).unwrap();
    let _ = container.run();
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "something was made outside");
    container.leaves_nothing();
}

fn a_target_with_dots_stays_inside() {
    let container = with_bind(&[]).edit(|spec| {
        spec["mounts"].as_array_mut().unwrap().last_mut().unwrap()["destination"] =
            json!("/../../../../new/place");
        spec["process"]["args"] = json!(["cat", "/new/place/file"]);
    });
    let output = container.run();
    assert!(output.stdout == "from outside\n" || output.code() != 0, "{output:#?}");
    assert!(!fs::exists("/new").unwrap());
}

fn a_source_that_is_a_socket_or_pipe_can_be_bound() {
    let container = Container::with_args(["stat", "-c", "%F", "/run.sock"]);
    let path = container.beside("sock");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(container.edit(|spec| add_mount(spec, bind(&path, "/run.sock", &[]))).says(), "socket");
}

fn an_empty_list_of_mounts_works() {
    if kind() == "crun" || kind() == "runc" {
        return; // Both need a /proc.
    }
    let container = Container::with_script("ls /proc | wc -l").edit(|spec| {
        spec["mounts"] = json!([]);
        spec["linux"]["maskedPaths"] = json!([]);
        spec["linux"]["readonlyPaths"] = json!([]);
    });
    assert_eq!(container.says(), "0");
}

/// One option can be longer than fsconfig(2) takes: images have a hundred layers.
fn an_overlay_with_a_long_list_of_layers_is_mounted() -> Outcome {
    let has_overlay = fs::read_to_string("/proc/filesystems").unwrap().contains("\toverlay\n");
    need(has_overlay, "overlayfs")?;
    let container = Container::with_script("ls /mnt; touch /mnt/new");
    let layer = |i: u32| {
        let path = container.beside(&format!("{}-{i}", "layer".repeat(20)));
        fs::create_dir(&path).unwrap();
        fs::write(path.join(i.to_string()), "").unwrap();
        path.to_str().unwrap().to_owned()
    };
    let lower = format!("lowerdir={}", (0..5).map(layer).collect::<Vec<_>>().join(":"));
    assert!(lower.len() > 256);
    let [upper, work] = ["upper", "work"].map(|name| {
        let path = container.beside(name);
        fs::create_dir(&path).unwrap();
        format!("{name}dir={}", path.display())
    });
    let container = container.edit(|spec| {
        let options = json!([lower, upper, work, "nosuid", "noatime", "unbindable"]);
        add_mount(
            spec,
            json!({ "destination": "/mnt", "type": "overlay", "source": "overlay", "options": options }),
        );
    });
    assert_eq!(container.says(), "0\n1\n2\n3\n4");
    assert!(container.beside("upper/new").exists());
    let line = mountinfo(container, "/mnt");
    assert!(line.fstype == "overlay" && line.has("nosuid") && line.has("noatime"), "{line:?}");
    need_other_than("crun", "sets no propagation then")?;
    assert_eq!(line.propagation, "unbindable");
    Ok(())
}

/// However long the option is: from inside the image, a link would lead a relative path to the host's root.
fn layers_of_an_overlay_are_not_looked_up_in_the_image() -> Outcome {
    let has_overlay = fs::read_to_string("/proc/filesystems").unwrap().contains("\toverlay\n");
    need(has_overlay, "overlayfs")?;
    for length in [0, 130] {
        let container = Container::with_script("cat /mnt/file");
        let secret = container.beside("secret");
        fs::create_dir(&secret).unwrap();
        fs::write(secret.join("file"), "the host's").unwrap();
        let inside = container.bundle.path().join("rootfs/mnt");
        fs::create_dir_all(inside.join("m")).unwrap();
        symlink(&secret, inside.join("l")).unwrap();
        let lower = format!("lowerdir={}l:m", "./".repeat(length));
        let container = container.edit(|spec| {
            let options = json!([lower, "ro"]);
            add_mount(
                spec,
                json!({ "destination": "/mnt", "type": "overlay", "source": "overlay", "options": options }),
            );
        });
        let output = container.run();
        assert!(output.code() != 0 && !output.stdout.contains("the host's"), "{output:#?}");
        container.leaves_nothing();
    }
    Ok(())
}

fn a_relative_target_is_below_the_root_and_warned_of() -> Outcome {
    need_other_than("crun", "says nothing")?;
    let container =
        Container::with_script("df /mnt | tail -n 1").edit(|spec| add_mount(spec, tmpfs("mnt", &[])));
    let output = container.run_with(NO_OPTIONS).succeeds();
    assert!(output.stdout.trim_end().ends_with("/mnt"), "{output:?}");
    need_own()?;
    assert!(output.stderr.contains("/mounts/7/destination: "), "{output:?}");
    assert!(output.stderr.contains("is deprecated, using it relative to /"), "{output:?}");
    Ok(())
}

fn one_option_can_hold_several() {
    let with = || Container::new().edit(|spec| add_mount(spec, tmpfs("/mnt", &["size=64k,mode=700"])));
    assert_eq!(script(with(), "stat -c %a /mnt").says(), "700");
    let line = mountinfo(with(), "/mnt");
    assert!(line.superblock.contains(&"size=64k".to_owned()), "{line:?}");
}

/// The kernel's own mode where there is nothing to take it from.
fn a_tmpfs_takes_the_mode_of_what_it_covers_or_is_everybodys() -> Outcome {
    need_own()?;
    let container = Container::with_script("stat -c '%n %a' /new/deep /home /tmp").edit(|spec| {
        for destination in ["/new/deep", "/home", "/tmp"] {
            add_mount(spec, tmpfs(destination, &[]));
        }
    });
    let home = container.bundle.rootfs().join("home");
    fs::set_permissions(home, fs::Permissions::from_mode(0o711)).unwrap();
    assert_eq!(container.says(), "/new/deep 1777\n/home 711\n/tmp 1777");
    Ok(())
}

fn a_dev_that_is_recursively_read_only_still_has_its_devices() -> Outcome {
    need_other_than("runc", "cannot fill it")?;
    need_other_than("crun", "cannot fill it")?;
    let container = Container::with_script(
        "echo x >/dev/null && stat -c %F /dev/zero && readlink /dev/fd; touch /dev/new 2>&1; true",
    )
    .edit(|spec| {
        let dev = |mount: &&mut Value| mount["destination"] == "/dev";
        let dev = spec["mounts"].as_array_mut().unwrap().iter_mut().find(dev).unwrap();
        dev["options"].as_array_mut().unwrap().push(json!("rro"));
    });
    let said = container.says();
    assert!(said.starts_with("character special file\n/proc/self/fd\n"), "{said}");
    assert!(said.contains("Read-only file system"), "{said}");
    Ok(())
}
