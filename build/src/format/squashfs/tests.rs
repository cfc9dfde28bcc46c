use std::fs::File;
use std::path::Path;
use std::process::Command;

use super::super::{FileSink, Options, Packing, Threads};
use super::*;
use crate::cache::Cache;
use crate::cancel::Cancel;
use crate::progress::Silent;
use crate::tree::{Attributes as NodeAttributes, Kind, Tree, TreePath};

fn path(text: &str) -> TreePath {
    TreePath::from_user(text).unwrap()
}

fn put(tree: &mut Tree, name: &str, mode: u32, kind: Kind) {
    tree.put(&path(name), NodeAttributes::of_root(mode, 1_500_000_000), kind).unwrap();
}

fn try_write(tree: &Tree, squashfs: &str, threads: usize, to: &Path) -> Result<(), FormatError> {
    let squashfs = squashfs.parse().unwrap();
    let options = Options { squashfs, ..Options::default() };
    let cache = Cache::none();
    let packing = Packing { threads: Threads::new(threads), cache: &cache };
    let folder = std::env::temp_dir();
    let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: &folder };
    let mut sink = FileSink::new(File::create(to).unwrap());
    write(&Material::new(tree, &options, packing), &mut sink, watch)?;
    sink.finish()?;
    Ok(())
}

fn told(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .env("TZ", "UTC")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let all = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {all}");
    all
}

#[test]
fn what_every_compressor_packed_is_unpacked_by_unsquashfs() {
    let folder = tempfile::tempdir().unwrap();
    let mut tree = Tree::new(1_400_000_000);
    put(&mut tree, "bin/a", 0o755, Kind::file("hello"));
    put(&mut tree, "bin/big", 0o755, Kind::file(vec![b'x'; 300_000]));
    put(&mut tree, "bin/zero", 0o4755, Kind::file(vec![0; 600_000]));
    tree.link(&path("usr/link"), &path("bin/a")).unwrap();
    put(&mut tree, "boot/kernel", 0o755, Kind::file("kernel"));
    let image = folder.path().join("x.img");
    for squashfs in ["gzip", "gzip:1", "zstd", "zstd:3,block=4K", "xz", "lz4,block=1M", "none"] {
        try_write(&tree, squashfs, 2, &image).unwrap();
        let list = told("unsquashfs", &["-lln", image.to_str().unwrap()]);
        let lines: Vec<_> = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert!(lines.iter().any(|line| line == "-rwsr-xr-x 0/0 600000 2017-07-14 02:40 squashfs-root/bin/zero"));
        assert_eq!(lines.len(), 8, "{squashfs}: {list}");
        let out = folder.path().join("out");
        told("unsquashfs", &["-q", "-n", "-f", "-d", out.to_str().unwrap(), image.to_str().unwrap()]);
        assert!(std::fs::read(out.join("usr/link")).unwrap() == b"hello");
        assert!(std::fs::read(out.join("bin/big")).unwrap() == [b'x'; 300_000]);
        assert!(std::fs::read(out.join("bin/zero")).unwrap() == [0; 600_000]);
        assert_eq!(std::fs::read_dir(out.join("boot")).unwrap().count(), 0);
        std::fs::remove_dir_all(out).unwrap();
    }
}
