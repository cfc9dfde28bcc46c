//! What this host can run machines with. [`Facts`] are read once; everything concluded from them is a pure function.

mod facts;
mod verdict;

pub use facts::{Facts, KvmDevice};
pub use verdict::{Accel, Backend, Choice, KvmTrouble, NoBackend, choose, kvm_trouble};
