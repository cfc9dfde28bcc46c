//! What the files of a build are written from: the tree, what the user wants of it, and the initrd that several formats
//! hold, packed once.

use std::cell::OnceCell;

use super::boot::{BootError, Signer};
use super::root::{self, RootImage, RootOn};
use super::{ErofsCompression, FormatError, Packing, Sink, SquashfsOptions, Watch, copy, file, initrd};
use crate::compat::Compat;
use crate::tree::{Body, CMDLINE_PATH, KERNEL_PATH, Tree};

/// Longest command line that is read. No kernel takes more than 4096 bytes.
const CMDLINE_LIMIT_BYTES: u64 = 64 << 10;

/// What the user wants of the formats. The bytes depend on it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whose result is wanted.
    pub compat: Compat,
    /// Go's name of the architecture: `amd64`, `arm64`.
    pub architecture: String,
    /// Size of disk images that have a fixed one, in bytes.
    pub disk_bytes: u64,
    /// What the root is on disk images that take one on a partition of its own; `None` for a root in RAM.
    pub disk_root: Option<RootOn>,
    /// Whether a root on a disk is checked by dm-verity.
    pub verity: bool,
    /// Who signs EFI programs for Secure Boot, if they are to be signed.
    pub secure_boot: Option<Signer>,
    /// How EROFS images are compressed.
    pub erofs: ErofsCompression,
    /// How a squashfs is packed.
    pub squashfs: SquashfsOptions,
}

impl Default for Options {
    /// What is meant where the user says nothing.
    fn default() -> Self {
        Self {
            compat: Compat::Right,
            architecture: "amd64".into(),
            disk_bytes: 1 << 30,
            disk_root: None,
            verity: false,
            secure_boot: None,
            erofs: ErofsCompression::None,
            squashfs: SquashfsOptions::default(),
        }
    }
}

/// What parts are written from.
pub struct Material<'a> {
    /// The root, with `boot/`.
    pub tree: &'a Tree,
    /// What the user wants.
    pub options: &'a Options,
    /// How bytes are packed.
    pub packing: Packing<'a>,
    initrd: OnceCell<Body>,
    roots: [OnceCell<RootImage>; 3],
}

impl<'a> Material<'a> {
    /// Material for any number of parts.
    pub fn new(tree: &'a Tree, options: &'a Options, packing: Packing<'a>) -> Self {
        Self { tree, options, packing, initrd: OnceCell::new(), roots: Default::default() }
    }

    /// The kernel as its image has it.
    pub(super) fn kernel(&self) -> Result<&'a Body, BootError> {
        file(self.tree, KERNEL_PATH).filter(|kernel| !kernel.is_empty()).ok_or(BootError::NoKernel)
    }

    /// The kernel's command line as the user gave it; empty if there is none.
    ///
    /// # Errors
    /// [`BootError::LongCmdline`]; what the disk says.
    pub(super) fn cmdline(&self) -> Result<Vec<u8>, FormatError> {
        let Some(body) = file(self.tree, CMDLINE_PATH) else { return Ok(Vec::new()) };
        let too_long = || BootError::LongCmdline { len_bytes: body.len(), limit_bytes: CMDLINE_LIMIT_BYTES };
        Ok(body.read_up_to(CMDLINE_LIMIT_BYTES)?.ok_or_else(too_long)?)
    }

    /// The initrd as `NAME-initrd.img` holds it, in a spool: for formats that must know its length before they write it.
    pub(super) fn initrd(&self, watch: Watch<'_>) -> Result<Body, FormatError> {
        if let Some(packed) = self.initrd.get() {
            return Ok(packed.clone());
        }
        let packed = super::spooled(watch, |sink| initrd::write(self, sink, watch))?;
        Ok(self.initrd.get_or_init(|| packed).clone())
    }

    /// Writes the initrd: a copy of the packed one if that is there, else it is packed on the way.
    pub(super) fn write_initrd(&self, sink: &mut dyn Sink, watch: Watch<'_>) -> Result<(), FormatError> {
        match self.initrd.get() {
            Some(packed) => copy(packed, sink, watch),
            None => initrd::write(self, sink, watch),
        }
    }

    /// The root as a file for a disk, made once: for formats that must know its length or its root hash.
    pub(super) fn root(&self, on: RootOn, watch: Watch<'_>) -> Result<&RootImage, FormatError> {
        let place = match on {
            RootOn::Squashfs => &self.roots[0],
            RootOn::Erofs => &self.roots[1],
            RootOn::Iso => &self.roots[2],
        };
        if let Some(made) = place.get() {
            return Ok(made);
        }
        let made = root::image(self, on, watch)?;
        Ok(place.get_or_init(|| made))
    }
}
