use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;

use super::super::check_tables;
use super::*;

const KIB: u64 = 1024;

/// QEMU's tools, in a folder of their own.
struct Qemu(TempDir);

impl Qemu {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    #[track_caller]
    fn run(&self, program: &str, words: &[&str]) {
        let output = Command::new(program).args(words).current_dir(&self.0).output().expect("qemu-utils is installed");
        assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn img(&self, words: &str) {
        self.run("qemu-img", &words.split(' ').collect::<Vec<_>>());
    }

    /// Each of the commands, in one run.
    fn io(&self, name: &str, commands: &[&str]) {
        let commands = commands.iter().flat_map(|command| ["-c", command]);
        self.run("qemu-io", &["-f", "qcow2", name].into_iter().chain(commands).collect::<Vec<_>>());
    }

    fn image(&self, name: &str) -> Image {
        Image(File::options().read(true).write(true).open(self.0.path().join(name)).unwrap())
    }

    /// Two pieces of data, in clusters of 4 KiB: L2 tables are for 2 MiB each.
    fn sample(&self, name: &str) -> Image {
        self.img(&format!("create -q -f qcow2 -o cluster_size=4k {name} 8M"));
        self.io(name, &["write -P 1 0 8k", "write -P 2 4M 4k"]);
        self.image(name)
    }
}

struct Image(File);

impl Image {
    fn file(&self) -> HostFile {
        HostFile::cached(self.0.try_clone().unwrap())
    }

    fn check(&self) -> Result<(), String> {
        check_tables(&self.file()).map_err(|error| error.to_string())
    }

    fn get(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, at).unwrap();
        u64::from_be_bytes(bytes)
    }

    fn put(&self, at: u64, value: u64) {
        self.0.write_all_at(&value.to_be_bytes(), at).unwrap();
    }

    fn tables(&self) -> Tables {
        super::super::header::Qcow2Header::read_with_tables(&self.file()).unwrap().1
    }

    /// Where the entry of the L1 table for the guest's first bytes is, and that of the L2 table.
    fn entries(&self) -> (u64, u64) {
        let first = self.tables().first.offset;
        (first, self.get(first) & OFFSET_BITS)
    }

    /// Sets a count of the usual 16 bits, of a cluster that the first block has.
    fn count(&self, offset: u64, count: u16) {
        let tables = self.tables();
        let block = self.get(tables.counts.offset);
        self.0.write_all_at(&count.to_be_bytes(), block + 2 * (offset >> tables.cluster_bits)).unwrap();
    }
}

type Lie = fn(&Image);

