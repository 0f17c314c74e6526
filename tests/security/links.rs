//! Links of an image on the way to what the runtime mounts, makes or covers.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, symlink};

use serde_json::{Value, json};

use super::attack::{Harm, Outside, attacks, harm_if, race, replace};
use crate::support::bundle::{add_mount, bind};
use crate::support::host::{need_other_than, need_own};
use crate::support::{Container, Outcome};

attacks![
    cve_2019_18837_a_mount_target_that_links_outside_stays_inside: "CVE-2019-18837",
    cve_2021_30465_a_mount_target_that_is_exchanged_for_a_link_stays_inside: "CVE-2021-30465",
    cve_2024_45310_making_a_directory_makes_nothing_outside: "CVE-2024-45310",
    cve_2025_24965_making_a_file_makes_nothing_outside: "CVE-2025-24965",
    ghsa_3q8j_pf29_vwv8_a_read_only_path_that_is_exchanged_is_read_only: "GHSA-3q8j-pf29-vwv8",
    ghsa_3q8j_pf29_vwv8_a_read_only_tmpfs_that_is_exchanged_is_read_only: "GHSA-3q8j-pf29-vwv8";
    masked_paths_through_links_stay_inside,
    read_only_paths_through_links_stay_inside,
    a_working_directory_through_a_link_stays_inside,
    a_tmpcopyup_of_a_link_copies_nothing_from_outside,
    the_passwd_of_the_image_may_link_outside,
    a_device_path_through_a_link_stays_inside,
    a_file_bound_onto_a_dangling_link_stays_inside,
];

/// A script that fails if it does not see the mount that [`probe`] makes: the mount is in the host's tree
/// then.
const LOOK: &str = "grep -q ' - tmpfs probe ' /proc/self/mountinfo";

/// A container that looks for the mount that it is to have at `target`.
fn probe(target: &str) -> Container {
    Container::with_script(LOOK).edit(|spec| {
        add_mount(spec, json!({ "destination": target, "type": "tmpfs", "source": "probe" }));
    })
}

fn cve_2019_18837_a_mount_target_that_links_outside_stays_inside() -> Harm {
    let outside = Outside::new();
    fs::create_dir(outside.path().join("below")).unwrap();
    for target in ["/link", "/link/below"] {
        let container = probe(target);
        replace(&container, "link", outside.path());
        let output = container.run();
        // Refused is as well.
        if output.code() == 1 && output.stderr.is_empty() {
            return harm_if(true, || format!("{target} is mounted outside: {output:#?}"));
        }
    }
    fs::remove_dir(outside.path().join("below")).unwrap();
    outside.harm()
}

/// Another container shares the volume and exchanges the target for a link to the host.
fn cve_2021_30465_a_mount_target_that_is_exchanged_for_a_link_stays_inside() -> Harm {
    let outside = Outside::new();
    let container = Container::with_script(LOOK);
    let volume = container.beside("volume");
    let (target, link) = (volume.join("target"), volume.join("link"));
    fs::create_dir_all(&target).unwrap();
    symlink(outside.path(), &link).unwrap();
    let container = container.edit(|spec| {
        add_mount(spec, bind(&volume, "/volume", &[]));
        add_mount(spec, json!({ "destination": "/volume/target", "type": "tmpfs", "source": "probe" }));
    });
    race("CVE-2021-30465", &target, &link, || {
        let output = container.run();
        (output.code() == 1 && output.stderr.is_empty()).then(|| format!("mounted outside: {output:#?}"))
    })
}

fn cve_2024_45310_making_a_directory_makes_nothing_outside() -> Harm {
    let outside = Outside::new();
    let container = probe("/link/new/directory");
    replace(&container, "link", outside.path());
    let _ = container.run();
    outside.harm()
}

/// crun wrote a file into the image by its path; ours are those that files are bound onto.
fn cve_2025_24965_making_a_file_makes_nothing_outside() -> Harm {
    let outside = Outside::new();
    let container = Container::new();
    let file = container.beside("file");
    fs::write(&file, "").unwrap();
    let container = container.edit(|spec| add_mount(spec, bind(&file, "/link/new-file", &[])));
    replace(&container, "link", outside.path());
    let _ = container.run();
    outside.harm()
}

/// What is mounted and what is then made read-only must be the same, whatever has the name by then.
fn ghsa_3q8j_pf29_vwv8_a_read_only_path_that_is_exchanged_is_read_only() -> Harm {
    is_read_only("a read-only path", |spec| spec["linux"]["readonlyPaths"] = json!(["/volume/target"]))
}

/// A tmpfs is made read-only when everything below it is in place.
fn ghsa_3q8j_pf29_vwv8_a_read_only_tmpfs_that_is_exchanged_is_read_only() -> Harm {
    is_read_only("a read-only tmpfs", |spec| {
        let tmpfs = json!({ "destination": "/volume/target", "type": "tmpfs", "options": ["ro"] });
        add_mount(spec, tmpfs);
    })
}

