//! Alpine's list of packages (`apk-package(5)`, the database of installed ones): blocks with an empty line between them,
//! `X:value` in each, of which the first block of lines is about the package and the rest about its files.

use super::database::{Installed, System, blocks, text, word};

/// Each block: a package, or `None` if it is none.
pub(super) fn entries<'a>(text: &'a [u8], database: &'a str) -> impl Iterator<Item = Option<Installed>> + 'a {
    blocks(text).map(move |lines| {
        let mut block = Block::default();
        lines.split(|&byte| byte == b'\n').for_each(|line| block.take(line));
        block.entry(database)
    })
}

#[derive(Default)]
struct Block<'a> {
    name: Option<&'a [u8]>,
    version: Option<&'a [u8]>,
    architecture: Option<&'a [u8]>,
    licence: Option<&'a [u8]>,
    origin: Option<&'a [u8]>,
    maintainer: Option<&'a [u8]>,
    homepage: Option<&'a [u8]>,
    summary: Option<&'a [u8]>,
}

impl<'a> Block<'a> {
    fn take(&mut self, line: &'a [u8]) {
        let (Some(key), Some(value)) = (line.get(..2), line.get(2..)) else { return };
        let field = match key {
            b"P:" => &mut self.name,
            b"V:" => &mut self.version,
            b"A:" => &mut self.architecture,
            b"L:" => &mut self.licence,
            b"o:" => &mut self.origin,
            b"m:" => &mut self.maintainer,
            b"U:" => &mut self.homepage,
            b"T:" => &mut self.summary,
            _ => return,
        };
        field.get_or_insert(value);
    }

    fn entry(&self, database: &str) -> Option<Installed> {
        let name = word(self.name?)?;
        Some(Installed {
            system: System::Alpine,
            version: word(self.version?)?,
            architecture: self.architecture.and_then(word).unwrap_or_default(),
            database: database.into(),
            source: self.origin.and_then(text).filter(|origin| *origin != name),
            licence: self.licence.and_then(text),
            maintainer: self.maintainer.and_then(text),
            homepage: self.homepage.and_then(text),
            summary: self.summary.and_then(text),
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_package_is_told() {
        for (block, count) in [
            (&b""[..], 0),
            (b"\n\n", 0),
            (b"P:a", 1),
            (b"V:1", 1),
            (b"P:a b\nV:1", 1),
            (b"P:\nV:1", 1),
            (b"x", 1),
            (b"P:\xff\nV:1\n\nx", 2),
        ] {
            let read: Vec<_> = entries(block, "db").collect();
            assert_eq!(read.len(), count, "{}", String::from_utf8_lossy(block));
            assert!(read.iter().all(Option::is_none));
        }
    }

    #[test]
    fn a_block_tells_what_apk_knows() {
        let text = b"C:Q1p78yvTLG094tHE1+dToJGbmYzQE=\nP:musl\nV:1.2.5-r0\nA:x86_64\nS:383152\nT:the C library\n\
            U:https://musl.libc.org/\nL:MIT\no:musl\nm:Timo <t@x>\nF:lib\nR:libc.so\n\n\
            P:musl-utils\nV:1.2.5-r0\nA:x86_64\nL:MIT AND BSD-2-Clause\no:musl\n\n";
        let read: Vec<Installed> = entries(text, "db").map(Option::unwrap).collect();
        assert_eq!((read[0].name.as_str(), read[0].source.as_deref()), ("musl", None));
        assert_eq!(
            (read[1].licence.as_deref(), read[1].source.as_deref()),
            (Some("MIT AND BSD-2-Clause"), Some("musl"))
        );
        assert_eq!(read.len(), 2);
    }
}
