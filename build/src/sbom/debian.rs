//! Debian's list of packages (`deb-control(5)`, `dpkg(1)`): stanzas with an empty line between them, `Field: value` in
//! each, continued on lines that start with a space.

use super::database::{Installed, System, blocks, text, word};

/// Each stanza: a package, or `None` if it is none. Packages that are removed or never were installed are passed over.
pub(super) fn entries<'a>(text: &'a [u8], database: &'a str) -> impl Iterator<Item = Option<Installed>> + 'a {
    blocks(text).filter_map(move |lines| {
        let mut stanza = Stanza::default();
        let lines = lines.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        lines.for_each(|line| stanza.take(line));
        entry(&stanza, database)
    })
}

#[derive(Default)]
struct Stanza<'a> {
    package: Option<&'a [u8]>,
    version: Option<&'a [u8]>,
    status: Option<&'a [u8]>,
    architecture: Option<&'a [u8]>,
    source: Option<&'a [u8]>,
    maintainer: Option<&'a [u8]>,
    homepage: Option<&'a [u8]>,
    summary: Option<&'a [u8]>,
}

impl<'a> Stanza<'a> {
    fn take(&mut self, line: &'a [u8]) {
        let Some(colon) = line.iter().position(|&byte| byte == b':').filter(|_| !line[0].is_ascii_whitespace()) else {
            return;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let field = match name.to_ascii_lowercase().as_slice() {
            b"package" => &mut self.package,
            b"version" => &mut self.version,
            b"status" => &mut self.status,
            b"architecture" => &mut self.architecture,
            b"source" => &mut self.source,
            b"maintainer" => &mut self.maintainer,
            b"homepage" => &mut self.homepage,
            b"description" => &mut self.summary,
            _ => return,
        };
        field.get_or_insert(value);
    }
}

fn entry(stanza: &Stanza<'_>, database: &str) -> Option<Option<Installed>> {
    let state = stanza.status.and_then(|status| status.rsplit(|&byte| byte == b' ').next());
    if matches!(state, Some(b"not-installed" | b"config-files")) {
        return None;
    }
    let read = || {
        let name = word(stanza.package?)?;
        // `Source: name (version)`; without it the source is called as the package is.
        let source = stanza.source.and_then(text).unwrap_or_else(|| name.clone());
        Some(Installed {
            system: System::Debian,
            version: word(stanza.version?)?,
            architecture: stanza.architecture.and_then(word).unwrap_or_default(),
            database: database.into(),
            source: Some(source).filter(|source| *source != name),
            licence: None,
            maintainer: stanza.maintainer.and_then(text),
            homepage: stanza.homepage.and_then(text),
            summary: stanza.summary.and_then(text),
            name,
        })
    };
    Some(read())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &[u8]) -> Vec<String> {
        let shown =
            |entry: Option<Installed>| entry.map_or("-".into(), |entry| format!("{} {}", entry.name, entry.version));
        entries(text, "db").map(shown).collect()
    }

    #[test]
    fn what_is_no_package_is_told_and_what_is_not_installed_is_not() {
        assert!(names(b"").is_empty() && names(b"\n\n \n").is_empty());
        for stanza in [
            &b"Package: a"[..],
            b"Version: 1",
            b"Package: \nVersion: 1",
            b"Package: a b\nVersion: 1",
            b"Package: \xff\nVersion: 1",
            b": \nVersion: 1",
            b" Package: a\n Version: 1",
            &[b"Package: ", &[b'a'; 300][..], b"\nVersion: 1"].concat(),
            b"\0\0\0\0",
        ] {
            assert_eq!(names(stanza), ["-"], "{}", String::from_utf8_lossy(stanza));
        }
        assert!(names(b"Package: a\nVersion: 1\nStatus: deinstall ok config-files\n").is_empty());
        assert_eq!(names(b"Package: a\nVersion: 1\nPackage: b\n\n\n\r\nPackage: c\r\nVersion: 2"), ["a 1", "c 2"]);
    }

    #[test]
    fn a_stanza_tells_what_dpkg_knows() {
        let stanza = b"Package: libssl3\nStatus: install ok installed\nPriority: optional\nSource: openssl (3.0-1)\n\
            Maintainer: Debian OpenSSL Team <pkg@x.org>\nArchitecture: amd64\nVersion: 3.0.11-1~deb12u2\n\
            Conffiles:\n /etc/x 0\nDescription: Secure Sockets Layer\n more\nHomepage: https://openssl.org/\n";
        let installed = entries(stanza, "db").next().unwrap().unwrap();
        assert_eq!((installed.name.as_str(), installed.version.as_str()), ("libssl3", "3.0.11-1~deb12u2"));
        assert_eq!((installed.architecture.as_str(), installed.source.as_deref()), ("amd64", Some("openssl (3.0-1)")));
        assert_eq!(installed.maintainer.as_deref(), Some("Debian OpenSSL Team <pkg@x.org>"));
        assert_eq!(installed.summary.as_deref(), Some("Secure Sockets Layer"));
    }
}
