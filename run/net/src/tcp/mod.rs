//! TCP.
mod reassembly;
pub use reassembly::Reassembly;
