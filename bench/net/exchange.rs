//! What both ends of a test do with a stream, whatever carries it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

pub const BLOCK_BYTES: usize = 256 << 10;

/// A stream of which one way can be ended.
pub trait Stream: Read + Write {
    /// No more will be written.
    fn end(&self);
}

impl Stream for TcpStream {
    fn end(&self) {
        self.shutdown(Shutdown::Write).expect("the connection stands");
    }
}

impl Stream for UnixStream {
    fn end(&self) {
        self.shutdown(Shutdown::Write).expect("the connection stands");
    }
}

/// The far end: takes all, and answers how much it was.
pub fn drain(mut stream: impl Stream) {
    let mut block = vec![0; BLOCK_BYTES];
    let mut all: u64 = 0;
    while let Ok(count @ 1..) = stream.read(&mut block) {
        all += count as u64;
    }
    let _ = stream.write_all(&all.to_be_bytes());
}

/// The far end: gives without end.
pub fn give(mut stream: impl Stream) {
    let block = vec![7; BLOCK_BYTES];
    while stream.write_all(&block).is_ok() {}
}

/// The far end: gives back what comes.
pub fn echo(mut stream: impl Stream) {
    let mut block = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut block) {
        if stream.write_all(&block[..count]).is_err() {
            return;
        }
    }
}

/// The near end of `drain`, over so many streams at once.
pub fn send<S: Stream>(streams: u64, time: Duration, connect: impl Fn(u64) -> S + Sync) -> String {
    let start = Instant::now();
    let all = threads(streams, |number| {
        let mut stream = connect(number);
        let block = vec![7; BLOCK_BYTES];
        while start.elapsed() < time {
            stream.write_all(&block).expect("the far end takes it");
        }
        stream.end();
        let mut arrived = [0; 8];
        stream.read_exact(&mut arrived).expect("the far end has counted");
        u64::from_be_bytes(arrived)
    });
    rate(all.iter().sum(), start.elapsed())
}

/// The near end of `give`.
pub fn receive<S: Stream>(streams: u64, time: Duration, connect: impl Fn(u64) -> S + Sync) -> String {
    let start = Instant::now();
    let all = threads(streams, |number| {
        let mut stream = connect(number);
        let mut block = vec![0; BLOCK_BYTES];
        let mut all = 0;
        while start.elapsed() < time {
            all += stream.read(&mut block).expect("the far end gives") as u64;
        }
        all
    });
    rate(all.iter().sum(), start.elapsed())
}

/// The near end of `echo`: one short message after the other.
pub fn ask<S: Stream>(connections: u64, time: Duration, connect: impl Fn(u64) -> S + Sync) -> String {
    let start = Instant::now();
    let took = threads(connections, |number| {
        let (mut stream, mut took, mut message) = (connect(number), Vec::new(), [9; 64]);
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

/// How often `act` is done, so many at once.
pub fn repeat(at_once: u64, time: Duration, act: impl Fn() + Sync) -> String {
    let start = Instant::now();
    let took = threads(at_once, |_| {
        let mut took = Vec::new();
        while start.elapsed() < time {
            let since = Instant::now();
            act();
            took.push(micros(since));
        }
        took
    });
    summary(took.concat(), start.elapsed())
}

/// `count` threads, which give what they measured.
pub fn threads<R: Send>(count: u64, act: impl Fn(u64) -> R + Sync) -> Vec<R> {
    let act = &act;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|number| scope.spawn(move || act(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no test panics")).collect()
    })
}

fn rate(bytes: u64, time: Duration) -> String {
    format!("gbps={:.3} bytes={bytes}", bytes as f64 * 8e-9 / time.as_secs_f64())
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
