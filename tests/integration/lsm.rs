//! Security modules: AppArmor profiles and SELinux labels of the process.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use serde_json::json;

use crate::support::bundle::add_mount;
use crate::support::container::NO_OPTIONS;
use crate::support::host::{machine, need, need_other_than, need_own, need_program};
use crate::support::suite::suite;
use crate::support::{Container, Outcome, workspace};

suite![
    a_profile_without_apparmor_is_refused_by_its_field,
    a_label_without_selinux_is_refused_by_its_field,
    a_label_for_files_without_selinux_is_refused_by_its_field,
    the_process_is_confined_by_its_profile,
    a_profile_is_in_force_under_no_new_privs,
    a_profile_is_in_force_whatever_the_image_has_in_the_place_of_proc,
    a_profile_is_in_force_in_a_user_namespace,
    a_process_that_is_added_is_confined_by_the_containers_profile_or_its_own,
    a_confined_runtime_adds_the_profile_to_its_own_where_it_cannot_change_it,
    a_profile_that_is_not_loaded_is_named_with_the_path_that_podman_looks_for,
    an_empty_profile_means_none,
    selinux_labels_the_process_and_no_keys_after_it,
    selinux_labels_a_process_that_is_added,
    selinux_labels_file_systems_and_hidden_directories,
    selinux_labels_go_with_the_kind_of_context_of_the_annotation,
    selinux_refuses_a_label_that_its_policy_does_not_know,
];

fn has_apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

const PROCESS_LABEL: &str = "system_u:system_r:container_t:s0:c4,c5";
const FILE_LABEL: &str = "system_u:object_r:container_file_t:s0:c4,c5";

/// Loads a policy that knows the labels, on a machine of our own that has none.
fn need_selinux() -> Outcome {
    static LOADED: LazyLock<bool> = LazyLock::new(load_policy);
    need(Path::new("/sys/fs/selinux").exists(), "SELinux")?;
    need(machine() != "native", "a machine of its own, to load a policy into")?;
    need_program("secilc")?;
    need(*LOADED, "SELinux without a policy")
}

fn load_policy() -> bool {
    let current = || fs::read_to_string("/proc/self/attr/current").unwrap();
    if !has_selinux() {
        let mount = Command::new("mount").args(["-t", "selinuxfs", "selinuxfs", "/sys/fs/selinux"]).status();
        assert!(mount.unwrap().success());
    }
    let had_none = current().starts_with("kernel");
    if had_none {
        let policy = workspace::directory().join("policy");
        let compiler = Command::new("secilc")
            .args(["--policyvers", "33", "--filecontext", "/dev/null", "--output"])
            .arg(&policy)
            .arg("tests/fixtures/selinux.cil")
            .status();
        assert!(compiler.unwrap().success());
        fs::write("/sys/fs/selinux/load", fs::read(&policy).unwrap()).unwrap();
        assert!(current().starts_with("system_u:system_r:kernel_t"), "{}", current());
    }
    had_none
}

/// A profile that allows everything but to read /secret; unloaded when it goes.
struct Profile {
    name: String,
}

impl Profile {
    fn load(container: &Container) -> Result<Self, crate::support::host::Skip> {
        need(has_apparmor(), "AppArmor")?;
        need_program("apparmor_parser")?;
        let profile = Self { name: container.id.clone() };
        profile.parse("--replace");
        Ok(profile)
    }

    fn parse(&self, what: &str) {
        let allowed =
            ["capability", "network", "file", "mount", "umount", "pivot_root", "signal", "ptrace", "unix"]
                .map(|rule| format!("  {rule},\n"))
                .concat();
        let text = format!(
            "profile {} flags=(attach_disconnected) {{\n{allowed}  change_profile,\n  change_profile -> &**,\n  deny \
             /secret r,\n}}\n",
            self.name
        );
        let parser = Command::new("apparmor_parser")
            .args(["--skip-cache", what])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut parser = parser.unwrap();
        parser.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(parser.wait().unwrap().success(), "apparmor_parser {what} fails");
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parse("--remove");
    }
}

fn a_profile_without_apparmor_is_refused_by_its_field() -> Outcome {
    need(!has_apparmor(), "a host without AppArmor")?;
    need_other_than("crun", "runs the container unconfined")?;
    let container =
        Container::new().edit(|spec| spec["process"]["apparmorProfile"] = json!("docker-default"));
    let output = container.run_fails_with("apparmor");
    need_own()?;
    assert_eq!(
        output.stderr,
        "error: config.json: /process/apparmorProfile: \"docker-default\": apparmor: config provided but apparmor not \
         supported (boot with AppArmor enabled, or remove the profile)\n"
    );
    Ok(())
}

