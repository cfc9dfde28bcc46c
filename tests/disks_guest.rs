//! Disks and the metadata CD of a machine that runs, seen from inside and by QEMU's tools.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use crate::harness::images::store;
use crate::harness::kiln::{Sandbox, run};
use crate::harness::kvm::KvmJob;

/// What the guest does with its disks: `vda` is an image over another one, `vdb` raw, `vdc` the CD.
const GUEST: &str = r##"
kernel: {image: "@pkg:TREE/pkg/kernel", cmdline: "console=ttyS0 quiet loglevel=3"}
init: ["@pkg:TREE/pkg/init", "@pkg:TREE/pkg/busybox"]
onboot:
- name: disks
  image: "@pkg:TREE/pkg/busybox"
  capabilities: [CAP_SYS_ADMIN]
  binds: ["/dev:/hostdev", "/sys:/sys", "/etc/use-disks:/use-disks:ro"]
  command: [sh, /use-disks]
services:
- {name: poweroff, image: "@pkg:TREE/pkg/poweroff"}
files:
- path: etc/use-disks
  mode: "0755"
  contents: |
    set -e
    if grep -q cut /proc/cmdline; then
        mkdir -p /mnt
        mount -t ext4 /hostdev/vda /mnt
        for round in $(seq 1000); do
            (echo "round $round"; head -c 100000 /dev/zero | tr '\0' x) > /mnt/$round
            sync
            echo "synced $round."
        done
    fi
    echo "start $(head -c 11 /hostdev/vda) $(head -c 4 /hostdev/vdb | tr '\0' 0)"
    echo "sizes $(cat /sys/block/vda/size) $(cat /sys/block/vdb/size), queues $(ls /sys/block/vda/mq | wc -l)"
    for disk in vda vdb; do
        mkdir -p /mnt/$disk
        mke2fs -q /hostdev/$disk
        mount -t ext4 /hostdev/$disk /mnt/$disk
        for file in 1 2 3 4; do
            (head -c 3000000 /dev/zero | tr '\0' $file > /mnt/$disk/$file; sync) &
        done
    done
    wait
    for disk in vda vdb; do
        (cd /mnt/$disk && sha256sum 1 2 3 4 > sums)
        rm /mnt/$disk/4
        umount /mnt/$disk
        mount -t ext4 -o discard /hostdev/$disk /mnt/$disk
        (cd /mnt/$disk && head -n 3 sums | sha256sum -c -s)
        rm /mnt/$disk/3
        fstrim /mnt/$disk
        umount /mnt/$disk
        echo "$disk is good"
    done
    mkdir -p /cd
    mount -t iso9660 -o ro /hostdev/vdc /cd
    echo "cd: $(cat /cd/user-data) / $(cat /cd/config) / $(cut -c 1-17 /cd/meta-data)"
    ! dd if=/dev/zero of=/hostdev/vdc bs=512 count=1 2>/dev/null
    echo "all is well"
"##;

const WORDS: &str = "-cpus 2 -mem 256 -disk top.qcow2,size=96M,backing=base.img -disk raw.img,size=64M -data hello";

fn built() -> &'static Sandbox {
    static BUILT: OnceLock<Sandbox> = OnceLock::new();
    BUILT.get_or_init(|| {
        let sandbox = Sandbox::new();
        let yaml = sandbox.write_yaml("it.yml", GUEST);
        run(sandbox.kiln(["build", "--no-sbom", "--cache"]).arg(store()).arg(yaml)).ok();
        fs::write(sandbox.path().join("base.img"), &[&b"from below\n"[..], &vec![b'x'; 1 << 20]].concat()[..1 << 20])
            .unwrap();
        let words = ["create", "-q", "-f", "qcow2", "-b", "base.img", "-F", "raw", "top.qcow2", "80M"];
        run(Command::new("qemu-img").args(words).current_dir(sandbox.path())).ok();
        // With a journal, which busybox cannot make.
        let make = "truncate -s 64M journal.img && mke2fs -q -t ext4 journal.img && \
            qemu-img convert -f raw -O qcow2 journal.img cut.qcow2";
        run(Command::new("sh").args(["-ec", make]).current_dir(sandbox.path())).ok();
        sandbox
    })
}

#[track_caller]
fn check_guest(console: &str) {
    for wanted in [
        "start from below 0000",
        "sizes 196608 131072, queues 2",
        "vda is good",
        "vdb is good",
        "cd: hello / hello / instance-id: kiln",
        "all is well",
    ] {
        assert!(console.contains(wanted), "no `{wanted}` in:\n{console}");
    }
}

