//! The lab: a machine inside QEMU's software CPU, which emulates AMD's SVM with nested paging, so that a stock Debian
//! kernel in it has a real `/dev/kvm`. Slow (10 to 30 times), but the KVM in it is the real one, and its counters of
//! exits and faults are exact.

use std::fs;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use super::fixtures::{self, Kernel};
use super::initrd::Initrd;
use super::kiln::Said;

/// First program of the lab: loads KVM, runs the job with its output on the second serial port, tells its exit status
/// on the first.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/job:/bin HOME=/job
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts && mount -t devpts pts /dev/pts
mount -t debugfs debug /sys/kernel/debug
mount -t tmpfs -o mode=1777 tmp /tmp
for module in $(cat /modules/order); do insmod /modules/$module.ko || echo "LAB: no $module"; done
ip link set lo up
cd /job
stty -F /dev/ttyS1 raw -echo
sh -eu /job.sh > /dev/ttyS1 2>&1 < /dev/null
echo "LAB: status $?"
poweroff -f
"#;

/// QEMU 7.2 now and then aborts on an assertion of its own while it emulates SVM. Only that is tried again: a job that
/// failed has failed.
const TRIES: u32 = 4;

/// Runs `script` in the lab, with `files` in its folder.
#[track_caller]
pub fn run_job(files: &[(PathBuf, String)], script: &str, memory_mib: u32, limit: Duration) -> Said {
    let folder = tempfile::Builder::new().prefix("kiln-lab-").tempdir().expect("a temp folder can be made");
    let initrd = folder.path().join("initrd");
    write_initrd(&initrd, files, script);
    let initrd_mib = u32::try_from(fs::metadata(&initrd).expect("just written").len() >> 20).expect("fits");
    let mut broken = String::new();
    for _ in 0..TRIES {
        match boot(folder.path(), &initrd, memory_mib + 3 * initrd_mib + 256, limit) {
            Ok(said) => return said,
            Err(why) => broken.push_str(&why),
        }
    }
    panic!("the lab broke off {TRIES} times:\n{broken}");
}

/// Where QEMU 7.2 keeps its software CPU, and the instructions with which that aborts when a guest's guest sets its task priority
/// while an interrupt waits: it asks whether it holds a lock that it need not hold. EDK II does so after each interrupt.
const SOFTWARE_CPU: &str = "accel-tcg-x86_64.so";
const QEMU_MODULES: &str = "/usr/lib/x86_64-linux-gnu/qemu";
const ABORTS: [u8; 6] = [0x84, 0xC0, 0x75, 0x24, 0x4C, 0x8D];

/// A copy of QEMU's modules whose software CPU does not abort; the modules themselves where that one is another.
fn modules() -> PathBuf {
    let own = Path::new(QEMU_MODULES);
    let Ok(mut code) = fs::read(own.join(SOFTWARE_CPU)) else { return own.to_owned() };
    let mut places = code.windows(ABORTS.len()).enumerate().filter(|(_, bytes)| *bytes == ABORTS).map(|(at, _)| at);
    let (Some(at), None) = (places.next(), places.next()) else { return own.to_owned() };
    // Another build of QEMU takes no modules of this one.
    let build = BuildHasherDefault::<DefaultHasher>::default().hash_one(&code);
    let dir = super::cache_dir().join(format!("qemu-modules-{build:x}"));
    fixtures::once(&dir, |dir| {
        // The jump is taken always.
        code[at + 2] = 0xEB;
        fs::write(dir.join(SOFTWARE_CPU), &code).expect("the cache is writable");
        for module in fs::read_dir(own).expect("just read from").flatten() {
            if module.file_name() != SOFTWARE_CPU {
                std::os::unix::fs::symlink(module.path(), dir.join(module.file_name())).expect("the cache is writable");
            }
        }
    });
    dir
}

fn boot(folder: &Path, initrd: &Path, memory_mib: u32, limit: Duration) -> Result<Said, String> {
    let job_output = folder.join("job-output");
    let serial = format!("file:{}", job_output.display());
    let output = Command::new("timeout")
        .env("QEMU_MODULE_DIR", modules())
        .args(["--kill-after=5", &limit.as_secs().to_string(), "qemu-system-x86_64"])
        .args(["-accel", "tcg,thread=multi", "-smp", "2", "-cpu", "EPYC,+svm,+npt", "-M", "q35", "-no-reboot"])
        .args(["-nodefaults", "-display", "none", "-m", &memory_mib.to_string()])
        .args(["-serial", "stdio", "-serial", &serial])
        .arg("-kernel")
        .arg(&kernel().vmlinuz)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", "console=ttyS0 quiet panic=-1 no_timer_check random.trust_cpu=on mitigations=off"])
        .stdin(Stdio::null())
        .output()
        .expect("qemu-system-x86_64 is installed");
    let console = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let said = String::from_utf8_lossy(&fs::read(&job_output).unwrap_or_default()).replace('\r', "");
    let status: Option<i32> =
        console.split("LAB: status ").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    match status {
        // `wait` keeps the exit code in the second byte.
        Some(code) => Ok(Said { status: ExitStatus::from_raw(code << 8), stdout: said, stderr: console }),
        None if output.status.code() == Some(124) => {
            panic!("the job did not end within {limit:?}:\n{said}\n--- console:\n{console}")
        }
        None => Err(format!("{:?}\n{}\n{said}\n", output.status, String::from_utf8_lossy(&output.stderr))),
    }
}

/// The lab's initramfs: busybox, KVM's modules, the job.
fn write_initrd(initrd: &Path, files: &[(PathBuf, String)], script: &str) {
    let lab = Initrd::new().text("init", INIT).text("job.sh", script).modules(&["irqbypass", "kvm", "kvm-amd"]);
    files.iter().fold(lab, |lab, (path, name)| lab.file(&format!("job/{name}"), path)).pack(initrd);
}

fn kernel() -> &'static Kernel {
    static KERNEL: OnceLock<Kernel> = OnceLock::new();
    KERNEL.get_or_init(fixtures::debian_kernel)
}
