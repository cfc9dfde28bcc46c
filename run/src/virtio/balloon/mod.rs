//! The traditional memory balloon (section 5.5): the guest hands memory back when it is asked to (inflating), and by itself
//! what it has free (free page reporting). What it hands back the host takes at once, and gives anew, as zeros, when the
//! guest touches it again.

mod device;
mod handle;
mod spec;
mod worker;

pub use device::VirtioBalloon;
pub use handle::{BalloonHandle, BalloonState, GuestStats};

#[cfg(test)]
mod tests;
