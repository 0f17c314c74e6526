//! What attacks have in common.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::{fs, thread};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::Value;

use crate::support::Container;
use crate::support::host::{Skip, machine};
use crate::support::suite::Test;
use crate::support::weakened::{current, need_weakened, without};

/// The harm that an attack did, in words, if it did any.
pub type Harm = Result<Option<String>, Skip>;

/// Where the tests are that need a weakened build.
pub const WITHOUT: &str = "without_its_defence";

/// For each attack two tests: the runtime withstands it, and does not without the defence against that
/// advisory.
pub fn tests(name: &'static str, advisory: &'static str, attack: fn() -> Harm) -> [Test; 2] {
    let withstands = move || match attack()? {
        Some(harm) => panic!("{advisory}: {harm}"),
        None => Ok(()),
    };
    let proves_something = move || {
        need_weakened()?;
        let harm = without(advisory, attack)?;
        assert!(harm.is_some(), "{advisory}: this attack proves nothing: it fails without the defence, too");
        Ok(())
    };
    let without = format!("{WITHOUT}::{name}");
    [Test::new("security", name, withstands), Test::new("security", &without, proves_something)]
}

/// The list of a file's attacks, each with the advisory whose defence it shows, and of its other tests.
macro_rules! attacks {
    ($($attack:ident: $advisory:literal),* $(,)? $(; $($test:ident),* $(,)?)?) => {
        pub fn tests() -> Vec<crate::support::suite::Test> {
            let attacks = [$(crate::security::attack::tests(stringify!($attack), $advisory, $attack)),*];
            #[allow(unused_mut, reason = "not every file has others")]
            let mut tests: Vec<_> = attacks.into_iter().flatten().collect();
            $(tests.extend([$(crate::support::suite::Test::new("security", stringify!($test), $test)),*]);)?
            tests
        }
    };
}
pub(crate) use attacks;

/// `harm` if it was done.
pub fn harm_if(is_done: bool, harm: impl FnOnce() -> String) -> Harm {
    Ok(is_done.then(harm))
}

/// A directory of the host with one file, which no container may touch.
pub struct Outside {
    container: Container,
}

impl Outside {
    pub fn new() -> Self {
        let container = Container::new();
        fs::create_dir(container.beside("outside")).unwrap();
        fs::write(container.beside("outside/secret"), "secret").unwrap();
        Self { container }
    }

    pub fn path(&self) -> PathBuf {
        self.container.beside("outside")
    }

    /// What has become of it, if it is not as it was.
    pub fn harm(&self) -> Harm {
        let names: Vec<_> =
            fs::read_dir(self.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        let secret = fs::read_to_string(self.path().join("secret")).unwrap_or_default();
        harm_if(names != ["secret"] || secret != "secret", || format!("outside: {names:?}, {secret:?}"))
    }

    #[track_caller]
    pub fn is_untouched(&self) {
        assert_eq!(self.harm().unwrap(), None);
    }
}

/// Replaces a directory or file of the image by a link.
pub fn replace(container: &Container, path: &str, target: impl AsRef<Path>) {
    let path = container.bundle.rootfs().join(path);
    let _ = fs::remove_dir(&path);
    let _ = fs::remove_file(&path);
    symlink(target, path).unwrap();
}

pub fn without_mounts_at(container: Container, top: &str) -> Container {
    container.edit(|spec| {
        let at = |mount: &Value| mount["destination"].as_str().is_some_and(|at| at.starts_with(top));
        spec["mounts"].as_array_mut().unwrap().retain(|mount| !at(mount));
    })
}

/// Another container that shares a volume, at its fastest: exchanges two names until `act` has returned.
/// Returns how often, too.
pub fn while_exchanging<T>(one: &Path, other: &Path, act: impl FnOnce() -> T) -> (T, u64) {
    let (is_over, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let result = act();
        is_over.store(true, Ordering::Relaxed);
        result
    });
    (result, count.into_inner())
}

/// Repeats a race until it has done harm; a hundred times, or if it has to, many more. On a virtual machine, whose one processor
/// both sides have to share, hardly more than to see that it works there.
pub fn race(name: &str, one: &Path, other: &Path, round: impl Fn() -> Option<String>) -> Harm {
    let rounds = match (current(), machine()) {
        (Some(_), _) => 2000,
        (None, "native") => 100,
        (None, _) => 3,
    };
    let try_all = || (1..=rounds).find_map(|number| Some((number, round()?)));
    let (harm, exchanges) = while_exchanging(one, other, try_all);
    let tried = harm.as_ref().map_or(rounds, |(number, _)| *number);
    eprintln!("{name}: {} in {tried} rounds, {exchanges} exchanges", i32::from(harm.is_some()));
    Ok(harm.map(|(_, harm)| harm))
}
