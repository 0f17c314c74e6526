//! Holds the layout that ARCHITECTURE.md shows: reads src/ as text, as rustfmt left it, but for tests and the fuzz targets.
//! UPDATE=1 writes the arrows into ARCHITECTURE.md.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::{env, fs};

/// The rooms in the order of the flow, each with those that it imports: all below it, so that there is no cycle.
const ARROWS: [(&str, &str); 15] = [
    ("main", "command host sys"),
    ("command", "cli launch revision monitor container plan cgroup host bundle error sys"),
    ("cli", "host error"),
    ("launch", "container program plan cgroup host init bundle error sys"),
    ("revision", "container cgroup host error"),
    ("monitor", "container cgroup host error"),
    ("container", "plan cgroup host init bundle error sys"),
    ("program", "plan host init bundle error sys"),
    ("plan", "cgroup host init bundle error sys"),
    ("cgroup", "host init bundle error sys"),
    ("host", "init error sys"),
    ("init", "error sys"),
    ("bundle", "error"),
    ("error", "nothing"),
    ("sys", "nothing"),
];

/// Functions of more than LONGEST lines, and why each may be.
const LONGEST: usize = 60;
const LONG: [(&str, &str); 4] = [
    ("src/init/mod.rs: step", "a table: one arm for each step"),
    ("src/plan/mod.rs: decide", "a table: one line for each field"),
    ("src/program/explain/mod.rs: sentence", "a table: one arm for each family of steps"),
    ("src/program/mod.rs: new", "a table: the order of the steps"),
];

type Path = Vec<String>;

struct File {
    name: String,
    /// The module that it is: `["plan", "mounts"]`.
    module: Path,
    /// Without its tests.
    text: String,
}

fn rust_files(directory: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = format!("{directory}/{}", entry.unwrap().file_name().to_string_lossy());
        if path.ends_with(".rs") { found.push(path) } else { found.extend(rust_files(&path)) }
    }
    found
}

fn source() -> Vec<File> {
    let mut names = rust_files("src");
    names.retain(|name| !name.ends_with("/tests.rs") && !name.starts_with("src/command/fuzzing/"));
    let file = |name: String| {
        let text = fs::read_to_string(&name).unwrap();
        let module = ["src/", ".rs", "/mod"].iter().fold(name.clone(), |name, part| name.replace(part, ""));
        let module =
            module.split('/').filter(|name| !["lib", "main"].contains(name)).map(String::from).collect();
        File { name, module, text: text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned() }
    };
    names.into_iter().map(file).collect()
}

fn is_in_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Adds the paths of the tree that `text` begins with, as seen from `module`, to `paths`; gives what comes after it.
fn expand<'a>(mut text: &'a str, mut module: Path, paths: &mut Vec<Path>) -> &'a str {
    loop {
        if let Some(mut inner) = text.strip_prefix('{') {
            while !inner.trim_start().starts_with('}') {
                inner = expand(inner.trim_start(), module.clone(), paths).trim_start_matches(',');
            }
            return &inner.trim_start()[1..];
        }
        let (name, rest) = text.split_at(text.find(|letter| !is_in_name(letter)).unwrap_or(text.len()));
        match name {
            "crate" | "runtime" => module.clear(),
            "super" => drop(module.pop()),
            "self" | "" => {}
            name => module.push(name.to_owned()),
        }
        let Some(next) = rest.strip_prefix("::") else {
            paths.push(module);
            // `*`, or `as other`.
            return rest.trim_start_matches(|letter| letter == '*' || letter == ' ' || is_in_name(letter));
        };
        text = next;
    }
}

/// What a file names: each path that begins with `crate`, `super` or `self`, and what it imports of its own modules.
fn named(file: &File, modules: &BTreeSet<Path>) -> Vec<Path> {
    let code: String =
        file.text.split_inclusive('\n').filter(|line| !line.trim_start().starts_with("//")).collect();
    let own = |name: &str| modules.contains(&[&file.module[..], &[name.to_owned()]].concat());
    let is_start = |word: &str| match word {
        "crate" | "super" | "self" => true,
        "runtime" => file.name == "src/main.rs",
        _ => false,
    };
    let mut paths = Vec::new();
    for (place, _) in code.match_indices("::") {
        let before = code[..place].trim_end_matches(is_in_name);
        let first = &code[before.len()..place];
        if !before.ends_with("::") && (is_start(first) || before.ends_with("use ") && own(first)) {
            expand(&code[before.len()..], file.module.clone(), &mut paths);
        }
    }
    paths
}

/// Which modules name which others, also what another passes on (`pub use`), and in which file.
fn imports() -> Vec<(Path, Path, String)> {
    let files = source();
    let modules: BTreeSet<Path> = files.iter().map(|file| file.module.clone()).collect();
    let (mut imports, mut passed_on) = (Vec::new(), BTreeMap::new());
    for file in &files {
        for path in named(file, &modules) {
            if path.len() > file.module.len() + 1 && path.starts_with(&file.module) {
                passed_on.insert([&file.module[..], &path[path.len() - 1..]].concat(), path.clone());
            }
            imports.push((file.module.clone(), path, file.name.clone()));
        }
    }
    passed_on.retain(|name, _| !modules.contains(name));
    for (_, path, _) in &mut imports {
        *path = (1..=path.len()).find_map(|length| passed_on.get(&path[..length])).unwrap_or(path).clone();
    }
    imports
}

