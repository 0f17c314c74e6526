//! `--regex` of `kill` and `delete`, as in crun: one command for all containers whose ID matches an
//! expression.

use anyhow::{Context as _, Result};
use regex::Regex;

use super::Context;
use crate::container::Container;
use crate::error::{Refusal, line};

/// Calls `act` on each recorded container whose ID contains a match of `pattern`, ordered by ID.
///
/// A failure for one is a warning, as in crun, and does not stop the others.
pub fn for_each(pattern: &str, context: &Context, act: impl Fn(Container) -> Result<()>) -> Result<()> {
    let regex = Regex::new(pattern).with_context(|| format!("invalid regular expression {pattern:?}"))?;
    for id in context.root.ids()?.into_iter().filter(|id| regex.is_match(id.as_str())) {
        match context.root.load(&id).and_then(&act) {
            Ok(()) => {}
            // Still being created and not asked for by its ID, or deleted meanwhile.
            Err(error) if matches!(error.downcast_ref(), Some(Refusal::NoSuchContainer(_))) => {}
            Err(error) => context.log.warning(format_args!("container {}: {}", id.as_str(), line(&error))),
        }
    }
    Ok(())
}
