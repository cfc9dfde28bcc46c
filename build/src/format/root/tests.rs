use std::io::{Read, Write};
use std::sync::LazyLock;

use super::super::{Options, Packing, Threads};
use super::*;
use crate::cache::Cache;
use crate::cancel::Cancel;
use crate::progress::Silent;
use crate::tree::CMDLINE_PATH;

const VERSION: &str = "lib/modules/6.1-x";
const BUILTIN: &str = "kernel/drivers/nvme/host/nvme.ko\nkernel/lib/crc32.ko\n";
const DEP: &str = "kernel/fs/squashfs.ko:\nkernel/fs/erofs.ko.gz: kernel/lib/libcrc32c.ko kernel/lib/crc32.ko\n\
                   kernel/lib/libcrc32c.ko:\nkernel/virtio/virtio-pci.ko.xz: kernel/virtio/virtio.ko.zst\n\
                   kernel/virtio/virtio.ko.zst:\nkernel/virtio/virtio_blk.ko: kernel/virtio/virtio.ko.zst\n\
                   kernel/md/dm-verity.ko: kernel/md/dm-mod.ko\nkernel/md/dm-mod.ko:\nkernel/crypto/fast.ko:\n\
                   kernel/gone/ahci.ko: kernel/gone/libata.ko\n";
const SOFTDEP: &str = "# x\nsoftdep dm-verity pre: fast missing post: never\n";

fn gzip(text: &str) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(text.as_bytes()).unwrap();
    packer.finish().unwrap()
}

fn add(tree: &mut Tree, name: &str, content: impl AsRef<[u8]>) {
    put(tree, name, 0o644, Kind::file(content)).unwrap();
}

/// A tree with these files of depmod, below a folder that a link leads to.
fn tree(builtin: &str, dep: &str) -> Tree {
    let mut tree = Tree::new(1);
    put(&mut tree, "lib", 0o777, Kind::Symlink(b"usr/lib"[..].into())).unwrap();
    put(&mut tree, "usr/lib", 0o755, Kind::directory()).unwrap();
    for (name, text) in [("modules.builtin", builtin), ("modules.dep", dep), ("modules.softdep", SOFTDEP)] {
        add(&mut tree, &format!("{VERSION}/{name}"), text);
    }
    for path in dep.lines().filter_map(|line| line.split(':').next()).filter(|path| !path.contains("gone")) {
        let plain = format!("module {path}");
        let content = match path.rsplit('.').next() {
            Some("xz") => {
                let mut packed = Vec::new();
                liblzma::bufread::XzEncoder::new(plain.as_bytes(), 1).read_to_end(&mut packed).unwrap();
                packed
            }
            Some("zst") => zstd::encode_all(plain.as_bytes(), 1).unwrap(),
            Some("gz") => gzip(&plain),
            _ => plain.into_bytes(),
        };
        add(&mut tree, &format!("{VERSION}/{path}"), content);
    }
    tree
}

fn with_program(mut tree: Tree) -> Tree {
    add(&mut tree, ROOT_PROGRAM, "PROGRAM");
    tree
}

fn with<T>(tree: &Tree, verity: bool, work: impl FnOnce(&Material<'_>) -> T) -> T {
    static NO_CACHE: LazyLock<Cache> = LazyLock::new(Cache::none);
    let options = Options { verity, ..Options::default() };
    work(&Material::new(tree, &options, Packing { threads: Threads::new(1), cache: &NO_CACHE }))
}

/// The boot initrd's archive.
fn initrd(tree: &Tree, on: RootOn, verity: bool) -> Result<Option<Vec<u8>>, FormatError> {
    with(tree, verity, |material| {
        let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: &std::env::temp_dir() };
        let body = boot_initrd(material, on, watch)?;
        assert_eq!(needs_boot_initrd(material, on), body.is_some());
        Ok(body.map(|body| {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(body.reader()).read_to_end(&mut plain).unwrap();
            plain
        }))
    })
}

#[track_caller]
fn refusal(tree: &Tree, on: RootOn, verity: bool) -> String {
    let FormatError::Root(error) = initrd(tree, on, verity).unwrap_err() else { panic!("another error") };
    error.to_string()
}

