//! Folders of the host's in a guest: its kernel's own virtiofs, our device on a real KVM and, by vhost-user, in the fallback.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::harness::fixtures::{debian_kernel, static_program};
use crate::harness::initrd::{Initrd, VIRTIO_PCI};
use crate::harness::kiln::{Running, Sandbox, run};
use crate::harness::kvm::KvmJob;

/// A machine on a software CPU, on a busy host.
const LIMIT: Duration = Duration::from_secs(300);

/// Mounts both shares, looks at what is there, and is stopped by what it must not do.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module.ko; done
grep -q build /proc/cmdline && exec sh /build
mkdir /a /b /elsewhere
mount -t virtiofs virtiofs0 /a && mount -t virtiofs data /b || poweroff -f
echo "SAW $(cat /a/hello) AND $(cat /b/hello)"
cat /a/out/secret || echo "NO WAY OUT"
touch /b/new || echo "READ ONLY"
mkdir /a/posix && posix /a/posix $(grep -o no-xattrs /proc/cmdline)
mkdir /a/tree && cp -a /bin/busybox /modules /a/tree && tar c -C /a tree | tar x -C /elsewhere
diff -r /a/tree /elsewhere/tree && echo "TREE OK"
rm -r /a/tree
chown 12:34 /a/hello
echo "from the guest" > /a/from-guest
if mkdir /c && mount -t virtiofs small /c; then
dd if=/dev/zero of=/c/all bs=64k; echo some > /c/more || rm /c/all; echo more > /c/more && cat /c/more
fi
posix mapped /a/big; echo "MAPPED, THEN $?"
until grep -q changed /a/hello; do :; done
echo "SAW THE CHANGE"
[ -e /a/fresh ] && echo "SAW THE NEW FILE"
[ -e /a/gone ] || echo "SAW IT GO"
umount /a && mount -t virtiofs virtiofs0 /a && cat /a/from-guest
poweroff -f
"#;

/// Works in the first share with the host's programs, which are in the second one; then goes on writing until it is killed.
const BUILD: &str = r#"
mkdir /host && mount -t virtiofs host /host && mount -t virtiofs virtiofs0 /host/mnt || poweroff -f
mount -t proc proc /host/proc && mount -t devtmpfs dev /host/dev && mount -t tmpfs tmp /host/tmp
chroot /host /bin/sh -eu /mnt/work.sh && echo "WORK OK" || poweroff -f
while :; do date > /host/mnt/written; done
"#;

/// What programs do that developers use, in the folder of the share.
const WORK: &str = r#"
cd /mnt
export HOME=/mnt TMPDIR=/mnt
git clone -q origin clone
git -C clone fsck --strict && git -C clone status
echo more >> clone/file-7 && git -C clone -c user.name=a -c user.email=b commit -qam more
git -C clone push -q
tar xf tree.tar && tar df tree.tar && echo "TAR OK"
cd hello && cargo run -q --offline
"#;

/// What the guest says when all is well.
const SAID: [&str; 9] = [
    "SAW first AND second",
    "NO WAY OUT",
    "READ ONLY",
    "POSIX OK",
    "TREE OK",
    // Killed by SIGBUS.
    "MAPPED, THEN 135",
    "SAW THE CHANGE",
    "SAW THE NEW FILE",
    "SAW IT GO",
];

/// A static program for guests: `fixtures/posix.rs`.
pub fn posix() -> &'static Path {
    static MADE: OnceLock<(Sandbox, PathBuf)> = OnceLock::new();
    let (_, path) = MADE.get_or_init(|| {
        let sandbox = Sandbox::new();
        let path = static_program(&sandbox, "posix", include_str!("fixtures/posix.rs"));
        (sandbox, path)
    });
    path
}

/// The initial RAM disk of a guest that uses shares.
fn initrd() -> &'static Path {
    static MADE: OnceLock<(Sandbox, PathBuf)> = OnceLock::new();
    let (_, path) = MADE.get_or_init(|| {
        let sandbox = Sandbox::new();
        let path = sandbox.path().join("initrd");
        let initrd = Initrd::new().modules(&VIRTIO_PCI).modules(&["fuse", "virtiofs"]);
        initrd.text("init", INIT).text("build", BUILD).file("bin/posix", posix()).pack(&path);
        (sandbox, path)
    });
    path
}