/// What is made of a good image, and what is said of that; nothing if it is no harm.
const LIES: [(Lie, &str); 22] = [
    (|it| it.count(0, 0), "the header (at 0x0 of the file) is in a cluster that is counted as free"),
    (|it| it.count(it.tables().first.offset, 0), "the L1 table (at 0x3000 of the file) is in a cluster that is"),
    (|it| it.count(it.tables().counts.offset, 0), "the refcount table (at 0x1000 of the file) is in a cluster that"),
    (|it| it.count(it.get(it.tables().counts.offset), 0), "refcount block 0 (at 0x2000 of the file) is in a cluster"),
    (|it| it.count(it.entries().1, 0), "the L2 table for offset 0x0 of the disk (at 0x4000 of the file) is in a cl"),
    (|it| it.count(it.get(it.entries().1 + 8) & OFFSET_BITS, 0), "the data for offset 0x1000 of the disk (at 0x6000"),
    (|it| it.put(it.tables().counts.offset, 0), "counted as free"),
    (|it| it.put(it.tables().counts.offset, 0x2001), "refcount block 0 (at 0x2000 of the file) is pointed to with bi"),
    (|it| it.put(it.tables().counts.offset, 0x2200), "is not at the start of a cluster"),
    (|it| it.put(it.tables().counts.offset, 1 << 40), "refcount block 0 (at 0x10000000000 of the file) is behind the"),
    (|it| it.put(it.tables().counts.offset, 0x1000), "refcount block 0 (at 0x1000 of the file) is in a cluster that h"),
    (|it| it.put(it.tables().counts.offset + 8, 0x2000), "refcount block 1 (at 0x2000 of the file) is in a cluster t"),
    (|it| it.put(it.entries().0, 0x4001), "the L2 table for offset 0x0 of the disk (at 0x4000 of the file) is poin"),
    (|it| it.put(it.entries().0, 0x4200), "is not at the start of a cluster"),
    (|it| it.put(it.entries().0, COPIED | 0x2000), "the L2 table for offset 0x0 of the disk (at 0x2000 of the file"),
    (|it| it.put(it.entries().0 + 8, it.get(it.entries().0)), "the L2 table for offset 0x200000 of the disk (at 0x40"),
    (|it| it.put(it.entries().1, COPIED), ""),
    (|it| it.put(it.entries().1, 2 | it.get(it.entries().1)), "the data for offset 0x0 of the disk (at 0x5000 of the"),
    (|it| it.put(it.entries().1, 0x3000), "the data for offset 0x0 of the disk (at 0x3000 of the file) is in a clu"),
    (|it| it.put(it.entries().1, COPIED | 0x6000), "the data for offset 0x1000 of the disk (at 0x6000 of the file)"),
    (|it| it.put(it.entries().1, COPIED | (1 << 50)), "is behind the end of the file"),
    (|it| it.put(it.entries().1, COMPRESSED | 0x5000), ""),
];

#[test]
fn an_image_whose_tables_lie_is_refused_with_whose_lie_it_is() {
    let qemu = Qemu::new();
    for (number, (lie, wanted)) in LIES.into_iter().enumerate() {
        let image = qemu.sample(&number.to_string());
        assert_eq!(image.check(), Ok(()));
        lie(&image);
        match image.check() {
            Ok(()) => assert!(wanted.is_empty(), "{number}: {wanted}"),
            Err(error) => assert!(!wanted.is_empty() && error.contains(wanted), "{number}: {error}"),
        }
    }
}

#[test]
fn compressed_data_shares_clusters_and_is_never_written_in_place() {
    let qemu = Qemu::new();
    std::fs::write(qemu.0.path().join("text"), b"abc".repeat(700_000)).unwrap();
    qemu.img("convert -c -f raw -O qcow2 text packed");
    let image = qemu.image("packed");
    assert_eq!(image.check(), Ok(()));
    let (_, second) = image.entries();
    let entry = image.get(second);
    image.put(second, entry | COPIED);
    assert!(image.check().unwrap_err().contains("the data for offset 0x0 of the disk"));
    image.put(second, entry);
    // All data is in one cluster, for as many as there are.
    let users = 2_100_000_u64.div_ceil(64 * KIB);
    image.count(entry & 0xffff_0000, u16::try_from(users - 1).unwrap());
    let error = image.check().unwrap_err();
    assert!(error.contains(&format!("has {users} users and is counted for {}", users - 1)), "{error}");
}

