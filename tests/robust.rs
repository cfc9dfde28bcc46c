//! A build that is killed, that shares its cache with another, or whose cache is read-only, full or damaged: the bytes are
//! right or there are none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::kiln::{Running, Sandbox, run};
use crate::harness::layout::write_layout;

const YAML: &str =
    "init: [\"example.test/big:1\"]\nservices:\n  - {name: big, image: \"example.test/big:1\", command: [/bin/a]}\n";

/// What every build here is to write.
const OUTPUTS: [&str; 3] = ["x-cmdline", "x-initrd.img", "x.tar"];

/// A store with one image, and what a build of it writes when nothing is in its way.
struct Lab {
    sandbox: Sandbox,
    right: Vec<(&'static str, Vec<u8>)>,
    takes: Duration,
}

impl Lab {
    /// `random_mib` of content that cannot be packed and twice as much that can.
    fn new(random_mib: u32) -> Self {
        let sandbox = Sandbox::new();
        let script = format!(
            "mkdir -p big/bin big/usr
             for file in $(seq {random_mib}); do head -c 1048576 /dev/urandom > big/usr/$file; done
             seq {} > big/bin/a; cp big/bin/a big/bin/b; ln big/bin/a big/bin/c
             tar -C big --sort=name --mtime=@0 -czf big.tar.gz bin usr && rm -r big",
            130_000 * random_mib
        );
        run(Command::new("sh").args(["-euc", &script]).current_dir(sandbox.path())).ok();
        let layout = sandbox.path().join("store");
        write_layout(&layout, "example.test/big:1", &[("big.tar.gz", "tar+gzip")], sandbox.path());
        fs::remove_file(sandbox.path().join("big.tar.gz")).unwrap();
        sandbox.write("x.yml", YAML);
        let mut lab = Self { sandbox, right: vec![], takes: Duration::ZERO };
        let started = Instant::now();
        run(&mut lab.build("first", "store")).ok();
        lab.takes = started.elapsed();
        lab.right = lab.written("first");
        assert!(lab.right.len() >= 2, "{:?}", lab.sandbox.files());
        lab
    }

    fn build(&self, out: &str, store: &str) -> Command {
        let words = ["build", "--no-sbom", "--format", "tar,kernel+initrd", "--cache", store, "--dir", out, "x.yml"];
        self.sandbox.kiln(words)
    }

    /// The outputs that are there.
    fn written(&self, out: &str) -> Vec<(&'static str, Vec<u8>)> {
        let read = |name| Some((name, fs::read(self.sandbox.path().join(out).join(name)).ok()?));
        OUTPUTS.into_iter().filter_map(read).collect()
    }

    #[track_caller]
    fn check_right(&self, out: &str) {
        let written = self.written(out);
        let sizes = |files: &[(&str, Vec<u8>)]| -> Vec<_> {
            files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.len())).collect()
        };
        assert!(written == self.right, "{:?} instead of {:?}", sizes(&written), sizes(&self.right));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path().join(name)
    }

    /// Files in the store that are neither its own nor a whole entry of the cache.
    fn leftovers(&self) -> Vec<String> {
        let is_hex = |name: &str| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let known = |name: &String| {
            let file = name.rsplit('/').next().unwrap_or_default();
            ["index.json", "oci-layout", ".lock", ".kiln-users"].contains(&file) || is_hex(file)
        };
        let below = |name: &String| name.starts_with("store/") && self.path(name).is_file();
        self.sandbox.files().into_iter().filter(below).filter(|name| !known(name)).collect()
    }
}

fn remove(folder: &Path) {
    if folder.exists() {
        fs::remove_dir_all(folder).unwrap();
    }
}

