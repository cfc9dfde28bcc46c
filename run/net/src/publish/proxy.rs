//! The header of the PROXY protocol, version 2 (HAProxy's specification of it, section 2.2).

use std::net::{IpAddr, SocketAddr};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, and a connection that is passed on.
const PROXY: u8 = 0x21;
/// Version 2, and a connection whose ends are not told.
const LOCAL: u8 = 0x20;
const TCP_OVER_V4: u8 = 0x11;
const TCP_OVER_V6: u8 = 0x21;

/// Who connected to whom, if both are known.
pub(super) fn header(ends: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    let Some((from, to)) = ends else {
        header.extend([LOCAL, 0, 0, 0]);
        return header;
    };
    let mut addresses = Vec::new();
    let family = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            addresses.extend([from.octets(), to.octets()].concat());
            TCP_OVER_V4
        }
        (from, to) => {
            for ip in [from, to] {
                let ip = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                addresses.extend(ip.octets());
            }
            TCP_OVER_V6
        }
    };
    addresses.extend([from.port().to_be_bytes(), to.port().to_be_bytes()].concat());
    header.extend([PROXY, family]);
    header.extend(u16::try_from(addresses.len()).unwrap_or(0).to_be_bytes());
    header.extend(addresses);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_the_length_that_it_tells() {
        let v4 = ("192.0.2.1:256".parse().unwrap(), "127.0.0.1:80".parse().unwrap());
        let bytes = header(Some(v4));
        assert_eq!(bytes[..12], SIGNATURE);
        assert_eq!(bytes[12..], [0x21, 0x11, 0, 12, 192, 0, 2, 1, 127, 0, 0, 1, 1, 0, 0, 80]);
        let v6 = ("[2001:db8::1]:1".parse().unwrap(), "[::1]:80".parse().unwrap());
        let bytes = header(Some(v6));
        assert_eq!((bytes[13], bytes[15], bytes.len()), (0x21, 36, 16 + 36));
        assert_eq!(header(None)[12..], [0x20, 0, 0, 0]);
    }
}
