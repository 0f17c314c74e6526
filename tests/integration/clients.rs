//! Configurations of Docker, containerd, CRI, Podman, Buildah, BuildKit and CRI-O.
//!
//! `tests/fixtures/clients` holds files written by these programs, unmodified. Each config.json is adapted to
//! this host with an existing rootfs, bind mount sources, namespaces to join and program. Then it is run,
//! without those fields for which the runtime reports that this host lacks support.

use std::fs;
use std::path::Path;

use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde_json::{Value, json};

use crate::support::bundle::user_namespace;
use crate::support::container::NO_OPTIONS;
use crate::support::host::{has_capability, has_controller, need_id_mapping, need_own};
use crate::support::suite::suite;
use crate::support::{Container, Outcome, workspace};

suite![
    every_file_has_the_shape_of_its_type,
    every_config_runs_but_for_what_this_host_lacks,
    every_process_runs_in_a_container,
    podmans_container_without_cgroups_stays_in_its_callers,
    every_change_of_limits_is_made_to_a_container,
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
    let root = |field: &str| spec["linux"][field][0]["hostID"].as_u64().map(|id| id.try_into().unwrap());
    let owners = root("uidMappings").zip(root("gidMappings"));
    let container = container.edit(|own| *own = spec);
    match owners {
        Some((user, group)) => container.owned_by(user, group),
        None => container,
    }
}

/// Running containers whose namespaces can be joined.
struct Neighbours {
    plain: Container,
    /// With a user namespace, to which the others belong.
    mapped: Container,
}

impl Neighbours {
    fn new() -> Self {
        // As the one container that joins a user namespace says, too, that it maps.
        let ids = [[0, 100_000, 65536]];
        let mapped = Container::idle().edit(|spec| user_namespace(spec, &ids, &ids));
        let neighbours = Self { plain: Container::idle(), mapped: mapped.owned_by(100_000, 100_000) };
        neighbours.plain.launch();
        neighbours.mapped.launch();
        neighbours
    }

    /// The one that `spec` can join.
    fn of(&self, spec: &Value) -> &Container {
        let mut namespaces = spec["linux"]["namespaces"].as_array().into_iter().flatten();
        let joins_user =
            namespaces.any(|namespace| namespace["type"] == "user" && namespace["path"].is_string());
        if joins_user { &self.mapped } else { &self.plain }
    }
}

/// What this version cannot do: the places of its refusals, and what to take out so that the rest is tried, too. What nobody is
/// refused for any more fails the test.
const OF_LATER_VERSIONS: &[(&str, Option<&str>)] = &[];

/// The places of what this host cannot give.
fn beyond_this_host() -> Vec<&'static str> {
    let mut places = Vec::new();
    for (controller, limits) in [
        ("memory", &["/linux/resources/memory"] as &[_]),
        ("cpuset", &["/linux/resources/cpu/cpus", "/linux/resources/cpu/mems"]),
        ("cpu", &["/linux/resources/cpu"]),
        ("pids", &["/linux/resources/pids"]),
        ("hugetlb", &["/linux/resources/hugepageLimits"]),
    ] {
        if !has_controller(controller) {
            places.extend(limits);
        }
    }
    if !has_capability(24) {
        places.extend(["/process/rlimits", "/process/oomScoreAdj"]);
    }
    if need_id_mapping(workspace::directory()).is_err() {
        places.extend(["/mounts/0/uidMappings", "/mounts/7/uidMappings", "/mounts/8/uidMappings"]);
        places.push("/mounts/9/uidMappings");
    }
    // A device to throttle that this host has not, and weights its scheduler does not know.
    places.push("/linux/resources/blockIO");
    places
}

/// The place in `document` that the refusal names.
fn place(document: &str, stderr: &str) -> String {
    let rest = stderr.split_once(&format!("{document}: /")).map_or("", |(_, rest)| rest);
    format!("/{}", rest.split_once(": ").map_or("", |(place, _)| place))
}

fn take_out(document: &mut Value, place: &str) {
    let (parent, field) = place.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    parent.remove(field).unwrap();
    if field == "uidMappings" {
        parent.remove("gidMappings");
    }
}

