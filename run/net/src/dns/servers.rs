//! The host's name servers and search domains, as a file like `/etc/resolv.conf` lists them (resolv.conf(5)).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::SystemTime;

use super::DNS_PORT;
use crate::Millis;

/// How long the list counts before it is looked at again.
const LIST_MS: Millis = 1_000;
/// Servers that are used; the C library uses three.
const SERVERS_LIMIT: usize = 4;
/// Domains that are used; the C library once used so many.
const SEARCH_LIMIT: usize = 6;

/// The host's name servers.
#[derive(Debug)]
pub struct Servers {
    path: PathBuf,
    pub(super) list: Vec<SocketAddr>,
    changed: Option<SystemTime>,
    pub(super) looked: Option<Millis>,
}

impl Servers {
    /// Those that the file at `path` lists, now and whenever it changes.
    pub fn of_file(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), list: Vec::new(), changed: None, looked: None }
    }

    /// The servers, in their order.
    pub(super) fn list(&mut self, now: Millis) -> &[SocketAddr] {
        if self.looked.is_none_or(|looked| now.saturating_sub(looked) >= LIST_MS) {
            self.looked = Some(now);
            let changed = std::fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok();
            if changed.is_none() || changed != self.changed {
                self.changed = changed;
                self.list = std::fs::read_to_string(&self.path).map(|text| servers_in(&text)).unwrap_or_default();
            }
        }
        &self.list
    }

    /// The domains that the host looks for short names in.
    pub fn search(&self) -> Vec<String> {
        std::fs::read_to_string(&self.path).map(|text| search_in(&text)).unwrap_or_default()
    }
}

fn servers_in(text: &str) -> Vec<SocketAddr> {
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        address.parse::<IpAddr>().ok()
    });
    let mut servers: Vec<_> = addresses.map(|address| SocketAddr::new(address, DNS_PORT)).take(SERVERS_LIMIT).collect();
    if servers.is_empty() {
        // As the C library does.
        servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DNS_PORT));
    }
    servers
}

/// The last line of them counts, a `domain` as well as a `search`.
fn search_in(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.split_whitespace());
    let mut search = lines.filter_map(|mut words| {
        words.next().filter(|word| ["search", "domain"].contains(word)).map(|_| words.collect::<Vec<_>>())
    });
    let domains = search.next_back().unwrap_or_default();
    // The root is no domain to look in.
    let real = domains.into_iter().filter(|domain| super::name_bytes(domain).is_some());
    real.map(|domain| domain.trim_end_matches('.').to_owned()).take(SEARCH_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_the_c_library_reads_them() {
        let text =
            "# nameserver 1.1.1.1\n  nameserver 192.0.2.1 \nsearch x\nnameserver\nnameserver ::1\nnameserver x\n";
        let servers: Vec<SocketAddr> = ["192.0.2.1:53", "[::1]:53"].iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(servers_in(text), servers);
        assert_eq!(servers_in(""), ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn domains_are_those_of_the_last_line_about_them() {
        assert_eq!(search_in("search a b\nnameserver ::1\ndomain c.test.\n"), ["c.test"]);
        assert_eq!(search_in("domain a\nsearch . b.test c..d c\n"), ["b.test", "c"]);
        assert_eq!(search_in("#search a\n"), [""; 0]);
    }
}
