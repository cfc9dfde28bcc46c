//! What lets a kernel take its root from a disk or CD: words of its command line and, where drivers are modules, a small
//! initrd that loads them, finds the root and hands over to it. With dm-verity it also checks what it hands over to.

mod image;
mod modules;

use std::str::FromStr;

use kiln_abi::{ROOT_MODULES, ROOT_PROGRAM};

use super::{FormatError, Material, Watch, cpio, file, gzip, spooled};
use crate::tree::{Attributes, Body, Kind, Tree, TreeError, TreePath};
pub use image::RootImage;
pub(super) use image::{image, write};
use modules::{Drivers, Load};

/// Where a root is that has a disk of its own.
const DISK: &str = "/dev/vda";

/// What a root on a disk or CD is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RootOn {
    /// squashfs.
    Squashfs,
    /// erofs.
    Erofs,
    /// ISO 9660 with Rock Ridge.
    Iso,
}

impl RootOn {
    /// What `rootfstype=` calls it.
    pub fn file_system(self) -> &'static str {
        match self {
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
            Self::Iso => "iso9660",
        }
    }

    /// What files that belong to it have in their names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
            Self::Iso => "iso",
        }
    }

    /// What its driver is called.
    fn module(self) -> &'static str {
        match self {
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
            Self::Iso => "isofs",
        }
    }
}

/// No root on a disk image is called so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no file system of a root on a disk; there are `squashfs` and `erofs`")]
pub struct UnknownRoot(String);

impl FromStr for RootOn {
    type Err = UnknownRoot;

    fn from_str(name: &str) -> Result<Self, UnknownRoot> {
        let known = [Self::Squashfs, Self::Erofs].into_iter().find(|on| on.file_system() == name);
        known.ok_or_else(|| UnknownRoot(name.into()))
    }
}

/// Why a machine could not get at its root.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// Drivers are modules, and nobody would load them.
    #[error(
        "the kernel has {what} not built in, and the image has no `{ROOT_PROGRAM}`, which loads it before the root is there: add kiln's init package (`pkg/init`) to `init:`, take a kernel that has it built in, or use the format `kernel+initrd`"
    )]
    NoProgram {
        /// What is not built in.
        what: &'static str,
    },
    /// Nothing would look at the root hash.
    #[error(
        "a root with dm-verity needs `{ROOT_PROGRAM}` in the image: add kiln's init package (`pkg/init`) to `init:`, or leave out `--verity`"
    )]
    NoVerityProgram,
    /// The kernel cannot do it at all.
    #[error(
        "the kernel has no driver for {what}, neither built in nor in `lib/modules/{version}`; take another kernel or another format"
    )]
    NoDriver {
        /// For what.
        what: &'static str,
        /// The kernel's version.
        version: String,
    },
    /// More than one kernel's modules, none of them for sure those of the kernel that boots.
    #[error("there are modules of several kernels, {}, and none of them is known to be the one that boots; leave one", versions.join(", "))]
    Versions {
        /// All of them.
        versions: Vec<String>,
    },
    /// A list of modules that is no text or too long.
    #[error("`{path}` is missing or no list of modules; run `depmod` when the kernel's package is made")]
    Index {
        /// The file.
        path: TreePath,
    },
    /// A module that cannot be unpacked.
    #[error("cannot unpack the module `{path}`")]
    Module {
        /// The file.
        path: TreePath,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The command line is no text.
    #[error("the kernel's command line has a zero byte or a line break in it")]
    Cmdline,
}

/// What the command line says about the root, unless its own words do.
#[derive(Debug, Clone, Copy)]
pub struct RootWords<'a> {
    /// Value of `root=`: `/dev/vda`, `LABEL=…`, `PARTUUID=…`. All but devices and `PARTUUID=` need a boot initrd.
    pub device: &'a str,
    /// Value of `roothash=`, in hexadecimal digits.
    pub roothash: Option<&'a str>,
}

/// Whether a root of this kind needs a boot initrd: a driver is a module, or the root is checked by dm-verity.
pub fn needs_boot_initrd(material: &Material<'_>, on: RootOn) -> bool {
    // What is wrong is told when it is made.
    plan(material, on).map_or(true, |plan| plan.is_some())
}