#[test]
fn src_has_sixteen_entries_and_a_folder_has_its_mod_rs() {
    assert!(fs::read_dir("src").unwrap().count() <= 16, "src/ has more entries than a person keeps in mind");
    for path in rust_files("src") {
        assert!(
            !fs::exists(path.trim_end_matches(".rs")).unwrap(),
            "{path}: move it to mod.rs in its folder"
        );
    }
}

#[test]
fn rooms_import_along_the_arrows_and_use_each_of_them() {
    let rank = |room: &str| ARROWS.iter().position(|(name, _)| *name == room).unwrap_or(ARROWS.len());
    let mut unused = BTreeSet::new();
    for (from, to) in ARROWS.iter().flat_map(|(from, to)| to.split(' ').map(move |to| (*from, to))) {
        assert!(rank(from) < rank(to), "{from} → {to} points against the flow");
        unused.extend((to != "nothing").then_some((from, to)));
    }
    let (allowed, imports) = (unused.clone(), imports());
    for (from, to, file) in &imports {
        let arrow = (from.first().map_or("main", String::as_str), to.first().map_or("main", String::as_str));
        assert!(
            arrow.0 == arrow.1 || allowed.contains(&arrow),
            "{file} imports {arrow:?}: there is no such arrow"
        );
        unused.remove(&arrow);
    }
    assert!(unused.is_empty(), "arrows that nobody uses: {unused:?}");
}

#[test]
fn the_document_shows_the_arrows() {
    let (begin, end) = ("<!-- arrows -->\n```text\n", "```\n<!-- /arrows -->");
    let shown: String = ARROWS.iter().map(|(room, to)| format!("{room:9} → {to}\n")).collect();
    let document = fs::read_to_string("ARCHITECTURE.md").unwrap();
    let (before, rest) = document.split_once(begin).unwrap();
    let (block, after) = rest.split_once(end).unwrap();
    if env::var_os("UPDATE").is_some() {
        return fs::write("ARCHITECTURE.md", [before, begin, &shown, end, after].concat()).unwrap();
    }
    assert_eq!(block, shown, "ARCHITECTURE.md is behind: UPDATE=1 cargo test --test architecture");
}

#[test]
fn modules_of_a_room_import_each_other_one_way() {
    let mut imports: BTreeSet<(String, String)> = imports()
        .iter()
        .filter(|(from, to, _)| from.len() > 1 && to.len() > 1 && from[0] == to[0] && from[1] != to[1])
        .map(|(from, to, _)| (from[..2].join("::"), to[..2].join("::")))
        .collect();
    // What imports nothing, or is imported by nothing, is in no cycle: take it away, and look again.
    let mut before = usize::MAX;
    while imports.len() < before {
        before = imports.len();
        let (importing, imported): (BTreeSet<_>, BTreeSet<_>) = imports.iter().cloned().unzip();
        imports.retain(|(from, to)| importing.contains(to) && imported.contains(from));
    }
    assert!(imports.is_empty(), "cycles: {imports:?}");
}

#[test]
fn functions_are_short() {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut long = BTreeSet::new();
    for File { name, text, .. } in source() {
        let lines: Vec<&str> = text.lines().collect();
        for (number, first) in lines.iter().enumerate() {
            let (before, after) = first.split_once("fn ").unwrap_or(("//", ""));
            let is_function = before.chars().all(|letter| letter.is_alphabetic() || " ()\"".contains(letter));
            let is_last = |line: &&str| indent(line) == indent(first) && line.ends_with(['}', ';']);
            let last = lines[number..].iter().position(is_last).unwrap_or(usize::MAX - 1);
            if is_function && last >= LONGEST {
                long.insert(format!("{name}: {}", after.split(['<', '(']).next().unwrap()));
            }
        }
    }
    let listed = LONG.map(|(function, _)| function.to_owned()).into();
    assert_eq!(long, listed, "left: functions of more than {LONGEST} lines; right: those that may be");
}

#[test]
fn unsafe_code_is_in_sys_and_nobody_compiles_a_file_of_src_again() {
    for File { name, text, .. } in
        source().into_iter().filter(|file| !file.module.starts_with(&["sys".into()]))
    {
        let is_unsafe = |line: &&str| {
            line.split("//").next().unwrap().split(|letter| !is_in_name(letter)).any(|word| word == "unsafe")
        };
        assert_eq!(text.lines().find(is_unsafe), None, "{name}: unsafe code is in src/sys alone");
    }
    for path in ["tests", "benches", "fuzz/fuzz_targets"].into_iter().flat_map(rust_files) {
        let text = fs::read_to_string(&path).unwrap();
        let again =
            text.lines().find(|line| line.trim_start().starts_with("#[path") && line.contains("src/"));
        assert_eq!(again, None, "{path}: link the library instead");
    }
}
