//! Layers to trees (OCI image specification, `layer.md`).
//!
//! A layer is unpacked once: its content goes to a [`Spool`] as it is, its members into memory. Applying it to a tree
//! then copies no content, however many images share the layer. With a cache, the spool stays for the next builds.

mod apply;
mod archive;
mod decompress;
mod fault;
mod kept;
mod newest_first;
mod pax;
mod unpacked;

use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crc32fast::Hasher;
use sha2::{Digest as _, Sha256};

use crate::cancel::Cancel;
use crate::oci::Layer;
use crate::tree::{Body, Identity, Spool, Tree};

pub use archive::{ArchiveLimits, Member, MemberKind};
pub(crate) use decompress::decompress;
pub use fault::{ArchiveFault, LayerError, MemberFault};
pub use unpacked::{UnpackedLayers, Unpacking};

/// What the layers of a build may do to the machine that builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerLimits {
    /// Longest unpacked layer.
    pub content_bytes: u64,
    /// How many times longer than packed an unpacked layer may be, once it is past `content_slack_bytes`. Gzip alone
    /// can reach 1032; file systems of programs and data stay below 20.
    pub ratio: u64,
    /// What any layer may unpack to, however small it is packed: room for a disk image full of zeros.
    pub content_slack_bytes: u64,
    /// Names, links and attributes of one layer, in memory, plus 256 bytes a member.
    pub metadata_bytes: u64,
}

impl Default for LayerLimits {
    fn default() -> Self {
        const GIB: u64 = 1 << 30;
        Self { content_bytes: 64 * GIB, ratio: 200, content_slack_bytes: GIB, metadata_bytes: GIB / 4 }
    }
}

impl LayerLimits {
    /// The limits for an archive of `packed_bytes`.
    pub fn for_archive(&self, packed_bytes: u64) -> ArchiveLimits {
        let fair = packed_bytes.saturating_mul(self.ratio).saturating_add(self.content_slack_bytes);
        ArchiveLimits { content_bytes: fair.min(self.content_bytes), packed_bytes, metadata_bytes: self.metadata_bytes }
    }
}

/// A tar: its members in memory, their contents in a body.
#[derive(Debug, Clone)]
pub struct Archive {
    members: Vec<Member>,
    content: Body,
}

impl Archive {
    /// Unpacks `layer`, whose blob is `blob`; it is read to its end. Content goes to a file with no name.
    pub fn unpack_layer(layer: &Layer, blob: impl Read + Send, unpacking: &Unpacking<'_>) -> Result<Self, LayerError> {
        let Unpacking { folder, cache, cancel, .. } = *unpacking;
        let digest = layer.digest;
        let limits = unpacking.limits.for_archive(layer.size_bytes);
        let unpacked = Self::unpack(blob, folder, limits, cancel, Some(*digest.as_bytes()));
        let (archive, crc32) = unpacked.map_err(|fault| LayerError { digest, fault })?;
        kept::keep(cache, digest, &archive, crc32);
        Ok(archive)
    }

    /// Also gives the checksum of its content.
    fn unpack(
        blob: impl Read + Send,
        folder: &Path,
        limits: ArchiveLimits,
        cancel: &Cancel,
        identity: Option<Identity>,
    ) -> Result<(Self, u32), ArchiveFault> {
        let full = |source| ArchiveFault::Spool { folder: folder.into(), len_bytes: 0, source };
        let spool = Spool::create(folder).map_err(full)?.identified(identity);
        let content = decompress(blob).map_err(ArchiveFault::Read)?;
        let mut content = Spooling { content, spool: &spool, folder, len: 0, hasher: Hasher::new() };
        let members = archive::read(&mut content, limits, cancel)?;
        let (len, crc32) = (content.len, content.hasher.finalize());
        Ok((Self { members, content: Body::Spooled { spool: Arc::new(spool), start: 0, len } }, crc32))
    }

    /// Reads a tar that lies in `content`, such as the modules of a kernel image. If it is packed, its content goes to
    /// an unlinked file in `folder`, else it stays where it is.
    pub fn open(content: Body, folder: &Path, limits: &LayerLimits, cancel: &Cancel) -> Result<Self, ArchiveFault> {
        let limits = limits.for_archive(content.len());
        if decompress::is_packed(content.reader()).map_err(ArchiveFault::Read)? {
            let identity = unpacked_identity(&content);
            return Ok(Self::unpack(content.reader(), folder, limits, cancel, identity)?.0);
        }
        let members = archive::read(content.reader(), limits, cancel)?;
        Ok(Self { members, content })
    }

    fn check(&self) -> io::Result<()> {
        match &self.content {
            Body::Spooled { spool, .. } => spool.content().map(drop),
            Body::Inline(_) => Ok(()),
        }
    }

    /// Its members, in its order.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Puts the members into `tree` one behind another. A name that looks like a whiteout is a name.
    pub fn extract(&self, tree: &mut Tree) -> Result<(), ArchiveFault> {
        apply::extract(self.members.iter(), &self.content, tree)
    }

    /// Applies it to `tree`, which holds the layers below it, whiteouts and all.
    pub fn apply(&self, tree: &mut Tree) -> Result<(), ArchiveFault> {
        apply::apply(&self.members, &self.content, tree)
    }
}

/// What the unpacked bytes of a packed body are known by.
fn unpacked_identity(packed: &Body) -> Option<Identity> {
    let (identity, start) = packed.identity()?;
    let mut hash = Sha256::new_with_prefix("kiln unpacked 1\n");
    hash.update(identity);
    hash.update(start.to_le_bytes());
    hash.update(packed.len().to_le_bytes());
    Some(hash.finalize().into())
}

/// Copies what passes by into a spool.
struct Spooling<'a, R> {
    content: R,
    spool: &'a Spool,
    folder: &'a Path,
    len: u64,
    hasher: Hasher,
}

impl<R: Read> Read for Spooling<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.content.read(buffer)?;
        if let Err(source) = self.spool.file().write_all_at(&buffer[..len], self.len) {
            let fault = ArchiveFault::Spool { folder: self.folder.into(), len_bytes: self.len + len as u64, source };
            return Err(io::Error::other(fault));
        }
        self.len += len as u64;
        self.hasher.update(&buffer[..len]);
        Ok(len)
    }
}

#[cfg(test)]
mod tests;
