//! Who a process is, what it may do, and what it gets from the runtime besides.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rustix::fs::XattrFlags;
use serde_json::{Value, json};

use super::attack::{Harm, Outside, attacks, harm_if};
use crate::support::bundle::capabilities;
use crate::support::container::NO_OPTIONS;
use crate::support::host::Outcome;
use crate::support::{Container, Output};

attacks![
    cve_2016_8867_a_user_is_given_no_ambient_capabilities: "CVE-2016-8867",
    cve_2016_9962_a_container_cannot_get_into_the_runtime_that_enters_it: "CVE-2016-9962",
    cve_2022_27650_a_container_is_given_no_inheritable_capabilities: "CVE-2022-27650",
    cve_2022_29162_exec_with_a_capability_gives_no_inheritable_one: "CVE-2022-29162",
    cve_2025_27612_exec_with_capabilities_gives_no_inheritable_ones: "CVE-2025-27612",
    cve_2024_21626_a_working_directory_outside_is_refused: "CVE-2024-21626",
    cve_2026_30892_exec_as_what_is_no_number_is_nobody: "CVE-2026-30892";
    cve_2016_3697_a_user_by_the_name_of_a_number_is_not_that_user,
    the_kernel_log_and_keys_are_out_of_reach,
    the_environment_of_the_runtime_is_out_of_reach,
];

const PASSWD: &str = "root:x:0:0::/root:/bin/sh\n1000:x:0:0::/root:/bin/sh\n";

/// Nobody is looked up by name. That the look would notice is shown by a user who is root.
fn cve_2016_3697_a_user_by_the_name_of_a_number_is_not_that_user() -> Outcome {
    let container = Container::idle().with_file("etc/passwd", 0o644, PASSWD);
    container.launch();
    let is_root = |user: &str| container.exec_with(["--user", user], ["id", "-u"]).output().stdout == "0\n";
    assert!(!is_root("1000") && !is_root("1000:1000") && is_root("0"));
    let first = Container::with_args(["id", "-u"])
        .with_file("etc/passwd", 0o644, PASSWD)
        .edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000, "username": "root" }));
    assert_eq!(first.says(), "1000");
    Ok(())
}

/// The sets of the program, in hexadecimal: inheritable, permitted, effective, bounding, ambient.
const SETS: &str = "grep ^Cap /proc/self/status";

fn has(output: &Output, set: &str) -> bool {
    let line = output.stdout.lines().find_map(|line| line.strip_prefix(set)).unwrap_or("0");
    u64::from_str_radix(line.trim().trim_start_matches(':').trim(), 16).unwrap() != 0
}

/// As Docker of the time did: no ambient or inheritable ones, and a user.
fn cve_2016_8867_a_user_is_given_no_ambient_capabilities() -> Harm {
    let container = Container::with_script(SETS).edit(|spec| {
        capabilities(spec, &["CAP_NET_RAW", "CAP_CHOWN"]);
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    });
    let output = container.run();
    harm_if(has(&output, "CapEff") || has(&output, "CapAmb"), || format!("{output:#?}"))
}

/// A container that was created is still the runtime, which waits for `start`.
fn cve_2016_9962_a_container_cannot_get_into_the_runtime_that_enters_it() -> Harm {
    let container = Container::idle();
    container.create();
    let script = "grep -q runtime /proc/1/comm && exec 3<>/proc/1/mem && echo is in; ls -l /proc/1/fd/";
    let output = container.exec(["sh", "-c", script]).output();
    harm_if(output.stdout.contains("is in") || output.stdout.contains("->"), || format!("{output:#?}"))
}

