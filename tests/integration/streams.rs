//! Standard streams that are device nodes of the host: the container gets its own nodes instead, so that it
//! cannot change the mode or owner of the host's.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mkfifoat, mknodat};
use serde_json::json;

use crate::support::bundle::{add_mount, bind, remove_namespace};
use crate::support::container::NO_OPTIONS;
use crate::support::host::{need_device_nodes, need_other_than, need_own};
use crate::support::suite::suite;
use crate::support::user::need_user_namespaces;
use crate::support::weakened::{need_weakened, without};
use crate::support::{Container, Invocation, Outcome};

suite![
    the_null_device_of_the_caller_is_out_of_reach_for_run,
    the_null_device_of_the_caller_is_out_of_reach_for_run_detached,
    the_null_device_of_the_caller_is_out_of_reach_for_create,
    the_null_device_of_the_caller_is_out_of_reach_for_exec,
    the_null_device_of_the_caller_is_out_of_reach_for_a_hook_in_the_container,
    without_streams_of_its_own_a_container_reaches_the_null_device_of_the_caller,
    other_devices_that_every_container_has_are_its_own,
    streams_keep_how_they_were_opened,
    a_container_without_a_null_device_has_a_null_stream_of_its_own,
    what_else_has_the_name_of_the_null_device_is_not_opened,
    a_container_that_has_replaced_its_null_device_gets_none_of_the_hosts_by_exec,
    without_a_mount_namespace_a_null_stream_is_the_containers_too,
    a_null_stream_works_in_a_user_namespace,
    a_null_stream_works_for_an_ordinary_user,
    a_file_of_the_caller_stays_what_it_is,
];

/// A node of a device beside the container, which stands for the host's.
fn node(container: &Container, name: &str, (major, minor): (u32, u32)) -> PathBuf {
    let path = container.beside(name);
    let mode = Mode::from_raw_mode(0o666);
    mknodat(CWD, &path, FileType::CharacterDevice, mode, libc::makedev(major, minor)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    path
}

fn null(container: &Container) -> PathBuf {
    node(container, "null", (1, 3))
}

/// The same call with all three standard streams from this file.
fn with_streams(call: Invocation, path: &Path) -> Invocation {
    let path = path.display();
    call.after_shell(&format!("exec <{path} >{path} 2>{path};"))
}

/// What a container that may do so does to its standard streams; the file says that it has tried.
const ATTACK: &str =
    "cd /proc/$$/fd; chmod 600 0 1 2; seen=$(stat -L -c %t:%T 0 1 2); echo \"$seen\" >/tmp/seen";

#[track_caller]
fn was_attacked_in_vain(container: &Container, device: &Path) {
    let seen = fs::read_to_string(container.bundle.rootfs().join("tmp/seen")).unwrap();
    assert_eq!(seen, "1:3\n1:3\n1:3\n");
    assert_eq!(fs::metadata(device).unwrap().mode() & 0o7777, 0o666);
}

/// Which inode a stream of the container's process is.
fn stream(container: &Container, number: u32) -> fs::Metadata {
    fs::metadata(format!("/proc/{}/fd/{number}", container.pid())).unwrap()
}

/// All three streams are null devices, but not this one.
#[track_caller]
fn are_null_devices_other_than(container: &Container, device: &Path) {
    let outside = fs::metadata(device).unwrap();
    for number in 0..3 {
        let inside = stream(container, number);
        assert_eq!((inside.file_type().is_char_device(), inside.rdev()), (true, libc::makedev(1, 3)));
        assert_ne!((inside.dev(), inside.ino()), (outside.dev(), outside.ino()), "stream {number}");
    }
}

fn the_null_device_of_the_caller_is_out_of_reach_for_run() -> Outcome {
    need_device_nodes()?;
    let container = Container::with_script(ATTACK);
    let null = null(&container);
    with_streams(container.run_with(NO_OPTIONS), &null).succeeds();
    was_attacked_in_vain(&container, &null);
    Ok(())
}

fn the_null_device_of_the_caller_is_out_of_reach_for_run_detached() -> Outcome {
    need_device_nodes()?;
    let container = Container::with_script(&format!("{ATTACK}; exit"));
    let null = null(&container);
    with_streams(container.run_with(["--detach"]), &null).succeeds();
    container.wait_for("stopped");
    was_attacked_in_vain(&container, &null);
    Ok(())
}

fn the_null_device_of_the_caller_is_out_of_reach_for_create() -> Outcome {
    need_device_nodes()?;
    let container = Container::with_script(ATTACK);
    let null = null(&container);
    with_streams(container.create_with(NO_OPTIONS), &null).succeeds();
    are_null_devices_other_than(&container, &null);
    container.start();
    container.wait_for("stopped");
    was_attacked_in_vain(&container, &null);
    Ok(())
}

fn the_null_device_of_the_caller_is_out_of_reach_for_exec() -> Outcome {
    need_device_nodes()?;
    need_other_than("runc", "hands them over to exec as they are")?;
    need_other_than("crun", "hands them over to exec as they are")?;
    let container = Container::idling();
    let null = null(&container);
    with_streams(container.exec(["sh", "-c", ATTACK]), &null).succeeds();
    was_attacked_in_vain(&container, &null);
    Ok(())
}

/// It has no standard streams of the caller's, but what an annotation names.
fn the_null_device_of_the_caller_is_out_of_reach_for_a_hook_in_the_container() -> Outcome {
    need_device_nodes()?;
    need_own()?;
    let container = Container::new();
    let null = null(&container);
    let container = container.edit(|spec| {
        let attack = "chmod 600 /proc/self/fd/1; chmod 600 /proc/self/fd/2; echo tried >/tmp/seen";
        spec["hooks"] = json!({ "startContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", attack], "env": ["PATH=/bin"] }] });
        spec["annotations"] = json!({ "run.oci.hooks.stdout": (null), "run.oci.hooks.stderr": (null) });
    });
    container.says();
    assert_eq!(fs::read_to_string(container.bundle.rootfs().join("tmp/seen")).unwrap(), "tried\n");
    assert_eq!(fs::metadata(&null).unwrap().mode() & 0o7777, 0o666);
    Ok(())
}

