//! Boot code: that its machine code is what its sources say, and what Secure Boot makes of it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::images;
use crate::harness::kiln::{Running, Sandbox, run};
use crate::harness::tree;

#[test]
fn the_machine_code_is_what_the_sources_say() {
    let sandbox = Sandbox::new();
    let code = tree().join("build/src/format/boot/code");
    for entry in fs::read_dir(&code).unwrap().flatten() {
        fs::copy(entry.path(), sandbox.path().join(entry.file_name())).unwrap();
    }
    let readme = fs::read_to_string(tree().join("build/src/format/boot/README.md")).unwrap();
    let rows = readme.lines().filter(|line| line.starts_with("| `"));
    let mut made = 0;
    for row in rows {
        let cells: Vec<_> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let (name, command) = (cells[1], cells[3]);
        fs::remove_file(sandbox.path().join(name)).unwrap();
        run(Command::new("sh").args(["-euc", command]).current_dir(sandbox.path())).ok();
        let same = fs::read(sandbox.path().join(name)).unwrap() == fs::read(code.join(name)).unwrap();
        assert!(same, "{name} is not what `{command}` makes");
        made += 1;
    }
    assert_eq!(made, 4);
}

/// A key and its certificate, made by openssl.
fn pair(folder: &Path, name: &str, bits: &str) {
    let subject = format!("/CN={name}/");
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-new", "-x509", "-nodes", "-days", "3650", "-subj", &subject]).args(["-newkey", bits]);
    openssl.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]).current_dir(folder);
    run(&mut openssl).ok();
}

#[test]
fn keys_and_certificates_of_no_use_are_refused_by_name() {
    let sandbox = Sandbox::new();
    pair(sandbox.path(), "good", "rsa:2048");
    pair(sandbox.path(), "other", "rsa:2048");
    pair(sandbox.path(), "short", "rsa:1024");
    let openssl = |words: &[&str]| run(Command::new("openssl").args(words).current_dir(sandbox.path())).ok();
    openssl(&["pkcs8", "-topk8", "-in", "good.key", "-out", "locked.key", "-passout", "pass:x"]);
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "curve.key"]);
    sandbox.write("text.pem", "no PEM at all\n");
    sandbox.write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    sandbox.write("a.yml", "init: []\n");
    let cases = [
        ("missing.key", "good.pem", "cannot read `missing.key`"),
        ("good.key", "missing.pem", "cannot read `missing.pem`"),
        ("locked.key", "good.pem", "the key in `locked.key` is encrypted"),
        ("text.pem", "good.pem", "`text.pem` has no private key"),
        ("good.pem", "good.pem", "`good.pem` has no private key"),
        ("curve.key", "good.pem", "the key in `curve.key` is no RSA key of 2048 to 4096 bits"),
        ("short.key", "short.pem", "the key in `short.key` is no RSA key of 2048 to 4096 bits"),
        ("good.key", "text.pem", "`text.pem` has no X.509 certificate"),
        ("good.key", "broken.pem", "`broken.pem` has no X.509 certificate"),
        ("good.key", "other.pem", "the certificate in `other.pem` is not that of the key in `good.key`"),
    ];
    for (key, certificate, part) in cases {
        let words = ["build", "--format", "tar", "--secure-boot-key", key, "--secure-boot-cert", certificate, "a.yml"];
        let said = run(&mut sandbox.kiln(words));
        assert_eq!(said.code(), 1, "{part}: {}", said.stderr);
        assert!(said.stderr.contains(part), "{}\n{part}", said.stderr);
    }
    let alone = run(&mut sandbox.kiln(["build", "--secure-boot-key", "good.key", "a.yml"]));
    assert_eq!(alone.code(), 2);
    assert!(alone.stderr.contains("--secure-boot-cert"), "{}", alone.stderr);
    assert!(!sandbox.files().iter().any(|name| name.ends_with(".tar")), "nothing was written");
}

/// Boots a disk under firmware that knows the snakeoil certificate and runs nothing else.
fn boot_secured(sandbox: &Sandbox, disk: &str) -> Running {
    let variables = sandbox.path().join(disk).with_extension("vars");
    fs::copy("/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd", &variables).unwrap();
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-machine", "q35,smm=on", "-accel", "tcg", "-m", "1024", "-nographic", "-no-reboot", "-net", "none"]);
    qemu.args(["-global", "driver=cfi.pflash01,property=secure,value=on", "-drive"]);
    qemu.arg("if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.secboot.fd");
    qemu.arg("-drive").arg(format!("if=pflash,format=raw,file={}", variables.display()));
    qemu.arg("-drive").arg(format!("format=raw,snapshot=on,file={}", sandbox.path().join(disk).display()));
    Running::start(&mut qemu)
}

#[test]
fn secure_boot_starts_what_is_signed_and_nothing_else() {
    let sandbox = Sandbox::new();
    let words = "rsa -in /usr/share/ovmf/PkKek-1-snakeoil.key -passin pass:snakeoil -out snakeoil.key";
    run(Command::new("openssl").args(words.split(' ')).current_dir(sandbox.path())).ok();
    let certificate = "/usr/share/ovmf/PkKek-1-snakeoil.pem";
    let build = |name: &str, more: &[&str]| {
        let mut kiln = sandbox.kiln(["build", "--format", "raw-efi", "--name", name, "--cache"]);
        run(kiln.arg(images::store()).args(more).arg(tree().join("examples/minimal.yml"))).ok();
    };
    let keys = ["--secure-boot-key", "snakeoil.key", "--secure-boot-cert", certificate];
    build("plain", &[]);
    build("signed", &keys);
    build("again", &keys);
    let image = |name: &str| fs::read(sandbox.path().join(name)).unwrap();
    assert!(image("signed-efi.img") == image("again-efi.img"), "a signature depends on nothing but key and content");

    boot_secured(&sandbox, "signed-efi.img").wait_for("hello from a service", BOOT_LIMIT);
    boot_secured(&sandbox, "plain-efi.img").wait_for("Access Denied", BOOT_LIMIT);

    run(Command::new("sh").arg("-euc").arg(EXTRACT).current_dir(sandbox.path())).ok();
    let verify =
        |name: &str| run(Command::new("sbverify").args(["--cert", certificate, name]).current_dir(sandbox.path()));
    verify("signed.efi").ok();
    let mut changed = image("signed.efi");
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    sandbox.write("changed.efi", changed);
    assert_ne!(verify("changed.efi").code(), 0);
}

/// Takes the EFI program out of the first partition, where mtools finds it by the partition table.
const EXTRACT: &str = r#"
start=$(sfdisk --dump signed-efi.img | sed -n 's/.*img1 : start= *\([0-9]*\).*/\1/p')
mcopy -i "signed-efi.img@@$((start * 512))" ::EFI/BOOT/BOOTX64.EFI signed.efi
"#;

/// Firmware and kernel on an emulated CPU, beside other tests.
const BOOT_LIMIT: Duration = Duration::from_secs(300);
