//! The process: program, identity and limits; config.md § Process.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use rustix::fs::statfs;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::json;

use crate::support::bundle::remove_namespace;
use crate::support::container::NO_OPTIONS;
use crate::support::host::{
    has_capability, need, need_other_than, need_own, need_program, need_sys_resource,
};
use crate::support::suite::suite;
use crate::support::{Container, Invocation, Outcome};

suite![
    arguments_arrive_as_they_are,
    a_program_is_looked_up_in_the_path_of_the_container,
    a_program_in_a_later_directory_of_the_path_is_found,
    a_program_with_a_slash_is_relative_to_the_working_directory,
    a_program_that_is_nowhere_is_named,
    a_program_without_a_path_is_nowhere,
    a_missing_absolute_program_is_no_such_file,
    a_program_that_may_not_be_executed_is_permission_denied,
    a_directory_is_no_program,
    a_program_in_no_known_format_fails,
    a_script_with_a_missing_interpreter_fails,
    a_script_with_an_interpreter_runs,
    the_environment_is_that_of_the_config_and_home,
    home_comes_from_the_passwd_of_the_container,
    home_of_the_config_is_kept,
    a_variable_may_hold_anything_but_nul,
    the_last_of_two_variables_counts,
    the_working_directory_is_set,
    a_missing_working_directory_is_made,
    a_working_directory_only_the_user_may_enter_works,
    a_working_directory_that_is_a_file_fails,
    user_and_group_are_set,
    additional_groups_are_set_and_no_others,
    no_additional_groups_means_none,
    the_umask_is_set,
    the_umask_defaults_to_0022,
    capabilities_are_exactly_those_listed,
    ambient_capabilities_reach_an_unprivileged_user,
    without_capabilities_there_are_none,
    absent_capabilities_mean_none,
    an_unprivileged_user_without_ambient_has_none_effective,
    no_new_privileges_is_set,
    new_privileges_are_possible_when_allowed,
    a_lower_resource_limit_is_set,
    all_resource_limits_have_names,
    a_higher_resource_limit_is_set,
    a_higher_resource_limit_without_the_capability_is_an_error,
    the_oom_score_is_raised,
    the_oom_score_is_lowered,
    an_absent_oom_score_is_inherited,
    standard_streams_are_those_of_the_caller,
    no_signal_is_blocked_or_ignored_by_accident,
    the_session_keyring_is_new,
    the_session_keyring_is_kept_when_asked,
    the_process_is_pid_1_of_its_namespace,
    the_process_leads_its_session,
    the_process_may_not_be_dumped_or_traced_before_it_runs,
    a_passwd_without_an_end_is_one_without_an_entry,
    capabilities_that_the_runtime_lacks_are_left_out_with_a_warning,
    an_unknown_capability_is_left_out_with_a_warning,
    a_user_with_cap_dac_override_executes_what_is_roots_alone,
    a_tight_limit_of_open_files_works_or_is_named,
    files_given_as_standard_streams_keep_their_owner,
    the_terminal_of_the_caller_keeps_its_owner,
    pipes_given_as_standard_streams_become_the_users,
];

fn status(field: &str) -> Container {
    Container::with_args(["grep", &format!("^{field}:"), "/proc/self/status"])
}

fn value_of(line: &str) -> &str {
    line.split_once(':').unwrap().1.trim()
}

fn arguments_arrive_as_they_are() {
    let args = ["printf", "[%s]", "", "two words", "$HOME", "a\nb", "\u{e9}\u{1f40b}", "--", "-x"];
    assert_eq!(Container::with_args(args).says(), "[][two words][$HOME][a\nb][\u{e9}\u{1f40b}][--][-x]");
}

fn a_program_is_looked_up_in_the_path_of_the_container() {
    let container =
        Container::with_args(["mine"]).with_file("home/mine", 0o755, "#!/bin/sh\necho found $0\n");
    let container = container.edit(|spec| spec["process"]["env"] = json!(["PATH=/home"]));
    assert_eq!(container.says(), "found /home/mine");
}

