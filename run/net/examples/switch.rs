//! What it costs to pass frames between two machines on one network, without machines: `switch [GIGABYTES]`. Each has its
//! place on the network, and memory as its guest. Prints the processor time of both ends, for frames of 1,514 bytes and for
//! segments of 64 KiB.
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use kiln_net::link::{Link, Member};
use kiln_net::memory::MemoryFrame;
use kiln_net::port::{Abilities, GuestPort, Reading, Shape};
use kiln_net::stack::Network;
use kiln_net::wire::{Headers, Ip, Mac, Macs, Protocol, Seq, Tcp, TcpFlags, TcpOptions};

/// Copies what comes, as a guest's buffers do, and counts it.
#[derive(Default)]
struct Counting {
    buffer: Vec<u8>,
    frames: u64,
    bytes: u64,
}

impl GuestPort for Counting {
    fn abilities(&self) -> Abilities {
        Abilities::ALL
    }

    fn room(&mut self, header_bytes: usize) -> usize {
        65_549 - header_bytes
    }

    fn send(&mut self, headers: Headers, payload: &[u8]) -> bool {
        self.buffer.clear();
        self.buffer.extend_from_slice(headers.bytes());
        self.buffer.extend_from_slice(payload);
        self.frames += 1;
        self.bytes += payload.len() as u64;
        true
    }

    fn receive(&mut self, _: Shape, _: usize, _: BorrowedFd<'_>, _: Reading) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn send_received(&mut self, _: Headers) {}
}

fn frame(macs: Macs, ip: &Ip, payload_bytes: usize) -> MemoryFrame {
    let (seq, ack, flags) = (Seq(1), Seq(1), TcpFlags(0x10));
    let tcp = Tcp { source_port: 1, destination_port: 2, seq, ack, flags, window: 9, options: TcpOptions::default() };
    let mut headers = Headers::tcp(macs, ip, &tcp, payload_bytes);
    if payload_bytes > 1_460 {
        headers.set_segment_bytes(1_460);
    }
    MemoryFrame { bytes: [headers.bytes(), &vec![7; payload_bytes]].concat(), offload: headers.offload() }
}

/// Processor time of this process so far.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gigabytes: u64 = std::env::args().nth(1).map_or(Ok(2), |word| word.parse())?;
    let folder = tempfile::tempdir()?;
    let macs = [1, 2].map(|last| Mac([0x52, 0x54, 0, 0, 0, last]));
    for payload_bytes in [1_460, 65_160] {
        let path = folder.path().join(payload_bytes.to_string());
        let mut from = Member::join(&path, ("from", macs[0]), None, Network::default())?;
        let mut to = Member::join(&path, ("to", macs[1]), None, Network::default())?;
        let ip = Ip::new(from.address().into(), to.address().into(), Protocol::TCP);
        let frame = frame(Macs { source: macs[0], destination: macs[1] }, &ip, payload_bytes);
        let mut ports = [Counting::default(), Counting::default()];
        let [sending, receiving] = &mut ports;
        // Both are there before it begins.
        while from.others() == 0 {
            from.turn(sending, 0)?;
        }
        let (start, wall) = (processor_time(), Instant::now());
        while receiving.bytes < gigabytes * 1_000_000_000 {
            // What a batch of a transmit queue is.
            for _ in 0..16 {
                from.from_guest(&frame, sending, 0);
            }
            from.turn(sending, 0)?;
            while to.turn(receiving, 0)? {}
        }
        let seconds = (processor_time() - start).as_secs_f64();
        let bytes = receiving.bytes;
        println!(
            "{payload_bytes} bytes of payload a frame: {:.2} Gb/s on one processor, {:.3} s/GB, {} lost, {:.1} s by the clock",
            bytes as f64 * 8e-9 / seconds,
            seconds * 1e9 / bytes as f64,
            from.lost(),
            wall.elapsed().as_secs_f64()
        );
    }
    Ok(())
}
