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
    /// The watchdog ran down; the machine runs on.
    Hang,
    /// No operating system started in time.
    NotBooted,
    Host,
}

/// What QEMU tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It obeys the first request: all devices are there, and the processors run.
    Runs,
    /// Why the machine stops, or should.
    Cause(Cause),
    /// Memory that the balloon leaves to the guest, in bytes.
    Left(u64),
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
    /// Hold the guest's processors.
    Pause,
    /// Let them go on.
    Resume,
    /// Leave so many bytes of memory to the guest.
    Leave(u64),
    /// Tell of the I/O APIC.
    Pins,
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
            Self::Pause => json!({"execute": "stop"}),
            Self::Resume => json!({"execute": "cont"}),
            Self::Pins => {
                json!({"execute": "human-monitor-command", "arguments": {"command-line": "info pic"}})
            }
            Self::Leave(bytes) => json!({"execute": "balloon", "arguments": {"value": bytes}}),
        };
        format!("{request}\n")
    }
}

pub(super) fn send(mut socket: &UnixStream, request: Request) -> io::Result<()> {
    socket.write_all(request.line().as_bytes())
}

/// Calls `hear` for all that is told until QEMU closes its end or says something that is no line of the protocol.
pub(super) fn listen(socket: UnixStream, mut hear: impl FnMut(Told)) {
    let mut reader = BufReader::new(socket);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(read) if read > 0 && line.ends_with(b"\n") => {}
            _ => return,
        }
        if let Some(told) = serde_json::from_slice(&line).ok().as_ref().and_then(told) {
            hear(told);
        }
    }
}

fn told(message: &Value) -> Option<Told> {
    if let Some(answer) = message.get("return") {
        // Only one request is answered with text. Who takes interrupts of the I/O APIC's is an operating system.
        let Some(pins) = answer.as_str() else { return Some(Told::Runs) };
        return (!uses_pins(pins)).then_some(Told::Cause(Cause::NotBooted));
    }
    let data = message.get("data");
    let cause = match message.get("event")?.as_str()? {
        "GUEST_PANICKED" => Cause::GuestPanic,
        "WATCHDOG" => Cause::Hang,
        "BALLOON_CHANGE" => return Some(Told::Left(data?.get("actual")?.as_u64()?)),
        "SHUTDOWN" => match data?.get("reason")?.as_str()? {
            "guest-shutdown" => Cause::GuestShutdown,
            "guest-reset" => Cause::GuestReset,
            "guest-panic" => Cause::GuestPanic,
            _ => Cause::Host,
        },
        _ => return None,
    };
    Some(Told::Cause(cause))
}

/// `info pic` has a line for each pin, with the word `masked` if it is.
fn uses_pins(text: &str) -> bool {
    text.lines().any(|line| line.trim_start().starts_with("pin ") && !line.contains("masked"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(text: &str) -> Vec<Told> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(text.as_bytes()).unwrap();
        drop(theirs);
        let mut all = Vec::new();
        listen(ours, |told| all.push(told));
        all
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
        assert_eq!(heard("garbage\n[1]\n{\"event\":7}\n{\"event\":\"SHUTDOWN\"}\n"), []);
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
        let causes = [Cause::GuestShutdown, Cause::GuestReset, Cause::GuestPanic, Cause::Host];
        let text = format!("{{\"return\":{{}}}}\n{text}");
        let [Told::Runs, told @ ..] = &heard(&text)[..] else { panic!("nothing heard") };
        assert_eq!(told, causes.map(Told::Cause));
    }

    #[test]
    fn pins_that_are_all_masked_mean_that_no_system_runs() {
        let said =
            |edge: &str| format!("{{\"return\": \"ioapic0: ver=0x20\\r\\n  pin 4  0x10000 dest=0 {edge}\\r\\n\"}}\n");
        assert_eq!(heard(&said("edge masked fixed")), [Told::Cause(Cause::NotBooted)]);
        assert_eq!(heard(&said("edge        fixed")), []);
    }

    #[test]
    fn a_watchdog_and_a_balloon_are_heard() {
        let text = concat!(
            "{\"event\":\"WATCHDOG\",\"data\":{\"action\":\"none\"}}\n",
            "{\"event\":\"BALLOON_CHANGE\",\"data\":{\"actual\":1048576}}\n",
            "{\"event\":\"BALLOON_CHANGE\",\"data\":{\"actual\":-1}}\n",
        );
        assert_eq!(heard(text), [Told::Cause(Cause::Hang), Told::Left(1 << 20)]);
    }
}
