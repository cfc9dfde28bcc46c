//! A tree to bytes. Pure: the same tree gives the same bytes, whatever the clock, the folder or the number of cores.

pub mod boot;
mod bootable;
mod containerdisk;
mod cpio;
mod device;
pub mod disk;
mod docker;
mod erofs;
mod extents;
mod fat;
mod fingerprint;
mod gzip;
mod in_order;
mod initrd;
pub mod iso;
mod material;
mod oci;
pub mod root;
mod rpi3;
mod sink;
mod squashfs;
mod tar;
mod tar_kernel_initrd;
pub mod verity;

use std::fmt;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::cancel::{Cancel, Cancelled};
use crate::progress::Meter;
use crate::tree::{Body, CMDLINE_PATH, KERNEL_PATH, Kind, Spool, Tree, TreeError, TreePath};

pub use boot::BootError;
pub use bootable::{Unbootable, check};
pub use disk::{DiskError, DiskFormat};
pub use erofs::{ErofsCompression, ErofsFault, UnknownErofsCompression};
pub use extents::Extents;
pub use fat::FatError;
pub use gzip::{Packing, Threads};
pub use iso::{IsoError, IsoFormat};
pub use material::{Material, Options};
pub use root::RootOn;
pub use sink::{FileSink, Sink, StreamSink};
pub use squashfs::{
    Compression, CompressionError, Compressor, SquashfsError, SquashfsOptionError, SquashfsOptions, SquashfsOrder,
    SquashfsOrderError,
};
pub use tar::write as write_tar;

/// What a build can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// The whole root as one tar: `NAME.tar`, or a stream.
    Tar,
    /// `NAME-kernel`, `NAME-initrd.img` and `NAME-cmdline`, for a boot loader or `kiln run`.
    KernelInitrd,
    /// The whole root and a `Dockerfile` as one tar: `NAME.docker`, or a stream.
    Docker,
    /// `NAME-kernel`, `NAME-cmdline` and `NAME-erofs.img`: the root as an EROFS image, for a disk.
    KernelErofs,
    /// `NAME-initrd.tar` with `kernel`, `initrd.img`, `cmdline` and, if there is some, `ucode.cpio`.
    TarKernelInitrd,
    /// `NAME-kernel`, `NAME-squashfs.img` and `NAME-cmdline`: the root stays on a disk.
    KernelSquashfs,
    /// A disk that boots by itself.
    Disk(DiskFormat),
    /// The root as an ISO 9660 volume, with or without what starts it.
    Iso(IsoFormat),
    /// `NAME.oci.tar`, or a stream: what `kiln push` sends, as an OCI image layout in a tar.
    Oci,
    /// `NAME-containerdisk.oci.tar`, or a stream: a disk in an image, as KubeVirt takes it.
    ContainerDisk,
    /// `NAME.tar`, or a stream: the files of a card for a Raspberry Pi 3.
    Rpi3,
}

/// No format has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no output format is called `{name}`; there are {}", Format::names())]
pub struct UnknownFormat {
    /// As the user wrote it.
    pub name: String,
}

