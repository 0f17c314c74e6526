//! Rolling `update` of several containers: they are watched, and all are rolled back if one fails.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::host::{CGROUPS, machine, need, need_controller, need_own, need_sys_resource};
use crate::support::process::Running;
use crate::support::suite::suite;
use crate::support::{Container, Invocation, Outcome, Output};

use super::revisions::read_only;
use super::turns::{locked_directory, wait_at};

suite![
    all_are_updated_in_order,
    the_third_of_five_ends_and_the_first_two_are_as_before,
    the_third_of_five_is_short_of_memory_and_the_first_two_are_as_before,
    what_is_at_a_standstill_is_taken_back,
    what_the_kernel_refuses_for_one_is_taken_back_from_the_others,
    what_is_known_to_be_wrong_is_refused_before_anything_changes,
    so_many_as_the_step_says_are_changed_at_a_time,
    an_interrupt_takes_back_what_was_done,
    an_interrupt_ends_the_waiting_for_a_turn,
    another_interrupt_gives_up_what_is_in_others_hands,
    one_container_may_be_watched_too,
    a_container_that_is_deleted_meanwhile_is_a_failure,
    what_others_have_changed_meanwhile_is_left_alone,
    a_container_that_takes_the_name_of_another_meanwhile_is_left_alone,
    a_container_that_takes_the_name_of_another_before_its_turn_is_a_failure,
    what_cannot_be_taken_back_is_named,
    a_paused_container_settles,
    what_was_so_already_is_not_changed_and_not_taken_back,
    progress_may_be_objects,
    nobody_need_read_the_progress,
    an_interrupt_is_heard_though_nobody_reads_the_progress,
];

/// A program that goes on, and one that ends as soon as the cgroup has the limit that [`limits`] gives it.
pub const PATIENT: &str = "trap 'exit 0' TERM; sleep 1000 & wait";
const TOUCHY: &str = "while read x </sys/fs/cgroup/cgroup.max.depth && [ $x != 7 ]; do sleep 0.05; done";

/// Containers in one container root, that of the first.
pub struct Fleet {
    pub members: Vec<Container>,
}

impl Fleet {
    pub fn of(scripts: &[&str]) -> Self {
        Self::launched(scripts.iter().map(|script| Container::with_script(script)).collect())
    }

    fn launched(members: Vec<Container>) -> Self {
        let fleet = Self { members };
        (0..fleet.members.len()).for_each(|at| fleet.launch(at));
        fleet
    }

    fn launch(&self, at: usize) {
        let member = &self.members[at];
        self.runtime().args(["create", "--bundle"]).arg(member.bundle.path()).arg(&member.id).succeeds();
        self.on("start", at).succeeds();
    }

    /// Makes another container in the place of one.
    fn replace(&self, at: usize) {
        self.on("delete", at).arg("--force").succeeds();
        self.launch(at);
    }

    pub fn state_directory(&self, at: usize) -> std::path::PathBuf {
        self.members[0].root().join(&self.members[at].id)
    }

    fn runtime(&self) -> Invocation {
        self.members[0].runtime()
    }

    pub fn on(&self, command: &str, member: usize) -> Invocation {
        self.runtime().arg(command).arg(&self.members[member].id)
    }

    /// `update --resources FILE` with further options and then all of them.
    pub fn roll(&self, limits: Value, options: &[&str]) -> Invocation {
        let file = self.members[0].beside("limits.json");
        fs::write(&file, limits.to_string()).unwrap();
        let ids = self.members.iter().map(|member| &member.id);
        self.runtime().args(["update", "-r"]).arg(file).args(options).args(ids)
    }

    fn depths(&self) -> Vec<String> {
        let depth = |member: &Container| fs::read_to_string(member.cgroup().join("cgroup.max.depth"));
        self.members.iter().map(|member| depth(member).unwrap_or_default().trim().to_owned()).collect()
    }

    fn history(&self, member: usize) -> Vec<Value> {
        let output = self.on("history", member).args(["--format", "json"]).succeeds();
        serde_json::from_str(&output.stdout).unwrap()
    }

    fn table(&self, member: usize) -> String {
        self.on("history", member).succeeds().stdout
    }

