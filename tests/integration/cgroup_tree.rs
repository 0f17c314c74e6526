//! Where a container's cgroup can be in the hierarchy, what it requires there, and the errors if that is not
//! possible: nested and threaded cgroups, leftover cgroups of others, and the hierarchy's own limits.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::bundle::{cgroups_path, remove_namespace};
use crate::support::host::{self, CGROUPS, need, need_controller, need_other_than, need_own};
use crate::support::suite::suite;
use crate::support::{Container, Invocation, Outcome, wait_until};

suite![
    every_missing_level_hands_controllers_down,
    a_failed_create_takes_away_every_level_that_it_made,
    a_relative_path_is_beside_the_runtimes_own_cgroup,
    a_frozen_cgroup_that_exists_is_refused,
    a_cgroup_that_was_killed_before_takes_a_container,
    a_runtime_in_a_cgroup_that_was_killed_before_makes_and_enters_containers,
    a_cgroup_with_processes_below_it_is_refused,
    a_cgroup_that_hands_controllers_down_is_refused,
    a_cgroup_with_processes_above_is_named_with_the_way_out,
    a_cgroup_in_a_threaded_tree_becomes_threaded,
    a_threaded_container_is_paused_killed_and_deleted,
    a_threaded_container_that_forks_all_the_time_is_killed,
    a_limit_that_a_threaded_cgroup_cannot_have_is_refused,
    a_limit_that_a_threaded_cgroup_can_have_is_set,
    the_greatest_depth_is_named,
    the_greatest_number_of_descendants_is_named,
    the_greatest_number_of_processes_above_is_told,
    every_file_that_the_kernel_delegates_goes_to_the_owner,
    a_manager_inside_makes_cgroups_with_limits,
    a_manager_inside_without_a_cgroup_namespace_makes_cgroups,
];

/// A cgroup of the test's, which goes with what is in it.
struct Tree(PathBuf);

impl Tree {
    fn new(container: &Container) -> Self {
        // Not the container's name, by which what it leaves is found.
        let path = cgroups_path(&container.id.replace('-', "_"));
        let tree = Self(Path::new(CGROUPS).join(path.trim_start_matches('/')));
        fs::create_dir(&tree.0).unwrap();
        tree
    }

    /// As a `cgroupsPath`.
    fn path(&self, below: &str) -> String {
        format!("/{}/{below}", self.0.strip_prefix(CGROUPS).unwrap().display())
    }

    fn make(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir(&path).unwrap();
        path
    }

    fn write(&self, file: &str, value: &str) {
        fs::write(self.0.join(file), value).unwrap();
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(&self.0).unwrap().all(|entry| !entry.unwrap().file_type().unwrap().is_dir())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.freeze"), "0");
        remove(&self.0);
    }
}

/// Removes cgroups, innermost first; their processes are killed.
fn remove(path: &Path) {
    let _ = fs::write(path.join("cgroup.kill"), "1");
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    crate::support::wait::holds_within(host::patience(), || fs::remove_dir(path).is_ok() || !path.exists());
}

/// A container in `tree`, in the cgroup of its name below `above`.
fn in_tree(tree: &Tree, above: &str, container: Container) -> Container {
    let path = tree.path(&format!("{above}{}", container.id));
    container.edit(|spec| spec["linux"]["cgroupsPath"] = json!(path))
}

/// A process that stays where it is put.
struct Sleeper(std::process::Child);

impl Sleeper {
    fn in_cgroup(path: &Path) -> Self {
        let child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        fs::write(path.join("cgroup.procs"), child.id().to_string()).unwrap();
        Self(child)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn resources(change: Value) -> impl FnOnce(&mut Value) {
    move |spec| {
        for (key, value) in change.as_object().unwrap() {
            spec["linux"]["resources"][key] = value.clone();
        }
    }
}

fn writable_cgroup(spec: &mut Value) {
    for mount in spec["mounts"].as_array_mut().unwrap() {
        if mount["type"] == "cgroup" {
            mount["options"] = json!(["rw"]);
        }
    }
}

/// A controller that there is here, and a limit that needs it.
fn some_limit() -> Option<(&'static str, Value)> {
    let all = [
        ("pids", json!({ "pids": { "limit": 50 } })),
        ("memory", json!({ "memory": { "limit": 67_108_864 } })),
        ("hugetlb", json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 0 }] })),
    ];
    let there =
        |name: &str| name != "hugetlb" || Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists();
    all.into_iter().find(|(name, _)| host::has_controller(name) && there(name))
}