/// Both folders as the guest is to find them, and beside them a secret.
fn folders(sandbox: &Sandbox) {
    sandbox.write("secret", "secret");
    sandbox.write("first/hello", "first");
    sandbox.write("first/gone", "");
    sandbox.write("first/big", [1; 16384]);
    sandbox.write("second/hello", "second");
    symlink(sandbox.path(), sandbox.path().join("first/out")).unwrap();
}

#[test]
fn shares_that_cannot_be_are_refused_before_anything_is_made() {
    let sandbox = Sandbox::new();
    sandbox.write("d/f", "");
    let kernel = debian_kernel().vmlinuz;
    for (words, status, wanted) in [
        (&["-virtiofs", "nowhere"][..], 1, "cannot share folder `nowhere`"),
        (&["-virtiofs", "d/f"], 1, "cannot share folder `d/f`: not a directory"),
        (&["-virtiofs", "d", "-virtiofs", "d,tag=virtiofs0"], 1, "two shared folders have the tag `virtiofs0`"),
        (&["-virtiofs", "d,tag=a b"], 1, "`a b` is no tag for a shared folder"),
        (&["-virtiofs", "d,uid=0:5:2+1"], 2, "`0:5:2+1` is no range of numbers"),
        (&["-virtiofs", "d,uid=0:5:2,uid=1:9"], 1, "the uid ranges overlap"),
    ] {
        let mut kiln = sandbox.kiln(["run", "-accel", "qemu", "-state", "s", "-kernel"]);
        let said = run(kiln.arg(&kernel).args(words));
        assert!(said.code() == status && said.stderr.contains(wanted), "{words:?}: {}", said.stderr);
        assert!(!sandbox.path().join("s").exists(), "{words:?}");
    }
}

#[test]
fn a_guest_works_in_shared_folders_and_sees_at_once_what_the_host_does() {
    let sandbox = Sandbox::new();
    folders(&sandbox);
    let mut kiln = sandbox.kiln(["run", "-accel", "qemu", "-mem", "256", "-state", "s", "-kernel"]);
    kiln.arg(debian_kernel().vmlinuz).arg("-initrd").arg(initrd()).args(["-cmdline", "console=ttyS0 quiet panic=-1"]);
    let mut machine = Running::start(kiln.args(["-virtiofs", "first", "-virtiofs", "second,tag=data,ro"]));
    machine.wait_for("TREE OK", LIMIT);
    let from_guest = sandbox.path().join("first/from-guest");
    while fs::read_to_string(&from_guest).ok().as_deref() != Some("from the guest\n") {
        std::thread::yield_now();
    }
    machine.wait_for("MAPPED 1", LIMIT);
    sandbox.write("first/big", "");
    let owner = fs::metadata(sandbox.path().join("first/hello")).unwrap();
    if rustix::process::geteuid().is_root() {
        assert_eq!((owner.uid(), owner.gid()), (12, 34));
    }
    sandbox.write("first/fresh", "");
    fs::remove_file(sandbox.path().join("first/gone")).unwrap();
    sandbox.write("first/hello", "changed");
    let (status, console) = machine.wait(LIMIT);
    assert!(status.success(), "{status:?}\n{console}");
    for wanted in SAID {
        assert!(console.contains(wanted), "no `{wanted}` in:\n{console}");
    }
    assert!(!sandbox.path().join("second/new").exists());
    assert_eq!(fs::read_to_string(sandbox.path().join("secret")).unwrap(), "secret");
}

