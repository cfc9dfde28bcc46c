use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use super::super::{FileSink, Options, Packing, Threads};
use super::*;
use crate::cache::Cache;
use crate::cancel::Cancel;
use crate::progress::Silent;
use crate::tree::Attributes;

const TIME_S: i64 = 1_500_000_000;

fn path(text: &str) -> TreePath {
    TreePath::from_user(text).unwrap()
}

fn put(tree: &mut Tree, name: &str, mode: u32, kind: Kind) {
    tree.put(&path(name), Attributes::of_root(mode, TIME_S), kind).unwrap();
}

fn try_write(tree: &Tree, to: &Path) -> Result<(), FormatError> {
    let folder = std::env::temp_dir();
    let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: &folder };
    let mut sink = FileSink::new(fs::File::create(to).unwrap());
    let options = Options::default();
    let packing = Packing { threads: Threads::new(2), cache: &Cache::none() };
    write(&Material::new(tree, &options, packing), &mut sink, watch)?;
    sink.finish()?;
    Ok(())
}

/// What a real tool says to an image.
fn told(program: &str, arguments: &[&str], image: &Path) -> String {
    let output = Command::new(program).args(arguments).arg(image).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let all = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {all}");
    assert!(!all.contains("<E>") && !all.contains("<W>"), "{program} {arguments:?}: {all}");
    all
}

#[test]
fn first() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("x.img");
    let mut tree = Tree::new(TIME_S);
    put(&mut tree, "boot/kernel", 0o644, Kind::file("KERNEL"));
    put(&mut tree, "bin/small", 0o755, Kind::file("small"));
    put(&mut tree, "bin/large", 0o755, Kind::file(vec![b'l'; 10_000]));
    put(&mut tree, "bin/block", 0o755, Kind::file(vec![b'l'; 8192]));
    put(&mut tree, "bin/tail", 0o755, Kind::file(vec![b'l'; 4095]));
    put(&mut tree, "lib", 0o777, Kind::Symlink(b"usr/lib"[..].into()));
    for n in 0..1000 {
        put(&mut tree, &format!("many/-{n}"), 0o755, Kind::file(format!("{n}")));
    }
    try_write(&tree, &image).unwrap();
    let out = folder.path().join("out");
    println!("{}", told("fsck.erofs", &[&format!("--extract={}", out.display())], &image));
    println!("{}", told("dump.erofs", &["-s"], &image));
    println!("{}", told("dump.erofs", &["--path=/many", "--ls"], &image));
    assert_eq!(fs::read(out.join("bin/large")).unwrap(), vec![b'l'; 10_000]);
    assert_eq!(fs::read_dir(out.join("many")).unwrap().count(), 1000);
}

#[test]
fn a_short_tail_that_is_in_a_spool_stands_between_others() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::create(folder.path()).unwrap();
    let content: Vec<u8> = (0..20_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    spool.file().write_all(&content).unwrap();
    let spool = Arc::new(spool);
    let mut tree = Tree::new(TIME_S);
    for len in [1, 4097, 31, 8193, 32, 33, 4096 + 31] {
        let body = Body::Spooled { spool: spool.clone(), start: len, len };
        put(&mut tree, &format!("{len}"), 0o644, Kind::File(body));
    }
    let image = folder.path().join("x.img");
    try_write(&tree, &image).unwrap();
    let out = folder.path().join("out");
    told("fsck.erofs", &[&format!("--extract={}", out.display())], &image);
    for len in [1, 4097, 31, 8193, 32, 33, 4096 + 31] {
        assert!(fs::read(out.join(len.to_string())).unwrap() == content[len..2 * len], "{len}");
    }
}
