//! Images: references, digests, the content store and the registry. The last room that touches the network.

mod artifact;
mod attestation;
mod credentials;
mod digest;
mod document;
mod export;
mod image;
mod import;
mod reference;
mod registry;
mod source;
mod store;

pub use artifact::{Machine, MachineError, MachineFiles, machine, put_machine};
pub use credentials::CredentialsError;
pub use digest::{Digest, DigestError};
pub use document::DocumentError;
pub use export::{ArchiveKind, ExportError, ExportRequest, export};
pub use image::{Image, ImageConfig, Layer, NoPlatform, Platform};
pub(crate) use import::import_if_docker_has_it;
pub use import::{DockerHost, ImportError, ImportFrom, Imported, SourceOptions, import, import_source};
pub use reference::{Reference, ReferenceError};
pub use registry::{
    Extent, Fault, FetchError, Mirror, MirrorError, PushError, PushRequest, Pushed, RegistryOptions, RemoteManifest,
    pull, push, put_remote_manifest, remote_manifest,
};
pub(crate) use registry::{Wanted, fetch};
pub use source::{FileKind, FileSource, Source, SourceError};
pub use store::{
    BlobFault, BlobKind, BlobWriter, DamagedBlob, Freed, Store, StoreError, Stored, StoredImage, TagEntry, Verified,
    VerifiedReader, WrongBlob,
};
