//! Which drivers of the tree's kernel are built in, which are modules, and which of those a root needs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Read};

use super::super::{FormatError, Watch, spooled};
use super::{RootError, RootOn};
use crate::tree::{Body, KERNEL_PATH, Kind, Tree, TreePath};

const MODULES: &str = "lib/modules";
/// Longest of depmod's lists: those of distributions have less than 2 MiB.
const INDEX_LIMIT_BYTES: u64 = 32 << 20;
/// Longest unpacked module: ten times the longest that is of use here.
const MODULE_LIMIT_BYTES: u64 = 64 << 20;
/// Memory that an xz stream may ask for.
const XZ_MEMORY_BYTES: u64 = 160 << 20;

/// Buses, controllers and disks, in the order they are loaded: the likeliest first, because loading ends when the root
/// is there. True for those that bring a disk or CD by themselves.
const DISKS: [(&str, bool); 22] = [
    ("virtio_pci", false),
    ("virtio_mmio", false),
    ("virtio_blk", true),
    ("nvme", true),
    ("sd_mod", false),
    ("sr_mod", false),
    ("virtio_scsi", true),
    ("ahci", true),
    ("ata_piix", true),
    ("ata_generic", true),
    ("hv_storvsc", true),
    ("vmw_pvscsi", true),
    ("mptspi", true),
    ("mptsas", true),
    ("xen_blkfront", true),
    ("xhci_pci", false),
    ("ehci_pci", false),
    ("uhci_hcd", false),
    ("usb_storage", true),
    ("uas", true),
    ("sdhci_pci", false),
    ("mmc_block", true),
];

/// What tells the host of a panic: before anything can go wrong.
const PANICS: [&str; 2] = ["pvpanic_mmio", "pvpanic_pci"];

/// Hashes that are faster than the kernel's plain ones, where it has them.
const HASHES: [&str; 3] = ["sha256_ssse3", "sha2_ce", "sha256_arm64"];

/// When a module is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Always,
    /// As long as the root has not appeared.
    UntilRoot,
}

impl When {
    /// The first word of its line in the list.
    pub fn word(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::UntilRoot => "disk",
        }
    }
}

/// One module to load.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub name: String,
    pub when: When,
    path: TreePath,
    body: Body,
}

impl Load {
    /// Its content as the kernel takes it, whatever it was compiled with.
    pub fn unpacked(&self, watch: Watch<'_>) -> Result<Body, FormatError> {
        let packed = BufReader::new(self.body.reader());
        let name = self.path.as_bytes();
        let failed = |source| FormatError::from(RootError::Module { path: self.path.clone(), source });
        let mut plain: Box<dyn Read + '_> = if name.ends_with(b".xz") {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_BYTES, 0).map_err(io::Error::from);
            Box::new(liblzma::bufread::XzDecoder::new_stream(packed, stream.map_err(failed)?))
        } else if name.ends_with(b".zst") {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(failed)?;
            decoder.window_log_max(27).map_err(failed)?;
            Box::new(decoder)
        } else if name.ends_with(b".gz") {
            Box::new(flate2::bufread::MultiGzDecoder::new(packed))
        } else {
            return Ok(self.body.clone());
        };
        spooled(watch, |sink| {
            let len = io::copy(&mut plain.by_ref().take(MODULE_LIMIT_BYTES + 1), sink).map_err(failed)?;
            match len > MODULE_LIMIT_BYTES {
                true => Err(failed(io::ErrorKind::FileTooLarge.into())),
                false => Ok(()),
            }
        })
    }
}

enum Step {
    Visit(String),
    Load(String),
}

/// What `lib/modules` says about one kernel.
pub(super) struct Drivers<'a> {
    tree: &'a Tree,
    folder: TreePath,
    version: String,
    builtin: BTreeSet<String>,
    /// Paths below the folder and what they need, by name. Of modules that are in the tree only.
    modules: BTreeMap<String, (String, Vec<String>)>,
    /// Names that a module wants to be loaded before it.
    wanted_before: BTreeMap<String, Vec<String>>,
}

