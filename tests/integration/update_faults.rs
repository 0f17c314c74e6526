//! An update in which one write fails, each in turn: all limits are as before.
//!
//! The control file of that write is made to fail for this call alone, in a mount namespace of its own: it is
//! read-only, so that it cannot be opened, or replaced by a file with the same content that the call may not
//! write to (RLIMIT_FSIZE). The writes are those listed by `update --dry-run`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::host::{has_controller, machine, need, need_disk, need_own, need_program};
use crate::support::suite::suite;
use crate::support::{Container, Invocation, Outcome, wait_until};

use super::cgroup::device_numbers;
use super::revisions::{depth, history, launched, read_only, update_to};
use super::update::everything;

suite![
    a_file_that_cannot_be_opened_takes_every_other_write_back,
    a_write_that_fails_takes_every_other_back,
    a_state_that_cannot_be_saved_takes_every_write_back,
    a_rollback_takes_every_write_back_too,
    a_value_that_cannot_be_put_back_is_named,
    a_value_that_could_not_be_put_back_is_put_back_by_the_next,
    an_update_that_is_killed_is_taken_back_by_the_next,
    an_update_may_be_killed_at_any_write,
    what_an_update_that_was_killed_has_left_can_be_left,
    the_way_out_is_told_whatever_goes_wrong,
    an_update_that_was_killed_is_to_be_seen,
    a_rollback_of_an_update_that_was_killed_goes_no_further,
];

/// Resources that name every controller this host has.
fn resources(container: Option<&Container>, is_second: bool) -> Value {
    let pick = |first: u64, second: u64| if is_second { second } else { first };
    let mut resources = json!({ "unified": {
        "cgroup.max.depth": pick(3, 7).to_string(), "cgroup.max.descendants": pick(5, 9).to_string()
    } });
    if has_controller("pids") {
        resources["pids"] = json!({ "limit": pick(20, 30) });
    }
    if has_controller("memory") {
        let mib = |first, second| pick(first, second) << 20;
        resources["memory"] =
            json!({ "limit": mib(64, 96), "swap": mib(96, 160), "reservation": mib(8, 16) });
        resources["unified"]["memory.high"] = json!(mib(60, 90).to_string());
    }
    if has_controller("cpu") {
        // Of these, each order of writing is refused by the kernel one way or the other.
        resources["cpu"] = json!({
            "shares": pick(2048, 512), "quota": pick(50_000, 90_000), "period": 100_000, "burst": pick(10_000, 80_000)
        });
    }
    if has_controller("cpuset") {
        let two = std::thread::available_parallelism().unwrap().get() > 1;
        resources["cpu"]["cpus"] = if two { pick(0, 1).to_string() } else { "0".to_owned() }.into();
        resources["cpu"]["mems"] = "0".into();
    }
    if has_controller("io") {
        if let Ok(disk) = need_disk() {
            let (major, minor) = device_numbers(&disk);
            let rate = pick(1_048_576, 4_194_304);
            let device = json!([{ "major": major, "minor": minor, "rate": rate }]);
            resources["blockIO"] =
                json!({ "throttleReadBpsDevice": device, "throttleWriteIOPSDevice": device });
            let has_weight =
                |name: &str| container.is_some_and(|container| container.cgroup().join(name).exists());
            if has_weight("io.weight") || has_weight("io.bfq.weight") {
                resources["blockIO"]["weight"] = pick(300, 700).into();
            }
        }
    }
    if has_controller("hugetlb") && Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists() {
        resources["hugepageLimits"] = json!([{ "pageSize": "2MB", "limit": pick(2, 4) << 20 }]);
    }
    resources
}

fn update(container: &Container, options: &[&str]) -> Invocation {
    let file = container.beside("resources.json");
    fs::write(&file, resources(Some(container), true).to_string()).unwrap();
    container.runtime().args(["update", "-r"]).arg(file).args(options).arg(&container.id)
}

