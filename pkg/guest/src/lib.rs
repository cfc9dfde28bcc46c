//! The few system calls that the guest programs share, each in a form that cannot be held wrongly.

pub mod cmdline;
pub mod device_mapper;
pub mod mount;
pub mod netlink;
pub mod packet;
pub mod power;
pub mod signals;
