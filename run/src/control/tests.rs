use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kiln_abi::{FrameKind, frame};
use kiln_net::publish::Transport;

use super::*;
use crate::cards::{OpenCard, open_all};
use crate::config::{CableEnd, Card, DEFAULT_MTU, HostPort, Publish};
use crate::console::Console;
use crate::hands::{Hands, MemoryUse, Refusal};

/// A desk with these cards, and how often its power button was pressed.
fn desk(cards: Vec<OpenCard>) -> (Desk, Console, Arc<AtomicU32>) {
    let null = || File::options().read(true).write(true).open("/dev/null").unwrap().into();
    let console = Console::over(null(), null()).unwrap();
    let pressed = Arc::<AtomicU32>::default();
    let counts = Arc::clone(&pressed);
    let power_button = Box::new(move || _ = counts.fetch_add(1, Ordering::SeqCst));
    let quit = console.quit().try_clone().unwrap();
    (Desk { cards, hands: idle(), onlookers: console.onlookers(), power_button, quit }, console, pressed)
}

fn cards(state_dir: &Path) -> Vec<OpenCard> {
    let card = Card { mac: None, mtu: DEFAULT_MTU, end: CableEnd::User(Box::default()), capture: None };
    open_all(&[card], state_dir).unwrap()
}

/// A machine with no hands of its own.
struct Idle;

impl Hands for Idle {
    fn pause(&self) -> Result<(), Refusal> {
        Ok(())
    }

    fn resume(&self) -> Result<(), Refusal> {
        Err(Refusal::NotRunning)
    }

    fn memory(&self) -> Result<MemoryUse, Refusal> {
        Ok(MemoryUse { total_bytes: 7, resident_bytes: 5, balloon: None })
    }

    fn set_balloon(&self, _target_bytes: u64) -> Result<(), Refusal> {
        Err(Refusal::NoBalloon)
    }
}

fn idle() -> Box<dyn Hands> {
    Box::new(Idle)
}

fn publish(host: HostPort) -> Request {
    Request::add(&Publish { host, guest_port: 80, transport: Transport::Tcp, tells_caller: false })
}

#[test]
fn what_is_no_request_is_refused_and_the_next_line_is_heard() {
    let folder = tempfile::tempdir().unwrap();
    let _socket = ControlSocket::open(folder.path(), desk(cards(folder.path())).0).unwrap();
    let mut stream = UnixStream::connect(folder.path().join(SOCKET)).unwrap();
    let lines = [
        ("", "no request"),
        ("nonsense", "no request"),
        ("{\"do\":\"port-list\",\"more\":1}", "no request"),
        ("{\"do\":\"port-remove\",\"card\":0,\"number\":7}", "no published port of number 7"),
        ("{\"do\":\"port-remove\",\"card\":9,\"number\":7}", "card 9 has no published port"),
        (
            "{\"do\":\"port-add\",\"host\":{\"loopback\":0},\"guest_port\":0,\"transport\":\"tcp\"}",
            "port 0 of the guest",
        ),
        ("{\"do\":\"port-list\"}", "{\"ports\":[]}"),
    ];
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    for (line, wanted) in lines {
        writeln!(stream, "{line}").unwrap();
        let mut answer = String::new();
        answers.read_line(&mut answer).unwrap();
        assert!(answer.contains(wanted), "{line}: {answer}");
    }
}

#[test]
fn a_line_without_end_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let _socket = ControlSocket::open(folder.path(), desk(vec![]).0).unwrap();
    let mut stream = UnixStream::connect(folder.path().join(SOCKET)).unwrap();
    let flood = vec![b'x'; 1 << 16];
    let mut sent = 0_u64;
    // It closes the connection at some point behind the limit.
    while sent < 64 * LINE_BYTES && stream.write_all(&flood).is_ok() {
        sent += flood.len() as u64;
    }
    assert!(sent < 64 * LINE_BYTES);
}

#[test]
fn a_port_comes_and_goes_while_the_machine_runs() {
    let folder = tempfile::tempdir().unwrap();
    let _socket = ControlSocket::open(folder.path(), desk(cards(folder.path())).0).unwrap();
    let mut client = Client::connect(folder.path()).unwrap();
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = client.ask(&publish(HostPort::At(busy.local_addr().unwrap()))).unwrap_err().to_string();
    assert!(error.contains("has it") && error.contains("in use"), "{error}");
    let added = client.ask(&publish(HostPort::At("127.0.0.1:0".parse().unwrap()))).unwrap();
    let [Port { host: PortHost::Address(address), card: 0, number, .. }] = added[..] else { panic!("{added:?}") };
    assert_eq!(client.ask(&Request::PortList {}).unwrap(), added);
    TcpListener::bind(address).unwrap_err();
    assert_eq!(client.ask(&Request::PortRemove { card: 0, number }).unwrap(), added);
    TcpListener::bind(address).unwrap();
}

#[test]
fn the_socket_is_the_users_alone_replaces_a_stale_one_and_goes_with_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    // Longer than any socket's name may be.
    let state = folder.path().join("deep/".repeat(40));
    std::fs::create_dir_all(&state).unwrap();
    assert!(matches!(Client::connect(&state), Err(AskError::NotRunning { .. })));
    let near = folder.path().join(SOCKET);
    drop(UnixListener::bind(&near).unwrap());
    std::fs::rename(&near, state.join(SOCKET)).unwrap();
    assert!(matches!(Client::connect(&state), Err(AskError::NotRunning { .. })));
    let socket = ControlSocket::open(&state, desk(vec![]).0).unwrap();
    let mode = std::fs::symlink_metadata(state.join(SOCKET)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(Client::connect(&state).unwrap().ask(&Request::PortList {}).unwrap(), []);
    drop(socket);
    assert!(!state.join(SOCKET).exists());
}

#[test]
fn the_console_is_turned_over_and_others_are_answered_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let (desk, console, pressed) = desk(vec![]);
    let quit = desk.quit.try_clone().unwrap();
    let _socket = ControlSocket::open(folder.path(), desk).unwrap();
    console.sink().write(b"login: ");
    let client = Client::connect(folder.path()).unwrap();
    assert_eq!(client.pid().unwrap(), rustix::process::getpid());
    let mut stream = client.console(true).unwrap();
    let mut seen = [0; 7];
    stream.read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"login: ");
    stream.get_mut().write_all(&frame(FrameKind::Input, b"root")).unwrap();
    let mut other = Client::connect(folder.path()).unwrap();
    other.ask(&Request::PowerButton {}).unwrap();
    assert_eq!(pressed.load(Ordering::SeqCst), 1);
    assert!(!quit.take());
    other.ask(&Request::Kill {}).unwrap();
    assert!(quit.take());
    let mut typed = vec![];
    while typed.len() < 4 {
        typed.extend(console.input().take(4));
        std::thread::yield_now();
    }
    assert_eq!(typed, b"root");
    console.sink().write(b"bye");
    console.finish().unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "bye");
}

#[test]
fn a_client_that_types_before_it_has_the_console_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _socket = ControlSocket::open(folder.path(), desk(vec![]).0).unwrap();
    let mut stream = UnixStream::connect(folder.path().join(SOCKET)).unwrap();
    stream.write_all(b"{\"do\":\"console\",\"scrollback\":true}\nearly").unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    assert!(answer.contains("asked for by itself"), "{answer}");
}
