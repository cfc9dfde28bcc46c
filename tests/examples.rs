//! The compositions that people know, in examples/: each is built as it stands, with one more file from tests/fixtures
//! that adds a client, and booted until the client has its answer and powers the machine off.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Duration;

use crate::harness::images::store;
use crate::harness::kiln::{Running, Sandbox, run};
use crate::harness::tree;

/// A machine that does not get so far in this time has failed.
const LIMIT: Duration = Duration::from_secs(300);

/// What the console shows of `examples/NAME.yml` with `tests/fixtures/CHECK.yml` on top.
#[track_caller]
fn console(sandbox: &Sandbox, name: &str, check: &str) -> String {
    let files = [format!("examples/{name}.yml"), format!("tests/fixtures/{check}.yml")].map(|file| tree().join(file));
    run(sandbox.kiln(["build", "--name", "machine", "--cache"]).arg(store()).args(files)).ok();
    run(&mut sandbox.kiln(["run", "-accel", "qemu", "-cpus", "2", "machine"])).ok().stdout
}

#[track_caller]
fn check(console: &str, wanted: &[&str], unwanted: &[&str]) {
    for wanted in wanted.iter().chain(&["kiln: power off"]) {
        assert!(console.contains(wanted), "no `{wanted}` in:\n{console}");
    }
    for unwanted in unwanted.iter().chain(&["cannot start", "cannot be started", "cannot set", "killed by"]) {
        assert!(!console.contains(unwanted), "`{unwanted}` in:\n{console}");
    }
}

#[test]
fn a_client_gets_from_redis_what_it_set() {
    let console = console(&Sandbox::new(), "redis-os", "redis-check");
    let answers = ["check: OK", "check: hello from redis", "overcommit 1, redis runs as 999"];
    check(&console, &answers, &["WARNING"]);
    let bill = console.lines().find(|line| line.contains("bill of materials: ")).expect("it is in the machine");
    // Of Redis itself, of a library of it, of the kernel, and not of what was left out.
    for package in ["redis-tools", "libjemalloc2", "busybox-static", "linux-image-"] {
        assert!(bill.contains(&format!("pkg:deb/debian/{package}")), "no {package} in: {bill}");
    }
    assert!(!bill.contains("/perl@"), "{bill}");
}

#[test]
fn a_client_logs_in_by_ssh_with_its_key_and_not_without() {
    let sandbox = Sandbox::new();
    sandbox.write("home/.ssh/id_ed25519.pub", "ssh-ed25519 AAAA you@home\n");
    let console = console(&sandbox, "sshd", "sshd-check");
    let answers = [
        "check: from your home: ssh-ed25519 AAAA you@home",
        "Permission denied (publickey)",
        "check: by ssh 127.0.0.1",
        "PID 1 is init",
        "check: a file is carried",
    ];
    check(&console, &answers, &["without a key it lets in"]);
}

#[test]
fn a_docker_engine_runs_an_image_that_came_along_as_a_volume() {
    let console = console(&Sandbox::new(), "docker", "docker-check");
    let answers = [
        " with overlay2, cgroup v2, images 1",
        "check: hello from a container in a container",
        "check: hello by the bridge",
        "check: limit 67108864",
        "check: state is on the volume",
    ];
    check(&console, &answers, &["failed to enable controllers"]);
}

/// What somebody outside tells the machine of examples/linuxkit.yml.
const USER_DATA: &str = "#cloud-config
hostname: web-1
ssh_authorized_keys: [ssh-ed25519 AAAA root@home]
users:
- {name: ada, ssh_authorized_keys: [ssh-ed25519 BBBB ada@home]}
write_files:
- {path: /var/greeting, content: hello, permissions: '0640'}
runcmd:
- echo 'by hand' >/var/ran
";

