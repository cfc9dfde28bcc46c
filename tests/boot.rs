//! What `kiln build` wrote boots: under kiln's own machine on a real KVM, under its fallback, and under plain QEMU,
//! which knows nothing of kiln and so judges the build.

use std::process::Command;
use std::time::Duration;

use crate::harness::images::{self, Built};
use crate::harness::kiln::{Running, Sandbox, run};
use crate::harness::kvm::KvmJob;
use crate::harness::registry::Registry;
use crate::harness::tree;

/// What examples/minimal.yml prints from its onboot container and from its service.
const ONBOOT: &str = "hello from onboot";
const SERVICE: &str = "hello from a service";

const LIMIT: Duration = Duration::from_secs(180);

fn job(built: &Built, script: &str) -> KvmJob {
    KvmJob::new(script)
        .file(&built.file("kernel"), "it-kernel")
        .file(&built.file("initrd.img"), "it-initrd.img")
        .file(&built.file("cmdline"), "it-cmdline")
}

#[track_caller]
fn check_console(console: &str) {
    for wanted in [ONBOOT, SERVICE] {
        assert!(console.contains(wanted), "no `{wanted}` in:\n{console}");
    }
}

#[test]
fn the_machine_boots_on_kvm_with_one_and_two_vcpus() {
    let said = job(
        images::minimal(),
        "for cpus in 1 2; do\n\
         kiln run -accel kvm -cpus $cpus -mem 256 it > out 2> err || { cat out err; exit 1; }\n\
         grep -e 'hello from' out\n\
         cat err\n\
         echo \"ended with $cpus\"\n\
         done",
    )
    .run()
    .ok();
    check_console(&said.stdout);
    assert_eq!(said.stdout.matches(SERVICE).count(), 2, "{}", said.stdout);
    assert!(said.stdout.contains("ended with 2"), "{}", said.stdout);
}

#[test]
fn the_machine_boots_on_kvm_with_memory_above_the_hole() {
    // 5 GiB: 3 below the hole, 2 above 4 GiB. Little of it is touched.
    let said = job(images::minimal(), "kiln run -accel kvm -mem 5120 it").memory_mib(6144).run().ok();
    check_console(&said.stdout);
}

#[test]
fn the_fallback_boots_where_kvm_cannot_be_used() {
    let built = images::minimal();
    let sandbox = Sandbox::new();
    let said = run(sandbox.kiln(["run", "-accel", "qemu", "-mem", "512"]).arg(built.path().join("minimal"))).ok();
    check_console(&said.stdout);
}

#[test]
fn what_is_typed_reaches_a_shell_on_the_console() {
    let built = images::getty();
    let sandbox = Sandbox::new();
    let mut machine = Running::start(
        sandbox.kiln(["run", "-accel", "qemu", "-mem", "512", "-state", "s"]).arg(built.path().join("getty")),
    );
    machine.wait_for("root shell", LIMIT);
    machine.wait_for("Enter 'help'", LIMIT);
    machine.type_in("echo the answer is $((6 * 7))\n");
    machine.wait_for("the answer is 42", LIMIT);
    machine.type_in("poweroff\n");
    let (status, console) = machine.wait(LIMIT);
    assert!(status.success(), "{status:?}\n{console}");
}

/// The packages by way of a real registry and an empty cache: the same bytes, and they boot.
#[test]
fn images_from_a_registry_make_the_same_machine() {
    let registry = Registry::start();
    let sandbox = Sandbox::new();
    let example = tree().join("examples/minimal.yml");
    let mut yaml = std::fs::read_to_string(&example).unwrap();
    // The bill of materials has the names of the images, which are others here.
    let store = images::store();
    run(sandbox.kiln(["build", "--no-sbom", "--dir", "built", "--cache"]).args([store.as_path(), &example])).ok();
    for package in ["kernel", "init", "busybox"] {
        let folder = tree().join("pkg").join(package);
        let tag = run(sandbox.kiln(["pkg", "show-tag"]).arg(&folder)).ok().stdout.trim().to_owned();
        let reference = registry.push(&store, &format!("docker.io/{tag}"), &format!("pkg/{package}:1"));
        yaml = yaml.replace(&format!("\"@pkg:../pkg/{package}\""), &reference);
    }
    assert!(!yaml.contains("@pkg"), "{yaml}");
    sandbox.write("minimal.yml", yaml);
    run(&mut sandbox.kiln(["build", "--no-sbom", "--cache", "empty", "minimal.yml"])).ok();
    for file in ["minimal-kernel", "minimal-initrd.img", "minimal-cmdline"] {
        let [here, there] = ["", "built"].map(|folder| std::fs::read(sandbox.path().join(folder).join(file)));
        assert!(here.unwrap() == there.unwrap(), "{file} differs");
    }
    let said = run(&mut sandbox.kiln(["run", "-accel", "qemu", "minimal"])).ok();
    check_console(&said.stdout);
}