fn a_label_without_selinux_is_refused_by_its_field() -> Outcome {
    need(!has_selinux(), "a host without SELinux")?;
    need_other_than("crun", "runs the container without the label")?;
    let label = "system_u:system_r:container_t:s0:c4,c5";
    let container = Container::new().edit(|spec| spec["process"]["selinuxLabel"] = json!(label));
    let output = container
        .run_fails_with("selinux label is specified in config, but selinux is disabled or not supported");
    need_own()?;
    assert!(output.stderr.starts_with(&format!("error: config.json: /process/selinuxLabel: \"{label}\": ")));
    Ok(())
}

fn a_label_for_files_without_selinux_is_refused_by_its_field() -> Outcome {
    need(!has_selinux(), "a host without SELinux")?;
    need_other_than("crun", "mounts without the label")?;
    let label = "system_u:object_r:container_file_t:s0:c4,c5";
    let container = Container::new().edit(|spec| spec["linux"]["mountLabel"] = json!(label));
    let output = container.run_fails_with("");
    need_own()?;
    assert!(output.stderr.starts_with(&format!("error: config.json: /linux/mountLabel: \"{label}\": ")));
    Ok(())
}

fn confined(script: &str) -> Result<(Container, Profile), crate::support::host::Skip> {
    let container = Container::with_script(script).with_file("secret", 0o644, "text");
    let profile = Profile::load(&container)?;
    let container = container.edit(|spec| spec["process"]["apparmorProfile"] = json!(profile.name));
    Ok((container, profile))
}

fn the_process_is_confined_by_its_profile() -> Outcome {
    let (container, profile) = confined("cat /proc/self/attr/current; cat /secret || echo denied")?;
    let container = container.edit(|spec| spec["process"]["noNewPrivileges"] = json!(false));
    assert_eq!(container.says(), format!("{} (enforce)\ndenied", profile.name));
    Ok(())
}

fn a_profile_is_in_force_under_no_new_privs() -> Outcome {
    let (container, profile) = confined("cat /proc/self/attr/current; cat /secret || echo denied")?;
    assert_eq!(container.says(), format!("{} (enforce)\ndenied", profile.name));
    Ok(())
}

/// CVE-2019-16884, CVE-2023-28642, CVE-2025-52881.
fn a_profile_is_in_force_whatever_the_image_has_in_the_place_of_proc() -> Outcome {
    need_own()?;
    let (container, _profile) = confined("cat /secret || echo denied")?;
    let fake = container.bundle.rootfs().join("proc/self/attr/apparmor");
    fs::create_dir_all(&fake).unwrap();
    fs::write(fake.join("exec"), "").unwrap();
    let container = container.edit(|spec| {
        spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc");
        spec["linux"]["maskedPaths"] = json!([]);
        spec["linux"]["readonlyPaths"] = json!([]);
    });
    assert_eq!(container.says(), "denied");
    assert_eq!(fs::read_to_string(fake.join("exec")).unwrap(), "");
    Ok(())
}

fn a_profile_is_in_force_in_a_user_namespace() -> Outcome {
    let (container, profile) = confined("cat /proc/self/attr/current; cat /secret || echo denied")?;
    let container = container.in_user_namespace();
    assert_eq!(container.says(), format!("{} (enforce)\ndenied", profile.name));
    Ok(())
}

fn a_process_that_is_added_is_confined_by_the_containers_profile_or_its_own() -> Outcome {
    let (container, profile) = confined("trap 'exit 0' TERM; sleep 1000 & wait")?;
    let other = Profile::load(&Container::new())?;
    container.launch();
    let exec = |options: &[&str]| {
        let exec = container.runtime().arg("exec").args(options).arg(&container.id);
        exec.args(["cat", "/proc/self/attr/current"]).succeeds().stdout
    };
    assert_eq!(exec(&[]), format!("{} (enforce)\n", profile.name));
    assert_eq!(exec(&["--apparmor", &other.name]), format!("{} (enforce)\n", other.name));
    Ok(())
}

fn a_confined_runtime_adds_the_profile_to_its_own_where_it_cannot_change_it() -> Outcome {
    need_program("aa-exec")?;
    need_other_than("runc", "does not start such a process")?;
    let (container, profile) = confined("cat /proc/self/attr/current; cat /secret || echo denied")?;
    let outer = Profile::load(&Container::new())?;
    let call = container.run_with(NO_OPTIONS).called_by(["aa-exec", "-p", &outer.name, "--"]);
    let mut names = [outer.name.as_str(), profile.name.as_str()];
    names.sort_unstable();
    assert_eq!(call.succeeds().stdout, format!("{} (enforce)\ndenied\n", names.join("//&")));
    Ok(())
}