fn a_program_in_a_later_directory_of_the_path_is_found() {
    let container = Container::with_args(["mine"])
        .with_file("home/mine", 0o755, "#!/bin/sh\necho found $0\n")
        .with_file("root/mine", 0o644, "#!/bin/sh\necho not this\n")
        .edit(|spec| spec["process"]["env"] = json!(["PATH=/not/there:/etc/passwd:/root:/home:/bin"]));
    fs::create_dir(container.bundle.rootfs().join("tmp/mine")).unwrap();
    assert_eq!(container.says(), "found /home/mine");
}

fn a_program_with_a_slash_is_relative_to_the_working_directory() {
    let container = Container::with_args(["./mine"])
        .with_file("home/mine", 0o755, "#!/bin/sh\necho found\n")
        .edit(|spec| spec["process"]["cwd"] = json!("/home"));
    assert_eq!(container.says(), "found");
}

/// podman and moby turn this text into exit status 127.
fn a_program_that_is_nowhere_is_named() {
    let output = Container::with_args(["not-there"]).run_fails_with("executable file");
    assert!(output.stderr.contains("not found in $PATH"), "{output:#?}");
    assert!(output.stderr.contains("not-there"), "{output:#?}");
    assert_eq!(output.code(), 1);
}

fn a_program_without_a_path_is_nowhere() -> Outcome {
    need_other_than("crun", "invents a default PATH")?;
    let container = Container::with_args(["sh"]).edit(|spec| spec["process"]["env"] = json!([]));
    container.run_fails_with("not found in $PATH");
    Ok(())
}

fn a_missing_absolute_program_is_no_such_file() {
    let container = Container::with_args(["/not/there"]);
    let output = container.run_with(NO_OPTIONS).fails_with_any_case("no such file or directory");
    assert!(output.stderr.contains("/not/there"), "{output:#?}");
    container.leaves_nothing();
}

/// podman and moby turn this text into exit status 126.
fn a_program_that_may_not_be_executed_is_permission_denied() -> Outcome {
    need_other_than("crun", "says that the operation is not permitted")?;
    for args in [["/etc/passwd"], ["passwd"]] {
        let container = Container::with_args(args).edit(|spec| spec["process"]["env"] = json!(["PATH=/etc"]));
        let output = container.run_with(NO_OPTIONS).fails_with("");
        let text = output.stderr.to_lowercase();
        let found =
            text.contains("permission denied") || args == ["passwd"] && text.contains("not found in $path");
        assert!(found && text.contains("passwd"), "{output:#?}");
        container.leaves_nothing();
    }
    Ok(())
}

fn a_directory_is_no_program() -> Outcome {
    need_other_than("crun", "says that the operation is not permitted")?;
    let container = Container::with_args(["/etc"]);
    let output = container.run_with(NO_OPTIONS).fails_with("/etc");
    let text = output.stderr.to_lowercase();
    assert!(text.contains("is a directory") || text.contains("permission denied"), "{output:#?}");
    container.leaves_nothing();
    Ok(())
}

fn a_program_in_no_known_format_fails() {
    let container =
        Container::with_args(["/home/odd"]).with_file("home/odd", 0o755, "\u{1}\u{2}not a program");
    container.run_with(NO_OPTIONS).fails_with_any_case("exec format error");
    container.leaves_nothing();
}

fn a_script_with_a_missing_interpreter_fails() {
    let container = Container::with_args(["/home/s"]).with_file("home/s", 0o755, "#!/not/there\n");
    container.run_with(NO_OPTIONS).fails_with_any_case("no such file or directory");
    container.leaves_nothing();
}

fn a_script_with_an_interpreter_runs() {
    let container =
        Container::with_args(["/home/s", "x"]).with_file("home/s", 0o755, "#!/bin/sh -e\necho $0 $1\n");
    assert_eq!(container.says(), "/home/s x");
}

