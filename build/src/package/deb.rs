//! Unpacks Debian packages (`deb(5)`): an `ar` archive whose member `data.tar` holds the files. Their scripts are not run.
//! What a package says of itself is kept in `/var/lib/dpkg/status.d`, where bills of materials and scanners look, and beside
//! it, as `NAME.md5sums`, which of the files here are its.
//!
//! Debian's folders `/bin`, `/sbin` and `/lib*` became links into `/usr`; packages may still use either name. Here they
//! are always links, so that both names lead to the same file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tar::{Archive, Entry, EntryType};

use super::error::{PackageError, io_error};
use super::pattern::covers;
use super::stage::Stage;
use crate::cancel::Cancel;
use crate::tree::{Attributes, Kind, PathFault, TreePath, printable};

/// Folders of the root that are links into `/usr`.
const MERGED: [&[u8]; 7] = [b"bin", b"sbin", b"lib", b"lib32", b"lib64", b"libo32", b"libx32"];
/// No package of Debian is near it: its largest ones have a few GiB.
const UNPACKED_BYTES_MAX: u64 = 32 << 30;
/// More than any level of xz needs.
const XZ_MEMORY_BYTES_MAX: u64 = 256 << 20;
/// The folder of what packages say of themselves, with a `/` behind it.
pub(super) const NOTES: &[u8] = b"var/lib/dpkg/status.d/";
/// Longest description of one package: real ones have a few KiB.
const CONTROL_BYTES_MAX: u64 = 1 << 20;
/// Longest list of one package's files: a kernel's has half a MiB.
const SUMS_BYTES_MAX: u64 = 16 << 20;
/// What a list of files is called behind the package's name.
pub(super) const SUMS: &[u8] = b".md5sums";

/// Which paths are taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selection<'a> {
    /// Everything if empty.
    pub include: &'a [String],
    /// Even if included.
    pub exclude: &'a [String],
}

impl Selection<'_> {
    fn takes(&self, names: &[&TreePath; 2]) -> bool {
        let one_covers = |patterns: &[String]| {
            patterns.iter().any(|pattern| names.iter().any(|name| covers(pattern, name.as_bytes())))
        };
        (self.include.is_empty() || one_covers(self.include)) && !one_covers(self.exclude)
    }
}

/// Unpacks what `selection` takes of the package at `path` into the stage. Returns how many names that were.
pub(super) fn unpack(
    path: &Path,
    selection: Selection<'_>,
    cancel: &Cancel,
    stage: &mut Stage,
) -> Result<usize, PackageError> {
    let damaged = |source: io::Error| PackageError::Deb { path: path.to_owned(), fault: source.to_string() };
    let open = || File::open(path).map(BufReader::new).map_err(|source| io_error("open", path, source));
    let data = member_named("data.tar", open()?).map_err(damaged)?;
    let refuse = |name: &[u8], source: PathFault| PackageError::DebMember {
        path: path.to_owned(),
        member: printable(name).into_owned(),
        source,
    };
    let mut archive = Archive::new(data.take(UNPACKED_BYTES_MAX));
    let mut taken = BTreeSet::new();
    for entry in archive.entries().map_err(damaged)? {
        cancel.check()?;
        let mut entry = entry.map_err(damaged)?;
        let name = TreePath::from_member(&entry.path_bytes()).map_err(|fault| refuse(&entry.path_bytes(), fault))?;
        let merged = merge(&name);
        if name == TreePath::root() || !selection.takes(&[&short(&merged), &merged]) {
            continue;
        }
        add(&mut entry, &merged, path, stage, &refuse)?;
        taken.insert(merged);
    }
    if !taken.is_empty() {
        let notes = Notes::read(open()?).map_err(damaged)?;
        let name = package_name(&notes.control)
            .ok_or_else(|| damaged(io::Error::other("it does not say what it is called")))?;
        let mut put = |suffix: &[u8], text: &[u8]| {
            let note = TreePath::from_member(&[NOTES, name, suffix].concat()).map_err(|fault| refuse(name, fault))?;
            stage.put(&note, 0o644, Kind::file(text))
        };
        put(b"", &notes.control)?;
        let sums = notes.sums_of(&taken);
        if !sums.is_empty() {
            put(SUMS, &sums)?;
        }
    }
    Ok(taken.len())
}

/// What a package says of itself.
#[derive(Default)]
struct Notes {
    /// The file `control` of `control.tar`.
    control: Vec<u8>,
    /// Its `md5sums`: a line of sum, two spaces and path for each file but configuration. Some packages have none.
    sums: Vec<u8>,
}

