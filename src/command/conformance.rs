//! CONFORMANCE.md documents every property of config.json, every command and every option. These tests check
//! it against the specification and other runtimes (`tests/fixtures/conformance`), against the definitions of
//! the command line, and against the plans that this program makes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::bundle::document;
use crate::cgroup::Driver;
use crate::command::registry::COMMANDS;
use crate::error::{fault, line};
use crate::plan::{Plan, mounts};

const DOCUMENT: &str = include_str!("../../CONFORMANCE.md");
const FIELDS: &str = include_str!("../../tests/fixtures/conformance/fields.txt");
const VALUES: &str = include_str!("../../tests/fixtures/conformance/values.txt");
const PEERS: &str = include_str!("../../tests/fixtures/conformance/peers.txt");
const PROBES: &str = include_str!("../../tests/fixtures/conformance/probes.json");

/// What the document claims about a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Used,
    Refused,
    Ignored,
}

/// A table of the document: its heading, the cells of its first row, and the other rows.
struct Table {
    heading: &'static str,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

fn tables() -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    let (mut heading, mut is_inside) = ("", false);
    for line in DOCUMENT.lines() {
        if let Some(text) = line.strip_prefix('#') {
            heading = text.trim_start_matches('#').trim();
        }
        let Some(row) = line.strip_prefix('|') else {
            is_inside = false;
            continue;
        };
        let row = row.trim_end().trim_end_matches('|').replace("\\|", "\u{0}");
        let cells: Vec<String> = row.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect();
        match tables.last_mut().filter(|_| is_inside) {
            None => tables.push(Table { heading, head: cells, rows: Vec::new() }),
            Some(_) if cells.iter().all(|cell| cell.chars().all(|c| c == '-')) => {}
            Some(table) => table.rows.push(cells),
        }
        is_inside = true;
    }
    tables
}