fn a_profile_that_is_not_loaded_is_named_with_the_path_that_podman_looks_for() -> Outcome {
    need(has_apparmor(), "AppArmor")?;
    need_own()?;
    let container = Container::new().edit(|spec| spec["process"]["apparmorProfile"] = json!("not-loaded"));
    container.run_fails_with(
        "config.json: /process/apparmorProfile: write \"exec not-loaded\" to `/proc/thread-self/attr/apparmor/exec`: no \
         such file or directory (ENOENT) (the profile may not be loaded; ",
    );
    Ok(())
}

fn an_empty_profile_means_none() -> Outcome {
    need_other_than("crun", "takes an empty label for one")?;
    let container = Container::new().edit(|spec| {
        spec["process"]["apparmorProfile"] = json!("");
        spec["process"]["selinuxLabel"] = json!("");
    });
    container.says();
    Ok(())
}

fn selinux_labels_the_process_and_no_keys_after_it() -> Outcome {
    need_selinux()?;
    let container =
        Container::with_script("cat /proc/self/attr/current; echo; cat /proc/self/attr/keycreate")
            .edit(|spec| spec["process"]["selinuxLabel"] = json!(PROCESS_LABEL));
    assert_eq!(container.says().trim_end_matches(['\0', '\n']), PROCESS_LABEL);
    Ok(())
}

fn selinux_labels_a_process_that_is_added() -> Outcome {
    need_selinux()?;
    let container = Container::idle().edit(|spec| spec["process"]["selinuxLabel"] = json!(PROCESS_LABEL));
    container.launch();
    let exec = |options: &[&str]| {
        let exec = container.runtime().arg("exec").args(options).arg(&container.id);
        let said = exec.args(["cat", "/proc/self/attr/current"]).succeeds().stdout;
        said.trim_end_matches(['\0', '\n']).to_owned()
    };
    assert_eq!(exec(&[]), PROCESS_LABEL);
    let other = "system_u:system_r:container_t:s0:c1";
    assert_eq!(exec(&["--process-label", other]), other);
    Ok(())
}

/// What stands in the options of the last mount on `path`.
fn context_of<'a>(mountinfo: &'a str, path: &str) -> Option<&'a str> {
    let line = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some(path)).unwrap();
    line.split_once(" - ")
        .unwrap()
        .1
        .split_once("context=\"")
        .map(|(_, rest)| rest.split('"').next().unwrap())
}

fn selinux_labels_file_systems_and_hidden_directories() -> Outcome {
    need_selinux()?;
    let container = Container::idle().edit(|spec| {
        spec["linux"]["mountLabel"] = json!(FILE_LABEL);
        add_mount(spec, json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs" }));
    });
    container.launch();
    let mountinfo = fs::read_to_string(format!("/proc/{}/mountinfo", container.pid())).unwrap();
    for path in ["/dev", "/dev/pts", "/dev/shm", "/mnt", "/sys/firmware"] {
        assert_eq!(context_of(&mountinfo, path), Some(FILE_LABEL), "{path} in {mountinfo}");
    }
    for path in ["/proc", "/sys", "/sys/fs/cgroup"] {
        assert_eq!(context_of(&mountinfo, path), None, "{path} in {mountinfo}");
    }
    let mut label = [0_u8; 256];
    let queues = format!("/proc/{}/root/dev/mqueue", container.pid());
    let length = rustix::fs::getxattr(&queues, "security.selinux", &mut label[..]).unwrap();
    assert_eq!(String::from_utf8_lossy(&label[..length]).trim_end_matches('\0'), FILE_LABEL);
    Ok(())
}

fn selinux_labels_go_with_the_kind_of_context_of_the_annotation() -> Outcome {
    need_selinux()?;
    need_other_than("runc", "does not know the annotation")?;
    let container = Container::with_args(["cat", "/proc/self/mountinfo"]).edit(|spec| {
        spec["linux"]["mountLabel"] = json!(FILE_LABEL);
        spec["annotations"] = json!({ "run.oci.mount_context_type": "rootcontext" });
        spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "devpts");
    });
    let said = container.says();
    assert!(said.contains(&format!("rootcontext=\"{FILE_LABEL}\"")), "{said}");
    Ok(())
}

fn selinux_refuses_a_label_that_its_policy_does_not_know() -> Outcome {
    need_selinux()?;
    need_own()?;
    let unknown = "system_u:system_r:nothing_t:s0";
    let container = Container::new().edit(|spec| spec["process"]["selinuxLabel"] = json!(unknown));
    container.create_with(["--no-new-keyring"]).fails_with(&format!(
        "config.json: /process/selinuxLabel: write \"{unknown}\" to `/proc/thread-self/attr/exec`: invalid argument \
         (EINVAL) (the label is not valid in the loaded policy)"
    ));
    container.leaves_nothing();
    let container = Container::new().edit(|spec| spec["linux"]["mountLabel"] = json!(unknown));
    container.run_fails_with("config.json: /mounts/1: mount \"tmpfs\" on /dev: set its SELinux label: ");
    Ok(())
}
