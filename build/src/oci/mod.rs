//! Images: references, digests, the content store and the registry. The last room that touches the network.

mod digest;
mod image;

pub use digest::{Digest, DigestError};
pub use image::{Image, ImageConfig, Layer, Platform};
