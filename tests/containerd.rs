//! examples/vsudd.yml as its users have it: Debian's `ctr` on the host speaks with containerd in the machine, by a socket in
//! the state folder and without a network.

use std::sync::OnceLock;

use crate::harness::fixtures::debian_file;
use crate::harness::images::store;
use crate::harness::kiln::{Said, Sandbox, run};
use crate::harness::kvm::KvmJob;
use crate::harness::tree;

const SCRIPT: &str = r#"
ctr() { timeout 300 ./ctr -a vsudd-state/guest.00000946 "$@"; }
kiln run virtualization.framework -accel qemu -cpus 2 -mem 1G -networking none -vsock-ports 2374 vsudd < /dev/null > console 2>&1 &
machine=$!
wait_for 'root shell' console 600
# The container is the last thing that starts.
until ctr tasks list 2> /dev/null | grep -q 'hello.*RUNNING'; do
    kill -0 $machine || { cat console; exit 1; }
    sleep 0.5
done
ctr version
ctr tasks list
# What the host has goes into the machine.
ctr images import image.tar
ctr run --detach --null-io --rootfs /busybox second /bin/sleep 1000
ctr tasks list
ctr tasks kill --signal SIGKILL second
until ctr tasks list | grep -q 'second.*STOPPED'; do sleep 0.5; done
ctr tasks delete second || true
ctr containers delete second
ctr containers list
kill -TERM $machine
wait $machine || { cat console; exit 1; }
grep 'kiln: power off' console
ls vsudd-state
"#;

/// The machine, and an image that only the host has.
fn built() -> &'static Sandbox {
    static BUILT: OnceLock<Sandbox> = OnceLock::new();
    BUILT.get_or_init(|| {
        let sandbox = Sandbox::new();
        let kiln = |words: &[&str]| run(sandbox.kiln(["--cache"]).arg(store()).args(words)).ok();
        kiln(&["build", "--no-sbom", &tree().join("examples/vsudd.yml").to_string_lossy()]);
        let package = kiln(&["pkg", "show-tag", &tree().join("pkg/busybox").to_string_lossy()]).stdout;
        kiln(&["cache", "export", "--outfile", "image.tar", "--name", "example.test/busybox:1", package.trim()]);
        sandbox
    })
}

fn job() -> KvmJob {
    let mut job = KvmJob::new(SCRIPT);
    for name in ["vsudd-kernel", "vsudd-initrd.img", "vsudd-cmdline", "image.tar"] {
        job = job.file(&built().path().join(name), name);
    }
    let ctr = debian_file("containerd", "usr/bin/ctr");
    job.file(&ctr, "ctr")
}

#[track_caller]
fn check(said: &Said) {
    let mut lines = said.stdout.lines();
    for wanted in
        ["Client:", "Server:", "hello", "unpacking example.test/busybox:1", "second", "hello", "kiln: power off"]
    {
        assert!(
            lines.any(|line| line.contains(wanted)),
            "no `{wanted}` at its place in:\n{}\n{}",
            said.stdout,
            said.stderr
        );
    }
    let left: Vec<&str> = lines.collect();
    assert!(!left.iter().any(|name| name.starts_with("guest.")), "{left:?}");
}

#[test]
fn ctr_on_the_host_shows_and_steers_what_containerd_in_the_machine_runs() {
    check(&job().here().run().ok());
}