    /// The text with `{0}` for the id of the first, and so on.
    pub fn named(&self, text: &str) -> String {
        let members = self.members.iter().enumerate();
        members.fold(text.to_owned(), |text, (at, member)| text.replace(&format!("{{{at}}}"), &member.id))
    }

    #[track_caller]
    pub fn says(&self, output: &Output, lines: &[&str]) {
        let lines: Vec<_> = lines.iter().map(|line| self.named(line)).collect();
        assert_eq!(output.stdout.lines().collect::<Vec<_>>(), lines, "{output:#?}");
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for at in 1..self.members.len() {
            self.on("delete", at).arg("--force").spawn().end();
        }
    }
}

/// Two that have been updated at once, and are watched for as long as nothing happens.
fn two_that_settle() -> (Fleet, Running) {
    let fleet = Fleet::of(&[PATIENT; 2]);
    let running = fleet.roll(limits(), &["--step", "2", "--settle", "1h"]).spawn();
    running.wait_for_stdout(&fleet.named("{1}: updated"));
    (fleet, running)
}

/// With so many updated, rolled back, not rolled back and untouched.
#[track_caller]
fn has_ended(output: &Output, [updated, back, not_back, untouched]: [u32; 4]) {
    let last =
        format!("{updated} updated, {back} rolled back, {not_back} not rolled back, {untouched} untouched\n");
    assert!(output.stdout.ends_with(&last), "{output:#?}");
}

/// Where a container takes a second to make, what needs no controller takes too long.
fn need_speed() -> Outcome {
    need(machine() == "native", "a machine that makes dozens of containers quickly")
}

/// Long enough for what happens at once, also on a slow machine; those before the one that it happens to take as long.
fn moment() -> &'static str {
    if machine() == "native" { "1500ms" } else { "3s" }
}

fn limits() -> Value {
    json!({ "unified": { "cgroup.max.depth": "7" } })
}

fn all_are_updated_in_order() -> Outcome {
    need_own()?;
    need_speed()?;
    let fleet = Fleet::of(&[PATIENT; 3]);
    let output = fleet.roll(limits(), &["--settle", "50ms"]).succeeds();
    fleet.says(
        &output,
        &[
            "{0}: updated, revision 2 (cgroup.max.depth max -> 7)",
            "{0}: settled",
            "{1}: updated, revision 2 (cgroup.max.depth max -> 7)",
            "{1}: settled",
            "{2}: updated, revision 2 (cgroup.max.depth max -> 7)",
            "{2}: settled",
            "3 updated, 0 rolled back, 0 not rolled back, 0 untouched",
        ],
    );
    assert_eq!(output.stderr, "");
    assert_eq!(fleet.depths(), ["7"; 3]);
    Ok(())
}

fn the_third_of_five_ends_and_the_first_two_are_as_before() -> Outcome {
    need_own()?;
    need_speed()?;
    let fleet = Fleet::of(&[PATIENT, PATIENT, TOUCHY, PATIENT, PATIENT]);
    let output = fleet.roll(limits(), &["--step", "1", "--settle", moment()]).output();
    // The third has ended by itself just after it was updated: within its time, unless the machine is asleep.
    assert_eq!(output.code(), 1, "{output:#?}");
    fleet.says(
        &output,
        &[
            "{0}: updated, revision 2 (cgroup.max.depth max -> 7)",
            "{0}: settled",
            "{1}: updated, revision 2 (cgroup.max.depth max -> 7)",
            "{1}: settled",
            "{2}: updated, revision 2 (cgroup.max.depth max -> 7)",
            "{2}: failed: container exited",
            "{2}: not rolled back: container \"{2}\" has exited: container not running",
            "{1}: rolled back to revision 1, as revision 3",
            "{0}: rolled back to revision 1, as revision 3",
            "0 updated, 2 rolled back, 1 not rolled back, 2 untouched",
        ],
    );
    let text = "error: rolling update stopped (2 rolled back, 1 not rolled back, 2 untouched): container \
                \"{2}\": container exited\n";
    assert_eq!(output.stderr, fleet.named(text));
    assert_eq!(fleet.depths(), ["max", "max", "7", "max", "max"]);
    // The story.
    for member in [0, 1] {
        let history = fleet.history(member);
        assert_eq!(history.len(), 3, "{history:#?}");
        assert_eq!(history[2]["rollbackTo"], 1);
        assert_eq!(history[2]["reason"], fleet.named("{2}: container exited"));
        assert_eq!(history[2]["current"], true);
        let table = fleet.table(member);
        assert!(table.contains(&fleet.named("rolled back to 1: {2}: container exited")), "{table}");
    }
    assert_eq!([2, 3, 4].map(|member| fleet.history(member).len()), [2, 1, 1]);
    Ok(())
}

