//! Folders of the host's in a guest: its kernel's own virtiofs, our device on a real KVM and, by vhost-user, in the fallback.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::harness::fixtures::debian_kernel;
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
until grep -q changed /a/hello; do :; done
echo "SAW THE CHANGE"
[ -e /a/fresh ] && echo "SAW THE NEW FILE"
[ -e /a/gone ] || echo "SAW IT GO"
umount /a && mount -t virtiofs virtiofs0 /a && cat /a/from-guest
poweroff -f
"#;

/// What the guest says when all is well.
const SAID: [&str; 8] = [
    "SAW first AND second",
    "NO WAY OUT",
    "READ ONLY",
    "POSIX OK",
    "TREE OK",
    "SAW THE CHANGE",
    "SAW THE NEW FILE",
    "SAW IT GO",
];

/// The initial RAM disk of a guest that uses shares.
fn initrd() -> &'static Path {
    static MADE: OnceLock<(Sandbox, PathBuf)> = OnceLock::new();
    let (_, path) = MADE.get_or_init(|| {
        let sandbox = Sandbox::new();
        let posix = sandbox.path().join("posix");
        let source = sandbox.write("posix.rs", include_str!("fixtures/posix.rs"));
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition", "2021", "-O", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-o"]);
        run(rustc.arg(&posix).arg(source)).ok();
        let path = sandbox.path().join("initrd");
        let initrd = Initrd::new().modules(&VIRTIO_PCI).modules(&["fuse", "virtiofs"]);
        initrd.text("init", INIT).file("bin/posix", &posix).pack(&path);
        (sandbox, path)
    });
    path
}

/// Both folders as the guest is to find them, and beside them a secret.
fn folders(sandbox: &Sandbox) {
    sandbox.write("secret", "secret");
    sandbox.write("first/hello", "first");
    sandbox.write("first/gone", "");
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

/// The lab's own file system has no extended attributes of users.
#[test]
fn a_guest_on_kvm_works_in_shared_folders_and_sees_at_once_what_the_host_does() {
    let said = KvmJob::new(
        "mkdir first second && echo secret > secret && echo first > first/hello && echo second > second/hello\n\
         touch first/gone && ln -s $PWD first/out\n\
         kiln run -accel kvm -mem 160 -kernel kernel -initrd guest -cmdline 'console=ttyS0 quiet panic=-1 no-xattrs' -state s \
         -virtiofs first -virtiofs second,tag=data,ro > out 2>&1 < /dev/null &\n\
         wait_for 'TREE OK' out 300\n\
         wait_for 'from the guest' first/from-guest 60\n\
         touch first/fresh; rm first/gone; echo changed > first/hello\n\
         wait $! || { cat out; exit 1; }\n\
         cat out; ls second; stat -c 'OWNER %u %g' first/hello",
    )
    .file(&debian_kernel().vmlinuz, "kernel")
    .file(initrd(), "guest")
    .run()
    .ok();
    for wanted in SAID.iter().chain(&["OWNER 12 34"]) {
        assert!(said.stdout.contains(wanted), "no `{wanted}` in:\n{}", said.stdout);
    }
}