/// Or the tests above would prove nothing.
fn without_streams_of_its_own_a_container_reaches_the_null_device_of_the_caller() -> Outcome {
    need_weakened()?;
    let container = Container::with_script(ATTACK);
    let null = null(&container);
    without("null-stream", || with_streams(container.run_with(NO_OPTIONS), &null).succeeds());
    assert_eq!(fs::metadata(&null).unwrap().mode() & 0o7777, 0o600);
    Ok(())
}

fn other_devices_that_every_container_has_are_its_own() -> Outcome {
    need_device_nodes()?;
    need_own()?;
    for (name, numbers) in [("zero", (1, 5)), ("full", (1, 7)), ("random", (1, 8)), ("urandom", (1, 9))] {
        let container = Container::with_script("chmod 600 /proc/self/fd/0; stat -L -c %t:%T /proc/self/fd/0");
        let node = node(&container, name, numbers);
        let call = container.run_with(NO_OPTIONS).stdin(fs::File::open(&node).unwrap());
        assert_eq!(call.succeeds().stdout, format!("{}:{}\n", numbers.0, numbers.1));
        assert_eq!(fs::metadata(&node).unwrap().mode() & 0o7777, 0o666, "{name}");
    }
    Ok(())
}

fn streams_keep_how_they_were_opened() -> Outcome {
    need_device_nodes()?;
    need_own()?;
    let container =
        Container::with_script("cd /proc/$$/fdinfo; seen=$(grep -h flags 0 1 2); echo \"$seen\" >/tmp/seen");
    let null = null(&container).display().to_string();
    let call = container.run_with(NO_OPTIONS);
    call.after_shell(&format!("exec <{null} >>{null} 2<>{null};")).succeeds();
    let seen = fs::read_to_string(container.bundle.rootfs().join("tmp/seen")).unwrap();
    let flags = |line: &str| i32::from_str_radix(line.strip_prefix("flags:").unwrap().trim(), 8).unwrap();
    let flags: Vec<_> = seen.lines().map(|line| flags(line) & (libc::O_ACCMODE | libc::O_APPEND)).collect();
    assert_eq!(flags, [libc::O_RDONLY, libc::O_WRONLY | libc::O_APPEND, libc::O_RDWR]);
    Ok(())
}

/// A /dev of its own, in which the runtime makes nothing.
fn with_own_dev(container: Container) -> (Container, PathBuf) {
    let dev = container.beside("dev");
    fs::create_dir(&dev).unwrap();
    let container = container.edit(|spec| {
        let is_dev = |mount: &serde_json::Value| mount["destination"].as_str().unwrap().starts_with("/dev");
        spec["mounts"].as_array_mut().unwrap().retain(|mount| !is_dev(mount));
        add_mount(spec, bind(&dev, "/dev", &[]));
        // To mask a file takes a null device.
        spec["linux"]["maskedPaths"] = json!([]);
    });
    (container, dev)
}

