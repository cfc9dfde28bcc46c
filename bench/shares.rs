//! What a shared folder costs its guest: runs there, and prints a line for each thing that is measured. Plain std, so that
//! `rustc -O -C target-feature=+crt-static` makes one static file of it.
//!
//!     shares load FOLDER     in the guest: `@ NAME VALUE`
//!     shares table FILE      medians of `row PEER NAME VALUE exits=… cpu=…`, and how many times as good the first peer is

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;
use std::{alloc, env};

/// One file's length, in MiB.
const FILE_MIB: usize = 32;
/// Small files, and how long they are.
const FILES: usize = 100;
const SMALL_BYTES: usize = 1024;
/// A tree as git looks at it: folders, and files in each.
const TREE: (usize, usize) = (10, 30);
/// Reads of 4 KiB anywhere.
const READS: u64 = 400;

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["load", folder] => load(Path::new(folder)),
        ["table", file] => table(file),
        _ => panic!("usage: shares load FOLDER | shares table FILE"),
    }
}

fn load(folder: &Path) {
    let big = folder.join("big");
    // What was measured before is told of when the next one begins: so the first line ends the preparation.
    println!("@ start 0");
    let chunk: Vec<u8> = (0..1_u32 << 18).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    measure("write, MB/s", FILE_MIB as f64 * 1.048_576, || {
        let mut file = File::create(&big).unwrap();
        (0..FILE_MIB).for_each(|_| file.write_all(&chunk).unwrap());
        file.sync_all().unwrap();
    });
    drop_caches();
    let mut buffer = vec![0; 128 << 10];
    measure("read, MB/s", FILE_MIB as f64 * 1.048_576, || {
        let mut file = File::open(&big).unwrap();
        while file.read(&mut buffer).unwrap() > 0 {}
    });
    drop_caches();
    let direct = OpenOptions::new().read(true).custom_flags(0o40000).open(&big).unwrap();
    let layout = alloc::Layout::from_size_align(4096, 4096).unwrap();
    // SAFETY: the layout is not empty.
    let start = unsafe { alloc::alloc_zeroed(layout) };
    assert!(!start.is_null(), "there is a page of memory");
    // SAFETY: so many bytes, all of them zero, are there; nobody else has them, and nobody frees them.
    let page = unsafe { std::slice::from_raw_parts_mut(start, 4096) };
    measure("random 4 KiB, /s", READS as f64, || {
        for read in 0..READS {
            let at = read.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (FILE_MIB as u64 * 256);
            direct.read_exact_at(page, at * 4096).unwrap();
        }
    });
    let name = |number: usize| folder.join(format!("small-{number}"));
    let small = vec![7; SMALL_BYTES];
    measure("make small files, /s", FILES as f64, || (0..FILES).for_each(|number| fs::write(name(number), &small).unwrap()));
    drop_caches();
    measure("read small files, /s", FILES as f64, || {
        (0..FILES).for_each(|number| assert_eq!(fs::read(name(number)).unwrap().len(), SMALL_BYTES));
    });
    measure("remove files, /s", FILES as f64, || (0..FILES).for_each(|number| fs::remove_file(name(number)).unwrap()));
    let (folders, files) = TREE;
    for number in 0..folders {
        let place = folder.join(format!("tree/{number}"));
        fs::create_dir_all(&place).unwrap();
        (0..files).for_each(|file| drop(File::create(place.join(file.to_string())).unwrap()));
    }
    drop_caches();
    let status = || {
        for number in 0..folders {
            for entry in fs::read_dir(folder.join(format!("tree/{number}"))).unwrap() {
                assert!(entry.unwrap().path().symlink_metadata().unwrap().is_file());
            }
        }
    };
    measure("list and stat, nothing cached, /s", (folders * files) as f64, status);
    measure("list and stat again, /s", (folders * files) as f64, status);
    fs::remove_dir_all(folder.join("tree")).unwrap();
}

fn measure(name: &str, amount: f64, work: impl FnOnce()) {
    println!("@ begin 0");
    let start = Instant::now();
    work();
    println!("@ {} {:.2}", name.replace(' ', "_"), amount / start.elapsed().as_secs_f64());
}

fn drop_caches() {
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

/// Lines come in the order of the run: what stands in a line is what was counted up to there.
fn table(file: &str) {
    let mut peers: Vec<String> = vec![];
    let mut names: Vec<String> = vec![];
    let mut found: BTreeMap<(String, String), [Vec<f64>; 3]> = BTreeMap::new();
    let mut before: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for line in fs::read_to_string(file).unwrap().lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["row", peer, name, value, rest @ ..] = &words[..] else { continue };
        let count = |key: &str| -> f64 {
            rest.iter().find_map(|word| word.strip_prefix(key)).and_then(|value| value.parse().ok()).unwrap_or(0.0)
        };
        let now = (count("exits="), count("cpu="));
        let last = before.insert((*peer).to_owned(), now).unwrap_or(now);
        if matches!(*name, "start" | "begin") {
            continue;
        }
        let name = name.replace('_', " ");
        if !peers.iter().any(|known| known == peer) {
            peers.push((*peer).to_owned());
        }
        if !names.contains(&name) {
            names.push(name.clone());
        }
        let cell = found.entry(((*peer).to_owned(), name)).or_default();
        cell[0].extend(value.parse::<f64>());
        cell[1].push(now.0 - last.0);
        cell[2].push(now.1 - last.1);
    }
    println!("| | {} |\n|{}", peers.join(" | "), " --- |".repeat(peers.len() + 1));
    for name in names {
        let cells: Vec<[f64; 3]> = peers
            .iter()
            .map(|peer| found.get(&(peer.clone(), name.clone())).map_or([0.0; 3], |cell| cell.clone().map(median)))
            .collect();
        let own = cells[0][0];
        let text = cells.iter().enumerate().map(|(at, [value, exits, cpu])| {
            let ratio = if at == 0 { String::new() } else { format!(" **{:.2}×**", own / value) };
            format!("{value:.1}{ratio}, {exits:.0} exits, {:.2} s", cpu / 100.0)
        });
        println!("| {name} | {} |", text.collect::<Vec<_>>().join(" | "));
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
