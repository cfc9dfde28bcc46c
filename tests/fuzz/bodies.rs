//! What is done with bytes that nobody can trust. Each takes any bytes and neither panics, hangs nor needs much memory. The
//! targets of cargo-fuzz and the tests share them.

pub mod disk;
pub mod guest;
pub mod net;
pub mod share;
pub mod vsock;

use std::fs;
use std::path::{Path, PathBuf};

use kiln_build::cache::Cache;
use kiln_build::cancel::Cancel;
use kiln_build::config::{self, Config, ContainerOptions, MetadataFormat, Source};
use kiln_build::format::{Material, Options, Packing, Part, StreamSink, Threads, Watch};
use kiln_build::layer::{Archive, LayerLimits, Unpacking};
use kiln_build::oci::{Digest, Layer, Platform, Reference, Store};
use kiln_build::package::Recipe;
use kiln_build::progress::Silent;
use kiln_build::tree::Tree;

/// What is fed.
pub type Body = fn(&[u8]);

/// What there is to feed, by name.
pub const TARGETS: &[(&str, Body)] = &[
    ("yaml", yaml),
    ("layer", layer),
    ("oci", oci),
    ("recipe", recipe),
    ("qcow2", disk::qcow2),
    ("guest-dhcp", guest::dhcp),
    ("guest-metadata", guest::metadata),
    ("net-frame", net::frame),
    ("net-dhcp", net::dhcp),
    ("net-link", net::link),
    ("net-names", net::names),
    ("net-stack", net::stack),
    ("share", share::requests),
    ("vsock", vsock::packets),
];

/// Small enough that a blow-up shows, large enough for every seed.
const LIMITS: LayerLimits =
    LayerLimits { content_bytes: 4 << 20, ratio: 200, content_slack_bytes: 4 << 20, metadata_bytes: 1 << 20 };

/// A configuration, the label of an image, and the metadata of what was read.
pub fn yaml(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let source = || Source { name: "x.yml", text: &text };
    let mut packages =
        |folder: &str| if folder.len() > 9 { Err("no such folder".into()) } else { Ok(folder.to_owned()) };
    let _refused = config::parse_label(&text, "image");
    let _refused = config::decode::<ContainerOptions>(source());
    let Ok(config) = config::parse(source(), &mut packages) else { return };
    let check = |config: &Config| {
        for format in [MetadataFormat::Json, MetadataFormat::Yaml] {
            let text = config.metadata(format, str::to_owned).expect("what was read can be written");
            assert!(!text.is_empty());
        }
        config.image_references().iter().for_each(|used| drop(used.place.to_string()));
    };
    check(&config);
    if let Ok(twice) = config::merge([config.clone(), config]) {
        check(&twice);
    }
}

/// A `build.yml`.
pub fn recipe(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(recipe) = config::decode::<Recipe>(Source { name: "build.yml", text: &text }) {
        assert!(!recipe.org().is_empty() || recipe.org.is_some());
    }
}

/// A layer, as its blob is and with the checksums of its headers put right: two times over one another, to a tar and to
/// an initrd. What kiln writes it reads.
pub fn layer(data: &[u8]) {
    for blob in [data.to_vec(), with_checksums(data)] {
        let Some(archive) = unpack(&blob) else { continue };
        let mut tree = Tree::new(7);
        for _ in 0..2 {
            if archive.apply(&mut tree).is_err() {
                return;
            }
        }
        let written = |part: Part| {
            let mut sink = StreamSink(Vec::new());
            let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: &scratch() };
            let packing = Packing { threads: Threads::new(2), cache: &Cache::none() };
            let options = Options::default();
            part.write(&Material::new(&tree, &options, packing), &mut sink, watch).map(|()| sink.0)
        };
        let _too_large = written(Part::Initrd);
        let tar = written(Part::Tar).expect("any tree is a tar");
        let mut back = Tree::new(7);
        let Some(archive) = unpack(&tar) else { return assert!(tar.len() > 3 << 20, "kiln's tar is refused") };
        archive.extract(&mut back).expect("kiln's tar can be extracted");
        let names = |tree: &Tree| -> Vec<_> {
            let line = |(path, id)| (path, tree.node(id).attributes.clone(), tree.link_counts().of(id));
            tree.walk().skip(1).take(500).map(line).collect()
        };
        assert_eq!(names(&back), names(&tree));
    }
}

fn unpack(blob: &[u8]) -> Option<Archive> {
    let digest = Digest::from_bytes([0; 32]);
    let layer = Layer { digest, size_bytes: blob.len() as u64, media_type: String::new() };
    let (folder, cache, cancel) = (scratch(), Cache::none(), Cancel::default());
    let unpacking = Unpacking { folder: &folder, cache: &cache, limits: &LIMITS, cancel: &cancel, meter: &Silent };
    Archive::unpack_layer(&layer, blob, &unpacking).ok()
}

fn with_checksums(data: &[u8]) -> Vec<u8> {
    let mut blob = data.to_vec();
    for block in blob.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    blob
}

/// An index, a manifest, a configuration, and the list of a store.
pub fn oci(data: &[u8]) {
    let folder = scratch().join(format!("kiln-fuzz-{}-{:?}", std::process::id(), std::thread::current().id()));
    let store = Store::open(&folder).expect("the scratch folder is writable");
    let reference: Reference = "example.test/a:1".parse().expect("a reference");
    let platform = Platform::linux("amd64");
    let put = |name: &Path, bytes: &[u8]| fs::write(name, bytes).expect("the scratch folder is writable");
    let blob = |bytes: &[u8]| -> Digest {
        use sha2::Digest as _;
        let digest = Digest::from_bytes(sha2::Sha256::digest(bytes).into());
        put(&folder.join("blobs/sha256").join(digest.hex()), bytes);
        digest
    };
    let digest = blob(data);
    let _refused = store.resolve(&reference, digest, &platform);
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":{}}},"layers":[]}}"#,
        data.len()
    );
    let digest = blob(manifest.as_bytes());
    let _refused = store.resolve(&reference, digest, &platform);
    put(&folder.join("index.json"), data);
    if let Ok(store) = Store::open(&folder) {
        let _refused = store.find(&reference, &platform);
    }
    fs::remove_dir_all(&folder).expect("the scratch folder is writable");
}

/// Memory if there is any to write to.
fn scratch() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}