fn a_container_without_a_null_device_has_a_null_stream_of_its_own() -> Outcome {
    need_device_nodes()?;
    need_other_than("crun", "refuses it")?;
    let (container, _) = with_own_dev(Container::with_args(["sleep", "1000"]));
    let null = null(&container);
    with_streams(container.run_with(["--detach"]), &null).succeeds();
    if crate::support::host::is_own() {
        are_null_devices_other_than(&container, &null);
    }
    Ok(())
}

/// Neither waits for the other end of a fifo nor takes a file for a device.
fn what_else_has_the_name_of_the_null_device_is_not_opened() -> Outcome {
    need_device_nodes()?;
    need_own()?;
    for make in [
        |path: &Path| fs::write(path, "text").unwrap(),
        |path: &Path| mkfifoat(CWD, path, Mode::RUSR).unwrap(),
        |path: &Path| fs::create_dir(path).unwrap(),
        |path: &Path| std::os::unix::fs::symlink("/proc/self/fd/0", path).unwrap(),
        |path: &Path| std::os::unix::fs::symlink("null", path).unwrap(),
    ] {
        let (container, dev) = with_own_dev(Container::with_args(["sleep", "1000"]));
        make(&dev.join("null"));
        let null = null(&container);
        with_streams(container.run_with(["--detach"]), &null).succeeds();
        are_null_devices_other_than(&container, &null);
    }
    Ok(())
}

fn a_container_that_has_replaced_its_null_device_gets_none_of_the_hosts_by_exec() -> Outcome {
    need_device_nodes()?;
    need_own()?;
    let container = Container::idling();
    let null = null(&container);
    for replace in ["rm /dev/null", "touch /dev/null", "rm /dev/null; ln -s /proc/self/fd/0 /dev/null"] {
        container.exec(["sh", "-c", replace]).succeeds();
        with_streams(container.exec(["sh", "-c", ATTACK]), &null).succeeds();
        was_attacked_in_vain(&container, &null);
    }
    Ok(())
}

fn without_a_mount_namespace_a_null_stream_is_the_containers_too() -> Outcome {
    need_device_nodes()?;
    need_own()?;
    for has_node in [true, false] {
        let container = Container::with_args(["sleep", "1000"]).edit(|spec| {
            remove_namespace(spec, "mount");
            spec["mounts"] = json!([]);
            for field in ["maskedPaths", "readonlyPaths"] {
                spec["linux"].as_object_mut().unwrap().remove(field);
            }
        });
        let null = null(&container);
        let inside = container.bundle.rootfs().join("dev/null");
        if has_node {
            mknodat(CWD, &inside, FileType::CharacterDevice, Mode::from_raw_mode(0o666), libc::makedev(1, 3))
                .unwrap();
        }
        with_streams(container.run_with(["--detach"]), &null).succeeds();
        are_null_devices_other_than(&container, &null);
        assert_eq!(
            stream(&container, 1).ino() == fs::metadata(&inside).map_or(0, |node| node.ino()),
            has_node
        );
        let added = container.exec_with(["--detach", "--pid-file", "pid"], ["sleep", "1001"]);
        with_streams(added.current_dir(&container.bundle.home), &null).succeeds();
        let pid = fs::read_to_string(container.beside("pid")).unwrap();
        let seen = fs::metadata(format!("/proc/{}/fd/0", pid.trim())).unwrap();
        assert_eq!(seen.rdev(), libc::makedev(1, 3));
        assert_ne!(seen.ino(), fs::metadata(&null).unwrap().ino());
    }
    Ok(())
}

fn a_null_stream_works_in_a_user_namespace() -> Outcome {
    need_device_nodes()?;
    let container = Container::with_script(ATTACK).in_user_namespace();
    let null = null(&container);
    with_streams(container.run_with(NO_OPTIONS), &null).succeeds();
    was_attacked_in_vain(&container, &null);
    Ok(())
}

fn a_null_stream_works_for_an_ordinary_user() -> Outcome {
    need_user_namespaces()?;
    let container =
        Container::with_script("read line; echo to-stderr >&2; stat -L -c %t:%T /proc/self/fd/0").of_user();
    let output = container.run_with(NO_OPTIONS).succeeds();
    assert_eq!((&*output.stdout, &*output.stderr), ("1:3\n", "to-stderr\n"));
    Ok(())
}

/// What the caller hands over is given.
fn a_file_of_the_caller_stays_what_it_is() {
    let container = Container::with_script("cat; echo written");
    let (input, output) = (container.beside("in"), container.beside("out"));
    fs::write(&input, "read\n").unwrap();
    let call = container.run_with(NO_OPTIONS);
    call.after_shell(&format!("exec <{} >{};", input.display(), output.display())).succeeds();
    assert_eq!(fs::read_to_string(output).unwrap(), "read\nwritten\n");
}
