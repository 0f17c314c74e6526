//! Every command, killed or failing at each system call in turn: those of the runtime, of the init process,
//! and of hooks.
//!
//! After each fault, what was reported as done has been done, a failure is explained, and either nothing is
//! left on the host or `delete --force` removes it; and a new container with the same ID can be created.
//!
//! A test run tries a fixed sample of each command and of as many kinds of faults as fit. `FAULTS=all` tries
//! every point (as scripts/soak does), and `FAULTS=create:parent:openat.12:EIO` one, with its result. Each
//! test prints the number of points tried on standard error.

mod checks;
mod scenarios;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;
use std::{env, fmt};

use self::scenarios::{Scenario, Setup, scenario};
use crate::support::host::{machine, need, need_own};
use crate::support::injector::{Kind, Point, Seen, Traced, trace};
use crate::support::suite::Test;
use crate::support::{Outcome, leftovers};

pub fn tests() -> Vec<Test> {
    let names = scenarios::NAMES.iter();
    names.map(|name| Test::new(module_path!(), name, move || sweep(&scenario(name)))).collect()
}

/// How many points of each scenario are tried in every test run.
const SAMPLE: usize = 10;

/// What is wrong after a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// Something of the host's is left that `delete --force` does not remove.
    Leaked,
    /// What the command said, by its status or later by `state`, is not so.
    Misreported,
    /// No message, a panic, a crash, a hang, a name that cannot be used again.
    Otherwise,
}

/// What is wrong after one fault, each in words.
#[derive(Debug, Default)]
pub struct Problems {
    list: Vec<(Wrong, String)>,
    /// Something was left, and `delete --force` has removed it.
    pub was_forced: bool,
}

impl Problems {
    pub fn leaked(&mut self, what: impl fmt::Display) {
        self.list.push((Wrong::Leaked, format!("leaked: {what}")));
    }

    pub fn misreported(&mut self, what: impl fmt::Display) {
        self.list.push((Wrong::Misreported, format!("misreported: {what}")));
    }

    pub fn count(&self) -> usize {
        self.list.len()
    }

    pub fn otherwise(&mut self, what: impl fmt::Display) {
        self.list.push((Wrong::Otherwise, what.to_string()));
    }
}

/// The points of a scenario, with what each call is about.
fn points(seen: &[Seen]) -> BTreeMap<Point, String> {
    let mut points = BTreeMap::new();
    for Seen { place, about, kinds } in seen {
        for kind in kinds {
            points.insert(Point { place: place.clone(), kind: *kind }, about.clone());
        }
    }
    points
}

/// FNV-1a: a choice that is the same in each run and has nothing to do with the order.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A few of the points: one after the other of each process, call and kind.
fn sample<'a>(scenario: &str, points: impl Iterator<Item = &'a Point>) -> BTreeSet<Point> {
    let mut groups: BTreeMap<(String, String), Vec<(u64, &Point)>> = BTreeMap::new();
    for point in points {
        let kind = if point.kind == Kind::Kill { "kill" } else { "fail" };
        let group = (format!("{}:{kind}", point.place.role), point.place.call.clone());
        groups.entry(group).or_default().push((hash(&format!("{scenario}:{point}")), point));
    }
    // Of each process and kind as many; of these, the calls in an order of their own.
    let mut by_role: BTreeMap<String, Vec<(u64, &Point)>> = BTreeMap::new();
    for ((role, _), members) in groups {
        by_role.entry(role).or_default().extend(members.iter().min());
    }
    by_role.values_mut().for_each(|members| members.sort_unstable());
    let mut chosen = BTreeSet::new();
    for place in 0.. {
        let next: Vec<_> = by_role.values().filter_map(|members| members.get(place)).collect();
        if next.is_empty() {
            break;
        }
        for (_, point) in next {
            if chosen.len() == SAMPLE {
                return chosen;
            }
            chosen.insert((*point).clone());
        }
    }
    chosen
}

/// What `FAULTS` asks for of a scenario.
enum Asked {
    Sample,
    All,
    One(Point),
    Nothing,
}

fn asked(scenario: &str) -> Asked {
    let asked = env::var("FAULTS").unwrap_or_default();
    match asked.as_str() {
        "" => Asked::Sample,
        "all" => Asked::All,
        one => match one.split_once(':') {
            Some((name, point)) if name == scenario => Asked::One(point.parse().unwrap()),
            _ => Asked::Nothing,
        },
    }
}

