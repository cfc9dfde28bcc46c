//! Brings what is typed, and changes of the terminal's size, to the devices. Runs on an event thread.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::net::UnixStream,
};

use rustix::termios::tcgetwinsize;
use signal_hook::{SigId, consts::SIGWINCH, low_level};

use super::{ConsoleInput, TerminalSize, escape::Escape};
use crate::event::{EventHandler, Flag, Interest};

/// Bytes read at once.
const CHUNK_BYTES: usize = 1024;

const TYPED: u32 = 0;
const ROOM: u32 = 1;
const RESIZED: u32 = 2;

/// How standard input can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// It tells when there is something to read.
    Watched,
    /// There was no room for what was typed: it is not read until there is.
    Paused,
    /// A file: there is always something to read, or the end.
    Always,
    /// It has ended.
    Ended,
}

/// Reads standard input for the device that is the console.
pub(super) struct Pump {
    stdin: File,
    input: ConsoleInput,
    waiting: Waiting,
    /// On a terminal: keys for this program, and where to say that the user wants to quit.
    escape: Option<(Escape, Flag)>,
    size: Option<(TerminalSize, Resizes)>,
}

impl Pump {
    /// Reads `stdin`. With `quit`, it is a terminal whose user may leave.
    pub fn new(stdin: File, input: ConsoleInput, quit: Option<Flag>, size: Option<TerminalSize>) -> io::Result<Self> {
        let size = size.map(|size| Ok::<_, io::Error>((size, Resizes::new()?))).transpose()?;
        let escape = quit.map(|quit| (Escape::default(), quit));
        Ok(Self { stdin, input, waiting: Waiting::Watched, escape, size })
    }

    /// Reads once; false if there is no more room, or nothing more to read now.
    fn read(&mut self, interest: &mut Interest<'_>) -> bool {
        let mut typed = [0; CHUNK_BYTES];
        // An escape that turns out to be none gives one byte more than was read.
        let room = self.input.room_bytes().saturating_sub(1).min(CHUNK_BYTES);
        let Some(typed) = typed.get_mut(..room).filter(|typed| !typed.is_empty()) else {
            self.pause(interest);
            return false;
        };
        let len = match self.stdin.read(typed) {
            Ok(0) => {
                self.end(interest);
                return false;
            }
            Ok(len) => len,
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                return false;
            }
            // The terminal is gone.
            Err(_) => {
                self.end(interest);
                return false;
            }
        };
        let typed = typed.get(..len).unwrap_or_default();
        match &mut self.escape {
            None => self.input.put(typed),
            Some((escape, quit)) => {
                let (passed, quits) = escape.filter(typed);
                self.input.put(&passed);
                if quits {
                    quit.raise();
                }
            }
        }
        true
    }

    fn pause(&mut self, interest: &mut Interest<'_>) {
        if self.waiting == Waiting::Watched {
            interest.ignore(&self.stdin);
            self.waiting = Waiting::Paused;
        }
    }

    fn end(&mut self, interest: &mut Interest<'_>) {
        interest.ignore(&self.stdin);
        self.waiting = Waiting::Ended;
    }

    fn resume(&mut self, interest: &mut Interest<'_>) {
        self.input.room().take();
        match self.waiting {
            // What could be watched before can be watched again.
            Waiting::Paused if self.input.room_bytes() > 1 && interest.watch(&self.stdin, TYPED).is_ok() => {
                self.waiting = Waiting::Watched;
            }
            Waiting::Always => while self.read(interest) {},
            _ => {}
        }
    }
}

