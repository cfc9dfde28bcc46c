use std::fs;
use std::io::Write;
use std::sync::Mutex;

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::progress::{Meter, Silent};

/// Type flag, name, mode, link name or content.
type Entry<'a> = (u8, &'a str, u32, &'a [u8]);

fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for &(flag, name, mode, text) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::new(flag));
        header.set_mode(mode);
        header.set_mtime(1_500_000_000);
        header.set_size(if flag == b'0' { text.len() as u64 } else { 0 });
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        if matches!(flag, b'1' | b'2') {
            header.set_link_name_literal(text).unwrap();
        }
        header.set_cksum();
        builder.append(&header, if flag == b'0' { text } else { &[] }).unwrap();
    }
    builder.into_inner().unwrap()
}

struct Lab {
    folder: TempDir,
}

impl Lab {
    /// A store with a kernel, two init images and two for containers, and an empty folder for outputs.
    fn new() -> Self {
        let lab = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(lab.path("store")).unwrap();
        let modules = tar(&[(b'0', "lib/modules/6.1/a.ko", 0o644, b"module")]);
        lab.image(
            "kernel:1",
            &[&[
                (b'0', "boot/vmlinuz-6.1", 0o755, b"KERNEL"),
                (b'1', "kernel", 0o755, b"boot/vmlinuz-6.1"),
                (b'0', "kernel.tar", 0o644, &modules),
                (b'0', "ucode.cpio", 0o600, b"UCODE"),
            ]],
        );
        lab.image(
            "init:1",
            &[&[
                (b'5', "etc", 0o700, b""),
                (b'0', "etc/hosts", 0o600, b"own hosts"),
                (b'0', "etc/resolv.conf", 0o644, b"own"),
                (b'0', "etc/hostname", 0o644, b"builder"),
                (b'0', ".dockerenv", 0o644, b""),
                (b'2', "lib", 0o777, b"usr/lib"),
                (b'0', "usr/lib/apk/db/installed", 0o644, b"A"),
                (b'0', "init", 0o755, b"init"),
            ]],
        );
        lab.image("more:1", &[&[(b'0', "lib/apk/db/installed", 0o644, b"B"), (b'5', "dev/shm", 0o1777, b"")]]);
        lab.image(
            "app:1",
            &[
                &[(b'0', "bin/app", 0o755, b"app"), (b'0', "bin/old", 0o755, b"old"), (b'5', "etc", 0o750, b"")],
                &[(b'0', "bin/.wh.old", 0o644, b"")],
            ],
        );
        lab.image("data:1", &[&[(b'0', "data", 0o644, b"data")]]);
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn image(&self, name: &str, layers: &[&[Entry<'_>]]) {
        let store = Store::open(&self.path("store")).unwrap();
        let layer = |entries: &&[Entry<'_>]| {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packer.write_all(&tar(entries)).unwrap();
            let blob = packer.finish().unwrap();
            let media_type = "application/vnd.oci.image.layer.v1.tar+gzip".into();
            Layer { digest: store.put_blob(&blob).unwrap(), size_bytes: blob.len() as u64, media_type }
        };
        let config = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/app"]},
            "rootfs": {"type": "layers", "diff_ids": []}});
        let reference = format!("example.test/{name}").parse().unwrap();
        let layers = layers.iter().map(layer).collect();
        store.put_image(&reference, &Platform::linux("amd64"), config.to_string().as_bytes(), layers).unwrap();
    }

    fn request(&self, yaml: &str, formats: &[Format]) -> BuildRequest<'static> {
        BuildRequest {
            sources: vec![YamlSource { name: "x.yml".into(), text: yaml.into(), folder: None }],
            destination: Destination::Folder { folder: self.path("out"), name: "x".into() },
            formats: formats.to_vec(),
            architecture: "amd64".into(),
            store: self.path("store"),
            working_folder: self.path(""),
            home_folder: Some(self.path("home")),
            source_date_s: DEFAULT_SOURCE_DATE_S,
            cancel: Cancel::default(),
            pull: PullOptions { pull: Pull::Never, ..PullOptions::default() },
            packages: None,
            yaml: ReadOptions::default(),
            compat: Compat::Right,
            decompress_kernel: false,
            input_tar: None,
            disk_bytes: 1 << 30,
            erofs: ErofsCompression::default(),
            disk_root: None,
            verity: false,
            secure_boot: None,
            squashfs: SquashfsOptions::default(),
            sbom: None,
        }
    }

