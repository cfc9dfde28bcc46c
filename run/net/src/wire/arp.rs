//! The address resolution protocol for IPv4 over Ethernet (RFC 826).

use std::net::Ipv4Addr;

use super::{EtherType, Ethernet, Mac, Malformed, at, u16_at};

const PACKET_BYTES: usize = 28;

/// Hardware type Ethernet, protocol IPv4, address lengths six and four.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArpOperation {
    /// Who has the target's address?
    Request,
    /// The sender has its address.
    Reply,
}

/// A packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// Question or answer.
    pub operation: ArpOperation,
    /// Who sent it.
    pub sender_mac: Mac,
    /// His address; unspecified in a probe (RFC 5227).
    pub sender: Ipv4Addr,
    /// Whose address it is about.
    pub target: Ipv4Addr,
}

impl Arp {
    /// Reads what is behind the Ethernet header.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        if at::<6>(bytes, 0)? != ETHERNET_IPV4 {
            return Err(Malformed::Value);
        }
        let operation = match u16_at(bytes, 6)? {
            1 => ArpOperation::Request,
            2 => ArpOperation::Reply,
            _ => return Err(Malformed::Value),
        };
        Ok(Self {
            operation,
            sender_mac: Mac(at(bytes, 8)?),
            sender: at::<4>(bytes, 14)?.into(),
            target: at::<4>(bytes, 24)?.into(),
        })
    }

    /// The frame that tells this packet's sender that `mac` has the address it asked for.
    pub fn answer(&self, mac: Mac) -> [u8; super::ETHERNET_HEADER_BYTES + PACKET_BYTES] {
        let mut frame = [0; super::ETHERNET_HEADER_BYTES + PACKET_BYTES];
        let ethernet = Ethernet { destination: self.sender_mac, source: mac, ether_type: EtherType::ARP };
        let (head, packet) = frame.split_at_mut(super::ETHERNET_HEADER_BYTES);
        head.copy_from_slice(&ethernet.bytes());
        packet[..6].copy_from_slice(&ETHERNET_IPV4);
        packet[7] = 2;
        packet[8..14].copy_from_slice(&mac.0);
        packet[14..18].copy_from_slice(&self.target.octets());
        packet[18..24].copy_from_slice(&self.sender_mac.0);
        packet[24..].copy_from_slice(&self.sender.octets());
        frame
    }
}