/// The initrd that gets at a root of this kind, in a spool; `None` where the kernel can do it alone. Without
/// `lib/modules` the kernel is taken to have everything built in.
///
/// # Errors
/// [`FormatError::Root`]; what the disk says.
pub fn boot_initrd(material: &Material<'_>, on: RootOn, watch: Watch<'_>) -> Result<Option<Body>, FormatError> {
    let Some((program, loads)) = plan(material, on)? else { return Ok(None) };
    let mut tree = Tree::new(material.tree.implied_mtime_s());
    let mut list = String::new();
    for folder in ["dev", "proc", "root", "sys"] {
        put(&mut tree, folder, 0o755, Kind::directory())?;
    }
    for load in &loads {
        watch.cancel.check()?;
        let path = format!("lib/modules/{}.ko", load.name);
        put(&mut tree, &path, 0o644, Kind::File(load.unpacked(watch)?))?;
        list.push_str(&format!("{} /{path}\n", load.when.word()));
    }
    put(&mut tree, ROOT_MODULES, 0o644, Kind::file(list))?;
    put(&mut tree, "init", 0o755, Kind::File(program))?;
    spooled(watch, |sink| {
        gzip::compress(sink, material.packing, |packer| cpio::write(&tree, packer, watch))?;
        Ok(sink.flush()?)
    })
    .map(Some)
}

/// The kernel's command line with what it must say about the root, where it does not yet.
///
/// # Errors
/// [`RootError::Cmdline`], [`BootError::LongCmdline`](super::BootError::LongCmdline); what the disk says.
pub fn cmdline(material: &Material<'_>, on: RootOn, root: RootWords<'_>) -> Result<Vec<u8>, FormatError> {
    let own = material.cmdline()?;
    let own = own.trim_ascii();
    if own.iter().any(|byte| [0, b'\n', b'\r'].contains(byte)) {
        return Err(RootError::Cmdline.into());
    }
    let mut cmdline = own.to_vec();
    let mut add = |word: String| {
        cmdline.extend_from_slice(if cmdline.is_empty() { b"" } else { b" " });
        cmdline.extend_from_slice(word.as_bytes());
    };
    if !has(own, b"root=") {
        add(format!("root={}", root.device));
        if !has(own, b"rootfstype=") {
            add(format!("rootfstype={}", on.file_system()));
        }
    }
    if !words(own).any(|word| word == b"ro" || word == b"rw") {
        add("ro".into());
    }
    if let Some(hash) = root.roothash.filter(|_| !has(own, b"roothash=")) {
        add(format!("roothash={hash}"));
    }
    Ok(cmdline)
}

/// The command line for a root that is the first virtio disk.
pub(super) fn disk_cmdline(material: &Material<'_>, on: RootOn, watch: Watch<'_>) -> Result<Vec<u8>, FormatError> {
    let image = material.options.verity.then(|| material.root(on, watch)).transpose()?;
    let roothash = image.and_then(|image| image.roothash.as_deref());
    cmdline(material, on, RootWords { device: DISK, roothash })
}

fn has(cmdline: &[u8], start: &[u8]) -> bool {
    words(cmdline).any(|word| word.starts_with(start))
}

/// Split at white space outside of double quotes, as the kernel does. What is behind `--` is for init.
fn words(cmdline: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    let split = move |byte: &u8| {
        quoted ^= *byte == b'"';
        byte.is_ascii_whitespace() && !quoted
    };
    cmdline.split(split).take_while(|word| *word != b"--").filter(|word| !word.is_empty())
}

/// The program and what it loads, if there is anything for it to do.
fn plan(material: &Material<'_>, on: RootOn) -> Result<Option<(Body, Vec<Load>)>, RootError> {
    let program = file(material.tree, ROOT_PROGRAM).filter(|body| !body.is_empty()).cloned();
    let verity = material.options.verity;
    let drivers = Drivers::of(material.tree)?;
    let (loads, missing) = match &drivers {
        None => (Vec::new(), None),
        Some(drivers) => (drivers.loads(on.module(), verity)?, drivers.not_built_in(on)?),
    };
    match program {
        None if verity => Err(RootError::NoVerityProgram),
        None => missing.map_or(Ok(None), |what| Err(RootError::NoProgram { what })),
        Some(program) if verity || !loads.is_empty() => Ok(Some((program, loads))),
        Some(_) => Ok(None),
    }
}

fn put(tree: &mut Tree, path: &str, mode: u32, kind: Kind) -> Result<(), FormatError> {
    let attributes = Attributes::of_root(mode, tree.implied_mtime_s());
    let refused = |source: TreeError| FormatError::Tree { path: "the modules of the boot initrd", source };
    tree.put(&TreePath::from_user(path).unwrap_or_default(), attributes, kind).map(drop).map_err(refused)
}

#[cfg(test)]
mod tests;
