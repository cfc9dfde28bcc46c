//! Single segments and what they are answered with: the rules of RFC 9293 and those that came after it.

use std::net::Shutdown;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::poll::Poll;
use crate::wire::Timestamps;

/// Both ways of keeping what peers sent.
const KEEPINGS: [Keeping; 2] = [Keeping::Kernel, Keeping::Here];
const FIRST: Seq = Seq(u32::MAX - 9);

type Answer = (Tcp, Vec<u8>);

/// A table, and a guest that says exactly what it is told to say.
struct Script {
    table: Table,
    poll: Poll,
    port: MemoryPort,
    budget: Budget,
    now: Millis,
    key: FlowKey,
    target: SocketAddr,
    unreachable: Option<Unreachable>,
    /// The guest's next number, and what it acknowledges.
    next: Seq,
    ack: Seq,
    options: TcpOptions,
}

impl Script {
    fn new(keeping: Keeping, target: SocketAddr) -> Self {
        Self {
            table: Table::new(keeping),
            poll: Poll::new().unwrap(),
            port: MemoryPort::new(64),
            budget: Budget::new(1 << 20),
            now: 1_000,
            key: key(),
            target,
            unreachable: None,
            next: FIRST,
            ack: Seq(0),
            options: TcpOptions::default(),
        }
    }

    fn with<R>(&mut self, act: impl FnOnce(&mut Table, &Poll, &mut Context<'_>) -> R) -> R {
        let Self { table, poll, port, budget, now, .. } = self;
        act(table, poll, &mut Context { now: *now, port, macs: MACS, link_mtu: 1500, budget })
    }

    /// Gives a segment, without a turn.
    fn give(&mut self, tcp: &Tcp, payload: &[u8]) {
        let ip = Ip::new(self.key.guest.ip(), self.key.remote.ip(), Protocol::TCP);
        let mut headers = Headers::tcp(MACS, &ip, tcp, payload.len());
        headers.complete_checksum(payload);
        let frame = MemoryFrame::whole([headers.bytes(), payload].concat());
        let (tcp, payload) = read(&frame.bytes);
        let (key, target) = (self.key, self.target);
        let told =
            self.with(|table, poll, cx| table.segment((key, &tcp), (&frame, payload), Some(target.into()), poll, cx));
        self.unreachable = self.unreachable.take().or(told);
    }

    fn segment(&self, flags: TcpFlags) -> Tcp {
        Tcp {
            source_port: self.key.guest.port(),
            destination_port: self.key.remote.port(),
            seq: self.next,
            ack: self.ack,
            flags,
            window: 1_000,
            options: self.options,
        }
    }

    /// Gives a segment and takes what comes back at once.
    fn say(&mut self, tcp: Tcp, payload: &[u8]) -> Vec<Answer> {
        self.give(&tcp, payload);
        self.turn()
    }

    /// The next bytes of the guest's.
    fn data(&mut self, payload: &[u8]) -> Vec<Answer> {
        let answers = self.say(self.segment(TcpFlags::ACK), payload);
        self.next += u32::try_from(payload.len()).unwrap();
        answers
    }

    fn turn(&mut self) -> Vec<Answer> {
        let events = self.poll.ready().unwrap();
        let told = self.with(|table, poll, cx| {
            let told: Vec<_> = events.into_iter().filter_map(|ready| table.ready(ready, poll, cx)).collect();
            table.timers(cx);
            table.flush(cx);
            told
        });
        self.unreachable = self.unreachable.take().or(told.into_iter().next());
        let frames = self.port.take_frames();
        frames
            .iter()
            .map(|frame| read(frame))
            .zip(&frames)
            .map(|((tcp, at), frame)| (tcp, frame[at].to_vec()))
            .collect()
    }

    /// Turns until something is sent.
    fn answers(&mut self) -> Vec<Answer> {
        for _ in 0..100 {
            let answers = self.turn();
            if !answers.is_empty() || self.unreachable.is_some() {
                return answers;
            }
            let fd = self.poll.fd();
            poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&Timespec { tv_sec: 10, tv_nsec: 0 })).unwrap();
        }
        panic!("nothing is sent");
    }

    /// Turns until the guest was sent `count` bytes; gives the segments.
    fn received(&mut self, count: usize) -> Vec<Answer> {
        let mut all = Vec::new();
        while all.iter().map(|(_, bytes): &Answer| bytes.len()).sum::<usize>() < count {
            all.extend(self.answers());
        }
        all
    }

    /// A connection through the three segments. Gives the answer to SYN and the peer.
    fn connect(keeping: Keeping, options: TcpOptions) -> (Self, Tcp, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut script = Self::new(keeping, listener.local_addr().unwrap());
        let answer = script.shake(options);
        let peer = listener.accept().unwrap().0;
        peer.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        (script, answer, peer)
    }

    fn shake(&mut self, options: TcpOptions) -> Tcp {
        let mut syn = self.segment(TcpFlags::SYN);
        syn.options = options;
        self.give(&syn, b"");
        let answers = self.answers();
        let [(answer, _)] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!(answer.flags, TcpFlags::SYN | TcpFlags::ACK);
        (self.next, self.ack) = (self.next + 1, answer.seq + 1);
        assert_eq!(answer.ack, self.next);
        assert!(self.say(self.segment(TcpFlags::ACK), b"").is_empty());
        *answer
    }

    fn fin(&mut self) -> Vec<Answer> {
        let answers = self.say(self.segment(TcpFlags::ACK | TcpFlags::FIN), b"");
        self.next += 1;
        answers
    }
}