/// The control files that the call writes, each once, in order.
fn written(container: &Container, call: Invocation) -> Vec<String> {
    let output = call.args(["--dry-run", "--format", "json"]).succeeds();
    let writes: Vec<Value> = serde_json::from_str(&output.stdout).unwrap();
    let mut files: Vec<String> = Vec::new();
    for write in writes {
        let file = write["file"].as_str().unwrap().to_owned();
        assert!(Path::new(&file).starts_with(container.cgroup()), "{output:#?}");
        if !files.contains(&file) {
            files.push(file);
        }
    }
    files
}

/// What the cgroup and the state are.
fn now(container: &Container) -> (BTreeMap<String, String>, String) {
    let state = fs::read_to_string(container.state_directory().join("state.json")).unwrap();
    (everything(container), state)
}

/// Makes each write of the call fail in turn, by `inject`. Nothing must change, and the error must name the file; without the
/// fault the call must then change all of them.
fn each_write_fails(
    container: &Container,
    call: impl Fn() -> Invocation,
    inject: impl Fn(Invocation, &Path) -> Invocation,
    errno: &str,
) {
    let files = written(container, call());
    assert!(files.len() >= 2, "{files:?}");
    let before = now(container);
    for file in &files {
        let output = inject(call(), Path::new(file)).output();
        assert_eq!(output.code(), 1, "{file}: {output:#?}");
        assert!(output.stderr.contains(&format!(" to {file}: ")), "{output:#?}");
        assert!(output.stderr.contains(errno), "{output:#?}");
        assert!(!output.stderr.contains("put back"), "{output:#?}");
        assert_eq!(now(container), before, "{file}: {output:#?}");
    }
    call().succeeds();
    let (after, _) = now(container);
    for file in &files {
        let name = Path::new(file).file_name().unwrap().to_str().unwrap();
        let same_on_purpose = matches!(name, "cpuset.mems" | "cpuset.cpus");
        assert!(after[name] != before.0[name] || same_on_purpose, "{file} has not changed: {after:#?}");
    }
}

/// The same call where a file of the same content that it cannot write to is in the place of this one.
fn unwritable(call: Invocation, file: &Path, copy: &Path, most: usize) -> Invocation {
    fs::copy(file, copy).unwrap();
    stand_in(call, file, copy, most)
}

/// The same call where `copy` is in the place of `file`, and no file but the kernel's can be written beyond this size.
fn stand_in(call: Invocation, file: &Path, copy: &Path, most: usize) -> Invocation {
    // What it says goes through a pipe, for the limit is one of its standard error, too.
    let script = "mount --bind \"$0\" \"$1\" && shift && \"$@\" 2>&1 | cat >&2";
    let call = call.called_by(["prlimit", &format!("--fsize={most}"), "--"]);
    let words = ["unshare", "--mount", "--propagation", "private", "bash", "-o", "pipefail", "-c", script];
    call.called_by(words.into_iter().chain([copy.to_str().unwrap(), file.to_str().unwrap()]))
}

fn a_file_that_cannot_be_opened_takes_every_other_write_back() -> Outcome {
    need_own()?;
    let container = launched(resources(None, false));
    each_write_fails(&container, || update(&container, &[]), read_only, "read-only file system (EROFS)");
    Ok(())
}

fn a_write_that_fails_takes_every_other_back() -> Outcome {
    need_own()?;
    need_program("prlimit")?;
    let container = launched(resources(None, false));
    let copy = container.beside("copy");
    let inject = |call, file: &Path| unwritable(call, file, &copy, 0);
    each_write_fails(&container, || update(&container, &[]), inject, "file too large (EFBIG)");
    Ok(())
}