impl Notes {
    fn read(ar: impl Read + 'static) -> io::Result<Self> {
        let mut archive = Archive::new(member_named("control.tar", ar)?.take(UNPACKED_BYTES_MAX));
        let (mut control, mut sums) = (None, None);
        for entry in archive.entries()? {
            let entry = entry?;
            let path = entry.path_bytes();
            let (name, text, limit) = match path.strip_prefix(b"./").unwrap_or(&path) {
                b"control" => ("control", &mut control, CONTROL_BYTES_MAX),
                b"md5sums" => ("md5sums", &mut sums, SUMS_BYTES_MAX),
                _ => continue,
            };
            drop(path);
            if entry.size() > limit {
                return Err(io::Error::other(format!("its `{name}` is too long")));
            }
            entry.take(limit).read_to_end(text.insert(Vec::new()))?;
        }
        let control = control.ok_or_else(|| io::Error::other("it has no `control`"))?;
        Ok(Self { control, sums: sums.unwrap_or_default() })
    }

    /// The lines about files of `taken`.
    fn sums_of(&self, taken: &BTreeSet<TreePath>) -> Vec<u8> {
        let is_taken = |line: &&[u8]| {
            let space = line.iter().position(|&byte| byte == b' ').unwrap_or(line.len());
            let path = TreePath::from_member(line[space..].trim_ascii());
            path.is_ok_and(|path| taken.contains(&merge(&path)))
        };
        let lines = self.sums.split_inclusive(|&byte| byte == b'\n').filter(is_taken);
        lines.collect::<Vec<_>>().concat()
    }
}

/// The field `Package`: a word that is a good file name (Debian policy, 5.6.1).
fn package_name(control: &[u8]) -> Option<&[u8]> {
    let name = control.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"Package:"))?.trim_ascii();
    let is_good = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(byte);
    (name.first().is_some_and(u8::is_ascii_alphanumeric) && name.iter().all(is_good)).then_some(name)
}

/// `bin/sh` as `usr/bin/sh`.
fn merge(name: &TreePath) -> TreePath {
    match name.components().next() {
        Some(first) if MERGED.contains(&first) => TreePath::root().join(b"usr").append(name),
        _ => name.clone(),
    }
}

/// `usr/bin/sh` as `bin/sh`.
fn short(merged: &TreePath) -> TreePath {
    match link_into_usr(merged) {
        Some(_) => merged.components().skip(1).fold(TreePath::root(), |path, name| path.join(name)),
        None => merged.clone(),
    }
}

/// The link that leads to the folder of `path`, if that is one of the merged ones.
fn link_into_usr(path: &TreePath) -> Option<(TreePath, Vec<u8>)> {
    let mut components = path.components();
    let (first, second) = (components.next()?, components.next()?);
    (first == b"usr" && MERGED.contains(&second)).then(|| (TreePath::root().join(second), [b"usr/", second].concat()))
}

fn add<R: Read>(
    entry: &mut Entry<'_, R>,
    path: &TreePath,
    deb: &Path,
    stage: &mut Stage,
    refuse: &dyn Fn(&[u8], PathFault) -> PackageError,
) -> Result<(), PackageError> {
    let damaged = |source: io::Error| PackageError::Deb { path: deb.to_owned(), fault: source.to_string() };
    if let Some((link, target)) = link_into_usr(path)
        && stage.tree.get(&link).is_none()
    {
        stage.symlink(&link, &target)?;
    }
    let kind = match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File(stage.keep(entry, deb)?),
        EntryType::Directory => {
            // A link to a folder stands for the folder.
            let is_link = stage.tree.get(path).is_some_and(|node| matches!(node.kind, Kind::Symlink(_)));
            if is_link {
                return Ok(());
            }
            Kind::directory()
        }
        EntryType::Symlink => Kind::Symlink(link_name(entry)?.into()),
        EntryType::Link => {
            let target = link_name(entry).map_err(|_| damaged(io::Error::other("a hard link leads nowhere")))?;
            let target = TreePath::from_member(&target).map_err(|fault| refuse(&target, fault))?;
            return stage.tree.link(path, &merge(&target)).map_err(|source| stage.refused(source));
        }
        other => return Err(damaged(io::Error::other(format!("`{path}` is of kind {other:?}, which is not taken")))),
    };
    let header = entry.header();
    let number = |field: io::Result<u64>| field.ok().and_then(|number| u32::try_from(number).ok()).unwrap_or_default();
    let attributes = Attributes {
        mode: header.mode().map_err(damaged)? & 0o7777,
        uid: number(header.uid()),
        gid: number(header.gid()),
        ..stage.attributes(0)
    };
    stage.tree.put(path, attributes, kind).map_err(|source| stage.refused(source))?;
    Ok(())
}

fn link_name<R: Read>(entry: &Entry<'_, R>) -> Result<Vec<u8>, PackageError> {
    let name = entry.link_name_bytes().map(|name| name.into_owned()).filter(|name| !name.is_empty());
    name.ok_or_else(|| PackageError::Deb {
        path: Path::new(std::ffi::OsStr::from_bytes(&entry.path_bytes())).to_owned(),
        fault: "a link leads nowhere".into(),
    })
}