/// A program in the image whose file has inheritable capabilities: whoever has such, too, gets them;
/// capabilities(7).
fn with_a_trap(container: Container) -> Container {
    const CAP_NET_RAW: u32 = 1 << 13;
    const CAP_CHOWN: u32 = 1;
    let directory = container.bundle.rootfs().join("trap");
    fs::create_dir(&directory).unwrap();
    let trap = directory.join("grep");
    fs::copy(container.bundle.rootfs().join("bin/busybox"), &trap).unwrap();
    fs::set_permissions(&trap, fs::Permissions::from_mode(0o755)).unwrap();
    // VFS_CAP_REVISION_2 with the effective bit; permitted and inheritable, of 32 capabilities at a time.
    let words = [0x0200_0001, 0, CAP_NET_RAW | CAP_CHOWN, 0, 0];
    let value: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    rustix::fs::setxattr(&trap, "security.capability", &value, XattrFlags::empty()).unwrap();
    container.edit(|spec| {
        capabilities(spec, &["CAP_NET_RAW", "CAP_CHOWN"]);
        spec["process"]["noNewPrivileges"] = Value::Bool(false);
    })
}

const TRAP: [&str; 3] = ["/trap/grep", "^Cap", "/proc/self/status"];

fn gains(output: &Output) -> Harm {
    harm_if(has(output, "CapPrm") || has(output, "CapInh"), || format!("a user has gained: {output:#?}"))
}

fn cve_2022_27650_a_container_is_given_no_inheritable_capabilities() -> Harm {
    let container = with_a_trap(Container::with_args(TRAP))
        .edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    gains(&container.run())
}

fn cve_2022_29162_exec_with_a_capability_gives_no_inheritable_one() -> Harm {
    let container = with_a_trap(Container::idle());
    container.launch();
    gains(&container.exec_with(["--user", "1000:1000", "--cap", "CAP_NET_RAW"], TRAP).output())
}

fn cve_2025_27612_exec_with_capabilities_gives_no_inheritable_ones() -> Harm {
    let container = with_a_trap(Container::idle());
    container.launch();
    let options = ["--user", "1000:1000", "--cap", "CAP_CHOWN", "--cap", "CAP_NET_RAW"];
    gains(&container.exec_with(options, TRAP).output())
}

/// The runtime's caller has left directories of the host open.
fn cve_2024_21626_a_working_directory_outside_is_refused() -> Harm {
    let outside = Outside::new();
    for descriptor in 3..12 {
        let container = Container::with_script("cat secret; ls /proc/self/cwd/../")
            .edit(|spec| spec["process"]["cwd"] = json!(format!("/proc/self/fd/{descriptor}")));
        let leak = format!("exec 5<{0} 9<{0};", outside.path().display());
        let output = container.run_with(NO_OPTIONS).after_shell(&leak).output();
        // Either there is no such descriptor any more, or it is one of the container.
        if output.code() == 0 || output.stdout.contains("secret") {
            return harm_if(true, || format!("descriptor {descriptor}: {output:#?}"));
        }
    }
    outside.harm()
}

fn cve_2026_30892_exec_as_what_is_no_number_is_nobody() -> Harm {
    let container = Container::idle();
    container.launch();
    for user in ["x", "nobody", "x1000", "1000x", "0x3e8", "4294968296"] {
        let output = container.exec_with([&format!("--user={user}")], ["id", "-u"]).output();
        if !output.stdout.is_empty() {
            return harm_if(true, || format!("{user:?} is a user: {output:#?}"));
        }
    }
    Ok(None)
}

fn the_kernel_log_and_keys_are_out_of_reach() {
    let output =
        Container::with_script("cat /proc/kcore | head -c 1; cat /proc/keys; echo b >/proc/sysrq-trigger")
            .run();
    assert_eq!(output.stdout, "", "{output:#?}");
    assert!(output.stderr.contains("sysrq-trigger"), "{output:#?}");
}

fn the_environment_of_the_runtime_is_out_of_reach() {
    let container = Container::with_script("cat /proc/*/environ");
    let output = container.run_with(NO_OPTIONS).env("SECRET_OF_THE_CALLER", "1").output();
    assert!(!output.stdout.contains("SECRET_OF_THE_CALLER"), "{output:#?}");
}
