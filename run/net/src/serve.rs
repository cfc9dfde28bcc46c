//! A link and a stream, turned until the other side is gone.

use std::io;
use std::time::Instant;

use rustix::event::{PollFlags, Timespec};

use crate::Millis;
use crate::link::{Link, Woken};
use crate::stream::{Incoming, StreamPort};

/// When nothing happened for so long, memory is given back.
const IDLE_MS: Millis = 500;

/// How often the guest is read of again, while much comes, before somebody asks what happened to the other sockets.
const READS_A_WAIT: u32 = 4;

/// Serves the guest at the other side of `port` until it goes away. The link's clock began at `start`: a link that was
/// served before keeps it. `tell` hears when nobody is at the link's other end (false), and when somebody is again.
///
/// # Errors
/// The socket's, or the host cannot say what happened to its sockets.
pub fn serve(
    link: &mut dyn Link,
    port: &mut StreamPort,
    incoming: &mut Incoming,
    start: Instant,
    tell: impl FnMut(bool),
) -> io::Result<()> {
    let result = turns(link, port, incoming, start, tell);
    link.forget(port.fd());
    result
}

fn turns(
    link: &mut dyn Link,
    port: &mut StreamPort,
    incoming: &mut Incoming,
    start: Instant,
    mut tell: impl FnMut(bool),
) -> io::Result<()> {
    let clock = || Millis::try_from(start.elapsed().as_millis()).unwrap_or(Millis::MAX);
    let joins = link.takes().segmentation;
    let (mut has_more, mut heard, mut was_up, mut reads) = (false, 0, true, 0);
    loop {
        let idle = (incoming.is_idle() || port.is_idle()).then_some(heard + IDLE_MS);
        reads = if incoming.is_flowing() && !link.is_full() { reads + 1 } else { 0 };
        let woken = match reads {
            1..READS_A_WAIT => Woken { port: true, link: false, is_late: false },
            _ => {
                reads = 0;
                wait(link, port, idle, (has_more, clock()))?
            }
        };
        let now = clock();
        if !woken.is_late {
            heard = now;
        } else if idle.is_some_and(|idle| idle <= now) {
            incoming.give_back();
            port.give_back();
        }
        if woken.port && !link.is_full() {
            match incoming.fill(port.fd()) {
                Ok(true) => incoming.frames(joins, |frame| link.from_guest(frame, port, now))?,
                Ok(false) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        has_more = if woken.link { link.turn(port, now)? } else { link.settle(port, now)? };
        if link.is_up() != was_up {
            was_up = !was_up;
            tell(was_up);
        }
        port.flush()?;
    }
}

/// Waits for something to do, or until `idle`.
fn wait(
    link: &mut dyn Link,
    port: &StreamPort,
    idle: Option<Millis>,
    (has_more, now): (bool, Millis),
) -> io::Result<Woken> {
    let mut wanted = if link.is_full() { PollFlags::empty() } else { PollFlags::IN };
    if port.is_waiting() {
        wanted |= PollFlags::OUT;
    }
    // What is left goes on when the other side takes something, or at once.
    let rest_ms = match [link.deadline(), idle].into_iter().flatten().min() {
        _ if has_more && !port.is_waiting() => Some(0),
        deadline => deadline.map(|deadline| deadline.saturating_sub(now)),
    };
    let timeout = rest_ms.map(|rest_ms| Timespec {
        tv_sec: i64::try_from(rest_ms / 1000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(rest_ms % 1000 * 1_000_000).unwrap_or(0),
    });
    link.wait(port.fd(), wanted, timeout.as_ref())
}