fn the_third_of_five_is_short_of_memory_and_the_first_two_are_as_before() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    need_sys_resource()?;
    // A shell that lives on when its child is killed, which wants 40 MB. The kernel may take a second process while the memory
    // of the first is still on its way back: never the shell, then.
    let hungry = "trap 'exit 0' TERM; while :; do \
                  head -c 40000000 /dev/zero | (echo 1000 >/proc/self/oom_score_adj; exec tail >/dev/null); done";
    let scripts = [PATIENT, PATIENT, hungry, PATIENT, PATIENT];
    let never = |spec: &mut Value| spec["process"]["oomScoreAdj"] = json!(-1000);
    let fleet = Fleet::launched(scripts.map(|script| Container::with_script(script).edit(never)).into());
    let output =
        fleet.roll(json!({ "memory": { "limit": 16 << 20, "swap": 16 << 20 } }), &["--settle", moment()]);
    let output = output.output();
    assert_eq!(output.code(), 1, "{output:#?}");
    let reason = fleet.named("{2}: failed: a process was OOM-killed: memory.max = 16777216\n");
    assert!(output.stdout.contains(&reason), "{output:#?}");
    has_ended(&output, [0, 3, 0, 2]);
    for (at, member) in fleet.members.iter().enumerate() {
        assert_eq!(member.control_file("memory.max"), "max", "{at}");
        assert_eq!(fleet.history(at).len(), if at < 3 { 3 } else { 1 });
    }
    let table = fleet.table(2);
    assert!(table.contains("OOM-killed") && table.contains("memory.max 16777216 -> max"), "{table}");
    Ok(())
}

/// memory.high makes whoever is above it wait, longer and longer.
fn what_is_at_a_standstill_is_taken_back() -> Outcome {
    need_own()?;
    need_controller("memory")?;
    let measured = fs::read_to_string(format!("{CGROUPS}/memory.pressure")).unwrap_or_default();
    need(!measured.is_empty(), "a kernel that measures pressure")?;
    let thirsty = "while :; do head -c 30000000 /dev/zero | tail >/dev/null; done";
    let fleet = Fleet::of(&[PATIENT, thirsty]);
    let high = json!({ "unified": { "memory.high": "1M" } });
    let output = fleet.roll(high.clone(), &["--step=2", "--settle", "60s"]).output();
    assert_eq!(output.code(), 1, "{output:#?}");
    let reason = fleet.named("{1}: failed: stalled: memory.pressure (full avg10) ");
    let place = output.stdout.find(&reason).unwrap_or_else(|| panic!("{output:#?}"));
    assert!(output.stdout[place..].contains(" % exceeds --max-pressure 20 %\n"));
    assert_eq!([0, 1].map(|at| fleet.members[at].control_file("memory.high")), ["max", "max"]);
    Ok(())
}