fn modern() -> TcpOptions {
    TcpOptions { mss: Some(1000), window_scale: Some(7), sack_permitted: true, ..TcpOptions::default() }
}

fn is_plain_ack(answers: &[Answer], ack: Seq) -> bool {
    matches!(answers, [(tcp, payload)] if tcp.flags == TcpFlags::ACK && tcp.ack == ack && payload.is_empty())
}

fn read_exactly(peer: &mut TcpStream, wanted: &[u8]) {
    let mut bytes = vec![0; wanted.len()];
    peer.read_exact(&mut bytes).unwrap();
    assert!(bytes == wanted);
}

#[test]
fn a_syn_for_a_closed_port_is_refused_and_an_unreachable_one_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let mut script = Script::new(Keeping::Kernel, closed);
    script.give(&script.segment(TcpFlags::SYN), b"");
    let answers = script.answers();
    assert_eq!(answers[0].0.flags, TcpFlags::RST | TcpFlags::ACK);
    assert_eq!((answers[0].0.ack, script.table.len()), (FIRST + 1, 0));

    // Nobody may speak TCP to everybody.
    let mut script = Script::new(Keeping::Kernel, "255.255.255.255:9".parse().unwrap());
    script.give(&script.segment(TcpFlags::SYN), b"");
    assert!(script.answers().is_empty());
    assert!(script.unreachable.is_some() && script.table.is_empty());
}

#[test]
fn what_belongs_to_no_connection_is_refused_but_never_a_reset() {
    let mut script = Script::new(Keeping::Kernel, "127.0.0.1:9".parse().unwrap());
    script.ack = Seq(77);
    assert!(script.say(script.segment(TcpFlags::RST), b"").is_empty());
    let answers = script.say(script.segment(TcpFlags::ACK), b"data");
    assert_eq!((answers[0].0.flags, answers[0].0.seq), (TcpFlags::RST, Seq(77)));
    let answers = script.say(script.segment(TcpFlags::FIN), b"data");
    assert_eq!((answers[0].0.flags, answers[0].0.ack), (TcpFlags::RST | TcpFlags::ACK, FIRST + 5));
}

#[test]
fn a_syn_is_not_answered_before_the_peer_answers_and_can_be_taken_back() {
    // A queue of one, which is full: further calls are not answered.
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &"127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let target = SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap();
    let _queued = TcpStream::connect(target).unwrap();
    let mut script = Script::new(Keeping::Kernel, target);
    for _ in 0..3 {
        assert!(script.say(script.segment(TcpFlags::SYN), b"").is_empty(), "asked again and again");
        script.now += 1_000;
    }
    assert_eq!(script.table.len(), 1);
    let mut reset = script.segment(TcpFlags::RST);
    assert!(script.say(reset, b"").is_empty());
    assert_eq!(script.table.len(), 1, "a reset with another number is none");
    reset.seq = FIRST + 1;
    assert!(script.say(reset, b"").is_empty());
    assert!(script.table.is_empty());
}

