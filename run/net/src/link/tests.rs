//! Links against peers that are slow, gone, or back again.

use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};

use super::testing::{Got, turn_until};
use super::*;
use crate::memory::MemoryFrame;

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peer.sock");
    (folder, path)
}

fn gram(path: &Path, greeting: Greeting) -> Result<UnixGram, LinkError> {
    UnixGram::connect(path, &path.with_file_name("own.sock"), greeting)
}

fn received(socket: &UnixDatagram) -> Vec<u8> {
    let mut buffer = [0; 2_000];
    let len = socket.recv(&mut buffer).unwrap();
    buffer[..len].to_vec()
}

#[test]
fn a_peer_that_is_not_there_is_told_at_once() {
    let (_folder, path) = folder();
    let wanted = format!(
        "cannot connect to the network's socket `{}`: start the program that listens there first",
        path.display()
    );
    assert_eq!(UnixStream::connect(&path).unwrap_err().to_string(), wanted);
    assert_eq!(gram(&path, Greeting::None).unwrap_err().to_string(), wanted);
    assert!(!path.with_file_name("own.sock").exists(), "the own socket went with the link");
    drop(UnixListener::bind(&path).unwrap());
    assert!(UnixStream::connect(&path).is_err(), "a socket that nobody listens at any more");
}

#[test]
fn frames_pass_a_stream_both_ways_however_they_are_cut() {
    let (_folder, path) = folder();
    let listener = UnixListener::bind(&path).unwrap();
    let (mut link, mut got, mut now) = (UnixStream::connect(&path).unwrap(), Got::new(), 0);
    let mut peer = listener.accept().unwrap().0;
    link.from_guest(&MemoryFrame::whole(vec![1; 60]), &mut got, now);
    link.from_guest(&MemoryFrame::whole(vec![2; 1514]), &mut got, now);
    let mut sent = vec![0; 4 + 60 + 4 + 1514];
    peer.read_exact(&mut sent).unwrap();
    assert_eq!(sent[..5], [0, 0, 0, 60, 1]);
    assert_eq!(sent[64..69], [0, 0, 5, 234, 2]);
    for byte in [&[0, 0, 0, 70][..], &[3; 70], &[0, 0, 0, 61], &[4; 61]].concat() {
        peer.write_all(&[byte]).unwrap();
        link.turn(&mut got, now).unwrap();
    }
    turn_until(&mut link, &mut got, &mut now, |_, got| got.frames.len() == 2);
    assert_eq!(got.bytes(), [&[3; 70][..], &[4; 61]]);
}

#[test]
fn a_guest_without_room_gets_its_frames_later() {
    let (_folder, path) = folder();
    let listener = UnixListener::bind(&path).unwrap();
    let (mut link, mut got, mut now) = (UnixStream::connect(&path).unwrap(), Got::new(), 0);
    let mut peer = listener.accept().unwrap().0;
    got.room = 0;
    peer.write_all(&[&[0, 0, 0, 70][..], &[3; 70]].concat()).unwrap();
    for _ in 0..10 {
        now += 1_000;
        assert!(link.turn(&mut got, now).unwrap(), "it knows that there is more");
    }
    got.room = 69;
    link.turn(&mut got, now).unwrap();
    assert_eq!(got.frames.len(), 0, "too little room");
    got.room = 70;
    link.turn(&mut got, now).unwrap();
    assert_eq!((got.bytes(), link.lost()), (vec![&[3; 70][..]], 0));
    // A guest that never has more room loses the frame, and gets the next one.
    peer.write_all(&[&[0, 0, 0, 71][..], &[4; 71], &[0, 0, 0, 60], &[5; 60]].concat()).unwrap();
    turn_until(&mut link, &mut got, &mut now, |_, got| got.frames.len() == 2);
    assert_eq!((got.bytes()[1], link.lost()), (&[5; 60][..], 1));
}

#[test]
fn a_stream_that_breaks_or_talks_nonsense_is_taken_up_again() {
    let (_folder, path) = folder();
    let listener = UnixListener::bind(&path).unwrap();
    let (mut link, mut got, mut now) = (UnixStream::connect(&path).unwrap(), Got::new(), 0);
    for nonsense in [&[][..], &[0xff; 8]] {
        let mut peer = listener.accept().unwrap().0;
        peer.write_all(nonsense).unwrap();
        drop(peer);
        turn_until(&mut link, &mut got, &mut now, |link, _| !link.is_up());
        link.from_guest(&MemoryFrame::whole(vec![1; 60]), &mut got, now);
        turn_until(&mut link, &mut got, &mut now, |link, _| link.is_up());
    }
    assert_eq!(link.lost(), 2, "what the guest sent meanwhile");
    drop(listener);
    std::fs::remove_file(&path).unwrap();
    turn_until(&mut link, &mut got, &mut now, |link, _| !link.is_up());
    for _ in 0..20 {
        now = link.deadline().unwrap();
        link.turn(&mut got, now).unwrap();
    }
    assert!(!link.is_up());
    let listener = UnixListener::bind(&path).unwrap();
    turn_until(&mut link, &mut got, &mut now, |link, _| link.is_up());
    link.from_guest(&MemoryFrame::whole(vec![9; 60]), &mut got, now);
    let mut first = [0; 5];
    listener.accept().unwrap().0.read_exact(&mut first).unwrap();
    assert_eq!(first, [0, 0, 0, 60, 9], "nothing of what was lost comes late");
}