/// The last thing that can fail: everything has been written then.
fn a_state_that_cannot_be_saved_takes_every_write_back() -> Outcome {
    need_own()?;
    let container = launched(resources(None, false));
    let before = now(&container);
    let in_the_way = container.state_directory().join(".state.json");
    fs::create_dir(&in_the_way).unwrap();
    update(&container, &[]).fails_with("state.json: is a directory (EISDIR)");
    assert_eq!(now(&container), before);
    fs::remove_dir(&in_the_way).unwrap();
    update(&container, &[]).succeeds();
    assert_ne!(now(&container), before);
    Ok(())
}

fn a_rollback_takes_every_write_back_too() -> Outcome {
    need_own()?;
    let container = launched(resources(None, false));
    let first = everything(&container);
    update(&container, &[]).succeeds();
    let call = || container.runtime().args(["rollback", "--to", "1", &container.id]);
    each_write_fails(&container, call, read_only, "read-only file system (EROFS)");
    assert_eq!(everything(&container), first);
    Ok(())
}

/// Makes an update that is killed when everything but its record is written.
fn killed(container: &Container) {
    let pipe = container.state_directory().join(".state.json");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let running = update(container, &[]).spawn();
    wait_until("it is to be recorded", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", running.pid())).unwrap();
        // It waits for whoever reads from the pipe.
        stat.contains(") S ") && container.control_file("cgroup.max.depth") == "7"
    });
    running.signal(Signal::SIGKILL);
    assert_eq!(running.wait().code(), 137);
    fs::remove_file(pipe).unwrap();
}

fn an_update_that_is_killed_is_taken_back_by_the_next() -> Outcome {
    need_own()?;
    let container = launched(resources(None, false));
    let before = everything(&container);
    killed(&container);
    assert_ne!(everything(&container), before);
    let output = container.runtime().args(["rollback", "--to", "1", &container.id]).succeeds();
    assert!(output.stdout.ends_with(": already has the limits of revision 1\n"), "{output:#?}");
    assert_eq!(everything(&container), before);
    killed(&container);
    // What it notes is what was before the other.
    update(&container, &[]).succeeds();
    assert_eq!(history(&container).len(), 2);
    container.runtime().args(["rollback", &container.id]).succeeds();
    assert_eq!(everything(&container), before);
    let left = fs::read_dir(container.state_directory()).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).filter(|name| name != "state.json").collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("unfinished")), "{left:?}");
    Ok(())
}

fn an_update_may_be_killed_at_any_write() -> Outcome {
    need_own()?;
    need_program("strace")?;
    need(machine() == "native", "a machine that runs a traced program quickly")?;
    let container = launched(resources(None, false));
    let before = everything(&container);
    let mut killed = 0;
    for name in ["openat", "write", "renameat", "unlinkat"] {
        for number in 1.. {
            let inject = format!("inject={name}:signal=KILL:when={number}");
            let filter = format!("trace={name}");
            let words = ["strace", "-o", "/dev/null", "-e", &filter, "-e", &inject];
            let output = update(&container, &[]).called_by(words).output();
            // Whoever asks for nothing has it put right, too.
            container.runtime().args(["update", &container.id]).succeeds();
            let after = everything(&container);
            let is_done = history(&container).len() > 1;
            assert_eq!(after != before, is_done, "{name} {number}: {after:#?}");
            if is_done {
                container.runtime().args(["rollback", "--to", "1", &container.id]).succeeds();
                assert_eq!(everything(&container), before, "{name} {number}");
                container.delete_by_force();
                container.launch();
            }
            if output.code() == 0 {
                break;
            }
            assert_eq!(output.code(), 137, "{output:#?}");
            killed += 1;
        }
    }
    assert!(killed > 20, "{killed}");
    Ok(())
}

/// Where it cannot be put back, whoever wants to change anything must have a way.
fn what_an_update_that_was_killed_has_left_can_be_left() -> Outcome {
    need_own()?;
    let container = launched(resources(None, false));
    killed(&container);
    let file = container.cgroup().join("cgroup.max.depth");
    let output = read_only(container.runtime().args(["update", &container.id]), &file).fails_with("EROFS");
    let note = container.state_directory().join("unfinished-update.json");
    let way_out = format!("(remove {} to skip this)", note.display());
    assert!(output.stderr.contains(&way_out), "{output:#?}");
    fs::remove_file(note).unwrap();
    container.runtime().args(["update", &container.id]).succeeds();
    assert_eq!(container.control_file("cgroup.max.depth"), "7");
    Ok(())
}