/// The figures of a scenario.
#[derive(Debug, Default)]
struct Figures {
    tried: usize,
    not_reached: usize,
    clean: usize,
    forced: usize,
    wrong: BTreeMap<Wrong, usize>,
}

fn sweep(scenario: &Scenario) -> Outcome {
    need_own()?;
    need(machine() == "native", "a machine that runs a traced program quickly")?;
    (scenario.needs)()?;
    let asked = asked(scenario.name);
    need(!matches!(asked, Asked::Nothing), "FAULTS to name this scenario")?;
    let start = Instant::now();
    let setup = (scenario.setup)();
    let dry = dry_run(scenario, &setup);
    checks::ready(scenario, &setup, &mut Problems::default());
    let all = points(&dry.seen);
    let chosen: BTreeSet<Point> = match &asked {
        Asked::One(point) => BTreeSet::from([point.clone()]),
        Asked::All => all.keys().cloned().collect(),
        _ => sample(scenario.name, all.keys()).into_iter().collect(),
    };
    let mut figures = Figures::default();
    let mut failures = Vec::new();
    for point in &chosen {
        let (traced, problems) = one(scenario, &setup, point);
        if let Asked::One(_) = asked {
            eprintln!("{point}: {} {:?} {:?}", traced.code, traced.stdout, traced.stderr);
        }
        let about = traced.seen.iter().find(|seen| seen.place == point.place).map_or("", |seen| &seen.about);
        figures.count(&traced, &problems);
        for (wrong, text) in problems.list {
            *figures.wrong.entry(wrong).or_default() += 1;
            let Traced { code, stderr, .. } = &traced;
            failures.push(format!(
                "FAULTS={}:{point} ({about}): {text}; status {code}, {stderr:?}",
                scenario.name
            ));
            eprintln!("{}", failures.last().unwrap());
        }
    }
    checks::end(&setup, None, &mut Problems::default());
    let left = leftovers::of(&setup.container.id).into_iter().filter(|what| !what.starts_with("directory "));
    failures.extend(left.map(|what| format!("left in the end: {what}")));
    eprintln!("faults {:<22} {figures} of {} points, {:.0?}", scenario.name, all.len(), start.elapsed());
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

impl Figures {
    fn count(&mut self, traced: &Traced, problems: &Problems) {
        self.tried += 1;
        self.not_reached += usize::from(!traced.is_hit);
        if problems.list.is_empty() {
            match problems.was_forced {
                true => self.forced += 1,
                false => self.clean += 1,
            }
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wrong = |wrong| self.wrong.get(&wrong).copied().unwrap_or(0);
        write!(
            f,
            "tried {:>5}, clean {:>5}, cleaned by delete --force {:>4}, leaked {}, success misreported {}, otherwise wrong {}, \
             not reached {};",
            self.tried,
            self.clean,
            self.forced,
            wrong(Wrong::Leaked),
            wrong(Wrong::Misreported),
            wrong(Wrong::Otherwise),
            self.not_reached,
        )
    }
}

/// Follows the command without a fault, which must go well.
fn dry_run(scenario: &Scenario, setup: &Setup) -> Traced {
    let mut problems = Problems::default();
    checks::ready(scenario, setup, &mut problems);
    let traced = call(scenario, setup, None);
    assert_eq!(traced.code, 0, "{traced:?}");
    (scenario.check)(setup, &traced, None, &mut problems);
    checks::end(setup, None, &mut problems);
    assert!(problems.list.is_empty(), "{problems:?}");
    assert!(traced.seen.len() > 10, "{traced:?}");
    traced
}

fn call(scenario: &Scenario, setup: &Setup, point: Option<&Point>) -> Traced {
    let init = scenario.follows_init.then(|| setup.container.pid());
    trace((scenario.call)(setup), init, point)
}

/// Tries one point; and whether the name can be used again, for the next.
fn one(scenario: &Scenario, setup: &Setup, point: &Point) -> (Traced, Problems) {
    let mut problems = Problems::default();
    let traced = call(scenario, setup, Some(point));
    checks::words(&traced, point, &mut problems);
    (scenario.check)(setup, &traced, Some(point), &mut problems);
    checks::end(setup, Some(point), &mut problems);
    checks::ready(scenario, setup, &mut problems);
    (traced, problems)
}