#[test]
fn the_classic_sections_work_and_the_power_button_ends_them_in_order() {
    let sandbox = Sandbox::new();
    let files = ["examples/linuxkit.yml", "tests/fixtures/linuxkit-check.yml"].map(|file| tree().join(file));
    run(sandbox.kiln(["build", "--name", "machine", "--cache"]).arg(store()).args(files)).ok();
    for (name, text) in [("user-data", USER_DATA), ("meta-data", "instance-id: one\n")] {
        sandbox.write(&format!("seed/{name}"), text);
    }
    let mut iso = Command::new("xorrisofs");
    iso.args(["-quiet", "-volid", "cidata", "-rock", "-o", "seed.iso", "seed"]).current_dir(sandbox.path());
    run(&mut iso).ok();
    let boot = |disk: &str| {
        // However busy the host is: the guest ends by itself.
        let words = "run -accel qemu -cpus 2 -mem 512 -stop-timeout 200 -disk DISK -disk seed.iso machine";
        let words = words.split(' ').map(|word| if word == "DISK" { disk } else { word });
        let mut machine = Running::start(&mut sandbox.kiln(words));
        machine.wait_for("check: ready for the button", LIMIT);
        run(Command::new("kill").args(["-TERM", &machine.pid().to_string()])).ok();
        let (status, console) = machine.wait(LIMIT);
        assert!(status.success(), "{status:?}\n{console}");
        console
    };
    let console = boot("data.img,size=128M");
    let answers = [
        "rngd1: ",
        "check: this is web-1, told by CDROM /dev/vd",
        "check: ssh-ed25519 AAAA root@home",
        "check: ssh-ed25519 BBBB ada@home",
        "check: ada:x:1000:1000:",
        "check: written: hello with mode 640",
        "format: /dev/vda1: ext4 is made",
        "extend: /dev/vda1: already as long as its disk, 127 MiB",
        "check: data is ext4, swap is 2",
        "check: encrypted: swap-loop0 on /",
        "check: modules: 2",
        "check: pointers: 1",
        "check: run: by hand",
        "-metadata;this machine is web-1",
    ];
    let failures = [
        "are not loaded",
        "are not done",
        "cannot mount",
        "cannot swap",
        "cannot encrypt",
        "in use to the end",
        "authorities: 0",
    ];
    check(&console, &answers, &failures);
    let disk =
        fs::File::options().read(true).write(true).open(sandbox.path().join("data.img")).expect("the disk is there");
    // Unmounted: `s_state` is clean, and the journal holds nothing to be done again (`INCOMPAT_RECOVER`).
    let mut superblock = [0; 1024];
    disk.read_exact_at(&mut superblock, (1 << 20) + 1024).expect("the disk is readable");
    assert_eq!((superblock[58], superblock[96] & 4), (1, 0), "the file system was not unmounted");
    disk.set_len(256 << 20).expect("the disk grows");
    let console = boot("data.img");
    let answers = [
        "format: no disk is empty; /dev/vda1 is formatted already",
        "extend: /dev/vda1: from 127 to 255 MiB",
        "check: a service was stopped",
        "check: onshutdown came last",
    ];
    check(&console, &answers, &failures);
}

/// Names in `folder` that `is_one` takes, less their `.yml`.
fn names(folder: &str, is_one: impl Fn(&fs::DirEntry) -> bool) -> BTreeSet<String> {
    let entries = fs::read_dir(tree().join(folder)).expect("the tree is readable").flatten();
    let names = entries.filter(|entry| is_one(entry)).map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.map(|name| name.trim_end_matches(".yml").to_owned()).collect()
}

#[test]
fn every_example_and_every_package_is_described() {
    let read = |file: &str| fs::read_to_string(tree().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let (examples, packages) = (read("examples/README.md"), read("docs/packages.md"));
    for name in names("examples", |entry| entry.path().extension().is_some_and(|extension| extension == "yml")) {
        assert!(examples.contains(&format!("| [`{name}`]({name}.yml) |")), "examples/README.md has no row for {name}");
    }
    for name in names("pkg", |entry| entry.path().join("build.yml").exists()) {
        assert!(packages.contains(&format!("| [`{name}`](../pkg/{name}) |")), "docs/packages.md has no row for {name}");
        assert!(read(&format!("pkg/{name}/README.md")).starts_with(&format!("# {name}\n")), "pkg/{name}/README.md");
    }
}