/// A stand-in that takes the new value, which is short, and not the old one, which is long.
fn a_value_that_cannot_be_put_back_is_named() -> Outcome {
    need_own()?;
    need_program("prlimit")?;
    let container = launched(json!({}));
    let copy = container.beside("copy");
    fs::write(&copy, "1234567\n").unwrap();
    let file = container.beside("resources.json");
    let wrong = json!({ "unified": { "cgroup.max.depth": "5", "cgroup.max.descendants": "many" } });
    fs::write(&file, wrong.to_string()).unwrap();
    let call = container.runtime().args(["update", "-r"]).arg(file).arg(&container.id);
    let output = stand_in(call, &container.cgroup().join("cgroup.max.depth"), &copy, 4).output();
    assert_eq!(output.code(), 1, "{output:#?}");
    let text =
        "/cgroup.max.descendants: invalid argument (EINVAL) (and cgroup.max.depth could not be restored)";
    assert!(output.stderr.contains(text), "{output:#?}");
    // It was tried.
    assert_eq!(fs::read_to_string(&copy).unwrap(), "1234567\n");
    Ok(())
}

/// Whatever went wrong after it was written.
fn a_value_that_could_not_be_put_back_is_put_back_by_the_next() -> Outcome {
    need_own()?;
    need_program("strace")?;
    need(machine() == "native", "a machine that runs a traced program quickly")?;
    let container = launched(depth("3"));
    let file = container.cgroup().join("cgroup.max.depth");
    let in_the_way = container.state_directory().join(".state.json");
    let note = container.state_directory().join("unfinished-update.json");
    let wrong = json!({ "unified": { "cgroup.max.depth": "7", "cgroup.max.descendants": "many" } });
    // Of the two, the second takes it back.
    let words = ["strace", "-o", "/dev/null", "-P", file.to_str().unwrap(), "-e", "trace=write"];
    let words = words.into_iter().chain(["-e", "inject=write:error=EIO:when=2"]);
    for (resources, cause) in [(wrong, "invalid argument (EINVAL)"), (depth("7"), "is a directory (EISDIR)")]
    {
        fs::create_dir(&in_the_way).unwrap();
        let output = update_to(&container, resources, &[]).called_by(words.clone()).output();
        assert_eq!(output.code(), 1, "{output:#?}");
        let text = format!("{cause} (and cgroup.max.depth could not be restored)\n");
        assert!(output.stderr.ends_with(&text), "{output:#?}");
        assert_eq!(container.control_file("cgroup.max.depth"), "7");
        fs::remove_dir(&in_the_way).unwrap();
        assert!(note.exists(), "{output:#?}");
        container.runtime().args(["update", &container.id]).succeeds();
        assert_eq!(container.control_file("cgroup.max.depth"), "3");
        assert!(!note.exists());
    }
    assert_eq!(history(&container).len(), 1);
    Ok(())
}

fn note(container: &Container, file: &str) -> String {
    let note = container.state_directory().join("unfinished-update.json");
    let changes = json!([{ "file": file, "from": "1", "to": "2" }]);
    fs::write(&note, json!({ "revision": 1, "changes": changes }).to_string()).unwrap();
    format!("(remove {} to skip this): ", note.display())
}

