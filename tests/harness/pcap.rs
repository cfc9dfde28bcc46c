//! Reads what `-pcap` wrote.

use std::path::Path;

/// The frames of a file, which must be whole (pcap-savefile(5)).
pub fn frames(path: &Path) -> Vec<Vec<u8>> {
    let file = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let word = |at: usize| u32::from_ne_bytes(file[at..at + 4].try_into().expect("four bytes"));
    assert_eq!((word(0), word(20)), (0xa1b2_c3d4, 1), "microseconds, Ethernet");
    let mut frames = vec![];
    let mut at = 24;
    while at < file.len() {
        let (kept, len) = (word(at + 8) as usize, word(at + 12) as usize);
        assert_eq!(kept, len, "nothing is cut off");
        frames.push(file[at + 16..at + 16 + kept].to_vec());
        at += 16 + kept;
    }
    frames
}
