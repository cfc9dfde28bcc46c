//! What this host can run machines with. [`Facts`] are read once; everything concluded from them is a pure function.

mod facts;
mod folder;
pub mod holder;
mod path;
mod verdict;

pub use facts::{Facts, KvmDevice};
pub use folder::Folder;
pub use path::find_program;
pub use verdict::{Accel, Backend, Choice, KvmTrouble, NoBackend, choose, kvm_trouble};