fn the_environment_is_that_of_the_config_and_home() {
    let container = Container::with_args(["env"])
        .edit(|spec| spec["process"]["env"] = json!(["PATH=/bin", "A=1", "EMPTY=", "B=x=y"]));
    let output = container.run_with(NO_OPTIONS).env("LEAK", "from the caller").succeeds();
    let mut lines: Vec<_> = output.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A=1", "B=x=y", "EMPTY=", "HOME=/root", "PATH=/bin"]);
}

fn home_comes_from_the_passwd_of_the_container() {
    let container = Container::with_script("echo $HOME")
        .edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    assert_eq!(container.says(), "/home");
    let unknown = Container::with_script("echo $HOME")
        .edit(|spec| spec["process"]["user"] = json!({ "uid": 4711, "gid": 0 }));
    assert_eq!(unknown.says(), "/");
}

fn home_of_the_config_is_kept() {
    let container = Container::with_script("echo $HOME")
        .edit(|spec| spec["process"]["env"] = json!(["PATH=/bin", "HOME=/elsewhere"]));
    assert_eq!(container.says(), "/elsewhere");
}

fn a_variable_may_hold_anything_but_nul() {
    let container = Container::with_script("printf %s \"$A\"")
        .edit(|spec| spec["process"]["env"] = json!(["PATH=/bin", "A= \t\u{1f40b}'\"\\\n$(x)"]));
    assert_eq!(container.run().stdout, " \t\u{1f40b}'\"\\\n$(x)");
}

fn the_last_of_two_variables_counts() -> Outcome {
    need_other_than("crun", "hands both on")?;
    let container = Container::with_args(["env"])
        .edit(|spec| spec["process"]["env"] = json!(["A=first", "PATH=/bin", "A=last"]));
    let said = container.says();
    let lines: Vec<_> = said.lines().filter(|line| line.starts_with("A=")).collect();
    assert_eq!(lines, ["A=last"]);
    Ok(())
}

fn the_working_directory_is_set() {
    let container = Container::with_args(["pwd"]).edit(|spec| spec["process"]["cwd"] = json!("/home"));
    assert_eq!(container.says(), "/home");
}

fn a_missing_working_directory_is_made() {
    let container =
        Container::with_script("pwd; stat -c %a .").edit(|spec| spec["process"]["cwd"] = json!("/a/new/one"));
    assert_eq!(container.says(), "/a/new/one\n755");
}

/// With root's privileges gone and not yet gone alike: config.md leaves open whose rights count.
fn a_working_directory_only_the_user_may_enter_works() {
    let container = Container::with_args(["pwd"]).edit(|spec| {
        spec["process"]["cwd"] = json!("/private");
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    });
    let private = container.bundle.rootfs().join("private");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(&private, Some(1000), Some(1000)).unwrap();
    assert_eq!(container.says(), "/private");
}

fn a_working_directory_that_is_a_file_fails() {
    let container = Container::new().edit(|spec| spec["process"]["cwd"] = json!("/etc/passwd"));
    container.run_with(NO_OPTIONS).fails_with_any_case("not a directory");
    container.leaves_nothing();
}

fn user_and_group_are_set() {
    let container = Container::with_script("grep -E '^(Uid|Gid):' /proc/self/status")
        .edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 2000 }));
    assert_eq!(container.says(), "Uid:\t1000\t1000\t1000\t1000\nGid:\t2000\t2000\t2000\t2000");
}

fn additional_groups_are_set_and_no_others() {
    let container = status("Groups").edit(|spec| {
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000, "additionalGids": [5, 2000, 70000] });
    });
    assert_eq!(value_of(&container.says()), "5 2000 70000");
}

fn no_additional_groups_means_none() {
    let container =
        status("Groups").edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    assert_eq!(value_of(&container.says()), "");
}

fn the_umask_is_set() {
    let container =
        Container::with_script("umask").edit(|spec| spec["process"]["user"]["umask"] = json!(0o27));
    assert_eq!(container.says(), "0027");
}

fn the_umask_defaults_to_0022() {
    let container = Container::with_script("umask");
    let output = container.run_with(NO_OPTIONS).after_shell("umask 0077;").succeeds();

    assert_eq!(output.stdout.trim(), "0022");
}

const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