/// The lab's own file system has no extended attributes of users, and the small share's has no room.
#[test]
fn a_guest_on_kvm_works_in_shared_folders_and_sees_at_once_what_the_host_does() {
    let said = KvmJob::new(
        "mkdir first second && echo secret > secret && echo first > first/hello && echo second > second/hello\n\
         touch first/gone && head -c 16384 /dev/zero > first/big && ln -s $PWD first/out\n\
         mkdir small && mount -t tmpfs -o size=1m small small\n\
         kiln run -accel kvm -mem 160 -kernel kernel -initrd guest -cmdline 'console=ttyS0 quiet panic=-1 no-xattrs' -state s \
         -virtiofs first -virtiofs second,tag=data,ro -virtiofs small,tag=small > out 2>&1 < /dev/null &\n\
         wait_for 'TREE OK' out 300\n\
         wait_for 'from the guest' first/from-guest 60\n\
         wait_for 'MAPPED 0' out 60; : > first/big; touch first/fresh; rm first/gone; echo changed > first/hello\n\
         wait $! || { cat out; exit 1; }\n\
         cat out; ls second; stat -c 'OWNER %u %g' first/hello",
    )
    .file(&debian_kernel().vmlinuz, "kernel")
    .file(initrd(), "guest")
    .in_lab()
    .run()
    .ok();
    for wanted in SAID.iter().chain(&["OWNER 12 34", "/c/all': No space left on device", "\nmore"]) {
        assert!(said.stdout.contains(wanted), "no `{wanted}` in:\n{}", said.stdout);
    }
}

#[test]
fn git_tar_and_cargo_work_in_a_share_and_a_killed_run_leaves_nothing_behind() {
    let sandbox = Sandbox::new();
    sandbox.write("work/hello/Cargo.toml", "[package]\nname = \"hello\"\nversion = \"0.1.0\"\nedition = \"2021\"\n");
    sandbox.write("work/hello/src/lib.rs", "pub const ARCH: &str = std::env::consts::ARCH;");
    sandbox.write("work/hello/src/main.rs", "fn main() { println!(\"HELLO {}\", hello::ARCH); }");
    let toolchain =
        PathBuf::from(run(Command::new("rustc").args(["--print", "sysroot"])).ok().stdout.trim()).join("bin");
    let path = std::env::var("PATH").unwrap();
    sandbox.write("work/work.sh", format!("PATH={}:{path}\nexport PATH{WORK}", toolchain.display()));
    for number in 0..40 {
        sandbox.write(&format!("tree/d{}/file-{number}", number % 5), format!("{number}\n").repeat(number * 50));
        sandbox.write(&format!("source/file-{number}"), number.to_string());
    }
    let host = |line: &str| run(Command::new("sh").args(["-euxc", line]).current_dir(sandbox.path())).ok();
    host(
        "tar cf work/tree.tar tree; git init -q -b main source; cd source; git add .\n\
         git -c user.name=a -c user.email=b commit -qm first; cd ..; git clone -q --bare source work/origin",
    );
    let mut kiln = sandbox.kiln(["run", "-accel", "qemu", "-mem", "640", "-state", "s", "-kernel"]);
    kiln.arg(debian_kernel().vmlinuz).arg("-initrd").arg(initrd());
    kiln.args(["-cmdline", "console=ttyS0 quiet panic=-1 build", "-virtiofs", "work", "-virtiofs", "/,tag=host,ro"]);
    let mut machine = Running::start(&mut kiln);
    machine.wait_for("TAR OK", LIMIT);
    machine.wait_for("HELLO x86_64", LIMIT);
    machine.wait_for("WORK OK", LIMIT);
    let written = sandbox.path().join("work/written");
    while fs::read_to_string(&written).unwrap_or_default().is_empty() {
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(machine.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    machine.wait(LIMIT);
    let until = Instant::now() + LIMIT;
    while !at_work_in(sandbox.path()).is_empty() {
        assert!(Instant::now() < until, "{:?} are left", at_work_in(sandbox.path()));
    }
    // The folder is there as the guest left it.
    host(
        "cmp tree/d4/file-39 work/tree/d4/file-39; work/hello/target/debug/hello; git -C work/clone fsck --strict; rm -r work",
    );
}

/// Processes whose working folder this is.
fn at_work_in(folder: &Path) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    processes.filter(|process| fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == folder)).collect()
}
