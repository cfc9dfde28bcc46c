//! What a machine hears from servers of addresses and from routers, and what it is told by user data and discs.

use std::fs;
use std::io::Write;

use kiln_applets::metadata;
use kiln_dhcp::advertisement::Advertisement;
use kiln_dhcp::retry::Random;
use kiln_dhcp::{v4, v6, wire};

/// The card of the machine that is fed.
pub const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

/// Messages of servers and routers, each behind its length (two bytes, the low one first). Those that a client of either
/// protocol may take for an answer get its transaction; a minute passes between two.
pub fn dhcp(data: &[u8]) {
    hear(data);
}

/// As [`dhcp`]; gives how many leases were taken.
pub fn hear(data: &[u8]) -> usize {
    let mut taken = 0;
    let mut v4 = v4::Client::new(MAC, Some("guest".into()), Random::new(1));
    let mut v6 = v6::Client::new(MAC, Random::new(1));
    let (mut acts4, mut acts6) = (vec![], vec![]);
    v4.start(0, None);
    v6.set_mode(0, v6::Mode::Address, &mut acts6);
    let (mut rest, mut now, mut count) = (data, 0, 0_u64);
    let (mut asked4, mut asked6) = ([0; 4], [0; 3]);
    while let [low, high, after @ ..] = rest {
        let (message, behind) = after.split_at(usize::from(u16::from_le_bytes([*low, *high])).min(after.len()));
        rest = behind;
        count += 1;
        v4.turn(now, &mut acts4);
        v6.turn(now, &mut acts6);
        for act in acts4.drain(..) {
            taken += usize::from(matches!(act, v4::Act::Take(..)));
            if let v4::Act::Broadcast(sent, _) | v4::Act::Unicast(sent, ..) = act {
                asked4.copy_from_slice(&sent[4..8]);
            }
        }
        for act in acts6.drain(..) {
            taken += usize::from(matches!(act, v6::Act::Take(_)));
            if let v6::Act::Send(sent) = act {
                asked6.copy_from_slice(&sent[1..4]);
            }
        }
        let packet = message.to_vec();
        let _refused = (wire::from_server(&packet), wire::who_says(&packet), Advertisement::read(&packet));
        if let Some((_, body)) = wire::advertisement(&packet) {
            let read = Advertisement::read(body);
            assert!(read.is_none_or(|read| read.dns.len() <= 8 && read.search.len() <= 16));
        }
        let mut message = packet.clone();
        if let Some(transaction) = message.get_mut(4..8) {
            transaction.copy_from_slice(&asked4);
        }
        v4.receive(now, &message, &mut acts4);
        let mut message = packet;
        if let Some(transaction) = message.get_mut(1..4) {
            transaction.copy_from_slice(&asked6);
        }
        v6.receive(now, &message, &mut acts6);
        if let Some(lease) = v4.lease() {
            assert!(lease.valid_s >= 60 && lease.renewal_s >= 30 && lease.rebinding_s >= lease.renewal_s);
            assert!(lease.routes.len() <= 64 && lease.dns.len() <= 3 && lease.search.len() <= 16);
        }
        now += 60_000;
        assert!(acts4.len() <= 4 && acts6.len() <= 4, "one message makes few things to do, not {count}");
    }
    v4.release(now, &mut acts4);
    v6.release(now, &mut acts6);
    taken
}

/// Where the first volume descriptor of an ISO 9660 image is; nobody looks at what stands in front.
pub const DISC_STARTS: usize = 16 * 2048;
/// Most that user data of a few kilobytes may make of itself: 64 MiB unpacked, and the data itself.
const MADE_LIMIT_BYTES: u64 = 80 << 20;

/// User data, laid out; and the same bytes as a disc, from its first volume descriptor on.
pub fn metadata(data: &[u8]) {
    lay_out(data);
    let mut disc = tempfile::tempfile().expect("a file can be made");
    disc.write_all(&[&vec![0; DISC_STARTS], data].concat()).expect("it can be written");
    if let Some(user_data) = metadata::of_disc(disc, &mut |_| {}) {
        lay_out(&user_data);
    }
}

/// How many files and folders user data makes, all of them below the machine's root.
pub fn lay_out(data: &[u8]) -> usize {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (root, beside) = (folder.path().join("root"), folder.path().join("beside"));
    fs::create_dir(&root).expect("the folder is there");
    fs::write(&beside, "mine").expect("the folder is there");
    let mut said = 0;
    let failed = metadata::lay_out(data, &root, &mut |_| said += 1);
    assert!(failed <= said, "{failed} failures, and {said} words");
    assert_eq!(fs::read(&beside).expect("it is there still"), b"mine");
    assert_eq!(fs::read_dir(&folder).expect("it is there still").count(), 2, "something is outside of the root");
    let (mut count, mut bytes, mut folders) = (0, 0, vec![root]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let found = entry.metadata().expect("it is there");
            count += 1;
            bytes += found.len();
            assert!(found.is_dir() || found.is_file(), "only files and folders are made");
            if found.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    assert!(bytes <= MADE_LIMIT_BYTES, "{bytes} bytes");
    count
}
