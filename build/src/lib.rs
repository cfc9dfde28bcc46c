//! From a LinuxKit YAML and OCI images to something that boots.
//!
//! Data flows one way: `config` (YAML to [`config::Config`]) → `plan` (every image pinned to a digest) → `oci` (verified
//! blobs in the content store) → `layer` and `bundle` (blobs to trees, images to OCI runtime bundles) → `assemble` (one
//! tree) → `format` (tree to bytes) → `output` (temp file, fsync, rename). A later room never reads the YAML, the
//! registry, the clock or the environment. Nothing in this crate prints; `package` is the one room that starts programs.

pub mod artifact;
pub mod assemble;
pub mod bundle;
pub mod cache;
pub mod cancel;
pub mod compat;
pub mod config;
pub mod format;
pub mod inspect;
pub mod layer;
pub mod metadata;
pub mod oci;
pub mod output;
pub mod package;
pub mod pipeline;
pub mod plan;
pub mod progress;
pub mod rootfs;
pub mod sbom;
pub mod source;
pub mod tree;