fn every_missing_level_hands_controllers_down() -> Outcome {
    let limit = some_limit();
    need(limit.is_some(), "a controller with a limit")?;
    let (controller, limit) = limit.unwrap();
    let container = Container::idle().edit(resources(limit));
    let tree = Tree::new(&container);
    let container = in_tree(&tree, "a/b/c/", container);
    container.create();
    for level in ["", "a", "a/b", "a/b/c"] {
        let enabled = fs::read_to_string(tree.0.join(level).join("cgroup.subtree_control")).unwrap();
        assert!(enabled.split_whitespace().any(|name| name == controller), "{level}: {enabled}");
    }
    assert_eq!(fs::read_to_string(container.cgroup().join("cgroup.subtree_control")).unwrap().trim(), "");
    container.delete_by_force();
    // The levels above may be others' by now; runc and crun leave them, too.
    assert!(!container.cgroup().exists() && tree.0.join("a/b/c").exists());
    container.leaves_nothing();
    Ok(())
}

fn a_failed_create_takes_away_every_level_that_it_made() -> Outcome {
    need_own()?;
    let container = Container::new().edit(resources(json!({ "unified": { "cgroup.nothing": "7" } })));
    let tree = Tree::new(&container);
    let container = in_tree(&tree, "a/b/c/", container);
    container.create_with([""; 0]).fails_with("cgroup.nothing");
    assert!(tree.is_empty());
    // What was there stays.
    tree.make("a");
    container.create_with([""; 0]).fails_with("cgroup.nothing");
    assert!(tree.0.join("a").exists() && !tree.0.join("a/b").exists());
    Ok(())
}

fn a_relative_path_is_beside_the_runtimes_own_cgroup() -> Outcome {
    need_other_than("crun", "goes by the root of the hierarchy")?;
    let container = Container::new();
    let tree = Tree::new(&container);
    let own = tree.make("own");
    let id = container.id.clone();
    let container = container
        .edit(|spec| spec["linux"]["cgroupsPath"] = json!(format!("deep/{id}")))
        .edit(|spec| spec["process"]["args"] = json!(["sleep", "1000"]));
    let enter = format!("echo $$ >{}/cgroup.procs;", own.display());
    container.create_with([""; 0]).after_shell(&enter).succeeds();
    let place = tree.0.join("deep").join(&id);
    assert_eq!(fs::read_to_string(place.join("cgroup.procs")).unwrap().trim(), container.pid().to_string());
    container.delete_by_force();
    assert!(!place.exists());
    Ok(())
}

fn a_frozen_cgroup_that_exists_is_refused() -> Outcome {
    need_other_than("crun", "waits for ever")?;
    let container = Container::new();
    let tree = Tree::new(&container);
    let container = in_tree(&tree, "", container);
    fs::create_dir(container.cgroup()).unwrap();
    fs::write(container.cgroup().join("cgroup.freeze"), "1").unwrap();
    container.run_with([""; 0]).fails_with("frozen");
    // It is somebody's, who has their reasons.
    assert_eq!(container.control_file("cgroup.freeze"), "1");
    fs::write(container.cgroup().join("cgroup.freeze"), "0").unwrap();
    container.run_with([""; 0]).succeeds();
    // The cgroup above it: the same, once it says that it is frozen.
    need_own()?;
    fs::create_dir(container.cgroup()).unwrap();
    tree.write("cgroup.freeze", "1");
    wait_until("it is frozen", || container.control_file("cgroup.events").contains("frozen 1"));
    container.run_with([""; 0]).fails_with("container's cgroup unexpectedly frozen");
    fs::remove_dir(container.cgroup()).unwrap();
    Ok(())
}

