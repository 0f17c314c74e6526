//! Device nodes, symbolic links in /dev, and device rules enforced by BPF: config-linux.md § Devices.

use std::fs;

use serde_json::{Value, json};

use crate::support::bundle::{add_mount, bind};
use crate::support::container::NO_OPTIONS;
use crate::support::host::{is_own, need_other_than, need_own};
use crate::support::suite::suite;
use crate::support::{Container, Outcome};

suite![
    the_default_devices_are_there_and_work,
    the_default_links_are_there,
    an_additional_device_is_made,
    a_fifo_can_be_made,
    a_device_below_a_new_directory_is_made,
    a_device_that_exists_in_the_image_on_dev_is_no_obstacle,
    a_device_listed_among_the_defaults_is_taken_from_the_list,
    a_device_of_an_unknown_type_is_refused,
    a_device_without_numbers_is_refused_or_zero,
    a_relative_device_path_is_refused,
    rules_deny_what_is_not_allowed,
    rules_always_allow_the_default_devices,
    rules_allow_making_nodes_of_any_kind,
    rules_tell_reading_from_writing,
    rules_know_wildcards,
    rules_apply_in_their_order,
    rules_of_a_privileged_container_allow_all,
    no_rules_still_deny,
    rules_hold_for_a_node_of_the_host_that_is_bound,
    an_unknown_kind_of_rule_is_refused,
    an_access_that_means_nothing_is_refused,
    letters_of_an_access_that_mean_nothing_are_left_out,
    dev_may_be_bound_from_outside,
];

fn the_default_devices_are_there_and_work() {
    let container = Container::with_script(
        "for d in null zero full random urandom tty; do stat -c '%n %F %t:%T %a %u:%g' /dev/$d; done\n\
         echo x >/dev/null && head -c 4 /dev/zero | od -An -tx1; echo x >/dev/full; head -c 3 /dev/urandom | wc -c",
    );
    let output = container.run();
    let lines: Vec<_> = output.stdout.lines().map(str::trim).collect();
    let expected = [
        ("null", "1:3"),
        ("zero", "1:5"),
        ("full", "1:7"),
        ("random", "1:8"),
        ("urandom", "1:9"),
        ("tty", "5:0"),
    ];
    for ((name, numbers), line) in expected.iter().zip(&lines) {
        assert_eq!(*line, format!("/dev/{name} character special file {numbers} 666 0:0"));
    }
    assert_eq!(lines[6..], ["00 00 00 00", "3"], "{output:#?}");
    assert!(output.stderr.contains("No space left"), "{output:#?}");
}

fn the_default_links_are_there() {
    let container = Container::with_script(
        "for l in fd stdin stdout stderr ptmx core; do echo $l $(readlink /dev/$l); done",
    );
    let said = container.says();
    let rest = "fd /proc/self/fd\nstdin /proc/self/fd/0\nstdout /proc/self/fd/1\nstderr /proc/self/fd/2\nptmx pts/ptmx\ncore";
    assert!(said.starts_with(rest), "{said}");
}