fn capability_sets(container: &Container) -> Vec<u64> {
    let said = container.says();
    SETS.iter()
        .map(|set| {
            let line = said.lines().find(|line| line.starts_with(set)).unwrap();
            u64::from_str_radix(value_of(line), 16).unwrap()
        })
        .collect()
}

const CHOWN: u64 = 1;
const KILL: u64 = 1 << 5;
const NET_RAW: u64 = 1 << 13;

fn capabilities_are_exactly_those_listed() {
    let container = Container::with_args(["grep", "^Cap", "/proc/self/status"]).edit(|spec| {
        spec["process"]["capabilities"] = json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
            "permitted": ["CAP_CHOWN", "CAP_KILL"],
            "effective": ["CAP_KILL"],
            "inheritable": ["CAP_CHOWN"],
            "ambient": [],
        });
    });
    let sets = capability_sets(&container);
    // execve(2) of root would add the bounding set to the other two, were it not for no_new_privs.
    assert_eq!((sets[0], sets[3], sets[4]), (CHOWN, CHOWN | KILL | NET_RAW, 0));
    assert_eq!((sets[1], sets[2]), (CHOWN | KILL, CHOWN | KILL));
}

fn ambient_capabilities_reach_an_unprivileged_user() {
    let container = Container::with_args(["grep", "^Cap", "/proc/self/status"]).edit(|spec| {
        let kill = json!(["CAP_KILL"]);
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        spec["process"]["capabilities"] = json!({
            "bounding": kill, "permitted": kill, "effective": kill, "inheritable": kill, "ambient": kill
        });
    });
    assert_eq!(capability_sets(&container), [KILL; 5]);
}

fn without_capabilities_there_are_none() {
    for empty in [json!({}), json!({ "bounding": [] })] {
        let container = Container::with_args(["grep", "^Cap", "/proc/self/status"])
            .edit(|spec| spec["process"]["capabilities"] = empty.clone());
        assert_eq!(capability_sets(&container), [0; 5], "{empty}");
    }
}

fn absent_capabilities_mean_none() -> Outcome {
    need_other_than("runc", "leaves all of them")?;
    let container = Container::with_args(["grep", "^Cap", "/proc/self/status"]).edit(|spec| {
        spec["process"].as_object_mut().unwrap().remove("capabilities");
    });
    assert_eq!(capability_sets(&container), [0; 5]);
    Ok(())
}

fn an_unprivileged_user_without_ambient_has_none_effective() {
    let container = Container::with_args(["grep", "^Cap", "/proc/self/status"])
        .edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    let sets = capability_sets(&container);
    assert_eq!((sets[1], sets[2], sets[4]), (0, 0, 0));
}

fn no_new_privileges_is_set() {
    assert_eq!(value_of(&status("NoNewPrivs").says()), "1");
}

fn new_privileges_are_possible_when_allowed() {
    let container = status("NoNewPrivs").edit(|spec| spec["process"]["noNewPrivileges"] = json!(false));
    assert_eq!(value_of(&container.says()), "0");
}

fn a_lower_resource_limit_is_set() {
    let container = Container::with_script("ulimit -Hn; ulimit -Sn; ulimit -Hc").edit(|spec| {
        spec["process"]["rlimits"] = json!([
            { "type": "RLIMIT_NOFILE", "hard": 256, "soft": 64 },
            { "type": "RLIMIT_CORE", "hard": 0, "soft": 0 }
        ]);
    });
    assert_eq!(container.says(), "256\n64\n0");
}

