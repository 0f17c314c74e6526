//! Rootless containers: no privileges outside their user namespaces.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::bundle::{add_mount, bind, join_namespace, remove_namespace};
use crate::support::container::NO_OPTIONS;
use crate::support::host::{
    CGROUPS, cgroup_parent, has_controller, is_own, kind, need, need_other_than, need_own, need_program,
};
use crate::support::process::Running;
use crate::support::suite::suite;
use crate::support::user::{self, GID, RANGE, UID, need_ranges, need_user_namespaces};
use crate::support::{Container, Invocation, Outcome, wait_until, workspace};
use crate::terminal::{ConsoleSocket, read_all};

suite![
    what_spec_writes_runs,
    the_state_is_in_the_directory_of_the_session,
    without_such_a_directory_it_is_said,
    root_inside_is_the_user_outside,
    a_container_of_a_user_lives_like_any_other,
    without_a_user_namespace_it_is_refused,
    ids_that_are_granted_are_mapped,
    a_mapped_user_with_groups_runs_the_program,
    ids_that_are_not_granted_are_refused_with_what_the_tool_says,
    without_the_tool_it_is_said,
    more_groups_need_a_mapping_that_is_granted,
    a_new_network_has_lo_up,
    devices_are_those_of_the_host,
    device_rules_that_cannot_be_enforced_are_left_out,
    a_limit_without_a_cgroup_is_refused,
    a_cgroup_that_may_not_be_made_is_refused_if_it_is_named,
    a_cgroup_that_is_the_users_is_used,
    limits_are_enforced_in_a_cgroup_that_is_the_users,
    without_a_cgroup_killing_ends_the_container,
    a_container_without_cgroup_and_pid_namespace_is_warned_of,
    ids_of_mounts_are_not_mapped,
    what_the_user_cannot_reach_is_named,
    the_terminal_works,
    the_oom_score_can_be_raised,
    the_user_namespace_of_another_container_is_joined,
    exec_works_without_privileges_too,
    exec_works_before_the_start_too,
    root_of_a_user_namespace_makes_containers,
    root_of_a_user_namespace_joins_a_pid_namespace,
    root_of_a_user_namespace_makes_another_below,
    root_of_a_user_namespace_has_its_state_in_the_session,
    rootless_false_excuses_nothing,
];

/// A container of the user's, as `spec --rootless` writes it.
fn container(script: &str) -> Container {
    Container::with_script(script).of_user()
}

fn owner(path: &Path) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

/// Maps the user and the ids that are granted to it.
fn with_ranges(spec: &mut Value) {
    for (field, id) in [("uidMappings", UID), ("gidMappings", GID)] {
        spec["linux"][field] = json!([
            { "containerID": 0, "hostID": id, "size": 1 },
            { "containerID": 1, "hostID": RANGE, "size": 65536 }
        ]);
    }
}

fn what_spec_writes_runs() -> Outcome {
    need_user_namespaces()?;
    let container = container("true");
    let session = session(&container);
    let config = container.bundle.path().join("config.json");
    fs::remove_file(&config).unwrap();
    let call = |words: &[&str]| {
        user_call().args(words).env("XDG_RUNTIME_DIR", &session).current_dir(container.bundle.path())
    };
    call(&["spec", "--rootless"]).succeeds();
    let mut spec: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["sh", "-c", "id -u; hostname"]);
    container.bundle.write_raw(&spec.to_string());
    let said = call(&["run", &container.id]).succeeds().stdout;
    assert_eq!(said, format!("0\n{}\n", spec["hostname"].as_str().unwrap()));
    container.leaves_nothing();
    Ok(())
}

/// The runtime, called by the user.
fn user_call() -> Invocation {
    Invocation::new(user::runtime()).by_user()
}

fn session(container: &Container) -> PathBuf {
    let path = container.beside("session");
    fs::create_dir(&path).unwrap();
    user::give(&path);
    path
}