fn with_device(device: Value, script: &str) -> Container {
    Container::with_script(script).edit(|spec| {
        spec["linux"]["devices"] = json!([device]);
        spec["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]);
    })
}

fn an_additional_device_is_made() {
    let device = json!({ "path": "/dev/mem0", "type": "c", "major": 1, "minor": 5, "fileMode": 0o644, "uid": 7, "gid": 8 });
    let container = with_device(device, "stat -c '%F %t:%T %a' /dev/mem0; head -c 2 /dev/mem0 | wc -c");
    assert_eq!(container.says(), "character special file 1:5 644\n2");
    let unbuffered = json!({ "path": "/dev/u", "type": "u", "major": 1, "minor": 3 });
    assert_eq!(with_device(unbuffered, "stat -c '%F %t:%T' /dev/u").says(), "character special file 1:3");
    let block = json!({ "path": "/dev/b", "type": "b", "major": 7, "minor": 0, "fileMode": 0o600 });
    assert_eq!(with_device(block, "stat -c '%F %t:%T %a' /dev/b").says(), "block special file 7:0 600");
}

fn a_fifo_can_be_made() {
    let fifo = json!({ "path": "/dev/pipe", "type": "p", "fileMode": 0o600 });
    assert_eq!(with_device(fifo, "stat -c '%F %a' /dev/pipe").says(), "fifo 600");
}

fn a_device_below_a_new_directory_is_made() {
    let device = json!({ "path": "/dev/a/b/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666 });
    assert_eq!(with_device(device, "stat -c %F /dev/a/b/null").says(), "character special file");
}

fn a_device_that_exists_in_the_image_on_dev_is_no_obstacle() -> Outcome {
    need_other_than("runc", "stumbles over its own links")?;
    // /dev is a directory of the image here, and holds a file where a device belongs.
    let container =
        Container::with_script("echo x >/dev/null; stat -c %F /dev/null /dev/zero").edit(|spec| {
            let below_dev =
                |mount: &Value| mount["destination"].as_str().is_some_and(|at| at.starts_with("/dev"));
            spec["mounts"].as_array_mut().unwrap().retain(|mount| !below_dev(mount));
        });
    let output = container.run();
    let again = container.run();
    assert_eq!((output.code(), again.code()), (0, 0), "{output:#?} {again:#?}");
    assert_eq!(again.stdout, "character special file\ncharacter special file\n");
    Ok(())
}

fn a_device_listed_among_the_defaults_is_taken_from_the_list() {
    let device = json!({ "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666 });
    assert_eq!(with_device(device, "echo x >/dev/null; stat -c %t:%T /dev/null").says(), "1:3");
}

fn a_device_of_an_unknown_type_is_refused() -> Outcome {
    need_other_than("crun", "ignores it")?;
    with_device(json!({ "path": "/dev/x", "type": "x", "major": 1, "minor": 3 }), "true").run_fails_with("");
    Ok(())
}

fn a_device_without_numbers_is_refused_or_zero() {
    let container = with_device(json!({ "path": "/dev/x", "type": "c" }), "stat -c %t:%T /dev/x");
    let output = container.run();
    assert!(output.code() != 0 || output.stdout == "0:0\n", "{output:#?}");
    container.leaves_nothing();
}

fn a_relative_device_path_is_refused() -> Outcome {
    need_own()?;
    let container = with_device(json!({ "path": "x", "type": "c", "major": 1, "minor": 3 }), "true");
    container.run_fails_with("/linux/devices/0/path");
    Ok(())
}

/// Opens nodes that mknod has made; the capability to make them is there, so that only the rules say no.
fn with_rules(rules: Value, script: &str) -> String {
    let container = Container::with_script(&format!(
        "mknod /dev/kmsg c 1 11\n\
         can() {{ if sh -c \"$2\" 2>/tmp/error; then echo $1 yes; else echo $1 $(grep -oE 'not permitted|No such dev' /tmp/error); fi; }}\n\
         {script}"
    ))
    .edit(|spec| {
        let capabilities = json!(["CAP_MKNOD", "CAP_DAC_OVERRIDE", "CAP_SYSLOG", "CAP_SYS_ADMIN"]);
        for set in ["bounding", "permitted", "effective"] {
            spec["process"]["capabilities"][set] = capabilities.clone();
        }
        spec["linux"]["resources"]["devices"] = rules;
    });
    container.says()
}

const READ_KMSG: &str = "can read 'exec 3</dev/kmsg'";
const WRITE_KMSG: &str = "can write 'exec 3>>/dev/kmsg'";

fn rules_deny_what_is_not_allowed() {
    assert_eq!(with_rules(json!([{ "allow": false, "access": "rwm" }]), READ_KMSG), "read not permitted");
}

fn rules_always_allow_the_default_devices() {
    let script = "can null 'echo >/dev/null'; can zero 'head -c 1 /dev/zero >/dev/null'; can random 'head -c 1 /dev/urandom >/dev/null'; can full 'exec 3</dev/full'; can ptmx 'exec 3<>/dev/ptmx'";
    let said = with_rules(json!([{ "allow": false, "access": "rwm" }]), script);
    assert_eq!(said, "null yes\nzero yes\nrandom yes\nfull yes\nptmx yes");
}

fn rules_allow_making_nodes_of_any_kind() {
    let script = "can char 'mknod /dev/c c 200 1'; can block 'mknod /dev/b b 200 1'";
    assert_eq!(with_rules(json!([{ "allow": false, "access": "rwm" }]), script), "char yes\nblock yes");
}

fn rules_tell_reading_from_writing() {
    let rule = |access: &str| {
        json!([{ "allow": false, "access": "rwm" },
               { "allow": true, "type": "c", "major": 1, "minor": 11, "access": access }])
    };
    let script = format!("{READ_KMSG}; {WRITE_KMSG}");
    assert_eq!(with_rules(rule("r"), &script), "read yes\nwrite not permitted");
    assert_eq!(with_rules(rule("w"), &script), "read not permitted\nwrite yes");
    assert_eq!(with_rules(rule("rw"), &script), "read yes\nwrite yes");
}

fn rules_know_wildcards() {
    for rule in [
        json!({ "allow": true, "type": "c", "major": 1, "access": "rw" }),
        json!({ "allow": true, "type": "c", "major": 1, "minor": -1, "access": "rw" }),
        json!({ "allow": true, "type": "c", "minor": 11, "access": "rw" }),
        json!({ "allow": true, "type": "a", "access": "rwm" }),
        json!({ "allow": true, "access": "rwm" }),
    ] {
        let rules = json!([{ "allow": false, "access": "rwm" }, rule]);
        assert_eq!(with_rules(rules.clone(), READ_KMSG), "read yes", "{rules}");
    }
    let other = json!([{ "allow": false, "access": "rwm" }, { "allow": true, "type": "b", "major": 1, "access": "rw" }]);
    assert_eq!(with_rules(other, READ_KMSG), "read not permitted");
}

fn rules_apply_in_their_order() {
    let allow = json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "rw" });
    let deny = json!({ "allow": false, "type": "c", "major": 1, "minor": 11, "access": "rw" });
    let all = json!({ "allow": false, "access": "rwm" });
    assert_eq!(with_rules(json!([all, allow, deny]), READ_KMSG), "read not permitted");
    assert_eq!(with_rules(json!([all, deny, allow]), READ_KMSG), "read yes");
    assert_eq!(with_rules(json!([allow, all]), READ_KMSG), "read not permitted");
}

fn rules_of_a_privileged_container_allow_all() {
    assert_eq!(with_rules(json!([{ "allow": true, "access": "rwm" }]), READ_KMSG), "read yes");
}

fn no_rules_still_deny() -> Outcome {
    need_other_than("crun", "denies nothing without rules")?;
    for none in [json!([]), json!(null)] {
        assert_eq!(with_rules(none.clone(), READ_KMSG), "read not permitted", "{none}");
    }
    Ok(())
}

fn rules_hold_for_a_node_of_the_host_that_is_bound() {
    let container = Container::with_script("exec 3</mnt/kmsg")
        .edit(|spec| add_mount(spec, bind("/dev/kmsg".as_ref(), "/mnt/kmsg", &[])));
    if !fs::exists("/dev/kmsg").unwrap() {
        return;
    }
    let output = container.run();
    assert!(output.code() != 0 && output.stderr.contains("not permitted"), "{output:#?}");
}

fn an_unknown_kind_of_rule_is_refused() -> Outcome {
    need_other_than("crun", "ignores it")?;
    let container = Container::new().edit(|spec| {
        spec["linux"]["resources"]["devices"] = json!([{ "allow": true, "type": "x", "access": "rwm" }]);
    });
    let output = container.run_fails_with("");
    if is_own() {
        assert!(output.stderr.contains("/linux/resources/devices/0/type"), "{output:#?}");
    }
    Ok(())
}

fn an_access_that_means_nothing_is_refused() -> Outcome {
    need_own()?;
    let container = Container::new().edit(|spec| {
        spec["linux"]["resources"]["devices"] = json!([{ "allow": true, "type": "c", "access": "x" }]);
    });
    container.run_fails_with("/linux/resources/devices/0/access");
    Ok(())
}

/// runc's own tests have such a rule.
fn letters_of_an_access_that_mean_nothing_are_left_out() -> Outcome {
    let rules = json!([{ "allow": false, "access": "rwm" },
                       { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "ra" }]);
    let script = format!("{READ_KMSG}; {WRITE_KMSG}");
    assert_eq!(with_rules(rules.clone(), &script), "read yes\nwrite not permitted");
    need_own()?;
    let container = Container::new().edit(|spec| spec["linux"]["resources"]["devices"] = rules);
    let output = container.run_with(NO_OPTIONS).succeeds();
    assert!(output.stderr.contains("/linux/resources/devices/1/access: "), "{output:?}");
    assert!(output.stderr.contains("ignoring characters other than"), "{output:?}");
    Ok(())
}

/// As a privileged pod does: /dev is the host's, and must not be changed.
fn dev_may_be_bound_from_outside() {
    let container = Container::with_script("ls /dev; echo x >/dev/null");
    let dev = container.beside("dev");
    fs::create_dir(&dev).unwrap();
    let container = container.edit(|spec| {
        let below_dev =
            |mount: &Value| mount["destination"].as_str().is_some_and(|at| at.starts_with("/dev"));
        spec["mounts"].as_array_mut().unwrap().retain(|mount| !below_dev(mount));
        add_mount(spec, bind(&dev, "/dev", &["rbind"]));
    });
    let output = container.run();
    // Nothing that the runtime would make in a /dev of its own appears outside.
    let made: Vec<_> = fs::read_dir(&dev).unwrap().flatten().map(|entry| entry.file_name()).collect();
    let only_null = made.iter().all(|name| name == "null");
    assert!(only_null, "{made:?} {output:#?}");
}