/// The image is whole, and the file system in it too.
#[track_caller]
fn check_image(folder: &Path) {
    let said = run(Command::new("qemu-img").args(["check", "top.qcow2"]).current_dir(folder)).ok();
    assert!(said.stdout.contains("No errors"), "{}", said.stdout);
    let words = ["convert", "-f", "qcow2", "-O", "raw", "top.qcow2", "flat.img"];
    run(Command::new("qemu-img").args(words).current_dir(folder)).ok();
    for disk in ["flat.img", "raw.img"] {
        run(Command::new("e2fsck").args(["-f", "-n", disk]).current_dir(folder)).ok();
    }
}

#[test]
fn a_guest_uses_an_image_a_raw_disk_and_the_cd_on_kvm() {
    let built = built();
    let file = |name: &str| built.path().join(name);
    let said = KvmJob::new(&format!(
        "kiln run -accel kvm --ephemeral {WORDS} it > throw-away\n\
         grep 'all is well' throw-away\n\
         kiln run -accel kvm {WORDS} it > out 2>&1 || {{ cat out; exit 1; }}\n\
         cat out\n\
         kiln run -accel kvm -cpus 2 -mem 256 -cmdline \"$(cat it-cmdline) cut\" -disk cut.qcow2 it > cut 2>&1 < /dev/null &\n\
         wait_for 'synced 5[.]' cut 300\n\
         kill -9 $!\n\
         ! wait $!\n\
         for disk in top.qcow2 raw.img; do echo \"room $disk $(du -k $disk | cut -f 1).\"; done\n\
         {}\
         ls it-state",
        told("top.qcow2 raw.img cut.qcow2")
    ))
    .file(&file("it-kernel"), "it-kernel")
    .file(&file("it-initrd.img"), "it-initrd.img")
    .file(&file("it-cmdline"), "it-cmdline")
    .file(&file("top.qcow2"), "top.qcow2")
    .file(&file("base.img"), "base.img")
    .file(&file("cut.qcow2"), "cut.qcow2")
    .run()
    .ok();
    check_guest(&said.stdout);
    assert!(said.stdout.contains("data.iso"), "{}", said.stdout);
    // Of the four files of 3 MB two are left; the others' room has gone back. (An image gives back whole clusters.)
    for disk in ["top.qcow2", "raw.img"] {
        let room = said.stdout.split(&format!("room {disk} ")).nth(1).and_then(|rest| rest.split('.').next());
        let kib: u32 = room.unwrap_or_default().parse().unwrap();
        assert!((2 * 3_000_000 / 1024..4 * 3_000_000 / 1024).contains(&kib), "{disk} takes {kib} KiB");
    }
    let folder = tempfile::tempdir().unwrap();
    fs::copy(file("base.img"), folder.path().join("base.img")).unwrap();
    unpack(&said.stdout, folder.path());
    check_image(folder.path());
    check_after_power_cut(folder.path());
}

/// The end of a job that has these files told, for [`unpack`].
fn told(files: &str) -> String {
    format!("for disk in {files}; do echo \"FILE $disk\"; gzip -c $disk | base64; done; echo FILE\n")
}

/// Puts the files that a job told into a folder.
#[track_caller]
fn unpack(told: &str, folder: &Path) {
    for part in told.split("FILE ").skip(1) {
        let (name, packed) = part.split_once('\n').unwrap();
        let packed = packed.split("FILE").next().unwrap();
        fs::write(folder.join("packed"), packed).unwrap();
        let unpack = format!("base64 -d packed | gzip -dc > {name}");
        run(Command::new("sh").args(["-ec", &unpack]).current_dir(folder)).ok();
    }
}

/// Nobody closed the image: clusters may be left over in it, the journal has to be played back, and what the guest has
/// written and synced is there.
#[track_caller]
fn check_after_power_cut(folder: &Path) {
    let said = run(Command::new("qemu-img").args(["check", "cut.qcow2"]).current_dir(folder));
    assert!(matches!(said.code(), 0 | 3), "{}{}", said.stdout, said.stderr);
    let words = ["convert", "-f", "qcow2", "-O", "raw", "cut.qcow2", "cut.img"];
    run(Command::new("qemu-img").args(words).current_dir(folder)).ok();
    let said = run(Command::new("e2fsck").args(["-p", "cut.img"]).current_dir(folder));
    assert!(matches!(said.code(), 0 | 1), "{}{}", said.stdout, said.stderr);
    run(Command::new("e2fsck").args(["-f", "-n", "cut.img"]).current_dir(folder)).ok();
    for round in 1..=5 {
        let words = ["-R", &format!("cat /{round}"), "cut.img"];
        let content = run(Command::new("debugfs").args(words).current_dir(folder)).ok().stdout;
        assert_eq!(content.len(), 100_008, "round {round}");
        assert!(content.starts_with(&format!("round {round}\n")), "round {round}");
    }
}