fn the_state_is_in_the_directory_of_the_session() -> Outcome {
    need_user_namespaces()?;
    let container = container("true");
    let session = session(&container);
    let call = |words: &[&str]| user_call().args(words).env("XDG_RUNTIME_DIR", &session);
    let bundle = container.bundle.path();
    call(&["create", "--bundle", bundle.to_str().unwrap(), &container.id]).succeeds();
    let root = session.join(kind());
    // Sticky, so that it is not cleared away; crun's is not.
    let mode = if kind() == "crun" { 0o700 } else { 0o1700 };
    assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o7777, mode);
    assert!(root.join(&container.id).exists());
    assert!(call(&["list", "--quiet"]).succeeds().stdout.contains(&container.id));
    let state: Value = serde_json::from_str(&call(&["state", &container.id]).succeeds().stdout).unwrap();
    assert_eq!(state["status"], "created");
    call(&["delete", "--force", &container.id]).succeeds();
    container.leaves_nothing();
    Ok(())
}

fn without_such_a_directory_it_is_said() -> Outcome {
    need_own()?;
    need_user_namespaces()?;
    let container = container("true");
    let bundle = container.bundle.path();
    let call =
        user_call().env("XDG_RUNTIME_DIR", "").args(["run", "--bundle"]).arg(bundle).arg(&container.id);
    let output = call.fails_with("permission denied (EACCES)");
    assert!(output.stderr.contains("XDG_RUNTIME_DIR"), "{output:#?}");
    container.leaves_nothing();
    Ok(())
}

fn root_inside_is_the_user_outside() -> Outcome {
    need_user_namespaces()?;
    let container =
        container("id -u; id -g; echo text >/tmp/made; cat /proc/self/uid_map /proc/self/setgroups");
    let said = container.says();
    let words: Vec<_> = said.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "0", &UID.to_string(), "1", "deny"]);
    assert_eq!(owner(&container.bundle.rootfs().join("tmp/made")), (UID, GID));
    container.leaves_nothing();
    Ok(())
}

fn a_container_of_a_user_lives_like_any_other() -> Outcome {
    need_user_namespaces()?;
    let container = container("trap 'exit 0' TERM; echo begun; sleep 1000 & wait");
    let output = container.create();
    assert_eq!(container.state()["status"], "created");
    container.start();
    output.wait_for_stdout("begun");
    assert_eq!(container.state()["status"], "running");
    if is_own() {
        let state = fs::read_to_string(container.state_directory().join("state.json")).unwrap();
        let state: Value = serde_json::from_str(&state).unwrap();
        assert_eq!((&state["rootless"], &state["owner"]), (&json!(true), &json!(UID)));
    }
    container.terminate();
    container.wait_for("stopped");
    container.delete();
    container.leaves_nothing();
    Ok(())
}

fn without_a_user_namespace_it_is_refused() -> Outcome {
    need_other_than("crun", "adds one")?;
    need_user_namespaces()?;
    let container = container("true").edit(in_the_callers_user_namespace);
    container.run_fails_with("rootless container requires user namespaces");
    Ok(())
}

fn in_the_callers_user_namespace(spec: &mut Value) {
    remove_namespace(spec, "user");
    for field in ["uidMappings", "gidMappings"] {
        spec["linux"].as_object_mut().unwrap().remove(field);
    }
}

fn ids_that_are_granted_are_mapped() -> Outcome {
    need_ranges()?;
    let container = container("cat /proc/self/uid_map; cat /proc/self/gid_map; cat /proc/self/setgroups")
        .edit(with_ranges);
    let said = container.says();
    let words: Vec<_> = said.split_whitespace().map(ToOwned::to_owned).collect();
    let map = |id: u32| [0, id, 1, 1, RANGE, 65536].map(|number: u32| number.to_string());
    assert_eq!(words, [&map(UID)[..], &map(GID)[..], &["allow".to_owned()]].concat());
    container.leaves_nothing();
    Ok(())
}

fn a_mapped_user_with_groups_runs_the_program() -> Outcome {
    need_ranges()?;
    need_other_than("runc", "sets no groups without privileges")?;
    let container = container("id -u; id -g; grep Groups: /proc/self/status; touch /tmp/made").edit(|spec| {
        with_ranges(spec);
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 7] });
    });
    let said = container.says();
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["1000", "1001", "Groups:", "5", "7"]);
    assert_eq!(owner(&container.bundle.rootfs().join("tmp/made")), (RANGE + 999, RANGE + 1000));
    Ok(())
}

