//! /proc and /sys: what stands there must be what the kernel shows, and what the runtime writes there must
//! reach the kernel.

use std::fs;

use serde_json::{Value, json};

use super::attack::{Harm, attacks, harm_if, replace, without_mounts_at};
use crate::support::Container;
use crate::support::bundle::{add_mount, bind, capabilities};
use crate::support::container::NO_OPTIONS;
use crate::support::host::{need_other_than, need_own};

attacks![
    cve_2019_16884_a_mount_over_proc_files_is_refused: "CVE-2019-16884",
    cve_2019_19921_a_proc_that_is_a_link_is_refused: "CVE-2019-19921",
    cve_2023_27561_a_proc_that_links_into_a_volume_is_refused: "CVE-2023-27561",
    cve_2023_28642_a_proc_that_links_to_a_false_one_is_refused: "CVE-2023-28642",
    cve_2025_54867_a_sys_that_is_a_link_is_refused: "CVE-2025-54867",
    cve_2025_52881_a_sysctl_reaches_the_kernel_not_what_is_mounted_there: "CVE-2025-52881",
    cve_2025_62596_a_label_reaches_the_kernel_not_what_is_mounted_there: "CVE-2025-62596",
];

/// A VOLUME of an image over what tells programs, and the runtime, about labels.
fn cve_2019_16884_a_mount_over_proc_files_is_refused() -> Harm {
    need_other_than("crun", "checks the file system when it writes there instead")?;
    for target in ["/proc", "/proc/self", "/proc/self/attr", "/proc/sys", "/proc/1/attr/exec"] {
        let container = Container::with_script(&format!("cat {target}/proof || cat {target}"));
        let source = container.beside("fake");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("proof"), "false").unwrap();
        let container = container.edit(|spec| add_mount(spec, bind(&source, target, &[])));
        let output = container.run_with(NO_OPTIONS).output();
        if output.code() == 0 || output.stdout.contains("false") {
            return harm_if(true, || format!("a volume covers {target}: {output:#?}"));
        }
        // A tmpfs in the place of proc is as good to be written to.
        let tmpfs = json!({ "destination": target, "type": "tmpfs", "source": "tmpfs" });
        let container = Container::with_args(["true"]).edit(|spec| add_mount(spec, tmpfs));
        if container.run().code() == 0 {
            return harm_if(true, || format!("a tmpfs covers {target}"));
        }
    }
    Ok(None)
}

/// A container that does run is one whose procfs is elsewhere.
fn runs(container: &Container) -> Harm {
    let output = container.run();
    harm_if(output.code() == 0, || format!("{output:#?}"))
}

fn cve_2019_19921_a_proc_that_is_a_link_is_refused() -> Harm {
    let container = Container::with_args(["ls", "/tmp"]);
    replace(&container, "proc", "tmp");
    runs(&container)
}

/// What another container, which shares the volume, does to it meanwhile would be done to /proc.
fn cve_2023_27561_a_proc_that_links_into_a_volume_is_refused() -> Harm {
    let container = without_mounts_at(Container::new(), "/proc");
    let volume = container.beside("volume");
    fs::create_dir_all(volume.join("level")).unwrap();
    let container = container.edit(|spec| {
        add_mount(spec, bind(&volume, "/evil", &[]));
        add_mount(spec, json!({ "destination": "/proc", "type": "proc", "source": "proc" }));
    });
    replace(&container, "proc", "evil/level");
    runs(&container)
}

/// With files of the image's own where labels are written.
fn cve_2023_28642_a_proc_that_links_to_a_false_one_is_refused() -> Harm {
    let container = Container::new();
    fs::create_dir_all(container.bundle.rootfs().join("false/self/attr")).unwrap();
    let container = container.with_file("false/self/attr/exec", 0o666, "");
    replace(&container, "proc", "/false");
    runs(&container)
}

fn cve_2025_54867_a_sys_that_is_a_link_is_refused() -> Harm {
    need_other_than("crun", "follows it inside")?;
    let container = Container::new();
    replace(&container, "sys", "tmp");
    runs(&container)
}

/// Something else is mounted on the file, here in the procfs that the container is given.
fn cve_2025_52881_a_sysctl_reaches_the_kernel_not_what_is_mounted_there() -> Harm {
    need_own()?;
    let container = without_mounts_at(Container::new(), "/proc").edit(|spec| {
        let proc = json!({ "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"] });
        spec["mounts"].as_array_mut().unwrap().insert(0, proc);
        spec["linux"]["sysctl"] = json!({ "kernel.domainname": "inside" });
    });
    let file = container.beside("a-file-of-the-host");
    fs::write(&file, "untouched").unwrap();
    let script = format!("mount --bind {} /proc/sys/kernel/domainname && exec \"$@\"", file.display());
    let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, "sh"];
    let output = container.run_with(NO_OPTIONS).called_by(words).output();
    let now = fs::read_to_string(&file).unwrap();
    harm_if(now != "untouched", || format!("the runtime wrote {now:?} to it: {output:#?}"))
}

/// The container has covered its own /proc, and then gets a process that is to be confined. This host need
/// have no AppArmor: the runtime is made to believe that it has.
fn cve_2025_62596_a_label_reaches_the_kernel_not_what_is_mounted_there() -> Harm {
    need_own()?;
    let container = Container::with_script(
        "mount -t tmpfs false /proc && mkdir -p /proc/self/attr && echo >/proc/self/attr/exec && echo ready; sleep 1000",
    )
    .edit(|spec| {
        capabilities(spec, &["CAP_SYS_ADMIN"]);
        spec["process"]["noNewPrivileges"] = Value::Bool(false);
    });
    container.launch().wait_for_stdout("ready");
    let script = "mount -t tmpfs false /sys/module && mkdir -p /sys/module/apparmor/parameters &&
        echo Y >/sys/module/apparmor/parameters/enabled && exec \"$@\"";
    let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"];
    let exec = container.exec_with(["--apparmor", "no-such-profile"], ["cat", "/proc/self/attr/exec"]);
    let output = exec.called_by(words).output();
    harm_if(output.code() == 0, || format!("a process runs unconfined: {output:#?}"))
}
