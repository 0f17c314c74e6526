//! What Docker, containerd, CRI, Podman, Buildah, BuildKit and CRI-O really ask for.
//!
//! `tests/fixtures/clients` holds files that these programs wrote, untouched. Each config.json is fitted to this host:
//! a root file system, sources of bind mounts, namespaces to join and a program that exist here. Then `create` accepts
//! it, or names the field that this version or this host lacks.

use std::{fs, path::Path};

use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde_json::{Value, json};

use crate::support::{
    Container, Outcome,
    container::NO_OPTIONS,
    host::{has_capability, has_controller, need_own},
    suite::suite,
};

suite![
    every_file_has_the_shape_of_its_type,
    every_config_is_accepted_or_names_what_it_lacks,
    every_config_without_what_this_version_lacks_is_accepted,
    every_process_is_executed,
];

const FIXTURES: &str = "tests/fixtures/clients";

fn files(suffix: &str) -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(FIXTURES)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(suffix))
        .map(|name| (fs::read_to_string(Path::new(FIXTURES).join(&name)).unwrap(), name))
        .map(|(text, name)| (name, text))
        .collect();
    files.sort();
    files
}

fn every_file_has_the_shape_of_its_type() {
    let mut wrong = Vec::new();
    for (name, text) in files(".json") {
        let result = if name.ends_with("-config.json") {
            serde_json::from_str::<Spec>(&text).map(drop)
        } else if name.ends_with("-process.json") {
            serde_json::from_str::<Process>(&text).map(drop)
        } else {
            serde_json::from_str::<LinuxResources>(&text).map(drop)
        };
        wrong.extend(result.err().map(|error| format!("{name}: {error}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(files(".json").len(), 86);
}

/// Whether a mount's target is a file; there is no other way to tell from the config alone.
fn is_file(destination: &str) -> bool {
    let names =
        ["hosts", "hostname", "resolv.conf", ".containerenv", "docker-init", "termination-log", "catatonit"];
    let name = destination.rsplit('/').next().unwrap();
    names.contains(&name)
        || destination.starts_with("/run/secrets/")
        || destination.starts_with("/run/podman-init")
}

/// A container of this client's config, fitted to this host.
fn fitted(mut spec: Value, neighbour: &Container) -> Container {
    let container = Container::new();
    spec["root"]["path"] = json!("rootfs");
    spec["process"]["args"] = json!(["/bin/true"]);
    spec["process"]["terminal"] = json!(false);
    spec["linux"]["cgroupsPath"] = container.bundle.spec["linux"]["cgroupsPath"].clone();
    for (i, mount) in spec["mounts"].as_array_mut().unwrap().iter_mut().enumerate() {
        if mount["type"] == "bind" {
            let source = container.beside(&format!("source-{i}"));
            if is_file(mount["destination"].as_str().unwrap()) {
                fs::write(&source, "").unwrap();
            } else {
                fs::create_dir(&source).unwrap();
            }
            mount["source"] = json!(source);
        }
    }
    for namespace in spec["linux"]["namespaces"].as_array_mut().into_iter().flatten() {
        if namespace["path"].as_str().is_some_and(|path| !path.is_empty()) {
            let kind = namespace["type"].as_str().unwrap().replace("network", "net");
            namespace["path"] = json!(format!("/proc/{}/ns/{kind}", neighbour.pid()));
        }
    }
    // The process whose program BuildKit names here is its own.
    for kind in spec["hooks"].as_object_mut().into_iter().flatten() {
        for hook in kind.1.as_array_mut().unwrap() {
            hook["path"] = json!("/bin/true");
        }
    }
    container.edit(|own| *own = spec)
}

/// A running container whose namespaces can be joined.
fn neighbour() -> Container {
    let container = Container::idle();
    container.launch();
    container
}

/// The pointers of what belongs to later versions.
fn of_later_versions(spec: &Value) -> Vec<String> {
    let mut pointers = Vec::new();
    if spec["linux"]["seccomp"].is_object() {
        pointers.push("/linux/seccomp".to_owned());
    }
    for (i, namespace) in spec["linux"]["namespaces"].as_array().into_iter().flatten().enumerate() {
        let is_user = |namespace: &Value| namespace["type"] == "user";
        let joins = namespace["path"].is_string()
            && spec["linux"]["namespaces"].as_array().unwrap().iter().any(is_user);
        if joins {
            pointers.push(format!("/linux/namespaces/{i}"));
        }
    }
    for (i, mount) in spec["mounts"].as_array().into_iter().flatten().enumerate() {
        let options = mount["options"].as_array().into_iter().flatten();
        let idmapped = options.filter_map(Value::as_str).any(|option| option.contains("idmap"));
        if idmapped || mount["uidMappings"].is_array() {
            pointers.push(format!("/mounts/{i}"));
        }
    }
    pointers
}

/// The pointers of what this host cannot give.
fn beyond_this_host() -> Vec<&'static str> {
    let mut pointers = Vec::new();
    for (controller, places) in [
        ("memory", &["/linux/resources/memory"] as &[_]),
        ("cpu", &["/linux/resources/cpu"]),
        ("cpuset", &["/linux/resources/cpu/cpus", "/linux/resources/cpu/mems"]),
        ("pids", &["/linux/resources/pids"]),
        ("io", &["/linux/resources/blockIO"]),
        ("hugetlb", &["/linux/resources/hugepageLimits"]),
    ] {
        if !has_controller(controller) {
            pointers.extend(places);
        }
    }
    if !has_capability(24) {
        pointers.extend(["/process/rlimits", "/process/oomScoreAdj"]);
    }
    // A device to throttle that this host has not, and weights its scheduler does not know.
    pointers.push("/linux/resources/blockIO");
    pointers
}

fn created_or_refused_at(container: &Container, allowed: &[String]) -> Result<(), String> {
    let output = container.create_with(NO_OPTIONS).output();
    let pointers = allowed.iter().any(|pointer| output.stderr.contains(&format!("config.json: {pointer}")));
    if output.code() == 0 {
        container.delete_by_force();
    }
    container.leaves_nothing();
    if output.code() == 0 || pointers { Ok(()) } else { Err(output.stderr) }
}

fn every_config_is_accepted_or_names_what_it_lacks() -> Outcome {
    need_own()?;
    let neighbour = neighbour();
    let mut wrong = Vec::new();
    for (name, text) in files("-config.json") {
        let spec: Value = serde_json::from_str(&text).unwrap();
        let later = of_later_versions(&spec);
        let container = fitted(spec, &neighbour);
        let allowed: Vec<_> = if later.is_empty() {
            beyond_this_host().into_iter().map(ToOwned::to_owned).collect()
        } else {
            later.clone()
        };
        if let Err(said) = created_or_refused_at(&container, &allowed) {
            wrong.push(format!("{name}: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn every_config_without_what_this_version_lacks_is_accepted() -> Outcome {
    let beyond: Vec<_> = beyond_this_host().into_iter().map(ToOwned::to_owned).collect();
    let neighbour = neighbour();
    let mut wrong = Vec::new();
    for (name, text) in files("-config.json") {
        let mut spec: Value = serde_json::from_str(&text).unwrap();
        if of_later_versions(&spec).iter().any(|pointer| pointer != "/linux/seccomp" && pointer != "/hooks") {
            continue; // Nothing much remains of a container without its namespaces.
        }
        spec["linux"].as_object_mut().unwrap().remove("seccomp");
        let container = fitted(spec, &neighbour);
        if let Err(said) = created_or_refused_at(&container, &beyond) {
            wrong.push(format!("{name}: {said}"));
        }
    }
    need_own()?;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// As the shim and conmon call `exec`, in a container of the usual kind.
fn every_process_is_executed() -> Outcome {
    need_own()?;
    let container = Container::idle();
    container.launch();
    let mut wrong = Vec::new();
    for (name, text) in files("-process.json") {
        let process: Value = serde_json::from_str(&text).unwrap();
        let file = container.beside(&name);
        fs::write(&file, &text).unwrap();
        let pid_file = container.beside("exec.pid");
        let mut options = vec!["--process", file.to_str().unwrap(), "--pid-file", pid_file.to_str().unwrap()];
        let args: Vec<_> = process["args"].as_array().unwrap().iter().flat_map(Value::as_str).collect();
        if args[0] == "sleep" {
            options.push("--detach");
        }
        let output = container.exec_with(options, NO_OPTIONS).output();
        let of_this_host = ["/rlimits", "/oomScoreAdj"].map(|field| format!("process.json: {field}"));
        if output.code() == 255
            && !has_capability(24)
            && of_this_host.iter().any(|pointer| output.stderr.contains(pointer))
        {
            continue;
        }
        let variable = |name: &str| {
            let entries = process["env"].as_array().unwrap().iter().flat_map(Value::as_str);
            entries.filter_map(|entry| entry.strip_prefix(name)).next_back().unwrap_or_default().to_owned()
        };
        let (code, says) = match args[..] {
            ["/nosuch"] => (255, String::new()),
            ["sh", "-c", "exit 7"] => (7, String::new()),
            ["test", ..] | ["rm", ..] | ["/bin/sh", "-c", "test -f /tmp/ok"] => (1, String::new()),
            ["sh", "-c", "echo $K"] => (0, variable("K=")),
            ["sh", "-c", "id; pwd; echo $Q"] => (0, format!("\n/tmp\n{}", variable("Q="))),
            ["tty"] => (0, "/dev/pts/".to_owned()),
            ["cat", ..] => (0, "4294967295".to_owned()),
            ["grep", ..] => (0, "NoNewPrivs".to_owned()),
            ["echo", word] => (0, word.to_owned()),
            ["sleep", _] => (0, String::new()),
            _ => panic!("{name}: what is {args:?}?"),
        };
        if output.code() != code || !output.stdout.contains(&says) {
            wrong.push(format!("{name}: {output:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
