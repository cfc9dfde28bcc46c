//! Which process has a port or a lock of this host, as far as `/proc` tells (proc(5), `/proc/PID/net`, `/proc/PID/fdinfo`).

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use kiln_net::publish::Transport;

/// A process that has a port or a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its name, 15 bytes of it.
    pub name: String,
}

/// State of a listening TCP socket, and of a UDP socket that nobody is connected to.
const LISTENING: &str = "0A";
const UNCONNECTED: &str = "07";

/// Who has the port of `host`, or all addresses' same port. `None` if it is another user's, or gone by now.
#[must_use]
pub fn of(host: SocketAddr, transport: Transport) -> Option<Holder> {
    let (name, state) = match transport {
        Transport::Tcp => ("tcp", LISTENING),
        Transport::Udp => ("udp", UNCONNECTED),
    };
    [name.to_owned(), format!("{name}6")]
        .into_iter()
        .filter_map(|table| fs::read_to_string(Path::new("/proc/net").join(table)).ok())
        .find_map(|table| inode(&table, host, state))
        .and_then(owner)
}

/// The number of the socket in the way of `host`, from one of the tables.
fn inode(table: &str, host: SocketAddr, state: &str) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (ip, port) = words.get(1)?.split_once(':')?;
        let ip = address(ip)?;
        let is_same = ip == host.ip() || ip.is_unspecified() || host.ip().is_unspecified();
        let is_in_the_way = is_same && u16::from_str_radix(port, 16).ok()? == host.port() && *words.get(3)? == state;
        if is_in_the_way { words.get(9)?.parse().ok() } else { None }
    })
}

/// Addresses are written as words of this machine's byte order.
fn address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(8 * at..8 * at + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

/// The process that has this socket open.
fn owner(inode: u64) -> Option<Holder> {
    let wanted = format!("socket:[{inode}]");
    process_with(|entry| fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str()))
}

/// Who has a lock on this byte of `file`, as an owner of open files (`OFDLCK`).
#[must_use]
pub fn of_lock(file: &File, byte: i64) -> Option<Holder> {
    let file = file.metadata().ok()?;
    process_with(|entry| {
        let is_it =
            fs::metadata(entry.path()).is_ok_and(|other| (other.dev(), other.ino()) == (file.dev(), file.ino()));
        let about =
            entry.path().parent().and_then(Path::parent).map(|folder| folder.join("fdinfo").join(entry.file_name()));
        is_it && about.and_then(|path| fs::read_to_string(path).ok()).is_some_and(|text| has_lock(&text, byte))
    })
}

/// Whether a descriptor has the lock, such as `lock:\t1: OFDLCK  ADVISORY  READ -1 fe:01:123 100 101`.
fn has_lock(fdinfo: &str, byte: i64) -> bool {
    fdinfo.lines().filter_map(|line| line.strip_prefix("lock:")).any(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "OFDLCK", .., first, last] = words.as_slice() else { return false };
        let first = first.parse().unwrap_or(i64::MAX);
        let last = if *last == "EOF" { i64::MAX } else { last.parse().unwrap_or(-1) };
        (first..=last).contains(&byte)
    })
}

/// The first process with a descriptor of which this is true.
fn process_with(is_meant: impl Fn(fs::DirEntry) -> bool) -> Option<Holder> {
    let pids =
        fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find_map(|pid| {
        if !fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten().any(&is_meant) {
            return None;
        }
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned();
        Some(Holder { pid, name })
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn lines_that_say_nothing_are_passed_over() {
        let host = "127.0.0.1:80".parse().unwrap();
        for table in ["", "head\n", "head\n0: x\n", "head\n0: 0100007F:0050 00000000:0000 0A\n", "head\n0: :: 1 0A\n"] {
            assert_eq!(inode(table, host, LISTENING), None, "{table}");
        }
    }

    #[test]
    fn lines_of_other_locks_are_passed_over() {
        let line = |text: &str| format!("pos:\t0\nlock:\t1: {text}\n");
        for text in
            ["", "OFDLCK", "FLOCK  ADVISORY  READ 7 0:1:2 0 EOF", "OFDLCK  ADVISORY  READ -1 0:1:2 9 9", "OFDLCK x y"]
        {
            assert!(!has_lock(&line(text), 100), "{text}");
        }
        for text in ["OFDLCK  ADVISORY  READ -1 0:1:2 100 101", "OFDLCK  ADVISORY  WRITE -1 0:1:2 0 EOF"] {
            assert!(has_lock(&line(text), 100), "{text}");
        }
    }

    #[test]
    fn this_process_is_found_by_its_ports() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let tcp = TcpListener::bind(address).unwrap();
            let udp = UdpSocket::bind(address).unwrap();
            for (host, transport) in
                [(tcp.local_addr().unwrap(), Transport::Tcp), (udp.local_addr().unwrap(), Transport::Udp)]
            {
                assert_eq!(of(host, transport).map(|holder| holder.pid), Some(std::process::id()), "{host}");
            }
        }
    }
}