impl<'a> Drivers<'a> {
    /// Of the kernel that boots, or `None` for one that has no modules.
    pub fn of(tree: &'a Tree) -> Result<Option<Self>, RootError> {
        let Some(version) = version(tree)? else { return Ok(None) };
        let folder = TreePath::from_user(MODULES).unwrap_or_default().join(version.as_bytes());
        let read = |name: &str| {
            let path = folder.join(name.as_bytes());
            let text = match &tree.get(&path).map(|node| &node.kind) {
                Some(Kind::File(body)) => body.read_up_to(INDEX_LIMIT_BYTES).ok().flatten(),
                _ => None,
            };
            text.map(|text| String::from_utf8_lossy(&text).into_owned()).ok_or(RootError::Index { path })
        };
        // A kernel with nothing built in does not exist: without the list nothing is known.
        let Ok(builtin) = read("modules.builtin") else { return Ok(None) };
        let builtin = builtin.lines().map(module_name).collect();
        let mut modules = BTreeMap::new();
        for (path, needs) in read("modules.dep").unwrap_or_default().lines().filter_map(|line| line.split_once(':')) {
            let needs = needs.split_ascii_whitespace().map(module_name).collect();
            modules.insert(module_name(path), (path.to_owned(), needs));
        }
        let mut wanted_before: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in read("modules.softdep").unwrap_or_default().lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some("softdep"), Some(name)) = (words.next(), words.next()) else { continue };
            let before = words.skip_while(|word| *word != "pre:").skip(1).take_while(|word| *word != "post:");
            wanted_before.entry(normal(name)).or_default().extend(before.map(normal));
        }
        Ok(Some(Self { tree, folder, version, builtin, modules, wanted_before }))
    }

    /// What is needed and not built in, if anything.
    pub fn not_built_in(&self, on: RootOn) -> Result<Option<&'static str>, RootError> {
        let builtin = |name: &str| self.builtin.contains(name);
        Ok(match on {
            _ if !builtin(on.module()) => Some(on.file_system()),
            _ if !DISKS.iter().any(|(name, is_disk)| *is_disk && builtin(name)) => Some("a disk driver"),
            _ => None,
        })
    }

    /// The modules that a root needs, in loading order.
    pub fn loads(&self, file_system: &'static str, verity: bool) -> Result<Vec<Load>, RootError> {
        let lacks = |what| RootError::NoDriver { what, version: self.version.clone() };
        let is_there = |name: &str| self.builtin.contains(name) || self.body(name).is_some();
        if !is_there(file_system) {
            return Err(lacks(file_system));
        }
        if verity && !is_there("dm_verity") {
            return Err(lacks("dm-verity"));
        }
        if !DISKS.iter().any(|(name, is_disk)| *is_disk && is_there(name)) {
            return Err(lacks("any disk"));
        }
        let mut loads = Vec::new();
        let mut seen = BTreeSet::new();
        let sealed = HASHES.into_iter().chain(["dm_verity"]).filter(|_| verity);
        let always = PANICS.into_iter().chain(sealed).chain([file_system]);
        let always = always.map(|name| (name, When::Always));
        let wanted = always.chain(DISKS.map(|(name, _)| (name, When::UntilRoot)));
        for (name, when) in wanted.filter(|(name, _)| self.body(name).is_some()) {
            self.add(name, when, &mut seen, &mut loads)?;
        }
        Ok(loads)
    }

    /// Adds `name`, if the kernel has it as a module, behind all that it needs.
    fn add(&self, name: &str, when: When, seen: &mut BTreeSet<String>, loads: &mut Vec<Load>) -> Result<(), RootError> {
        // No recursion: how deep it would go is in the hands of whoever wrote the list.
        let mut todo = vec![Step::Visit(name.to_owned())];
        while let Some(step) = todo.pop() {
            match step {
                Step::Visit(name) if self.builtin.contains(&name) || seen.contains(&name) => {}
                Step::Visit(name) => {
                    let needs = self.modules.get(&name).into_iter().flat_map(|(_, needs)| needs);
                    let wanted = self.wanted_before.get(&name).into_iter().flatten();
                    let wanted = wanted.filter(|name| self.body(name).is_some());
                    todo.push(Step::Load(name.clone()));
                    // Both the list and this stack have last what comes first.
                    todo.extend(needs.chain(wanted).cloned().map(Step::Visit));
                    seen.insert(name);
                }
                Step::Load(name) => {
                    let (path, body) = self.body(&name).ok_or_else(|| self.missing(&name))?;
                    loads.push(Load { name, when, path, body });
                }
            }
        }
        Ok(())
    }

    fn body(&self, name: &str) -> Option<(TreePath, Body)> {
        let (path, _) = self.modules.get(name)?;
        let path = TreePath::from_user(path).ok().map(|path| self.folder.append(&path))?;
        match &self.tree.get(&path)?.kind {
            Kind::File(body) => Some((path, body.clone())),
            _ => None,
        }
    }

    fn missing(&self, name: &str) -> RootError {
        let path = self.modules.get(name).and_then(|(path, _)| TreePath::from_user(path).ok()).unwrap_or_default();
        RootError::Module { path: self.folder.append(&path), source: io::ErrorKind::NotFound.into() }
    }
}

/// The version of the kernel that boots, as its modules' folder is called.
fn version(tree: &Tree) -> Result<Option<String>, RootError> {
    let path = TreePath::from_user(MODULES).unwrap_or_default();
    let Some(Kind::Directory(children)) = tree.get(&path).map(|node| &node.kind) else { return Ok(None) };
    let is_folder = |name: &[u8]| matches!(tree.get(&path.join(name)).map(|node| &node.kind), Some(Kind::Directory(_)));
    let versions = children.keys().filter(|name| is_folder(name));
    let mut versions: Vec<String> = versions.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    let of_kernel = super::file(tree, KERNEL_PATH).and_then(kernel_version);
    if let Some(at) = versions.iter().position(|version| Some(version) == of_kernel.as_ref()) {
        return Ok(Some(versions.swap_remove(at)));
    }
    match versions.len() {
        0 | 1 => Ok(versions.pop()),
        _ => Err(RootError::Versions { versions }),
    }
}

/// What a bzImage says it is (Linux' `Documentation/arch/x86/boot.rst`, `kernel_version`).
fn kernel_version(kernel: &Body) -> Option<String> {
    const LONGEST: usize = 128;
    let mut header = [0; 0x210];
    kernel.read_exact_at(&mut header, 0).ok()?;
    if header.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let offset = u64::from(u16::from_le_bytes(header.get(0x20e..0x210)?.try_into().ok()?)) + 0x200;
    let mut text = [0; LONGEST];
    kernel.read_exact_at(&mut text, offset).ok()?;
    let end = text.iter().position(|byte| byte.is_ascii_whitespace() || *byte == 0)?;
    String::from_utf8(text.get(..end)?.to_vec()).ok()
}

/// The kernel writes `_` in names where files have `-`.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// `kernel/drivers/block/virtio_blk.ko.xz` is `virtio_blk`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    normal(file.split(".ko").next().unwrap_or(file))
}
