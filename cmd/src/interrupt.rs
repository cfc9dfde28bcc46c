//! How signals end what takes long: in order first, at once then.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use kiln_build::cancel::Cancel;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::failure::INTERRUPTED;

/// A flag that the first SIGINT or SIGTERM sets; the second ends the process at once.
pub fn cancel_on_signals() -> io::Result<Cancel> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the second sees what the first did.
        signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED.into(), Arc::clone(&flag))?;
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
    }
    Ok(Cancel::on(flag))
}