#[test]
fn options_are_used_only_where_the_guest_offers_them() {
    let (mut script, answer, _peer) = Script::connect(Keeping::Kernel, TcpOptions::default());
    assert_eq!(answer.options, TcpOptions { mss: Some(1460), ..TcpOptions::default() });
    let tcp = script.data(b"hello")[0].0;
    assert_eq!(tcp.window, u16::MAX, "not shifted");

    let stamps = Timestamps { value: 5, echo: 0 };
    let (mut script, answer, _peer) =
        Script::connect(Keeping::Kernel, TcpOptions { timestamps: Some(stamps), ..modern() });
    assert!(answer.options.sack_permitted && answer.options.window_scale == Some(WINDOW_SCALE));
    assert_eq!(answer.options.timestamps.unwrap().echo, 5);
    let tcp = script.data(b"hello")[0].0;
    assert_eq!(u32::from(tcp.window) << WINDOW_SCALE, 256 << 10);
}

#[test]
fn first_numbers_cannot_be_told_from_each_other() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let firsts: std::collections::HashSet<u32> = (0..20)
        .map(|number| {
            let mut script = Script::new(Keeping::Kernel, listener.local_addr().unwrap());
            script.key.guest.set_port(number);
            script.shake(modern()).seq.0 >> 8
        })
        .collect();
    assert!(firsts.len() > 15, "{firsts:?}");
}

#[test]
fn what_comes_behind_a_gap_is_told_and_not_asked_for_again() {
    let (mut script, _, mut peer) = Script::connect(Keeping::Kernel, modern());
    let (first, text) = (script.next, b"0123456789abcdefghij");
    let at = |offset: u32| Tcp { seq: first + offset, ..script.segment(TcpFlags::ACK) };
    let (ten, fifteen, zero, fin) = (at(10), at(15), at(0), Tcp { flags: TcpFlags::ACK | TcpFlags::FIN, ..at(20) });
    for (tcp, payload, blocks) in [
        (ten, &text[10..13], vec![(10, 13)]),
        (fifteen, &text[15..18], vec![(15, 18), (10, 13)]),
        (ten, &text[10..13], vec![(10, 13), (15, 18)]),
        (Tcp { seq: first + 13, ..ten }, &text[13..20], vec![(10, 20)]),
        (fin, b"", vec![(10, 20)]),
    ] {
        let answers = script.say(tcp, payload);
        let (answer, _) = &answers[0];
        assert_eq!((answer.flags, answer.ack), (TcpFlags::ACK, first));
        let told: Vec<_> = answer.options.sack.iter().map(|(start, end)| (start - first, end - first)).collect();
        assert_eq!(told, blocks);
    }
    let answers = script.say(zero, &text[..10]);
    assert!(answers[0].0.ack == first + 21 && answers[0].0.options.sack.iter().count() == 0);
    read_exactly(&mut peer, text);
    assert_eq!(peer.read(&mut [0]).unwrap(), 0, "FIN came with them");
}

#[test]
fn data_that_comes_twice_or_half_is_taken_once() {
    let (mut script, _, mut peer) = Script::connect(Keeping::Kernel, modern());
    let first = script.next;
    script.data(b"01234");
    script.next = first;
    assert!(is_plain_ack(&script.data(b"01234"), first + 5), "all of it is old");
    script.next = first + 3;
    assert!(is_plain_ack(&script.data(b"34567"), first + 8), "the front is old");
    read_exactly(&mut peer, b"01234567");
}

