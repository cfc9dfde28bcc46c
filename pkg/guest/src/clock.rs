//! The pace of the machine's clock (`adjtimex(2)`).

use std::io;

/// Most that one call makes up for, in microseconds; a clock that is further off is to be set. adjtime's pace is 500 µs a second.
const LIMIT_MICROS: i64 = 500_000;

/// Lets the clock run faster or slower until it has gained `micros`, at most half a second either way. Takes the place of what
/// was asked for before. Needs CAP_SYS_TIME.
///
/// # Errors
/// The kernel's.
#[expect(unsafe_code, reason = "no safe library has adjtimex(2)")]
pub fn slew(micros: i64) -> io::Result<()> {
    // SAFETY: `timex` is plain numbers, for all of which zero is a value.
    let mut request: libc::timex = unsafe { std::mem::zeroed() };
    request.modes = libc::ADJ_OFFSET_SINGLESHOT;
    request.offset = micros.clamp(-LIMIT_MICROS, LIMIT_MICROS);
    // SAFETY: the kernel reads and writes `request`, which is a whole `timex`, and keeps no pointer.
    match unsafe { libc::adjtimex(&raw mut request) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