/// The texts between backticks.
fn code(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Every path that a property of config.json can have, with `*` for array elements and keys.
fn places() -> BTreeSet<String> {
    let groups = FIELDS.lines().filter(|line| line.starts_with('/')).filter_map(|line| line.split_once(": "));
    let places = |(parent, names): (&str, &str)| {
        let parent = parent.trim_end_matches('/').to_owned();
        names.split(' ').map(|name| format!("{parent}/{name}")).collect::<Vec<_>>()
    };
    groups.flat_map(places).collect()
}

/// The properties that contain no others. For other platforms only the top-level property.
fn fields() -> BTreeSet<String> {
    let (others, ours): (BTreeSet<_>, BTreeSet<_>) = places()
        .into_iter()
        .partition(|place| OTHER_PLATFORMS.iter().any(|platform| is_below(place, platform)));
    let holds_none = |place: &&String| !ours.iter().chain(&others).any(|other| is_below(other, place));
    let leaves = ours.iter().filter(holds_none).cloned();
    leaves.chain(OTHER_PLATFORMS.map(str::to_owned)).collect()
}

const OTHER_PLATFORMS: [&str; 5] = ["/freebsd", "/solaris", "/vm", "/windows", "/zos"];

fn is_below(place: &str, parent: &str) -> bool {
    place.strip_prefix(parent).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether `place` matches `pattern`, in which `*` stands for any one name.
fn matches(place: &str, pattern: &str) -> bool {
    place.split('/').count() == pattern.split('/').count()
        && place.split('/').zip(pattern.split('/')).all(|(name, wanted)| wanted == "*" || wanted == name)
}

/// The claims of the document's rows, by property. A name that begins with a point is a sibling of the one
/// before it. A row with words beside the names is about certain values only and makes no claim about the
/// property.
fn rows() -> BTreeMap<String, Claim> {
    let places = places();
    let mut rows = BTreeMap::new();
    for table in tables() {
        let prefix = match table.heading {
            "Top level, root and process" => "/",
            "Mounts" => "/mounts/*/",
            "linux" => "/linux/",
            "linux.resources" => "/linux/resources/",
            _ => continue,
        };
        let of_all = match (table.head[0].as_str(), table.head.get(1).map(String::as_str)) {
            ("Field", Some("Control file")) => Some(Claim::Used),
            ("Ignored", _) => Some(Claim::Ignored),
            ("Field", _) => None,
            _ => continue,
        };
        for row in &table.rows {
            let claim = of_all.unwrap_or_else(|| match row[1].split([' ', ';', ',']).next() {
                Some("used" | "checked") => Claim::Used,
                Some("**refused**") => Claim::Refused,
                Some("ignored") => Claim::Ignored,
                _ => panic!("{row:?} claims neither used nor **refused** nor ignored"),
            });
            let is_about_values = row[0].split('`').step_by(2).any(|words| !matches!(words, "" | ", "));
            let mut last = String::new();
            for name in code(&row[0]) {
                let place = name.trim_end_matches(".*").replace("[]", "/*").replace('.', "/");
                let place = match place.strip_prefix('/') {
                    Some(sibling) => {
                        format!("{}/{sibling}", last.rsplit_once('/').map_or("", |(parent, _)| parent))
                    }
                    None => format!("{prefix}{place}"),
                };
                let named: Vec<_> = places.iter().filter(|other| matches(other, &place)).collect();
                assert!(!named.is_empty(), "{name:?} in {:?}: there is no property {place}", row[0]);
                for place in named.into_iter().filter(|_| !is_about_values) {
                    assert!(rows.insert(place.clone(), claim).is_none(), "{place} has two rows");
                }
                last = place;
            }
        }
    }
    rows
}

/// Returns the claim about `field`: from the row that names it, or from the nearest row about a parent.
fn claim(rows: &BTreeMap<String, Claim>, field: &str) -> Option<Claim> {
    let mut place = field;
    loop {
        if let Some(claim) = rows.get(place) {
            return Some(*claim);
        }
        place = place.rsplit_once('/').map(|(parent, _)| parent).filter(|parent| !parent.is_empty())?;
    }
}

/// The plan of a minimal bundle changed by `patch` (RFC 7396).
pub fn planned(patch: &Value) -> anyhow::Result<Plan> {
    let mut spec = json!({
        "ociVersion": "1.3.0",
        "root": { "path": "rootfs" },
        "process": { "args": ["true"], "cwd": "/", "user": { "uid": 0, "gid": 0 } },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts" }
        ],
        "linux": { "namespaces": [
            { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
            { "type": "cgroup" }
        ] }
    });
    merge(&mut spec, patch);
    let (spec, _) = document::spec(spec.to_string().as_bytes())?;
    Plan::with_rootfs(&spec, Path::new("/bundle"), PathBuf::from("/bundle/rootfs"), "id", Driver::Cgroupfs)
}

fn merge(into: &mut Value, patch: &Value) {
    match (into.as_object_mut(), patch) {
        (Some(object), Value::Object(members)) => {
            for (name, value) in members {
                merge(object.entry(name).or_insert(Value::Null), value);
            }
        }
        _ => *into = patch.clone(),
    }
}

/// Removes the first value at `place` from `value`; returns its path without `*`, if there is one.
fn take_out(value: &mut Value, place: &str) -> Option<String> {
    let mut found = String::new();
    let mut at = value;
    let mut names = place.split('/').skip(1).peekable();
    while let Some(name) = names.next() {
        let name = match (name, &*at) {
            ("*", Value::Object(object)) => object.keys().next()?.clone(),
            ("*", _) => "0".to_owned(),
            (name, _) => name.to_owned(),
        };
        found = format!("{found}/{name}");
        at = match at {
            Value::Object(object) if names.peek().is_none() => {
                object.remove(&name)?;
                return Some(found);
            }
            Value::Object(object) => object.get_mut(&name)?,
            Value::Array(array) => array.get_mut(name.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    None
}

/// Returns what happens to the property at `place` when `with` sets it, or what the document should say
/// instead.
fn becomes(place: &str, with: &Value, shows_in_plan: bool, claimed: Claim) -> Result<Claim, String> {
    let mut without = with.clone();
    let Some(concrete) = take_out(&mut without, place) else { return Err("the probe lacks it".into()) };
    let plan = match planned(with) {
        Ok(plan) => format!("{plan:?}"),
        Err(error) => {
            let pointer = fault(&error).map(|fault| fault.pointer.to_string()).unwrap_or_default();
            // A mount is refused as a whole, whichever of its fields is the reason.
            let whole = concrete.strip_prefix("/mounts/0/").map_or(concrete.as_str(), |_| "/mounts/0");
            let is_about_it = pointer == whole || is_below(&pointer, whole) || is_below(whole, &pointer);
            return match is_about_it && claimed != Claim::Used {
                true => Ok(Claim::Refused),
                false => Err(line(&error)),
            };
        }
    };
    match planned(&without) {
        Ok(other) if format!("{other:?}") == plan && shows_in_plan => Ok(Claim::Ignored),
        _ => Ok(Claim::Used),
    }
}

#[test]
fn every_property_has_a_row_that_says_what_becomes_of_it() {
    let rows = rows();
    let fields = fields();
    let missing: Vec<_> = fields.iter().filter(|field| claim(&rows, field).is_none()).collect();
    assert!(missing.is_empty(), "CONFORMANCE.md has no row for {missing:#?}");

    let probes: Vec<Value> = serde_json::from_str(PROBES).unwrap();
    let mut unproven = fields;
    let mut wrong = Vec::new();
    for probe in &probes {
        let shows_in_plan = probe.get("not_in_the_plan").is_none();
        for place in probe["of"].as_array().unwrap().iter().map(|place| place.as_str().unwrap()) {
            assert!(unproven.remove(place), "{place} has two probes, or is no property");
            let claimed = claim(&rows, place).unwrap();
            match becomes(place, &probe["with"], shows_in_plan, claimed) {
                Ok(claim) if claim == claimed => {}
                Ok(claim) => wrong.push(format!("{place} is {claim:?}, not {claimed:?}")),
                Err(error) => wrong.push(format!("{place} is not {claimed:?}: {error}")),
            }
        }
    }
    assert!(wrong.is_empty(), "CONFORMANCE.md or tests/fixtures/conformance/probes.json: {wrong:#?}");
    assert!(unproven.is_empty(), "tests/fixtures/conformance/probes.json has no probe for {unproven:#?}");
}

/// The values that the specification lists for the property at `place`.
pub fn values(place: &str) -> BTreeSet<&'static str> {
    let line = VALUES.lines().find_map(|line| line.strip_prefix(place)?.strip_prefix(": "));
    line.unwrap_or_default().split(' ').collect()
}

/// Puts `value` at `place` into `with`.
fn put(with: &mut Value, place: &str, value: &str) -> Option<()> {
    let (place, is_element) = place.strip_suffix("/*").map_or((place, false), |place| (place, true));
    let concrete = take_out(&mut with.clone(), place)?;
    *with.pointer_mut(&concrete)? = if is_element { json!([value]) } else { value.into() };
    Some(())
}

/// Whether a value is supported is up to its property's row.
#[test]
fn every_value_that_the_specification_lists_is_understood() {
    let probes: Vec<Value> = serde_json::from_str(PROBES).unwrap();
    let mut not_understood = Vec::new();
    for (place, values) in
        VALUES.lines().filter_map(|line| line.split_once(": ")).filter(|(at, _)| at.starts_with('/'))
    {
        let field = place.trim_end_matches("/*");
        let probe = probes.iter().find(|probe| probe["of"].as_array().unwrap().contains(&json!(field)));
        for value in values.split(' ') {
            let mut spec = json!({"ociVersion": "1.3.0"});
            merge(&mut spec, probe.map_or(&Value::Null, |probe| &probe["with"]));
            put(&mut spec, place, value).unwrap_or_else(|| panic!("no probe has {place}"));
            // The types require more fields of a process than a probe has.
            if spec.get("process").is_some() {
                merge(
                    &mut spec,
                    &json!({"process": {"args": ["true"], "cwd": "/", "user": {"uid": 0, "gid": 0}}}),
                );
            }
            if let Err(error) = document::spec(spec.to_string().as_bytes()) {
                not_understood.push(format!("{place}: {value}: {}", line(&error)));
            }
        }
    }
    assert!(not_understood.is_empty(), "{not_understood:#?}");
}

#[test]
fn every_mount_option_has_a_row() {
    let mut missing: BTreeSet<&str> = mounts::known_options().collect();
    let tables = tables();
    let rows = tables.iter().filter(|table| table.head[0] == "Options").flat_map(|table| &table.rows);
    let mut unknown = Vec::new();
    for row in rows {
        for name in code(&row[0]).flat_map(str::split_whitespace).filter(|name| *name != "=…") {
            if !missing.remove(name) && !row[1].starts_with("**refused**") {
                unknown.push(name);
            }
        }
    }
    assert!(missing.is_empty(), "CONFORMANCE.md has no row for {missing:?}");
    assert!(unknown.is_empty(), "CONFORMANCE.md has rows for {unknown:?}, which are no options");
}

/// The options of a command, or the global ones, in the document: supported and unsupported.
#[derive(Default)]
struct Options {
    present: BTreeSet<String>,
    absent: BTreeSet<String>,
}

/// What the document says about each command; `-` is the program, and an unsupported command is `None`.
fn documented() -> BTreeMap<String, Option<Options>> {
    let mut commands: BTreeMap<String, Option<Options>> = BTreeMap::new();
    for table in tables().iter().filter(|table| table.heading == "Command line") {
        for row in &table.rows {
            let (names, flags): (Vec<&str>, &str) = match table.head[0].as_str() {
                "Global" => (vec!["-"], &row[0]),
                "Command" => (code(&row[0]).filter_map(|name| name.split(' ').next()).collect(), &row[1]),
                _ => continue,
            };
            let says_absent = row.last().is_some_and(|text| text.starts_with("**absent**"));
            for name in names {
                if says_absent && name != "-" {
                    commands.insert(name.to_owned(), None);
                    continue;
                }
                let options = commands.entry(name.to_owned()).or_insert_with(|| Some(Options::default()));
                let options = options.as_mut().unwrap_or_else(|| panic!("{name} is absent and has a row"));
                let (present, absent) = flags.split_once("absent:").unwrap_or((flags, ""));
                let (present, absent) = if says_absent { ("", flags) } else { (present, absent) };
                options.present.extend(flags_in(present));
                options.absent.extend(flags_in(absent));
            }
        }
    }
    commands
}

/// The `--name` and `-n` between backticks.
fn flags_in(text: &str) -> impl Iterator<Item = String> {
    code(text).flat_map(str::split_whitespace).filter(|word| word.starts_with('-')).map(str::to_owned)
}

/// The options in a command's definition.
fn defined(definition: &clap::Command) -> BTreeSet<String> {
    let of = |argument: &clap::Arg| {
        let long = argument.get_long().map(|name| format!("--{name}"));
        let aliases = argument.get_all_aliases().unwrap_or_default();
        let short = argument.get_short_and_visible_aliases().unwrap_or_default();
        let hidden = argument.get_all_short_aliases().unwrap_or_default();
        let letters: BTreeSet<String> =
            short.into_iter().chain(hidden).map(|letter| format!("-{letter}")).collect();
        let names = long.into_iter().chain(aliases.into_iter().map(|name| format!("--{name}")));
        names.chain(letters).collect::<Vec<_>>()
    };
    definition.get_arguments().flat_map(of).collect()
}

/// Accepted everywhere, without a definition.
const HELP: [&str; 4] = ["--help", "-h", "--usage", "-?"];

#[test]
fn every_command_and_every_option_has_a_row() {
    let documented = documented();
    let mut wrong = Vec::new();
    let ours = COMMANDS.iter().map(|command| (command.name, command.definition()));
    let ours: BTreeMap<&str, clap::Command> = ours.chain([("-", crate::cli::global::definition())]).collect();
    for (name, definition) in &ours {
        let Some(Some(options)) = documented.get(*name) else {
            wrong.push(format!("{name}: no row, or said to be absent"));
            continue;
        };
        let defined = defined(definition);
        let said = |option: &&String| !HELP.contains(&option.as_str());
        wrong.extend(defined.difference(&options.present).map(|option| format!("{name} {option}: no row")));
        let more = options.present.difference(&defined).filter(said);
        wrong.extend(more.map(|option| format!("{name} {option}: there is no such option")));
        let there = options.absent.intersection(&defined);
        wrong.extend(there.map(|option| format!("{name} {option}: said to be absent")));
    }
    for name in documented.iter().filter(|(_, options)| options.is_some()).map(|(name, _)| name) {
        if !ours.contains_key(name.as_str()) && name != "help" {
            wrong.push(format!("{name}: there is no such command"));
        }
    }
    for line in PEERS.lines().filter(|line| !line.starts_with('#')) {
        let (command, theirs) = line.split_once(':').unwrap();
        let (peer, name) = command.split_once(' ').unwrap();
        match documented.get(name) {
            None => wrong.push(format!("{name}, which {peer} has: no row")),
            Some(None) => {}
            Some(Some(options)) => {
                let theirs = theirs.split_whitespace().filter(|option| !HELP.contains(option));
                let unknown = theirs
                    .filter(|option| !options.present.contains(*option) && !options.absent.contains(*option));
                wrong.extend(unknown.map(|option| format!("{name} {option}, which {peer} has: no row")));
            }
        }
    }
    assert!(wrong.is_empty(), "CONFORMANCE.md: {wrong:#?}");
}