fn what_the_kernel_refuses_for_one_is_taken_back_from_the_others() -> Outcome {
    need_own()?;
    need_speed()?;
    let fleet = Fleet::of(&[PATIENT; 3]);
    let file = fleet.members[1].cgroup().join("cgroup.max.descendants");
    let both = json!({ "unified": { "cgroup.max.depth": "7", "cgroup.max.descendants": "many" } });
    // A value that no kernel takes is first refused for the first.
    let output = fleet.roll(both, &["--settle", "0"]).fails_with("EINVAL");
    fleet.says(
        &output,
        &[
            &format!(
                "{{0}}: failed: resources.json: /unified/cgroup.max.descendants: write \"many\" to {}: invalid argument (EINVAL)",
                fleet.members[0].cgroup().join("cgroup.max.descendants").display()
            ),
            "0 updated, 0 rolled back, 0 not rolled back, 3 untouched",
        ],
    );
    // The kernel may come to refuse one in the middle.
    let script = format!(
        "while ! grep -q 7 {0}; do :; done; mount --bind {1} {1}; mount -o remount,bind,ro {1}",
        fleet.members[0].cgroup().join("cgroup.max.depth").display(),
        file.display()
    );
    let both = json!({ "unified": { "cgroup.max.depth": "7", "cgroup.max.descendants": "9" } });
    let call = fleet.roll(both, &["--settle", moment()]);
    let script = format!("({script}) & exec \"$@\"");
    let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, "sh"];
    let output = call.called_by(words).fails_with("EROFS");
    assert!(output.stdout.contains(&fleet.named("{1}: failed: ")), "{output:#?}");
    has_ended(&output, [0, 1, 0, 2]);
    assert_eq!(fleet.depths(), ["max"; 3]);
    assert_eq!([0, 1, 2].map(|member| fleet.history(member).len()), [3, 1, 1]);
    Ok(())
}

fn what_is_known_to_be_wrong_is_refused_before_anything_changes() -> Outcome {
    need_own()?;
    need_speed()?;
    let fleet = Fleet::of(&[PATIENT; 3]);
    fleet.roll(limits(), &["--settle", "0", "nobody"]).fails_with("container \"nobody\" does not exist");
    let unknown = json!({ "unified": { "cgroup.max.depth": "7", "cgroup.xyz": "1" } });
    let output = fleet.roll(unknown, &["--settle", "0"]).fails_with("no such control file");
    assert!(
        output.stderr.starts_with(&fleet.named("error: container \"{0}\": resources.json: ")),
        "{output:#?}"
    );
    let file = fleet.members[2].cgroup().join("cgroup.max.depth");
    let output = read_only(fleet.roll(limits(), &["--settle", "0"]), &file).fails_with("EROFS");
    assert!(output.stderr.contains(&fleet.named("container \"{2}\": ")), "{output:#?}");
    assert_eq!(output.stdout, "");
    fleet.on("kill", 2).arg("KILL").succeeds();
    crate::support::wait_until("it has stopped", || {
        fleet.on("state", 2).succeeds().stdout.contains("\"stopped\"")
    });
    fleet.roll(limits(), &["--settle", "0"]).fails_with("container not running");
    assert_eq!(fleet.depths()[..2], ["max", "max"]);
    Ok(())
}

fn so_many_as_the_step_says_are_changed_at_a_time() -> Outcome {
    need_own()?;
    need_speed()?;
    let fleet = Fleet::of(&[PATIENT; 3]);
    let output = fleet.roll(limits(), &["--step", "2", "--settle", "0s"]).succeeds();
    let what: Vec<_> =
        output.stdout.lines().map(|line| line.split([':', ',']).nth(1).unwrap_or(line)).collect();
    assert_eq!(
        what,
        [" updated", " updated", " settled", " settled", " updated", " settled", " 0 rolled back"]
    );
    Ok(())
}

fn an_interrupt_takes_back_what_was_done() -> Outcome {
    need_own()?;
    need_speed()?;
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let fleet = Fleet::of(&[PATIENT; 3]);
        let running = fleet.roll(limits(), &["--step", "2", "--settle", "1h"]).spawn();
        running.wait_for_stdout(&fleet.named("{1}: updated"));
        running.signal(signal);
        let output = running.wait();
        assert_eq!(output.code(), 1, "{output:#?}");
        fleet.says(
            &output,
            &[
                "{0}: updated, revision 2 (cgroup.max.depth max -> 7)",
                "{1}: updated, revision 2 (cgroup.max.depth max -> 7)",
                &format!("interrupted: {signal}"),
                "{1}: rolled back to revision 1, as revision 3",
                "{0}: rolled back to revision 1, as revision 3",
                "0 updated, 2 rolled back, 0 not rolled back, 1 untouched",
            ],
        );
        let text = format!(
            "error: rolling update interrupted by {signal} (2 rolled back, 0 not rolled back, 1 untouched)\n"
        );
        assert_eq!(output.stderr, text);
        assert_eq!(fleet.depths(), ["max"; 3]);
        assert_eq!(fleet.history(0)[2]["reason"], format!("interrupted by {signal}"));
    }
    Ok(())
}

