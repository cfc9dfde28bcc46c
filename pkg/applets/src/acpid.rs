//! `acpid`: when the power button is pressed, asks PID 1 to stop everything in order and power the machine off. kiln's own
//! init listens to the button itself; asking it twice is asking once.

use std::io;
use std::os::fd::AsFd;

use kiln_guest::buttons::{self, Button};
use kiln_guest::netlink::Uevents;
use kiln_guest::power::{self, Power};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{Failure, Voice};

/// So often it looks for new buttons where the kernel does not tell of devices.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Why nobody listens any more.
#[derive(Debug, thiserror::Error)]
enum AcpidError {
    #[error("cannot wait for the power button")]
    Wait(#[source] io::Error),
    #[error("cannot ask PID 1 to power the machine off; the container needs `pid: host` and root's rights")]
    Ask(#[source] io::Error),
}

/// Listens until the process is ended. Words that other programs of this name take are passed over.
///
/// # Errors
/// The kernel's, when it cannot wait or PID 1 cannot be asked.
pub fn run(_arguments: &[String], say: Voice<'_>) -> Result<(), Failure> {
    // Without it the buttons are looked for from time to time.
    let mut uevents = Uevents::listen().ok();
    let mut buttons: Vec<Button> = vec![];
    let mut said = false;
    loop {
        let new = buttons::find(&buttons);
        if buttons.is_empty() && !new.is_empty() {
            say("listening to the power button");
        }
        buttons.extend(new);
        if buttons.is_empty() && !said {
            say("no power button yet: waiting for one");
            said = true;
        }
        wait(&buttons, uevents.as_ref())?;
        // Whatever the news: the buttons are looked for again.
        while let Some(Ok(Some(_))) = uevents.as_mut().map(Uevents::receive) {}
        let mut pressed = false;
        buttons.retain(|button| match button.pressed() {
            Ok(now) => {
                pressed |= now;
                true
            }
            // The device is gone.
            Err(_) => false,
        });
        if pressed {
            say("the power button was pressed: powering off");
            power::request(Power::Off).map_err(|error| Failure::of(AcpidError::Ask(error)))?;
        }
    }
}

fn wait(buttons: &[Button], uevents: Option<&Uevents>) -> Result<(), Failure> {
    let mut watched: Vec<PollFd<'_>> = buttons.iter().map(|button| button.as_fd()).map(readable).collect();
    watched.extend(uevents.map(AsFd::as_fd).map(readable));
    match poll(&mut watched, Some(&LOOK_EVERY)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(Failure::of(AcpidError::Wait(errno.into()))),
    }
}

fn readable(descriptor: std::os::fd::BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::from_borrowed_fd(descriptor, PollFlags::IN)
}
