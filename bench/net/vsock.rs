//! Sockets between host and guest: both ends of every test. In the guest a port takes all, the next one gives without end,
//! the third gives back what comes. The host reaches them through kiln's Unix sockets, or by vsock itself.

use std::ffi::{c_int, c_void};
use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::load::{micros, rate, summary, threads};
use crate::serve::BLOCK_BYTES;

const DRAIN: u32 = 1001;
const GIVE: u32 = 1002;
const ECHO: u32 = 1003;

const AF_VSOCK: c_int = 40;
const STREAM: c_int = 1;
const CLOEXEC: c_int = 0o2_000_000;
const ANY: u32 = u32::MAX;
const BACKLOG: c_int = 1024;

#[repr(C)]
struct Address {
    family: u16,
    reserved: u16,
    port: u32,
    cid: u32,
    flags: [u8; 4],
}

unsafe extern "C" {
    fn socket(family: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn bind(fd: c_int, address: *const c_void, len: u32) -> c_int;
    fn listen(fd: c_int, backlog: c_int) -> c_int;
    fn accept(fd: c_int, address: *mut c_void, len: *mut u32) -> c_int;
    fn connect(fd: c_int, address: *const c_void, len: u32) -> c_int;
}

/// A stream of the standard library works with any socket.
fn stream(fd: c_int) -> io::Result<UnixStream> {
    if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { UnixStream::from_raw_fd(fd) }) }
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn address(port: u32, cid: u32) -> Address {
    Address { family: 40, reserved: 0, port, cid, flags: [0; 4] }
}

/// The guest's side, for ever.
pub fn serve() {
    let listen_at = |port, each: fn(UnixStream)| {
        let listener = stream(unsafe { socket(AF_VSOCK, STREAM | CLOEXEC, 0) }).expect("the guest has vsock");
        let (fd, address) = (listener.as_raw_fd(), address(port, ANY));
        check(unsafe { bind(fd, (&raw const address).cast(), 16) }).expect("the port is free");
        check(unsafe { listen(fd, BACKLOG) }).expect("it listens");
        thread::spawn(move || {
            let _open = listener;
            loop {
                let caller = stream(unsafe { accept(fd, std::ptr::null_mut(), std::ptr::null_mut()) });
                drop(thread::Builder::new().stack_size(128 << 10).spawn(move || caller.map(each)));
            }
        })
    };
    listen_at(DRAIN, drain);
    listen_at(GIVE, |mut caller| while caller.write_all(&vec![7; BLOCK_BYTES]).is_ok() {});
    let last = listen_at(ECHO, echo);
    println!("@ serving");
    let _never = last.join();
}

fn drain(mut caller: UnixStream) {
    let mut block = vec![0; BLOCK_BYTES];
    let mut all: u64 = 0;
    while let Ok(count @ 1..) = caller.read(&mut block) {
        all += count as u64;
    }
    let _ = caller.write_all(&all.to_be_bytes());
}

fn echo(mut caller: UnixStream) {
    let mut block = [0; 4096];
    while let Ok(count @ 1..) = caller.read(&mut block) {
        if caller.write_all(&block[..count]).is_err() {
            return;
        }
    }
}

/// `unix:FOLDER`, where kiln has a socket for each port, `named:SOCKET`, which is told the port, or `vsock:CID`.
fn dial(place: &str, port: u32) -> UnixStream {
    let connected = match place.split_once(':') {
        Some(("unix", folder)) => UnixStream::connect(format!("{folder}/guest.{port:08x}")),
        Some(("named", path)) => UnixStream::connect(path).and_then(|mut socket| {
            socket.write_all(format!("CONNECT {port}\n").as_bytes())?;
            // `OK PORT` and not one byte more: what follows is the guest's.
            let mut byte = [0];
            while byte != *b"\n" {
                socket.read_exact(&mut byte)?;
            }
            Ok(socket)
        }),
        Some(("vsock", cid)) => stream(unsafe { socket(AF_VSOCK, STREAM | CLOEXEC, 0) }).and_then(|socket| {
            let address = address(port, cid.parse().expect("a number"));
            check(unsafe { connect(socket.as_raw_fd(), (&raw const address).cast(), 16) })?;
            Ok(socket)
        }),
        _ => panic!("{place} is no place"),
    };
    connected.expect("the guest serves")
}

/// One row, and what all of this system's processors did meanwhile.
pub fn load(test: &str, place: &str, count: u64, ms: u64) {
    let (time, before) = (Duration::from_millis(ms), busy_s());
    let row = match test {
        "up" => up(place, count, time),
        "down" => down(place, count, time),
        "rr" => request_response(place, count, time),
        "crr" => connections(place, count, time),
        other => panic!("test {other} is not known"),
    };
    println!("{row} cpu_s={:.2}", busy_s() - before);
}

/// Seconds that all processors were not idle, the guest's time in them.
fn busy_s() -> f64 {
    let all = fs::read_to_string("/proc/stat").expect("there is /proc");
    let ticks = all.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|n| n.parse::<u64>().ok());
    // The fourth and fifth are idle; a guest's are in the first two.
    ticks.take(8).enumerate().filter(|(place, _)| !matches!(place, 3 | 4)).map(|(_, n)| n).sum::<u64>() as f64 / 100.0
}

fn down(place: &str, streams: u64, time: Duration) -> String {
    let start = Instant::now();
    let all = threads(streams, |_| {
        let mut stream = dial(place, DRAIN);
        let block = vec![7; BLOCK_BYTES];
        while start.elapsed() < time {
            stream.write_all(&block).expect("the guest takes it");
        }
        stream.shutdown(Shutdown::Write).expect("the connection stands");
        let mut arrived = [0; 8];
        stream.read_exact(&mut arrived).expect("the guest has counted");
        u64::from_be_bytes(arrived)
    });
    rate(all.iter().sum(), start.elapsed())
}

fn up(place: &str, streams: u64, time: Duration) -> String {
    let start = Instant::now();
    let all = threads(streams, |_| {
        let mut stream = dial(place, GIVE);
        let mut block = vec![0; BLOCK_BYTES];
        let mut all = 0;
        while start.elapsed() < time {
            all += stream.read(&mut block).expect("the guest gives") as u64;
        }
        all
    });
    rate(all.iter().sum(), start.elapsed())
}

fn request_response(place: &str, connections: u64, time: Duration) -> String {
    let start = Instant::now();
    let took = threads(connections, |_| {
        let (mut stream, mut took, mut message) = (dial(place, ECHO), Vec::new(), [9; 64]);
        while start.elapsed() < time {
            let since = Instant::now();
            stream.write_all(&message).expect("the connection stands");
            stream.read_exact(&mut message).expect("an answer");
            took.push(micros(since));
        }
        took
    });
    summary(took.concat(), start.elapsed())
}

fn connections(place: &str, at_once: u64, time: Duration) -> String {
    let start = Instant::now();
    let took = threads(at_once, |_| {
        let mut took = Vec::new();
        while start.elapsed() < time {
            let since = Instant::now();
            let mut stream = dial(place, ECHO);
            stream.write_all(b"1").expect("the connection stands");
            stream.read_exact(&mut [0]).expect("an answer");
            drop(stream);
            took.push(micros(since));
        }
        took
    });
    summary(took.concat(), start.elapsed())
}
