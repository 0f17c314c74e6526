//! How the parent tells the kernel what a user namespace maps, once there is a process in it, and what one that exists maps.

mod holder;
mod read;
mod write;

pub use self::holder::Holder;
pub use self::read::id_maps;
pub use self::write::{Unwritten, Writer};