#[test]
fn a_build_that_is_killed_at_any_point_leaves_nothing_wrong() {
    let lab = Lab::new(4);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..60 {
        remove(&lab.path("out"));
        remove(&lab.path("store/kiln-stamps"));
        if round % 3 != 2 {
            remove(&lab.path("store/kiln-cache"));
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let delay = lab.takes.mul_f64(f64::from(u32::try_from(state >> 33).unwrap()) / f64::from(1_u32 << 31) * 1.2);
        let build = Running::start(&mut lab.build("out", "store"));
        std::thread::sleep(delay);
        let signal = if round < 50 { "-KILL" } else { "-INT" };
        run(Command::new("kill").args([signal, &build.pid().to_string()]));
        let (status, said) = build.wait(Duration::from_secs(60));
        // What has its final name is whole; an interrupted build takes everything back.
        let written = lab.written("out");
        assert!(written.iter().all(|file| lab.right.contains(file)), "after {delay:?}: {said}");
        if signal == "-INT" {
            assert!(status.success() == (written.len() == lab.right.len()), "after {delay:?}: {status:?} {said}");
            assert!(status.success() || !lab.path("out").exists(), "after {delay:?}: {said}");
        }
        assert_eq!(lab.leftovers(), [""; 0], "after {delay:?}");
    }
    run(&mut lab.build("out", "store")).ok();
    lab.check_right("out");
    let mut names: Vec<_> =
        fs::read_dir(lab.path("out")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, lab.right.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    assert_eq!(lab.leftovers(), [""; 0]);
}

#[test]
fn two_builds_at_once_on_one_cache_both_are_right() {
    let lab = Lab::new(4);
    for round in 0..6 {
        if round % 2 == 0 {
            remove(&lab.path("store/kiln-cache"));
        }
        let outs = ["one", "two", "three"];
        outs.iter().for_each(|out| remove(&lab.path(out)));
        remove(&lab.path("store/kiln-stamps"));
        let builds = outs.map(|out| Running::start(&mut lab.build(out, "store")));
        for (build, out) in builds.into_iter().zip(outs) {
            let (status, said) = build.wait(Duration::from_secs(60));
            assert!(status.success(), "{said}");
            lab.check_right(out);
        }
        assert_eq!(lab.leftovers(), [""; 0]);
    }
}

#[test]
fn a_damaged_cache_is_made_again() {
    let lab = Lab::new(1);
    let mut damaged = 0;
    for shelf in ["layers", "packed"] {
        for entry in fs::read_dir(lab.path("store/kiln-cache").join(shelf)).unwrap().flatten() {
            let mut bytes = fs::read(entry.path()).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(entry.path(), bytes).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged >= 3, "{damaged} entries");
    for out in ["out", "again"] {
        run(&mut lab.build(out, "store")).ok();
        lab.check_right(out);
    }
}

/// `script` where `mount` works, after the store was copied to `full`, a disk of `mib` MiB that is then made read-only if
/// `options` say so.
fn on_a_disk(lab: &Lab, mib: u32, then: &str, out: &str) -> crate::harness::kiln::Said {
    let build = lab.build(out, "full");
    let words: Vec<_> = build.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let script = format!(
        "mkdir -p full && mount -t tmpfs -o size={mib}m none full && cp -r store/. full/ && rm -rf full/kiln-stamps\n\
         {then}\n\"$@\"; echo status $?; find full -name '.tmp*' -o -path '*/tmp/*'"
    );
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--user", "--map-root-user", "--mount", "sh", "-uc", &script, "sh"])
        .arg(build.get_program())
        .args(words);
    unshare.current_dir(lab.sandbox.path()).env("HOME", lab.path("home")).env("NO_COLOR", "1");
    run(&mut unshare)
}

#[test]
fn a_read_only_cache_still_builds() {
    let lab = Lab::new(1);
    for (out, then) in [("warm", ""), ("cold", "rm -rf full/kiln-cache")] {
        let said = on_a_disk(&lab, 64, &format!("{then}\nmount -o remount,ro full"), out);
        assert_eq!(said.stdout.lines().collect::<Vec<_>>(), ["status 0"], "{out}: {}", said.stderr);
        lab.check_right(out);
    }
}

#[test]
fn a_full_cache_disk_is_said_or_does_not_matter() {
    let lab = Lab::new(4);
    remove(&lab.path("store/kiln-cache"));
    // Room for the layer while it is unpacked, but not for keeping anything.
    let said = on_a_disk(&lab, 22, "", "out");
    assert_eq!(said.stdout.lines().collect::<Vec<_>>(), ["status 0"], "{}", said.stderr);
    lab.check_right("out");
    // Not even that.
    let said = on_a_disk(&lab, 10, "", "none");
    assert_eq!(said.stdout.lines().collect::<Vec<_>>(), ["status 1"], "{}", said.stderr);
    assert!(said.stderr.contains("free some space"), "{}", said.stderr);
    assert!(!lab.path("none").exists());
}
