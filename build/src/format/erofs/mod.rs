//! EROFS, the read-only file system of Linux (its `Documentation/filesystems/erofs.rst` and `fs/erofs/erofs_fs.h`).
//!
//! ```text
//! block 0      1024 bytes of nothing, the superblock, the first inodes
//! blocks       inodes; behind each its extended attributes and the tail of its content
//! blocks       extended attributes that several inodes have
//! blocks       content: of folders, then of files in the order of the inodes
//! ```
//!
//! Everything has its place before a byte of content is read. An image without compression needs no feature that Linux
//! 5.4 does not know. With LZ4, contents are packed first, into a spool, and then have their places in the same way.

mod compression;
mod directory;
mod index;
mod inode;
mod lz4;
mod packed;
mod room;
mod superblock;
mod xattr;

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

pub use compression::{ErofsCompression, UnknownErofsCompression};

use super::{Extents, FormatError, Material, Sink, Watch, device};
use crate::progress::Silent;
use crate::tree::{Body, Kind, Spool, TreePath};
use directory::Target;
use inode::{Form, Inode, Storage, Told};
use packed::Packed;
use room::{Room, SLOT_BYTES};
use superblock::Superblock;
use xattr::Xattrs;

const BLOCK_BYTES: u64 = 4096;

/// The name of the volume, which `root=LABEL=` and `blkid` know it by.
const LABEL: [u8; 16] = *b"kiln-root\0\0\0\0\0\0\0";

/// What an EROFS image cannot hold.
#[derive(Debug, thiserror::Error)]
pub enum ErofsFault {
    /// A device's number is larger than Linux keeps.
    #[error(
        "the device `{path}` is {major}:{minor}, more than {}:{}, the largest that an EROFS image can tell",
        device::MAJOR_LIMIT,
        device::MINOR_LIMIT
    )]
    Device {
        /// The device.
        path: TreePath,
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// An extended attribute is too long.
    #[error(
        "the {what} of the extended attribute `{}` of `{path}` is {len_bytes} bytes long, more than the {limit_bytes} that an EROFS image can hold",
        crate::tree::printable(name)
    )]
    Xattr {
        /// Whose attribute.
        path: TreePath,
        /// Its name.
        name: Box<[u8]>,
        /// Its `name` or its `value`.
        what: &'static str,
        /// Its length.
        len_bytes: usize,
        /// The longest that fits.
        limit_bytes: usize,
    },
    /// One node has too many extended attributes.
    #[error(
        "the extended attributes of `{path}` are {len_bytes} bytes long, more than the {limit_bytes} that an EROFS image can hold for one file"
    )]
    Xattrs {
        /// Whose attributes.
        path: TreePath,
        /// Their length.
        len_bytes: usize,
        /// What fits.
        limit_bytes: usize,
    },
    /// A symbolic link is longer than Linux follows.
    #[error(
        "the symbolic link `{path}` holds {len_bytes} bytes, more than the {SYMLINK_LIMIT_BYTES} that Linux follows"
    )]
    Symlink {
        /// The link.
        path: TreePath,
        /// The length of its text.
        len_bytes: usize,
    },
    /// All of it is more than an image can be.
    #[error("the root is {len_bytes} bytes long, more than the 16 TiB that an EROFS image can be")]
    Image {
        /// What the image would need.
        len_bytes: u64,
    },
}

/// Longest text of a symbolic link: a path of 4096 bytes with its end.
const SYMLINK_LIMIT_BYTES: usize = 4095;

/// Writes the root, less what is below `boot`.
pub(super) fn write(material: &Material<'_>, sink: &mut dyn Sink, watch: Watch<'_>) -> Result<(), FormatError> {
    let image = layout(material, watch)?;
    match material.options.erofs {
        ErofsCompression::None => image.write(sink, watch),
        // Its content was counted when it was packed.
        _ => image.write(sink, Watch { meter: &Silent, ..watch }),
    }
}

/// The image, of which nothing has been copied yet.
pub(super) fn layout(material: &Material<'_>, watch: Watch<'_>) -> Result<Extents, FormatError> {
    watch.cancel.check()?;
    let inodes = Inode::all(material.tree);
    inode::check_devices(&inodes)?;
    let xattrs = Xattrs::of(&inodes)?;
    let contents = Contents::of(&inodes, material, watch)?;
    let mut plan = Plan { inodes, xattrs, contents, time_s: material.tree.implied_mtime_s(), places: Vec::new() };
    let mut room = Room::new();
    for number in 0..plan.inodes.len() {
        let place = plan.place(number, &mut room)?;
        plan.places.push(place);
    }
    let xattr_block = room.blocks();
    let blocks = plan.place_content(xattr_block + plan.xattrs.area_blocks())?;
    watch.cancel.check()?;
    plan.image(xattr_block, blocks)
}

/// The contents of files. The same part of the same spool is one content, whoever has it.
struct Contents {
    /// By the inode's number.
    of_inodes: Vec<Option<usize>>,
    /// Those that are compressed.
    packed: Vec<Option<Packed>>,
}

