//! Common pitfalls of drop-in runtimes: how Go programs parse command lines, how engines use output and log.
//! Each test bears the number of its pitfall in our list of them.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::container::NO_OPTIONS;
use crate::support::host::{copy_runtime, kind, need_other_than, need_own, runtime};
use crate::support::suite::suite;
use crate::support::{Container, Invocation, Outcome, workspace};

suite![
    t1_every_long_option_of_every_command_takes_one_dash,
    t1_what_go_runc_passes_runs,
    t2_every_option_of_every_command_may_be_repeated,
    t2_of_a_repeated_option_the_last_counts,
    t3_features_leaves_standard_error_clean,
    t4_checkpoint_help_fails_while_there_is_no_checkpoint,
    t5_restore_knows_the_option_that_engines_ask_for,
    t6_by_the_name_of_runc_or_crun_it_answers_to_that_name,
    t6_by_the_name_of_runc_its_errors_begin_as_runcs,
    t6_by_the_name_of_runc_a_program_that_cannot_be_executed_is_one_line,
    t7_a_failure_of_any_command_is_one_json_object,
    t8_errors_hold_the_words_that_engines_look_for,
    t9_the_version_is_what_engines_take_apart,
    t10_it_runs_from_anywhere_by_any_name,
    t11_a_missing_default_root_is_empty_and_an_explicit_one_an_error,
    t12_paths_are_meant_from_the_callers_directory,
    t13_debug_says_what_runcs_tests_look_for,
    t14_the_pid_file_is_digits_alone,
    t15_the_log_is_made_readable_appended_to_and_never_cut,
    t16_later_commands_do_not_depend_on_the_options_of_create,
];