fn holds(archive: &[u8], text: &str) -> bool {
    archive.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn without_the_program_the_way_out_is_told() {
    let tree = tree(BUILTIN, DEP);
    let text = refusal(&tree, RootOn::Squashfs, false);
    assert!(text.contains("squashfs not built in") && text.contains("pkg/init"), "{text}");
    let built_in = self::tree("kernel/fs/squashfs.ko\n", DEP);
    assert!(refusal(&built_in, RootOn::Squashfs, false).contains("a disk driver not built in"));
    let none = Tree::new(0);
    assert!(refusal(&none, RootOn::Squashfs, true).contains("--verity"));
}

#[test]
fn a_kernel_without_the_driver_at_all_is_refused() {
    let tree = with_program(tree("", DEP));
    assert!(refusal(&tree, RootOn::Iso, false).contains("no driver for isofs"));
    let no_disk = with_program(self::tree("", "kernel/fs/squashfs.ko:\n"));
    assert!(refusal(&no_disk, RootOn::Squashfs, false).contains("no driver for any disk"));
    let no_verity = with_program(self::tree(BUILTIN, "kernel/fs/squashfs.ko:\n"));
    assert!(refusal(&no_verity, RootOn::Squashfs, true).contains("no driver for dm-verity"));
}

#[test]
fn a_module_that_is_damaged_or_missing_is_named() {
    let mut damaged = with_program(tree(BUILTIN, DEP));
    add(&mut damaged, &format!("{VERSION}/kernel/virtio/virtio-pci.ko.xz"), "no xz");
    assert!(refusal(&damaged, RootOn::Squashfs, false).contains("virtio-pci.ko.xz"));
    let lost = with_program(tree(BUILTIN, "kernel/fs/squashfs.ko: kernel/gone/x.ko\nkernel/gone/x.ko:\n"));
    assert!(refusal(&lost, RootOn::Squashfs, false).contains("gone/x.ko"));
}

#[test]
fn modules_of_several_kernels_are_told_apart_by_the_kernel_that_boots() {
    let mut tree = with_program(tree(BUILTIN, DEP));
    put(&mut tree, "lib/modules/6.2-y", 0o755, Kind::directory()).unwrap();
    assert!(refusal(&tree, RootOn::Squashfs, false).contains("6.1-x, 6.2-y"));
    let mut kernel = vec![0; 0x400];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
    kernel[0x300..0x30c].copy_from_slice(b"6.1-x (me) #");
    add(&mut tree, KERNEL, kernel);
    assert!(initrd(&tree, RootOn::Squashfs, false).unwrap().is_some());
}

const KERNEL: &str = crate::tree::KERNEL_PATH;

#[test]
fn what_is_built_in_needs_no_initrd() {
    let all = "kernel/fs/squashfs.ko\nkernel/drivers/block/virtio_blk.ko\n";
    for tree in [Tree::new(0), tree(all, ""), with_program(tree(all, "")), with_program(Tree::new(0))] {
        assert_eq!(initrd(&tree, RootOn::Squashfs, false).unwrap(), None);
    }
    // A disk that is a module may be the one, if somebody can load it.
    assert!(initrd(&tree(all, DEP), RootOn::Squashfs, false).unwrap().is_none());
    assert!(initrd(&with_program(tree("kernel/fs/squashfs.ko\n", DEP)), RootOn::Squashfs, false).unwrap().is_some());
    // The root hash is looked at by the program alone.
    let archive = initrd(&with_program(Tree::new(0)), RootOn::Squashfs, true).unwrap().unwrap();
    assert!(holds(&archive, "PROGRAM"));
}

#[test]
fn modules_come_unpacked_and_behind_what_they_need() {
    let archive = initrd(&with_program(tree(BUILTIN, DEP)), RootOn::Erofs, true).unwrap().unwrap();
    let list = "always /lib/modules/fast.ko\nalways /lib/modules/dm_mod.ko\nalways /lib/modules/dm_verity.ko\n\
                always /lib/modules/libcrc32c.ko\nalways /lib/modules/erofs.ko\ndisk /lib/modules/virtio.ko\n\
                disk /lib/modules/virtio_pci.ko\ndisk /lib/modules/virtio_blk.ko\n";
    assert!(holds(&archive, list), "{}", String::from_utf8_lossy(&archive));
    for module in ["fs/erofs.ko.gz", "virtio/virtio-pci.ko.xz", "virtio/virtio.ko.zst", "md/dm-verity.ko"] {
        assert!(holds(&archive, &format!("module kernel/{module}")), "{module}");
    }
    assert!(!holds(&archive, "squashfs"));
}

#[test]
fn the_command_line_says_what_it_does_not_say_yet() {
    let check = |own: &str, roothash: Option<&str>, expected: &str| {
        let mut tree = Tree::new(0);
        add(&mut tree, CMDLINE_PATH, own);
        let words = RootWords { device: "/dev/vda", roothash };
        let made = with(&tree, false, |material| cmdline(material, RootOn::Squashfs, words)).unwrap();
        assert_eq!(String::from_utf8(made).unwrap(), expected, "{own}");
    };
    check("", None, "root=/dev/vda rootfstype=squashfs ro");
    check("quiet x=\"root=1 ro\"\n", None, "quiet x=\"root=1 ro\" root=/dev/vda rootfstype=squashfs ro");
    check("root=LABEL=x rw", Some("ab"), "root=LABEL=x rw roothash=ab");
    check("roothash=cd rootfstype=erofs", Some("ab"), "roothash=cd rootfstype=erofs root=/dev/vda ro");
    let mut tree = Tree::new(0);
    for bad in [&b"a\nb"[..], b"a\0", &vec![b'x'; 1 << 17]] {
        add(&mut tree, CMDLINE_PATH, bad);
        let words = RootWords { device: "/dev/vda", roothash: None };
        assert!(with(&tree, false, |material| cmdline(material, RootOn::Iso, words)).is_err());
    }
}
