//! What a machine does with its memory, and how it ends when its guest does not: balloon, watchdog, panic, clock.

use crate::harness::fixtures::debian_kernel;
use crate::harness::kvm::KvmJob;

/// In the order in which they are loaded.
const MODULES: [&str; 9] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_balloon",
    "watchdog",
    "wdat_wdt",
    "ptp_kvm",
];

/// The guest: does what `case=` on its command line says.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do
    parameter=; if test $module = wdat_wdt; then parameter=timeout=4; fi
    insmod /modules/$module.ko $parameter || echo "no $module"
done
for word in $(cat /proc/cmdline); do case $word in case=*) it=${word#case=} ;; esac; done
case $it in
memory)
    mkdir /full && mount -t tmpfs -o size=400m full /full
    dd if=/dev/zero of=/full/file bs=1M count=300 2>/dev/null
    echo GUEST-FULL
    read -r _
    rm /full/file
    echo GUEST-FREED
    read -r _
    poweroff -f ;;
hang)
    echo GUEST-UP "$(cat /sys/class/watchdog/watchdog0/identity)"
    # Who opens it has to feed it.
    exec 3> /dev/watchdog0
    sleep 1000 ;;
idle)
    echo GUEST-UP "$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
    while read -r _; do echo "GUEST-TIME $(date +%s)"; done ;;
panic)
    echo GUEST-UP
    echo c > /proc/sysrq-trigger ;;
esac
"#;

/// Packs the guest, and shell words for the cases.
const PACK: &str = r#"
mkdir -p guest/bin guest/modules guest/proc guest/sys guest/dev
cp /bin/busybox guest/bin && cp init guest/init && chmod 755 guest/init && cp order *.ko guest/modules
(cd guest && find . | cpio -o -H newc 2>/dev/null) | gzip > initrd
# start NAME CASE FLAG…: in the background, typed into through a pipe that stays open.
start() {
    name=$1 it=$2; shift 2
    mkfifo in-$name
    kiln run -kernel kernel -initrd initrd -cmdline "console=ttyS0 quiet case=$it" -networking none -state s-$name "$@" \
        > out-$name 2> err-$name < in-$name &
    exec 9> in-$name
}
# rss: MiB that the machine takes.
rss() { awk '/^VmRSS/ { print int($2 / 1024) }' /proc/$1/status; }
# ends PID NAME: waits for its end, and tells it.
ends() { status=0; wait $1 || status=$?; echo "$2 ended with $status"; sed "s/^/$2 said: /" err-$2; }
"#;

fn job(script: &str) -> KvmJob {
    let kernel = debian_kernel();
    let mut job = KvmJob::new(&format!("{PACK}\n{script}"))
        .file(&kernel.vmlinuz, "kernel")
        .text("init", INIT)
        .text("order", &MODULES.join("\n"));
    for module in MODULES {
        job = job.file(&kernel.module(module), &format!("{module}.ko"));
    }
    job
}

/// A guest fills memory and frees it; the process called `$holder` is looked at.
const FILL_AND_FREE: &str = r#"
full=$(rss $holder); echo full $full
echo >&9; wait_for GUEST-FREED out-m 60
tries=600
until test $(rss $holder) -lt $((full - 250)); do
    tries=$((tries - 1)); test $tries -gt 0 || { echo kept $(rss $holder); exit 1; }; sleep 0.1
done
echo "threads $(cat /proc/$pid/task/*/comm | sort | tr '\n' ' ')"
kiln memory s-m | sed 's/^/memory: /'
kiln memory s-m -balloon 64M > /dev/null
until kiln memory s-m | grep -q 'balloon 64 MiB of 64'; do
    tries=$((tries - 1)); test $tries -gt 0 || { kiln memory s-m; exit 1; }; sleep 0.1
done
echo >&9; ends $pid m
"#;