/// The uncompressed member whose name begins with `wanted`.
fn member_named<R: Read + 'static>(wanted: &'static str, mut ar: R) -> io::Result<Box<dyn Read>> {
    let mut magic = [0; 8];
    ar.read_exact(&mut magic)?;
    if &magic != b"!<arch>\n" {
        return Err(io::Error::other("it is no ar archive"));
    }
    loop {
        let mut header = [0; 60];
        ar.read_exact(&mut header).map_err(|_| io::Error::other(format!("it has no `{wanted}`")))?;
        let (name, size) = member(&header).ok_or_else(|| io::Error::other("a member's header is damaged"))?;
        if let Some(compression) = name.strip_prefix(wanted) {
            return decompress(ar.take(size), compression);
        }
        // Members start at even offsets.
        let padded = size + size % 2;
        if io::copy(&mut (&mut ar).take(padded), &mut io::sink())? != padded {
            return Err(io::Error::other("it is cut short"));
        }
    }
}

/// Name and size in bytes (`ar(5)`: 16 bytes of name, 10 digits of size at offset 48, then "`\n").
fn member(header: &[u8; 60]) -> Option<(String, u64)> {
    let text = std::str::from_utf8(header).ok().filter(|text| text.ends_with("`\n"))?;
    let name = text.get(..16)?.trim_end().trim_end_matches('/').to_owned();
    Some((name, text.get(48..58)?.trim_end().parse().ok()?))
}

