//! The terminal comes back whatever ends the program that made it raw. This binary is that program too, when it is
//! given a way to end; only a program of its own can be killed and looked at from outside.

use std::{
    env,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    process::{Command, Stdio, abort},
};

use kiln_run::console::{RawTerminal, watch_if_asked};
use rustix::{
    pipe::pipe,
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{InputModes, LocalModes, OutputModes, tcgetattr},
};

/// Marks the argument that names the way to end.
const WAY: &str = "--leave-by=";

fn main() -> io::Result<()> {
    if watch_if_asked() {
        return Ok(());
    }
    if let Some(way) = env::args().nth(1).and_then(|word| Some(word.strip_prefix(WAY)?.to_owned())) {
        return leave(&way);
    }
    for way in ["return", "error", "panic", "abort"] {
        the_terminal_is_restored_after(way, None);
    }
    let ignored = ignored_signals();
    for signal in [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::ABORT] {
        // A shell that runs this in the background has it, and all that it starts, ignore Ctrl-C.
        if ignored >> (signal.as_raw() - 1) & 1 == 0 {
            the_terminal_is_restored_after("signal", Some(signal));
        }
    }
    what_is_no_terminal_is_left_alone();
    a_shell_that_set_its_own_modes_keeps_them();
    Ok(())
}

/// Signals that this process, and so its children, were started to ignore: bit n-1 for signal n.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs is mounted");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("Linux tells it");
    u64::from_str_radix(mask.trim(), 16).expect("a hexadecimal number")
}

/// The program under test.
fn leave(way: &str) -> io::Result<()> {
    let guard = RawTerminal::enter(io::stdin().as_fd())?;
    writeln!(io::stdout(), "{}", if guard.is_some() { "raw" } else { "no terminal" })?;
    match way {
        "return" => Ok(()),
        "error" => Err(io::ErrorKind::Other.into()),
        "panic" => panic!("as asked"),
        "abort" => abort(),
        // Until a signal comes.
        _ => io::stdin().read_to_end(&mut Vec::new()).map(drop),
    }
}

/// A terminal of our own: the end that a program sees, and the end that keeps it alive.
fn terminal() -> (OwnedFd, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
    grantpt(&master).expect("a terminal of our own");
    unlockpt(&master).expect("a terminal of our own");
    let name = ptsname(&master, Vec::new()).expect("a terminal has a name");
    let name = name.to_str().expect("a plain name");
    let slave = OpenOptions::new().read(true).write(true).open(name).expect("the other end");
    (slave.into(), master)
}

fn modes(terminal: &OwnedFd) -> (InputModes, LocalModes, OutputModes) {
    let modes = tcgetattr(terminal).expect("a terminal has modes");
    (modes.input_modes, modes.local_modes, modes.output_modes)
}

/// The program under test once it is raw, and a pipe that ends when the program and the child that watches it have.
fn raw_program(way: &str, terminal: &OwnedFd) -> (std::process::Child, File) {
    let (ended, alive) = pipe().expect("a pipe");
    let mut child = Command::new(env::current_exe().expect("our own path"))
        .arg(format!("{WAY}{way}"))
        .stdin(terminal.try_clone().expect("a descriptor"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("this program starts");
    drop(alive);
    let mut said = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut said).expect("a line");
    assert_eq!(said, "raw\n");
    (child, File::from(ended))
}

fn the_terminal_is_restored_after(way: &str, signal: Option<Signal>) {
    let (terminal, _master) = terminal();
    let before = modes(&terminal);
    let (mut child, mut ended) = raw_program(way, &terminal);
    if let Some(signal) = signal {
        assert_ne!(modes(&terminal), before);
        kill_process(Pid::from_child(&child), signal).expect("our own child");
    }
    let status = child.wait().expect("our own child");
    let by_signal = signal.is_some() || way == "abort" || cfg!(panic = "abort") && way == "panic";
    assert_eq!(status.signal().is_some(), by_signal, "{status}");
    ended.read_to_end(&mut Vec::new()).expect("a pipe");
    assert_eq!(modes(&terminal), before, "{way} {signal:?}");
}

fn what_is_no_terminal_is_left_alone() {
    let (end, _other) = pipe().expect("a pipe");
    assert!(RawTerminal::enter(end.as_fd()).expect("nothing to do").is_none());
}

fn a_shell_that_set_its_own_modes_keeps_them() {
    let (terminal, _master) = terminal();
    let (mut child, mut ended) = raw_program("signal", &terminal);
    let mut own = tcgetattr(&terminal).expect("a terminal has modes");
    own.local_modes |= LocalModes::ISIG;
    rustix::termios::tcsetattr(&terminal, rustix::termios::OptionalActions::Now, &own).expect("modes can be set");
    child.kill().expect("our own child");
    child.wait().expect("our own child");
    ended.read_to_end(&mut Vec::new()).expect("a pipe");
    assert_eq!(modes(&terminal), (own.input_modes, own.local_modes, own.output_modes));
}