#[test]
fn keep_alives_guesses_and_late_syns_are_told_where_we_are() {
    let (mut script, _, mut peer) = Script::connect(Keeping::Kernel, modern());
    script.data(b"x");
    let right = script.segment(TcpFlags::ACK);
    let (next, ack) = (right.seq, right.ack);
    let before = Seq(next.0.wrapping_sub(1));
    for (tcp, payload) in [
        (Tcp { seq: before, ..right }, &b""[..]),
        (Tcp { seq: before, ..right }, b"g"),
        (Tcp { seq: next + (300 << 10), ..right }, b"far"),
        (Tcp { flags: TcpFlags::SYN, ack: Seq(0), ..right }, b""),
        (Tcp { flags: TcpFlags::SYN | TcpFlags::ACK, ..right }, b""),
        (Tcp { ack: ack + 1, ..right }, b"never sent"),
        (Tcp { flags: TcpFlags::RST, seq: next + 9, ..right }, b""),
    ] {
        let answers = script.say(tcp, payload);
        assert!(is_plain_ack(&answers, next) && answers[0].0.seq == ack, "{tcp:?}: {answers:?}");
    }
    assert!(script.say(Tcp { flags: TcpFlags::RST, seq: Seq(next.0.wrapping_sub(99)), ..right }, b"").is_empty());
    script.data(b"y");
    read_exactly(&mut peer, b"xy");
}

#[test]
fn old_timestamps_are_refused_and_new_ones_echoed() {
    let stamped = |value| TcpOptions { timestamps: Some(Timestamps { value, echo: 0 }), ..TcpOptions::default() };
    let (mut script, _, mut peer) =
        Script::connect(Keeping::Kernel, TcpOptions { timestamps: stamped(u32::MAX).timestamps, ..modern() });
    for (value, text, is_taken, echo) in
        [(u32::MAX - 1, b"a", false, u32::MAX), (4, b"b", true, 4), (3, b"c", false, 4), (4, b"d", true, 4)]
    {
        script.options = stamped(value);
        let answers = script.say(script.segment(TcpFlags::ACK), text);
        script.next += u32::from(is_taken);
        assert!(is_plain_ack(&answers, script.next), "{value}");
        assert_eq!(answers[0].0.options.timestamps.unwrap().echo, echo);
    }
    // After 24 days a smaller one may be the larger.
    script.now += 25 * 24 * 3_600_000;
    script.options = stamped(3);
    script.data(b"e");
    read_exactly(&mut peer, b"bde");
}

#[test]
fn what_is_lost_on_the_way_to_the_guest_is_sent_again_later_and_later() {
    for keeping in KEEPINGS {
        let (mut script, answer, mut peer) = Script::connect(keeping, modern());
        peer.write_all(b"hello").unwrap();
        assert_eq!(script.received(5)[0].1, b"hello");
        let start = script.now;
        let mut at = Vec::new();
        while at.len() < 9 {
            script.now = script.table.deadline().unwrap();
            for (tcp, payload) in script.turn() {
                assert_eq!((tcp.seq, &payload[..]), (answer.seq + 1, &b"hello"[..]));
                at.push(script.now - start);
            }
        }
        assert_eq!(at, [200, 600, 1400, 3000, 6200, 12_600, 25_400, 51_000, 81_000], "{keeping:?}");
        script.ack += 5;
        assert!(script.data(b"").is_empty());
        peer.write_all(b"there").unwrap();
        assert_eq!(script.received(5)[0].0.seq, answer.seq + 6);
    }
}

#[test]
fn three_repeats_or_a_piece_behind_the_gap_make_the_missing_one_come_again() {
    for keeping in KEEPINGS {
        for is_told in [false, true] {
            let (mut script, _, mut peer) = Script::connect(keeping, modern());
            let text = bytes(6_000, 3);
            peer.write_all(&text).unwrap();
            let first = script.ack;
            assert!(script.received(6_000).iter().all(|(_, payload)| payload.len() <= 1000));
            let mut again = Vec::new();
            for number in 1..=3_u32 {
                if is_told {
                    script.options.sack = SackBlocks::default();
                    script.options.sack.push(first + 1500, first + 1500 + 1000 * number);
                }
                again.extend(script.data(b""));
            }
            let [(tcp, payload)] = &again[..] else { panic!("{again:?}") };
            assert_eq!((tcp.seq, payload.len()), (first, 1000));
            // The rest of the gap is asked for by what acknowledges its front.
            script.ack += 1000;
            let again = script.data(b"");
            let [(tcp, payload)] = &again[..] else { panic!("{again:?}") };
            assert_eq!((tcp.seq, payload.len()), (first + 1000, if is_told { 500 } else { 1000 }), "{keeping:?}");
            assert!(payload[..] == text[1000..1000 + payload.len()]);
            (script.ack, script.options.sack) = (first + 6000, SackBlocks::default());
            assert!(script.data(b"").is_empty());
            peer.write_all(b"!").unwrap();
            assert_eq!(script.received(1)[0].0.seq, first + 6000);
        }
    }
}