impl Contents {
    fn of(inodes: &[Inode<'_>], material: &Material<'_>, watch: Watch<'_>) -> Result<Self, FormatError> {
        let mut known: HashMap<(*const Spool, u64, u64), usize> = HashMap::new();
        let mut bodies: Vec<Body> = Vec::new();
        let mut number = |inode: &Inode<'_>| {
            let Kind::File(body) = &inode.node.kind else { return None };
            let new = bodies.len();
            let number = match body {
                Body::Spooled { spool, start, len } => *known.entry((Arc::as_ptr(spool), *start, *len)).or_insert(new),
                Body::Inline(_) => new,
            };
            if number == new {
                bodies.push(body.clone());
            }
            Some(number)
        };
        let of_inodes = inodes.iter().map(&mut number).collect();
        let packed = match material.options.erofs.effort() {
            Some(effort) => packed::pack(&bodies, effort, material.packing.threads, watch)?,
            None => bodies.iter().map(|_| None).collect(),
        };
        Ok(Self { of_inodes, packed })
    }

    fn packed(&self, inode: usize) -> Option<&Packed> {
        self.packed[self.of_inodes[inode]?].as_ref()
    }
}

/// Where one inode and its content are.
struct Place {
    nid: u64,
    form: Form,
    storage: Storage,
    xattr_bytes: usize,
    len_bytes: u64,
    /// How much stands in blocks, and the first of them.
    in_blocks_bytes: u64,
    first_block: u32,
}

struct Plan<'a> {
    inodes: Vec<Inode<'a>>,
    xattrs: Xattrs<'a>,
    contents: Contents,
    /// The time that compact inodes have.
    time_s: i64,
    /// By the inode's number.
    places: Vec<Place>,
}

impl Plan<'_> {
    fn place(&self, number: usize, room: &mut Room) -> Result<Place, ErofsFault> {
        let inode = &self.inodes[number];
        let len_bytes = match &inode.node.kind {
            Kind::File(body) => body.len(),
            Kind::Directory(_) => directory::len_bytes(&inode.names),
            Kind::Symlink(text) if text.len() > SYMLINK_LIMIT_BYTES => {
                return Err(ErofsFault::Symlink { path: Inode::path(&self.inodes, number), len_bytes: text.len() });
            }
            Kind::Symlink(text) => text.len() as u64,
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Fifo => 0,
        };
        let form = inode.form(len_bytes, self.time_s);
        let xattr_bytes = self.xattrs.behind(inode).len();
        let head_bytes = form.len_bytes() + xattr_bytes as u64;
        let tail_bytes = len_bytes % BLOCK_BYTES;
        // Linux reads a tail from the inode's own block.
        let is_inline = tail_bytes > 0 && head_bytes + tail_bytes <= BLOCK_BYTES;
        let (storage, in_blocks_bytes, behind_bytes) = match self.contents.packed(number) {
            Some(packed) => {
                (Storage::Packed, packed.blocks.len(), index::len_bytes(in_slot(head_bytes), len_bytes) as u64)
            }
            None if is_inline => (Storage::Inline, len_bytes - tail_bytes, tail_bytes),
            None => (Storage::Plain, len_bytes, 0),
        };
        let nid = room.take(head_bytes + behind_bytes);
        Ok(Place { nid, form, storage, xattr_bytes, len_bytes, in_blocks_bytes, first_block: 0 })
    }

    /// Gives content its blocks, from `first` on: folders first. Returns the number of all blocks.
    fn place_content(&mut self, first: u64) -> Result<u32, ErofsFault> {
        let mut next = first;
        let mut known: HashMap<usize, u32> = HashMap::new();
        for of_folders in [true, false] {
            for (number, place) in self.places.iter_mut().enumerate() {
                let is_folder = matches!(self.inodes[number].node.kind, Kind::Directory(_));
                if is_folder != of_folders || place.in_blocks_bytes == 0 {
                    continue;
                }
                let here = u32::try_from(next).unwrap_or(u32::MAX);
                place.first_block = match self.contents.of_inodes[number] {
                    Some(content) => *known.entry(content).or_insert(here),
                    None => here,
                };
                if place.first_block == here {
                    next += place.in_blocks_bytes.div_ceil(BLOCK_BYTES);
                }
            }
        }
        u32::try_from(next).map_err(|_| ErofsFault::Image { len_bytes: next.saturating_mul(BLOCK_BYTES) })
    }

    fn image(&self, xattr_block: u64, blocks: u32) -> Result<Extents, FormatError> {
        let mut image = Image::default();
        let mut order: Vec<usize> = (0..self.inodes.len()).collect();
        order.sort_unstable_by_key(|number| self.places[*number].nid);
        order.into_iter().for_each(|number| self.put(number, &mut image));
        image.end_run();
        image.put(xattr_block * BLOCK_BYTES, Body::Inline(self.xattrs.area().into()));
        image.extents.extend_to(u64::from(blocks) * BLOCK_BYTES);
        let superblock = Superblock {
            root_nid: u16::try_from(self.places[inode::ROOT].nid).unwrap_or(u16::MAX),
            inodes: self.inodes.len() as u64,
            time_s: self.time_s,
            blocks,
            xattr_block: u32::try_from(xattr_block).unwrap_or(u32::MAX),
            uuid: image.uuid(),
            label: LABEL,
            incompatible: match self.contents.packed.iter().any(Option::is_some) {
                true => superblock::INCOMPATIBLE_ZERO_PADDING,
                false => 0,
            },
        };
        let mut behind = [0; superblock::BEHIND_BYTES];
        image.extents.read_at(&mut behind, superblock::OFFSET_BYTES + superblock::LEN_BYTES as u64)?;
        image.extents.put_bytes(superblock::OFFSET_BYTES, superblock.encode(&behind));
        Ok(image.extents)
    }

    /// Puts an inode, what stands behind it, and its blocks.
    fn put(&self, number: usize, image: &mut Image) {
        let (inode, place) = (&self.inodes[number], &self.places[number]);
        let packed = self.contents.packed(number);
        let packed_blocks = packed.map(|packed| u32::try_from(packed.clusters.len()).unwrap_or(u32::MAX));
        let told = Told {
            form: place.form,
            storage: place.storage,
            xattr_units: xattr::units(place.xattr_bytes),
            len_bytes: place.len_bytes,
            place: inode.device().ok().flatten().or(packed_blocks).unwrap_or(place.first_block),
            number: u32::try_from(number).unwrap_or(u32::MAX).saturating_add(1),
        };
        let mut head = inode.encode(&told);
        head.extend_from_slice(&self.xattrs.behind(inode));
        let mut at = place.nid * SLOT_BYTES;
        image.put_behind_run(at, &head);
        at += head.len() as u64;
        let blocks_at = u64::from(place.first_block) * BLOCK_BYTES;
        let content = match (&inode.node.kind, packed) {
            (_, Some(Packed { blocks, clusters })) => {
                let index = index::encode(in_slot(at), clusters, place.len_bytes, place.first_block);
                image.put_behind_run(at, &index);
                image.put(blocks_at, blocks.clone());
                return;
            }
            (Kind::File(body), None) => body.clone(),
            (Kind::Symlink(text), None) => Body::Inline(text.as_ref().into()),
            (Kind::Directory(_), None) => {
                let target = |&to: &usize| Target { nid: self.places[to].nid, file_type: self.inodes[to].file_type() };
                Body::Inline(directory::encode(&inode.names, target).into())
            }
            (Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Fifo, None) => return,
        };
        match content.slice(place.in_blocks_bytes, content.len() - place.in_blocks_bytes) {
            Some(Body::Inline(tail)) => image.put_behind_run(at, &tail),
            Some(tail) => image.put(at, tail),
            None => {}
        }
        if let Some(body) = content.slice(0, place.in_blocks_bytes) {
            image.put(blocks_at, body);
        }
    }
}

