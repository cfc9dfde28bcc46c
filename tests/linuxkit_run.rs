//! `linuxkit run` as its users spell it, with one dash and with two: each flag of each of its back ends is taken, or refused
//! with what to use instead. Nothing boots.

use crate::harness::kiln::{Said, Sandbox, run};

/// Words that get as far as the machine's files, which are not there, and what is said of them besides.
const TAKEN: &[(&str, &str)] = &[
    ("vm", ""),
    ("qemu vm", ""),
    ("virtualization vm", ""),
    ("virtualization.framework vm", ""),
    ("hyperkit vm", ""),
    ("-cpus 2 -mem 2048 vm", ""),
    ("-disk size=1G vm", ""),
    ("-disk file=d.img,size=512M,format=qcow2 -disk e.img,size=1 vm", ""),
    ("qemu -state s vm", ""),
    ("qemu -kernel vm", ""),
    ("qemu -kernel -mem 512 vm", ""),
    ("qemu vm -kernel", ""),
    ("qemu -squashfs vm", ""),
    ("qemu -iso vm", ""),
    ("qemu -uefi vm", ""),
    ("qemu -uefi -fw bios.bin vm", ""),
    ("qemu -iso -uefi vm", ""),
    ("hyperkit -uefi -fw UEFI.fd vm", ""),
    ("qemu -accel kvm:tcg vm", ""),
    ("qemu -accel=tcg vm", ""),
    ("qemu -arch x86_64 vm", ""),
    ("qemu -data text vm", ""),
    ("qemu -data-file user-data vm", ""),
    ("qemu -networking user -publish 2222:22/tcp -publish 53:53/udp vm", ""),
    ("qemu -networking default vm", ""),
    ("qemu -networking none vm", ""),
    ("qemu -networking tap,tap0 vm", ""),
    ("qemu -networking bridge,br0 vm", ""),
    ("qemu -virtiofs . -virtiofs shared vm", ""),
    ("qemu -virtiofsd /usr/lib/qemu/virtiofsd vm", "`-virtiofsd` is not needed"),
    ("qemu -detached vm", ""),
    ("virtualization.framework -vsock-ports 2374 vm", ""),
    ("virtualization -networking vmnet -state s -virtiofs . vm", ""),
    ("hyperkit -vsock-ports 2374,2376 -ip 10.0.2.20 vm", ""),
    ("hyperkit -networking docker-for-mac -publish 2222:22/tcp vm", ""),
    ("hyperkit -networking vpnkit,/run/vpnkit.sock vm", ""),
    ("hyperkit -hyperkit /bin/hyperkit -vpnkit /bin/vpnkit vm", "`-vpnkit` is not needed"),
];

/// Words that are refused as wrong usage, and what is to be used.
const REFUSED: &[(&str, &[&str])] = &[
    ("", &["NAME"]),
    ("vbox vm", &["no back end is called `vbox`", "`kvm` and `qemu`"]),
    ("gcp vm", &["no back end is called `gcp`"]),
    ("qemu -arch aarch64 vm", &["`-arch`", "docs/formats.md"]),
    ("qemu -gui vm", &["`-gui`", "the console is this terminal"]),
    ("qemu -usb vm", &["`-usb`", "`-disk`"]),
    ("qemu -device virtio-serial vm", &["`-device`", "`-vsock-ports`"]),
    ("qemu -qemu /usr/bin/qemu-system-x86_64 vm", &["`-qemu`", "PATH"]),
    ("qemu -accel hvf:tcg vm", &["kvm", "qemu"]),
    ("qemu -data a -data-file b vm", &["-data", "-data-file"]),
    ("hyperkit -console-file vm", &["`-console-file`", "`-console file:PATH`"]),
    ("hyperkit -vsock-ports x vm", &["`x` is no vsock port"]),
];

fn said(sandbox: &Sandbox, line: &str, dashes: &str) -> Said {
    let spelled = |word: &str| match word.strip_prefix('-') {
        Some(flag) => format!("{dashes}{flag}"),
        None => word.to_owned(),
    };
    run(sandbox.kiln(["run"]).args(line.split_whitespace().map(spelled)))
}

#[test]
fn each_flag_of_linuxkit_run_is_taken_or_refused_with_what_to_use() {
    let sandbox = Sandbox::new();
    sandbox.write("user-data", "text");
    sandbox.write("shared/file", "");
    // Half of a machine.
    sandbox.write("vm-kernel", "");
    let before = sandbox.files();
    let mut faults = Vec::new();
    for dashes in ["-", "--"] {
        let rows = TAKEN.iter().map(|(line, wanted)| (line, vec![*wanted, "is not there"], 1));
        let rows = rows.chain(REFUSED.iter().map(|(line, wanted)| (line, wanted.to_vec(), 2)));
        for (line, wanted, status) in rows {
            let said = said(&sandbox, line, dashes);
            if said.code() != status || !wanted.iter().all(|wanted| said.stderr.contains(wanted)) {
                faults.push(format!("kiln run {line} (with {dashes}): {} {}", said.code(), said.stderr));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    // What does not start leaves nothing.
    assert_eq!(sandbox.files(), before);
}