/// Whatever is cloned from outside into such a one the kernel may kill.
fn a_cgroup_that_was_killed_before_takes_a_container() -> Outcome {
    need_own()?;
    let tree = Tree::new(&Container::new());
    for container in [Container::idle(), Container::idle().in_user_namespace()] {
        let container = in_tree(&tree, "", container);
        fs::create_dir(container.cgroup()).unwrap();
        fs::write(container.cgroup().join("cgroup.kill"), "1").unwrap();
        container.launch();
        assert!(container.control_file("cgroup.procs").lines().any(|pid| pid == container.pid().to_string()));
        let output = container.exec(["grep", "^0::", "/proc/self/cgroup"]).succeeds();
        assert_eq!(output.stdout, "0::/\n", "{output:#?}");
        container.exec(["false"]).fails_with("");
        // Nor does it matter for one below it.
        let below = container.cgroup().join("below");
        fs::create_dir(&below).unwrap();
        fs::write(below.join("cgroup.kill"), "1").unwrap();
        let grep = ["grep", "^0::", "/proc/self/cgroup"];
        let output = container.exec_with(["--cgroup", "below"], grep).succeeds();
        assert_eq!(output.stdout, "0::/below\n", "{output:#?}");
        container.delete_by_force();
        container.leaves_nothing();
    }
    // Of one that was not killed itself.
    let container = Container::idling();
    let below = container.cgroup().join("below");
    fs::create_dir(&below).unwrap();
    fs::write(below.join("cgroup.kill"), "1").unwrap();
    container.exec_with(["--cgroup", "below"], ["true"]).succeeds();
    // Its first process has moved to a leaf, and it can hold none itself.
    if let Some(controller) = ["hugetlb", "memory"].into_iter().find(|name| host::has_controller(name)) {
        let container = in_tree(&tree, "", Container::idle());
        fs::create_dir(container.cgroup()).unwrap();
        fs::write(container.cgroup().join("cgroup.kill"), "1").unwrap();
        container.launch();
        let leaf = container.cgroup().join("leaf");
        fs::create_dir(&leaf).unwrap();
        // The shell may fork its child meanwhile.
        wait_until("all are in the leaf", || {
            let processes = container.control_file("cgroup.procs");
            processes.lines().for_each(|pid| fs::write(leaf.join("cgroup.procs"), pid).unwrap());
            processes.is_empty()
        });
        fs::write(container.cgroup().join("cgroup.subtree_control"), format!("+{controller}")).unwrap();
        let output = container.exec(["grep", "^0::", "/proc/self/cgroup"]).succeeds();
        assert_eq!(output.stdout, "0::/leaf\n", "{output:#?}");
    }
    Ok(())
}

fn a_runtime_in_a_cgroup_that_was_killed_before_makes_and_enters_containers() -> Outcome {
    need_own()?;
    let container = Container::new();
    let tree = Tree::new(&container);
    let own = tree.make("own");
    fs::write(own.join("cgroup.kill"), "1").unwrap();
    let container = in_tree(&tree, "", container);
    let script = format!("echo 0 >'{}/cgroup.procs'; exec \"$@\"", own.display());
    let from_there =
        |call: Invocation| Invocation::new("sh").args(["-c", &script, "sh"]).args(call.words()).succeeds();
    from_there(container.run_with([""; 0]));
    container.leaves_nothing();
    // Of one that was made from elsewhere.
    let container = Container::idling();
    let output = from_there(container.exec(["grep", "^0::", "/proc/self/cgroup"]));
    assert_eq!(output.stdout, "0::/\n", "{output:#?}");
    Ok(())
}

fn a_cgroup_with_processes_below_it_is_refused() -> Outcome {
    need_other_than("crun", "does not look")?;
    let container = Container::new();
    let tree = Tree::new(&container);
    let container = in_tree(&tree, "", container);
    fs::create_dir_all(container.cgroup().join("below")).unwrap();
    let sleeper = Sleeper::in_cgroup(&container.cgroup().join("below"));
    container.run_with([""; 0]).fails_with("container's cgroup is not empty");
    drop(sleeper);
    fs::remove_dir(container.cgroup().join("below")).unwrap();
    fs::remove_dir(container.cgroup()).unwrap();
    Ok(())
}