/// The commands and their options, with whether they take a value, as the help has them.
fn options() -> Vec<(String, Vec<(String, bool)>)> {
    let help = Invocation::of_the_runtime().arg("help").succeeds().stdout;
    let commands = help.split("\nCOMMANDS:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = commands.lines().map(|line| line.split_whitespace().next().unwrap().to_owned());
    let options = |text: &str| {
        let lines = text.split("OPTIONS:\n").nth(1).unwrap().lines();
        lines
            .filter_map(|line| line.trim().strip_prefix("--"))
            .filter_map(|line| line.split("  ").next())
            .filter(|line| *line != "help, -h")
            .map(|line| {
                // `bundle DIR, -b DIR`
                let mut words = line.split(',').next().unwrap().split(' ');
                (words.next().unwrap().to_owned(), words.next().is_some())
            })
            .collect::<Vec<_>>()
    };
    let of = |name: String| {
        let text = Invocation::of_the_runtime().args([&name, "--help"]).succeeds().stdout;
        let options = options(&text);
        (name, options)
    };
    names.filter(|name| name != "help,").map(of).chain([(String::new(), options(&help))]).collect()
}

/// Calls the command, or without one the program, with these words before the name of a container that does not exist.
fn stderr_of(command: &str, words: &[String]) -> String {
    let directory = workspace::directory().join(workspace::unique_name());
    fs::create_dir(&directory).unwrap();
    let call = Invocation::of_the_runtime().current_dir(&directory);
    let root = directory.join("root");
    let call = match command {
        "" => call.args(words).arg("--root").arg(root).args(["state", "not-there"]),
        "features" | "list" | "spec" => call.arg("--root").arg(root).arg(command).args(words),
        _ => call.arg("--root").arg(root).arg(command).args(words).arg("not-there"),
    };
    let output = call.output();
    workspace::remove_tree(&directory);
    format!("{}{}", output.stdout, output.stderr)
}

/// A value that every option with one takes, or refuses for what it is.
const VALUE: &str = "1";

#[track_caller]
fn is_no_usage_error(command: &str, words: &[String], said: &str) {
    for text in
        ["not defined", "needs an argument", "requires an argument", "too many", "more than once", "USAGE"]
    {
        assert!(!said.contains(text), "{command} {words:?}: {said}");
    }
}

fn t1_every_long_option_of_every_command_takes_one_dash() -> Outcome {
    need_own()?;
    let mut count = 0;
    for (command, options) in options() {
        for (name, takes_value) in options.iter().filter(|(name, _)| name != "version") {
            let mut forms = vec![vec![format!("-{name}")]];
            if *takes_value {
                forms = vec![vec![format!("-{name}={VALUE}")], vec![format!("-{name}"), VALUE.to_owned()]];
            }
            for words in forms {
                is_no_usage_error(&command, &words, &stderr_of(&command, &words));
                count += 1;
            }
        }
    }
    assert!(count > 40, "only {count}");
    Ok(())
}

/// go-runc writes `-no-subreaper`.
fn t1_what_go_runc_passes_runs() -> Outcome {
    need_other_than("crun", "takes short options for it")?;
    let container = Container::with_script("echo yes");
    let output = container.run_with(["-no-subreaper", "-no-pivot=false", "-keep=false"]).succeeds();
    assert_eq!(output.stdout, "yes\n");
    container.leaves_nothing();
    Ok(())
}

fn t2_every_option_of_every_command_may_be_repeated() -> Outcome {
    need_own()?;
    for (command, options) in options() {
        for (name, takes_value) in options.iter().filter(|(name, _)| name != "version") {
            let word = if *takes_value { format!("--{name}={VALUE}") } else { format!("--{name}") };
            let words = vec![word.clone(), word];
            is_no_usage_error(&command, &words, &stderr_of(&command, &words));
        }
    }
    Ok(())
}

/// conmon-rs passes `--root` and `--systemd-cgroup` twice.
fn t2_of_a_repeated_option_the_last_counts() {
    let container = Container::with_script("echo yes");
    let (wrong, right) = (container.beside("wrong"), container.beside("right"));
    let output = Invocation::of_the_runtime()
        .arg("--root=/nonexistent")
        .arg(format!("--root={}", container.root().display()))
        .args(["run", "--bundle", "/nonexistent", "--bundle"])
        .arg(container.bundle.path())
        .arg("--pid-file")
        .arg(&wrong)
        .arg("--pid-file")
        .arg(&right)
        .arg(&container.id)
        .succeeds();
    assert_eq!(output.stdout, "yes\n");
    assert!(right.exists() && !wrong.exists());
    container.runtime().args(["--systemd-cgroup", "--systemd-cgroup", "delete", "--force", "x"]).succeeds();
}

/// CRI-O decodes standard output and standard error together.
fn t3_features_leaves_standard_error_clean() -> Outcome {
    let container = Container::new();
    let log = container.beside("log").display().to_string();
    let mut settings = vec![vec![], vec!["--log", &log], vec!["--log", &log, "--log-format", "json"]];
    if kind() != "crun" {
        settings.extend([vec!["--systemd-cgroup"], vec!["--rootless", "true"], vec!["--rootless=false"]]);
    }
    if kind() == "runtime" {
        settings.extend([
            vec!["--debug"],
            vec!["--debug", "--log-level", "debug"],
            vec!["--root", "/nonexistent"],
        ]);
    }
    for options in settings {
        let output = Invocation::of_the_runtime().args(&options).arg("features").succeeds();
        assert_eq!(output.stderr, "", "{options:?}");
        serde_json::from_str::<Value>(&output.stdout).unwrap();
    }
    need_own()?;
    // Nothing of what its caller has or lacks matters.
    let output =
        Invocation::new("env").args(["-i".as_ref(), runtime().as_os_str()]).arg("features").succeeds();
    assert_eq!(output.stderr, "");
    Ok(())
}

/// podman and CRI-O take `checkpoint --help` ending well for the ability to checkpoint.
fn t4_checkpoint_help_fails_while_there_is_no_checkpoint() -> Outcome {
    need_own()?;
    for words in [["checkpoint", "--help"], ["help", "checkpoint"], ["checkpoint", "x"]] {
        let output =
            Invocation::of_the_runtime().args(words).fails_with("checkpoint and restore are not supported");
        assert_eq!(output.stdout, "");
    }
    Ok(())
}

/// They look for one of two texts, and nothing else, in what comes of the option without a value.
fn t5_restore_knows_the_option_that_engines_ask_for() {
    let output = Invocation::of_the_runtime().args(["restore", "--lsm-mount-context"]).output();
    assert_ne!(output.code(), 0);
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(said.contains("flag needs an argument") || said.contains("requires an argument"), "{output:#?}");
}

/// The runtime by another name, in a directory of its own.
fn named(container: &Container, name: &str) -> PathBuf {
    let link = container.beside(name);
    symlink(fs::canonicalize(runtime()).unwrap(), &link).unwrap();
    link
}

fn t6_by_the_name_of_runc_or_crun_it_answers_to_that_name() -> Outcome {
    need_own()?;
    for name in ["runc", "crun"] {
        let container = Container::new();
        let program = named(&container, name);
        let version = Invocation::new(&program).arg("--version").succeeds().stdout;
        assert!(version.starts_with(&format!("{name} version ")), "{version}");
        let help = Invocation::new(&program).arg("-h").succeeds().stdout;
        assert!(
            help.starts_with(&format!("NAME:\n   {name} - Open Container Initiative runtime\n")),
            "{help}"
        );
        let help = Invocation::new(&program).args(["kill", "-h"]).succeeds().stdout;
        assert!(help.starts_with(&format!("NAME:\n   {name} kill - ")), "{help}");
    }
    Ok(())
}

fn t6_by_the_name_of_runc_its_errors_begin_as_runcs() -> Outcome {
    need_own()?;
    let container = Container::with_args(["not-there"]);
    let log = container.beside("log");
    let call = |command: &str| {
        let call = Invocation::new(container.beside("runc")).arg("--root").arg(container.root());
        call.args(["--log-format", "json", "--log"]).arg(&log).arg(command)
    };
    named(&container, "runc");
    for command in ["create", "run"] {
        let said =
            call(command).arg("--bundle").arg(container.bundle.path()).arg(&container.id).fails_with("");
        let expected = format!(
            "error: runc {command} failed: unable to start container process: error during container init: \
             config.json: /process/args/0: exec \"not-there\": executable file not found in $PATH\n"
        );
        assert_eq!(said.stderr, expected);
        let logged: Value =
            serde_json::from_str(fs::read_to_string(&log).unwrap().lines().last().unwrap()).unwrap();
        assert_eq!(format!("error: {}\n", logged["msg"].as_str().unwrap()), expected);
        assert_eq!(logged["pointer"], "/process/args/0");
        container.leaves_nothing();
    }
    let said = call("state").arg(&container.id).fails_with("");
    assert_eq!(said.stderr, format!("error: container {:?} does not exist\n", container.id));
    Ok(())
}

/// runc's init process says it, and its parent nothing more.
fn t6_by_the_name_of_runc_a_program_that_cannot_be_executed_is_one_line() -> Outcome {
    need_own()?;
    let container = Container::with_args(["/run.sh"]).with_file("run.sh", 0o755, "#!/no/such/interpreter\n");
    let program = named(&container, "runc");
    let run = Invocation::new(program).arg("--root").arg(container.root()).args(["run", "--bundle"]);
    let output = run.arg(container.bundle.path()).arg(&container.id).fails_with("");
    assert_eq!(output.stderr, "exec /run.sh: no such file or directory\n");
    container.run_fails_with("/process/args/0: exec /run.sh: no such file or directory (ENOENT)");
    Ok(())
}

/// podman decodes the whole file as one object.
fn t7_a_failure_of_any_command_is_one_json_object() -> Outcome {
    need_own()?;
    for (command, _) in options().into_iter().filter(|(command, _)| !command.is_empty()) {
        let container = Container::new();
        let log = container.beside("log");
        // Of an option that none has, and of a container that there is not.
        for words in [vec!["--frobnicate"], vec![container.id.as_str(), "TERM"]] {
            let _ = fs::remove_file(&log);
            let call = container.runtime().args(["--log-format", "json", "--log"]).arg(&log);
            let output = call.current_dir(&container.bundle.home).arg(&command).args(&words).output();
            assert_ne!(output.code(), 0, "{output:#?}");
            let text = fs::read_to_string(&log).unwrap();
            let record: Value =
                serde_json::from_str(&text).unwrap_or_else(|e| panic!("{command}: {e}: {text}"));
            assert_eq!(record["level"], "error", "{text}");
            assert!(record["msg"].is_string() && record["time"].is_string(), "{text}");
            assert_eq!(output.stderr.lines().count(), 1, "{output:#?}");
        }
    }
    Ok(())
}

/// They make exit codes of their own from them, or try again for ever.
fn t8_errors_hold_the_words_that_engines_look_for() -> Outcome {
    let container = Container::new();
    for command in ["state", "start", "kill", "delete"] {
        // crun's delete names the directory instead.
        if (kind(), command) != ("crun", "delete") {
            container.on_id(command).fails_with("does not exist");
        }
    }
    let ended = Container::with_args(["true"]);
    ended.launch();
    ended.wait_for("stopped");
    if kind() != "crun" {
        ended.on_id("kill").fails_with("container not running");
    }
    for (program, text) in [
        ("not-there", "executable file not found in $PATH"),
        ("/not-there", "no such file or directory"),
        ("/etc", "is a directory"),
        ("/etc/passwd", "permission denied"),
    ] {
        need_other_than("crun", "has words of its own")?;
        // runc says of a directory that it may not be executed.
        if kind() != "runc" || program != "/etc" {
            let container = Container::with_args([program]);
            container.run_with(NO_OPTIONS).fails_with_any_case(&text.to_lowercase());
        }
    }
    Ok(())
}

/// go-runc wants three words in the first line, dockerd a line with `commit:`, both one with `spec:`.
fn t9_the_version_is_what_engines_take_apart() -> Outcome {
    need_own()?;
    for option in ["--version", "-version", "-v", "-V"] {
        let text = Invocation::of_the_runtime().arg(option).succeeds().stdout;
        let lines: Vec<_> = text.lines().collect();
        let first: Vec<_> = lines[0].split(' ').collect();
        assert_eq!((first.len(), first[1]), (3, "version"), "{text}");
        assert!(first[2].split('.').filter(|part| part.parse::<u32>().is_ok()).count() == 3, "{text}");
        assert!(lines[1].starts_with("commit: "), "{text}");
        assert!(lines[2].starts_with("spec: 1.3"), "{text}");
    }
    Ok(())
}

/// Agents look for the program at the places of runc, and for what it was called with.
fn t10_it_runs_from_anywhere_by_any_name() -> Outcome {
    need_own()?;
    let container = Container::with_script("echo yes");
    let copy = container.beside("buildkit-runc");
    copy_runtime(&copy);
    let run = Invocation::new(&copy).arg("--root").arg(container.root()).args(["run", "--bundle"]);
    assert_eq!(run.arg(container.bundle.path()).arg(&container.id).succeeds().stdout, "yes\n");
    container.leaves_nothing();
    Ok(())
}

fn t11_a_missing_default_root_is_empty_and_an_explicit_one_an_error() -> Outcome {
    need_other_than("crun", "makes the root")?;
    need_other_than("runc", "fails before 1.4")?;
    // With an empty /run, in which there is none.
    let list = |words: &str| {
        let script = format!("mount -t tmpfs none /run && exec \"$0\" {words}");
        Invocation::new("unshare").args(["--mount", "sh", "-c", &script]).arg(runtime())
    };
    assert_eq!(list("list -q").succeeds().stdout, "");
    assert_eq!(list("list -f json").succeeds().stdout, "null\n");
    assert_eq!(list("list").succeeds().stdout.lines().count(), 1);
    list("--root /run/runtime list").fails_with("read root /run/runtime: no such file or directory");
    Ok(())
}

/// A caller may stand anywhere, and engines stand in the bundle.
fn t12_paths_are_meant_from_the_callers_directory() -> Outcome {
    need_other_than("crun", "takes the root and the pid file from the bundle's")?;
    let container = Container::with_script("echo yes");
    let home = &container.bundle.home;
    let run = || Invocation::of_the_runtime().current_dir(home).args(["--root", "root", "run"]);
    let output = run().args(["--bundle", "bundle", "--pid-file", "pid", &container.id]).succeeds();
    assert_eq!(output.stdout, "yes\n");
    assert!(home.join("pid").exists());
    assert!(home.join("root").is_dir());
    for root in ["/", "/..", "//"] {
        let call = Invocation::of_the_runtime().args(["--root", root, "list"]);
        assert_ne!(call.output().code(), 0, "{root}");
    }
    Ok(())
}

fn t13_debug_says_what_runcs_tests_look_for() -> Outcome {
    need_other_than("crun", "says other things")?;
    for format in ["text", "json"] {
        let container = Container::new();
        let log = container.beside("log");
        let call = container.runtime().args(["--debug", "--log-format", format, "--log"]).arg(&log);
        let output =
            call.args(["run", "--bundle"]).arg(container.bundle.path()).arg(&container.id).succeeds();
        assert_eq!(output.stderr, "");
        let text = fs::read_to_string(&log).unwrap();
        for words in [
            if format == "text" { "level=debug" } else { "\"level\":\"debug\"" },
            "nsexec container setup",
            "child process in init()",
            "init: closing the pipe to signal completion",
        ] {
            assert!(text.contains(words), "{words:?} is not in {text}");
        }
    }
    Ok(())
}

/// go-runc's reader takes nothing else.
fn t14_the_pid_file_is_digits_alone() {
    let container = Container::idle();
    let file = container.beside("pid");
    container.create_with([Path::new("--pid-file"), &file]).succeeds();
    assert_eq!(fs::read_to_string(&file).unwrap(), container.pid().to_string());
}

/// One file serves many invocations, and whoever reads it is not root.
fn t15_the_log_is_made_readable_appended_to_and_never_cut() -> Outcome {
    need_other_than("crun", "leaves the mode to the umask")?;
    let container = Container::new();
    let log = container.beside("log");
    for count in 1..=3 {
        container
            .runtime()
            .args(["--log-format=json", "--log"])
            .arg(&log)
            .args(["state", "x"])
            .fails_with("");
        assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), count);
    }
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o644);
    Ok(())
}

/// conmon says `--systemd-cgroup` to create only, podman some of its options to create only.
fn t16_later_commands_do_not_depend_on_the_options_of_create() -> Outcome {
    need_own()?;
    let container = Container::idle();
    container.launch();
    for command in ["state", "kill", "delete"] {
        let options = ["--systemd-cgroup", "--cgroup-manager", "disabled", "--rootless", "true"];
        let call = container.runtime().args(options).arg(command).arg(&container.id);
        if command == "kill" { call.arg("KILL") } else { call }.succeeds();
        if command == "kill" {
            container.wait_for("stopped");
        }
    }
    container.leaves_nothing();
    Ok(())
}
