//! What is left of an image when its writer is killed at any moment, or its file can grow no more. This binary is that writer
//! too, when it is told to write.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use kiln_run::block::{BlockBackend, Request};
use kiln_run::config::Disk;
use kiln_run::disks::open_all;
use kiln_run::mem::GuestMemory;
use kiln_run::mem::transfer::Span;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vm_memory::{Bytes, GuestAddress};

const DISK_BYTES: u64 = 64 << 20;
/// What one step writes.
const PIECE_BYTES: u64 = 4096;
/// Steps between flushes.
const STEPS: u64 = 16;
/// How often each image is cut off, unless `KILN_POWER_CUTS` says more.
const CUTS: u64 = 10;
/// Where the writer's file can grow no more.
const FILE_LIMIT_BYTES: u64 = 3 << 20;

fn main() -> io::Result<()> {
    let words: Vec<String> = env::args().collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "--write", path, seed] => write_for_ever(Path::new(path), seed.parse().unwrap_or(0)),
        [_, "--fill", path] => fill(Path::new(path)),
        _ => {
            for kind in [Kind::Own, Kind::Overlay, Kind::SmallClusters, Kind::Raw] {
                what_was_flushed_survives_a_power_cut(kind);
            }
            a_file_that_can_grow_no_more_is_an_error_and_no_damage();
            Ok(())
        }
    }
}

/// What is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An image as kiln makes it.
    Own,
    /// An image over another file.
    Overlay,
    /// An image that needs a new table every 32 KiB.
    SmallClusters,
    Raw,
}

/// One file to write to, over another one if `base` is there.
fn disk(path: &Path) -> Disk {
    let base = path.with_extension("base");
    Disk {
        size_bytes: Some(DISK_BYTES),
        backing: base.exists().then_some(base).into_iter().collect(),
        ..Disk::of(path.into())
    }
}

struct Hand {
    memory: GuestMemory,
    backend: Arc<dyn BlockBackend>,
}

impl Hand {
    fn new(path: &Path) -> Self {
        let folder = path.parent().expect("a path in a folder");
        let mut disks = open_all(&[disk(path)], folder).expect("the image can be opened");
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).expect("there is memory");
        Self { memory, backend: disks.remove(0).backend }
    }

    fn ask(&self, request: Request<'_>) -> io::Result<()> {
        self.backend.execute(&self.memory, request)
    }

    fn write(&self, offset: u64, step: u64) -> io::Result<()> {
        let words = vec![step.to_le_bytes(); 512].concat();
        self.memory.write_slice(&words, GuestAddress(0)).expect("inside of memory");
        self.ask(Request::Write { offset, from: &[Span { address: GuestAddress(0), len: 4096 }] })
    }

    /// The step that the piece at `offset` comes from; a piece of several is one that no step wrote.
    fn read(&self, offset: u64) -> Option<u64> {
        self.ask(Request::Read { offset, into: &[Span { address: GuestAddress(0), len: 4096 }] })
            .expect("it can be read");
        let mut bytes = [0; 4096];
        self.memory.read_slice(&mut bytes, GuestAddress(0)).expect("inside of memory");
        let (first, rest) = bytes.split_first_chunk::<8>()?;
        rest.chunks(8).all(|word| word == first).then(|| u64::from_le_bytes(*first))
    }
}

/// Where each step writes: the same for the same seed.
fn places(seed: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (1..).map(move |step| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (step, state % (DISK_BYTES / PIECE_BYTES) * PIECE_BYTES)
    })
}

/// Writes, discards far from what counts, and tells each flush's last step.
fn write_for_ever(path: &Path, seed: u64) -> io::Result<()> {
    let hand = Hand::new(path);
    for (step, offset) in places(seed) {
        hand.write(offset, step)?;
        if step % STEPS == 0 {
            hand.ask(Request::Flush)?;
            writeln!(io::stdout(), "{step}")?;
        }
    }
    Ok(())
}