impl EventHandler for Pump {
    fn start(&mut self, interest: &mut Interest<'_>) -> io::Result<()> {
        interest.watch(self.input.room(), ROOM)?;
        if let Some((_, resizes)) = &self.size {
            interest.watch(&resizes.told, RESIZED)?;
        }
        match interest.watch(&self.stdin, TYPED) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.waiting = Waiting::Always;
                while self.read(interest) {}
                Ok(())
            }
            result => result,
        }
    }

    fn ready(&mut self, token: u32, interest: &mut Interest<'_>) {
        match token {
            TYPED => {
                self.read(interest);
            }
            ROOM => self.resume(interest),
            _ => {
                let Some((size, resizes)) = &mut self.size else { return };
                resizes.clear();
                if let Ok(now) = tcgetwinsize(&self.stdin) {
                    size.set(now.ws_col, now.ws_row);
                }
            }
        }
    }
}

/// Tells of changes of the terminal's size (SIGWINCH) for as long as it lives.
struct Resizes {
    told: UnixStream,
    signal: SigId,
}

impl Resizes {
    fn new() -> io::Result<Self> {
        let (told, tell) = UnixStream::pair()?;
        told.set_nonblocking(true)?;
        Ok(Self { told, signal: low_level::pipe::register(SIGWINCH, tell)? })
    }

    fn clear(&mut self) {
        // Ends when nothing more is there.
        while self.told.read(&mut [0; 16]).is_ok_and(|len| len > 0) {}
    }
}

impl Drop for Resizes {
    fn drop(&mut self) {
        low_level::unregister(self.signal);
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::fd::OwnedFd};

    use rustix::{
        event::{PollFd, PollFlags, poll},
        pipe::{PipeFlags, pipe_with},
    };

    use super::*;
    use crate::event::EventThread;

    /// Takes `len` bytes, as a device does that is told when there is more.
    fn take(input: &ConsoleInput, len: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < len {
            all.extend(input.take(len - all.len()));
            if all.len() < len {
                poll(&mut [PollFd::new(input.ready(), PollFlags::IN)], None).unwrap();
                input.ready().take();
            }
        }
        all
    }

    fn pump(stdin: impl Into<OwnedFd>, quit: Option<Flag>) -> (EventThread, ConsoleInput) {
        let input = ConsoleInput::new().unwrap();
        let thread = EventThread::start("test").unwrap();
        let stdin = File::from(stdin.into());
        thread.events().add(Box::new(Pump::new(stdin, input.clone(), quit, None).unwrap())).unwrap();
        (thread, input)
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect()
    }

    #[test]
    fn a_pipe_is_read_no_faster_than_the_guest_takes_it() {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (_thread, input) = pump(read, None);
        let writer = std::thread::spawn(move || File::from(write).write_all(&bytes(300_000)));
        assert_eq!(take(&input, 300_000), bytes(300_000));
        writer.join().unwrap().unwrap();
    }

    #[test]
    fn a_file_is_read_to_its_end() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes(20_000)).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        let (_thread, input) = pump(file, None);
        assert_eq!(take(&input, 20_000), bytes(20_000));
        assert!(input.is_empty());
    }

    #[test]
    fn the_end_of_input_ends_nothing() {
        let (_thread, input) = pump(File::open("/dev/null").unwrap(), None);
        assert!(input.is_empty());
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        drop(write);
        let (thread, _) = pump(read, None);
        let input = ConsoleInput::new().unwrap();
        // The thread is alive and well.
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        thread.events().add(Box::new(Pump::new(read.into(), input.clone(), None, None).unwrap())).unwrap();
        File::from(write).write_all(b"later").unwrap();
        assert_eq!(take(&input, 5), b"later");
    }

    #[test]
    fn only_a_terminals_user_can_quit() {
        let quit = Flag::new().unwrap();
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (_thread, input) = pump(read, Some(quit.try_clone().unwrap()));
        File::from(write).write_all(b"ls\x01x").unwrap();
        poll(&mut [PollFd::new(&quit, PollFlags::IN)], None).unwrap();
        assert_eq!(take(&input, 2), b"ls");
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (_thread, input) = pump(read, None);
        File::from(write).write_all(b"ls\x01x").unwrap();
        assert_eq!(take(&input, 4), b"ls\x01x");
    }
}
