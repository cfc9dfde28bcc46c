//! What no format can hold, disks that are full, builds that are killed: an error that says so, and nothing half-written.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::formats::ROWS;
use crate::harness::kiln::{Running, Said, Sandbox, run};
use crate::harness::layout::write_image;
use crate::harness::roots::{self, layer};

/// `kiln build` of one format to the folder of its name.
fn build(sandbox: &Sandbox, yaml: &str, format: &str, more: &[&str]) -> Said {
    run(sandbox
        .kiln(["build", "-q", "--no-sbom", "--cache", "store", "--format", format, "--dir", format])
        .args(more)
        .arg(yaml))
}

/// It worked, or the error holds all of `words` and the folder is not there.
#[track_caller]
fn check_said(sandbox: &Sandbox, format: &str, said: &Said, words: &[&str]) {
    if said.status.success() {
        return;
    }
    assert_eq!(said.code(), 1, "{format}: {}", said.stderr);
    for word in words {
        assert!(said.stderr.contains(word), "{format}: no `{word}` in:\n{}", said.stderr);
    }
    assert!(!sandbox.path().join(format).exists(), "{format} left something: {:?}", sandbox.files());
}

#[test]
fn a_folder_of_70_000_files_is_written_or_its_limit_is_named() {
    const FILES: usize = 70_000;
    let sandbox = Sandbox::new();
    roots::write_store(&sandbox, "store");
    let many = layer(|layer| {
        layer.folder(b"many");
        (0..FILES).for_each(|n| layer.file(format!("many/{n}").as_bytes(), if n % 9 == 0 { b"nine" } else { b"" }));
    });
    write_image(&sandbox.path().join("store"), "example.test/many:1", &many);
    sandbox.write("it.yml", roots::yaml("example.test/many:1"));
    for row in ROWS {
        let said = build(&sandbox, "it.yml", row.format, &[]);
        check_said(&sandbox, row.format, &said, &["many"]);
    }
    // What counts them must see them all.
    let count = |format: &str, file: &str, script: &str| {
        let image = sandbox.path().join(format).join(file);
        if image.exists() {
            let said = run(Command::new("sh").args(["-euc", script, "sh"]).arg(&image)).ok();
            assert_eq!(said.stdout.trim().parse::<usize>().ok(), Some(FILES), "{format}: {}", said.stderr);
        }
    };
    count("kernel+squashfs", "it-squashfs.img", "unsquashfs -l \"$1\" | grep -c /many/");
    count(
        "kernel+erofs",
        "it-erofs.img",
        "fsck.erofs \"$1\" >&2; dump.erofs --ls --path=/many \"$1\" | awk 'NF == 3 && $3 ~ /^[0-9]+$/' | wc -l",
    );
    count("kernel+iso", "it.iso", "xorriso -indev \"$1\" -find /many -type f 2>/dev/null | wc -l");
    count("kernel+initrd", "it-initrd.img", "gzip -dc \"$1\" | cpio -t --quiet | grep -c many/");
}

#[test]
fn a_file_of_4_gib_is_written_or_its_limit_is_named() {
    const LEN: u64 = (4 << 30) + 5;
    let sandbox = Sandbox::new();
    roots::write_store(&sandbox, "store");
    fs::File::create(sandbox.path().join("big")).unwrap().set_len(LEN).unwrap();
    let yaml = roots::yaml(roots::SMALL) + "files: [{path: usr/big, source: big}]\n";
    sandbox.write("it.yml", yaml);
    // One for each way that a root is held: the others hold one of these.
    for format in ["kernel+initrd", "kernel+squashfs", "kernel+erofs", "kernel+iso"] {
        if !ROWS.iter().any(|row| row.format == format) {
            continue;
        }
        let said = build(&sandbox, "it.yml", format, &[]);
        check_said(&sandbox, format, &said, &["usr/big", "4294967301"]);
        let read = match format {
            "kernel+squashfs" => "unsquashfs -lln \"$1\" usr/big",
            "kernel+erofs" => "dump.erofs --path=/usr/big \"$1\"",
            "kernel+iso" => "xorriso -indev \"$1\" -find /usr/big -exec lsdl -- 2>/dev/null",
            _ => {
                assert!(!said.status.success(), "cpio cannot tell such a length");
                continue;
            }
        };
        if said.status.success() {
            let image = fs::read_dir(sandbox.path().join(format)).unwrap().map(|entry| entry.unwrap().path());
            let image = image.max_by_key(|path| path.extension().is_some()).unwrap();
            let told = run(Command::new("sh").args(["-euc", read, "sh"]).arg(&image)).ok().stdout;
            assert!(told.contains(&LEN.to_string()), "{format}: {told}");
        }
        let _ = fs::remove_dir_all(sandbox.path().join(format));
    }
}

