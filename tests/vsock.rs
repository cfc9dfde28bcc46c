//! Sockets between host and guest: both ends are the program in `fixtures/vsock-check.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::harness::fixtures::{debian_kernel, static_program};
use crate::harness::initrd::{Initrd, VIRTIO_PCI};
use crate::harness::kiln::{Running, Sandbox, run};
use crate::harness::kvm::KvmJob;

const LIMIT: Duration = Duration::from_secs(300);

const MODULES: [&str; 3] = ["vsock", "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport"];

/// What is served in the guest and asked on the host. Each connection there is a descriptor.
const SCRIPT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module.ko; done
ulimit -n 10000
kind=$(sed -n 's/.*vsock=\([a-z]*\).*/\1/p' /proc/cmdline)
vsock-check guest $kind
poweroff -f
"#;

const PORTS: &str = "7,8,9,11,13,14,15,20/seqpacket";

struct Guest {
    initrd: PathBuf,
    check: PathBuf,
    _sandbox: Sandbox,
}

fn guest() -> &'static Guest {
    static MADE: OnceLock<Guest> = OnceLock::new();
    MADE.get_or_init(|| {
        let sandbox = Sandbox::new();
        let check = static_program(&sandbox, "vsock-check", include_str!("fixtures/vsock-check.rs"));
        let initrd = sandbox.path().join("initrd");
        let packed = Initrd::new().modules(&VIRTIO_PCI).modules(&MODULES);
        packed.text("init", SCRIPT).file("bin/vsock-check", &check).pack(&initrd);
        Guest { initrd, check, _sandbox: sandbox }
    })
}

/// Sockets that a machine left in its state folder.
fn left(state: &Path) -> Vec<String> {
    let names = fs::read_dir(state).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("guest.") || name == "connect").collect()
}

#[test]
fn ports_that_cannot_be_are_wrong_usage() {
    let sandbox = Sandbox::new();
    for (words, wanted) in [
        (&["-vsock-ports", "2374,x"][..], "`x` is no vsock port"),
        (&["-vsock-ports", "0"], "`0` is no vsock port"),
        (&["-vsock-ports", "4294967296"], "`4294967296` is no vsock port"),
        (&["-vsock-ports", "1/udp"], "`udp` is unknown behind a vsock port"),
        (&["-vsock-ports", "7,8", "-vsock-ports", "7"], "vsock port `7` stands twice"),
        (&["-vsock-cid", "2"], "`2` is no number of a guest"),
    ] {
        let mut kiln = sandbox.kiln(["run", "-accel", "qemu", "-kernel"]);
        let said = run(kiln.arg(debian_kernel().vmlinuz).args(words).args(["-state", "s"]));
        assert!(said.code() == 2 && said.stderr.contains(wanted), "{words:?}: {} {}", said.code(), said.stderr);
        assert!(!sandbox.path().join("s").exists(), "{words:?}");
    }
}

#[test]
fn programs_on_the_host_and_in_the_guest_reach_each_other_under_the_fallback() {
    let sandbox = Sandbox::new();
    let mut kiln =
        sandbox.kiln(["run", "-accel", "qemu", "-cpus", "2", "-mem", "512", "-vsock-ports", PORTS, "-state", "s"]);
    kiln.arg("-kernel").arg(debian_kernel().vmlinuz).arg("-initrd").arg(&guest().initrd);
    let mut machine = Running::start(kiln.args(["-cmdline", "console=ttyS0 quiet"]));
    machine.wait_for("serving", LIMIT);
    let state = sandbox.path().join("s");
    let asks = r#"ulimit -n $(ulimit -Hn); exec timeout 300 "$1" host "$2""#;
    let said = run(Command::new("sh").args(["-euc", asks, "sh"]).arg(&guest().check).arg(&state)).ok();
    assert!(said.stdout.ends_with("vsock: all well\n"), "{}", said.stdout);
    let (status, console) = machine.wait(LIMIT);
    assert!(status.success(), "{console}");
    assert_eq!(left(&state), [""; 0]);
}

#[test]
fn they_do_under_kvm() {
    let job = r#"
ulimit -n $(ulimit -Hn)
kiln run -accel kvm -cpus 2 -mem 512 -vsock-ports $PORTS -state s -kernel vmlinuz -initrd initrd \
    -cmdline "console=ttyS0 quiet vsock=messages" < /dev/null > log 2>&1 &
wait_for serving log 300
./vsock-check host s messages
wait $! || { cat log; exit 1; }
ls s
"#;
    let job = KvmJob::new(&job.replace("$PORTS", PORTS));
    let job = job.file(&debian_kernel().vmlinuz, "vmlinuz").file(&guest().initrd, "initrd");
    let said = job.file(&guest().check, "vsock-check").run().ok();
    assert!(said.stdout.contains("vsock: all well\n"), "{}", said.stdout);
    assert!(said.stdout.contains("many messages\n"), "{}", said.stdout);
    assert!(!said.stdout.contains("guest.0"), "{}", said.stdout);
}