/// A guest that tells the time when it is asked stands still for some seconds, and then knows what time it is.
const PAUSE: &str = r#"
start i idle -accel kvm -mem 128 -stop-timeout 3; pid=$!
wait_for GUEST-UP out-i 60; sed -n 's/GUEST-UP/clock/p' out-i
echo >&9; wait_for GUEST-TIME out-i 60
kiln pause s-i
echo >&9; sleep 10; echo "answers in the pause $(grep -c GUEST-TIME out-i)"
kiln resume s-i
tries=600
until test $(grep -c GUEST-TIME out-i) -ge 2; do
    tries=$((tries - 1)); test $tries -gt 0 || { cat out-i; exit 1; }; sleep 0.1
done
now=$(date +%s) said=$(sed -n 's/.*GUEST-TIME \([0-9]*\).*/\1/p' out-i | tail -1)
if test $((now - said)) -lt 5; then echo in time; else echo "host $now guest $said"; fi
kill -TERM $pid; ends $pid i
"#;

fn check_freed(said: &str) {
    let full: Option<u32> = said.lines().find_map(|line| line.strip_prefix("full ")?.parse().ok());
    assert!(full.is_some_and(|mib| mib > 300) && said.contains("m ended with 0"), "{said}");
}

#[test]
fn memory_that_a_guest_frees_goes_back_to_the_host() {
    let script = format!(
        "start m memory -accel kvm -mem 512; pid=$! holder=$!; wait_for GUEST-FULL out-m 60\n\
         kiln memory s-m | sed 's/^/full: /'\n{FILL_AND_FREE}\n{PAUSE}"
    );
    let said = job(&script).run().ok();
    check_freed(&said.stdout);
    assert!(said.stdout.contains(" vcpu0 "), "{}", said.stdout);
    let held = |prefix: &str| -> Option<u64> {
        let rest = said.stdout.lines().find_map(|line| line.strip_prefix(prefix))?;
        rest.split(' ').next()?.parse().ok()
    };
    assert!(held("full: held ").is_some_and(|mib| (300..512).contains(&mib)), "{}", said.stdout);
    assert!(held("memory: held ").is_some_and(|mib| mib < 250), "{}", said.stdout);
    for wanted in ["clock kvm-clock", "answers in the pause 1", "in time", "i ended with 1"] {
        assert!(said.stdout.contains(wanted), "no `{wanted}` in:\n{}", said.stdout);
    }
}

const HANG_AND_PANIC: &str = r#"
start h hang -accel $accel -mem 192 -on-hang stop; ends $! h
start r hang -accel $accel -mem 192; pid=$!
tries=600
until test $(grep -c GUEST-UP out-r) -ge 2; do
    tries=$((tries - 1)); test $tries -gt 0 || { cat out-r err-r; exit 1; }; sleep 0.1
done
kill -9 $pid; echo "r is up again: $(grep GUEST-UP out-r | tail -1)"
start p panic -accel $accel -mem 192; ends $! p
"#;

fn check_ends(said: &str) {
    for wanted in [
        "h ended with 1",
        "h said: error: the guest hung: it stopped feeding its watchdog; the last lines on its console:",
        "h said:   GUEST-UP wdat_wdt",
        "r is up again: GUEST-UP wdat_wdt",
        "p ended with 1",
        "p said: error: the guest's kernel panicked: sysrq triggered crash; the last lines on its console:",
        "---[ end Kernel panic - not syncing: sysrq triggered crash ]---",
    ] {
        assert!(said.contains(wanted), "no `{wanted}` in:\n{said}");
    }
}

#[test]
fn a_guest_that_hangs_or_panics_ends_as_it_was_asked_to() {
    check_ends(&job(&format!("accel=kvm\n{HANG_AND_PANIC}")).run().ok().stdout);
}

#[test]
fn the_fallback_takes_memory_back_and_notices_hangs_and_panics() {
    let script = format!(
        "start m memory -accel qemu -mem 512; pid=$!; wait_for GUEST-FULL out-m 120\n\
         holder=$(cat /proc/$pid/task/*/children)\n{FILL_AND_FREE}\naccel=qemu\n{HANG_AND_PANIC}"
    );
    let said = job(&script).here().run().ok();
    check_freed(&said.stdout);
    check_ends(&said.stdout);
}