/// How many bytes behind a slot's start a place is, or will be once what is in front of it has one.
fn in_slot(at: u64) -> usize {
    usize::try_from(at % SLOT_BYTES).unwrap_or(0)
}

/// The image as far as it is laid out.
#[derive(Default)]
struct Image {
    extents: Extents,
    /// Small pieces that follow each other, and where the first one stands.
    run: Vec<u8>,
    run_at: u64,
    /// Of all that was in memory.
    hash: Sha256,
}

impl Image {
    /// Puts content, unless it is there already for another file.
    fn put(&mut self, at: u64, body: Body) {
        if let Body::Inline(bytes) = &body {
            self.hash.update(bytes);
        }
        if self.extents.is_free(at, body.len()) {
            self.extents.put(at, body);
        }
    }

    /// Puts bytes that stand behind those before, or start anew.
    fn put_behind_run(&mut self, at: u64, bytes: &[u8]) {
        self.hash.update(bytes);
        let end = self.run_at + self.run.len() as u64;
        let gap = usize::try_from(at.wrapping_sub(end)).unwrap_or(usize::MAX);
        // A tail from a spool may stand in between.
        if gap < 32 && self.extents.is_free(end, gap as u64) {
            self.run.resize(self.run.len() + gap, 0);
        } else {
            self.end_run();
            self.run_at = at;
        }
        self.run.extend_from_slice(bytes);
    }

    fn end_run(&mut self) {
        self.extents.put_bytes(self.run_at, std::mem::take(&mut self.run));
    }

    /// From names, attributes and lengths, and from contents that the build itself made (RFC 9562, version 8).
    fn uuid(&self) -> [u8; 16] {
        let digest = self.hash.clone().chain_update("kiln erofs root").finalize();
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&digest[..16]);
        uuid[6] = uuid[6] & 0x0f | 0x80;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        uuid
    }
}

#[cfg(test)]
mod tests;