fn a_cgroup_that_hands_controllers_down_is_refused() -> Outcome {
    need_own()?;
    let limit = some_limit();
    need(
        limit.as_ref().is_some_and(|(name, _)| *name != "pids") || host::has_controller("memory"),
        "a controller of domains",
    )?;
    let name = if host::has_controller("memory") { "memory" } else { "hugetlb" };
    let container = Container::new();
    let tree = Tree::new(&container);
    let container = in_tree(&tree, "", container);
    fs::create_dir(container.cgroup()).unwrap();
    tree.write("cgroup.subtree_control", &format!("+{name}"));
    fs::write(container.cgroup().join("cgroup.subtree_control"), format!("+{name}")).unwrap();
    let output = container.run_with([""; 0]).fails_with("device or resource busy (EBUSY)");
    assert!(output.stderr.contains("the cgroup enables controllers for its children"), "{output:#?}");
    fs::remove_dir(container.cgroup()).unwrap();
    Ok(())
}

fn a_cgroup_with_processes_above_is_named_with_the_way_out() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    let container = Container::new().edit(resources(json!({ "memory": { "limit": 67_108_864 } })));
    let tree = Tree::new(&container);
    let container = in_tree(&tree, "", container);
    let sleeper = Sleeper::in_cgroup(&tree.0);
    let output = container.run_with([""; 0]).fails_with("config.json: /linux/resources/memory/limit: ");
    let above = tree.0.display();
    let words =
        format!("which {above} cannot enable for its children while it has processes itself (currently 1)");
    assert!(output.stderr.contains(&words), "{output:#?}");
    let way_out = format!(
        "mkdir {above}/init; for p in $(cat {above}/cgroup.procs); do echo $p >{above}/init/cgroup.procs; done"
    );
    assert!(output.stderr.contains(&way_out), "{output:#?}");
    // As it says.
    Invocation::new("sh").args(["-c", &way_out]).succeeds();
    container.run_with([""; 0]).succeeds();
    drop(sleeper);
    Ok(())
}

/// A tree that has threads of one process in several cgroups.
fn threaded_tree(container: &Container) -> Tree {
    let tree = Tree::new(container);
    fs::write(tree.make("threads").join("cgroup.type"), "threaded").unwrap();
    tree
}

fn a_cgroup_in_a_threaded_tree_becomes_threaded() -> Outcome {
    let container = Container::idle();
    let tree = threaded_tree(&container);
    let container = in_tree(&tree, "", container);
    container.create();
    assert_eq!(container.control_file("cgroup.type"), "threaded");
    let pid = container.pid().to_string();
    assert!(container.control_file("cgroup.threads").lines().any(|thread| thread == pid));
    container.start();
    container.terminate();
    container.wait_for("stopped");
    container.delete();
    container.leaves_nothing();
    Ok(())
}

/// A threaded cgroup knows threads alone, and not cgroup.kill.
fn a_threaded_container_is_paused_killed_and_deleted() -> Outcome {
    need_own()?;
    let script = "sleep 1000 & sleep 1000 & echo ready; wait";
    for is_private in [true, false] {
        let container = Container::with_script(script).edit(|spec| {
            if !is_private {
                remove_namespace(spec, "pid");
            }
        });
        let tree = threaded_tree(&container);
        let container = in_tree(&tree, "", container);
        container.launch().wait_for_stdout("ready");
        assert_eq!(container.control_file("cgroup.threads").lines().count(), 3);
        container.on_id("pause").succeeds();
        assert_eq!(container.state()["status"], "paused");
        container.on_id("resume").succeeds();
        container.exec(["true"]).succeeds();
        container.kill("KILL");
        container.wait_for("stopped");
        wait_until("all have ended", || container.control_file("cgroup.threads").is_empty());
        container.delete();
        container.leaves_nothing();

        let container = in_tree(&tree, "again-", container);
        container.launch().wait_for_stdout("ready");
        container.on_id("pause").succeeds();
        container.delete_by_force();
        container.leaves_nothing();
    }
    Ok(())
}