    /// `MODE NAME` of all members of the tar, with what they hold: `=content`, `>target`, `@` and the first name.
    fn tar_listing(&self) -> Vec<String> {
        let mut archive = tar::Archive::new(fs::File::open(self.path("out/x.tar")).unwrap());
        let line = |entry: io::Result<tar::Entry<'_, fs::File>>| {
            let mut entry = entry.unwrap();
            let mode = entry.header().mode().unwrap();
            let name = entry.path().unwrap().display().to_string();
            let link = entry.link_name().unwrap().map(|name| name.display().to_string()).unwrap_or_default();
            let mut text = String::new();
            io::Read::read_to_string(&mut entry, &mut text).unwrap();
            match entry.header().entry_type() {
                tar::EntryType::Directory => format!("{mode:o} {name}"),
                tar::EntryType::Symlink => format!("{name}>{link}"),
                tar::EntryType::Link => format!("{name}@{link}"),
                _ => format!("{mode:o} {name}={text}"),
            }
        };
        archive.entries().unwrap().map(line).collect()
    }

    fn outputs(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("out")) else { return Vec::new() };
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn chain(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", chain(source)))
}

const WHOLE: &str = "
kernel: {image: 'example.test/kernel:1', cmdline: console=ttyS0, ucode: ucode.cpio}
init: ['example.test/init:1', 'example.test/more:1']
onboot:
  - {name: first, image: 'example.test/app:1'}
  - {name: again, image: 'example.test/app:1', readonly: true}
services:
  - {name: serve, image: 'example.test/data:1', readonly: true}
volumes:
  - {name: blank}
  - {name: filled, image: 'example.test/data:1'}
files:
  - {path: etc/motd, contents: hello, mode: '0644'}
  - {path: new/folder/file, source: host.txt}
  - {path: gone, source: none.txt, optional: true}
  - {path: run/link, symlink: /target}
  - {path: etc/kiln.yml, metadata: yaml}
";

#[test]
fn everything_has_its_place_in_the_tree() {
    let lab = Lab::new();
    fs::write(lab.path("host.txt"), "from host").unwrap();
    let built = build(&lab.request(WHOLE, &[Format::Tar]), &Silent).unwrap();
    assert_eq!((built.files, built.up_to_date), (vec![lab.path("out/x.tar")], false));
    let names: Vec<_> = built.phases.iter().map(|phase| phase.name.as_str()).collect();
    assert_eq!(names, ["config", "pin", "check", "unpack", "assemble", "write x.tar", "sync x.tar", "commit"]);
    let listing = lab.tar_listing();
    let has = |line: &str| assert!(listing.iter().any(|listed| listed == line), "no `{line}` in {listing:#?}");
    for line in [
        "755 boot/kernel=KERNEL",
        "644 boot/cmdline=console=ttyS0",
        "600 boot/ucode.cpio=UCODE",
        "lib>usr/lib",
        "644 usr/lib/modules/6.1/a.ko=module",
        "644 usr/lib/apk/db/installed=A\n\nB\n\n",
        "755 init=init",
        "700 etc/",
        "600 etc/hosts=127.0.0.1       localhost\n::1     localhost ip6-localhost ip6-loopback\n\
         fe00::0 ip6-localnet\nff00::0 ip6-mcastprefix\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n",
        "etc/mtab>/proc/mounts",
        "etc/resolv.conf>/run/resolvconf/resolv.conf",
        "1777 dev/shm/",
        "755 dev/pts/",
        "755 proc/",
        "755 containers/onboot/000-first/lower/bin/app=app",
        "750 containers/onboot/000-first/lower/etc/",
        "755 containers/onboot/000-first/lower/dev/shm/",
        "644 containers/onboot/000-first/lower/etc/resolv.conf=\n# no resolv.conf configured\n",
        "755 containers/onboot/000-first/tmp/",
        "755 containers/onboot/000-first/rootfs/",
        "755 containers/onboot/001-again/rootfs/",
        "644 containers/services/serve/rootfs/data=data",
        "755 containers/volumes/blank/lower/",
        "755 containers/volumes/blank/merged/",
        "644 containers/volumes/filled/lower/data=data",
        "755 containers/volumes/filled/tmp/",
        "644 etc/motd=hello",
        "755 new/folder/",
        "600 new/folder/file=from host",
        "run/link>/target",
    ] {
        has(line);
    }
    for absent in [
        "bin/old",
        "001-again/lower",
        "001-again/tmp",
        "serve/tmp",
        "serve/lower",
        "blank/lower/dev",
        "gone",
        ".dockerenv",
        "etc/hostname",
    ] {
        let name = |line: &str| line.split(['=', '>']).next().unwrap_or_default().to_string();
        assert!(!listing.iter().any(|line| name(line).contains(absent)), "`{absent}` is in {listing:#?}");
    }
    for container in ["onboot/000-first", "onboot/001-again", "services/serve"] {
        for file in ["config.json", "runtime.json"] {
            let start = format!("644 containers/{container}/{file}={{");
            assert!(listing.iter().any(|listed| listed.starts_with(&start)), "no {start}");
        }
    }
    assert!(listing.iter().any(|listed| listed.starts_with("600 etc/kiln.yml=") && listed.contains("motd")));
}

