//! `kiln console`: somebody more at a machine's console.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use kiln_abi::{FrameKind, frame, size_contents};
use kiln_run::console::{RawTerminal, size_of_terminal};
use signal_hook::consts::SIGWINCH;
use signal_hook::iterator::Signals;

use crate::args;
use crate::failure::Failure;
use crate::printer::Printer;

/// Ctrl-]: leaves the console.
const LEAVE: u8 = 0x1D;
/// Bytes carried at once.
const CHUNK_BYTES: usize = 4096;

/// Shows the console and takes what is typed, until its user leaves or the machine ends.
pub fn console(asked: &args::Console, printer: &Printer) -> Result<(), Failure> {
    let mut shown = super::connect(&asked.name)?.console(true)?;
    let stream = shown.get_ref().try_clone()?;
    let terminal = RawTerminal::enter(io::stdin().as_fd())?;
    if terminal.is_some() {
        printer.note("Ctrl-] leaves the console");
        send_sizes(stream.try_clone()?)?;
    }
    let left = Arc::new(AtomicBool::new(false));
    let (is_terminal, leaves) = (terminal.is_some(), Arc::clone(&left));
    thread::Builder::new().name("typed".into()).spawn(move || {
        if send_typed(&stream, io::stdin(), is_terminal) {
            leaves.store(true, Ordering::SeqCst);
            // The other thread sees the end.
            let _gone = stream.shutdown(Shutdown::Both);
        }
    })?;
    let copied = show(&mut shown, printer);
    drop(terminal);
    let left = left.load(Ordering::SeqCst);
    // The line that the guest has begun is not ours.
    if is_terminal {
        printer.note(if left { "\nleft the console; the machine runs on" } else { "\nthe machine has ended" });
    }
    if left { Ok(()) } else { Ok(copied?) }
}

fn show(shown: &mut impl Read, printer: &Printer) -> io::Result<()> {
    let mut chunk = [0; CHUNK_BYTES];
    loop {
        match shown.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(len) => printer.data(chunk.get(..len).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A machine that was killed had no time for a farewell.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Sends what is typed; true when its user leaves. The end of the input ends nothing.
fn send_typed(mut stream: &UnixStream, mut typed: impl Read, is_terminal: bool) -> bool {
    let mut chunk = [0; CHUNK_BYTES];
    loop {
        let len = match typed.read(&mut chunk) {
            Ok(0) => return false,
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return false,
        };
        let typed = chunk.get(..len).unwrap_or_default();
        let leaves = typed.iter().position(|key| is_terminal && *key == LEAVE);
        let sent = typed.get(..leaves.unwrap_or(len)).unwrap_or_default();
        let is_gone = !sent.is_empty() && stream.write_all(&frame(FrameKind::Input, sent)).is_err();
        if leaves.is_some() || is_gone {
            return leaves.is_some();
        }
    }
}

/// Sends the window's size now, and whenever it changes.
fn send_sizes(mut stream: UnixStream) -> io::Result<()> {
    let mut changes = Signals::new([SIGWINCH])?;
    let mut send = move || {
        let size = size_of_terminal(io::stdin());
        size.is_some_and(|(columns, rows)| {
            stream.write_all(&frame(FrameKind::Size, &size_contents(columns, rows))).is_ok()
        })
    };
    if send() {
        thread::Builder::new()
            .name("window".into())
            .spawn(move || changes.forever().take_while(|_| send()).for_each(drop))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kiln_abi::read_frame;

    use super::*;

    fn sent(typed: &[u8], is_terminal: bool) -> (bool, Vec<u8>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let leaves = send_typed(&ours, typed, is_terminal);
        drop(ours);
        let (mut all, mut contents) = (vec![], vec![]);
        while let Some(kind) = read_frame(&mut theirs, &mut contents).unwrap() {
            assert_eq!(kind, FrameKind::Input);
            all.extend(&contents);
        }
        (leaves, all)
    }

    #[test]
    fn only_ctrl_bracket_at_a_terminal_leaves() {
        assert_eq!(sent(b"ls\n\x01x\x03", true), (false, b"ls\n\x01x\x03".to_vec()));
        assert_eq!(sent(b"ls\n\x1dmore", true), (true, b"ls\n".to_vec()));
        assert_eq!(sent(b"\x1d", true), (true, vec![]));
        assert_eq!(sent(b"a\x1db", false), (false, b"a\x1db".to_vec()));
    }
}