fn all_resource_limits_have_names() {
    let names = [
        "AS",
        "CORE",
        "CPU",
        "DATA",
        "FSIZE",
        "LOCKS",
        "MEMLOCK",
        "MSGQUEUE",
        "NICE",
        "NOFILE",
        "NPROC",
        "RSS",
        "RTPRIO",
        "RTTIME",
        "SIGPENDING",
        "STACK",
    ];
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    assert_eq!(limits.lines().count(), names.len() + 1, "a kernel with a new limit");
    for name in names {
        // Far below what any kernel starts with, and enough to run busybox; nothing can be lower than these three.
        let value = match name {
            "LOCKS" | "NICE" | "RTPRIO" => 0,
            "AS" | "DATA" | "FSIZE" | "RSS" | "STACK" | "MEMLOCK" => 4 << 20,
            _ => 100,
        };
        let container = Container::new().edit(|spec| {
            let kind = format!("RLIMIT_{name}");
            spec["process"]["rlimits"] = json!([{ "type": kind, "hard": value, "soft": value }]);
        });
        let output = container.run();
        let allowed = output.code() == 0 || output.stderr.to_lowercase().contains("not permitted");
        assert!(allowed, "{name}: {output:#?}");
    }
}

fn a_higher_resource_limit_is_set() -> Outcome {
    need_sys_resource()?;
    let container = Container::with_script("ulimit -Hn").edit(|spec| {
        spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "hard": 600_000, "soft": 64 }]);
    });
    let output = container.run_with(NO_OPTIONS).after_shell("ulimit -Hn 4096;").succeeds();
    assert_eq!(output.stdout.trim(), "600000");
    Ok(())
}

fn a_higher_resource_limit_without_the_capability_is_an_error() -> Outcome {
    need(!has_capability(24), "a host without CAP_SYS_RESOURCE")?;
    let container = Container::new().edit(|spec| {
        spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "hard": 600_000, "soft": 64 }]);
    });
    let run = container.run_with(NO_OPTIONS).after_shell("ulimit -Hn 4096;");
    let output = run.fails_with_any_case("operation not permitted");
    need_own()?;
    container.leaves_nothing();
    assert!(output.stderr.contains("/process/rlimits/0") && output.stderr.contains("CAP_SYS_RESOURCE"));
    Ok(())
}

fn the_oom_score_is_raised() {
    let container = Container::with_args(["cat", "/proc/self/oom_score_adj"])
        .edit(|spec| spec["process"]["oomScoreAdj"] = json!(500));
    assert_eq!(container.says(), "500");
}

fn the_oom_score_is_lowered() -> Outcome {
    need_sys_resource()?;
    let container = Container::with_args(["cat", "/proc/self/oom_score_adj"])
        .edit(|spec| spec["process"]["oomScoreAdj"] = json!(-500));
    assert_eq!(container.says(), "-500");
    Ok(())
}

fn an_absent_oom_score_is_inherited() {
    let container = Container::with_args(["cat", "/proc/self/oom_score_adj"]);
    let output = container.run_with(NO_OPTIONS).after_shell("echo 77 >/proc/self/oom_score_adj;").succeeds();
    assert_eq!(output.stdout.trim(), "77");
}

fn standard_streams_are_those_of_the_caller() {
    let container = Container::with_args(["ls", "/proc/self/fd"]);
    let said = container.says();
    // ls holds one more for the directory it reads.
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
}

fn no_signal_is_blocked_or_ignored_by_accident() {
    let container = Container::with_args(["grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status"]);
    for line in container.says().lines() {
        // 32 and 33 are the C library's own, which posix_spawn(3) of this test ignores.
        assert_eq!(u64::from_str_radix(value_of(line), 16).unwrap() & 0x7fff_ffff, 0, "{line}");
    }
}

/// The keys of the caller's session must not be reachable; keyrings(7).
fn the_session_keyring_is_new() -> Outcome {
    need(fs::exists("/proc/keys").unwrap_or(false), "a kernel with keys")?;
    let container =
        Container::with_args(["cat", "/proc/keys"]).edit(|spec| spec["linux"]["maskedPaths"] = json!([]));
    let said = container.says();
    assert!(said.contains(&format!("{}: ", container.id)), "{said}");
    Ok(())
}

fn the_session_keyring_is_kept_when_asked() -> Outcome {
    need(fs::exists("/proc/keys").unwrap_or(false), "a kernel with keys")?;
    let container =
        Container::with_args(["cat", "/proc/keys"]).edit(|spec| spec["linux"]["maskedPaths"] = json!([]));
    let output = container.run_with(["--no-new-keyring"]).succeeds();
    assert!(!output.stdout.contains(&format!("{}: ", container.id)), "{}", output.stdout);
    Ok(())
}

