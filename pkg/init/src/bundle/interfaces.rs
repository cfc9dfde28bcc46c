//! Network interfaces of a container that has a network namespace of its own.

use kiln_abi::Interface;
use kiln_guest::netlink::{LinkError, Links, NewLink};

/// A container does not get its interface.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The kernel refused.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// It is given neither in the container nor outside.
    #[error("an interface in `runtime.json` has no name")]
    Nameless,
}

/// Makes the interface, or moves an existing one, into the network namespace of process `pid`.
pub fn give(interface: &Interface, pid: u32) -> Result<(), InterfaceError> {
    if interface.name.is_empty() {
        return Err(InterfaceError::Nameless);
    }
    let links = Links::open()?;
    if interface.add.is_empty() {
        return Ok(links.enter_namespace(&interface.name, pid)?);
    }
    let peer = Some(interface.peer.as_str()).filter(|peer| !peer.is_empty());
    // A link that is made outside first can see what is there, as a vlan does its parent; a veth's other end stays.
    let outside = interface.create_in_root || interface.add == "veth";
    let namespace_pid = (!outside).then_some(pid);
    links.add(&NewLink { name: &interface.name, kind: &interface.add, peer, namespace_pid })?;
    if outside {
        links.enter_namespace(&interface.name, pid)?;
    }
    Ok(())
}