fn ids_that_are_not_granted_are_refused_with_what_the_tool_says() -> Outcome {
    need_ranges()?;
    for field in ["uidMappings", "gidMappings"] {
        let container = container("true").edit(|spec| {
            with_ranges(spec);
            spec["linux"][field][1]["hostID"] = json!(1_000_000);
        });
        let output = container.run_fails_with("");
        if is_own() {
            let kind = &field[..3];
            assert!(
                output.stderr.contains(&format!("config.json: /linux/{field}: new{kind}map: ")),
                "{output:#?}"
            );
            assert!(output.stderr.contains("not allowed"), "{output:#?}");
            assert!(
                output.stderr.contains(&format!("allow these ids for the user in /etc/sub{kind}")),
                "{output:#?}"
            );
        }
    }
    Ok(())
}

fn without_the_tool_it_is_said() -> Outcome {
    need_own()?;
    need_user_namespaces()?;
    let container = container("true").edit(with_ranges);
    let output = container.run_with(NO_OPTIONS).env("PATH", "/not/there").fails_with(
        "config.json: /linux/uidMappings: newuidmap is not installed, but is required to map ids other \
         than the user's own",
    );
    assert!(output.stderr.contains("uidmap"), "{output:#?}");
    container.leaves_nothing();
    Ok(())
}

fn more_groups_need_a_mapping_that_is_granted() -> Outcome {
    need_user_namespaces()?;
    need_other_than("crun", "leaves them out")?;
    let container = container("true").edit(|spec| spec["process"]["user"]["additionalGids"] = json!([0]));
    let output = container.run_fails_with("cannot set any additional groups in a rootless container");
    if is_own() {
        assert!(output.stderr.contains("/process/user/additionalGids: "), "{output:#?}");
    }
    Ok(())
}

fn a_new_network_has_lo_up() -> Outcome {
    need_user_namespaces()?;
    let container = container("ip addr show dev lo").edit(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "network" }));
    });
    let said = container.says();
    assert!(said.contains("LOOPBACK,UP") && said.contains("127.0.0.1/8"), "{said}");
    Ok(())
}

fn devices_are_those_of_the_host() -> Outcome {
    need_user_namespaces()?;
    let container = container(
        "for name in null zero full random urandom tty; do [ -c /dev/$name ] || echo no $name; done
         echo lost >/dev/null; head -c 3 /dev/zero | wc -c; stat -c %t:%T /dev/zero",
    )
    .edit(|spec| {
        spec["linux"]["devices"] = json!([{ "path": "/dev/zero", "type": "c", "major": 1, "minor": 5 }])
    });
    assert_eq!(container.says(), "3\n1:5");
    need_own()?;
    let other = self::container("true").edit(|spec| {
        spec["linux"]["devices"] = json!([{ "path": "/dev/zero", "type": "c", "major": 1, "minor": 3 }])
    });
    other.run_fails_with("/linux/devices/0: create device /dev/zero: ");
    Ok(())
}

fn device_rules_that_cannot_be_enforced_are_left_out() -> Outcome {
    need_user_namespaces()?;
    let delegated = Delegated::new();
    let container = container("head -c 2 /dev/zero | wc -c").edit(|spec| {
        spec["linux"]["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] })
    });
    let output = delegated.call(container.run_with(NO_OPTIONS)).succeeds();
    assert_eq!(output.stdout.trim(), "2");
    container.leaves_nothing();
    Ok(())
}

fn a_limit_without_a_cgroup_is_refused() -> Outcome {
    need_user_namespaces()?;
    need_other_than("crun", "leaves it out")?;
    need_other_than("runc", "leaves it out where there is no such controller")?;
    let container =
        container("true").edit(|spec| spec["linux"]["resources"] = json!({ "pids": { "limit": 20 } }));
    let output = container
        .run_fails_with("rootless needs no limits + no cgrouppath when no permission is granted for cgroups");
    assert!(output.stderr.contains("/linux/resources/pids/limit: "), "{output:#?}");
    assert!(output.stderr.contains("permission denied (EACCES)"), "{output:#?}");
    Ok(())
}

fn a_cgroup_that_may_not_be_made_is_refused_if_it_is_named() -> Outcome {
    need_user_namespaces()?;
    need_other_than("crun", "goes without")?;
    let container = container("true").edit(|spec| spec["linux"]["cgroupsPath"] = json!("/not-the-users/own"));
    container.run_with(NO_OPTIONS).fails_with_any_case("permission denied");
    container.leaves_nothing();
    Ok(())
}

/// A cgroup that belongs to the user, with a leaf from which the user calls the runtime.
pub struct Delegated {
    pub path: PathBuf,
}

impl Delegated {
    pub fn new() -> Self {
        let path = cgroup_parent().join(workspace::unique_name());
        for path in [&path, &path.join("leaf")] {
            fs::create_dir(path).unwrap();
            chown(path, Some(UID), Some(GID)).unwrap();
            for file in ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
                chown(path.join(file), Some(UID), Some(GID)).unwrap();
            }
        }
        Self { path }
    }

    pub fn call(&self, call: Invocation) -> Invocation {
        let procs = self.path.join("leaf/cgroup.procs");
        let script = format!(
            "echo $$ >{} && exec setpriv --reuid {UID} --regid {GID} --clear-groups -- \"$@\"",
            procs.display()
        );
        call.called_by(["sh", "-c", &script, "sh"])
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        wait_until("the cgroup is empty", || {
            let _ = fs::remove_dir(self.path.join("leaf"));
            fs::remove_dir(&self.path).is_ok()
        });
    }
}

