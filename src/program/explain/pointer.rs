//! The field of `config.json` or of the process document that a failed step comes from.

use super::place;
use crate::bundle::document;
use crate::error::Pointer;
use crate::init::step::Part;
use crate::program::{Origin, Program};

impl Program {
    /// Returns where the step comes from; `None` if the runtime itself added it, or an option of `exec`.
    pub(super) fn pointer(&self, origin: &Origin, part: Part) -> Option<Pointer> {
        match origin {
            Origin::Runtime => None,
            Origin::Masked(places) => {
                let at = self.written("/linux/maskedPaths")?;
                Some(places.get(place(part)).map_or_else(|| at.clone(), |index| at.index(*index)))
            }
            Origin::Field(path) => self.written(path),
            Origin::Namespace(index, _) => Some(self.written("/linux/namespaces")?.index(*index)),
            Origin::Item(path, index) => Some(self.written(path)?.index(*index)),
            Origin::Devices(places) => {
                let index = places.get(place(part)).copied().flatten()?;
                Some(self.written("/linux/devices")?.index(index))
            }
            Origin::Sysctl(keys) => {
                let at = self.written("/linux/sysctl")?;
                Some(keys.get(place(part)).map_or_else(|| at.clone(), |key| at.field(key)))
            }
        }
    }

    /// Turns a literal pointer into one into `config.json` or into the process document.
    fn written(&self, path: &str) -> Option<Pointer> {
        let is_exception = self.source.exceptions.contains(&path);
        let below = |root: Pointer, path: &str| path.split('/').skip(1).fold(root, |at, name| at.field(name));
        match path.strip_prefix("/process") {
            Some(path) if self.source.is_file && !is_exception => {
                Some(below(Pointer::of(document::PROCESS), path))
            }
            Some(_) if is_exception && !self.source.is_file => None,
            _ => Some(below(Pointer::root(), path)),
        }
    }
}
