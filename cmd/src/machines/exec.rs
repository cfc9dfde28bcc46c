//! `kiln exec`: a program in a running machine.

use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::thread;

use kiln_abi::{AGENT_VERSION, AgentProgram, AgentRequest, AgentTask, INPUT_WINDOW_BYTES};
use kiln_run::agent::{AgentError, Sender, Session};
use kiln_run::console::{RawTerminal, size_of_terminal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;

use crate::args;
use crate::failure::Failure;

/// Exit status when the program could not be asked for: no program's own, by the custom of such commands.
pub const NOT_ASKED: u8 = 125;
/// Bytes of input read at once.
const CHUNK_BYTES: usize = 32 * 1024;
const _: () = assert!(CHUNK_BYTES <= INPUT_WINDOW_BYTES);

/// Runs a program, and ends as it does.
pub fn exec(asked: &args::Exec) -> Result<(), Failure> {
    match run(asked) {
        Ok(0) => Ok(()),
        // It has said itself what there is to say.
        Ok(code) => Err(Failure::told(u8::try_from(code).unwrap_or(u8::MAX))),
        Err(failure) => Err(Failure { status: NOT_ASKED, ..failure }),
    }
}

fn run(asked: &args::Exec) -> Result<i32, Failure> {
    let stdin = io::stdin();
    let terminal = asked.tty.then(|| size_of_terminal(&stdin).unwrap_or_default());
    let mut env = asked.env.clone();
    if let (Some(_), Ok(term)) = (terminal, std::env::var("TERM")) {
        env.insert(0, format!("TERM={term}"));
    }
    let program = AgentProgram {
        command: asked.command.clone(),
        env,
        folder: asked.workdir.clone(),
        user: asked.user.clone(),
        terminal,
    };
    let session = start(&asked.name, asked.service.clone(), AgentTask::Run(program))?;
    let sender = session.sender();
    let raw = if asked.tty && asked.interactive { RawTerminal::enter(stdin.as_fd())? } else { None };
    pass_signals_on(sender.clone(), terminal.is_some() && stdin.is_terminal())?;
    let is_terminal = terminal.is_some();
    if asked.interactive {
        // It waits for input that may never come: the process ends without it.
        thread::Builder::new().name("input".into()).spawn(move || {
            let _ended = send_all(&sender, stdin, is_terminal);
        })?;
    } else if !is_terminal {
        sender.end_of_input()?;
    }
    let code = session.hear(&mut io::stdout(), &mut io::stderr());
    drop(raw);
    Ok(code?)
}

/// A request to the agent of the machine called `name`.
pub fn start(name: &std::path::Path, service: Option<String>, task: AgentTask) -> Result<Session, Failure> {
    // Tells of a machine that does not run in the same words as others do.
    super::connect(name)?;
    let request = AgentRequest { version: AGENT_VERSION, service, task };
    Session::start(&super::state_dir(name), &request).map_err(|error| match error {
        AgentError::NoAgent => {
            Failure::new(error).hint("the machine needs the service `agent`, of `pkg/agent`, and a moment to start it")
        }
        AgentError::Unreachable { .. } => Failure::new(error).hint("it was started without vsock"),
        error => Failure::new(error),
    })
}

/// Sends all of the input. The end of a terminal's input is a key, which has been sent.
fn send_all(sender: &Sender, mut input: impl Read, is_terminal: bool) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match input.read(&mut chunk) {
            Ok(0) if is_terminal => return Ok(()),
            Ok(0) => return sender.end_of_input(),
            Ok(len) => sender.input(chunk.get(..len).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Signals for this process are meant for the program.
fn pass_signals_on(sender: Sender, has_window: bool) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            let sent = match (signal, size_of_terminal(io::stdin())) {
                (SIGWINCH, Some((columns, rows))) if has_window => sender.size(columns, rows),
                (SIGWINCH, _) => Ok(()),
                (signal, _) => sender.signal(u8::try_from(signal).unwrap_or(0)),
            };
            if sent.is_err() {
                return;
            }
        }
    })?;
    Ok(())
}