#[test]
fn a_closed_window_is_probed_and_one_that_opens_goes_on() {
    for keeping in KEEPINGS {
        let (mut script, _, mut peer) = Script::connect(keeping, modern());
        let closed = Tcp { window: 0, ..script.segment(TcpFlags::ACK) };
        assert!(script.say(closed, b"").is_empty());
        peer.write_all(b"hello").unwrap();
        let first = script.ack;
        let mut probes = 0;
        while probes < 4 {
            assert!(script.turn().iter().all(|(_, payload)| payload.is_empty()));
            script.now = script.table.deadline().unwrap_or(script.now);
            for (tcp, payload) in script.turn() {
                assert_eq!((tcp.seq, payload.len()), (Seq(first.0.wrapping_sub(1)), 0));
                probes += 1;
                script.say(closed, b"");
            }
        }
        assert_eq!(script.data(b"")[0].1, b"hello", "{keeping:?}");
    }
}

#[test]
fn a_window_that_shrinks_below_what_is_on_its_way_is_probed_too() {
    for keeping in KEEPINGS {
        let (mut script, _, mut peer) = Script::connect(keeping, modern());
        peer.write_all(b"hello").unwrap();
        script.received(5);
        assert!(script.say(Tcp { window: 0, ..script.segment(TcpFlags::ACK) }, b"").is_empty());
        script.now = script.table.deadline().unwrap();
        let answers = script.turn();
        assert!(answers.len() == 1 && answers[0].1.is_empty(), "{answers:?}");
        assert_eq!(script.data(b"")[0].1, b"hello", "{keeping:?}");
    }
}

#[test]
fn either_end_may_end_first_and_hears_the_other_out() {
    for keeping in KEEPINGS {
        let (mut script, _, mut peer) = Script::connect(keeping, modern());
        script.data(b"question");
        assert!(is_plain_ack(&script.fin(), script.next));
        read_exactly(&mut peer, b"question");
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        peer.write_all(b"answer").unwrap();
        assert_eq!(script.received(6)[0].1, b"answer");
        script.ack += 6;
        script.data(b"");
        peer.shutdown(Shutdown::Write).unwrap();
        let answers = script.answers();
        assert!(answers[0].0.flags.has(TcpFlags::FIN) && answers[0].0.seq == script.ack);
        script.ack += 1;
        assert!(script.data(b"").is_empty());
        assert!(script.table.is_empty(), "{keeping:?}: the guest knows all, nothing is remembered");

        let (mut script, _, mut peer) = Script::connect(keeping, modern());
        peer.write_all(b"question").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        let mut answers = script.received(8);
        if !answers.iter().any(|(tcp, _)| tcp.flags.has(TcpFlags::FIN)) {
            answers.extend(script.answers());
        }
        assert!(answers.iter().any(|(tcp, _)| tcp.flags.has(TcpFlags::FIN)));
        script.ack += 9;
        script.data(b"answer");
        read_exactly(&mut peer, b"answer");
        let fin = script.segment(TcpFlags::ACK | TcpFlags::FIN);
        assert!(is_plain_ack(&script.fin(), script.next));
        assert_eq!(peer.read(&mut [0]).unwrap(), 0, "an end, and no reset");
        assert!(script.table.is_empty());
        assert!(is_plain_ack(&script.say(fin, b""), script.next), "{keeping:?}: our last word was lost");
        script.now += 2_000;
        script.turn();
        assert_eq!(script.say(fin, b"")[0].0.flags, TcpFlags::RST, "forgotten");
    }
}

#[test]
fn both_may_end_at_once_and_the_port_be_used_again_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut script = Script::new(Keeping::Kernel, listener.local_addr().unwrap());
    script.shake(modern());
    let peer = listener.accept().unwrap().0;
    peer.shutdown(Shutdown::Write).unwrap();
    assert!(script.answers()[0].0.flags.has(TcpFlags::FIN));
    // Sent before ours came: it acknowledges nothing.
    let fin = script.segment(TcpFlags::ACK | TcpFlags::FIN);
    assert!(is_plain_ack(&script.fin(), script.next));
    assert_eq!(script.table.len(), 1);
    script.ack += 1;
    script.data(b"");
    assert!(script.table.is_empty());
    assert!(is_plain_ack(&script.say(fin, b""), script.next), "remembered");
    script.next += 1_000;
    script.options = TcpOptions::default();
    script.ack = Seq(0);
    script.shake(modern());
    assert_eq!(script.table.len(), 1);
    assert!(listener.accept().is_ok());
}