#[test]
fn datagrams_pass_behind_the_greeting() {
    let (_folder, path) = folder();
    let peer = UnixDatagram::bind(&path).unwrap();
    let (mut link, mut got, mut now) = (gram(&path, Greeting::Vfkit).unwrap(), Got::new(), 0);
    let mut word = [0; 10];
    let (len, from) = peer.recv_from(&mut word).unwrap();
    assert_eq!(&word[..len], b"VFKT");
    assert_eq!(from.as_pathname(), Some(path.with_file_name("own.sock").as_path()));
    link.from_guest(&MemoryFrame::whole(vec![1; 60]), &mut got, now);
    assert_eq!(received(&peer), [1; 60]);
    for frame in [vec![], vec![2; 1514], vec![3; 60]] {
        peer.send_to(&frame, from.as_pathname().unwrap()).unwrap();
    }
    turn_until(&mut link, &mut got, &mut now, |_, got| got.frames.len() == 2);
    assert_eq!(got.bytes(), [&[2; 1514][..], &[3; 60]]);
    drop(link);
    assert!(!path.with_file_name("own.sock").exists());
}

#[test]
fn a_socket_that_was_left_behind_is_replaced_and_another_file_is_not() {
    let (_folder, path) = folder();
    let _peer = UnixDatagram::bind(&path).unwrap();
    let own = path.with_file_name("own.sock");
    drop(UnixDatagram::bind(&own).unwrap());
    drop(gram(&path, Greeting::None).unwrap());
    std::fs::write(&own, "precious").unwrap();
    let error = gram(&path, Greeting::None).unwrap_err();
    assert!(matches!(error, LinkError::Bind { .. }), "{error}");
    assert_eq!(std::fs::read(&own).unwrap(), b"precious");
}

#[test]
fn a_peer_of_datagrams_that_comes_back_is_greeted_again() {
    let (_folder, path) = folder();
    let peer = UnixDatagram::bind(&path).unwrap();
    let (mut link, mut got, mut now) = (gram(&path, Greeting::Vfkit).unwrap(), Got::new(), 0);
    assert_eq!(received(&peer), b"VFKT");
    drop(peer);
    link.from_guest(&MemoryFrame::whole(vec![1; 60]), &mut got, now);
    assert_eq!((link.is_up(), link.lost()), (false, 1));
    std::fs::remove_file(&path).unwrap();
    let peer = UnixDatagram::bind(&path).unwrap();
    turn_until(&mut link, &mut got, &mut now, |link, _| link.is_up());
    assert_eq!(received(&peer), b"VFKT");
    // One that was replaced while the guest was silent.
    drop(peer);
    std::fs::rename(&path, path.with_file_name("old")).unwrap();
    let peer = UnixDatagram::bind(&path).unwrap();
    peer.set_nonblocking(true).unwrap();
    let mut word = [0; 4];
    let end = now + 60_000;
    while peer.recv(&mut word).is_err() {
        assert!(now < end);
        now = link.deadline().unwrap();
        link.turn(&mut got, now).unwrap();
    }
    assert_eq!(&word, b"VFKT");
}

#[test]
fn a_peer_that_takes_nothing_makes_the_guest_wait_for_a_while() {
    let (_folder, path) = folder();
    let peer = UnixDatagram::bind(&path).unwrap();
    let (mut link, mut got, mut now) = (gram(&path, Greeting::None).unwrap(), Got::new(), 0_u64);
    let mut count = 0;
    while !link.is_full() {
        link.from_guest(&MemoryFrame::whole(vec![7; 1514]), &mut got, now);
        count += 1;
    }
    now += 900;
    link.turn(&mut got, now).unwrap();
    assert!(link.is_full(), "it is not long yet");
    for _ in 0..count {
        assert_eq!(received(&peer), [7; 1514]);
        link.turn(&mut got, now).unwrap();
    }
    assert!(!link.is_full() && link.lost() == 0);
}

#[test]
fn what_is_no_tap_or_bridge_is_told_with_what_makes_one() {
    for name in ["kiln-no-such", "../lo", "", "a-name-that-is-far-too-long"] {
        let error = Tap::open(name).unwrap_err().to_string();
        assert!(error.contains(&format!("`ip tuntap add {name} mode tap user $(id -un)`")), "{error}");
        let error = bridge(name).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(&format!("`ip link add {name} type bridge`")), "{error}");
    }
}
