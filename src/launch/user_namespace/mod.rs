//! Id maps of user namespaces as the parent handles them: writing those of a new one, reading those of an
//! existing one.

mod holder;
mod read;
mod write;

pub use self::holder::Holder;
pub use self::read::id_maps;
pub use self::write::{Unwritten, Writer};