#[test]
fn two_stores_in_two_folders_give_the_same_bytes() {
    let both = [Format::KernelInitrd, Format::Tar];
    let build_in = |lab: &Lab| {
        fs::write(lab.path("host.txt"), "from host").unwrap();
        build(&lab.request(WHOLE, &both), &Silent).unwrap();
        lab.outputs().iter().map(|name| (name.clone(), fs::read(lab.path("out").join(name)).unwrap())).collect()
    };
    let one: Vec<_> = build_in(&Lab::new());
    let two: Vec<_> = build_in(&Lab::new());
    assert!(one == two);
    assert_eq!(
        one.iter().map(|(name, _)| &name[..]).collect::<Vec<_>>(),
        ["x-cmdline", "x-initrd.img", "x-kernel", "x.tar"]
    );
}

#[test]
fn a_second_build_writes_only_what_something_changed() {
    let lab = Lab::new();
    fs::write(lab.path("host.txt"), "from host").unwrap();
    let again = |yaml: &str| build(&lab.request(yaml, &[Format::KernelInitrd]), &Silent).unwrap();
    let first = again(WHOLE);
    let second = again(WHOLE);
    assert_eq!((first.up_to_date, second.up_to_date), (false, true));
    let names =
        |built: &Built| -> Vec<_> { built.files.iter().map(|file| file.file_name().unwrap().to_owned()).collect() };
    assert_eq!(names(&first), names(&second));

    fs::write(lab.path("host.txt"), "other host").unwrap();
    assert!(!again(WHOLE).up_to_date, "a source file changed");
    assert!(!again(&WHOLE.replace("hello", "good bye")).up_to_date, "the YAML changed");
    fs::write(lab.path("out/x-cmdline"), "touched").unwrap();
    assert!(!again(&WHOLE.replace("hello", "good bye")).up_to_date, "an output changed");
    assert_eq!(fs::read_to_string(lab.path("out/x-cmdline")).unwrap(), "console=ttyS0");
    lab.image("app:1", &[&[(b'0', "bin/app", 0o755, b"new")]]);
    assert!(!again(&WHOLE.replace("hello", "good bye")).up_to_date, "an image changed");
}

