//! Registries (OCI distribution specification): fetches what the store lacks.

mod options;

pub use options::{Mirror, MirrorError, RegistryOptions};