fn the_way_out_is_told_whatever_goes_wrong() -> Outcome {
    need_own()?;
    let container = launched(json!({}));
    // What went wrong has a way out of its own.
    let way_out = note(&container, "cgroup.none");
    let output = container.runtime().args(["update", &container.id]).fails_with(&way_out);
    assert!(output.stderr.contains("this kernel has no such control file"), "{output:#?}");
    let below = container.cgroup().join("below");
    fs::create_dir(&below).unwrap();
    let way_out = note(&container, "below/cgroup.max.depth");
    let text = format!("{way_out}\"below/cgroup.max.depth\" is not a control file");
    container.runtime().args(["update", &container.id]).fails_with(&text);
    assert_eq!(fs::read_to_string(below.join("cgroup.max.depth")).unwrap(), "max\n");
    fs::remove_dir(below).unwrap();
    // Nor is a link followed.
    let note = container.state_directory().join("unfinished-update.json");
    let other = container.beside("other");
    fs::rename(&note, &other).unwrap();
    std::os::unix::fs::symlink(&other, &note).unwrap();
    container.runtime().args(["update", &container.id]).fails_with("ELOOP");
    fs::remove_file(note).unwrap();
    Ok(())
}

/// Old and new value of each write to `cgroup.max.depth` that the call would make.
fn depths(container: &Container, call: Invocation) -> Vec<(String, String)> {
    let output = call.args(["--dry-run", "--format", "json"]).succeeds();
    let writes: Vec<Value> = serde_json::from_str(&output.stdout).unwrap();
    let file = container.cgroup().join("cgroup.max.depth");
    let writes = writes.iter().filter(|write| write["file"] == file.to_str().unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    writes.map(|write| (text(&write["old"]), text(&write["new"]))).collect()
}

fn an_update_that_was_killed_is_to_be_seen() -> Outcome {
    need_own()?;
    let container = launched(resources(None, false));
    let table = || container.runtime().args(["history", &container.id]).succeeds().stdout;
    assert_eq!(table().lines().count(), 2);
    killed(&container);
    let mark = "an update was interrupted or is still running; the next update or rollback restores: ";
    let table = table();
    let last = table.lines().last().unwrap();
    assert!(last.starts_with(mark) && last.contains("cgroup.max.depth 3"), "{table}");
    let unfinished = history(&container)[0]["unfinished"].clone();
    let is_depth = |change: &&Value| change["file"] == "cgroup.max.depth" && change["from"] == "3";
    assert!(unfinished.as_array().unwrap().iter().any(|change| is_depth(&change)), "{unfinished}");
    let before = now(&container);
    let writes = depths(&container, update_to(&container, depth("9"), &[]));
    assert_eq!(writes, [("7", "3"), ("3", "9")].map(|(old, new)| (old.to_owned(), new.to_owned())));
    assert_eq!(now(&container), before);
    let output = update_to(&container, depth("9"), &[]).succeeds();
    let text = "reverted an unfinished update first: ";
    assert!(output.stderr.contains(text), "{output:#?}");
    assert_eq!(history(&container)[1]["changes"][0]["from"], "3");
    Ok(())
}

fn a_rollback_of_an_update_that_was_killed_goes_no_further() -> Outcome {
    need_own()?;
    let container = launched(resources(None, false));
    let first = everything(&container);
    update_to(&container, depth("4"), &[]).succeeds();
    let second = everything(&container);
    assert_ne!(first, second);
    killed(&container);
    let rollback = || container.runtime().args(["rollback", &container.id]);
    let new = depths(&container, rollback()).into_iter().map(|(_, new)| new).collect::<Vec<_>>();
    assert_eq!(new, ["4"]);
    let output = rollback().succeeds().stdout;
    let begin = format!("{}: reverted an unfinished update: ", container.id);
    assert!(output.starts_with(&begin) && output.contains("cgroup.max.depth 7 -> 4"), "{output}");
    assert!(output.ends_with(&format!("\n{}: limits of revision 2 restored\n", container.id)), "{output}");
    assert_eq!(everything(&container), second);
    assert_eq!(history(&container).len(), 2);
    // Now there is nothing unfinished.
    rollback().succeeds();
    assert_eq!(everything(&container), first);
    Ok(())
}
