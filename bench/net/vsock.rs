//! Sockets between host and guest: both ends of every test. In the guest a port takes all, the next one gives without end,
//! the third gives back what comes. The host reaches them through kiln's Unix sockets, or by vsock itself.

use std::ffi::{c_int, c_void};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use crate::exchange::{ask, drain, echo, give, receive, repeat, send};

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

/// Length of `struct sockaddr_vm`.
const ADDRESS_BYTES: u32 = 16;
const _: () = assert!(size_of::<Address>() == ADDRESS_BYTES as usize);

unsafe extern "C" {
    fn socket(family: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn bind(fd: c_int, address: *const c_void, len: u32) -> c_int;
    fn listen(fd: c_int, backlog: c_int) -> c_int;
    fn accept(fd: c_int, address: *mut c_void, len: *mut u32) -> c_int;
    fn connect(fd: c_int, address: *const c_void, len: u32) -> c_int;
}

/// A stream of the standard library works with any socket. `fd` is what the kernel has just returned for a new one.
fn stream(fd: c_int) -> io::Result<UnixStream> {
    check(fd)?;
    // SAFETY: the file descriptor is open, and nobody else has it.
    Ok(unsafe { UnixStream::from_raw_fd(fd) })
}

fn new_socket() -> io::Result<UnixStream> {
    // SAFETY: the call takes three numbers and touches no memory.
    stream(unsafe { socket(AF_VSOCK, STREAM | CLOEXEC, 0) })
}

/// The error of a system call that returned less than nothing.
fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn address(port: u32, cid: u32) -> Address {
    Address { family: 40, reserved: 0, port, cid, flags: [0; 4] }
}

/// The guest's side, for ever.
pub fn serve() {
    let listen_at = |port, each: fn(UnixStream)| {
        let listener = new_socket().expect("the guest has vsock");
        let (fd, address) = (listener.as_raw_fd(), address(port, ANY));
        // SAFETY: the kernel reads the address, which is so long, and only during the call.
        check(unsafe { bind(fd, (&raw const address).cast(), ADDRESS_BYTES) }).expect("the port is free");
        // SAFETY: the call takes two numbers and touches no memory.
        check(unsafe { listen(fd, BACKLOG) }).expect("it listens");
        thread::spawn(move || {
            let _open = listener;
            loop {
                // SAFETY: without an address to write to, the call touches no memory.
                let caller = stream(unsafe { accept(fd, std::ptr::null_mut(), std::ptr::null_mut()) });
                drop(thread::Builder::new().stack_size(128 << 10).spawn(move || caller.map(each)));
            }
        })
    };
    listen_at(DRAIN, drain);
    listen_at(GIVE, give);
    let last = listen_at(ECHO, echo);
    println!("@ serving");
    let _never = last.join();
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
        Some(("vsock", cid)) => new_socket().and_then(|socket| {
            let address = address(port, cid.parse().expect("a number"));
            // SAFETY: the kernel reads the address, which is so long, and only during the call.
            check(unsafe { connect(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS_BYTES) })?;
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
        "up" => receive(count, time, |_| dial(place, GIVE)),
        "down" => send(count, time, |_| dial(place, DRAIN)),
        "rr" => ask(count, time, |_| dial(place, ECHO)),
        "crr" => repeat(count, time, || {
            let mut stream = dial(place, ECHO);
            stream.write_all(b"1").expect("the connection stands");
            stream.read_exact(&mut [0]).expect("an answer");
        }),
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