#[test]
fn what_is_wrong_is_named_and_nothing_is_left() {
    let lab = Lab::new();
    lab.image("escape:1", &[&[(b'0', "../evil", 0o644, b"x")]]);
    lab.image("modules:1", &[&[(b'0', "kernel", 0o644, b"K"), (b'0', "kernel.tar", 0o644, &[b'x'; 512])]]);
    for (yaml, parts) in [
        ("init: ['example.test/escape:1']", &["unpack layer sha256:", "member `../evil` is refused", "`..`"][..]),
        ("kernel: {image: 'example.test/data:1'}", &["`example.test/data:1` has no file `kernel`", "`binary:`"]),
        ("kernel: {image: 'example.test/kernel:1', tar: x.tar}", &["no file `x.tar`", "`tar:`"]),
        ("kernel: {image: 'example.test/kernel:1', ucode: u}", &["no file `u`", "`ucode:`"]),
        ("kernel: {image: 'example.test/modules:1'}", &["cannot unpack `kernel.tar`", "`tar: none`", "no tar header"]),
        ("files:\n  - {path: a, source: none}", &["`source: none` is not there", "x.yml:2", "optional: true"]),
        ("files:\n  - {path: a, source: store}", &["cannot read", "x.yml:2"]),
        ("files:\n  - {path: a, contents: x, uid: nobody}", &["`nobody` is no container's name", "x.yml:2"]),
        ("files:\n  - {path: a, contents: x}\n  - {path: a/b, contents: x}", &["add files[1]", "`a` in the path"]),
        (
            "volumes:\n  - {name: v, image: 'example.test/data:1', format: oci, platforms: [linux/riscv64]}",
            &["x.yml:2", "volume[0]", "example.test/data:1", "linux/riscv64"],
        ),
        (
            "volumes:\n  - {name: v, image: 'example.test/data:1', format: oci, platforms: [linux]}",
            &["x.yml:2", "`linux` is no platform"],
        ),
        ("init: ['example.test/none:1']", &["x.yml:1", "example.test/none:1"]),
        ("init: ['@pkg:../init']", &["x.yml:1"]),
    ] {
        let error = build(&lab.request(yaml, &[Format::Tar]), &Silent).unwrap_err();
        let message = chain(&error);
        for part in parts {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
        assert_eq!(lab.outputs(), [""; 0], "{message}");
    }
}

#[test]
fn one_output_is_one_format_that_is_one_file() {
    let lab = Lab::new();
    for formats in [&[Format::KernelInitrd][..], &[Format::Tar, Format::KernelInitrd], &[]] {
        let destination = Destination::File(lab.path("out/any.tar"));
        let yaml = "kernel: {image: 'example.test/kernel:1'}";
        let request = BuildRequest { destination, ..lab.request(yaml, formats) };
        assert!(matches!(build(&request, &Silent), Err(BuildError::NotOneFile)), "{formats:?}");
        assert_eq!(lab.outputs(), [""; 0]);
    }
    let request = BuildRequest {
        destination: Destination::File(lab.path("out/any")),
        ..lab.request("init: ['example.test/data:1']", &[Format::Tar])
    };
    assert_eq!(build(&request, &Silent).unwrap().files, [lab.path("out/any")]);
}

/// Cancels when a certain piece of work makes progress.
struct CancelAt {
    cancel: Cancel,
    piece: &'static str,
}

struct CancelMeter(Option<Cancel>);

impl Progress for CancelAt {
    fn begin(&self, what: &str, _total_bytes: Option<u64>) -> Box<dyn Meter> {
        Box::new(CancelMeter(what.starts_with(self.piece).then(|| self.cancel.clone())))
    }

    fn note(&self, _line: &str) {}
}

impl Meter for CancelMeter {
    fn advance(&self, _bytes: u64) {
        self.0.iter().for_each(Cancel::cancel);
    }
}

#[test]
fn an_interrupted_build_leaves_nothing_and_what_was_there() {
    let lab = Lab::new();
    fs::write(lab.path("host.txt"), "from host").unwrap();
    fs::create_dir(lab.path("out")).unwrap();
    fs::write(lab.path("out/x-kernel"), "old").unwrap();
    for piece in ["unpack layers", "write x-kernel", "write x-initrd.img", "write x-cmdline"] {
        let request = lab.request(WHOLE, &[Format::KernelInitrd]);
        let error = build(&request, &CancelAt { cancel: request.cancel.clone(), piece }).unwrap_err();
        assert!(matches!(error, BuildError::Cancelled(_) | BuildError::Assemble(_)), "{piece}: {error:?}");
        assert!(chain(&error).ends_with("interrupted"), "{piece}: {}", chain(&error));
        assert_eq!(lab.outputs(), ["x-kernel"], "{piece}");
        assert_eq!(fs::read(lab.path("out/x-kernel")).unwrap(), b"old");
    }
    build(&lab.request(WHOLE, &[Format::KernelInitrd]), &Silent).unwrap();
    assert_eq!(lab.outputs(), ["x-cmdline", "x-initrd.img", "x-kernel"]);
}

#[test]
fn a_damaged_layer_is_named_and_got_anew_once() {
    let lab = Lab::new();
    let store = Store::open(&lab.path("store")).unwrap();
    let reference = "example.test/data:1".parse().unwrap();
    let image = store.find(&reference, &Platform::linux("amd64")).unwrap().unwrap();
    let blob = store.blob_path(&image.layers[0].digest);
    let mut bytes = fs::read(&blob).unwrap();
    let good = bytes.clone();
    // A byte of the gzip header that its reader does not look at: only the digest can tell.
    bytes[4] ^= 1;
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, &bytes).unwrap();
    let yaml = "init: ['example.test/data:1']";
    let message = chain(&build(&lab.request(yaml, &[Format::Tar]), &Silent).unwrap_err());
    for part in ["image `example.test/data:1`", "holds other bytes", &image.layers[0].digest.to_string()] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(lab.outputs(), [""; 0]);

    // What can be had again is: the builder of packages stands for a registry, and gives nothing good at first.
    for (gives, is_built) in [([&bytes, &bytes], false), ([&bytes, &good], true)] {
        let asked = Mutex::new(0);
        let resolve = |_: &Path| {
            let mut asked = asked.lock().unwrap();
            let _gone_already = fs::remove_file(&blob);
            fs::write(&blob, gives[*asked]).unwrap();
            *asked += 1;
            Ok("example.test/data:1".to_string())
        };
        let mut request = lab.request("init: ['@pkg:x']", &[Format::Tar]);
        request.pull.pull = Pull::Missing;
        let built = build(&BuildRequest { packages: Some(&resolve), ..request }, &Silent);
        assert_eq!((built.is_ok(), *asked.lock().unwrap()), (is_built, 2));
    }
}

