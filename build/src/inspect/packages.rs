//! Which package a file belongs to, told by the lists that package databases keep: `dpkg`'s `info/NAME.list`, the
//! `status.d/NAME.md5sums` of images without dpkg, and the `F:` and `R:` lines of `apk`.

use std::collections::HashMap;

use super::listing::Listing;

/// Files that all databases together may claim: some for each that a system can have.
const CLAIMS_MAX: usize = 4_000_000;
/// Longest name of a package that is shown.
const NAME_BYTES_MAX: usize = 256;

const APK: &[u8] = b"lib/apk/db/installed";
const DPKG_INFO: &[u8] = b"var/lib/dpkg/info/";
const DPKG_STATUS: &[u8] = b"var/lib/dpkg/status.d/";

/// A package and the root that it is in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// `apk` or `deb`.
    pub system: &'static str,
    pub name: String,
    /// The root: empty, or a path with a slash at its end.
    pub root: String,
}

/// Packages, and the package of each file that one claims, by its number.
#[derive(Default)]
pub(super) struct Owners<'a> {
    pub packages: Vec<Owner>,
    pub files: HashMap<&'a [u8], usize>,
    claims: usize,
}

enum Database<'a> {
    Apk,
    DpkgList(&'a [u8]),
    Md5sums(&'a [u8]),
}

/// Whether a file lists what packages hold.
pub(super) fn is_database(path: &[u8]) -> bool {
    database(path).is_some()
}

fn database(path: &[u8]) -> Option<(&[u8], Database<'_>)> {
    let is_root = |root: &[u8]| root.is_empty() || root.ends_with(b"/");
    if let Some(root) = path.strip_suffix(APK) {
        let root = root.strip_suffix(b"usr/").unwrap_or(root);
        return is_root(root).then_some((root, Database::Apk));
    }
    let slash = path.iter().rposition(|&byte| byte == b'/')? + 1;
    let (folder, name) = path.split_at(slash);
    let (root, database) = if let Some(root) = folder.strip_suffix(DPKG_INFO) {
        let name = name.strip_suffix(b".list")?;
        (root, Database::DpkgList(name.split(|&byte| byte == b':').next()?))
    } else {
        (folder.strip_suffix(DPKG_STATUS)?, Database::Md5sums(name.strip_suffix(b".md5sums")?))
    };
    is_root(root).then_some((root, database))
}

/// Reads all databases that were kept.
pub(super) fn owners(listing: &Listing) -> Owners<'_> {
    let mut owners = Owners::default();
    for (path, content) in &listing.kept {
        let Some((root, database)) = database(path) else { continue };
        let lines = content.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        match database {
            Database::Apk => owners.apk(lines, root, listing),
            Database::DpkgList(name) => {
                let package = owners.package("deb", name, root);
                lines.for_each(|line| owners.claim(package, root, line.trim_ascii_start(), listing));
            }
            Database::Md5sums(name) => {
                let package = owners.package("deb", name, root);
                for line in lines {
                    let file = line.iter().position(|&byte| byte == b' ').map(|space| line[space..].trim_ascii());
                    owners.claim(package, root, file.unwrap_or_default(), listing);
                }
            }
        }
    }
    owners
}

impl<'a> Owners<'a> {
    fn package(&mut self, system: &'static str, name: &[u8], root: &[u8]) -> usize {
        let name = name.get(..NAME_BYTES_MAX).unwrap_or(name);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.packages.push(Owner { system, name: text(name), root: text(root) });
        self.packages.len() - 1
    }

    fn apk<'b>(&mut self, lines: impl Iterator<Item = &'b [u8]>, root: &[u8], listing: &'a Listing) {
        let (mut package, mut folder) = (None, &b""[..]);
        for line in lines {
            match line {
                [b'P', b':', name @ ..] if !name.is_empty() => {
                    (package, folder) = (Some(self.package("apk", name, root)), b"")
                }
                [b'F', b':', path @ ..] => folder = path,
                [b'R', b':', name @ ..] => {
                    let Some(package) = package else { continue };
                    let path = if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() };
                    self.claim(package, root, &path, listing);
                }
                [] => package = None,
                _ => {}
            }
        }
    }

    /// The first package that claims a file has it.
    fn claim(&mut self, package: usize, root: &[u8], path: &[u8], listing: &'a Listing) {
        self.claims += 1;
        let path = path.strip_prefix(b".").filter(|rest| rest.starts_with(b"/")).unwrap_or(path);
        let path = path.strip_prefix(b"/").unwrap_or(path);
        if path.is_empty() || self.claims > CLAIMS_MAX {
            return;
        }
        // What is below `usr` may be listed without it, and the other way round.
        let other = path.strip_prefix(b"usr/").map_or_else(|| [b"usr/", path].concat(), <[u8]>::to_vec);
        let names = [[root, path].concat(), [root, &other].concat()];
        let known = names.iter().find_map(|name| listing.entries.get_key_value(name.as_slice()));
        if let Some((name, _)) = known {
            self.files.entry(name).or_insert(package);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lists_of_packages_in_a_root_are_databases() {
        for path in
            ["installed", "xlib/apk/db/installed", "var/lib/dpkg/status", "var/lib/dpkg/info/a.md5sums", "a.list"]
        {
            assert!(!is_database(path.as_bytes()), "{path}");
        }
        for path in ["lib/apk/db/installed", "c/lower/usr/lib/apk/db/installed", "x/var/lib/dpkg/info/a:amd64.list"] {
            assert!(is_database(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn a_hostile_database_claims_nothing() {
        let mut listing = Listing::default();
        listing.add_file("etc/a", 1);
        let lists: [(&str, &[u8]); 3] = [
            ("lib/apk/db/installed", b"R:a\nF:etc\nR:a\n\nF:\n\xff\xff\nP:\nR:a\nP:x\nF:../etc\nR:a\nF:etc\nR:../a"),
            ("var/lib/dpkg/info/b.list", b"/.\n\n//\n/../etc/a\n\0"),
            ("var/lib/dpkg/status.d/c.md5sums", b"etc/a\n \nx\n"),
        ];
        for (path, content) in lists {
            listing.kept.insert(path.as_bytes().into(), content.to_vec());
        }
        assert!(owners(&listing).files.is_empty());
    }

    #[test]
    fn files_belong_to_the_package_that_lists_them() {
        let mut listing = Listing::default();
        for path in ["usr/bin/a", "etc/b", "lib/c", "x/lower/lib/c", "y/rootfs/d"] {
            listing.add_file(path, 1);
        }
        let lists: [(&str, &[u8]); 4] = [
            ("lib/apk/db/installed", b"P:apk-one\nF:etc\nR:b\na:0:0:755\n\nP:apk-two\nF:etc\nR:b\nF:\nR:none\n"),
            ("var/lib/dpkg/info/one:amd64.list", b"/.\n/bin\n/bin/a\n"),
            ("x/lower/usr/lib/apk/db/installed", b"P:three\nF:usr/lib\nR:c"),
            ("y/rootfs/var/lib/dpkg/status.d/four.md5sums", b"d41d8cd98f00b204e9800998ecf8427e  ./d\n"),
        ];
        for (path, content) in lists {
            listing.kept.insert(path.as_bytes().into(), content.to_vec());
        }
        let owners = owners(&listing);
        let owner = |path: &str| owners.files.get(path.as_bytes()).map(|&number| owners.packages[number].name.as_str());
        let all = ["usr/bin/a", "etc/b", "lib/c", "x/lower/lib/c", "y/rootfs/d"].map(owner);
        assert_eq!(all, [Some("one"), Some("apk-one"), None, Some("three"), Some("four")]);
    }
}
