//! Accepted forms of config.json: Go programs write `null` for unset fields, and newer ones write unknown
//! fields.

use serde_json::{Value, json};

use crate::support::host::{is_own, need_other_than};
use crate::support::suite::suite;
use crate::support::{Container, Outcome};

suite![
    null_is_nothing_wherever_it_stands,
    a_process_without_a_user_is_roots,
    what_is_said_to_other_platforms_means_nothing_here,
    a_property_that_nobody_knows_is_ignored,
    any_version_of_the_specification_is_taken,
    an_array_is_no_object,
];

/// A container that says who and where it is.
fn who() -> Container {
    Container::with_script("echo $(id -u):$(id -g) in $(pwd)")
}

fn null_is_nothing_wherever_it_stands() -> Outcome {
    need_other_than("crun", "takes null for a value in some places")?;
    let container = who().edit(|spec| {
        let process = &mut spec["process"];
        for field in [
            "terminal",
            "consoleSize",
            "rlimits",
            "apparmorProfile",
            "selinuxLabel",
            "oomScoreAdj",
            "scheduler",
            "ioPriority",
            "execCPUAffinity",
        ] {
            process[field] = Value::Null;
        }
        process["user"] = json!({ "uid": null, "gid": null, "additionalGids": null, "umask": null });
        process["capabilities"]["ambient"] = Value::Null;
        spec["root"]["readonly"] = Value::Null;
        spec["mounts"][0]["options"] = Value::Null;
        for field in ["domainname", "annotations", "solaris", "windows", "vm"] {
            spec[field] = Value::Null;
        }
        spec["hooks"] = json!({ "prestart": null, "poststop": null });
        let linux = &mut spec["linux"];
        for field in [
            "sysctl",
            "devices",
            "seccomp",
            "rootfsPropagation",
            "mountLabel",
            "intelRdt",
            "memoryPolicy",
            "personality",
            "timeOffsets",
            "netDevices",
            "uidMappings",
            "gidMappings",
        ] {
            linux[field] = Value::Null;
        }
        linux["namespaces"][0]["path"] = Value::Null;
        linux["resources"]["pids"] = json!({ "limit": null });
        for field in ["memory", "cpu", "blockIO", "hugepageLimits", "rdma", "network", "unified"] {
            linux["resources"][field] = Value::Null;
        }
    });
    assert_eq!(container.says(), "0:0 in /");
    Ok(())
}

fn a_process_without_a_user_is_roots() {
    let container = who().edit(|spec| {
        spec["process"].as_object_mut().unwrap().remove("user");
    });
    assert_eq!(container.says(), "0:0 in /");
}

fn what_is_said_to_other_platforms_means_nothing_here() -> Outcome {
    need_other_than("crun", "decodes what it then ignores")?;
    need_other_than("runc", "decodes what it then ignores")?;
    let container = who().edit(|spec| {
        spec["windows"] = json!({ "layerFolders": 5, "new": [1, 2] });
        spec["solaris"] = json!("x");
        spec["freebsd"] = json!({ "jail": {} });
    });
    assert_eq!(container.says(), "0:0 in /");
    Ok(())
}

fn a_property_that_nobody_knows_is_ignored() {
    let container = who().edit(|spec| {
        spec["novelty"] = json!({ "a": [1] });
        spec["process"]["novelty"] = json!(true);
        spec["linux"]["resources"]["novelty"] = json!({ "limit": 5 });
        spec["mounts"][0]["novelty"] = Value::Null;
    });
    assert_eq!(container.says(), "0:0 in /");
}

fn any_version_of_the_specification_is_taken() {
    for version in ["1.3.0", "1.99.0-dev", "1.0.0-rc5", "2.0.0", "version one", ""] {
        let container = who().edit(|spec| spec["ociVersion"] = json!(version));
        assert_eq!(container.says(), "0:0 in /", "{version}");
    }
}

fn an_array_is_no_object() -> Outcome {
    need_other_than("crun", "takes some for nothing")?;
    type Edit = fn(&mut Value);
    let edits: [(Edit, &str); 3] = [
        (|spec| spec["process"]["user"] = json!([1000, 1000]), "/process/user"),
        (|spec| spec["root"] = json!(["rootfs", true]), "/root"),
        (|spec| spec["hooks"] = json!([]), "/hooks"),
    ];
    for (edit, place) in edits {
        let container = who().edit(edit);
        let output = container.run_fails_with("");
        assert!(
            !is_own() || output.stderr.contains(&format!(": {place}: invalid type: sequence")),
            "{}",
            output.stderr
        );
    }
    Ok(())
}