/// What this host lacks is taken out, place by place, and then everything must run.
fn every_config_runs_but_for_what_this_host_lacks() -> Outcome {
    need_own()?;
    let neighbours = Neighbours::new();
    let beyond = beyond_this_host();
    let mut later = OF_LATER_VERSIONS.to_vec();
    let mut wrong = Vec::new();
    for (name, text) in files("-config.json") {
        let mut spec: Value = serde_json::from_str(&text).unwrap();
        loop {
            let container = fitted(spec.clone(), neighbours.of(&spec));
            let output = container.run_with(NO_OPTIONS).output();
            container.leaves_nothing();
            if output.code() == 0 {
                break;
            }
            let at = place("config.json", &output.stderr);
            let is_later = OF_LATER_VERSIONS.iter().find(|(place, _)| at.starts_with(place));
            later.retain(|entry| Some(entry) != is_later);
            match (beyond.iter().find(|place| at.starts_with(**place)), is_later) {
                (Some(place), _) | (_, Some((_, Some(place)))) => take_out(&mut spec, place),
                (_, Some((_, None))) => break,
                _ => {
                    wrong.push(format!("{name}: {}", output.stderr));
                    break;
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(later.is_empty(), "nobody is refused for {later:?} any more");
    Ok(())
}

/// Each asks for a program in a container that runs: here one of ours, and the program one that is there.
fn every_process_runs_in_a_container() -> Outcome {
    need_own()?;
    let container = Container::idle();
    container.launch();
    let mut wrong = Vec::new();
    let beyond: Vec<_> =
        beyond_this_host().into_iter().filter_map(|place| place.strip_prefix("/process")).collect();
    for (name, text) in files("-process.json") {
        let mut process: Value = serde_json::from_str(&text).unwrap();
        process["args"] = json!(["sh", "-c", "echo $0 yes", name]);
        process["terminal"] = json!(false);
        let output = loop {
            let file = container.beside("process.json");
            fs::write(&file, process.to_string()).unwrap();
            let exec = container.runtime().args(["exec", "--process"]).arg(&file).arg(&container.id);
            let output = exec.output();
            let at = place("process.json", &output.stderr);
            match beyond.iter().find(|place| at.starts_with(**place)) {
                Some(place) => take_out(&mut process, place),
                None => break output,
            }
        };
        if output.stdout != format!("{name} yes\n") {
            wrong.push(format!("{name}: {output:#?}"));
        }
    }
    container.delete_by_force();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn podmans_container_without_cgroups_stays_in_its_callers() -> Outcome {
    need_own()?;
    let path = Path::new(FIXTURES).join("podman-run-cgroups-disabled-config.json");
    let mut spec: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    if !has_capability(24) {
        take_out(&mut spec, "/process/rlimits");
    }
    let neighbour = Container::idle();
    neighbour.launch();
    let container = fitted(spec, &neighbour);
    // In front of the command, in two words.
    let call = container.runtime().args(["--cgroup-manager", "disabled", "create", "--bundle"]);
    call.arg(container.bundle.path()).arg(&container.id).succeeds();
    assert!(!container.cgroup().exists());
    container.delete_by_force();
    container.leaves_nothing();
    Ok(())
}

/// As containerd's shim passes it: on standard input, with zeros for what stays.
fn every_change_of_limits_is_made_to_a_container() -> Outcome {
    need_own()?;
    let container = Container::idle();
    container.launch();
    let beyond: Vec<_> =
        beyond_this_host().into_iter().filter_map(|place| place.strip_prefix("/linux/resources")).collect();
    let mut wrong = Vec::new();
    for (name, text) in files("-resources.json") {
        let mut resources: Value = serde_json::from_str(&text).unwrap();
        loop {
            let file = container.beside("resources.json");
            fs::write(&file, resources.to_string()).unwrap();
            let update = container.runtime().args(["update", "--resources=-", &container.id]);
            let output = update.stdin(fs::File::open(&file).unwrap()).output();
            if output.code() == 0 {
                break;
            }
            let at = place("standard input", &output.stderr);
            let Some(place) = beyond.iter().find(|place| at.starts_with(**place)) else {
                wrong.push(format!("{name}: {output:#?}"));
                break;
            };
            take_out(&mut resources, place);
        }
    }
    container.delete_by_force();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
