//! Masked and read-only paths, and the console: on what was mounted, whatever somebody has done to the names
//! since.

use serde_json::json;

use super::attack::{replace, without_mounts_at};
use crate::support::bundle::add_mount;
use crate::support::host::need_own;
use crate::support::suite::suite;
use crate::support::{Container, Outcome};

suite![
    proc_and_sys_are_hidden_where_they_were_mounted,
    a_proc_that_is_taken_away_is_no_reason_to_hide_nothing,
    what_a_hook_mounts_on_proc_is_hidden_too,
    a_console_on_procfs_is_refused,
];

/// The rootfs, or a volume in it, is another container's, too, which moves directories: after the mounts,
/// before the paths.
fn with_a_swap(container: Container, script: &str) -> Container {
    let rootfs = container.bundle.rootfs();
    let script = format!("cat >/dev/null; cd {} && {script}", rootfs.display());
    container.edit(|spec| {
        let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] });
        spec["hooks"] = json!({ "createRuntime": [hook] });
    })
}

fn proc_and_sys_are_hidden_where_they_were_mounted() -> Outcome {
    need_own()?;
    for (name, masked, read_only) in [("proc", "keys", "sys"), ("sys", "kernel", "devices")] {
        for made in ["mkdir", "ln -s tmp"] {
            for in_user_namespace in [false, true] {
                let container = Container::with_script("cat /*/self/mountinfo 2>/dev/null");
                let container =
                    with_a_swap(container, &format!("mv {name} moved && {made} {name}")).edit(|spec| {
                        spec["linux"]["maskedPaths"] = json!([format!("/{name}/{masked}")]);
                        spec["linux"]["readonlyPaths"] = json!([format!("/{name}/{read_only}")]);
                    });
                let container = if in_user_namespace { container.in_user_namespace() } else { container };
                let seen = container.says();
                let mounts: Vec<_> = seen.lines().map(|line| line.split(' ').collect::<Vec<_>>()).collect();
                for path in [masked, read_only] {
                    let mount = mounts.iter().find(|mount| mount[4] == format!("/moved/{path}"));
                    let mount = mount.unwrap_or_else(|| panic!("{name}/{path} was left as it is: {seen}"));
                    assert!(path == "keys" || mount[5].starts_with("ro"), "{path}: {mount:?}");
                }
            }
        }
    }
    Ok(())
}

/// To remove the directory unmounts what is on it elsewhere; rmdir(2) since Linux 3.18.
fn a_proc_that_is_taken_away_is_no_reason_to_hide_nothing() -> Outcome {
    need_own()?;
    let container = with_a_swap(Container::with_script("ls /proc"), "rmdir proc && mkdir proc");
    container.run_fails_with("/linux/readonlyPaths/0: make \"/proc/bus\" read-only");
    Ok(())
}

fn what_a_hook_mounts_on_proc_is_hidden_too() {
    let container = Container::with_script("cat /proc/keys; echo x >/proc/sys/kernel/domainname");
    let rootfs = container.bundle.rootfs();
    let container = container.edit(|spec| {
        let script = format!("mount -t proc proc {}/proc", rootfs.display());
        let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] });
        spec["hooks"] = json!({ "createContainer": [hook] });
    });
    let output = container.run();
    assert_eq!(output.stdout, "", "{output:#?}");
    assert!(output.stderr.contains("domainname: Read-only file system"), "{output:#?}");
}

/// The rule for mounts on /proc, which an image can have any path lead to, holds for the terminal, too.
fn a_console_on_procfs_is_refused() -> Outcome {
    need_own()?;
    let container = Container::with_script("true").edit(|spec| spec["process"]["terminal"] = json!(true));
    let container = without_mounts_at(container, "/dev").edit(|spec| {
        let devpts = json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance"] });
        add_mount(spec, devpts);
    });
    replace(&container, "dev/console", "/proc/sys/kernel/hostname");
    let socket = container.beside("sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let call = container.run_with(["--detach", "--console-socket", socket.to_str().unwrap()]);
    call.fails_with("/process/terminal: /dev/console cannot be mounted because it is inside /proc");
    container.leaves_nothing();
    Ok(())
}
