//! /dev of an image or a volume: devices that are something else.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use serde_json::json;

use super::attack::{Harm, Outside, attacks, harm_if, replace, without_mounts_at};
use crate::support::bundle::{add_mount, bind};
use crate::support::{Container, wait_until};

attacks![
    cve_2025_31133_a_null_device_that_is_a_link_masks_nothing: "CVE-2025-31133",
    cve_2025_62161_a_null_device_that_is_a_file_masks_nothing: "CVE-2025-62161",
    cve_2025_52565_a_terminal_that_is_a_link_is_not_the_console: "CVE-2025-52565",
    cve_2026_41579_a_dev_that_is_a_link_changes_nothing_outside: "CVE-2026-41579",
    cve_2026_47766_a_dev_that_climbs_out_changes_nothing_outside: "CVE-2026-47766";
    a_console_that_is_a_link_changes_nothing_outside,
];

/// A container whose /dev is a volume, in which the runtime makes nothing; and that volume.
fn with_a_dev_of_its_own(container: Container) -> (Container, PathBuf) {
    let dev = container.beside("dev");
    fs::create_dir(&dev).unwrap();
    let mount = bind(&dev, "/dev", &[]);
    (without_mounts_at(container, "/dev").edit(|spec| add_mount(spec, mount)), dev)
}

/// What is mounted over the first file is what the second shows, of which the container then has another
/// name.
fn cve_2025_31133_a_null_device_that_is_a_link_masks_nothing() -> Harm {
    let container =
        Container::with_script("cat /etc/masked /proc/version").with_file("etc/masked", 0o644, "");
    let (container, dev) = with_a_dev_of_its_own(container);
    symlink("/proc/version", dev.join("null")).unwrap();
    let container =
        container.edit(|spec| spec["linux"]["maskedPaths"] = json!(["/etc/masked", "/proc/version"]));
    let output = container.run();
    harm_if(output.stdout.contains("Linux version"), || format!("{output:#?}"))
}

fn cve_2025_62161_a_null_device_that_is_a_file_masks_nothing() -> Harm {
    let container = Container::with_script("cat /etc/masked").with_file("etc/masked", 0o644, "to be hidden");
    let (container, dev) = with_a_dev_of_its_own(container);
    fs::write(dev.join("null"), "not null").unwrap();
    let container = container.edit(|spec| spec["linux"]["maskedPaths"] = json!(["/etc/masked"]));
    let output = container.run();
    harm_if(!output.stdout.is_empty(), || format!("{output:#?}"))
}

/// The terminal's name leads to what is masked later: it would be mounted on /dev/console before.
fn cve_2025_52565_a_terminal_that_is_a_link_is_not_the_console() -> Harm {
    let container = Container::with_script("timeout 2 head -n 1 /dev/console >/etc/seen; echo >/etc/done");
    let (container, dev) = with_a_dev_of_its_own(container);
    fs::create_dir(dev.join("pts")).unwrap();
    symlink("/real/ptmx", dev.join("pts/ptmx")).unwrap();
    symlink("/proc/version", dev.join("pts/0")).unwrap();
    fs::write(dev.join("console"), "").unwrap();
    let container = container.edit(|spec| {
        let options = ["newinstance", "ptmxmode=0666", "mode=0620"];
        let real =
            json!({ "destination": "/real", "type": "devpts", "source": "devpts", "options": options });
        add_mount(spec, real);
        spec["process"]["terminal"] = json!(true);
        // There is no null device to mask it with, and no need to.
        spec["linux"]["maskedPaths"] = json!([]);
    });
    let socket = container.beside("sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let output = container.run_with(["--detach", "--console-socket", socket.to_str().unwrap()]).output();
    if output.code() != 0 {
        return Ok(None);
    }
    let etc = container.bundle.rootfs().join("etc");
    wait_until("the container has looked", || etc.join("done").exists());
    let seen = fs::read_to_string(etc.join("seen")).unwrap();
    harm_if(seen.contains("Linux version"), || format!("the console shows {seen:?}"))
}

fn dev_links_to(target: impl FnOnce(&Outside, &Container) -> PathBuf) -> Harm {
    let outside = Outside::new();
    let container = without_mounts_at(Container::new(), "/dev");
    replace(&container, "dev", target(&outside, &container));
    let ptmx = outside.path().join("ptmx");
    fs::write(&ptmx, "a file of the host").unwrap();
    let output = container.run();
    let now = fs::read_to_string(&ptmx);
    if !now.as_ref().is_ok_and(|text| text == "a file of the host") || ptmx.is_symlink() {
        return harm_if(true, || format!("ptmx of the host is {now:?}: {output:#?}"));
    }
    fs::remove_file(ptmx).unwrap();
    outside.harm()
}

fn cve_2026_41579_a_dev_that_is_a_link_changes_nothing_outside() -> Harm {
    dev_links_to(|outside, _| outside.path())
}

fn cve_2026_47766_a_dev_that_climbs_out_changes_nothing_outside() -> Harm {
    dev_links_to(|outside, container| {
        let depth = container.bundle.rootfs().components().count() - 1;
        PathBuf::from("../".repeat(depth)).join(outside.path().strip_prefix("/").unwrap())
    })
}

fn a_console_that_is_a_link_changes_nothing_outside() {
    let outside = Outside::new();
    let container = without_mounts_at(Container::with_script("echo changed >/dev/console"), "/dev/")
        .edit(|spec| spec["process"]["terminal"] = json!(true));
    let container = without_mounts_at(container, "/dev");
    replace(&container, "dev/console", outside.path().join("secret"));
    let socket = container.beside("sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let _ = container.run_with(["--detach", "--console-socket", socket.to_str().unwrap()]).output();
    outside.is_untouched();
}