/// Another container shares the volume and exchanges what is to be read-only for a link to another mount of
/// the container.
fn is_read_only(what: &str, ask: impl FnOnce(&mut Value)) -> Harm {
    need_other_than("crun", "looks such a path up twice (1.28)")?;
    let look = "awk '$5 ~ \"^/volume/\" && $6 !~ \"^ro\"' /proc/self/mountinfo";
    let container = Container::with_script(look);
    let volume = container.beside("volume");
    let (target, link) = (volume.join("target"), volume.join("link"));
    fs::create_dir_all(&target).unwrap();
    symlink("/elsewhere", &link).unwrap();
    let container = container.edit(|spec| {
        add_mount(spec, bind(&volume, "/volume", &[]));
        add_mount(spec, json!({ "destination": "/elsewhere", "type": "tmpfs", "source": "tmpfs" }));
        ask(spec);
    });
    race(&format!("GHSA-3q8j-pf29-vwv8: {what}"), &target, &link, || {
        let output = container.run();
        (!output.stdout.is_empty()).then(|| format!("it can be written to: {output:#?}"))
    })
}

fn masked_paths_through_links_stay_inside() {
    let outside = Outside::new();
    let container =
        Container::new().edit(|spec| spec["linux"]["maskedPaths"] = json!(["/link/secret", "/link"]));
    replace(&container, "link", outside.path());
    let _ = container.run();
    outside.is_untouched();
    container.leaves_nothing();
}

fn read_only_paths_through_links_stay_inside() {
    let outside = Outside::new();
    let container =
        Container::new().edit(|spec| spec["linux"]["readonlyPaths"] = json!(["/link/secret", "/link"]));
    replace(&container, "link", outside.path());
    let _ = container.run();
    outside.is_untouched();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    container.leaves_nothing();
}

fn a_working_directory_through_a_link_stays_inside() {
    let outside = Outside::new();
    let container =
        Container::with_script("touch here; pwd").edit(|spec| spec["process"]["cwd"] = json!("/link/new"));
    replace(&container, "link", outside.path());
    let _ = container.run();
    outside.is_untouched();
    container.leaves_nothing();
}

fn a_tmpcopyup_of_a_link_copies_nothing_from_outside() {
    let outside = Outside::new();
    let container = Container::with_script("ls -R /home; cat /home/link /home/secret").edit(|spec| {
        add_mount(
            spec,
            json!({ "destination": "/home", "type": "tmpfs", "source": "t", "options": ["tmpcopyup"] }),
        );
    });
    symlink(outside.path().join("secret"), container.bundle.rootfs().join("home/link")).unwrap();
    let output = container.run();
    assert!(!output.stdout.lines().any(|line| line == "secret"), "{output:#?}");
    let linked = Container::with_script("cat /home/secret").edit(|spec| {
        add_mount(
            spec,
            json!({ "destination": "/home", "type": "tmpfs", "source": "t", "options": ["tmpcopyup"] }),
        );
    });
    replace(&linked, "home", outside.path());
    let output = linked.run();
    assert!(!output.stdout.contains("secret"), "{output:#?}");
    outside.is_untouched();
}

/// HOME is looked up in the passwd of the container, as the container would open it.
fn the_passwd_of_the_image_may_link_outside() {
    let outside = Outside::new();
    fs::write(outside.path().join("secret"), "some:x:1000:1000::/of-the-host:/bin/sh\n").unwrap();
    let container = Container::with_script("echo $HOME")
        .edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    replace(&container, "etc/passwd", outside.path().join("secret"));
    let output = container.run();
    assert!(!output.stdout.contains("of-the-host"), "{output:#?}");
}

fn a_device_path_through_a_link_stays_inside() -> Outcome {
    need_own()?;
    let outside = Outside::new();
    let container = Container::new().edit(|spec| {
        spec["linux"]["devices"] = json!([{ "path": "/link/null", "type": "c", "major": 1, "minor": 3 }]);
    });
    replace(&container, "link", outside.path());
    let _ = container.run();
    outside.is_untouched();
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    Ok(())
}

/// The image of a distribution that uses systemd-resolved has such a /etc/resolv.conf, and engines bind a
/// file onto it.
fn a_file_bound_onto_a_dangling_link_stays_inside() -> Outcome {
    need_other_than("runc", "refuses it")?;
    let outside = Outside::new();
    let absolute = outside.path().join("new-file");
    let links = [
        ("../run/systemd/resolve/stub-resolv.conf", "run/systemd/resolve/stub-resolv.conf"),
        ("/run/made.conf", "run/made.conf"),
        ("../../../../../../run/up.conf", "run/up.conf"),
        (absolute.to_str().unwrap(), absolute.to_str().unwrap().trim_start_matches('/')),
    ];
    for (link, made) in links {
        let container = Container::with_args(["cat", "/etc/resolv.conf"]);
        let source = container.beside("resolv.conf");
        fs::write(&source, "nameserver 192.0.2.1\n").unwrap();
        let container = container.edit(|spec| add_mount(spec, bind(&source, "/etc/resolv.conf", &["rbind"])));
        replace(&container, "etc/resolv.conf", link);
        assert_eq!(container.says(), "nameserver 192.0.2.1", "{link}");
        let made = fs::symlink_metadata(container.bundle.rootfs().join(made)).unwrap();
        assert_eq!((made.is_file(), made.len()), (true, 0), "{link}");
        container.leaves_nothing();
    }
    outside.is_untouched();
    Ok(())
}
