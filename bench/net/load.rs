//! The near end of every test: prints one row of `key=value`.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::PORTS;
use crate::exchange::{ask, micros, receive, repeat, send, summary, threads};
use crate::serve::QUESTION;

/// Nothing takes longer: what does has failed.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn run(test: &str, address: IpAddr, numbers: &[u64]) {
    let number = |place: usize| numbers.get(place).copied().unwrap_or(1);
    let time = |place| Duration::from_millis(number(place));
    let dial = |wanted| move |number| connect(address, number, wanted);
    let row = match test {
        "up" => send(number(0), time(1), dial(b'u')),
        "down" => receive(number(0), time(1), dial(b'd')),
        "rr" => ask(number(0), time(1), |number| echoed(address, number)),
        "crr" => connections(address, number(0), time(1)),
        "hold" => hold(address, number(0)),
        "udprr" => datagram_echo(address, time(0)),
        "udp64" => datagrams(address, time(0)),
        other => panic!("test {other} is not known"),
    };
    println!("{row}");
}

fn connect(address: IpAddr, number: u64, wanted: u8) -> TcpStream {
    let ports = u64::from(PORTS.end - PORTS.start);
    let port = PORTS.start + u16::try_from(number % ports).expect("a port");
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), PATIENCE).expect("a connection");
    stream.set_nodelay(true).expect("TCP");
    stream.set_read_timeout(Some(PATIENCE)).expect("TCP");
    stream.set_write_timeout(Some(PATIENCE)).expect("TCP");
    stream.write_all(&[wanted]).expect("the connection stands");
    stream
}

/// A connection to the far end's echo, which proves itself by a first byte.
fn echoed(address: IpAddr, number: u64) -> TcpStream {
    let mut stream = connect(address, number, b'e');
    stream.read_exact(&mut [0]).expect("the first byte comes back");
    stream
}

/// Each answered by one byte.
fn connections(address: IpAddr, at_once: u64, time: Duration) -> String {
    let next = AtomicU64::new(0);
    repeat(at_once, time, || {
        let mut stream = connect(address, next.fetch_add(1, Ordering::Relaxed), b'1');
        stream.read_exact(&mut [0]).expect("an answer");
    })
}

/// Opens so many, 64 at a time, each proved by an echo; says so, and proves them again when a line comes.
fn hold(address: IpAddr, count: u64) -> String {
    let start = Instant::now();
    let mut open: Vec<TcpStream> = threads(64, |thread| {
        let mine = (thread..count).step_by(64);
        mine.map(|number| echoed(address, number)).collect::<Vec<_>>()
    })
    .into_iter()
    .flatten()
    .collect();
    println!("open={} open_s={:.3}", open.len(), start.elapsed().as_secs_f64());
    std::io::stdin().read_line(&mut String::new()).expect("a line");
    for stream in &mut open {
        stream.write_all(b"x").expect("the connection stands");
        stream.read_exact(&mut [0]).expect("an answer");
    }
    format!("alive={}", open.len())
}

fn datagram_echo(address: IpAddr, time: Duration) -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
    socket.connect((address, PORTS.start)).expect("an address");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("UDP");
    let start = Instant::now();
    let (mut took, mut lost) = (Vec::new(), 0);
    let mut message = [b'e'; 64];
    while start.elapsed() < time {
        let since = Instant::now();
        socket.send(&message).expect("it is sent");
        match socket.recv(&mut message) {
            Ok(_) => took.push(micros(since)),
            Err(_) => lost += 1,
        }
    }
    format!("{} lost={lost}", summary(took, start.elapsed()))
}

fn datagrams(address: IpAddr, time: Duration) -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
    socket.connect((address, PORTS.start)).expect("an address");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("UDP");
    let ask = || {
        let mut count = [0; 8];
        for _ in 0..20 {
            socket.send(QUESTION).expect("it is sent");
            if socket.recv(&mut count).is_ok() {
                return u64::from_be_bytes(count);
            }
        }
        panic!("no answer");
    };
    ask();
    let (start, mut sent) = (Instant::now(), 0_u64);
    while start.elapsed() < time {
        for _ in 0..32 {
            // One that the guest itself has no room for is not sent.
            sent += u64::from(socket.send(&[b'x'; 64]).is_ok());
        }
    }
    let took = start.elapsed();
    thread::sleep(Duration::from_millis(200));
    let arrived = ask();
    format!("rate={:.0} sent={sent} arrived={arrived}", arrived as f64 / took.as_secs_f64())
}
