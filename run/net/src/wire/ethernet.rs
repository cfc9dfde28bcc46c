//! Ethernet II (IEEE 802.3).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::{Malformed, at, u16_at};

/// Length of the header: two addresses and the type.
pub const ETHERNET_HEADER_BYTES: usize = 14;

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everybody on the link.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether it names more than one machine, or everybody.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// The group that listens for an IPv4 or IPv6 multicast address (RFC 1112 section 6.4, RFC 2464 section 7).
    pub fn of_group(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => {
                let [_, b, c, d] = address.octets();
                Self([0x01, 0x00, 0x5e, b & 0x7f, c, d])
            }
            IpAddr::V6(address) => {
                let [.., a, b, c, d] = address.octets();
                Self([0x33, 0x33, a, b, c, d])
            }
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A text that is no hardware address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no hardware address; one is like 52:54:00:12:34:56")]
pub struct NoMac(String);

impl FromStr for Mac {
    type Err = NoMac;

    fn from_str(text: &str) -> Result<Self, NoMac> {
        let refuse = || NoMac(text.into());
        let mut bytes = [0; 6];
        let mut words = text.split([':', '-']);
        for byte in &mut bytes {
            let word = words.next().filter(|word| word.len() == 2 && !word.starts_with('+')).ok_or_else(refuse)?;
            *byte = u8::from_str_radix(word, 16).map_err(|_| refuse())?;
        }
        if words.next().is_some() { Err(refuse()) } else { Ok(Self(bytes)) }
    }
}

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4.
    pub const IPV4: Self = Self(0x0800);
    /// ARP.
    pub const ARP: Self = Self(0x0806);
    /// IPv6.
    pub const IPV6: Self = Self(0x86dd);
}

/// The header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ethernet {
    /// Whom it is for.
    pub destination: Mac,
    /// Who sent it.
    pub source: Mac,
    /// What it carries.
    pub ether_type: EtherType,
}

impl Ethernet {
    /// Reads it, and gives what is behind it.
    pub fn read(bytes: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let header = Self {
            destination: Mac(at(bytes, 0)?),
            source: Mac(at(bytes, 6)?),
            ether_type: EtherType(u16_at(bytes, 12)?),
        };
        Ok((header, bytes.get(ETHERNET_HEADER_BYTES..).unwrap_or_default()))
    }

    /// The bytes on the wire.
    pub fn bytes(&self) -> [u8; ETHERNET_HEADER_BYTES] {
        let mut bytes = [0; ETHERNET_HEADER_BYTES];
        bytes[..6].copy_from_slice(&self.destination.0);
        bytes[6..12].copy_from_slice(&self.source.0);
        bytes[12..].copy_from_slice(&self.ether_type.0.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written_and_nothing_else_is() {
        let mac = Mac([0x52, 0x54, 0, 0xab, 0xcd, 0xef]);
        assert_eq!(mac.to_string().parse(), Ok(mac));
        assert_eq!("52-54-00-AB-CD-EF".parse(), Ok(mac));
        for text in
            ["", "52:54:00:ab:cd", "52:54:00:ab:cd:ef:01", "52:54:0:ab:cd:ef", "52:54:00:ab:cd:+f", "5254.00ab.cdef"]
        {
            assert!(text.parse::<Mac>().unwrap_err().to_string().contains(text), "{text}");
        }
    }
}
