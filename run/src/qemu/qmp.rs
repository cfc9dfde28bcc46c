//! The part of QEMU's control protocol that a run needs: hear why the machine stops, press its power button, plug and
//! unplug its cables, end it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use super::command;

/// Longest line that is read. QEMU's longest, its greeting, has about 200 bytes.
const LINE_BYTES: u64 = 1 << 20;

/// Why QEMU says that the machine stopped (`ShutdownCause` in its QMP reference).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    GuestShutdown,
    GuestReset,
    GuestPanic,
    Host,
}

/// What the run asks of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Capabilities,
    PowerButton,
    /// The other end of a network card's cable is there or not; by the card's number.
    Link {
        card: usize,
        is_up: bool,
    },
    Quit,
}

impl Request {
    fn line(self) -> String {
        let request = match self {
            Self::Capabilities => json!({"execute": "qmp_capabilities"}),
            Self::PowerButton => json!({"execute": "system_powerdown"}),
            Self::Link { card, is_up } => {
                json!({"execute": "set_link", "arguments": {"name": command::cable_name(card), "up": is_up}})
            }
            Self::Quit => json!({"execute": "quit"}),
        };
        format!("{request}\n")
    }
}

pub(super) fn send(mut socket: &UnixStream, request: Request) -> io::Result<()> {
    socket.write_all(request.line().as_bytes())
}

/// Calls `hear` for each cause until QEMU closes its end or says something that is no line of the protocol.
pub(super) fn listen(socket: UnixStream, mut hear: impl FnMut(Cause)) {
    let mut reader = BufReader::new(socket);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(read) if read > 0 && line.ends_with(b"\n") => {}
            _ => return,
        }
        if let Some(cause) = serde_json::from_slice(&line).ok().as_ref().and_then(cause_of) {
            hear(cause);
        }
    }
}

fn cause_of(message: &Value) -> Option<Cause> {
    match message.get("event")?.as_str()? {
        "GUEST_PANICKED" => Some(Cause::GuestPanic),
        "SHUTDOWN" => Some(match message.get("data")?.get("reason")?.as_str()? {
            "guest-shutdown" => Cause::GuestShutdown,
            "guest-reset" => Cause::GuestReset,
            "guest-panic" => Cause::GuestPanic,
            _ => Cause::Host,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(text: &str) -> Vec<Cause> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(text.as_bytes()).unwrap();
        drop(theirs);
        let mut causes = Vec::new();
        listen(ours, |cause| causes.push(cause));
        causes
    }

    #[test]
    fn a_request_is_a_line() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        send(&ours, Request::Capabilities).unwrap();
        send(&ours, Request::Link { card: 2, is_up: false }).unwrap();
        drop(ours);
        let mut text = String::new();
        theirs.read_to_string(&mut text).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let link = json!({"execute": "set_link", "arguments": {"name": "net2", "up": false}});
        assert_eq!(lines, [json!({"execute": "qmp_capabilities"}), link]);
    }

    #[test]
    fn what_is_no_event_is_passed_over() {
        assert_eq!(heard(""), []);
        assert_eq!(heard("garbage\n[1]\n{\"return\":{}}\n{\"event\":7}\n{\"event\":\"SHUTDOWN\"}\n"), []);
        assert_eq!(heard("{\"event\":\"STOP\"}"), []);
    }

    #[test]
    fn each_cause_is_told_apart() {
        let event =
            |reason: &str| format!("{{\"event\":\"SHUTDOWN\",\"data\":{{\"guest\":true,\"reason\":\"{reason}\"}}}}\n");
        let text = format!(
            "{}{}{{\"event\":\"GUEST_PANICKED\",\"data\":{{\"action\":\"poweroff\"}}}}\n{}",
            event("guest-shutdown"),
            event("guest-reset"),
            event("host-signal")
        );
        assert_eq!(heard(&text), [Cause::GuestShutdown, Cause::GuestReset, Cause::GuestPanic, Cause::Host]);
    }
}
