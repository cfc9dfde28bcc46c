//! QEMU's disk image (QEMU's `docs/interop/qcow2.txt`), by way of the crate `imago`. It keeps tables and counts; data goes
//! between guest memory and the file without a copy of ours. Nothing that an image names is opened here.

mod check;
mod claims;
mod counts;
mod gate;
mod header;
mod image;
mod room;
mod tables;

pub use check::Fault;
pub use gate::Hold;
pub use header::{Qcow2Error, Qcow2Header};
pub(crate) use image::Image;

use std::io;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use imago::format::PreallocateMode;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatCreateBuilder, FormatDriverBuilder, Mapping};

use self::gate::Gate;
use super::{BlockBackend, HostFile, Place, Request};
use crate::mem::GuestMemory;
use crate::mem::transfer::{Span, copy_to_guest, fill_with_zeros, part, total_len};

/// Bytes of compressed clusters that are unpacked at once for one request.
const UNPACKED_AT_ONCE: u64 = 256 * 1024;

/// A disk, or the lower layer of one, as the crate knows it.
pub(crate) type Layer = FormatAccess<Image>;

/// An image, or a throw-away overlay.
#[derive(Debug)]
pub struct Qcow2Disk {
    /// Shared by reads and writes; a discard has it alone.
    layer: RwLock<Layer>,
    gate: Arc<Gate>,
    len_bytes: u64,
    read_only: bool,
    syncs: bool,
}

/// A raw file below an image.
pub(crate) fn raw_layer(file: HostFile) -> io::Result<Layer> {
    Ok(FormatAccess::new(Raw::open_image(Image::new(file), false)?))
}

/// An image with what it is an overlay of, if it is one.
pub(crate) fn image_layer(file: HostFile, below: Option<Layer>, read_only: bool) -> io::Result<Layer> {
    let image = Qcow2::builder(Image::new(file)).write(!read_only).data_file(None).backing(below);
    Ok(FormatAccess::new(image.open(DenyImplicitOpenGate::default())?))
}

/// Checks that an image which is to be written to means what it says. Nobody else may write to it.
pub(crate) fn check_tables(file: &HostFile) -> Result<(), Qcow2Error> {
    let (_, tables) = Qcow2Header::read_with_tables(file)?;
    check::check(file, tables)
}

/// A new image of this size in an empty file, over `below` if that is given.
pub(crate) fn new_layer(file: HostFile, below: Option<Layer>, bytes: u64) -> io::Result<Layer> {
    let opened = |image: Image| Ok(Qcow2::builder(image).backing(below).write(true));
    let image = Qcow2::<Image>::create_builder(Image::new(file)).size(bytes);
    let layer = FormatAccess::new(image.create_open(DenyImplicitOpenGate::default(), opened)?);
    layer.flush()?;
    Ok(layer)
}

/// Makes the disk in an image larger.
pub(crate) fn grow(layer: &Layer, bytes: u64) -> io::Result<()> {
    layer.resize_grow(bytes, PreallocateMode::None)?;
    layer.flush()
}

impl Qcow2Disk {
    /// Serves the disk in `layer`. Without `syncs` a flush brings the image up to date, and nothing to the host's disk.
    pub(crate) fn new(layer: Layer, read_only: bool, syncs: bool) -> Self {
        let len_bytes = layer.size();
        Self { layer: RwLock::new(layer), gate: Arc::default(), len_bytes, read_only, syncs }
    }

    fn layer(&self) -> RwLockReadGuard<'_, Layer> {
        self.layer.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, memory: &GuestMemory, into: &[Span], offset: u64) -> io::Result<()> {
        let layer = self.layer();
        let (mut done, len) = (0, total_len(into));
        while done < len {
            let (mapping, found) = layer.get_mapping(offset + done, len - done)?;
            let count = found.min(len - done);
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let spans = part(into, done, count);
            match mapping {
                Mapping::Raw { storage, offset, .. } => storage.file().read_or_zeros(memory, &spans, offset)?,
                Mapping::Zero { .. } => fill_with_zeros(memory, &spans),
                Mapping::Special { .. } => unpack(&layer, memory, &spans, offset + done)?,
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            done += count;
        }
        Ok(())
    }

    fn write(&self, memory: &GuestMemory, from: &[Span], offset: u64) -> io::Result<()> {
        let layer = self.layer();
        let (mut done, len) = (0, total_len(from));
        while done < len {
            let mapping = layer.prepare_data_mapping(offset + done, len - done, true)?;
            let count = mapping.length();
            mapping.storage().file().write(memory, &part(from, done, count), mapping.offset())?;
            layer.commit_data_mapping(mapping)?;
            done += count;
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let layer = self.layer();
        layer.flush()?;
        if self.syncs { layer.sync() } else { Ok(()) }
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        // Data may be on its way to the clusters that go away: first that has to end.
        let _alone = self.gate.close();
        let mut layer = self.layer.write().unwrap_or_else(PoisonError::into_inner);
        let pieces = room::pieces(&layer, offset, len)?;
        layer.discard_to_any(offset, len)?;
        room::give_back(&layer, &pieces)
    }

    fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        // Held all the time: nobody may discard, and so give the clusters to others.
        let layer = self.layer();
        let pieces = if may_unmap { room::pieces(&layer, offset, len)? } else { vec![] };
        layer.write_zeroes(offset, len)?;
        room::give_back(&layer, &pieces)
    }
}

/// Reads compressed clusters, which only the crate can.
fn unpack(layer: &Layer, memory: &GuestMemory, into: &[Span], offset: u64) -> io::Result<()> {
    let (mut done, len) = (0, total_len(into));
    let mut bytes = vec![0; usize::try_from(len.min(UNPACKED_AT_ONCE)).unwrap_or(0)];
    while done < len {
        let count = (len - done).min(UNPACKED_AT_ONCE);
        let piece = bytes.get_mut(..usize::try_from(count).unwrap_or(0)).unwrap_or_default();
        layer.read(&mut *piece, offset + done)?;
        copy_to_guest(memory, &part(into, done, count), piece);
        done += count;
    }
    Ok(())
}

impl BlockBackend for Qcow2Disk {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn execute(&self, memory: &GuestMemory, request: Request<'_>) -> io::Result<()> {
        match request {
            Request::Read { offset, into } => self.read(memory, into, offset),
            Request::Write { .. } | Request::Discard { .. } | Request::WriteZeroes { .. } if self.read_only => {
                Err(io::ErrorKind::PermissionDenied.into())
            }
            Request::Write { offset, from } => self.write(memory, from, offset),
            Request::Flush if self.read_only => Ok(()),
            Request::Flush => self.flush(),
            Request::Discard { offset, len } => self.discard(offset, len),
            Request::WriteZeroes { offset, len, may_unmap } => self.write_zeroes(offset, len, may_unmap),
        }
    }

    fn place(&self, request: Request<'_>) -> Option<Place> {
        let (spans, offset, is_write) = match request {
            Request::Read { offset, into } => (into, offset, false),
            Request::Write { offset, from } if !self.read_only => (from, offset, true),
            _ => return None,
        };
        let hold = self.gate.hold()?;
        let len = total_len(spans);
        let layer = self.layer();
        let (Mapping::Raw { storage, offset, writable, .. }, found) = layer.get_mapping(offset, len).ok()? else {
            return None;
        };
        let is_whole = found >= len && (writable || !is_write);
        is_whole.then(|| {
            let file = storage.file();
            let is_memory = file.is_memory();
            Place { file: Arc::clone(file.suited(spans, offset)), offset, is_memory, _hold: Some(hold) }
        })
    }
}
