//! An OCI image layout in a tar, as `oci-archive:` of skopeo and others: documents in front, then blobs. All of it is laid
//! out, and its digests are known, before a byte is written.

use sha2::{Digest as _, Sha256};

use super::{Extents, FormatError, Material, Sink, Watch, bootable};
use crate::artifact::{self, Blob, Documents, Machine};

const BLOCK_BYTES: u64 = 512;
const MODE_FILE: u32 = 0o644;
/// How much is hashed between two looks at the cancel flag.
const PIECE_BYTES: usize = 1 << 20;

/// The machine that `kiln push` sends, as an archive.
pub(super) fn write(material: &Material<'_>, sink: &mut dyn Sink, watch: Watch<'_>) -> Result<(), FormatError> {
    let boot = bootable::boot(material)?;
    let kernel = Extents::from(boot.kernel);
    let initrd = Extents::from(material.initrd(watch)?);
    let blobs = [(blob(&kernel, watch)?, kernel), (blob(&initrd, watch)?, initrd)];
    let [(kernel, _), (initrd, _)] = &blobs;
    let architecture = &material.options.architecture;
    let machine =
        Machine { architecture, cmdline: &boot.cmdline, kernel: kernel.clone(), initrd: Some(initrd.clone()) };
    archive(&machine.documents(), architecture, &blobs, material.tree.implied_mtime_s()).write(sink, watch)
}

/// What is said of these bytes, which are read now.
pub(super) fn blob(content: &Extents, watch: Watch<'_>) -> Result<Blob, FormatError> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut offset = 0;
    while offset < content.len_bytes() {
        watch.cancel.check()?;
        let len = usize::try_from(content.len_bytes() - offset).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        content.read_at(&mut piece[..len], offset)?;
        hash.update(&piece[..len]);
        offset += len as u64;
    }
    Ok(Blob::hashed(&hash.finalize().into(), content.len_bytes()))
}

/// The layout of one manifest with its configuration and `blobs`.
pub(super) fn archive(documents: &Documents, architecture: &str, blobs: &[(Blob, Extents)], mtime_s: i64) -> Extents {
    let mut tar = Tape::new(mtime_s);
    tar.file("oci-layout", &bytes(artifact::LAYOUT));
    tar.file("index.json", &bytes(&artifact::index(&documents.manifest, architecture)));
    for document in [&documents.manifest, &documents.config] {
        tar.file(&Blob::of(document).path(), &bytes(document));
    }
    for (at, (blob, content)) in blobs.iter().enumerate() {
        // Two files of one content are one blob.
        if !blobs[..at].iter().any(|(earlier, _)| earlier == blob) {
            tar.file(&blob.path(), content);
        }
    }
    tar.end()
}

fn bytes(bytes: &[u8]) -> Extents {
    let mut extents = Extents::default();
    extents.put_bytes(0, bytes);
    extents
}

/// A tar whose members are laid out.
pub(super) struct Tape {
    tape: Extents,
    mtime_s: i64,
}

/// Whose a member is.
pub(super) struct Owner {
    /// User and group.
    pub id: u64,
    /// Permissions.
    pub mode: u32,
}

impl Tape {
    /// An empty one, of which all members have this time.
    pub fn new(mtime_s: i64) -> Self {
        Self { tape: Extents::default(), mtime_s }
    }

    /// A file of root's.
    fn file(&mut self, name: &str, content: &Extents) {
        self.member(name, content, &Owner { id: 0, mode: MODE_FILE });
    }

    /// A file of somebody's.
    pub fn member(&mut self, name: &str, content: &Extents, owner: &Owner) {
        self.header(tar::EntryType::Regular, name, content.len_bytes(), owner);
        let start = self.tape.len_bytes();
        self.tape.put_extents(start, content);
        self.tape.extend_to(self.tape.len_bytes().next_multiple_of(BLOCK_BYTES));
    }

    /// A folder of somebody's; its name ends in `/`.
    pub fn folder(&mut self, name: &str, owner: &Owner) {
        self.header(tar::EntryType::Directory, name, 0, owner);
    }

    /// The whole tar.
    pub fn end(mut self) -> Extents {
        self.tape.extend_to(self.tape.len_bytes() + 2 * BLOCK_BYTES);
        self.tape
    }

    /// `name` is one of ours, so short, and ASCII.
    fn header(&mut self, kind: tar::EntryType, name: &str, len_bytes: u64, owner: &Owner) {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        super::tar::set_field(&mut header.as_old_mut().name, name.as_bytes());
        header.set_size(len_bytes);
        header.set_mode(owner.mode);
        header.set_uid(owner.id);
        header.set_gid(owner.id);
        header.set_mtime(u64::try_from(self.mtime_s).unwrap_or(0));
        header.set_cksum();
        self.tape.put_bytes(self.tape.len_bytes(), header.as_bytes());
    }
}