#[test]
fn a_kernel_that_is_none_is_refused_where_it_would_have_to_boot() {
    let sandbox = Sandbox::new();
    let store = sandbox.path().join("store");
    write_image(&store, "example.test/text:1", &layer(|layer| layer.file(b"kernel", &b"no kernel\n".repeat(1000))));
    write_image(&store, "example.test/empty:1", &layer(|layer| layer.file(b"kernel", b"")));
    write_image(&store, roots::SMALL, &layer(|layer| layer.file(b"etc/motd", b"hello")));
    for kernel in ["text", "empty"] {
        let yaml = roots::yaml(roots::SMALL).replace(roots::KERNEL, &format!("example.test/{kernel}:1"));
        sandbox.write("it.yml", yaml);
        for row in ROWS {
            let said = build(&sandbox, "it.yml", row.format, &[]);
            check_said(&sandbox, row.format, &said, &["kernel"]);
            assert!(
                !(row.is_bootable_alone() && said.status.success()),
                "{}: {kernel} is taken for a kernel",
                row.format
            );
            let _ = fs::remove_dir_all(sandbox.path().join(row.format));
        }
    }
}

/// A YAML without `kernel:`.
#[test]
fn no_kernel_at_all_is_refused_where_it_would_have_to_boot() {
    let sandbox = Sandbox::new();
    write_image(&sandbox.path().join("store"), roots::SMALL, &layer(|layer| layer.file(b"etc/motd", b"hello")));
    sandbox.write("it.yml", format!("init: [\"{}\"]\n", roots::SMALL));
    for row in ROWS {
        let said = build(&sandbox, "it.yml", row.format, &[]);
        check_said(&sandbox, row.format, &said, &["kernel"]);
        assert!(!(row.is_bootable_alone() && said.status.success()), "{}: boots without a kernel?", row.format);
    }
}

#[test]
fn a_disk_that_is_too_small_is_said() {
    let sandbox = Sandbox::new();
    roots::write_store(&sandbox, "store");
    sandbox.write("it.yml", roots::yaml(roots::SMALL));
    for row in ROWS.iter().filter(|row| row.is_bootable_alone()) {
        let said = build(&sandbox, "it.yml", row.format, &["--size", "2M"]);
        check_said(&sandbox, row.format, &said, &["size"]);
    }
}

#[test]
fn an_architecture_that_no_boot_code_is_for_is_named() {
    let sandbox = Sandbox::new();
    roots::write_store(&sandbox, "store");
    sandbox.write("it.yml", roots::yaml(roots::SMALL));
    let index = sandbox.path().join("store/index.json");
    assert!(index.exists());
    for row in ROWS.iter().filter(|row| row.is_bootable_alone()) {
        let said = build(&sandbox, "it.yml", row.format, &["--arch", "s390x"]);
        assert!(!said.status.success(), "{} for s390x", row.format);
        check_said(&sandbox, row.format, &said, &["s390x"]);
    }
}

/// Each format on a disk of 6 MiB, where not even the kernel fits.
#[test]
fn a_full_disk_leaves_nothing_of_any_format() {
    let sandbox = Sandbox::new();
    roots::write_store(&sandbox, "store");
    sandbox.write("it.yml", roots::yaml(roots::NASTY));
    build(&sandbox, "it.yml", "tar", &[]).ok();
    for row in ROWS {
        let _ = fs::remove_dir_all(sandbox.path().join("store/kiln-stamps"));
        fs::create_dir_all(sandbox.path().join("full")).unwrap();
        let words = ["build", "-q", "--no-sbom", "--cache", "store", "--dir", "full", "it.yml", "--format", row.format];
        let build = sandbox.kiln(words);
        let script = "mount -t tmpfs -o size=6m none full; \"$@\"; echo status $?; ls -A full";
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount", "sh", "-uc", script, "sh"]);
        unshare.arg(build.get_program()).args(build.get_args()).current_dir(sandbox.path());
        unshare.env("HOME", sandbox.path().join("home")).env("NO_COLOR", "1");
        let said = run(&mut unshare);
        assert_eq!(said.stdout.lines().collect::<Vec<_>>(), ["status 1"], "{}: {}", row.format, said.stderr);
        assert!(said.stderr.contains("no room for `full/it"), "{}: {}", row.format, said.stderr);
        assert!(leftovers(&sandbox).is_empty(), "{}: {:?}", row.format, leftovers(&sandbox));
    }
}

