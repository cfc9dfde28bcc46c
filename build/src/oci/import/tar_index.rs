//! Where the members of a tar file are (POSIX.1-2017, "ustar Interchange Format", with pax and GNU's long names), without
//! reading what they hold.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use tar::{EntryType, Header, PaxExtensions};

/// An archive of images has a few files for each layer.
const MEMBERS_MAX: usize = 100_000;
/// Extended headers and long names.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;
const BLOCK_BYTES: u64 = 512;
/// Links that point at links.
const LINKS_MAX: usize = 8;

/// The regular files of an archive by their names, without `./` and `/` in front.
#[derive(Debug, Default)]
pub struct TarIndex {
    files: BTreeMap<String, Span>,
    links: BTreeMap<String, String>,
}

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// What extensions say of the next member.
#[derive(Default)]
struct Next {
    name: Option<String>,
    link: Option<String>,
    bytes: Option<u64>,
}

impl TarIndex {
    /// Reads all headers.
    ///
    /// Errors: those of the file; [`io::ErrorKind::InvalidData`] where it is no tar archive.
    pub fn read(file: &File) -> io::Result<Self> {
        let end = file.metadata()?.len();
        let mut index = Self::default();
        let (mut at, mut next, mut members) = (0_u64, Next::default(), 0);
        while end.saturating_sub(at) >= BLOCK_BYTES {
            let mut header = Header::new_old();
            file.read_exact_at(header.as_mut_bytes(), at)?;
            if header.as_bytes().iter().all(|byte| *byte == 0) {
                break;
            }
            check_sum(&header, at)?;
            let start = at + BLOCK_BYTES;
            let bytes = next.bytes.take().map_or_else(|| header.entry_size(), Ok)?;
            at = bytes
                .checked_next_multiple_of(BLOCK_BYTES)
                .and_then(|bytes| start.checked_add(bytes))
                .ok_or_else(cut)?;
            if start.saturating_add(bytes) > end {
                return Err(cut());
            }
            members += 1;
            if members > MEMBERS_MAX {
                return Err(invalid(format!("it has more than {MEMBERS_MAX} members")));
            }
            index.member(file, &header, Span { start, bytes }, &mut next)?;
        }
        Ok(index)
    }

    fn member(&mut self, file: &File, header: &Header, span: Span, next: &mut Next) -> io::Result<()> {
        match header.entry_type() {
            EntryType::XHeader => return next.extend(&extension(file, span)?),
            EntryType::GNULongName => next.name = Some(text(&extension(file, span)?)?),
            EntryType::GNULongLink => next.link = Some(text(&extension(file, span)?)?),
            EntryType::XGlobalHeader => {}
            kind => {
                let Next { name, link, .. } = std::mem::take(next);
                let name = name.map_or_else(|| text(&header.path_bytes()), Ok)?;
                let name = plain(&name);
                let target = || link.map_or_else(|| text(&header.link_name_bytes().unwrap_or_default()), Ok);
                match kind {
                    EntryType::Regular | EntryType::Continuous => {
                        self.links.remove(&name);
                        self.files.insert(name, span);
                    }
                    EntryType::Symlink => {
                        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                        let target = plain(&format!("{folder}/{}", target()?));
                        self.links.insert(name, target);
                    }
                    EntryType::Link => {
                        let target = plain(&target()?);
                        self.links.insert(name, target);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The file of this name; links are followed.
    pub fn get(&self, name: &str) -> Option<Span> {
        let mut name = name.to_owned();
        for _ in 0..LINKS_MAX {
            if let Some(span) = self.files.get(&name) {
                return Some(*span);
            }
            name.clone_from(self.links.get(&name)?);
        }
        None
    }
}

impl Next {
    fn extend(&mut self, records: &[u8]) -> io::Result<()> {
        for record in PaxExtensions::new(records) {
            let record = record?;
            match record.key_bytes() {
                b"path" => self.name = Some(text(record.value_bytes())?),
                b"linkpath" => self.link = Some(text(record.value_bytes())?),
                b"size" => {
                    let size = record.value().ok().and_then(|value| value.parse().ok());
                    self.bytes = Some(size.ok_or_else(|| invalid("a size in it is no number"))?);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn check_sum(header: &Header, at: u64) -> io::Result<()> {
    let bytes = header.as_bytes();
    let sum: u32 =
        bytes.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum();
    match header.cksum() {
        Ok(expected) if expected == sum => Ok(()),
        _ => Err(invalid(format!("there is no tar header at byte {at}"))),
    }
}

fn extension(file: &File, span: Span) -> io::Result<Vec<u8>> {
    if span.bytes > EXTENSION_BYTES_MAX {
        return Err(invalid(format!("an extended header has {} bytes", span.bytes)));
    }
    let mut bytes = vec![0; usize::try_from(span.bytes).map_err(|_| cut())?];
    file.read_exact_at(&mut bytes, span.start)?;
    Ok(bytes)
}

fn text(bytes: &[u8]) -> io::Result<String> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (name, _) = bytes.split_at(end);
    String::from_utf8(name.to_vec()).map_err(|_| invalid("a name in it is no UTF-8"))
}

/// A name without `.`, empty parts and what `..` takes back.
fn plain(name: &str) -> String {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it ends in the middle of a member")
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn archive(fill: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        fill(&mut builder);
        builder.into_inner().unwrap()
    }

    fn add(builder: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8]) {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content).unwrap();
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        let good = archive(|builder| add(builder, "a", &[1; 2000]));
        assert!(TarIndex::read(&file(&good[..1024])).unwrap_err().to_string().contains("in the middle"));
        assert!(TarIndex::read(&file(&[7; 1024])).unwrap_err().to_string().contains("no tar header at byte 0"));
        let mut long = Header::new_gnu();
        long.set_entry_type(EntryType::GNULongName);
        long.set_size(2 << 20);
        long.set_cksum();
        let sparse = file(long.as_bytes());
        sparse.set_len(4 << 20).unwrap();
        assert!(TarIndex::read(&sparse).unwrap_err().to_string().contains("2097152 bytes"));
        assert!(TarIndex::read(&file(b"")).unwrap().files.is_empty());
    }

    #[test]
    fn members_are_found_by_plain_names_and_through_links() {
        let long = format!("{}/layer.tar", "d".repeat(120));
        let bytes = archive(|builder| {
            add(builder, "./index.json", b"{}");
            add(builder, &long, b"layer");
            for (name, target, kind) in [
                ("x/layer.tar", format!("../{long}"), EntryType::Symlink),
                ("hard", "./index.json".into(), EntryType::Link),
                ("loop", "loop".into(), EntryType::Symlink),
            ] {
                let mut header = Header::new_gnu();
                header.set_entry_type(kind);
                header.set_size(0);
                builder.append_link(&mut header, name, target).unwrap();
            }
        });
        let file = file(&bytes);
        let index = TarIndex::read(&file).unwrap();
        let content = |name: &str| {
            let span = index.get(name)?;
            let mut bytes = vec![0; usize::try_from(span.bytes).unwrap()];
            file.read_exact_at(&mut bytes, span.start).unwrap();
            Some(String::from_utf8(bytes).unwrap())
        };
        assert_eq!(content("index.json").as_deref(), Some("{}"));
        assert_eq!(content("x/layer.tar").as_deref(), Some("layer"));
        assert_eq!(content("hard").as_deref(), Some("{}"));
        assert_eq!((content("loop"), content("nothing")), (None, None));
    }
}
