//! Initial RAM disks of busybox and the kernel's own modules, for guests that do one thing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::fixtures::{Kernel, debian_kernel};
use super::kiln::run;

/// What a device of virtio on PCI needs, in the order of their loading.
pub const VIRTIO_PCI: [&str; 5] =
    ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci"];
/// What a network card needs besides.
pub const NETWORK: [&str; 3] = ["failover", "net_failover", "virtio_net"];

/// A tree that becomes an initial RAM disk: `/bin/busybox`, the usual empty folders, and what is put into it. Its `/init`
/// loads `/modules/$module.ko` for each line of `/modules/order`.
pub struct Initrd {
    root: tempfile::TempDir,
}

impl Initrd {
    pub fn new() -> Self {
        let root = tempfile::Builder::new().prefix("kiln-initrd-").tempdir().expect("a temp folder can be made");
        let initrd = Self { root };
        for folder in ["bin", "dev", "etc", "modules", "proc", "sys", "tmp"] {
            fs::create_dir(initrd.path(folder)).expect("the temp folder is writable");
        }
        fs::copy("/bin/busybox", initrd.path("bin/busybox")).expect("busybox-static is installed");
        initrd.text("modules/order", "")
    }

    /// Puts a file there, which may be run.
    pub fn text(self, name: &str, text: &str) -> Self {
        let path = self.new_path(name);
        fs::write(&path, text).expect("the temp folder is writable");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("just written");
        self
    }

    /// Puts the file `from` there, with its mode.
    pub fn file(self, name: &str, from: &Path) -> Self {
        let path = self.new_path(name);
        if fs::hard_link(from, &path).is_err() {
            fs::copy(from, &path).unwrap_or_else(|error| panic!("copy {}: {error}", from.display()));
        }
        self
    }

    /// Puts these modules of Debian's kernel there, behind those that are there already, and their names.
    pub fn modules(self, names: &[&str]) -> Self {
        self.modules_of(&debian_kernel(), names)
    }

    /// The same, of another kernel.
    pub fn modules_of(self, kernel: &Kernel, names: &[&str]) -> Self {
        let order = fs::read_to_string(self.path("modules/order")).unwrap_or_default();
        let more: String = names.iter().map(|name| format!("{name}\n")).collect();
        let initrd = self.text("modules/order", &(order + &more));
        let put = |initrd: Self, name: &&str| initrd.file(&format!("modules/{name}.ko"), &kernel.module(name));
        names.iter().fold(initrd, put)
    }

    /// Packs it into the file `to`.
    pub fn pack(self, to: &Path) {
        let pack = r#"cd "$1" && find . | cpio --quiet -o -H newc > "$2""#;
        run(Command::new("sh").args(["-euc", pack, "sh"]).arg(self.root.path()).arg(to)).ok();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn new_path(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("below the root")).expect("the temp folder is writable");
        path
    }
}