/// What a build that ended left in its store beside what it keeps.
fn leftovers(sandbox: &Sandbox) -> Vec<String> {
    let is_temporary = |name: &String| {
        let file = name.rsplit('/').next().unwrap_or_default();
        name.contains("/tmp/") || file.starts_with(".tmp") || file.starts_with(".kiln-tmp")
    };
    sandbox.files().into_iter().filter(is_temporary).collect()
}

#[test]
fn a_build_that_is_killed_leaves_nothing_wrong_of_any_format() {
    let sandbox = Sandbox::new();
    roots::write_store(&sandbox, "store");
    sandbox.write("it.yml", roots::yaml(roots::NASTY));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for row in ROWS {
        let forget = || {
            let _ = fs::remove_dir_all(sandbox.path().join("store/kiln-stamps"));
            let _ = fs::remove_dir_all(sandbox.path().join("store/kiln-cache/packed"));
        };
        forget();
        let started = Instant::now();
        build(&sandbox, "it.yml", row.format, &[]).ok();
        let takes = started.elapsed();
        let right = sandbox.path().join(row.format);
        for _ in 0..4 {
            forget();
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let delay = takes.mul_f64(f64::from(u32::try_from(state >> 33).unwrap()) / f64::from(1_u32 << 31));
            let words =
                ["build", "-q", "--no-sbom", "--cache", "store", "--dir", "out", "it.yml", "--format", row.format];
            let killed = Running::start(&mut sandbox.kiln(words));
            std::thread::sleep(delay);
            run(Command::new("kill").args(["-KILL", &killed.pid().to_string()]));
            let (_, said) = killed.wait(Duration::from_secs(60));
            check_same_files(
                &sandbox.path().join("out"),
                &right,
                &format!("{} after {delay:?}: {said}", row.format),
                false,
            );
        }
        forget();
        let words = ["build", "-q", "--no-sbom", "--cache", "store", "--dir", "out", "it.yml", "--format", row.format];
        run(&mut sandbox.kiln(words)).ok();
        check_same_files(&sandbox.path().join("out"), &right, row.format, true);
        fs::remove_dir_all(sandbox.path().join("out")).unwrap();
        fs::remove_dir_all(&right).unwrap();
    }
}

/// Each file of `folder` that has its final name is as it is in `right`; if `whole`, all of them and no other are there.
#[track_caller]
fn check_same_files(folder: &Path, right: &Path, what: &str, whole: bool) {
    let names = |folder: &Path| -> Vec<String> {
        let Ok(entries) = fs::read_dir(folder) else { return vec![] };
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    if whole {
        assert_eq!(names(folder), names(right), "{what}");
    }
    for name in names(folder).iter().filter(|name| name.starts_with("it")) {
        let same = run(Command::new("cmp").arg(folder.join(name)).arg(right.join(name))).status.success();
        assert!(same, "{what}: {name} differs");
    }
}

/// Less than the root that is built, which is twice this and cannot be packed.
const PEAK_LIMIT_MIB: u64 = 200;

#[test]
fn memory_does_not_grow_with_the_root() {
    let sandbox = Sandbox::new();
    roots::write_store(&sandbox, "store");
    let large = layer(|layer| {
        layer.file(b"etc/one-large", &roots::noise(1, 256 << 20));
        (0..800).for_each(|n| layer.file(format!("etc/{n}").as_bytes(), &roots::noise(n + 2, 200_000)));
    });
    write_image(&sandbox.path().join("store"), "example.test/large:1", &large);
    drop(large);
    sandbox.write("it.yml", roots::yaml("example.test/large:1"));
    let mut peaks = vec![];
    for row in ROWS {
        let words = ["build", "-q", "--no-sbom", "--cache", "store", "--dir", "out", "it.yml", "--format", row.format];
        let build = sandbox.kiln(words);
        let mut time = Command::new("/usr/bin/time");
        time.args(["-o", "peak", "-f", "%M"]).arg(build.get_program()).args(build.get_args());
        time.current_dir(sandbox.path()).env("HOME", sandbox.path().join("home"));
        run(&mut time).ok();
        let kib: u64 = fs::read_to_string(sandbox.path().join("peak")).unwrap().trim().parse().unwrap();
        peaks.push((row.format, kib >> 10));
        fs::remove_dir_all(sandbox.path().join("out")).unwrap();
    }
    assert!(peaks.iter().all(|(_, mib)| *mib < PEAK_LIMIT_MIB), "MiB: {peaks:?}");
}
