//! The machine's end: a thread that answers one after the other.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use kiln_net::publish::{SocketFile, listen_at};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::SocketType;

use super::words::{Answer, Port, Request};
use super::{ControlError, LINE_BYTES, SOCKET};
use crate::cards::{OpenCard, open_port};
use crate::config::{MAX_PUBLISHED, Publish};
use crate::console::{BeginsWith, Onlookers, Types};
use crate::event::Flag;
use crate::hands::{Hands, Refusal};
use crate::host::Folder;

/// How long one who is connected may be silent: nobody else is answered meanwhile.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is asked for, at the machine.
pub struct Desk {
    /// Its network cards.
    pub cards: Vec<OpenCard>,
    /// Pauses it, and asks for its memory.
    pub hands: Box<dyn Hands>,
    /// Those who look on at its console.
    pub onlookers: Onlookers,
    /// Presses its power button.
    pub power_button: Box<dyn Fn() + Send>,
    /// Raised to end it at once.
    pub quit: Flag,
}

/// The socket of a running machine. It goes when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    stop: Flag,
    thread: Option<JoinHandle<()>>,
    _file: SocketFile,
    _folder: Folder,
}

impl ControlSocket {
    /// Listens in `state_dir`, which is this machine's. What a machine left there that was killed is replaced.
    ///
    /// # Errors
    /// The host's: the folder is not writable, or there are no more descriptors or threads.
    pub fn open(state_dir: &Path, desk: Desk) -> Result<Self, ControlError> {
        let failed = |source| ControlError { path: state_dir.join(SOCKET), source };
        let folder = Folder::open(state_dir).map_err(failed)?;
        let (socket, file) = listen_at(&folder.file(SOCKET), SocketType::STREAM).map_err(failed)?;
        let listener = UnixListener::from(socket);
        let stop = Flag::new().map_err(failed)?;
        let stopped = stop.try_clone().map_err(failed)?;
        let serve = move || serve(&listener, &desk, &stopped);
        let thread = Builder::new().name("control".into()).spawn(serve).map_err(failed)?;
        Ok(Self { stop, thread: Some(thread), _file: file, _folder: folder })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.stop.raise();
        // A panic of the thread is our own mistake; the panic hook has told of it.
        let _broke_down = self.thread.take().map(JoinHandle::join);
    }
}

fn serve(listener: &UnixListener, desk: &Desk, stopped: &Flag) {
    loop {
        let mut waits = [PollFd::new(listener, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        match poll(&mut waits, None) {
            Ok(_) if waits.iter().skip(1).any(|stopped| !stopped.revents().is_empty()) => return,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        if let Ok((client, _)) = listener.accept() {
            // Whoever goes away or says too much misses the answer.
            let _gone = attend(&client, desk);
        }
    }
}

/// Answers one client, line by line, until it is silent, goes, or gets the console.
fn attend(client: &UnixStream, desk: &Desk) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(client);
    let mut line = Vec::new();
    loop {
        line.clear();
        reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        let is_whole = line.ends_with(b"\n");
        let request = match serde_json::from_slice(&line) {
            Ok(Request::Console { scrollback }) if reader.buffer().is_empty() => {
                return show_console(client, scrollback, &desk.onlookers);
            }
            Ok(Request::Console { .. }) => Err("the console is asked for by itself".to_owned()),
            Ok(request) => Ok(request),
            Err(error) => Err(format!("this is no request: {error}")),
        };
        send(client, &request.map_or_else(refusal, |request| answer(request, desk)))?;
        if !is_whole {
            return Ok(());
        }
    }
}

fn send(mut client: &UnixStream, answer: &Answer) -> io::Result<()> {
    let mut text = serde_json::to_vec(answer)?;
    text.push(b'\n');
    client.write_all(&text)
}

/// Turns the connection over.
fn show_console(client: &UnixStream, scrollback: bool, onlookers: &Onlookers) -> io::Result<()> {
    // The answer comes first.
    send(client, &Answer::default())?;
    client.set_read_timeout(None)?;
    client.set_write_timeout(None)?;
    client.set_nonblocking(true)?;
    let begin = if scrollback { BeginsWith::Scrollback } else { BeginsWith::WhatComes };
    onlookers.add(client.try_clone()?.into(), Types::InFrames, begin)
}

fn refusal(error: String) -> Answer {
    Answer { error: Some(error), ..Answer::default() }
}

fn answer(request: Request, desk: &Desk) -> Answer {
    let Desk { cards, hands, .. } = desk;
    match request {
        // Given before: it has the connection.
        Request::Console { .. } => Answer::default(),
        Request::PowerButton {} => {
            (desk.power_button)();
            Answer::default()
        }
        Request::Kill {} => {
            desk.quit.raise();
            Answer::default()
        }
        Request::PortList {} => Answer { ports: list(cards), ..Answer::default() },
        Request::PortAdd { host, guest_port, transport, tells_caller } => {
            let publish = Publish { host: host.into(), guest_port, transport: transport.into(), tells_caller };
            add(&publish, cards)
        }
        Request::PortRemove { card, number } => {
            let ports = cards.get(card).and_then(|card| card.ports.as_ref());
            match ports.and_then(|ports| ports.remove(number)) {
                Some(published) => Answer { ports: vec![Port::new(card, (number, published))], ..Answer::default() },
                None => refusal(format!("the network card {card} has no published port of number {number}")),
            }
        }
        Request::Pause {} => done(hands.pause()),
        Request::Resume {} => done(hands.resume()),
        Request::Balloon { target_bytes } => done(hands.set_balloon(target_bytes)),
        Request::Memory {} => match hands.memory() {
            Ok(memory) => Answer { memory: Some(memory), ..Answer::default() },
            Err(why_not) => refusal(why_not.to_string()),
        },
    }
}

fn done(result: Result<(), Refusal>) -> Answer {
    result.map_or_else(|why_not| refusal(why_not.to_string()), |()| Answer::default())
}

fn list(cards: &[OpenCard]) -> Vec<Port> {
    let ports = cards.iter().enumerate().filter_map(|(at, card)| Some((at, card.ports.as_ref()?)));
    ports.flat_map(|(at, ports)| ports.list().into_iter().map(move |port| Port::new(at, port))).collect()
}

/// One more port for the first card that has such.
fn add(publish: &Publish, cards: &[OpenCard]) -> Answer {
    let mut ports = cards.iter().enumerate().filter_map(|(at, card)| Some((at, card.ports.as_ref()?)));
    let Some((card, ports)) = ports.next() else {
        return refusal("the machine has no card on the user-mode network".into());
    };
    if publish.guest_port == 0 {
        return refusal("port 0 of the guest cannot be published: nothing listens there".into());
    }
    if ports.list().len() >= MAX_PUBLISHED {
        return refusal(format!("at most {MAX_PUBLISHED} ports can be published"));
    }
    match open_port(publish, ports) {
        Ok(opened) => {
            let ports = opened.into_iter().map(|port| Port::new(card, port)).collect();
            Answer { ports, ..Answer::default() }
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            refusal(format!("{error}{cause}"))
        }
    }
}
