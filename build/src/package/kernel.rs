//! Debian's kernel as a LinuxKit kernel image: `/kernel`, and `/kernel.tar` with the modules that are wanted, all that
//! they need, and what `depmod` writes about them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::apt::{Apt, Closure};
use super::deb::{NOTES, SUMS, Selection, unpack};
use super::error::{PackageError, io_error};
use super::pack::write_tar;
use super::pattern::fits;
use super::program::Program;
use super::recipe::Kernel;
use super::stage::Stage;
use crate::tree::{Body, Kind, TreePath};

/// What all of Debian's kernel packages are called.
const KERNEL_PREFIX: &str = "linux-image-";
/// Where modules are, in the package as in the image.
const MODULES: &[u8] = b"usr/lib/modules";
/// What depmod reads or writes beside the modules, as far as a running system asks for it.
const INDEXES: [&str; 10] = [
    "modules.alias",
    "modules.alias.bin",
    "modules.builtin",
    "modules.builtin.alias.bin",
    "modules.builtin.bin",
    "modules.builtin.modinfo",
    "modules.dep",
    "modules.dep.bin",
    "modules.order",
    "modules.softdep",
];
/// What is taken from depmod's input before it runs.
const DEPMOD_INPUT: [&str; 3] = ["modules.builtin", "modules.builtin.modinfo", "modules.order"];

/// Puts `/kernel` and `/kernel.tar` into the stage.
pub(super) fn add(kernel: &Kernel, apt: &Apt<'_>, architecture: &str, stage: &mut Stage) -> Result<(), PackageError> {
    let wanted = kernel.package.replace("{{.Arch}}", architecture);
    let package = resolve(&wanted, apt)?;
    let mut unpacked = Stage::new(stage.package(), stage.spool_folder(), 0)?;
    for deb in apt.fetch(std::slice::from_ref(&package), Closure::Alone)? {
        let all = Selection { include: &[], exclude: &["usr/share/doc".to_owned()] };
        unpack(&deb, all, apt.cancel, &mut unpacked)?;
    }
    // Not the list of files: they are in other places here, and most of them are not here at all.
    let is_note = |path: &TreePath| path.as_bytes().starts_with(NOTES) && !path.as_bytes().ends_with(SUMS);
    for (path, id) in unpacked.tree.walk().filter(|(path, _)| is_note(path)) {
        stage.put(&path, 0o644, unpacked.tree.node(id).kind.clone())?;
    }
    let lacks = |wanted| PackageError::NoKernel { package: package.clone(), wanted };
    let version = version(&unpacked).ok_or_else(|| lacks("/boot/vmlinuz-VERSION"))?;
    let binary = TreePath::root().join(b"boot").join(format!("vmlinuz-{version}").as_bytes());
    let Some(Kind::File(body)) = unpacked.tree.get(&binary).map(|node| node.kind.clone()) else {
        return Err(lacks("/boot/vmlinuz-VERSION"));
    };
    let body = stage.keep(&mut body.reader(), Path::new("vmlinuz"))?;
    stage.put(&TreePath::root().join(b"kernel"), 0o644, Kind::File(body))?;

    let base = tempfile::tempdir_in(stage.spool_folder())
        .map_err(|source| io_error("make a temporary folder in", stage.spool_folder(), source))?;
    let modules = Modules { base: base.path().to_owned(), version };
    if modules.extract(&unpacked)? == 0 {
        return Err(lacks("/lib/modules/VERSION"));
    }
    apt.cancel.check()?;
    modules.select(kernel)?;
    apt.cancel.check()?;
    let device_trees = device_trees(&unpacked, &package, &kernel.device_trees)?;
    modules.archive(device_trees, stage)
}

/// The device trees that the patterns ask for, with their names in the package's folder of them.
fn device_trees(unpacked: &Stage, package: &str, patterns: &[String]) -> Result<Vec<(TreePath, Body)>, PackageError> {
    let prefix = [b"usr/lib/", package.as_bytes(), b"/"].concat();
    let mut found = Vec::new();
    for pattern in patterns {
        let before = found.len();
        for (path, id) in unpacked.tree.walk() {
            let Some(name) = path.as_bytes().strip_prefix(&prefix[..]) else { continue };
            if let Kind::File(body) = &unpacked.tree.node(id).kind
                && fits(pattern.as_bytes(), name)
            {
                let folder = TreePath::root().join(b"boot").join(b"dtb");
                found.push((name.split(|&byte| byte == b'/').fold(folder, |path, part| path.join(part)), body.clone()));
            }
        }
        if found.len() == before {
            return Err(PackageError::NoDeviceTree { package: package.to_owned(), pattern: pattern.clone() });
        }
    }
    Ok(found)
}

