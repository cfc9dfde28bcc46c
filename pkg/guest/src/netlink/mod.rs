//! Netlink: the kernel's news about devices, and requests about network links, addresses and routes.

mod card;
mod link;
mod message;
mod route;
mod socket;
mod uevent;

pub use card::{Card, cards};
pub use link::{LinkError, Links, NewLink};
pub use route::{Address, Route, Routes};
pub use socket::RouteSocket;
pub use uevent::{Uevent, Uevents};