#[test]
fn plain_qemu_boots_what_the_build_wrote() {
    let built = images::minimal();
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", "512", "-nographic", "-nodefaults", "-no-reboot"])
        .args(["-serial", "stdio", "-append", &built.cmdline(), "-kernel"])
        .arg(built.file("kernel"))
        .arg("-initrd")
        .arg(built.file("initrd.img"));
    let (status, console) = Running::start(&mut qemu).wait(LIMIT);
    assert!(status.success(), "{status:?}\n{console}");
    check_console(&console);
}

#[test]
fn a_disk_is_made_sparse_and_keeps_what_the_guest_wrote() {
    let said = job(
        images::disk(),
        "kiln run -accel kvm -disk file=data.img,size=1G it > first\n\
         kiln run -accel kvm -disk file=data.img it > second\n\
         cat first second\n\
         ls -l data.img | awk '{print \"bytes\", $5}'\n\
         du -k data.img | awk '{print \"kib\", $1}'",
    )
    .run()
    .ok();
    for wanted in ["has seen 1 boot", "has seen 2 boot", "bytes 1073741824"] {
        assert!(said.stdout.contains(wanted), "no `{wanted}` in:\n{}", said.stdout);
    }
    let kib = said.stdout.lines().find_map(|line| line.strip_prefix("kib ")?.trim().parse::<u64>().ok());
    assert!(kib.is_some_and(|kib| kib < 256 * 1024), "not sparse: {kib:?} KiB");
}

#[test]
fn sigterm_presses_the_power_button_and_the_guest_powers_off() {
    let getty = images::getty();
    let said = job(
        getty,
        "kiln run -accel kvm -mem 256 it > out 2> err < /dev/null &\n\
         wait_for 'root shell' out 60\n\
         kill -TERM $!\n\
         wait $! || { echo status $?; cat out err; exit 1; }\n\
         cat out",
    )
    .run()
    .ok();
    assert!(said.stdout.contains("kiln: power off"), "{}", said.stdout);
}

/// VM exits and faults to the first line of user space are exact in the lab, so they are a budget and not a hope. The
/// kernel is Debian's cloud kernel as `vmlinux`, with its serial console on.
#[test]
fn a_boot_stays_within_its_budget_of_exits_and_faults() {
    const INIT: &str = "#!/bin/busybox sh\n/bin/busybox echo READY\nexec /bin/busybox sleep 100000\n";
    let said = KvmJob::new(
        "mkdir -p guest/bin && cp /bin/busybox guest/bin && cp init guest/init && chmod 755 guest/init\n\
         (cd guest && find . | cpio -o -H newc 2>/dev/null) | gzip > initrd\n\
         for turn in 1 2 3 4 5 6; do\n\
         kiln run -accel kvm -cpus 1 -mem 128 -kernel kernel -initrd initrd -cmdline 'console=ttyS0 quiet' -state s \
         2> err < /dev/null | while read -r line; do\n\
         echo \"$line\"; case $line in *READY*) ;; *) continue ;; esac\n\
         for counter in exits irq_exits io_exits pf_fixed; do\n\
         echo \"$turn $counter $(cat /sys/kernel/debug/kvm/*/$counter)\"\n\
         done\n\
         killall -9 kiln\n\
         done\n\
         done",
    )
    .file(&crate::harness::fixtures::debian_kernel().vmlinuz, "kernel")
    .text("init", INIT)
    .in_lab()
    .run()
    .ok();
    let turns = |name: &str| -> Vec<u64> {
        let counts =
            said.stdout.lines().filter_map(|line| line.split_once(&format!(" {name} "))?.1.trim().parse().ok());
        counts.collect()
    };
    // A PCI device costs about 250 exits to be found and set up: bridges, entropy, vsock and balloon are always there.
    // Interrupts of the host are not the machine's. The second turn finds the unpacked kernel in the cache, and a busy
    // host means more of the guest's own timer: the least of the turns is what the machine itself needs.
    let own = turns("exits").into_iter().zip(turns("irq_exits")).map(|(all, host)| all.saturating_sub(host)).collect();
    for (name, counts, budget) in
        [("own exits", own, 3200), ("io_exits", turns("io_exits"), 600), ("pf_fixed", turns("pf_fixed"), 40)]
    {
        let least = counts.into_iter().min().unwrap_or_else(|| panic!("no {name} in:\n{}", said.stdout));
        assert!(least <= budget, "{name} {least} > {budget}\n{}", said.stdout);
    }
}

