//! The few system calls that the guest programs share, each in a form that cannot be held wrongly.

pub mod block;
pub mod buttons;
pub mod clock;
pub mod cmdline;
pub mod device_mapper;
pub mod entropy;
pub mod external_log;
pub mod host_name;
pub mod log_file;
pub mod modules;
pub mod mount;
pub mod netlink;
pub mod packet;
pub mod power;
pub mod signals;
pub mod socket;
pub mod swap;
pub mod vsock;
