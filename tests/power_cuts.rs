//! A machine whose power is cut, again and again, while it writes to its disks: `kill -9` of its process. Each image is one that
//! QEMU's tools find whole, and what the guest had flushed is there, sector by sector.

use crate::harness::fixtures::{debian_kernel, static_program};
use crate::harness::initrd::{Initrd, VIRTIO_PCI};
use crate::harness::kiln::Sandbox;
use crate::harness::kvm::KvmJob;

const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
while read -r module; do /bin/busybox insmod /modules/$module.ko; done < /modules/order
exec power-cut write $(/bin/busybox sed 's/.*boot=\([0-9]*\).*/\1/' /proc/cmdline) /dev/vda /dev/vdb /dev/vdc
"#;

/// An image of kiln's own making, one with small clusters over another file, and a raw disk. `img` is Debian's `qemu-img`, which
/// the lab has not.
const SCRIPT: &str = r#"
img() { ./ld-linux-x86-64.so.2 --library-path . ./qemu-img "$@"; }
# flat DISK TO: what it holds. Whoever has it open yet is about to end.
flat() {
    tries=100
    until case $1 in raw.img) cp raw.img $2 ;; *) img convert -O raw $1 $2 2> why ;; esac; do
        tries=$((tries - 1)); [ $tries -gt 0 ] || { cat why; exit 1; }
        sleep 0.1
    done
}
head -c 1048576 /dev/zero | tr '\0' '\7' > base.img
img create -q -f qcow2 -o cluster_size=4096 -b base.img -F raw top.qcow2 32M
img create -q -f qcow2 own.qcow2 32M
truncate -s 32M raw.img
for disk in own.qcow2 top.qcow2 raw.img; do flat $disk $disk.before; done
rm own.qcow2 raw.img
cut=0
while [ $cut -lt CUTS ]; do
    cut=$((cut + 1))
    # What the last one said is not to count.
    : > out
    kiln run -accel ACCEL -cpus PROCESSORS -mem 160 -networking none -state s -kernel kernel -initrd guest \
        -disk own.qcow2,size=32M -disk top.qcow2,backing=base.img -disk raw.img,size=32M \
        -cmdline "console=ttyS0 quiet no_timer_check boot=$cut" > out 2>&1 < /dev/null &
    machine=$!
    # The more it has written the longer ago is its start; where it is just then is left to chance.
    flushes=$((cut * 37 % 100 + 3))
    until [ "$(grep -c flushed out)" -ge $flushes ]; do
        kill -0 $machine || { cat out; exit 1; }
        sleep 0.05
    done
    kill -9 $machine
    ! wait $machine 2> /dev/null
    number=0
    for disk in own.qcow2 top.qcow2 raw.img; do
        flat $disk $disk.after
        [ $disk = raw.img ] || { status=0; img check $disk > said 2>&1 || status=$?
            echo "cut $cut, $disk: status $status, $(grep -c ERROR said) errors"
            # Clusters that nobody uses are no damage.
            [ $status = 0 ] || [ $status = 3 ] || { cat said; exit 1; }; }
        ./power-cut check $cut $number out $disk.before $disk.after
        mv $disk.after $disk.before
        number=$((number + 1))
    done
done
echo "all cuts are survived"
"#;

/// Cuts the power so often, or as often as `KILN_POWER_CUTS` says.
#[track_caller]
fn check(accel: &str, processors: &str, cuts: u32, place: fn(KvmJob) -> KvmJob) {
    let cuts = std::env::var("KILN_POWER_CUTS").unwrap_or(cuts.to_string());
    let sandbox = Sandbox::new();
    let program = static_program(&sandbox, "power-cut", include_str!("fixtures/power-cut.rs"));
    let initrd = sandbox.path().join("initrd");
    let packed = Initrd::new().modules(&VIRTIO_PCI).modules(&["virtio_blk"]).text("init", INIT);
    packed.file("bin/power-cut", &program).pack(&initrd);
    let script = SCRIPT.replace("CUTS", &cuts).replace("ACCEL", accel).replace("PROCESSORS", processors);
    let job = KvmJob::new(&script).program_with_libraries("qemu-img");
    let job = job.file(&debian_kernel().vmlinuz, "kernel").file(&initrd, "guest").file(&program, "power-cut");
    let said = place(job).run().ok().stdout;
    assert!(said.contains("all cuts are survived"), "{said}");
}

#[test]
fn what_a_guest_flushed_survives_power_cuts_on_kvm() {
    check("kvm", "2", 3, |job| job);
}

#[test]
fn what_a_guest_flushed_survives_power_cuts_in_the_fallback() {
    check("qemu", "1", 1, KvmJob::here);
}
