//! Turns functions into libtest-mimic tests.

use std::cell::RefCell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};

use libtest_mimic::{Completion, Failed, Trial};

use super::host::Outcome;
use super::leftovers;

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// One test: its name and what it does.
pub struct Test {
    name: String,
    run: Box<dyn FnOnce() -> Outcome + Send>,
}

impl fmt::Debug for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Test {
    /// `module` as in `module_path!()`: its last part goes before the name.
    pub fn new<R: IntoOutcome>(module: &str, name: &str, run: impl FnOnce() -> R + Send + 'static) -> Self {
        let module = module.rsplit("::").next().unwrap_or(module);
        Self { name: format!("{module}::{name}"), run: Box::new(move || run().into_outcome()) }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn into_trial(self) -> Trial {
        let run = self.run;
        Trial::ignorable_test(self.name, move || match panic::catch_unwind(AssertUnwindSafe(run)) {
            Ok(outcome) => {
                leftovers::forget();
                Ok(outcome.err().map_or(Completion::Completed, Completion::ignored_with))
            }
            Err(_) => {
                let mut message = LAST_PANIC.with_borrow(Clone::clone);
                for remains in leftovers::of_this_thread() {
                    message.push_str("\nleft behind: ");
                    message.push_str(&remains);
                }
                Err(Failed::from(message))
            }
        })
    }
}

/// Keeps what a panic says for the report of its test instead of printing it between the lines of others.
pub fn remember_panics() {
    panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let message = payload.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("panicked");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        LAST_PANIC.with_borrow_mut(|last| *last = format!("{place}: {message}"));
    }));
}

/// A test function may end with nothing or with an [`Outcome`].
pub trait IntoOutcome {
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Ok(())
    }
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

/// The list of a file's tests. A function that is missing from it is dead code, which clippy reports.
macro_rules! suite {
    ($($test:ident),* $(,)?) => {
        pub fn tests() -> Vec<crate::support::suite::Test> {
            vec![$(crate::support::suite::Test::new(module_path!(), stringify!($test), $test)),*]
        }
    };
}
pub(crate) use suite;
