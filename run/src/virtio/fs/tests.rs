//! The device, driven over its queues.

use super::*;
use crate::{
    config::Share,
    share::open_all,
    virtio::mock::{Buffer, DEVICE, Driver},
};

fn setup() -> (Driver, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("hello"), "from the host").unwrap();
    let share = Share { folder: folder.path().into(), tag: "tag".into(), ..Share::default() };
    let share = open_all(&[share], folder.path()).unwrap().remove(0);
    let mut driver = Driver::find(Box::new(VirtioFs::new(share)));
    driver.start();
    (driver, folder)
}

fn message(operation: u32, node: u64, fields: &[u8]) -> Vec<u8> {
    let len = u32::try_from(40 + fields.len()).unwrap();
    let ids = [0; 16];
    [&len.to_le_bytes()[..], &operation.to_le_bytes(), &[9; 8], &node.to_le_bytes(), &ids, fields].concat()
}

#[test]
fn a_chain_that_is_no_request_stops_it_and_a_reset_brings_it_back() {
    let (mut driver, _folder) = setup();
    driver.put(1, &[Buffer::Out(vec![0; 39]), Buffer::In(100)]);
    driver.notify(1);
    driver.wait_for_break_down();
    driver.reset();
    driver.start();
    assert_eq!(driver.request(1, &[Buffer::Out(message(1, 1, b"hello\0")), Buffer::In(144)]).written, 144);
}

#[test]
fn its_configuration_holds_the_tag_and_says_how_many_queues_it_has() {
    let (driver, _folder) = setup();
    let mut config = [0; 44];
    driver.read(driver.at(DEVICE, 0), &mut config);
    assert_eq!(&config[..4], b"tag\0");
    assert_eq!(config[36..], [2, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn data_comes_into_the_guests_memory_whatever_pieces_it_is_in() {
    let (mut driver, folder) = setup();
    let entry = driver.request(1, &[Buffer::Out(message(1, 1, b"hello\0")), Buffer::In(144)]).filled;
    let node = u64::from_le_bytes(entry[16..24].try_into().unwrap());
    let opened = driver.request(2, &[Buffer::Out(message(14, node, &[2, 0, 0, 0, 0, 0, 0, 0])), Buffer::In(32)]);
    let handle = &opened.filled[16..24];
    let fields = |len: u32| [handle, &5_u64.to_le_bytes(), &len.to_le_bytes(), &[0; 20]].concat();
    let read = [Buffer::Out(message(15, node, &fields(100))), Buffer::In(16), Buffer::In(3), Buffer::In(97)];
    let answer = driver.request(1, &read);
    assert_eq!((answer.written, &answer.filled[16..24]), (24, &b"the host"[..]));
    let write =
        [Buffer::Out(message(16, node, &fields(5))), Buffer::Out(b"a gu".to_vec()), Buffer::Out(b"est".to_vec())];
    assert_eq!(driver.request(1, &[&write[..], &[Buffer::In(24)]].concat()).written, 24);
    assert_eq!(std::fs::read(folder.path().join("hello")).unwrap(), b"from a gueost");
    // What nobody waits for takes no answer.
    assert_eq!(driver.request(0, &[Buffer::Out(message(2, node, &1_u64.to_le_bytes()))]).written, 0);
}
