//! The far end of every test. The first byte of a connection says what is wanted: `u` takes all and answers how much it
//! was, `d` gives without end, `e` gives back what comes.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::PORTS;
use crate::exchange::{drain, echo, give};

/// The datagram that asks how many came since it was asked last.
pub const QUESTION: &[u8] = b"how many?";

pub fn run(address: IpAddr) {
    for port in PORTS {
        let listener = TcpListener::bind((address, port)).expect("the port is free");
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // What takes no time needs no thread: most tests of connections are one byte.
                take(stream);
            }
        });
    }
    let socket = UdpSocket::bind((address, PORTS.start)).expect("the port is free");
    println!("ready");
    datagrams(&socket);
}

fn take(mut stream: TcpStream) {
    let mut wanted = [0];
    let _ = stream.set_nodelay(true);
    if stream.read_exact(&mut wanted).is_err() {
        return;
    }
    match wanted[0] {
        b'1' => {
            // One byte, and the end.
            let _ = stream.write_all(b"1");
            let _ = stream.read(&mut wanted);
        }
        b'u' => drop(thread::spawn(move || drain(stream))),
        b'd' => drop(thread::spawn(move || give(stream))),
        // The first byte comes back too.
        _ if stream.write_all(&wanted).is_ok() => {
            drop(thread::Builder::new().stack_size(64 << 10).spawn(move || echo(stream)));
        }
        _ => {}
    }
}

/// Short datagrams that begin with `e` come back; others are counted.
fn datagrams(socket: &UdpSocket) {
    let count = AtomicU64::new(0);
    let mut bytes = [0; 2048];
    loop {
        let Ok((len, from)) = socket.recv_from(&mut bytes) else { continue };
        let answer = match &bytes[..len] {
            QUESTION => count.swap(0, Ordering::Relaxed).to_be_bytes().to_vec(),
            [b'e', ..] => bytes[..len].to_vec(),
            _ => {
                count.fetch_add(1, Ordering::Relaxed);
                continue;
            }
        };
        let _ = socket.send_to(&answer, from);
    }
}