fn a_cgroup_that_is_the_users_is_used() -> Outcome {
    need_user_namespaces()?;
    let delegated = Delegated::new();
    let container = container("trap 'exit 0' TERM; sleep 1000 & wait");
    delegated.call(container.create_with(NO_OPTIONS)).succeeds();
    delegated.call(container.on_id("start")).succeeds();
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).unwrap();
    let own = delegated.path.strip_prefix(CGROUPS).unwrap().join(&container.id);
    assert!(cgroup.lines().any(|line| line == format!("0::/{}", own.display())), "{cgroup}");
    delegated.call(container.runtime().args(["delete", "--force", &container.id])).succeeds();
    assert!(!delegated.path.join(&container.id).exists());
    container.leaves_nothing();
    Ok(())
}

fn limits_are_enforced_in_a_cgroup_that_is_the_users() -> Outcome {
    need(has_controller("pids"), "the pids controller")?;
    need_user_namespaces()?;
    let delegated = Delegated::new();
    let container = container("cat /sys/fs/cgroup/pids.max")
        .edit(|spec| spec["linux"]["resources"] = json!({ "pids": { "limit": 23 } }));
    let output = delegated.call(container.run_with(NO_OPTIONS)).succeeds();
    assert_eq!(output.stdout.trim(), "23");
    container.leaves_nothing();
    Ok(())
}

fn without_a_cgroup_killing_ends_the_container() -> Outcome {
    need_user_namespaces()?;
    for separate in [true, false] {
        let container = container("trap '' TERM; echo begun; while :; do sleep 1; done").edit(|spec| {
            if !separate {
                in_the_hosts_pid_namespace(spec);
            }
        });
        let output = container.launch();
        output.wait_for_stdout("begun");
        container.kill("KILL");
        container.wait_for("stopped");
        container.delete();
        container.leaves_nothing();
    }
    Ok(())
}

/// Whose procfs cannot be mounted anew.
fn in_the_hosts_pid_namespace(spec: &mut Value) {
    remove_namespace(spec, "pid");
    for mount in spec["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == "/proc" {
            *mount =
                json!({ "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"] });
        }
    }
    for hidden in ["maskedPaths", "readonlyPaths"] {
        spec["linux"].as_object_mut().unwrap().remove(hidden);
    }
}

fn a_container_without_cgroup_and_pid_namespace_is_warned_of() -> Outcome {
    need_own()?;
    need_user_namespaces()?;
    let container = container("true").edit(in_the_hosts_pid_namespace);
    let output = container.run_with(NO_OPTIONS).succeeds();
    assert!(output.stderr.contains("no cgroup and no private pid namespace"), "{output:#?}");
    Ok(())
}

fn ids_of_mounts_are_not_mapped() -> Outcome {
    need_user_namespaces()?;
    need_other_than("crun", "tries, and the kernel refuses")?;
    let container = container("true").edit(|spec| {
        let mut mount = bind(Path::new("/etc"), "/tmp/mapped", &[]);
        for field in ["uidMappings", "gidMappings"] {
            mount[field] = json!([{ "containerID": 0, "hostID": UID, "size": 1 }]);
        }
        add_mount(spec, mount);
    });
    let output = container.run_fails_with("id-mapped mounts are not supported for rootless containers");
    if is_own() {
        assert!(output.stderr.contains("/mounts/7/uidMappings: "), "{output:#?}");
    }
    Ok(())
}