/// Writes until the file can grow no more, and then a little.
fn fill(path: &Path) -> io::Result<()> {
    let _seen = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    let hand = Hand::new(path);
    let limit = Rlimit { current: Some(FILE_LIMIT_BYTES), ..getrlimit(Resource::Fsize) };
    setrlimit(Resource::Fsize, limit)?;
    let failed = places(1).take(4000).filter(|(step, offset)| hand.write(*offset, *step).is_err()).count();
    let flushed = hand.ask(Request::Flush);
    writeln!(io::stdout(), "{failed} {}", flushed.is_ok())
}

fn own(words: &[&str], path: &Path) -> Command {
    let mut own = Command::new(env::current_exe().expect("this binary has a name"));
    own.arg(words[0]).arg(path).args(&words[1..]);
    own
}

/// `qemu-img check`: no errors; clusters that nobody uses are no damage.
#[track_caller]
fn check(path: &Path) {
    let Output { status, stdout, stderr } =
        Command::new("qemu-img").arg("check").arg(path).output().expect("qemu-utils is installed");
    let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    assert!(matches!(status.code(), Some(0 | 3)) && !said.contains("ERROR"), "{status}: {said}");
}

fn image(folder: &Path, kind: Kind) -> PathBuf {
    let path = folder.join(if kind == Kind::Raw { "disk.img" } else { "disk.qcow2" });
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2"]);
    match kind {
        Kind::Own | Kind::Raw => return path,
        Kind::SmallClusters => create.args(["-o", "cluster_size=512"]),
        Kind::Overlay => {
            let base = path.with_extension("base");
            std::fs::write(&base, vec![0; 1 << 20]).expect("the folder is writable");
            create.args(["-F", "raw", "-b"]).arg(base)
        }
    };
    assert!(create.arg(&path).arg("64M").status().expect("qemu-utils is installed").success());
    path
}

fn what_was_flushed_survives_a_power_cut(kind: Kind) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = image(folder.path(), kind);
    let cuts = env::var("KILN_POWER_CUTS").map_or(CUTS, |count| count.parse().expect("a number of cuts"));
    // What the image surely holds, by place, from all rounds.
    let mut surely: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for round in 1..=cuts {
        let seed = round.to_string();
        let mut child = own(&["--write", &seed], &path).stdout(Stdio::piped()).spawn().expect("this binary starts");
        let lines = BufReader::new(child.stdout.take().expect("it is a pipe")).lines();
        // A few flushes, then whatever it is at: the pipe's delay is the chance in it.
        let flushed = lines.map_while(Result::ok).nth((round % 7).try_into().expect("small"));
        child.kill().expect("it runs");
        child.wait().expect("it was started");
        let flushed: u64 = flushed.expect("it flushes").parse().expect("a number");
        if kind != Kind::Raw {
            check(&path);
        }
        for (step, offset) in places(round).take_while(|(step, _)| *step <= flushed) {
            surely.insert(offset, (round, step));
        }
        // What was written later may be there or not.
        let later: Vec<(u64, u64)> = places(round).skip_while(|(step, _)| *step <= flushed).take(100_000).collect();
        let hand = Hand::new(&path);
        let mut seen = BTreeMap::new();
        for (offset, (_, step)) in &surely {
            let found = hand.read(*offset);
            let is_later = || later.iter().any(|(step, place)| place == offset && Some(*step) == found);
            assert!(
                found == Some(*step) || is_later(),
                "{kind:?}, round {round}: {offset:#x} has {found:?}, not step {step}"
            );
            seen.insert(*offset, (round, found.unwrap_or(0)));
        }
        surely = seen;
        // What came late is from now on as sure as the rest.
        hand.ask(Request::Flush).expect("it can be flushed");
    }
}

fn a_file_that_can_grow_no_more_is_an_error_and_no_damage() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = image(folder.path(), Kind::Own);
    let output = own(&["--fill"], &path).output().expect("this binary starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    let failed: u64 = said.split(' ').next().and_then(|word| word.parse().ok()).expect("a number");
    assert!((100..4000).contains(&failed), "{said}");
    check(&path);
}
