//! SECURITY.md's table of advisories names tests that exist, and all of them.

use std::collections::BTreeSet;
use std::fs;

use super::attack::WITHOUT;
use crate::support::host::{self, Outcome, need_own};
use crate::support::suite::Test;

const DOCUMENT: &str = include_str!("../../SECURITY.md");

pub fn tests() -> Vec<Test> {
    let module = "security";
    vec![
        Test::new(module, "the_table_of_advisories_names_the_tests_that_there_are", table_is_true),
        Test::new(module, "the_runtime_under_test_is_no_weakened_build", no_weakened_build),
    ]
}

/// A row of the table: the advisory, its tests, and how they were shown to fail.
struct Row {
    advisory: &'static str,
    tests: Vec<&'static str>,
    proof: &'static str,
}

fn rows() -> Vec<Row> {
    let lines = DOCUMENT.lines().filter(|line| line.starts_with("| CVE-") || line.starts_with("| GHSA-"));
    let row = |line: &'static str| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [advisory, _, _, tests, proof] = cells[..] else { panic!("five columns: {line}") };
        let tests = tests.split('`').skip(1).step_by(2).collect();
        Row { advisory: advisory.split_whitespace().next().unwrap(), tests, proof }
    };
    lines.map(row).collect()
}

/// `CVE-2019-5736` in the name of a test.
fn in_a_name(advisory: &str) -> String {
    advisory.to_lowercase().replace('-', "_") + "_"
}

fn table_is_true() {
    let names: BTreeSet<_> = crate::tests()
        .iter()
        .filter_map(|test| test.name().strip_prefix("security::").map(str::to_owned))
        .collect();
    let rows = rows();
    assert!(rows.len() >= 24, "{} rows", rows.len());
    for Row { advisory, tests, proof } in &rows {
        assert!(!tests.is_empty(), "{advisory} has no test");
        for test in tests {
            assert!(test.starts_with(&in_a_name(advisory)), "{test} is not about {advisory}");
            assert!(names.contains(*test), "{advisory}: there is no test {test}");
        }
        let is_switched = tests.iter().any(|test| names.contains(&format!("{WITHOUT}::{test}")));
        assert_eq!(is_switched, *proof == "weakened build", "{advisory}: {proof}");
    }
    let is_in_the_table = |name: &&String| {
        let name = name.rsplit("::").next().unwrap();
        !name.starts_with("cve_") && !name.starts_with("ghsa_")
            || rows.iter().any(|row| row.tests.contains(&name))
    };
    let missing: Vec<_> = names.iter().filter(|name| !is_in_the_table(name)).collect();
    assert!(missing.is_empty(), "not in the table of SECURITY.md: {missing:?}");
}

/// The name of the variable is in such a build, and in no other.
fn no_weakened_build() -> Outcome {
    need_own()?;
    let program = fs::read(host::runtime()).unwrap();
    let variable = b"RUNTIME_WEAKENED";
    assert!(!program.windows(variable.len()).any(|bytes| bytes == variable));
    Ok(())
}