#[test]
fn what_qemu_makes_is_taken() {
    let qemu = Qemu::new();
    std::fs::write(qemu.0.path().join("text"), (0..400_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>())
        .unwrap();
    for options in [
        "compat=0.10",
        "compat=0.10,cluster_size=512",
        "cluster_size=512",
        "cluster_size=512,refcount_bits=64",
        "cluster_size=2M",
        "cluster_size=4k,refcount_bits=1",
        "cluster_size=4k,refcount_bits=2",
        "cluster_size=4k,refcount_bits=4",
        "cluster_size=4k,refcount_bits=8",
        "lazy_refcounts=on",
        "preallocation=metadata",
        "preallocation=falloc",
    ] {
        qemu.img(&format!("convert -f raw -O qcow2 -o {options} text full"));
        assert_eq!(qemu.image("full").check(), Ok(()), "{options}");
        qemu.img(&format!("create -q -f qcow2 -o {options} empty 64M"));
        assert_eq!(qemu.image("empty").check(), Ok(()), "{options}");
        qemu.io(
            "empty",
            &["write 1M 3M", "write -z 2M 64k", "discard 3M 512k", "write -z -u 3584k 512k", "write 60M 4k"],
        );
        assert_eq!(qemu.image("empty").check(), Ok(()), "{options}");
    }
    qemu.img("create -q -f qcow2 -b full -F qcow2 top 70M");
    qemu.io("top", &["write 5k 70k"]);
    qemu.img("resize -q top 4G");
    assert_eq!(qemu.image("top").check(), Ok(()));
}

#[test]
fn snapshots_share_what_they_hold_and_are_counted() {
    let qemu = Qemu::new();
    drop(qemu.sample("image"));
    qemu.img("snapshot -c one image");
    qemu.io("image", &["write -P 3 4k 4k", "write -P 4 6M 4k"]);
    qemu.img("snapshot -c two image");
    qemu.img("snapshot -c three image");
    qemu.io("image", &["write -P 5 4M 8k"]);
    qemu.img("snapshot -d two image");
    qemu.img("bitmap --add image changes");
    let image = qemu.image("image");
    assert_eq!(image.check(), Ok(()));
    // Data that the snapshots have too, as if it were the guest's alone.
    let (_, second) = image.entries();
    let entry = image.get(second);
    assert!(entry & COPIED == 0, "the snapshots have it too");
    image.put(second, entry | COPIED);
    assert!(image.check().unwrap_err().contains("the data for offset 0x0 of the disk"));
    image.put(second, entry);
    image.count(entry, 2);
    let error = image.check().unwrap_err();
    assert!(error.contains("has 3 users and is counted for 2"), "{error}");
    image.count(entry, 3);
    let snapshots = image.tables().snapshots_offset;
    let first = image.get(snapshots);
    for (at, value, wanted) in [
        (snapshots, image.tables().first.offset, "in snapshot 1 (at "),
        (snapshots, first + 8, "the L1 table in snapshot 1"),
        (snapshots + 8, u64::MAX, "snapshots that is too long"),
        (64, snapshots + 512, "the snapshot table (at "),
        (64, 1 << 50, "the snapshot table (at "),
        (64, image.tables().counts.offset, "the snapshot table (at "),
        (60, u64::MAX, "more snapshots than"),
    ] {
        let before = image.get(at);
        image.put(at, value);
        let error = image.check().unwrap_err();
        assert!(error.contains(wanted), "{wanted}: {error}");
        image.put(at, before);
        assert_eq!(image.check(), Ok(()));
    }
}

#[test]
fn clusters_that_nobody_uses_are_no_fault() {
    let qemu = Qemu::new();
    let image = qemu.sample("image");
    let (first, second) = image.entries();
    image.put(second, 0);
    image.count(image.get(second + 8) & OFFSET_BITS, 7);
    image.put(first + 16, 0);
    assert_eq!(image.check(), Ok(()));
}

#[test]
fn a_file_that_is_long_and_empty_is_looked_through_soon() {
    let qemu = Qemu::new();
    let image = qemu.sample("image");
    // A GiB of holes, which the L1 table says to be L2 tables.
    qemu.img("create -q -f qcow2 -o cluster_size=64k long 8T");
    let long = qemu.image("long");
    long.0.set_len(1 << 42).unwrap();
    let tables = long.tables();
    for entry in 0..tables.first.entries {
        long.put(tables.first.offset + entry * 8, (1 << 36) + (entry << 16));
    }
    let start = Instant::now();
    assert!(long.check().unwrap_err().contains("counted as free"));
    // It takes a second; how long is only looked at so that a loop without end is told of.
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
    image.0.set_len((MAX_CLUSTERS + 1) << 12).unwrap();
    assert!(image.check().unwrap_err().contains("more than 134217728 clusters"));
}