fn what_the_user_cannot_reach_is_named() -> Outcome {
    need_own()?;
    need_user_namespaces()?;
    let container = container("true");
    let closed = container.beside("closed");
    fs::create_dir(&closed).unwrap();
    fs::create_dir(closed.join("source")).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let container = container.edit(|spec| add_mount(spec, bind(&closed.join("source"), "/tmp/source", &[])));
    let output = container.run_fails_with("/mounts/7/source: bind ");
    assert!(output.stderr.contains("the user running the runtime must have access to it"), "{output:#?}");
    Ok(())
}

fn the_terminal_works() -> Outcome {
    need_user_namespaces()?;
    let container =
        container("test -t 0 && echo terminal; stat -c %u /dev/console; echo console >/dev/console")
            .edit(|spec| spec["process"]["terminal"] = json!(true));
    let socket = ConsoleSocket::beside(&container);
    user::give(&container.bundle.home);
    container.run_with(["--detach", "--console-socket", socket.path.to_str().unwrap()]).succeeds();
    assert_eq!(read_all(&socket.receive().0), "terminal\n0\nconsole\n");
    Ok(())
}

fn the_oom_score_can_be_raised() -> Outcome {
    need_user_namespaces()?;
    let container =
        container("cat /proc/self/oom_score_adj").edit(|spec| spec["process"]["oomScoreAdj"] = json!(500));
    assert_eq!(container.says(), "500");
    Ok(())
}

fn the_user_namespace_of_another_container_is_joined() -> Outcome {
    need_user_namespaces()?;
    let other = container("trap 'exit 0' TERM; sleep 1000 & wait");
    other.launch();
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", other.pid());
    let link = |kind: &str| fs::read_link(path(kind)).unwrap().to_str().unwrap().to_owned();
    let container =
        container("id -u; readlink /proc/self/ns/user; readlink /proc/self/ns/ipc").edit(|spec| {
            for field in ["uidMappings", "gidMappings"] {
                spec["linux"].as_object_mut().unwrap().remove(field);
            }
            join_namespace(spec, "user", path("user"));
            join_namespace(spec, "ipc", path("ipc"));
        });
    assert_eq!(container.says(), format!("0\n{}\n{}", link("user"), link("ipc")));
    container.leaves_nothing();
    Ok(())
}

fn exec_works_without_privileges_too() -> Outcome {
    need_user_namespaces()?;
    let container = container("trap 'exit 0' TERM; sleep 1000 & wait");
    container.launch();
    let output =
        container.runtime().args(["exec", &container.id, "sh", "-c", "id -u; hostname; exit 7"]).output();
    assert_eq!((output.code(), &*output.stdout), (7, "0\ninside\n"), "{output:#?}");
    container.delete_by_force();
    container.leaves_nothing();
    Ok(())
}

fn exec_works_before_the_start_too() -> Outcome {
    need_other_than("crun", "adds no process before the start")?;
    need_user_namespaces()?;
    let container = container("read line </tmp/file; echo $line");
    let output = container.create();
    let written = container.exec(["sh", "-c", "id -u; hostname; echo written >/tmp/file"]);
    assert_eq!(written.succeeds().stdout, "0\ninside\n");
    container.start();
    output.wait_for_stdout("written\n");
    container.wait_for("stopped");
    container.delete();
    container.leaves_nothing();
    Ok(())
}

/// A user namespace that maps the user to its root, and a mount namespace of it: where Podman calls the runtime.
struct Inside {
    process: Running,
}

impl Inside {
    fn new() -> Self {
        let process =
            Invocation::new("sleep").arg("1000").called_by(Self::as_user(&["unshare", "-Urm", "--"])).spawn();
        let own = fs::read_link("/proc/self/ns/mnt").unwrap();
        wait_until("there is a user namespace", || {
            let words = fs::read(format!("/proc/{}/cmdline", process.pid())).unwrap();
            words.starts_with(b"sleep")
                && fs::read_link(format!("/proc/{}/ns/mnt", process.pid())).unwrap() != own
        });
        Self { process }
    }

    pub fn call(&self, call: Invocation) -> Invocation {
        let pid = self.process.pid().to_string();
        let words = ["nsenter", "--target", &pid, "--user", "--mount", "--preserve-credentials", "--"];
        call.called_by(Self::as_user(&words))
    }