fn decompress(data: impl Read + 'static, compression: &str) -> io::Result<Box<dyn Read>> {
    Ok(match compression {
        "" => Box::new(data),
        ".gz" => Box::new(flate2::read::MultiGzDecoder::new(data)),
        ".xz" => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_BYTES_MAX, 0).map_err(io::Error::other)?;
            Box::new(liblzma::read::XzDecoder::new_stream(data, stream))
        }
        ".zst" => Box::new(zstd::Decoder::new(data)?),
        other => return Err(io::Error::other(format!("its `tar{other}` is compressed in an unknown way"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    fn member_bytes(name: &str, content: &[u8]) -> Vec<u8> {
        let mut bytes =
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len()).into_bytes();
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len() + content.len() % 2, b'\n');
        bytes
    }

    fn deb(data_name: &str, data: &[u8]) -> Vec<u8> {
        deb_that_says("Package: some-thing\nVersion: 1\n", data_name, data)
    }

    fn deb_that_says(control: &str, data_name: &str, data: &[u8]) -> Vec<u8> {
        let sums = "0a  usr/bin/tool\n0b  bin/sh\n0c  not/taken\n0d  ../out\nodd\n0e  a";
        let control = tar(&[("./md5sums", EntryType::Regular, sums), ("./control", EntryType::Regular, control)]);
        [
            &b"!<arch>\n"[..],
            &member_bytes("debian-binary", b"2.0\n"),
            &member_bytes("control.tar/", &control),
            &member_bytes(data_name, data),
        ]
        .concat()
    }

    fn tar(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o4755);
            header.set_size(0);
            let is_link = matches!(kind, EntryType::Link | EntryType::Symlink);
            if is_link {
                header.as_gnu_mut().unwrap().linkname[..content.len()].copy_from_slice(content.as_bytes());
            } else {
                header.set_size(content.len() as u64);
            }
            header.set_cksum();
            builder.append(&header, if is_link { &b""[..] } else { content.as_bytes() }).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpacked(bytes: &[u8], selection: Selection<'_>) -> (tempfile::TempDir, Result<Stage, PackageError>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.deb");
        fs::write(&path, bytes).unwrap();
        let mut stage = Stage::new(folder.path(), folder.path(), 0).unwrap();
        let result = unpack(&path, selection, &Cancel::default(), &mut stage).map(|_| stage);
        (folder, result)
    }

    const ALL: Selection<'static> = Selection { include: &[], exclude: &[] };

    /// All but where the package is noted.
    fn names(stage: &Stage) -> Vec<String> {
        let names = stage.tree.walk().skip(1).map(|(path, _)| path.to_string());
        names.filter(|name| !name.starts_with("var")).collect()
    }

    #[test]
    fn a_damaged_package_is_refused() {
        let data = tar(&[("./a", EntryType::Regular, "x")]);
        let good = deb("data.tar", &data);
        let no_size = [&b"!<arch>\n"[..], &[b' '; 58], b"`\n"].concat();
        let huge = [&b"!<arch>\n"[..], format!("{:<48}{:<10}`\n", "x", "9999999999").as_bytes()].concat();
        for (bytes, expected) in [
            (&b""[..], "failed to fill"),
            (b"!<arch>?........", "no ar archive"),
            (&good[..100], "no `data.tar`"),
            (&no_size, "header is damaged"),
            (&huge, "cut short"),
            (&deb("data.tar.lzma", b""), "unknown way"),
            (&deb("data.tar.xz", b"no xz at all"), "no sound Debian package"),
            (&deb("data.tar.gz", b"no gzip"), "no sound Debian package"),
            (&deb_that_says("Version: 1\n", "data.tar", &data), "what it is called"),
            (&deb_that_says("Package: ../../etc/passwd\n", "data.tar", &data), "what it is called"),
            (&deb_that_says("Package: ..\n", "data.tar", &data), "what it is called"),
        ] {
            let error = unpacked(bytes, ALL).1.err().expect(expected).to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn names_that_lead_outside_are_refused() {
        let outside = [
            ("../a", EntryType::Regular, "x"),
            ("/etc/passwd", EntryType::Regular, "x"),
            ("a", EntryType::Link, "../../etc/passwd"),
            ("a", EntryType::Link, "not-there"),
            ("a", EntryType::Symlink, ""),
        ];
        for entry in outside {
            assert!(unpacked(&deb("data.tar", &tar(&[entry])), ALL).1.is_err(), "{entry:?}");
        }
        let through = [("a", EntryType::Symlink, "../../tmp"), ("a/b", EntryType::Regular, "x")];
        assert!(unpacked(&deb("data.tar", &tar(&through)), ALL).1.is_err());
    }

    #[test]
    fn a_package_is_noted_if_something_of_it_is_taken() {
        let bytes = deb("data.tar", &tar(&[("./a", EntryType::Regular, "x"), ("./bin/sh", EntryType::Regular, "x")]));
        let note = TreePath::from_user("var/lib/dpkg/status.d/some-thing").unwrap();
        let (_folder, stage) = unpacked(&bytes, ALL);
        let stage = stage.unwrap();
        let Kind::File(body) = &stage.tree.get(&note).unwrap().kind else { panic!("a file") };
        assert_eq!(body.read_up_to(100).unwrap().unwrap(), b"Package: some-thing\nVersion: 1\n");
        let sums = TreePath::from_user("var/lib/dpkg/status.d/some-thing.md5sums").unwrap();
        let Kind::File(body) = &stage.tree.get(&sums).unwrap().kind else { panic!("a file") };
        assert_eq!(body.read_up_to(100).unwrap().unwrap(), b"0b  bin/sh\n0e  a");
        let other = ["/b".to_owned()];
        let (_folder, stage) = unpacked(&bytes, Selection { include: &other, exclude: &[] });
        assert!(stage.unwrap().tree.get(&note).is_none());
    }

    #[test]
    fn either_name_of_a_merged_folder_leads_to_the_same_file() {
        let entries = [
            ("./", EntryType::Directory, ""),
            ("./bin/", EntryType::Directory, ""),
            ("./bin/a", EntryType::Regular, "x"),
            ("./usr/bin/b", EntryType::Link, "./bin/a"),
            ("./usr/sbin/c", EntryType::Symlink, "../bin/b"),
        ];
        let (_folder, stage) = unpacked(&deb("data.tar", &tar(&entries)), ALL);
        let stage = stage.unwrap();
        assert_eq!(
            names(&stage),
            ["bin", "sbin", "usr", "usr/bin", "usr/bin/a", "usr/bin/b", "usr/sbin", "usr/sbin/c"]
        );
        let find = |path: &str| stage.tree.find(&TreePath::from_user(path).unwrap()).unwrap();
        assert_eq!(find("bin/a"), find("usr/bin/b"));
        assert_eq!(stage.tree.node(find("bin/a")).attributes.mode, 0o4755);
    }

    #[test]
    fn every_compression_is_read_and_only_the_selection_taken() {
        let data = tar(&[("./usr/bin/a", EntryType::Regular, "x"), ("./usr/share/doc/a", EntryType::Regular, "y")]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&data).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&data).unwrap();
        let zstd = zstd::encode_all(&data[..], 1).unwrap();
        let exclude = ["/usr/share/doc".to_owned()];
        let include = ["/bin/*".to_owned()];
        for (name, data) in [
            ("data.tar", data.clone()),
            ("data.tar.gz", gzip.finish().unwrap()),
            ("data.tar.xz", xz.finish().unwrap()),
            ("data.tar.zst", zstd),
        ] {
            for selection in
                [Selection { include: &[], exclude: &exclude }, Selection { include: &include, exclude: &[] }]
            {
                let (_folder, stage) = unpacked(&deb(name, &data), selection);
                assert_eq!(names(&stage.unwrap()), ["bin", "usr", "usr/bin", "usr/bin/a"], "{name}");
            }
        }
    }
}
