//! Images: references, digests, the content store and the registry. The last room that touches the network.

mod attestation;
mod credentials;
mod digest;
mod document;
mod image;
mod reference;
mod registry;
mod store;

pub use credentials::CredentialsError;
pub use digest::{Digest, DigestError};
pub use document::DocumentError;
pub use image::{Image, ImageConfig, Layer, Platform};
pub use reference::{Reference, ReferenceError};
pub use registry::{
    Fault, FetchError, Mirror, MirrorError, PushError, PushRequest, Pushed, RegistryOptions, RemoteManifest, push,
    put_remote_manifest, remote_manifest,
};
pub(crate) use registry::{Wanted, fetch};
pub use store::{BlobFault, BlobKind, BlobWriter, DamagedBlob, Store, StoreError, TagEntry, VerifiedReader};