impl Format {
    /// All of them, in the order of the help.
    pub const ALL: [Self; 22] = [
        Self::KernelInitrd,
        Self::Tar,
        Self::Docker,
        Self::TarKernelInitrd,
        Self::KernelErofs,
        Self::KernelSquashfs,
        Self::Disk(DiskFormat::RawEfi),
        Self::Disk(DiskFormat::RawBios),
        Self::Disk(DiskFormat::Qcow2Efi),
        Self::Disk(DiskFormat::Qcow2Bios),
        Self::Disk(DiskFormat::Aws),
        Self::Disk(DiskFormat::Gcp),
        Self::Disk(DiskFormat::Vhd),
        Self::Disk(DiskFormat::DynamicVhd),
        Self::Disk(DiskFormat::Vmdk),
        Self::Oci,
        Self::ContainerDisk,
        Self::Rpi3,
        Self::Iso(IsoFormat::Kernel),
        Self::Iso(IsoFormat::Bios),
        Self::Iso(IsoFormat::Efi),
        Self::Iso(IsoFormat::EfiInitrd),
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::KernelInitrd => "kernel+initrd",
            Self::Docker => "docker",
            Self::KernelErofs => "kernel+erofs",
            Self::TarKernelInitrd => "tar-kernel-initrd",
            Self::KernelSquashfs => "kernel+squashfs",
            Self::Disk(disk) => disk.name(),
            Self::Iso(iso) => iso.name(),
            Self::Oci => "oci",
            Self::ContainerDisk => "containerdisk",
            Self::Rpi3 => "rpi3",
        }
    }

    /// Whether it is one file, so that it can go to standard output.
    pub fn is_stream(self) -> bool {
        matches!(self, Self::Tar | Self::Docker | Self::Oci | Self::ContainerDisk | Self::Rpi3)
    }

    fn names() -> String {
        Self::ALL.map(|format| format!("`{format}`")).join(", ")
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        let found = Self::ALL.into_iter().find(|format| format.name() == name);
        found.ok_or_else(|| UnknownFormat { name: name.into() })
    }
}

/// One file of a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// All of [`Format::Tar`].
    Tar,
    /// The kernel as its image has it.
    Kernel,
    /// The root less `boot/`, as a cpio archive packed by gzip, with the microcode in front.
    Initrd,
    /// The kernel's command line.
    Cmdline,
    /// The root less what is below `boot/`, as an EROFS image.
    Erofs,
    /// All of [`Format::Docker`].
    Docker,
    /// All of [`Format::TarKernelInitrd`].
    TarKernelInitrd,
    /// The root less what is below `boot`, as a squashfs.
    Squashfs,
    /// All of [`Format::Disk`].
    Disk(DiskFormat),
    /// The volume of [`Format::Iso`].
    Iso(IsoFormat),
    /// All of [`Format::Oci`].
    Oci,
    /// All of [`Format::ContainerDisk`].
    ContainerDisk,
    /// All of [`Format::Rpi3`].
    Rpi3,
    /// What gets at a root on a disk where the kernel alone cannot.
    RootInitrd(RootOn),
    /// The kernel's command line with what it must say about a root on a disk.
    RootCmdline(RootOn),
}

