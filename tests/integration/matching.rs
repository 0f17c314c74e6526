//! `--regex` of `kill` and `delete`, as in crun.

use std::fs;

use serde_json::Value;

use crate::support::host::{need_other_than, need_own};
use crate::support::suite::suite;
use crate::support::{Container, Outcome, wait_until};

suite![
    kill_reaches_every_container_that_matches_and_no_other,
    delete_takes_every_container_that_matches_and_no_other,
    what_fails_for_one_is_a_warning_and_the_others_have_their_turn,
    a_container_in_the_making_is_left_alone,
    an_expression_that_is_none_is_refused,
    an_expression_that_matches_nothing_is_no_failure,
];

fn need_expressions() -> Outcome {
    need_other_than("runc", "knows no expressions")
}

/// Three created containers in the root of the first. Those of the other two are deleted by name when the test ends.
struct Three([Container; 3]);

impl Three {
    fn new() -> Self {
        let three = Self([Container::idle(), Container::idle(), Container::idle()]);
        for container in &three.0 {
            let create = three.0[0].runtime().args(["create", "--bundle"]).arg(container.bundle.path());
            create.arg(&container.id).succeeds();
        }
        three
    }

    fn call(&self, words: &[&str]) -> crate::support::Invocation {
        self.0[0].runtime().args(words)
    }

    /// The status of the container with this number; `None` if it does not exist.
    fn status(&self, number: usize) -> Option<String> {
        let output = self.call(&["state", &self.0[number].id]).output();
        let state: Value = serde_json::from_str(&output.stdout).ok()?;
        Some(state["status"].as_str().unwrap().to_owned())
    }

    /// An expression for the containers with these numbers.
    fn expression(&self, numbers: &[usize]) -> String {
        let ends: Vec<_> =
            numbers.iter().map(|number| self.0[*number].id.trim_start_matches("rt-")).collect();
        format!("({})$", ends.join("|"))
    }
}

impl Drop for Three {
    fn drop(&mut self) {
        for container in &self.0 {
            self.call(&["delete", "--force", &container.id]).output();
        }
    }
}

fn kill_reaches_every_container_that_matches_and_no_other() -> Outcome {
    need_expressions()?;
    let three = Three::new();
    three.call(&["kill", "--regex", &three.expression(&[0, 2]), "KILL"]).succeeds();
    wait_until("the two have stopped", || {
        [0, 2].map(|n| three.status(n)) == [0, 2].map(|_| Some("stopped".into()))
    });
    assert_eq!(three.status(1).as_deref(), Some("created"));
    Ok(())
}

fn delete_takes_every_container_that_matches_and_no_other() -> Outcome {
    need_expressions()?;
    let three = Three::new();
    three.call(&["delete", "-r", &three.expression(&[0, 1])]).succeeds();
    assert_eq!([0, 1, 2].map(|number| three.status(number)), [None, None, Some("created".into())]);
    three.call(&["start", &three.0[2].id]).succeeds();
    three.call(&["delete", "--force", "--regex", "rt-.*"]).succeeds();
    assert_eq!(three.status(2), None);
    three.0.iter().for_each(Container::leaves_nothing);
    Ok(())
}

fn what_fails_for_one_is_a_warning_and_the_others_have_their_turn() -> Outcome {
    need_expressions()?;
    let three = Three::new();
    three.call(&["start", &three.0[0].id]).succeeds();
    let output = three.call(&["delete", "--regex", "."]).succeeds();
    assert_eq!([0, 1, 2].map(|number| three.status(number)), [Some("running".into()), None, None]);
    assert!(output.stderr.contains(&three.0[0].id), "{output:#?}");
    need_own()?;
    assert!(output.stderr.contains("level=warning"), "{output:#?}");
    assert!(output.stderr.contains("that is not stopped: running"), "{output:#?}");
    Ok(())
}

/// `delete ID` removes what an aborted `create` has left, because somebody says so by name.
fn a_container_in_the_making_is_left_alone() -> Outcome {
    need_own()?;
    let container = Container::new().forgive();
    fs::create_dir_all(container.state_directory()).unwrap();
    let output = container.runtime().args(["delete", "--force", "--regex", "."]).succeeds();
    assert_eq!(output.stderr, "");
    assert!(container.state_directory().exists());
    container.delete_by_force();
    Ok(())
}

fn an_expression_that_is_none_is_refused() -> Outcome {
    need_own()?;
    let three = Three::new();
    three.call(&["delete", "--regex", "(rt"]).fails_with("invalid regular expression \"(rt\": ");
    assert_eq!(three.status(0).as_deref(), Some("created"));
    Ok(())
}

fn an_expression_that_matches_nothing_is_no_failure() -> Outcome {
    need_expressions()?;
    let three = Three::new();
    let output = three.call(&["kill", "-r", "^nothing$"]).succeeds();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    assert_eq!(three.status(0).as_deref(), Some("created"));
    Ok(())
}