/// The package that has the kernel: `package` itself, or the one that it depends on.
fn resolve(package: &str, apt: &Apt<'_>) -> Result<String, PackageError> {
    let is_versioned = |name: &str| {
        name.strip_prefix(KERNEL_PREFIX).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    if is_versioned(package) {
        return Ok(package.to_owned());
    }
    let offers = apt.closure(&[package.to_owned()])?;
    let found = offers.into_iter().map(|offer| offer.name).find(|name| is_versioned(name));
    found.ok_or(PackageError::NoKernel { package: package.to_owned(), wanted: "linux-image-VERSION" })
}

/// The version in the name of `/boot/vmlinuz-*`.
fn version(unpacked: &Stage) -> Option<String> {
    let boot = unpacked.tree.get(&TreePath::root().join(b"boot"))?;
    let Kind::Directory(children) = &boot.kind else { return None };
    let version = children.keys().find_map(|name| name.strip_prefix(b"vmlinuz-"))?;
    String::from_utf8(version.to_vec()).ok()
}

/// The modules of one kernel in a folder of the host, as depmod wants them.
struct Modules {
    base: PathBuf,
    version: String,
}

impl Modules {
    fn folder(&self) -> PathBuf {
        self.base.join("lib/modules").join(&self.version)
    }

    /// Writes the package's modules into the folder. Returns how many.
    fn extract(&self, unpacked: &Stage) -> Result<usize, PackageError> {
        let prefix = [MODULES, b"/", self.version.as_bytes(), b"/"].concat();
        let mut count = 0;
        for (path, id) in unpacked.tree.walk() {
            let Some(name) = path.as_bytes().strip_prefix(&prefix[..]) else { continue };
            let Kind::File(body) = &unpacked.tree.node(id).kind else { continue };
            let is_module = is_module(name);
            if !is_module && !DEPMOD_INPUT.iter().any(|input| input.as_bytes() == name) {
                continue;
            }
            count += usize::from(is_module);
            let to = self.folder().join(std::ffi::OsStr::from_bytes(name));
            let folder = to.parent().unwrap_or(&self.base);
            fs::create_dir_all(folder).map_err(|source| io_error("make folder", folder, source))?;
            let mut file = File::create(&to).map_err(|source| io_error("write", &to, source))?;
            io::copy(&mut body.reader(), &mut file).map_err(|source| io_error("write", &to, source))?;
        }
        Ok(count)
    }

    /// Removes what `kernel` does not ask for, neither themselves nor through what they need.
    fn select(&self, kernel: &Kernel) -> Result<(), PackageError> {
        self.depmod()?;
        let needs = Needs { dep: self.read("modules.dep")?, softdep: self.read("modules.softdep")? };
        let builtin = self.read("modules.builtin")?;
        let wanted = needs.closure(&kernel.modules, &kernel.modules_if_there, &builtin)?;
        for path in needs.paths().filter(|path| !wanted.contains(path)) {
            let path = self.folder().join(path);
            fs::remove_file(&path).map_err(|source| io_error("remove", &path, source))?;
        }
        self.depmod()
    }

    fn depmod(&self) -> Result<(), PackageError> {
        Program::new("depmod", "kmod").arg("-b").arg(&self.base).arg(&self.version).run()?;
        Ok(())
    }

    fn read(&self, name: &str) -> Result<String, PackageError> {
        let path = self.folder().join(name);
        fs::read_to_string(&path).map_err(|source| io_error("read", &path, source))
    }

    /// Puts what is left, and the device trees, into the stage as `/kernel.tar`.
    fn archive(&self, device_trees: Vec<(TreePath, Body)>, stage: &mut Stage) -> Result<(), PackageError> {
        let below = TreePath::root().join(b"lib").join(b"modules").join(self.version.as_bytes());
        let mut tree = stage.new_tree();
        let mut put = |name: &str| {
            let host = self.folder().join(name);
            let mut file = File::open(&host).map_err(|source| io_error("read", &host, source))?;
            let body = stage.keep(&mut file, &host)?;
            let path = name.split('/').fold(below.clone(), |path, part| path.join(part.as_bytes()));
            tree.put(&path, stage.attributes(0o644), Kind::File(body)).map_err(|source| stage.refused(source))
        };
        let needs = Needs { dep: self.read("modules.dep")?, softdep: String::new() };
        for name in needs.paths() {
            put(name)?;
        }
        for name in INDEXES.into_iter().filter(|name| self.folder().join(name).is_file()) {
            put(name)?;
        }
        for (path, body) in device_trees {
            let put = tree.put(&path, stage.attributes(0o644), Kind::File(body));
            put.map_err(|source| stage.refused(source))?;
        }
        let body = stage
            .keep_with(&mut |mut file| write_tar(&tree, &mut file))
            .map_err(|source| io_error("write a temporary file in", stage.spool_folder(), source))?;
        stage.put(&TreePath::root().join(b"kernel.tar"), 0o644, Kind::File(body))
    }
}

/// What depmod found out.
struct Needs {
    /// `PATH: PATH…` a line, the right side complete.
    dep: String,
    /// `softdep NAME pre: NAME… post: NAME…` a line.
    softdep: String,
}

impl Needs {
    fn paths(&self) -> impl Iterator<Item = &str> {
        self.dep.lines().filter_map(|line| Some(line.split_once(':')?.0))
    }

    /// Paths of all modules that the patterns ask for, and of those that they need.
    fn closure(&self, patterns: &[String], if_there: &[String], builtin: &str) -> Result<BTreeSet<&str>, PackageError> {
        let by_name: BTreeMap<String, &str> = self.paths().map(|path| (module_name(path), path)).collect();
        let all: BTreeMap<&str, &str> = self.dep.lines().filter_map(|line| line.split_once(':')).collect();
        let mut todo: Vec<&str> = Vec::new();
        let patterns = patterns.iter().map(|pattern| (pattern, true));
        for (pattern, must_be) in patterns.chain(if_there.iter().map(|pattern| (pattern, false))) {
            let plain = pattern.replace('-', "_");
            let fitting = by_name.iter().filter(|(name, _)| fits(plain.as_bytes(), name.as_bytes()));
            let before = todo.len();
            todo.extend(fitting.map(|(_, path)| *path));
            let is_builtin = || builtin.lines().any(|path| fits(plain.as_bytes(), module_name(path).as_bytes()));
            if must_be && todo.len() == before && !is_builtin() {
                return Err(PackageError::NoModule { pattern: pattern.clone() });
            }
        }
        let soft = self.soft();
        let mut wanted = BTreeSet::new();
        while let Some(path) = todo.pop() {
            if !wanted.insert(path) {
                continue;
            }
            todo.extend(all.get(path).into_iter().flat_map(|needs| needs.split_whitespace()));
            let names = soft.get(&module_name(path)).into_iter().flatten();
            todo.extend(names.filter_map(|name| by_name.get(name).copied()));
        }
        Ok(wanted)
    }

    /// What each module would like to have.
    fn soft(&self) -> BTreeMap<String, Vec<String>> {
        let mut soft: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in self.softdep.lines() {
            let mut words = line.split_whitespace();
            if words.next() != Some("softdep") {
                continue;
            }
            let Some(module) = words.next() else { continue };
            let names = words.filter(|word| !word.ends_with(':')).map(|word| word.replace('-', "_"));
            soft.entry(module.replace('-', "_")).or_default().extend(names);
        }
        soft
    }
}

fn is_module(name: &[u8]) -> bool {
    [&b".ko"[..], b".ko.xz", b".ko.zst", b".ko.gz"].iter().any(|end| name.ends_with(end))
}

/// `kernel/drivers/block/virtio_blk.ko.xz` is `virtio_blk`; `-` and `_` are the same to the kernel.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs() -> Needs {
        Needs {
            dep: "kernel/a/virtio-blk.ko: kernel/b/virtio.ko kernel/b/virtio_ring.ko\nkernel/b/virtio.ko:\n\
                  kernel/b/virtio_ring.ko: kernel/b/virtio.ko\nkernel/c/ext4.ko.xz: kernel/c/jbd2.ko.xz\n\
                  kernel/c/jbd2.ko.xz:\nkernel/c/crc32c_generic.ko:\nkernel/d/other.ko:\n"
                .into(),
            softdep: "# a comment\nsoftdep ext4 pre: crc32c-generic missing\n".into(),
        }
    }

    fn closure(patterns: &[&str], if_there: &[&str]) -> Result<Vec<String>, PackageError> {
        let [patterns, if_there] =
            [patterns, if_there].map(|list| list.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>());
        let needs = needs();
        let wanted = needs.closure(&patterns, &if_there, "kernel/e/loop.ko\n")?;
        Ok(wanted.into_iter().map(module_name).collect())
    }

    #[test]
    fn a_pattern_that_fits_nothing_is_refused() {
        assert!(
            matches!(closure(&["ext4", "ext5"], &[]), Err(PackageError::NoModule { pattern }) if pattern == "ext5")
        );
    }

    #[test]
    fn what_a_module_needs_comes_along() {
        assert_eq!(closure(&["virtio_blk"], &[]).unwrap(), ["virtio_blk", "virtio", "virtio_ring"]);
        assert_eq!(closure(&["ext4"], &["ahci"]).unwrap(), ["crc32c_generic", "ext4", "jbd2"]);
        assert_eq!(closure(&["loop"], &["virtio*"]).unwrap(), ["virtio_blk", "virtio", "virtio_ring"]);
        assert!(closure(&[], &[]).unwrap().is_empty());
    }
}