#[test]
fn a_reset_behind_data_comes_behind_the_data() {
    for keeping in KEEPINGS {
        let (mut script, _, mut peer) = Script::connect(keeping, modern());
        script.data(b"nobody reads this");
        peer.write_all(b"last words").unwrap();
        assert_eq!(script.received(10)[0].1, b"last words");
        drop(peer);
        let answers = script.answers();
        assert!(answers[0].0.flags.has(TcpFlags::RST) && script.table.is_empty(), "{keeping:?}");
    }
}

#[test]
fn a_reset_of_the_peer_is_seen_though_the_guest_takes_nothing() {
    let (mut script, _, mut peer) = Script::connect(Keeping::Kernel, modern());
    let closed = Tcp { window: 0, ..script.segment(TcpFlags::ACK) };
    script.say(closed, b"");
    peer.write_all(b"hello").unwrap();
    script.data(b"");
    script.say(closed, b"x");
    drop(peer);
    for _ in 0..100 {
        let answers = script.turn();
        if answers.iter().any(|(tcp, _)| tcp.flags.has(TcpFlags::RST)) {
            assert!(script.table.is_empty());
            return;
        }
        script.now = script.table.deadline().unwrap_or(script.now);
    }
    panic!("no reset");
}

#[test]
fn an_acknowledgement_that_finds_no_room_goes_when_there_is_some() {
    let (mut script, _, mut peer) = Script::connect(Keeping::Kernel, modern());
    script.port.room = 0;
    assert!(script.data(b"hello").is_empty());
    assert!(script.turn().is_empty() && script.table.has_work());
    peer.shutdown(Shutdown::Write).unwrap();
    script.port.room = 64;
    let mut answers = script.answers();
    assert_eq!(answers[0].0.ack, script.next);
    if !answers[0].0.flags.has(TcpFlags::FIN) {
        answers = script.answers();
        assert!(answers[0].0.flags.has(TcpFlags::FIN));
    }
    read_exactly(&mut peer, b"hello");
}

#[test]
fn what_windows_promised_is_not_kept_when_the_budget_is_spent() {
    const CONNECTIONS: u16 = 40;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut script = Script::new(Keeping::Kernel, listener.local_addr().unwrap());
    let mut guests = Vec::new();
    for port in 1..=CONNECTIONS {
        (script.key.guest, script.next, script.ack) = (SocketAddr::new(script.key.guest.ip(), port), FIRST, Seq(0));
        script.shake(modern());
        guests.push((script.key, script.next, script.ack, listener.accept().unwrap().0));
    }
    script.budget = Budget::new(256 << 10);
    let payload = [7; 1000];
    // Nobody reads; sockets of the host take some, then each guest fills what it was promised.
    for _ in 0..8_000 {
        for (key, next, ack, _) in &mut guests {
            (script.key, script.next, script.ack) = (*key, *next, *ack);
            for (tcp, _) in script.data(&payload) {
                *next = tcp.ack;
            }
        }
        if script.budget.left_bytes() == 0 {
            break;
        }
    }
    let held: usize = (256 << 10) + usize::from(CONNECTIONS) * (4 << 10);
    assert_eq!(script.budget.left_bytes(), 0, "it is spent");
    for _ in 0..300 {
        for (key, next, ack, _) in &mut guests {
            (script.key, script.next, script.ack) = (*key, *next, *ack);
            for (tcp, _) in script.data(&payload) {
                *next = tcp.ack;
            }
        }
    }
    let kept: usize = script.with(|table, _, _| table.held_bytes());
    assert!(kept <= held, "{kept} bytes are kept");
}

