//! The few system calls that the guest programs share.
