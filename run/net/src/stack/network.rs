//! What a guest's network is like, told before it begins.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use crate::dhcp::Lease;
use crate::policy::Policy;
use crate::wire::Mac;

/// What a guest's network is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// What the guest is told: addresses, MTU, names.
    pub lease: Lease,
    /// The gateway's hardware address.
    pub gateway_mac: Mac,
    /// The guest's, if it is known; frames from others are dropped.
    pub guest_mac: Option<Mac>,
    /// Whether the gateway's address leads to the host's own loopback.
    pub host_loopback: bool,
    /// Where else the guest may go.
    pub policy: Policy,
    /// The list of name servers, in the form of `resolv.conf`.
    pub resolvers: PathBuf,
    /// Further names, and what they mean.
    pub names: HashMap<String, IpAddr>,
}

impl Default for Network {
    /// QEMU's addresses, which people's scripts know: 10.0.2.0/24, gateway .2, name server .3, guest .15.
    fn default() -> Self {
        let address = |last| Ipv4Addr::new(10, 0, 2, last);
        Self {
            lease: Lease {
                address: address(15),
                prefix_bits: 24,
                gateway: address(2),
                dns: address(3),
                mtu: 1500,
                host_name: None,
                search: Vec::new(),
            },
            gateway_mac: Mac([0x52, 0x55, 10, 0, 2, 2]),
            guest_mac: None,
            host_loopback: false,
            policy: Policy::default(),
            resolvers: "/etc/resolv.conf".into(),
            names: HashMap::new(),
        }
    }
}

impl Network {
    /// Whether an address is one of the network's.
    pub(super) fn is_inside(&self, address: Ipv4Addr) -> bool {
        let lease = &self.lease;
        let mask = u32::MAX.checked_shl(32 - u32::from(lease.prefix_bits)).unwrap_or(0);
        (address.to_bits() ^ lease.gateway.to_bits()) & mask == 0
    }
}
