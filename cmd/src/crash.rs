//! A panic is a mistake of ours: its user gets one line that says so, and status 1, not a stack of names.

use std::panic::{self, AssertUnwindSafe};

use crate::printer::Printer;

/// From now on panics of any thread are told through the printer.
pub fn tell_through(printer: &Printer) {
    let printer = printer.clone();
    let with_backtrace = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if with_backtrace {
            usual(info);
        }
        let place = info.location().map(|place| format!(" at {}:{}", place.file(), place.line())).unwrap_or_default();
        let what = info.payload_as_str().unwrap_or("no message");
        printer.crash(&format!("this is a mistake in kiln, not yours: {what}{place}; please report it"));
        if cfg!(panic = "abort") {
            // Nothing unwinds, so nothing else would set the status.
            std::process::exit(crate::failure::FAILED.into());
        }
    }));
}

/// The result of `work`, or `None` when it panicked, which was told by then.
pub fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    panic::catch_unwind(AssertUnwindSafe(work)).ok()
}
