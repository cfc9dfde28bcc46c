//! Links against programs and devices of other people's: passt, the kernel's taps and bridges.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::testing::Got;
use super::*;
use crate::memory::MemoryFrame;
use crate::wire::{Arp, ArpOperation, Body, EtherType, Ethernet, Frame, Headers, Ip, Mac, Macs, Offload, Protocol};

const GUEST: Mac = Mac([0x52, 0x54, 0, 0, 0, 9]);
/// Long enough for a program to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program that goes with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn arp(target: [u8; 4], sender: [u8; 4]) -> Vec<u8> {
    let header = Ethernet { destination: Mac::BROADCAST, source: GUEST, ether_type: EtherType::ARP }.bytes();
    [&header[..], &[0, 1, 8, 0, 6, 4, 0, 1], &GUEST.0, &sender, &[0; 6], &target].concat()
}

/// Who answers that it has `target`; asked again until somebody does.
fn neighbor(link: &mut dyn Link, got: &mut Got, target: [u8; 4], sender: [u8; 4]) -> Mac {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < PATIENCE, "nobody answers");
        let now = Millis::try_from(start.elapsed().as_millis()).unwrap();
        link.from_guest(&MemoryFrame::whole(arp(target, sender)), got, now);
        let mut fds = [PollFd::from_borrowed_fd(link.fd(), PollFlags::IN)];
        let pause = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        poll(&mut fds, Some(&pause)).unwrap();
        link.turn(got, now).unwrap();
        let answer = got.frames.iter().find_map(|(frame, _)| match Frame::read(frame, frame.len()).ok()?.body {
            Body::Arp(Arp { operation: ArpOperation::Reply, sender_mac, sender, .. }) => {
                (sender == Ipv4Addr::from(target)).then_some(sender_mac)
            }
            _ => None,
        });
        if let Some(mac) = answer {
            return mac;
        }
    }
}

/// passt in a network of its own, whose socket is at `path`.
fn passt(path: &Path) -> Program {
    const DEVICE: &str = "ip link add d0 type bridge && ip addr add 192.0.2.9/24 dev d0 && ip link set d0 up && \
                          ip route add default via 192.0.2.1 dev d0";
    let _ = std::fs::remove_file(path);
    let script = format!(
        "{DEVICE} && exec passt --quiet --foreground -4 -i d0 -a 10.0.2.15 -n 24 -g 10.0.2.2 --socket {}",
        path.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", "sh", "-c", &script]).stderr(Stdio::null());
    Program(command.spawn().unwrap())
}

#[test]
fn passt_is_spoken_to_and_found_again_when_it_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passt.sock");
    let first = passt(&path);
    let start = Instant::now();
    let mut link = loop {
        match UnixStream::connect(&path) {
            Ok(link) => break link,
            Err(error) => assert!(start.elapsed() < PATIENCE, "does passt (Debian's package) not start? {error}"),
        }
        std::thread::yield_now();
    };
    let mut got = Got::new();
    neighbor(&mut link, &mut got, [10, 0, 2, 2], [10, 0, 2, 15]);
    drop(first);
    got.frames.clear();
    let _second = passt(&path);
    neighbor(&mut link, &mut got, [10, 0, 2, 2], [10, 0, 2, 15]);
}

/// Runs the test called `name` again, in a network of its own where it is root; true if that is where we are.
fn in_own_network(name: &str) -> bool {
    const MARK: &str = "KILN_TEST_IN_OWN_NETWORK";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net"]).arg(program).args(["--exact", name, "--nocapture"]).env(MARK, "1");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    false
}

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().unwrap();
    assert!(status.success(), "ip {words}");
}

#[test]
fn a_tap_carries_frames_whose_checksums_nobody_computes() {
    if !in_own_network("link::real::a_tap_carries_frames_whose_checksums_nobody_computes") {
        return;
    }
    let error = Tap::open("kt0").unwrap_err();
    assert!(matches!(error, LinkError::NoTap { .. }), "{error}");
    ip("tuntap add kt0 mode tap");
    ip("addr add 10.9.0.1/24 dev kt0");
    let (mut link, mut got) = (Tap::open("kt0").unwrap(), Got::new());
    assert!(matches!(Tap::open("kt0").unwrap_err(), LinkError::TapTaken { .. }));
    assert!(matches!(Tap::open("lo").unwrap_err(), LinkError::Tap { .. }));
    got.abilities = link.takes();
    // A device that is down loses frames, and is no reason to end.
    link.from_guest(&MemoryFrame::whole(arp([10, 9, 0, 1], [10, 9, 0, 2])), &mut got, 0);
    assert!(link.is_up() && link.lost() == 1);
    ip("link set kt0 up");
    let host = neighbor(&mut link, &mut got, [10, 9, 0, 1], [10, 9, 0, 2]);
    let socket = UdpSocket::bind("10.9.0.1:7").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let addresses: [IpAddr; 2] = [[10, 9, 0, 2].into(), [10, 9, 0, 1].into()];
    let packet = Ip::new(addresses[0], addresses[1], Protocol::UDP);
    let headers = Headers::udp(Macs { source: GUEST, destination: host }, &packet, 9, 7, 5);
    assert!(headers.offload().checksum_start > 0);
    link.from_guest(
        &MemoryFrame { bytes: [headers.bytes(), b"hello"].concat(), offload: headers.offload() },
        &mut got,
        0,
    );
    let mut buffer = [0; 9];
    let (len, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..len], from), (&b"hello"[..], (addresses[0], 9).into()));
    got.frames.clear();
    socket.send_to(b"there", from).unwrap();
    let start = Instant::now();
    let is_answer = |(frame, _): &&(Vec<u8>, Offload)| frame.ends_with(b"there");
    while !got.frames.iter().any(|frame| is_answer(&frame)) {
        assert!(start.elapsed() < PATIENCE);
        link.turn(&mut got, 0).unwrap();
        // The host asks for the guest's address first.
        let asks = arp([10, 9, 0, 1], [10, 9, 0, 2]);
        link.from_guest(&MemoryFrame::whole(asks), &mut got, 0);
    }
    let (_, offload) = got.frames.iter().find(is_answer).unwrap();
    assert_eq!((offload.checksum_start, offload.checksum_offset), (34, 6), "the host did not compute it either");
    ip("link delete kt0");
    let start = Instant::now();
    while link.is_up() {
        assert!(start.elapsed() < PATIENCE);
        link.from_guest(&MemoryFrame::whole(arp([10, 9, 0, 1], [10, 9, 0, 2])), &mut got, 0);
        link.turn(&mut got, 0).unwrap();
    }
}

#[test]
fn a_bridge_gets_a_tap_that_goes_with_the_link() {
    if !in_own_network("link::real::a_bridge_gets_a_tap_that_goes_with_the_link") {
        return;
    }
    ip("link set lo up");
    assert!(matches!(bridge("lo").map(|_| ()).unwrap_err(), LinkError::NoBridge { .. }));
    ip("link add kb0 type bridge");
    ip("addr add 10.9.0.1/24 dev kb0");
    ip("link set kb0 up");
    let (mut link, mut got) = (bridge("kb0").unwrap(), Got::new());
    neighbor(link.as_mut(), &mut got, [10, 9, 0, 1], [10, 9, 0, 2]);
    let devices = || String::from_utf8(Command::new("ip").args(["-o", "link"]).output().unwrap().stdout).unwrap();
    assert!(devices().contains("kiln0"), "{}", devices());
    drop(link);
    assert!(!devices().contains("kiln0"), "{}", devices());
}