fn an_interrupt_ends_the_waiting_for_a_turn() -> Outcome {
    need_own()?;
    need_speed()?;
    let fleet = Fleet::of(&[PATIENT; 2]);
    let running = fleet.roll(limits(), &["--settle", moment()]).spawn();
    running.wait_for_stdout(&fleet.named("{0}: updated"));
    let lock = locked_directory(&fleet.state_directory(1));
    wait_at(&running, &fleet.state_directory(1));
    running.signal(Signal::SIGTERM);
    let output = running.wait();
    let expected = [
        "{0}: updated, revision 2 (cgroup.max.depth max -> 7)",
        "{0}: settled",
        "interrupted: SIGTERM",
        "{0}: rolled back to revision 1, as revision 3",
        "0 updated, 1 rolled back, 0 not rolled back, 1 untouched",
    ];
    fleet.says(&output, &expected);
    assert_eq!(fleet.depths(), ["max"; 2]);
    drop(lock);
    Ok(())
}

/// Nothing but SIGKILL could end it otherwise, and nothing else would be taken back.
fn another_interrupt_gives_up_what_is_in_others_hands() -> Outcome {
    need_own()?;
    need_speed()?;
    let (fleet, running) = two_that_settle();
    let lock = locked_directory(&fleet.state_directory(1));
    running.signal(Signal::SIGTERM);
    running.wait_for_stdout("interrupted: SIGTERM");
    running.signal(Signal::SIGINT);
    let output = running.wait();
    let text = "{1}: not rolled back: interrupted by SIGINT while waiting for another update to finish\n\
                {0}: rolled back to revision 1, as revision 3\n";
    assert!(output.stdout.contains(&fleet.named(text)), "{output:#?}");
    assert_eq!(fleet.depths(), ["max", "7"]);
    drop(lock);
    Ok(())
}

fn one_container_may_be_watched_too() -> Outcome {
    need_own()?;
    need_speed()?;
    let fleet = Fleet::of(&[TOUCHY]);
    let output = fleet.roll(limits(), &["--settle", "10s"]).output();
    assert_eq!(output.code(), 1, "{output:#?}");
    assert!(output.stdout.contains(&fleet.named("{0}: failed: container exited\n")), "{output:#?}");
    let fleet = Fleet::of(&[PATIENT]);
    let output = fleet.roll(limits(), &["--settle", "10ms"]).succeeds();
    has_ended(&output, [1, 0, 0, 0]);
    // As runc: without a word.
    let output = fleet.roll(json!({ "unified": { "cgroup.max.depth": "9" } }), &[]).succeeds();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    Ok(())
}

fn a_container_that_is_deleted_meanwhile_is_a_failure() -> Outcome {
    need_own()?;
    need_speed()?;
    let (fleet, running) = two_that_settle();
    fleet.on("delete", 1).arg("--force").succeeds();
    let output = running.wait();
    assert_eq!(output.code(), 1, "{output:#?}");
    assert!(
        output.stdout.contains(&fleet.named("{1}: failed: container exited\n{1}: not rolled back: ")),
        "{output:#?}"
    );
    has_ended(&output, [0, 1, 1, 0]);
    assert_eq!(fleet.depths()[0], "max");
    Ok(())
}