fn a_threaded_container_that_forks_all_the_time_is_killed() -> Outcome {
    need_own()?;
    let script = "for i in 1 2 3 4; do (while :; do sh -c :; done) & done; echo ready; wait";
    let container = Container::with_script(script).edit(|spec| remove_namespace(spec, "pid"));
    let tree = threaded_tree(&container);
    let container = in_tree(&tree, "", container);
    container.launch().wait_for_stdout("ready");
    container.kill("KILL");
    wait_until("all have ended", || container.control_file("cgroup.threads").is_empty());
    container.delete();
    container.leaves_nothing();
    Ok(())
}

fn a_limit_that_a_threaded_cgroup_cannot_have_is_refused() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    let container = Container::new().edit(resources(json!({ "memory": { "limit": 67_108_864 } })));
    let tree = threaded_tree(&container);
    let container = in_tree(&tree, "", container);
    let output = container.run_with([""; 0]).fails_with("config.json: /linux/resources/memory/limit: ");
    assert!(output.stderr.contains("cannot enter cgroup"), "{output:#?}");
    assert!(output.stderr.contains("with domain controllers such as memory"), "{output:#?}");
    assert!(!container.cgroup().exists());
    Ok(())
}

fn a_limit_that_a_threaded_cgroup_can_have_is_set() -> Outcome {
    need_own()?;
    need_controller("pids")?;
    let container = Container::idle().edit(resources(json!({ "pids": { "limit": 17 } })));
    let tree = threaded_tree(&container);
    let container = in_tree(&tree, "deep/", container);
    container.launch();
    assert_eq!(container.control_file("cgroup.type"), "threaded");
    assert_eq!(container.control_file("pids.max"), "17");
    container.delete_by_force();
    container.leaves_nothing();
    Ok(())
}

fn the_greatest_depth_is_named() -> Outcome {
    need_own()?;
    let container = Container::new();
    let tree = Tree::new(&container);
    tree.write("cgroup.max.depth", "2");
    let deep = in_tree(&tree, "a/b/", container);
    let output = deep.run_with([""; 0]).fails_with("try again (EAGAIN)");
    let words = format!("{}/cgroup.max.depth is 2: raise it", tree.0.display());
    assert!(output.stderr.contains(&words), "{output:#?}");
    assert!(tree.is_empty());
    in_tree(&tree, "a/", deep).run_with([""; 0]).succeeds();
    Ok(())
}

fn the_greatest_number_of_descendants_is_named() -> Outcome {
    need_own()?;
    let container = Container::new();
    let tree = Tree::new(&container);
    tree.make("other");
    tree.write("cgroup.max.descendants", "1");
    let container = in_tree(&tree, "", container);
    let output = container.run_with([""; 0]).fails_with("try again (EAGAIN)");
    let words = format!("{}/cgroup.max.descendants is 1: raise it", tree.0.display());
    assert!(output.stderr.contains(&words), "{output:#?}");
    tree.write("cgroup.max.descendants", "2");
    container.run_with([""; 0]).succeeds();
    Ok(())
}

fn the_greatest_number_of_processes_above_is_told() -> Outcome {
    need_own()?;
    need_controller("pids")?;
    let container = Container::new();
    let tree = Tree::new(&container);
    tree.write("pids.max", "0");
    let container = in_tree(&tree, "", container);
    let output = container.run_with([""; 0]).fails_with("try again (EAGAIN)");
    assert!(output.stderr.contains("check pids.max of the cgroup and its parents"), "{output:#?}");
    assert!(tree.is_empty());
    Ok(())
}

fn every_file_that_the_kernel_delegates_goes_to_the_owner() -> Outcome {
    use std::os::unix::fs::MetadataExt as _;
    need_other_than("runc", "gives it away with systemd only")?;
    let list = fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap();
    let container = Container::idle().in_user_namespace().edit(writable_cgroup);
    container.launch();
    let root = crate::support::container::ROOT_OUTSIDE[0];
    let mut given = 0;
    for entry in fs::read_dir(container.cgroup()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let is_listed = list.lines().any(|listed| listed == name);
        let owner = entry.metadata().unwrap().uid();
        assert_eq!(owner, if is_listed { root } else { 0 }, "{name}");
        given += u32::from(is_listed);
    }
    assert!(given >= 3);
    Ok(())
}