/// A service that writes and never syncs, on a file system that is made at the first start.
const BUSY: &str = r##"
kernel: {image: "@pkg:TREE/pkg/kernel", cmdline: "console=ttyS0 quiet loglevel=3"}
init: ["@pkg:TREE/pkg/init"]
onboot:
- {name: format, image: "@pkg:TREE/pkg/format", command: [/usr/bin/format, -label, data]}
- {name: mount, image: "@pkg:TREE/pkg/mount", command: [/usr/bin/mountie, -label, data, /var/lib/data]}
services:
- {name: acpid, image: "@pkg:TREE/pkg/acpid"}
- name: writer
  image: "@pkg:TREE/pkg/busybox"
  binds: [/var/lib/data:/data, "/etc/write:/write:ro"]
  command: [sh, /write]
files:
- path: etc/write
  contents: |
    trap 'echo last words > /data/last; exit 0' TERM
    turn=0
    while true; do
        turn=$((turn + 1))
        mkdir -p /data/$((turn % 9))
        head -c 400000 /dev/zero | tr '\0' x > /data/$((turn % 9))/file
        mv /data/$((turn % 9)) /data/moved$((turn % 5)) 2>/dev/null || rm -r /data/moved$((turn % 5))
        [ $turn != 30 ] || echo "writes and writes"
    done
"##;

#[test]
fn the_power_button_in_the_midst_of_writing_leaves_a_clean_file_system() {
    let sandbox = Sandbox::new();
    let yaml = sandbox.write_yaml("busy.yml", BUSY);
    run(sandbox.kiln(["build", "--no-sbom", "--cache"]).arg(store()).arg(yaml)).ok();
    let said = KvmJob::new(&format!(
        "kiln run -accel kvm -mem 256 -disk data.qcow2,size=64M busy > out 2> err < /dev/null &\n\
         wait_for 'writes and writes' out 300\n\
         kill -TERM $!\n\
         wait $! || {{ echo status $?; cat out err; exit 1; }}\n\
         cat out\n\
         {}",
        told("data.qcow2")
    ))
    .file(&sandbox.path().join("busy-kernel"), "busy-kernel")
    .file(&sandbox.path().join("busy-initrd.img"), "busy-initrd.img")
    .file(&sandbox.path().join("busy-cmdline"), "busy-cmdline")
    .run()
    .ok();
    assert!(said.stdout.contains("kiln: power off"), "{}", said.stdout);
    let folder = tempfile::tempdir().unwrap();
    unpack(&said.stdout, folder.path());
    let tool = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        run(Command::new(words[0]).args(&words[1..]).current_dir(folder.path())).ok().stdout
    };
    assert!(tool("qemu-img check data.qcow2").contains("No errors"));
    tool("qemu-img convert -f qcow2 -O raw data.qcow2 data.img");
    // Its only partition begins at 1 MiB.
    tool("dd if=data.img of=part.img bs=1M skip=1 status=none");
    let checked = tool("e2fsck -f -n part.img");
    assert!(!checked.contains("recover"), "{checked}");
    let state = tool("dumpe2fs -h part.img");
    assert!(state.contains("clean") && !state.contains("needs_recovery"), "{state}");
    let last = run(Command::new("debugfs").args(["-R", "cat /last", "part.img"]).current_dir(folder.path())).ok();
    assert_eq!(last.stdout, "last words\n");
}

#[test]
fn a_guest_uses_an_image_a_raw_disk_and_the_cd_in_the_fallback() {
    let built = built();
    let sandbox = Sandbox::new();
    for name in ["base.img", "top.qcow2"] {
        fs::copy(built.path().join(name), sandbox.path().join(name)).unwrap();
    }
    let machine = built.path().join("it");
    let words = || ["run", "-accel", "qemu", "-state", "s"].into_iter().chain(WORDS.split(' '));
    let throw_away = run(sandbox.kiln(words()).arg("--ephemeral").arg(&machine)).ok();
    check_guest(&throw_away.stdout);
    check_guest(&run(sandbox.kiln(words()).arg(&machine)).ok().stdout);
    check_image(sandbox.path());
}

#[test]
fn a_metadata_cd_is_made_without_a_machine() {
    let sandbox = Sandbox::new();
    run(&mut sandbox.kiln(["metadata", "create", "one.iso", "hello"])).ok();
    sandbox.write("data", "hello");
    run(&mut sandbox.kiln(["metadata", "create", "--file", "data", "two.iso"])).ok();
    let bytes = |name: &str| fs::read(sandbox.path().join(name)).unwrap();
    assert!(bytes("one.iso") == bytes("two.iso"));
    let said = run(&mut sandbox.kiln(["metadata", "create", "three.iso"]));
    assert_eq!(said.code(), 2, "{}", said.stderr);
    let said = run(&mut sandbox.kiln(["metadata", "create", "--file", ".", "three.iso"]));
    assert_eq!(said.code(), 1, "{}", said.stderr);
    assert!(said.stderr.contains("has neither `user-data` nor `config`"), "{}", said.stderr);
    assert_eq!(sandbox.files(), ["data", "one.iso", "two.iso"]);
}