/// Why a part cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The content cannot be read or the output cannot be written.
    #[error("cannot write all of it")]
    Io(#[from] io::Error),
    /// A file does not fit into the format.
    #[error(
        "`{path}` is {len_bytes} bytes long, more than the {limit_bytes} that a file in an initrd can be; use another format or leave it out"
    )]
    TooLarge {
        /// The file.
        path: TreePath,
        /// Its length.
        len_bytes: u64,
        /// What the format can tell.
        limit_bytes: u64,
    },
    /// Something does not fit into an EROFS image.
    #[error(transparent)]
    Erofs(#[from] ErofsFault),
    /// The tree has something that a squashfs cannot hold.
    #[error(transparent)]
    Squashfs(#[from] SquashfsError),
    /// Something of the format's own cannot be where it belongs.
    #[error("cannot put `{path}` where it belongs")]
    Tree {
        /// What.
        path: &'static str,
        /// Why.
        #[source]
        source: TreeError,
    },
    /// The disk cannot have this size.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Something does not fit onto a FAT volume.
    #[error(transparent)]
    Fat(#[from] FatError),
    /// A machine could not get at its root.
    #[error(transparent)]
    Root(#[from] root::RootError),
    /// It could not start.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// It could not boot.
    #[error(transparent)]
    Unbootable(#[from] Unbootable),
    /// Something has no place on an ISO.
    #[error(transparent)]
    Iso(#[from] IsoError),
    /// Somebody cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Who watches while a part is written.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Stops it.
    pub cancel: &'a Cancel,
    /// Counts the bytes of content that were written.
    pub meter: &'a dyn Meter,
    /// Where an output goes for a while whose length stands in front of it.
    pub folder: &'a Path,
}

impl Format {
    /// What there is to write for `tree`. Without a kernel there is no kernel file, without a command line no such file.
    pub fn parts(self, tree: &Tree) -> Vec<Part> {
        match self {
            Self::Tar => vec![Part::Tar],
            Self::Docker => vec![Part::Docker],
            Self::TarKernelInitrd => vec![Part::TarKernelInitrd],
            Self::Disk(disk) => vec![Part::Disk(disk)],
            Self::Iso(IsoFormat::Kernel) => present(tree, [Part::Kernel, Part::Iso(IsoFormat::Kernel), Part::Cmdline]),
            Self::Iso(iso) => vec![Part::Iso(iso)],
            Self::KernelInitrd => present(tree, [Part::Kernel, Part::Initrd, Part::Cmdline]),
            Self::KernelErofs => present(tree, [Part::Kernel, Part::Erofs, Part::Cmdline]),
            Self::KernelSquashfs => present(tree, [Part::Kernel, Part::Squashfs, Part::Cmdline]),
            Self::Oci => vec![Part::Oci],
            Self::ContainerDisk => vec![Part::ContainerDisk],
            Self::Rpi3 => vec![Part::Rpi3],
        }
    }
}

impl Format {
    /// What the root is that it puts on a disk of its own, which dm-verity can check.
    pub fn root_on(self) -> Option<RootOn> {
        match self {
            Self::KernelErofs => Some(RootOn::Erofs),
            Self::KernelSquashfs => Some(RootOn::Squashfs),
            Self::Iso(IsoFormat::Kernel) => Some(RootOn::Iso),
            _ => None,
        }
    }

    /// Whether it is a disk that can have the root on a partition of its own.
    pub fn takes_root(self) -> bool {
        matches!(self, Self::Disk(disk) if disk.is_gpt())
    }

    /// What `material` needs beside [`parts`](Self::parts) for the root that this format puts on a disk of its own: words of
    /// the command line, and where the kernel cannot get at the root alone an initrd. The original has neither.
    pub fn root_parts(self, material: &Material<'_>) -> Vec<Part> {
        let Some(on) = self.root_on() else { return Vec::new() };
        let has_kernel = material.kernel().is_ok();
        let alone = material.options.compat.is_linuxkit() && !material.options.verity;
        let parts = [Part::RootInitrd(on), Part::RootCmdline(on)];
        let wanted = |part: &Part| match part {
            Part::RootInitrd(on) => root::needs_boot_initrd(material, *on),
            _ => true,
        };
        parts.into_iter().filter(|part| has_kernel && !alone && wanted(part)).collect()
    }
}

/// The parts that are not a copy of a file which is not there or empty.
fn present<const N: usize>(tree: &Tree, parts: [Part; N]) -> Vec<Part> {
    let has = |part: &Part| part.copied_path().is_none_or(|path| file(tree, path).is_some_and(|body| !body.is_empty()));
    parts.into_iter().filter(has).collect()
}

impl Part {
    /// The name of its file in a build called `name`.
    pub fn file_name(self, name: &str) -> String {
        match self {
            Self::Tar => format!("{name}.tar"),
            Self::Kernel => format!("{name}-kernel"),
            Self::Initrd => format!("{name}-initrd.img"),
            Self::Cmdline => format!("{name}-cmdline"),
            Self::Erofs => format!("{name}-erofs.img"),
            Self::Docker => format!("{name}.docker"),
            Self::TarKernelInitrd => format!("{name}-initrd.tar"),
            Self::Squashfs => format!("{name}-squashfs.img"),
            Self::Disk(disk) => disk.file_name(name),
            Self::Iso(iso) => iso.file_name(name),
            Self::Oci => format!("{name}.oci.tar"),
            Self::ContainerDisk => format!("{name}-containerdisk.oci.tar"),
            Self::Rpi3 => format!("{name}.tar"),
            Self::RootInitrd(on) => format!("{name}-{}-initrd.img", on.name()),
            Self::RootCmdline(on) => format!("{name}-{}-cmdline", on.name()),
        }
    }

    /// Another name of its file, for when another format's is called the same.
    pub fn own_name(self, name: &str) -> Option<String> {
        match self {
            Self::Rpi3 => Some(format!("{name}-rpi3.tar")),
            Self::Iso(IsoFormat::Bios) => Some(format!("{name}-bios.iso")),
            _ => None,
        }
    }

    /// Writes it. The bytes depend on the tree and the options alone.
    pub fn write(self, material: &Material<'_>, sink: &mut dyn Sink, watch: Watch<'_>) -> Result<(), FormatError> {
        let tree = material.tree;
        match self {
            Self::Kernel | Self::Cmdline => {
                let body = self.copied_path().and_then(|path| file(tree, path));
                body.map_or(Ok(()), |body| copy(body, sink, watch))
            }
            Self::Initrd => material.write_initrd(sink, watch),
            Self::Erofs => root::write(material, RootOn::Erofs, sink, watch),
            Self::RootInitrd(on) => {
                root::boot_initrd(material, on, watch)?.map_or(Ok(()), |body| copy(&body, sink, watch))
            }
            Self::RootCmdline(on) => Ok(sink.write_all(&root::disk_cmdline(material, on, watch)?)?),
            Self::Docker => docker::write(tree, sink, watch),
            Self::TarKernelInitrd => tar_kernel_initrd::write(material, sink, watch),
            Self::Disk(disk) => disk.write(material, sink, watch),
            Self::Iso(IsoFormat::Kernel) => root::write(material, RootOn::Iso, sink, watch),
            Self::Iso(iso) => iso.write(material, sink, watch),
            Self::Oci => oci::write(material, sink, watch),
            Self::ContainerDisk => containerdisk::write(material, sink, watch),
            Self::Rpi3 => rpi3::write(material, sink, watch),
            Self::Tar => tar::write(tree, sink, watch),
            Self::Squashfs => root::write(material, RootOn::Squashfs, sink, watch),
        }
    }

    /// The bytes of content that it holds before any packing: for progress, and about what it needs on disk.
    pub fn content_bytes(self, tree: &Tree) -> u64 {
        let len = |(_, id)| match &tree.node(id).kind {
            Kind::File(body) => body.len(),
            _ => 0,
        };
        match self.copied_path() {
            Some(path) => file(tree, path).map_or(0, Body::len),
            // A few modules, or some words.
            None if matches!(self, Self::RootInitrd(_) | Self::RootCmdline(_)) => 0,
            None => tree.walk().map(len).sum(),
        }
    }

    /// The file of the tree that it is a copy of.
    fn copied_path(self) -> Option<&'static str> {
        match self {
            Self::Kernel => Some(KERNEL_PATH),
            Self::Cmdline => Some(CMDLINE_PATH),
            _ => None,
        }
    }
}

fn file<'a>(tree: &'a Tree, path: &str) -> Option<&'a Body> {
    match &tree.get(&TreePath::from_user(path).ok()?)?.kind {
        Kind::File(body) => Some(body),
        _ => None,
    }
}

/// Appends `body` in pieces, so that a cancel is seen.
fn copy(body: &Body, sink: &mut dyn Sink, watch: Watch<'_>) -> Result<(), FormatError> {
    const PIECE_BYTES: u64 = 16 << 20;
    let mut offset = 0;
    while let Some(piece) = body.slice(offset, PIECE_BYTES.min(body.len() - offset)).filter(|piece| !piece.is_empty()) {
        watch.cancel.check()?;
        sink.append(&piece)?;
        watch.meter.advance(piece.len());
        offset += piece.len();
    }
    Ok(())
}

/// What `produce` writes, in a spool.
fn spooled(
    watch: Watch<'_>,
    produce: impl FnOnce(&mut dyn Sink) -> Result<(), FormatError>,
) -> Result<Body, FormatError> {
    let spool = Spool::create(watch.folder)?;
    let mut sink = StreamSink(BufWriter::with_capacity(256 << 10, spool.file()));
    produce(&mut sink)?;
    sink.flush()?;
    drop(sink);
    let len = spool.file().metadata()?.len();
    Ok(Body::Spooled { spool: Arc::new(spool), start: 0, len })
}

#[cfg(test)]
mod tests;
