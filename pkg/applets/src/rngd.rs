//! `rngd [-1]`: feeds what the machine's random number device has to the kernel's pool. The kernel does that by itself as well,
//! only later; with `-1` whoever starts after this program finds random numbers ready.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::arguments::Flags;
use crate::{Failure, Voice};

const DEVICE: &str = "/dev/hwrng";
/// What is taken at a time: as much as the kernel's pool holds (`drivers/char/random.c`: 256 bits), twice.
const PORTION_BYTES: usize = 64;
/// How long the pool is left alone between two portions; the kernel itself takes some once a minute.
const PAUSE: Duration = Duration::from_secs(300);

/// Why there are no random numbers.
#[derive(Debug, thiserror::Error)]
enum RngdError {
    #[error("cannot add to the kernel's random numbers; the container needs CAP_SYS_ADMIN")]
    Add(#[source] io::Error),
    #[error("the kernel has no random numbers")]
    None(#[source] io::Error),
}

/// Runs the program: once, or until the process is ended.
///
/// # Errors
/// What the device gave cannot be added, or the kernel has no random numbers at all.
pub fn run(arguments: &[String], say: Voice<'_>) -> Result<(), Failure> {
    let once = Flags { valued: &[], alone: &["1"] }.read(arguments)?.has("1");
    loop {
        match portion() {
            Ok(bytes) => {
                kiln_guest::entropy::add(&bytes).map_err(|error| Failure::of(RngdError::Add(error)))?;
                if once {
                    say(&format!("{} bytes of random numbers from {DEVICE}", bytes.len()));
                }
            }
            Err(error) if once => {
                // The kernel gathers some by itself: this ends when it has enough.
                let mut byte = [0; 1];
                getrandom(&mut byte, GetRandomFlags::empty())
                    .map_err(|errno| Failure::of(RngdError::None(errno.into())))?;
                say(&format!("nothing from {DEVICE} ({error}): the kernel's own random numbers are ready"));
            }
            Err(_) => {}
        }
        if once {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
}

fn portion() -> io::Result<[u8; PORTION_BYTES]> {
    let mut bytes = [0; PORTION_BYTES];
    File::open(DEVICE)?.read_exact(&mut bytes)?;
    Ok(bytes)
}
