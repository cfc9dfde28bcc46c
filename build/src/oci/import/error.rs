//! Why images cannot be taken over from files or from another program.

use std::io;

use crate::oci::{Digest, DocumentError, StoreError};

/// Why images cannot be taken over. `what` is the source as it was written.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say what the fields are")]
pub enum ImportError {
    /// The file, folder or pipe cannot be read, or is no tar archive.
    #[error("cannot read `{what}`")]
    Read {
        what: String,
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error(
        "`{what}` holds no images: there is neither an `index.json` (OCI) nor a `manifest.json` (`docker save`) in it"
    )]
    NoImages { what: String },
    /// One of its documents is none.
    #[error("`{name}` in `{what}` cannot be used")]
    Document {
        what: String,
        name: String,
        #[source]
        source: DocumentError,
    },
    /// A blob that its documents name is not in it.
    #[error("`{what}` lacks `{name}`{platform}; make it again, complete")]
    Missing { what: String, name: String, platform: String },
    /// A blob is not what its name says.
    #[error("`{name}` in `{what}` is damaged: its digest is {found}, it should be {expected}")]
    Damaged { what: String, name: String, expected: Digest, found: Digest },
    /// A blob has another length than its manifest says.
    #[error("`{name}` in `{what}` is damaged: it has {found} bytes, it should have {expected}")]
    Length { what: String, name: String, expected: u64, found: u64 },
    /// A document is longer than any real one.
    #[error("`{name}` in `{what}` has {found} bytes, {limit} are allowed")]
    TooLong { what: String, name: String, found: u64, limit: u64 },
    /// No image of this name.
    #[error("`{what}` has no image `{wanted}`; it has {found}")]
    NoSuchImage { what: String, wanted: String, found: String },
    /// Several images, and none was chosen.
    #[error("`{what}` has several images: {found}; choose one with `:NAME` behind the path")]
    Several { what: String, found: String },
    /// One name for several images.
    #[error("`{what}` has several images: {found}; `--name` is for one")]
    OneName { what: String, found: String },
    /// Images without a name.
    #[error("the image in `{what}` has no name{hint}; give it one with `--name NAME`")]
    NoName { what: String, hint: String },
    /// Another program cannot be asked.
    #[error("cannot ask {program} for `{what}`{hint}")]
    Program {
        program: &'static str,
        what: String,
        hint: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another program does not have it.
    #[error("{program} has no image `{what}`{answer}")]
    NotThere { program: &'static str, what: String, answer: String },
    /// The store cannot take it.
    #[error("the store cannot be used")]
    Store(#[source] Box<StoreError>),
    /// The user stopped it.
    #[error("interrupted")]
    Cancelled,
}

impl From<StoreError> for ImportError {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}
