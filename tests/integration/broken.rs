//! Invalid bundles and their error messages.
//!
//! One table: a change to a valid bundle, and the complete text on stderr after `error: `. Errors of form are
//! reported with line, column and field, errors of meaning with the JSON pointer of the value. `{home}`
//! stands for the test's directory, `{id}` for the container's ID. Nothing is left behind after any of them.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::support::bundle::remove_namespace;
use crate::support::container::NO_OPTIONS;
use crate::support::host::{has_controller, is_own, need};
use crate::support::suite::suite;
use crate::support::{Container, Outcome};

suite![
    every_broken_bundle_is_refused_with_its_message,
    broken_json_is_refused_with_line_and_column,
    a_bundle_that_is_none_is_refused
];

type Edit = fn(&mut Value);

/// What is wrong, how it comes to be, what is said.
const WRONG_MEANING: &[(&str, Edit, &str)] = &[
    // ---- top level ----
    ("no process", |spec| remove(spec, "process"), "config.json: /process: is missing: no program to run"),
    ("no root", |spec| remove(spec, "root"), "config.json: /root: is missing (add {\"path\": \"rootfs\"})"),
    (
        "an empty root path",
        |spec| spec["root"]["path"] = json!(""),
        "config.json: /root/path: path must not be empty",
    ),
    (
        "a root that is not there",
        |spec| spec["root"]["path"] = json!("not-there"),
        "config.json: /root/path: open rootfs {home}/bundle/not-there: no such file or directory (ENOENT)",
    ),
    (
        "a root that is a file",
        |spec| spec["root"]["path"] = json!("config.json"),
        "config.json: /root/path: {home}/bundle/config.json is not a directory",
    ),
    (
        "a hostname without a uts namespace",
        |spec| remove_namespace(spec, "uts"),
        "config.json: /hostname: \"inside\" requires a uts namespace (add {\"type\": \"uts\"} to /linux/namespaces)",
    ),
    (
        "a domainname without a uts namespace",
        |spec| {
            remove_namespace(spec, "uts");
            remove(spec, "hostname");
            spec["domainname"] = json!("example.org");
        },
        "config.json: /domainname: \"example.org\" requires a uts namespace (add {\"type\": \"uts\"} to \
         /linux/namespaces)",
    ),
    (
        "a hostname that is too long",
        |spec| spec["hostname"] = json!("x".repeat(65)),
        "config.json: /hostname: name \
         \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\" exceeds 64 bytes",
    ),
    // ---- process ----
    (
        "no arguments",
        |spec| spec["process"]["args"] = json!([]),
        "config.json: /process/args: no program to run",
    ),
    (
        "an empty program name",
        |spec| spec["process"]["args"] = json!([""]),
        "config.json: /process/args: no program to run",
    ),
    (
        "an argument with NUL",
        |spec| spec["process"]["args"] = json!(["echo", "a\0b"]),
        "config.json: /process/args/1: \"a\\0b\" contains a NUL byte",
    ),
    (
        "a relative working directory",
        |spec| spec["process"]["cwd"] = json!("home"),
        "config.json: /process/cwd: path \"home\" must be absolute (use \"/\" if unsure)",
    ),
    (
        "an empty working directory",
        |spec| spec["process"]["cwd"] = json!(""),
        "config.json: /process/cwd: path \"\" must be absolute (use \"/\" if unsure)",
    ),
    (
        "a variable without a value",
        |spec| spec["process"]["env"] = json!(["PATH=/bin", "NOVALUE"]),
        "config.json: /process/env/1: invalid environment variable \"NOVALUE\" (expected NAME=VALUE)",
    ),
    (
        "a capability that is a number",
        |spec| spec["process"]["capabilities"]["bounding"] = json!([5]),
        "config.json:134:9: /process/capabilities/bounding/0: invalid type: integer `5`, expected a string",
    ),
    (
        "a limit above its maximum",
        |spec| {
            spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "hard": 10, "soft": 20 }]);
        },
        "config.json: /process/rlimits/0/soft: soft limit 20 exceeds hard limit 10",
    ),
    (
        "a limit listed twice",
        |spec| {
            let limit = json!({ "type": "RLIMIT_NOFILE", "hard": 10, "soft": 10 });
            spec["process"]["rlimits"] = json!([limit, limit]);
        },
        "config.json: /process/rlimits/1/type: duplicate rlimit \"RLIMIT_NOFILE\"",
    ),
    (
        "a user id that means no change",
        |spec| spec["process"]["user"]["uid"] = json!(u32::MAX),
        "config.json: /process/user/uid: invalid id 4294967295",
    ),
    (
        "a group id that means no change",
        |spec| spec["process"]["user"]["gid"] = json!(u32::MAX),
        "config.json: /process/user/gid: invalid id 4294967295",
    ),
    (
        "an additional group id that means no change",
        |spec| spec["process"]["user"]["additionalGids"] = json!([5, u32::MAX]),
        "config.json: /process/user/additionalGids/1: invalid id 4294967295",
    ),
    (
        "an OOM score out of range",
        |spec| spec["process"]["oomScoreAdj"] = json!(1001),
        "config.json: /process/oomScoreAdj: 1001 is out of range (-1000 to 1000)",
    ),
    (
        "a nice value out of range",
        |spec| spec["process"]["scheduler"] = json!({ "policy": "SCHED_OTHER", "nice": 20 }),
        "config.json: /process/scheduler/nice: 20 is out of range (-20 to 19)",
    ),
    (
        "a priority for a scheduler that has none",
        |spec| spec["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "priority": 1 }),
        "config.json: /process/scheduler/priority: only valid for SCHED_FIFO and SCHED_RR, not SCHED_BATCH",
    ),
    (
        "a deadline before the end of the work",
        |spec| {
            spec["process"]["scheduler"] =
                json!({ "policy": "SCHED_DEADLINE", "runtime": 9000, "deadline": 8000 });
        },
        "config.json: /process/scheduler/deadline: 8000 ns is less than runtime (9000 ns) (must be \
         runtime <= deadline <= period)",
    ),
    (
        "an I/O priority out of range",
        |spec| spec["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 }),
        "config.json: /process/ioPriority/priority: 8 is out of range (0 to 7)",
    ),
    (
        "an affinity that runs backwards",
        |spec| spec["process"]["execCPUAffinity"] = json!({ "initial": "3-1" }),
        "config.json: /process/execCPUAffinity/initial: invalid range \"3-1\": start is greater than end",
    ),
    // ---- mounts ----
    (
        "an unknown propagation-like option on a bind mount",
        |spec| {
            mount(
                spec,
                json!({ "destination": "/mnt", "type": "bind", "source": "/", "options": ["bind", "rbnid"] }),
            );
        },
        "config.json: /mounts/7/options/1: unknown mount option \"rbnid\"",
    ),
    (
        "a bind mount without a source",
        |spec| {
            mount(spec, json!({ "destination": "/mnt", "type": "bind", "options": ["bind"] }));
        },
        "config.json: /mounts/7/source: bind mount has no source",
    ),
    (
        "a mount without a type",
        |spec| mount(spec, json!({ "destination": "/mnt", "source": "x" })),
        "config.json: /mounts/7/type: mount has no type (set a file system type such as \"tmpfs\", or use \
         option \"bind\" or \"rbind\")",
    ),
    (
        "tmpcopyup on what is no tmpfs",
        |spec| {
            mount(
                spec,
                json!({ "destination": "/mnt", "type": "overlay", "source": "x", "options": ["tmpcopyup"] }),
            );
        },
        "config.json: /mounts/7/options/0: option \"tmpcopyup\" requires type \"tmpfs\"",
    ),
    (
        "an unknown kind of label",
        |spec| {
            spec["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0:c1,c2");
            spec["annotations"] = json!({ "run.oci.mount_context_type": "sidewaysContext" });
        },
        "config.json: /annotations/run.oci.mount_context_type: unknown context type \"sidewaysContext\" \
         (use context, fscontext, defcontext or rootcontext)",
    ),
    (
        "a source that is not there",
        |spec| {
            mount(
                spec,
                json!({ "destination": "/mnt", "type": "bind", "source": "/not/there", "options": ["bind"] }),
            );
        },
        "config.json: /mounts/7/source: bind \"/not/there\" on /mnt: no such file or directory (ENOENT)",
    ),
    (
        "an idmapped mount without mappings",
        |spec| {
            mount(
                spec,
                json!({ "destination": "/mnt", "type": "bind", "source": "/", "options": ["bind", "idmap"] }),
            );
        },
        "config.json: /mounts/7/options/1: id-mapped mounts must have both uid and gid mappings specified \
         (set uidMappings and gidMappings, or use a user namespace)",
    ),
    (
        "a target that goes up",
        |spec| mount(spec, json!({ "destination": "", "type": "tmpfs", "source": "t" })),
        "config.json: /mounts/7/destination: path must not be empty",
    ),
    // ---- namespaces ----
    (
        "a namespace listed twice",
        |spec| namespace(spec, json!({ "type": "pid" })),
        "config.json: /linux/namespaces/6/type: duplicate namespace \"pid\"",
    ),
    (
        "a namespace path that is not there",
        |spec| {
            remove_namespace(spec, "ipc");
            namespace(spec, json!({ "type": "ipc", "path": "/not/there" }));
        },
        "config.json: /linux/namespaces/5/path: open ipc namespace \"/not/there\": no such file or directory (ENOENT)",
    ),
    (
        "a relative namespace path",
        |spec| {
            remove_namespace(spec, "ipc");
            namespace(spec, json!({ "type": "ipc", "path": "ns/ipc" }));
        },
        "config.json: /linux/namespaces/5/path: path \"ns/ipc\" must be absolute (e.g. \"/proc/PID/ns/net\")",
    ),
    (
        "no mount namespace",
        |spec| remove_namespace(spec, "mount"),
        "config.json: /mounts: mounts require a mount namespace (add {\"type\": \"mount\"} to \
         /linux/namespaces; otherwise they would be created on the host)",
    ),
    (
        "time offsets without a time namespace",
        |spec| spec["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1 } }),
        "config.json: /linux/timeOffsets: time namespace offsets specified, but time namespace isn't enabled in the config (add {\"type\": \"time\"} to /linux/namespaces)",
    ),
    (
        "time offsets for a namespace that exists",
        |spec| {
            namespace(spec, json!({ "type": "time", "path": "/proc/1/ns/time" }));
            spec["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1 } });
        },
        "config.json: /linux/timeOffsets: both namespace path and time offsets specified: an existing \
         namespace already has its own offsets",
    ),
    (
        "a clock without an offset",
        |spec| {
            namespace(spec, json!({ "type": "time" }));
            spec["linux"]["timeOffsets"] = json!({ "realtime": { "secs": 1 } });
        },
        "config.json: /linux/timeOffsets/realtime: unknown clock \"realtime\" (use boottime or monotonic)",
    ),
    // ---- what other versions will do ----
    (
        "seccomp that would notify nobody",
        |spec| {
            spec["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }] });
        },
        "config.json: /linux/seccomp/listenerPath: seccomp listenerPath is not set (SCMP_ACT_NOTIFY \
         requires an agent: set listenerPath to the UNIX socket it listens on)",
    ),
    (
        "a hook without time",
        |spec| spec["hooks"] = json!({ "poststart": [{ "path": "/bin/true", "timeout": 0 }] }),
        "config.json: /hooks/poststart/0/timeout: timeout 0 must be greater than zero (omit it for a hook \
         without a time limit)",
    ),
    (
        "id mappings without a user namespace",
        |spec| {
            spec["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
        },
        "config.json: /linux/uidMappings: mapping ids requires a user namespace (add {\"type\": \"user\"} \
         to /linux/namespaces)",
    ),
    (
        "a user namespace without id mappings",
        |spec| namespace(spec, json!({ "type": "user" })),
        "config.json: /linux/uidMappings: required for a new user namespace (e.g. [{\"containerID\": 0, \
         \"hostID\": 100000, \"size\": 65536}], and gidMappings as well; or set the path of a user \
         namespace to join)",
    ),
    (
        "a user namespace without groups",
        |spec| {
            namespace(spec, json!({ "type": "user" }));
            spec["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
        },
        "config.json: /linux/gidMappings: required when uidMappings is set (a user namespace needs both \
         uid and gid mappings)",
    ),
    (
        "an option with a group that is not mapped",
        |spec| {
            namespace(spec, json!({ "type": "user" }));
            for field in ["uidMappings", "gidMappings"] {
                spec["linux"][field] = json!([{ "containerID": 0, "hostID": 1000, "size": 5 }]);
            }
            spec["mounts"][2]["options"] = json!(["nosuid", "mode=0620", "gid=5"]);
        },
        "config.json: /mounts/2/options/2: \"gid=5\": 5 is unmapped in the user namespace (add it to \
         /linux/gidMappings, or remove the option)",
    ),
    (
        "a user who is not mapped",
        |spec| {
            namespace(spec, json!({ "type": "user" }));
            for field in ["uidMappings", "gidMappings"] {
                spec["linux"][field] = json!([{ "containerID": 0, "hostID": 1000, "size": 9 }]);
            }
            spec["process"]["user"]["uid"] = json!(9);
        },
        "config.json: /process/user/uid: cannot setuid to unmapped uid 9 in user namespace (add it to /linux/uidMappings)",
    ),
    // ---- linux ----
    (
        "an unknown propagation",
        |spec| spec["linux"]["rootfsPropagation"] = json!("sideways"),
        "config.json: /linux/rootfsPropagation: unknown propagation \"sideways\" (use private, slave, \
         shared or unbindable, or their recursive forms rprivate, rslave, rshared or runbindable)",
    ),
    (
        "a sysctl of the host",
        |spec| spec["linux"]["sysctl"] = json!({ "vm.swappiness": "1" }),
        "config.json: /linux/sysctl/vm.swappiness: sysctl \"vm.swappiness\" is not namespaced and would \
         affect the host",
    ),
    (
        "a sysctl without its namespace",
        |spec| {
            remove_namespace(spec, "network");
            spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
        },
        "config.json: /linux/sysctl/net.ipv4.ip_forward: \"net.ipv4.ip_forward\" requires a network \
         namespace (add {\"type\": \"network\"} to /linux/namespaces)",
    ),
    (
        "two domain names",
        |spec| {
            spec["domainname"] = json!("here");
            spec["linux"]["sysctl"] = json!({ "kernel/domainname": "there" });
        },
        "config.json: /linux/sysctl/kernel~1domainname: \"there\" conflicts with /domainname \"here\" \
         (use only /domainname)",
    ),
    (
        "an inheritable capability beyond the bounding set",
        |spec| spec["process"]["capabilities"]["inheritable"] = json!(["CAP_CHOWN"]),
        "config.json: /process/capabilities/inheritable: set the capabilities: operation not permitted \
         (EPERM) (inheritable capabilities must also be in the bounding set)",
    ),
    (
        "a relative masked path",
        |spec| spec["linux"]["maskedPaths"] = json!(["proc/kcore"]),
        "config.json: /linux/maskedPaths/0: path \"proc/kcore\" must be absolute",
    ),
    (
        "a relative device path",
        |spec| {
            spec["linux"]["devices"] = json!([{ "path": "x", "type": "c", "major": 1, "minor": 3 }]);
        },
        "config.json: /linux/devices/0/path: path \"x\" must be absolute",
    ),
    (
        "a device of a user id that means no change",
        |spec| {
            spec["linux"]["devices"] =
                json!([{ "path": "/dev/x", "type": "c", "major": 1, "minor": 3, "uid": u32::MAX }]);
        },
        "config.json: /linux/devices/0/uid: invalid id 4294967295",
    ),
    (
        "a device of a group id that means no change",
        |spec| {
            spec["linux"]["devices"] =
                json!([{ "path": "/dev/x", "type": "c", "major": 1, "minor": 3, "gid": u32::MAX }]);
        },
        "config.json: /linux/devices/0/gid: invalid id 4294967295",
    ),
    (
        "a device without numbers",
        |spec| {
            spec["linux"]["devices"] = json!([{ "path": "/dev/x", "type": "c", "major": -1, "minor": 3 }]);
        },
        "config.json: /linux/devices/0/major: -1 is out of range (0 to 4095)",
    ),
    (
        "memory nodes for a policy that has none",
        |spec| spec["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_DEFAULT", "nodes": "0-7" }),
        "config.json: /linux/memoryPolicy/nodes: MPOL_DEFAULT: memory policy mode requires 0 nodes but got 8",
    ),
    (
        "a memory node out of reach",
        |spec| spec["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_BIND", "nodes": "0-9876543210" }),
        "config.json: /linux/memoryPolicy/nodes: invalid memory policy nodes \"0-9876543210\": 9876543210 \
         exceeds 65536",
    ),
    // ---- resources ----
    (
        "an unknown access",
        |spec| {
            spec["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "x" }]);
        },
        "config.json: /linux/resources/devices/0/access: invalid device access \"x\" (use letters from \"rwm\")",
    ),
    (
        "swap below memory",
        |spec| {
            spec["linux"]["resources"]["memory"] = json!({ "limit": 33_554_432, "swap": 1_000_000 });
        },
        "config.json: /linux/resources/memory/swap: 1000000: memory+swap limit should be >= memory limit, \
         33554432 (\"swap\" is the sum of memory and swap)",
    ),
    (
        "swap without memory",
        |spec| spec["linux"]["resources"]["memory"] = json!({ "swap": 1_000_000 }),
        "config.json: /linux/resources/memory/swap: 1000000: unable to set swap limit without memory \
         limit (\"swap\" is the sum of memory and swap: set \"limit\" as well)",
    ),
    (
        "a weight out of range",
        |spec| spec["linux"]["resources"]["blockIO"] = json!({ "weight": 5 }),
        "config.json: /linux/resources/blockIO/weight: weight 5 is out of range (10 to 1000)",
    ),
    (
        "an idle cpu with shares",
        |spec| spec["linux"]["resources"]["cpu"] = json!({ "shares": 512, "idle": 1 }),
        "config.json: /linux/resources/cpu/idle: 1 conflicts with \"shares\": an idle cgroup has no \
         weight (remove one of the two)",
    ),
    (
        "a unified key with a slash",
        |spec| spec["linux"]["resources"]["unified"] = json!({ "a/b.c": "1" }),
        "config.json: /linux/resources/unified/a~1b.c: unified resource \"a/b.c\" must be a file name (no slashes)",
    ),
    (
        "a cgroup path that goes up",
        |spec| spec["linux"]["cgroupsPath"] = json!("/a/../../b"),
        "config.json: /linux/cgroupsPath: \"/a/../../b\" must not contain \"..\"",
    ),
    (
        "the top of the hierarchy",
        |spec| spec["linux"]["cgroupsPath"] = json!("/"),
        "config.json: /linux/cgroupsPath: \"/\" is the root cgroup, which cannot be a container's",
    ),
];

/// The text of config.json, and what is said. Each is one line, so that columns can be counted.
const WRONG_SHAPE: &[(&str, &str, &str)] = &[
    ("nothing", "", "config.json:1:0: /: EOF while parsing a value"),
    ("no JSON", "hello", "config.json:1:1: /: expected value"),
    ("a list", "[]", "config.json:1:2: /: invalid type: sequence, expected struct Spec"),
    ("an open brace", "{\"ociVersion\": \"1.0.2\"", "config.json:1:22: /: EOF while parsing an object"),
    ("a trailing comma", "{\"ociVersion\": \"1.0.2\",}", "config.json:1:24: /: trailing comma"),
    (
        "a number for a string",
        "{\"ociVersion\": \"1.0.2\", \"process\": {\"cwd\": \"/\", \"args\": [5]}}",
        "config.json:1:58: /process/args/0: invalid type: integer `5`, expected a string",
    ),
    (
        "a string for a number",
        "{\"ociVersion\": \"1.0.2\", \"process\": {\"cwd\": \"/\", \"user\": {\"uid\": \"0\", \"gid\": 0}}}",
        "config.json:1:67: /process/user/uid: invalid type: string \"0\", expected u32",
    ),
    (
        "a number that is too large",
        "{\"ociVersion\": \"1.0.2\", \"process\": {\"cwd\": \"/\", \"user\": {\"uid\": 4294967296, \"gid\": 0}}}",
        "config.json:1:74: /process/user/uid: invalid value: integer `4294967296`, expected u32",
    ),
    (
        "an unknown namespace",
        "{\"ociVersion\": \"1.0.2\", \"linux\": {\"namespaces\": [{\"type\": \"space\"}]}}",
        "config.json:1:65: /linux/namespaces/0/type: unknown variant `space`, expected one of `mount`, `cgroup`, `uts`, `ipc`, `user`, `pid`, `network`, `time`",
    ),
    (
        "a memory policy without a mode",
        "{\"ociVersion\": \"1.0.2\", \"linux\": {\"memoryPolicy\": {\"nodes\": \"0-7\"}}}",
        "config.json:1:66: /linux/memoryPolicy/mode: invalid memory policy mode \"\", expected one of MPOL_DEFAULT, MPOL_BIND, MPOL_INTERLEAVE, MPOL_WEIGHTED_INTERLEAVE, MPOL_PREFERRED, MPOL_PREFERRED_MANY, MPOL_LOCAL",
    ),
    (
        "an unknown flag of a memory policy",
        "{\"ociVersion\": \"1.0.2\", \"linux\": {\"memoryPolicy\": {\"mode\": \"MPOL_BIND\", \"flags\": [\"badflag\"]}}}",
        "config.json:1:91: /linux/memoryPolicy/flags/0: invalid memory policy flag \"badflag\", expected one of MPOL_F_NUMA_BALANCING, MPOL_F_RELATIVE_NODES, MPOL_F_STATIC_NODES",
    ),
    (
        "an unknown resource limit",
        "{\"ociVersion\": \"1.0.2\", \"process\": {\"cwd\": \"/\", \"rlimits\": [{\"type\": \"RLIMIT_X\", \"hard\": 1, \"soft\": 1}]}}",
        "config.json:1:79: /process/rlimits/0/type: unknown variant `RLIMIT_X`, expected one of `RLIMIT_CPU`, `RLIMIT_FSIZE`, `RLIMIT_DATA`, `RLIMIT_STACK`, `RLIMIT_CORE`, `RLIMIT_RSS`, `RLIMIT_NPROC`, `RLIMIT_NOFILE`, `RLIMIT_MEMLOCK`, `RLIMIT_AS`, `RLIMIT_LOCKS`, `RLIMIT_SIGPENDING`, `RLIMIT_MSGQUEUE`, `RLIMIT_NICE`, `RLIMIT_RTPRIO`, `RLIMIT_RTTIME`",
    ),
    (
        "a string for an object",
        "{\"ociVersion\": \"1.0.2\", \"linux\": {\"resources\": {\"memory\": \"1G\"}}}",
        "config.json:1:62: /linux/resources/memory: invalid type: string \"1G\", expected struct LinuxMemory",
    ),
];

fn remove(spec: &mut Value, key: &str) {
    spec.as_object_mut().unwrap().remove(key);
}

fn mount(spec: &mut Value, mount: Value) {
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

fn namespace(spec: &mut Value, namespace: Value) {
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(namespace);
}

/// Runs it and says in what it differs from the expectation, if it does.
fn difference(name: &str, container: &Container, expected: &str) -> Option<String> {
    let output = container.run_with(NO_OPTIONS).output();
    let home = container.bundle.home.to_str().unwrap();
    let expected = expected.replace("{home}", home).replace("{id}", &container.id);
    let said = output.stderr.trim_end();
    container.leaves_nothing();
    if output.code() != 1 {
        Some(format!("{name}: exit status {}\n  said: {said}", output.code()))
    } else if is_own() && said != format!("error: {expected}") {
        Some(format!("{name}:\n  expected: error: {expected}\n  said:     {said}"))
    } else {
        None
    }
}

fn report(differences: &[String]) {
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}

fn every_broken_bundle_is_refused_with_its_message() -> Outcome {
    need(is_own() || has_controller("memory"), "the runtime of this repository: others take some of these")?;
    let broken = |(name, edit, expected): &(&str, Edit, &str)| {
        difference(name, &Container::new().edit(edit), expected)
    };
    report(&WRONG_MEANING.iter().filter_map(broken).collect::<Vec<_>>());
    Ok(())
}

fn broken_json_is_refused_with_line_and_column() {
    let broken = |(name, text, expected): &(&str, &str, &str)| {
        let container = Container::new();
        container.bundle.write_raw(text);
        difference(name, &container, expected)
    };
    report(&WRONG_SHAPE.iter().filter_map(broken).collect::<Vec<_>>());
}

fn a_bundle_that_is_none_is_refused() {
    let missing = Container::new();
    fs::remove_file(missing.bundle.path().join("config.json")).unwrap();
    let directory = Container::new();
    fs::remove_file(directory.bundle.path().join("config.json")).unwrap();
    fs::create_dir(directory.bundle.path().join("config.json")).unwrap();
    let dangling = Container::new();
    fs::remove_file(dangling.bundle.path().join("config.json")).unwrap();
    symlink("not-there", dangling.bundle.path().join("config.json")).unwrap();
    let binary = Container::new();
    fs::write(binary.bundle.path().join("config.json"), [0xff, 0xfe, 0, 1]).unwrap();
    let deep = Container::new();
    deep.bundle.write_raw(&"[".repeat(100_000));
    report(
        &[
            difference(
                "no config.json",
                &missing,
                "open bundle {home}/bundle: config.json: no such file or directory (ENOENT) (a bundle is \
                 a directory that contains config.json; `runtime spec` creates one)",
            ),
            difference(
                "config.json is a directory",
                &directory,
                "read {home}/bundle/config.json: is a directory (EISDIR) (it must be a regular file containing JSON)",
            ),
            difference(
                "config.json leads nowhere",
                &dangling,
                "open bundle {home}/bundle: config.json: no such file or directory (ENOENT) (a bundle is \
                 a directory that contains config.json; `runtime spec` creates one)",
            ),
            difference("config.json is no text", &binary, "config.json:1:1: /: expected value"),
            difference(
                "config.json is a hundred thousand brackets",
                &deep,
                "config.json:1:1: /: invalid type: sequence, expected struct Spec",
            ),
        ]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>(),
    );
}
