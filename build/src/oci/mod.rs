//! Images: references, digests, the content store and the registry. The last room that touches the network.

mod digest;
mod document;
mod image;
mod reference;
mod registry;
mod store;

pub use digest::{Digest, DigestError};
pub use document::DocumentError;
pub use image::{Image, ImageConfig, Layer, Platform};
pub use reference::{Reference, ReferenceError};
pub use registry::{Mirror, MirrorError, RegistryOptions};
pub use store::{BlobFault, BlobKind, BlobWriter, DamagedBlob, Store, StoreError, TagEntry, VerifiedReader};
