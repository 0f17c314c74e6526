//! crun's `--regex` of `kill` and `delete`: one command for every container whose name an expression matches.

use anyhow::{Context as _, Result};
use regex::Regex;

use super::Context;
use crate::container::Container;
use crate::error::{Refusal, line};

/// Acts on each recorded container of which `pattern` matches a part of the name, in the order of names.
///
/// What fails for one is a warning, as in crun, and the others have their turn all the same.
pub fn for_each(pattern: &str, context: &Context, act: impl Fn(Container) -> Result<()>) -> Result<()> {
    let regex = Regex::new(pattern).with_context(|| format!("invalid regular expression {pattern:?}"))?;
    for id in context.root.ids()?.into_iter().filter(|id| regex.is_match(id.as_str())) {
        match context.root.load(&id).and_then(&act) {
            Ok(()) => {}
            // In the making, and nobody has asked for it by its name; or gone since.
            Err(error) if matches!(error.downcast_ref(), Some(Refusal::NoSuchContainer(_))) => {}
            Err(error) => context.log.warning(format_args!("container {}: {}", id.as_str(), line(&error))),
        }
    }
    Ok(())
}