    fn as_user(words: &[&str]) -> Vec<String> {
        let (user, group) = (UID.to_string(), GID.to_string());
        let before = ["setpriv", "--reuid", &user, "--regid", &group, "--clear-groups", "--"];
        before.iter().chain(words).map(|word| (*word).to_owned()).collect()
    }
}

fn need_inside() -> Outcome {
    need_user_namespaces()?;
    need_program("unshare")?;
    need_program("nsenter")
}

fn root_of_a_user_namespace_makes_containers() -> Outcome {
    need_inside()?;
    let inside = Inside::new();
    let container = container("id -u; hostname; [ -c /dev/null ] && echo null; ip link show lo | grep -c UP")
        .edit(|spec| {
            in_the_callers_user_namespace(spec);
            spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "network" }));
        });
    let output = inside.call(container.run_with(NO_OPTIONS)).succeeds();
    assert_eq!(output.stdout, "0\ninside\nnull\n1\n");
    container.leaves_nothing();
    Ok(())
}

/// The runtime's own pid namespace belongs to a user namespace above, and cannot be returned to.
fn root_of_a_user_namespace_joins_a_pid_namespace() -> Outcome {
    need_inside()?;
    let inside = Inside::new();
    let container = |script| container(script).edit(in_the_callers_user_namespace);
    let idle = "trap 'exit 0' TERM; sleep 1000 & wait";
    let other = container(idle);
    inside.call(other.create_with(NO_OPTIONS)).succeeds();
    inside.call(other.on_id("start")).succeeds();
    let pid = |container: &Container| {
        let state = inside.call(container.on_id("state")).succeeds().stdout;
        serde_json::from_str::<Value>(&state).unwrap()["pid"].as_i64().unwrap()
    };
    let namespace = |container: &Container| format!("/proc/{}/ns/pid", pid(container));
    let path = namespace(&other);
    let neighbour = container(idle).edit(|spec| join_namespace(spec, "pid", &path));
    inside.call(neighbour.create_with(NO_OPTIONS)).succeeds();
    inside.call(neighbour.on_id("start")).succeeds();
    assert_eq!(fs::read_link(namespace(&neighbour)).unwrap(), fs::read_link(path).unwrap());
    let output = inside.call(neighbour.exec(["sh", "-c", "id -u; hostname"])).succeeds();
    assert_eq!(output.stdout, "0\ninside\n");
    // Without a cgroup, what the neighbour has started ends with the pid namespace.
    for container in [&neighbour, &other] {
        inside.call(container.runtime().args(["delete", "--force", &container.id])).succeeds();
    }
    neighbour.leaves_nothing();
    other.leaves_nothing();
    Ok(())
}

fn root_of_a_user_namespace_makes_another_below() -> Outcome {
    need_inside()?;
    let inside = Inside::new();
    let container = container("cat /proc/self/uid_map; ls /dev/null").edit(|spec| {
        for field in ["uidMappings", "gidMappings"] {
            spec["linux"][field] = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
        }
    });
    let output = inside.call(container.run_with(NO_OPTIONS)).succeeds();
    assert_eq!(output.stdout.split_whitespace().collect::<Vec<_>>(), ["0", "0", "1", "/dev/null"]);
    container.leaves_nothing();
    Ok(())
}

fn root_of_a_user_namespace_has_its_state_in_the_session() -> Outcome {
    need_own()?;
    need_inside()?;
    let inside = Inside::new();
    let container = container("true").edit(in_the_callers_user_namespace);
    let session = session(&container);
    for (user, is_in_session) in [("somebody", true), ("root", false)] {
        let call = user_call().args(["run", "--bundle"]).arg(container.bundle.path()).arg(&container.id);
        let call = call.env("XDG_RUNTIME_DIR", &session).env("USER", user);
        let output = inside.call(call).output();
        if is_in_session {
            assert_eq!(output.code(), 0, "{output:#?}");
        } else {
            assert!(output.stderr.contains("/run/runtime"), "{output:#?}");
        }
        assert!(session.join("runtime").exists());
        container.leaves_nothing();
    }
    Ok(())
}

fn rootless_false_excuses_nothing() -> Outcome {
    need_user_namespaces()?;
    need_other_than("crun", "ignores the option")?;
    let container = container("true");
    let call = user_call().arg("--root").arg(container.root()).args(["--rootless=false", "run", "--bundle"]);
    call.arg(container.bundle.path()).arg(&container.id).fails_with_any_case("permission denied");
    container.leaves_nothing();
    Ok(())
}