fn the_process_is_pid_1_of_its_namespace() {
    assert_eq!(Container::with_script("echo $$").says(), "1");
    let shared = Container::with_script("echo $$").edit(|spec| remove_namespace(spec, "pid"));
    assert_ne!(shared.says(), "1");
}

fn the_process_leads_its_session() {
    // Fields 1, 5 and 6 of proc_pid_stat(5): pid, process group, session.
    let container = Container::with_script("cut -d' ' -f1,6 /proc/$$/stat");
    assert_eq!(container.says(), "1 1");
}

/// CVE-2016-9962: the init process holds descriptors of the host until execve.
fn the_process_may_not_be_dumped_or_traced_before_it_runs() -> Outcome {
    need_other_than("crun", "leaves it dumpable")?;
    let container = Container::idle();
    container.create();
    let owner = |pid: i32| {
        use std::os::unix::fs::MetadataExt as _;
        fs::metadata(format!("/proc/{pid}/fd")).unwrap().uid()
    };
    // Of a process that is not dumpable these files belong to root, whoever it is; ours is root's anyway. What shows
    // is that it can be seen, and that it has no descriptor of a directory outside.
    assert_eq!(owner(container.pid()), 0);
    for entry in fs::read_dir(format!("/proc/{}/fd", container.pid())).unwrap().flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let text = target.to_string_lossy().into_owned();
        let on_proc = statfs(entry.path()).is_ok_and(|what| what.f_type == 0x9fa0);
        let outside = fs::metadata(entry.path()).is_ok_and(|what| what.is_dir()) && !on_proc;
        assert!(!outside, "fd {:?} is {text}", entry.file_name());
    }
    Ok(())
}

/// An image decides what /etc/passwd is, and it can be endless.
fn a_passwd_without_an_end_is_one_without_an_entry() -> Outcome {
    for peer in ["runc", "crun"] {
        need_other_than(peer, "reads on without an end")?;
    }
    for endless in ["/dev/zero", "/dev/urandom"] {
        let container = Container::with_script("echo $HOME");
        let passwd = container.bundle.rootfs().join("etc/passwd");
        fs::remove_file(&passwd).unwrap();
        symlink(endless, &passwd).unwrap();
        assert_eq!(container.says(), "/", "{endless}");
    }
    let large = Container::with_script("echo $HOME").with_file("etc/passwd", 0o644, "");
    let file = fs::OpenOptions::new().write(true).open(large.bundle.rootfs().join("etc/passwd")).unwrap();
    file.set_len(1 << 40).unwrap();
    assert_eq!(large.says(), "/");
    Ok(())
}

fn capabilities_that_the_runtime_lacks_are_left_out_with_a_warning() -> Outcome {
    need_own()?;
    need_program("setpriv")?;
    let container = Container::with_args(["grep", "^Cap", "/proc/self/status"]).edit(|spec| {
        let all = json!(["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"]);
        spec["process"]["capabilities"] = json!({
            "bounding": all, "permitted": all, "effective": all, "inheritable": all, "ambient": all
        });
    });
    let words = container.run_with(NO_OPTIONS).words();
    let without = Invocation::new("setpriv").args(["--bounding-set", "-net_raw", "--inh-caps", "-net_raw"]);
    let output = without.arg("--").args(words).succeeds();
    assert!(output.stderr.contains("CAP_NET_RAW"), "{output:#?}");
    assert!(!output.stderr.contains("CAP_KILL"), "{output:#?}");
    let sets: Vec<_> = output.stdout.lines().map(value_of).collect();
    assert_eq!(sets, [format!("{:016x}", CHOWN | KILL).as_str(); 5], "{output:#?}");
    container.leaves_nothing();
    Ok(())
}

