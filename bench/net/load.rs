//! The near end of every test: prints one row of `key=value`.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::PORTS;
use crate::serve::{BLOCK_BYTES, QUESTION};

/// Nothing takes longer: what does has failed.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn run(test: &str, address: IpAddr, numbers: &[u64]) {
    let number = |place: usize| numbers.get(place).copied().unwrap_or(1);
    let row = match test {
        "up" => up(address, number(0), Duration::from_millis(number(1))),
        "down" => down(address, number(0), Duration::from_millis(number(1))),
        "rr" => request_response(address, number(0), Duration::from_millis(number(1))),
        "crr" => connections(address, number(0), Duration::from_millis(number(1))),
        "hold" => hold(address, number(0)),
        "udprr" => datagram_echo(address, Duration::from_millis(number(0))),
        "udp64" => datagrams(address, Duration::from_millis(number(0))),
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

/// `count` threads, which give what they measured.
pub fn threads<R: Send>(count: u64, act: impl Fn(u64) -> R + Sync) -> Vec<R> {
    let act = &act;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|number| scope.spawn(move || act(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no test panics")).collect()
    })
}

pub fn rate(bytes: u64, time: Duration) -> String {
    format!("gbps={:.3} bytes={bytes}", bytes as f64 * 8e-9 / time.as_secs_f64())
}

fn up(address: IpAddr, streams: u64, time: Duration) -> String {
    let start = Instant::now();
    let all = threads(streams, |number| {
        let mut stream = connect(address, number, b'u');
        let block = vec![7; BLOCK_BYTES];
        while start.elapsed() < time {
            stream.write_all(&block).expect("the far end takes it");
        }
        stream.shutdown(Shutdown::Write).expect("the connection stands");
        let mut arrived = [0; 8];
        stream.read_exact(&mut arrived).expect("the far end has counted");
        u64::from_be_bytes(arrived)
    });
    rate(all.iter().sum(), start.elapsed())
}

fn down(address: IpAddr, streams: u64, time: Duration) -> String {
    let start = Instant::now();
    let all = threads(streams, |number| {
        let mut stream = connect(address, number, b'd');
        let mut block = vec![0; BLOCK_BYTES];
        let mut all = 0;
        while start.elapsed() < time {
            all += stream.read(&mut block).expect("the far end gives") as u64;
        }
        all
    });
    rate(all.iter().sum(), start.elapsed())
}

/// Rate and percentiles of what took so many microseconds each.
pub fn summary(mut took: Vec<f64>, time: Duration) -> String {
    took.sort_by(f64::total_cmp);
    let at = |part: f64| took.get((took.len() as f64 * part) as usize).copied().unwrap_or(0.0);
    let s = time.as_secs_f64();
    format!("rate={:.0} s={s:.3} p50_us={:.1} p99_us={:.1}", took.len() as f64 / s, at(0.5), at(0.99))
}

pub fn micros(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

fn request_response(address: IpAddr, connections: u64, time: Duration) -> String {
    let start = Instant::now();
    let took = threads(connections, |number| {
        let mut stream = connect(address, number, b'e');
        let (mut took, mut message) = (Vec::new(), [9; 64]);
        stream.read_exact(&mut message[..1]).expect("the first byte comes back");
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

fn connections(address: IpAddr, at_once: u64, time: Duration) -> String {
    let start = Instant::now();
    let next = AtomicU64::new(0);
    let took = threads(at_once, |_| {
        let mut took = Vec::new();
        while start.elapsed() < time {
            let since = Instant::now();
            let mut stream = connect(address, next.fetch_add(1, Ordering::Relaxed), b'1');
            stream.read_exact(&mut [0]).expect("an answer");
            drop(stream);
            took.push(micros(since));
        }
        took
    });
    summary(took.concat(), start.elapsed())
}

/// Opens so many, 64 at a time, each proved by an echo; says so, and proves them again when a line comes.
fn hold(address: IpAddr, count: u64) -> String {
    let start = Instant::now();
    let mut open: Vec<TcpStream> = threads(64, |thread| {
        let mine = (thread..count).step_by(64);
        mine.map(|number| {
            let mut stream = connect(address, number, b'e');
            stream.read_exact(&mut [0]).expect("the first byte comes back");
            stream
        })
        .collect::<Vec<_>>()
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