#[test]
fn only_those_that_wait_for_an_answer_count_as_half_open() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut script = Script::new(Keeping::Kernel, listener.local_addr().unwrap());
    script.table.half_open_limit = 8;
    let mut peers = Vec::new();
    for port in 1..100 {
        (script.key.guest, script.next, script.ack) = (SocketAddr::new(script.key.guest.ip(), port), FIRST, Seq(0));
        script.shake(modern());
        peers.push(listener.accept().unwrap());
    }
    assert!(script.table.half_open.len() <= 9, "those that stand are not counted");
}

#[test]
fn what_is_late_for_many_that_are_gone_is_not_taken_for_those_that_come() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut script = Script::new(Keeping::Kernel, listener.local_addr().unwrap());
    let ask = |script: &mut Script, port, flags, next| {
        (script.key.guest, script.next) = (SocketAddr::new(script.key.guest.ip(), port), next);
        script.give(&script.segment(flags), b"");
    };
    for _ in 0..2 {
        (1..200).for_each(|port| ask(&mut script, port, TcpFlags::SYN, FIRST));
        assert_eq!(script.table.len(), 199);
        (1..200).for_each(|port| ask(&mut script, port, TcpFlags::RST, FIRST + 1));
        assert!(script.table.is_empty() && script.port.take_frames().is_empty());
    }
    ask(&mut script, 1, TcpFlags::SYN, FIRST);
    let late = happened(true, true);
    assert!(script.with(|table, poll, cx| table.ready(late, poll, cx)).is_none());
    assert!(script.table.len() == 1 && script.port.take_frames().is_empty(), "nobody was answered");
}

#[test]
fn an_answer_acknowledges_its_question_where_they_take_turns() {
    let (mut script, _, mut peer) = Script::connect(Keeping::Kernel, modern());
    let answer = |script: &mut Script, peer: &mut TcpStream| {
        peer.write_all(b"answer").unwrap();
        let answers = script.received(6);
        assert_eq!(answers[0].0.ack, script.next);
        script.ack += 6;
        answers.len()
    };
    for _ in 0..2 {
        assert!(is_plain_ack(&script.data(b"question"), script.next), "nobody knows yet");
        answer(&mut script, &mut peer);
    }
    for _ in 0..3 {
        assert!(script.data(b"question").is_empty());
        assert_eq!(answer(&mut script, &mut peer), 1);
    }
    assert!(script.data(b"question").is_empty());
    assert!(is_plain_ack(&script.data(b"in two parts"), script.next), "a second one does not wait");
    answer(&mut script, &mut peer);
    for _ in 0..2 {
        assert!(is_plain_ack(&script.data(b"question"), script.next), "they take turns no more");
        answer(&mut script, &mut peer);
    }
    assert!(script.data(b"question").is_empty());
    script.now += 10;
    assert!(is_plain_ack(&script.turn(), script.next), "no answer came");
    assert!(script.turn().is_empty());
    answer(&mut script, &mut peer);
    for _ in 0..2 {
        assert!(is_plain_ack(&script.data(b"question"), script.next), "from now on it is at once");
        answer(&mut script, &mut peer);
    }
    assert!(is_plain_ack(&script.data(&[7; 1_000]), script.next), "a whole segment is no question");
    assert!(is_plain_ack(&script.fin(), script.next), "nor is an end");
}

#[test]
fn what_came_again_is_told_once_so_that_the_guest_knows_that_nothing_was_lost() {
    let (mut script, _, _peer) = Script::connect(Keeping::Kernel, modern());
    let first = script.next;
    let told = |answers: &[Answer]| -> Vec<(u32, u32)> {
        assert!(is_plain_ack(answers, answers[0].0.ack));
        answers[0].0.options.sack.iter().map(|(start, end)| (start - first, end - first)).collect()
    };
    assert!(told(&script.data(&[1; 10])).is_empty());
    script.next = first;
    assert_eq!(told(&script.data(&[1; 10])), [(0, 10)]);
    script.next = first + 5;
    assert_eq!(told(&script.data(&[1; 10])), [(5, 10)], "the rest is new");
    script.next = first + 20;
    assert_eq!(told(&script.data(&[1; 10])), [(20, 30)], "behind a gap");
    script.next = first;
    assert_eq!(told(&script.data(&[1; 3])), [(0, 3), (20, 30)]);
    script.next = first + 15;
    assert!(told(&script.data(&[1; 5])).is_empty(), "both were told");
}