/// config.md: a newer caller may name capabilities that this version does not know yet.
fn an_unknown_capability_is_left_out_with_a_warning() -> Outcome {
    need_own()?;
    let container = Container::with_args(["grep", "^CapPrm", "/proc/self/status"]).edit(|spec| {
        for set in ["bounding", "permitted", "effective"] {
            spec["process"]["capabilities"][set] = json!(["CAP_FOO", "CAP_KILL"]);
        }
    });
    let output = container.run_with(NO_OPTIONS).succeeds();
    assert!(output.stderr.contains("CAP_FOO"), "{output:#?}");
    assert_eq!(value_of(output.stdout.trim_end()), format!("{KILL:016x}"));
    container.leaves_nothing();
    Ok(())
}

/// access(2) would look at the real user without its capabilities, execve(2) does not.
fn a_user_with_cap_dac_override_executes_what_is_roots_alone() {
    for name in ["/home/mine", "mine"] {
        let container = Container::with_args([name]).with_file("home/mine", 0o700, "#!/bin/sh\necho mine\n");
        let container = container.edit(|spec| {
            let all = json!(["CAP_DAC_OVERRIDE"]);
            spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
            spec["process"]["env"] = json!(["PATH=/home:/bin"]);
            spec["process"]["capabilities"] = json!({
                "bounding": all, "permitted": all, "effective": all, "inheritable": all, "ambient": all
            });
        });
        assert_eq!(container.says(), "mine", "{name}");
    }
}

fn a_tight_limit_of_open_files_works_or_is_named() -> Outcome {
    need_own()?;
    for limit in 0..8 {
        let container = Container::new().edit(|spec| {
            spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "hard": limit, "soft": limit }]);
        });
        let output = container.run();
        let is_named = output.stderr.contains("/process/rlimits/0");
        assert!(output.code() == 0 || is_named, "{limit}: {output:#?}");
        assert!(output.code() == 0 || limit < 3, "{limit}: {output:#?}");
        container.leaves_nothing();
    }
    Ok(())
}

fn with_user_1000(container: Container) -> Container {
    container.edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }))
}

/// A file of the host would stay the container user's when the container is gone.
fn files_given_as_standard_streams_keep_their_owner() -> Outcome {
    need_other_than("crun", "gives them to the user, too")?;
    need_other_than("runc", "gives them to the user")?;
    let container = with_user_1000(Container::with_script("cat; echo out; echo error >&2"));
    let paths = ["in", "out", "error"].map(|name| container.beside(name));
    for path in &paths {
        fs::write(path, "").unwrap();
    }
    let [input, output, error] = paths.each_ref().map(|path| path.display());
    let prefix = format!("exec <{input} >>{output} 2>>{error};");
    container.run_with(NO_OPTIONS).after_shell(&prefix).succeeds();
    for path in &paths {
        assert_eq!(fs::metadata(path).unwrap().uid(), 0, "{}", path.display());
    }
    assert_eq!(fs::read_to_string(&paths[2]).unwrap(), "error\n");
    Ok(())
}

fn the_terminal_of_the_caller_keeps_its_owner() -> Outcome {
    need_other_than("runc", "gives it to the user")?;
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let terminal = fs::OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let before = terminal.metadata().unwrap();
    let container = with_user_1000(Container::with_script("test -t 0 && echo terminal"));
    let run = container.run_with(NO_OPTIONS).stdin(terminal.try_clone().unwrap());
    assert_eq!(run.succeeds().stdout, "terminal\n");
    let after = terminal.metadata().unwrap();
    assert_eq!((after.uid(), after.gid(), after.mode()), (before.uid(), before.gid(), before.mode()));
    Ok(())
}

/// So that `echo >/dev/stderr` works for every user.
fn pipes_given_as_standard_streams_become_the_users() -> Outcome {
    need_other_than("crun", "leaves them alone without a terminal")?;
    let container = with_user_1000(Container::with_script("stat -L -c %u /dev/stdin; head -c 4 </dev/stdin"));
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    File::from(writer).write_all(b"text").unwrap();
    let output = container.run_with(NO_OPTIONS).stdin(reader).succeeds();
    assert_eq!(output.stdout, "1000\ntext");
    Ok(())
}
