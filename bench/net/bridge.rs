//! Frames between a tap and a stack's socket, each behind its length as QEMU's `-netdev stream` sends it. A thread for
//! each direction; what the tap has queued goes in one write, as a card's queue would be taken in one go.

use std::ffi::{c_int, c_ulong};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;

/// linux/if_tun.h
const TUNSETIFF: c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: c_ulong = 0x4004_54d8;
const IFF_TAP_NO_PI: u16 = 0x0002 | 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
/// Checksums, and TCP segments for IPv4 and IPv6.
const OFFLOADS: c_ulong = 1 | 2 | 4;
const O_NONBLOCK: c_int = 0o4000;

const FRAME_BYTES: usize = 65_536 + 64;
/// Written to the stack at once.
const BATCH_BYTES: usize = 512 << 10;

#[repr(C)]
struct Poll {
    fd: c_int,
    events: i16,
    happened: i16,
}

unsafe extern "C" {
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
    fn poll(fds: *mut Poll, count: c_ulong, timeout: c_int) -> c_int;
}

fn open(name: &str, has_headers: bool) -> File {
    let tap = OpenOptions::new().read(true).write(true).custom_flags(O_NONBLOCK).open("/dev/net/tun");
    let tap = tap.expect("/dev/net/tun opens");
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    let flags = IFF_TAP_NO_PI | if has_headers { IFF_VNET_HDR } else { 0 };
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    let header_bytes: c_int = 12;
    // SAFETY: the requests take a structure of 40 bytes, an int and a number.
    let failed = unsafe {
        ioctl(tap.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) < 0
            || has_headers
                && (ioctl(tap.as_raw_fd(), TUNSETVNETHDRSZ, &raw const header_bytes) < 0
                    || ioctl(tap.as_raw_fd(), TUNSETOFFLOAD, OFFLOADS) < 0)
    };
    assert!(!failed, "tap {name}: {}", io::Error::last_os_error());
    tap
}

fn wait(file: &File, events: i16) {
    let mut poll_fd = Poll { fd: file.as_raw_fd(), events, happened: 0 };
    // SAFETY: one structure, which lives until the call returns.
    unsafe { poll(&raw mut poll_fd, 1, -1) };
}

pub fn run(tap: &str, socket: &str, has_headers: bool) {
    let tap = open(tap, has_headers);
    let stack = UnixStream::connect(socket).expect("the stack listens");
    println!("ready");
    let (from_tap, to_stack) = (tap.try_clone().expect("descriptors"), stack.try_clone().expect("descriptors"));
    std::thread::spawn(move || {
        outwards(&from_tap, &to_stack).expect("frames go to the stack");
    });
    // The end of the stack is the end of the lab.
    let _ = inwards(&tap, &stack);
    std::process::exit(0);
}

fn outwards(mut tap: &File, mut stack: &UnixStream) -> io::Result<()> {
    let mut batch = vec![0; BATCH_BYTES + FRAME_BYTES];
    loop {
        let mut len = 0;
        while len < BATCH_BYTES {
            match tap.read(&mut batch[len + 4..]) {
                Ok(frame) => {
                    batch[len..len + 4].copy_from_slice(&u32::try_from(frame).expect("a frame").to_be_bytes());
                    len += 4 + frame;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        match len {
            0 => wait(tap, 1),
            _ => stack.write_all(&batch[..len])?,
        }
    }
}

fn inwards(mut tap: &File, mut stack: &UnixStream) -> io::Result<()> {
    let mut bytes = vec![0; 2 * BATCH_BYTES];
    let mut len = 0;
    loop {
        let more = stack.read(&mut bytes[len..])?;
        if more == 0 {
            return Ok(());
        }
        len += more;
        let mut at = 0;
        while let Some(head) = bytes[at..len].first_chunk::<4>() {
            let end = at + 4 + u32::from_be_bytes(*head) as usize;
            if end > len {
                break;
            }
            while let Err(error) = tap.write(&bytes[at + 4..end]) {
                match error.kind() {
                    io::ErrorKind::WouldBlock => wait(tap, 4),
                    // A tap that is down takes nothing.
                    _ => break,
                }
            }
            at = end;
        }
        bytes.copy_within(at..len, 0);
        len -= at;
    }
}