const MANAGERS: [&str; 12] = [
    "CAP_SYS_ADMIN",
    "CAP_NET_ADMIN",
    "CAP_DAC_OVERRIDE",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_MKNOD",
    "CAP_CHOWN",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
    "CAP_NET_BIND_SERVICE",
];

/// Makes a bundle inside, of a container with a limit that says what it has, and runs it before and after the processes are moved
/// into a leaf.
const MANAGE: &str = r##"
    set -e
    mkdir -p /run/b/rootfs/proc /run/b/rootfs/dev /run/b/rootfs/sys
    cp -a /bin /run/b/rootfs/bin
    $RUNTIME spec --bundle /run/b
    sed -i -e 's/"terminal": true/"terminal": false/' -e 's/"resources": {/"resources": {"memory": {"limit": 33554432},/'         -e 's#"sh"#"cat", "/sys/fs/cgroup/memory.max"#' /run/b/config.json
    $RUNTIME run --bundle /run/b early 2>&1 | sed 's/^/early: /' || true
    cd /sys/fs/cgroup
    mkdir leaf
    for p in $(cat cgroup.procs); do echo $p >leaf/cgroup.procs || true; done 2>/dev/null
    echo "inner: $($RUNTIME run --bundle /run/b inner)"
    $RUNTIME run --detach --bundle /run/b other >/dev/null
    $RUNTIME delete --force other
    grep -qw memory cgroup.subtree_control && echo handed down
    find . -name inner -o -name other | sed 's/^/left: /'
"##;

/// A container that can do what a container manager does, with the runtime in it and, for one that is not static, what it is
/// linked with.
fn manager(script: &str) -> Container {
    let directory = host::runtime().parent().unwrap().to_owned();
    let program = host::runtime().file_name().unwrap().to_str().unwrap().to_owned();
    Container::with_script(script).edit(|spec| {
        writable_cgroup(spec);
        let mount = |source: &Path, destination: &str| {
            json!({ "destination": destination, "type": "bind", "source": source, "options": ["bind", "ro"] })
        };
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.push(mount(&directory, "/opt/runtime"));
        for path in ["/lib64", "/usr/lib", "/lib"] {
            if Path::new(path).is_dir() {
                mounts.push(mount(Path::new(path), path));
            }
        }
        mounts.push(json!({ "destination": "/run", "type": "tmpfs", "source": "tmpfs" }));
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set] = json!(MANAGERS);
        }
        spec["process"]["noNewPrivileges"] = json!(false);
        spec["process"]["env"].as_array_mut().unwrap().push(json!(format!("RUNTIME=/opt/runtime/{program}")));
        for field in ["maskedPaths", "readonlyPaths"] {
            spec["linux"][field] = json!([]);
        }
        spec["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]);
    })
}

#[track_caller]
fn manages(container: Container, early: &str) {
    let output = container.run();
    assert_eq!(output.code(), 0, "{output:#?}");
    let early_line = output.stdout.lines().find_map(|line| line.strip_prefix("early: "));
    assert!(early_line.is_some_and(|line| line.contains(early)), "{output:#?}");
    assert!(output.stdout.ends_with("inner: 33554432\nhanded down\n"), "{output:#?}");
    container.leaves_nothing();
}

/// While the manager is where it was born, its cgroup has no controllers to give.
fn a_manager_inside_makes_cgroups_with_limits() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    manages(manager(MANAGE), "cannot enable for its children while it has processes itself");
    Ok(())
}

/// There it sees all of the host's cgroups, and makes its own beside that which it is in.
fn a_manager_inside_without_a_cgroup_namespace_makes_cgroups() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    manages(manager(MANAGE).edit(|spec| remove_namespace(spec, "cgroup")), "33554432");
    Ok(())
}