fn what_others_have_changed_meanwhile_is_left_alone() -> Outcome {
    need_own()?;
    need_speed()?;
    let (fleet, running) = two_that_settle();
    let file = fleet.members[0].beside("others.json");
    fs::write(&file, r#"{"unified": {"cgroup.max.depth": "9"}}"#).unwrap();
    fleet.on("update", 0).arg("-r").arg(file).succeeds();
    fleet.on("kill", 1).arg("KILL").succeeds();
    let output = running.wait();
    let text = "{0}: not rolled back: revision 3 was created meanwhile by another update\n";
    assert!(output.stdout.contains(&fleet.named(text)), "{output:#?}");
    assert_eq!(fleet.depths()[0], "9");
    Ok(())
}

fn a_container_that_takes_the_name_of_another_meanwhile_is_left_alone() -> Outcome {
    need_own()?;
    need_speed()?;
    let (fleet, running) = two_that_settle();
    running.signal(Signal::SIGSTOP);
    fleet.replace(0);
    // It comes to the same number.
    let file = fleet.members[0].beside("others.json");
    fs::write(&file, r#"{"unified": {"cgroup.max.depth": "9"}}"#).unwrap();
    fleet.on("update", 0).arg("-r").arg(file).succeeds();
    running.signal(Signal::SIGCONT);
    let output = running.wait();
    assert_eq!(output.code(), 1, "{output:#?}");
    fleet.says(
        &output,
        &[
            "{0}: updated, revision 2 (cgroup.max.depth max -> 7)",
            "{1}: updated, revision 2 (cgroup.max.depth max -> 7)",
            "{0}: failed: container exited",
            "{1}: rolled back to revision 1, as revision 3",
            "{0}: not rolled back: the container was deleted and another one created with the same name",
            "0 updated, 1 rolled back, 1 not rolled back, 0 untouched",
        ],
    );
    assert_eq!(fleet.depths(), ["9", "max"]);
    assert_eq!(fleet.history(0).len(), 2);
    Ok(())
}

/// It was not looked at beforehand, and nobody watches it.
fn a_container_that_takes_the_name_of_another_before_its_turn_is_a_failure() -> Outcome {
    need_own()?;
    need_speed()?;
    let fleet = Fleet::of(&[PATIENT; 2]);
    let running = fleet.roll(limits(), &["--settle", moment()]).spawn();
    running.wait_for_stdout(&fleet.named("{0}: updated"));
    // The watch begins before this.
    let lock = locked_directory(&fleet.state_directory(1));
    wait_at(&running, &fleet.state_directory(1));
    fleet.replace(1);
    drop(lock);
    let output = running.wait();
    assert_eq!(output.code(), 1, "{output:#?}");
    let text = "{1}: failed: the container was deleted and another one created with the same name\n";
    assert!(output.stdout.contains(&fleet.named(text)), "{output:#?}");
    has_ended(&output, [0, 1, 0, 1]);
    assert_eq!(fleet.depths(), ["max", "max"]);
    assert_eq!(fleet.history(1).len(), 1);
    Ok(())
}

fn what_cannot_be_taken_back_is_named() -> Outcome {
    need_own()?;
    need_speed()?;
    let fleet = Fleet::of(&[PATIENT; 3]);
    let file = fleet.members[1].cgroup().join("cgroup.max.depth");
    let file = file.to_str().unwrap();
    // Once it has been written, it is read-only for the call.
    let script =
        "(while ! grep -q 7 $0; do :; done; mount --bind $0 $0; mount -o remount,bind,ro $0) & exec \"$@\"";
    let call = fleet.roll(limits(), &["--step", "3", "--settle", "1h"]);
    let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, file];
    let running = call.called_by(words).spawn();
    running.wait_for_stdout(&fleet.named("{2}: updated"));
    crate::support::wait_until("the file is read-only", || {
        let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", running.pid())).unwrap();
        mounts.lines().any(|line| line.split(' ').nth(4) == Some(file) && line.contains(" ro,"))
    });
    running.signal(Signal::SIGINT);
    let output = running.wait();
    let text =
        format!("{{1}}: not rolled back: history: /1/cgroup.max.depth: write \"max\" to {file}: read-only");
    assert!(output.stdout.contains(&fleet.named(&text)), "{output:#?}");
    has_ended(&output, [0, 2, 1, 0]);
    assert_eq!(fleet.depths(), ["max", "7", "max"]);
    Ok(())
}

fn a_paused_container_settles() -> Outcome {
    need_own()?;
    need_speed()?;
    let fleet = Fleet::of(&[PATIENT; 2]);
    fleet.on("pause", 1).succeeds();
    fleet.roll(limits(), &["--settle", "20ms"]).succeeds();
    assert_eq!(fleet.depths(), ["7", "7"]);
    fleet.on("resume", 1).succeeds();
    Ok(())
}

fn what_was_so_already_is_not_changed_and_not_taken_back() -> Outcome {
    need_own()?;
    need_speed()?;
    let fleet = Fleet::of(&[PATIENT; 2]);
    fleet.on("update", 0).arg("-r").arg(write(&fleet, "first.json")).succeeds();
    let running = fleet.roll(limits(), &["--step", "2", "--settle", "1h"]).spawn();
    running.wait_for_stdout(&fleet.named("{1}: updated"));
    running.signal(Signal::SIGTERM);
    let output = running.wait();
    assert!(output.stdout.starts_with(&fleet.named("{0}: already has these limits\n")), "{output:#?}");
    assert_eq!(fleet.depths(), ["7", "max"]);
    assert_eq!(fleet.history(0).len(), 2);
    Ok(())
}

fn write(fleet: &Fleet, name: &str) -> std::path::PathBuf {
    let file = fleet.members[0].beside(name);
    fs::write(&file, limits().to_string()).unwrap();
    file
}

fn progress_may_be_objects() -> Outcome {
    need_own()?;
    need_speed()?;
    let fleet = Fleet::of(&[PATIENT; 2]);
    let running = fleet.roll(limits(), &["--step", "2", "--settle", "1h", "--format", "json"]).spawn();
    running.wait_for_stdout(&fleet.named("\"id\":\"{1}\""));
    running.signal(Signal::SIGTERM);
    let output = running.wait();
    let events: Vec<Value> = output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [first, second] = [0, 1].map(|at| fleet.members[at].id.clone());
    let changes = json!([{ "file": "cgroup.max.depth", "from": "max", "to": "7" }]);
    let expected = [
        json!({ "event": "updated", "id": first, "revision": 2, "changes": changes }),
        json!({ "event": "updated", "id": second, "revision": 2, "changes": changes }),
        json!({ "event": "interrupted", "reason": "SIGTERM" }),
        json!({ "event": "rolledBack", "id": second, "to": 1, "revision": 3 }),
        json!({ "event": "rolledBack", "id": first, "to": 1, "revision": 3 }),
        json!({ "event": "summary", "updated": 0, "rolledBack": 2, "notRolledBack": 0, "untouched": 0 }),
    ];
    assert_eq!(events, expected);
    Ok(())
}

/// A closed pipe must not leave half of them changed.
fn nobody_need_read_the_progress() -> Outcome {
    need_own()?;
    need_speed()?;
    let fleet = Fleet::of(&[PATIENT; 2]);
    let call = fleet.roll(limits(), &["--settle", "0"]);
    let output = call.called_by(["bash", "-c", "\"$@\" | true; exit ${PIPESTATUS[0]}", "bash"]).succeeds();
    assert_eq!(output.stderr, "");
    assert_eq!(fleet.depths(), ["7", "7"]);
    Ok(())
}

/// As when a pager waits for its user.
fn an_interrupt_is_heard_though_nobody_reads_the_progress() -> Outcome {
    need_own()?;
    need_speed()?;
    let fleet = Fleet::of(&[PATIENT; 2]);
    let pipe = fleet.members[0].beside("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut open = fs::OpenOptions::new();
    let mut full = open.read(true).write(true).custom_flags(nix::libc::O_NONBLOCK).open(&pipe).unwrap();
    while full.write(&[b'x'; 4096]).is_ok() {}
    let call = fleet.roll(limits(), &["--settle", "0"]);
    let running = call.after_shell(&format!("exec >{};", pipe.display())).spawn();
    crate::support::wait_until("the first is updated", || fleet.depths()[0] == "7");
    running.signal(Signal::SIGTERM);
    let output = running.wait();
    assert_eq!(output.code(), 1, "{output:#?}");
    let text = "rolling update interrupted by SIGTERM (1 rolled back, 0 not rolled back, 1 untouched)";
    assert!(output.stderr.contains(text), "{output:#?}");
    assert_eq!(fleet.depths(), ["max"; 2]);
    Ok(())
}