/// Binds as real LinuxKit files have them. What containers get there must not come back to the machine, whatever its
/// propagation; what they mount in `/var` must.
#[test]
fn a_container_with_the_usual_binds_runs() {
    const YAML: &str = r#"
kernel: {image: "@pkg:TREE/pkg/kernel", cmdline: "console=ttyS0 quiet"}
init: ["@pkg:TREE/pkg/init", "@pkg:TREE/pkg/busybox"]
onboot:
- name: usual
  image: "@pkg:TREE/pkg/busybox"
  pid: host
  net: new
  hostname: other
  capabilities: [all]
  rootfsPropagation: shared
  cgroupsPath: /shared/usual
  binds: ["/dev:/dev", "/sys:/sys", "/:/rootfs:rshared,rbind", "/run:/run", "/var:/var:rshared,rbind",
    "/var/run:/var/run", "/etc/resolv.conf:/etc/resolv.conf", "/usr/bin/runc:/usr/bin/runc"]
  tmpfs: [/tmp]
  command: [sh, -ec, "test -c /dev/ttyS0; test -c /dev/null; echo ptmx $(stat -c %F /dev/ptmx);
    mkdir /var/kept; mount -t tmpfs kept /var/kept; touch /var/kept/there; touch /tmp/x; test -d /rootfs/containers;
    ls /sys/class/net; echo host $(hostname), group $(cat /proc/self/cgroup)"]
- name: sealed
  image: "@pkg:TREE/pkg/busybox"
  readonly: true
  binds: ["/dev:/dev:ro", "/etc/resolv.conf:/etc/resolv.conf:ro"]
  command: [sh, -c, "test -c /dev/ttyS0 && ! touch /x /dev/x && echo flags $(grep ' /dev ' /proc/mounts | cut -d' ' -f4)"]
- name: own
  image: "@pkg:TREE/pkg/busybox"
  devices: [{path: /dev/extra, type: c, major: 1, minor: 3, mode: "0666"}]
  binds: ["/dev/console:/dev/console", "/dev/null:/dev/null", "/proc:/hostproc"]
  command: [sh, -ec, "test -c /dev/console; test ! -e /dev/ttyS0; echo x >/dev/extra; echo nodes $(ls /dev | wc -l)"]
- name: lacking
  image: "@pkg:TREE/pkg/busybox"
  binds: ["/dev:/dev", "/nowhere:/data"]
  command: [echo, runs]
- name: machine
  image: "@pkg:TREE/pkg/busybox"
  pid: host
  capabilities: [all]
  binds: ["/:/rootfs"]
  command: [sh, -c, "echo on /dev/pts $(grep -c ' /dev/pts ' /proc/1/mountinfo), groups $(grep -c ' /sys/fs/cgroup '
    /proc/1/mountinfo), ptmx $(stat -c %F /rootfs/dev/ptmx), kept $(ls /rootfs/var/kept), host $(hostname)"]
services:
- name: poweroff
  image: "@pkg:TREE/pkg/busybox"
  pid: host
  capabilities: [CAP_KILL]
  binds: ["/dev:/dev"]
  command: [poweroff]
"#;
    let sandbox = Sandbox::new();
    let yaml = sandbox.write_yaml("binds.yml", YAML);
    run(sandbox.kiln(["build", "--cache"]).arg(images::store()).arg(yaml)).ok();
    let console = run(&mut sandbox.kiln(["run", "-accel", "qemu", "-mem", "512", "binds"])).ok().stdout;
    for wanted in [
        "usual: ptmx character special file",
        "usual: lo",
        "usual: host other, group 0::/shared/usual",
        "sealed: flags ro,nosuid,noexec,",
        "own: nodes 15",
        "onboot lacking: cannot start: `/nowhere`, bound to `/data` in the container, is not there",
        "machine: on /dev/pts 1, groups 1, ptmx character special file, kept there, host linuxkit-525400",
        "kiln: power off",
    ] {
        assert!(console.contains(wanted), "no `{wanted}` in:\n{console}");
    }
    for unwanted in ["lacking: runs", "usual: lo\nusual: eth0"] {
        assert!(!console.contains(unwanted), "`{unwanted}` in:\n{console}");
    }
}