#[test]
fn packages_are_asked_for_relative_to_their_yaml() {
    let lab = Lab::new();
    let asked = Mutex::new(Vec::new());
    let resolve = |folder: &Path| {
        asked.lock().unwrap().push(folder.to_path_buf());
        Ok("example.test/data:1".to_string())
    };
    let mut request = lab.request("init: ['@pkg:../pkg/data']", &[Format::Tar]);
    request.sources[0].folder = Some(lab.path("yaml"));
    build(&BuildRequest { packages: Some(&resolve), ..request }, &Silent).unwrap();
    assert_eq!(*asked.lock().unwrap(), [lab.path("yaml/../pkg/data")]);
    assert!(lab.tar_listing().contains(&"644 data=data".to_string()));
}

#[test]
fn users_are_looked_up_in_the_images_own_list_through_links() {
    let lab = Lab::new();
    lab.image(
        "users:1",
        &[
            &[(b'0', "etc/passwd", 0o644, b"www:x:1:1::/:\n")],
            &[
                (b'0', "usr/share/passwd", 0o644, b"www:x:33:44::/:\n"),
                (b'2', "etc/passwd", 0o777, b"../usr/share/passwd"),
                (b'0', "etc/group", 0o644, b"tty:x:5:www\n"),
            ],
        ],
    );
    let service = |user: &str| format!("services: [{{name: s, image: 'example.test/users:1', user: {user}}}]");
    let error = build(&lab.request(&service("nobody"), &[Format::Tar]), &Silent).unwrap_err();
    let expected = "cannot run image `example.test/users:1`: user `nobody` is not in its /etc/passwd";
    assert!(chain(&error).starts_with(expected), "{}", chain(&error));
    assert_eq!(lab.outputs(), [""; 0]);

    for (user, expected) in
        [("www", json!({"uid": 33, "gid": 44, "additionalGids": [5]})), ("image", json!({"uid": 0, "gid": 0}))]
    {
        build(&lab.request(&service(user), &[Format::Tar]), &Silent).unwrap();
        let listing = lab.tar_listing();
        let document =
            listing.iter().find_map(|line| line.strip_prefix("644 containers/services/s/config.json=")).unwrap();
        let document: serde_json::Value = serde_json::from_str(document).unwrap();
        assert_eq!(document["process"]["user"], expected);
    }
}

#[test]
fn a_bill_of_materials_lies_where_it_was_asked_for_and_replaces_no_folder() {
    let lab = Lab::new();
    fs::write(lab.path("host.txt"), "from host").unwrap();
    let build = |path: &str, created_s: i64| {
        let sbom = Some(SbomRequest { path: path.into(), created_s });
        build(&BuildRequest { sbom, ..lab.request(WHOLE, &[Format::Tar]) }, &Silent)
    };
    for (path, text) in [("../x", "`..`"), ("etc", "folder `etc`"), ("", "folder `.`"), ("init/x", "`init`")] {
        let error = build(path, 0).unwrap_err();
        assert!(chain(&error).contains(text), "{path}: {}", chain(&error));
        assert!(lab.outputs().is_empty());
    }
    build("/some/where.json", 0).unwrap();
    let listing = lab.tar_listing();
    let bill = listing.iter().find_map(|line| line.strip_prefix("644 some/where.json=")).unwrap().to_owned();
    for wanted in ["example.test/kernel:1", "SPDXRef-Image-init-1", "pkg:oci/app@sha256%3A", "1970-01-01T00:00:00Z"] {
        assert!(bill.contains(wanted), "no {wanted} in {bill}");
    }
    assert!(build("/some/where.json", 0).unwrap().up_to_date);
    assert!(!build("/some/where.json", 1).unwrap().up_to_date, "another time is another document");
}
