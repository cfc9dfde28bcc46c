//! `/etc/resolv.conf` (`resolv.conf(5)`), from what all cards know.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::Path;

/// glibc and musl ask no more (MAXNS).
const SERVER_LIMIT: usize = 3;
const SEARCH_LIMIT: usize = 16;
/// A file that somebody else made longer is not read further.
const READ_LIMIT_BYTES: u64 = 64 << 10;

/// What is known of names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Name servers, the best first; of a link's own address the card's name follows.
    pub servers: Vec<String>,
    /// Domains that short names are looked for in.
    pub search: Vec<String>,
}

impl Names {
    /// Adds a server on the card of this name.
    pub fn server(&mut self, address: IpAddr, card: &str) {
        let is_of_link = matches!(address, IpAddr::V6(address) if address.segments()[0] & 0xffc0 == 0xfe80);
        let server = if is_of_link { format!("{address}%{card}") } else { address.to_string() };
        if self.servers.len() < SERVER_LIMIT && !self.servers.contains(&server) {
            self.servers.push(server);
        }
    }

    /// Adds domains.
    pub fn domains<'a>(&mut self, names: impl IntoIterator<Item = &'a String>) {
        for name in names {
            if self.search.len() < SEARCH_LIMIT && !self.search.contains(name) {
                self.search.push(name.clone());
            }
        }
    }

    fn text(&self) -> String {
        let mut text = String::from("# by DHCP\n");
        if !self.search.is_empty() {
            text.push_str(&format!("search {}\n", self.search.join(" ")));
        }
        self.servers.iter().for_each(|server| text.push_str(&format!("nameserver {server}\n")));
        text
    }

    /// Writes the file if it says something else. It is written over in place and not replaced: containers have it bound, and
    /// would go on with the old one.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = self.text();
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut found = Vec::new();
        Read::by_ref(&mut file).take(READ_LIMIT_BYTES).read_to_end(&mut found)?;
        if found == text.as_bytes() {
            return Ok(());
        }
        io::Seek::rewind(&mut file)?;
        // One call: who reads meanwhile has the old or the new lines, and at worst the old end behind the new ones.
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_written_over_where_it_is_and_no_longer_than_it_must() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        std::fs::write(&path, "nameserver 9.9.9.9\n".repeat(20)).unwrap();
        let mut held = File::open(&path).unwrap();
        let mut names = Names::default();
        names.domains([&"a.test".to_owned(), &"b.test".to_owned(), &"a.test".to_owned()]);
        for server in ["10.0.2.3", "fe80::3", "10.0.2.3", "fd00::3", "1.1.1.1"] {
            names.server(server.parse().unwrap(), "eth0");
        }
        names.write(&path).unwrap();
        let mut text = String::new();
        held.read_to_string(&mut text).unwrap();
        let wanted =
            "# by DHCP\nsearch a.test b.test\nnameserver 10.0.2.3\nnameserver fe80::3%eth0\nnameserver fd00::3\n";
        assert_eq!(text, wanted);
    }
}
