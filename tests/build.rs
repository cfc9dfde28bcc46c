//! `kiln build` on real images from a real registry, and on everything that can be wrong with its input.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::images;
use crate::harness::kiln::{Running, Said, Sandbox, run};
use crate::harness::layout::write_layout;
use crate::harness::registry::{Registry, skopeo};
use crate::harness::tree;

/// Two small images in a fresh registry: `base` with two layers (one file is taken away by the second), `other`.
fn registry() -> (Registry, Sandbox) {
    let registry = Registry::start();
    let sandbox = Sandbox::new();
    let layout = sandbox.path().join("layout");
    let script = r#"
        mkdir one two
        mkdir -p one/etc one/bin two/etc
        echo kept > one/etc/kept; echo gone > one/etc/gone; echo run > one/bin/run; ln one/bin/run one/bin/hard
        ln -s run one/bin/soft
        : > two/etc/.wh.gone; echo new > two/etc/new
        tar -C one --sort=name --mtime=@0 -czf one.tar.gz etc bin
        tar -C two --sort=name --mtime=@0 -cf - etc | zstd -q -o two.tar.zst
    "#;
    run(Command::new("sh").args(["-euc", script]).current_dir(sandbox.path())).ok();
    write_layout(&layout, "base", &[("one.tar.gz", "tar+gzip"), ("two.tar.zst", "tar+zstd")], sandbox.path());
    registry.push(&layout, "base", "base:1");
    (registry, sandbox)
}

/// The lines of `tar -t` without the folders.
fn members(tar: &Path) -> Vec<String> {
    let listed = run(Command::new("tar").arg("-tf").arg(tar)).ok().stdout;
    listed.lines().filter(|line| !line.ends_with('/')).map(str::to_owned).collect()
}

#[test]
fn an_image_from_a_registry_becomes_a_tree_with_its_whiteouts_done() {
    let (registry, sandbox) = registry();
    sandbox.write("a.yml", format!("init:\n  - {}/base:1\n", registry.host));
    run(&mut sandbox.kiln(["build", "-format", "tar", "a.yml"])).ok();
    let tar = sandbox.path().join("a.tar");
    let members = members(&tar);
    for wanted in ["etc/kept", "etc/new", "bin/run", "bin/hard", "bin/soft"] {
        assert!(members.iter().any(|member| member == wanted), "no {wanted} in {members:?}");
    }
    assert!(!members.iter().any(|member| member.contains("gone")), "{members:?}");
    // The second build needs no network.
    drop(registry);
    sandbox.write("b.yml", fs::read(sandbox.path().join("a.yml")).unwrap());
    run(&mut sandbox.kiln(["build", "-format", "tar", "b.yml"])).ok();
    assert_eq!(fs::read(&tar).unwrap(), fs::read(sandbox.path().join("b.tar")).unwrap());
}

#[test]
fn the_store_is_one_that_other_programs_read() {
    let (registry, sandbox) = registry();
    let reference = format!("{}/base:1", registry.host);
    sandbox.write("a.yml", format!("init:\n  - {reference}\n"));
    run(&mut sandbox.kiln(["build", "--format", "tar", "--cache", "store", "a.yml"])).ok();
    let said = skopeo(&["inspect", &format!("oci:{}:{reference}", sandbox.path().join("store").display())]).ok();
    assert!(said.stdout.contains("\"linux\""), "{}", said.stdout);
}

#[test]
fn the_same_inputs_give_the_same_bytes_elsewhere_and_later() {
    let build = |format: &str| -> Vec<Vec<u8>> {
        let sandbox = Sandbox::new();
        let yaml = tree().join("examples/minimal.yml");
        run(sandbox
            .kiln(["build", "-q", "--name", "it", "--format", format, "--cache"])
            .arg(images::store())
            .arg(yaml))
        .ok();
        let mut files = sandbox.files();
        files.retain(|file| file.starts_with("it"));
        files.iter().map(|file| fs::read(sandbox.path().join(file)).unwrap()).collect()
    };
    for format in ["tar", "kernel+initrd"] {
        let (first, second) = (build(format), build(format));
        assert!(first == second, "{format} differs between two builds");
        assert!(!first.is_empty());
    }
}

#[test]
fn an_initrd_is_what_cpio_reads() {
    let built = images::minimal();
    let script = r#"zcat "$1" | cpio -t --quiet"#;
    let said = run(Command::new("sh").args(["-euc", script, "sh"]).arg(built.file("initrd.img"))).ok();
    for wanted in ["init", "usr/bin/busybox"] {
        assert!(said.stdout.lines().any(|line| line == wanted), "no {wanted} in\n{}", said.stdout);
    }
    assert!(!said.stdout.contains("boot/kernel"), "the kernel is in the initrd");
}

#[test]
fn a_second_build_writes_nothing() {
    let sandbox = Sandbox::new();
    let yaml = tree().join("examples/minimal.yml");
    let build = || -> (u64, i64, Said) {
        let said = run(sandbox.kiln(["build", "--cache"]).arg(images::store()).arg(&yaml)).ok();
        let file = fs::metadata(sandbox.path().join("minimal-initrd.img")).unwrap();
        (file.ino(), file.mtime_nsec(), said)
    };
    let (first, second) = (build(), build());
    assert_eq!((first.0, first.1), (second.0, second.1), "{}", second.2.stderr);
    // A changed output is made again.
    fs::write(sandbox.path().join("minimal-initrd.img"), "spoilt").unwrap();
    build();
    assert!(fs::metadata(sandbox.path().join("minimal-initrd.img")).unwrap().len() > 1000);
}

/// Bad YAML: the message names line and culprit, nothing is left behind.
#[test]
fn a_faulty_yaml_is_pointed_at() {
    let cases: &[(&str, &[&str])] = &[
        ("", &["a.yml", "empty"]),
        ("services:\n\t- name: x\n", &["a.yml:2", "tab"]),
        ("servics: []\n", &["a.yml:1:1", "servics", "services"]),
        ("services:\n  - name: a\n    image: b\n    bindz: [x]\n", &["a.yml:4:5", "bindz", "binds"]),
        ("services:\n  - name: a\n    image: [b]\n", &["a.yml:3:12", "image"]),
        ("kernel: 5\n", &["a.yml:1:9", "kernel"]),
        ("services:\n  - {name: a, image: b}\n  - {name: a, image: b}\n", &["a.yml:3", "`a`"]),
        ("services:\n  - name: a\n", &["a.yml:2", "image"]),
    ];
    for (yaml, wanted) in cases {
        let sandbox = Sandbox::new();
        sandbox.write("a.yml", yaml);
        let said = run(&mut sandbox.kiln(["build", "a.yml"]));
        assert_eq!(said.code(), 1, "{yaml:?}: {}", said.stderr);
        for word in *wanted {
            assert!(said.stderr.contains(word), "{yaml:?}: no `{word}` in:\n{}", said.stderr);
        }
        assert_eq!(sandbox.files(), ["a.yml"], "{yaml:?}");
    }
}

#[test]
fn an_image_that_is_not_there_is_named_with_its_place() {
    let registry = Registry::start();
    let sandbox = Sandbox::new();
    sandbox.write("a.yml", format!("init:\n  - {}/no/such:1\n", registry.host));
    let said = run(&mut sandbox.kiln(["build", "a.yml"]));
    assert_eq!(said.code(), 1);
    for word in ["no/such", "init[0]", "a.yml:2", "404"] {
        assert!(said.stderr.contains(word), "no `{word}` in:\n{}", said.stderr);
    }
    assert_eq!(sandbox.files(), ["a.yml"]);
}

#[test]
fn a_registry_that_refuses_is_an_error_at_once() {
    // Bound, never listening: connections to it are refused.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    drop(socket);
    let sandbox = Sandbox::new();
    sandbox.write("a.yml", format!("init:\n  - 127.0.0.1:{port}/x:1\n"));
    let said = run(&mut sandbox.kiln(["build", "a.yml"]));
    assert_eq!(said.code(), 1);
    assert!(said.stderr.contains(&port.to_string()), "{}", said.stderr);
}

#[test]
fn a_damaged_store_is_noticed_and_mended_from_the_registry() {
    let (registry, sandbox) = registry();
    sandbox.write("a.yml", format!("init:\n  - {}/base:1\n", registry.host));
    run(&mut sandbox.kiln(["build", "-format", "tar", "--cache", "store", "a.yml"])).ok();
    let good = fs::read(sandbox.path().join("a.tar")).unwrap();
    let blobs = sandbox.path().join("store/blobs/sha256");
    let damage = || {
        let layers = fs::read_dir(&blobs).unwrap().flatten().map(|entry| entry.path()).filter(|path| path.is_file());
        let layer =
            layers.max_by_key(|path| (fs::read(path).unwrap().starts_with(&[0x1f, 0x8b]), path.clone())).unwrap();
        let mut bytes = fs::read(&layer).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&layer, bytes).unwrap();
        // What was unpacked before hides the damage, and is as good.
        fs::remove_dir_all(sandbox.path().join("store/kiln-cache")).unwrap();
        layer.file_name().unwrap().to_string_lossy().into_owned()
    };
    damage();
    fs::remove_file(sandbox.path().join("a.tar")).unwrap();
    run(&mut sandbox.kiln(["build", "-format", "tar", "--cache", "store", "a.yml"])).ok();
    assert_eq!(fs::read(sandbox.path().join("a.tar")).unwrap(), good);
    // With no registry to mend it from, it is an error that names the blob, and no output.
    let digest = damage();
    drop(registry);
    fs::remove_file(sandbox.path().join("a.tar")).unwrap();
    let said = run(&mut sandbox.kiln(["build", "-format", "tar", "--cache", "store", "a.yml"]));
    assert_eq!(said.code(), 1, "{}", said.stderr);
    assert!(said.stderr.contains(&digest[..12]), "{digest}:\n{}", said.stderr);
    assert!(!sandbox.path().join("a.tar").exists());
}

#[test]
fn an_interrupted_build_leaves_nothing_and_a_killed_one_does_not_hinder_the_next() {
    let sandbox = Sandbox::new();
    let yaml = tree().join("examples/minimal.yml");
    images::minimal();
    let build = || {
        let mut command = sandbox.kiln(["build", "--cache"]);
        command.arg(images::store()).arg(&yaml);
        command
    };
    for delay_ms in [5, 50, 150, 400] {
        for signal in ["-INT", "-KILL"] {
            let build = Running::start(&mut build());
            std::thread::sleep(Duration::from_millis(delay_ms));
            let pid = build.pid().to_string();
            run(Command::new("kill").args([signal, &pid]));
            let (status, said) = build.wait(Duration::from_secs(30));
            if signal == "-INT" && !status.success() {
                assert_eq!(sandbox.files(), [""; 0], "after {delay_ms} ms: {said}");
            }
            // No output under its final name is ever half-written.
            for file in sandbox.files().iter().filter(|file| file.starts_with("minimal-")) {
                let built = images::minimal().path().join(file);
                assert!(fs::read(sandbox.path().join(file)).unwrap() == fs::read(built).unwrap(), "{file} {said}");
                fs::remove_file(sandbox.path().join(file)).unwrap();
            }
        }
    }
    run(&mut build()).ok();
    assert_eq!(sandbox.files(), ["minimal-cmdline", "minimal-initrd.img", "minimal-kernel"]);
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    images::minimal();
    fs::create_dir(sandbox.path().join("out")).unwrap();
    let kiln = sandbox.kiln([""]).get_program().to_string_lossy().into_owned();
    let script = format!(
        "mount -t tmpfs -o size=4m none out\n\
         {kiln} build --cache {} --dir out {} && exit 9\n\
         echo status $?; ls -A out | wc -l",
        images::store().display(),
        tree().join("examples/minimal.yml").display()
    );
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--mount", "sh", "-uc", &script]).current_dir(sandbox.path());
    let said = run(&mut unshare);
    assert_eq!(said.stdout.lines().collect::<Vec<_>>(), ["status 1", "0"], "{}", said.stderr);
    assert!(said.stderr.contains("minimal-initrd.img") || said.stderr.contains("minimal-kernel"), "{}", said.stderr);
}

#[test]
fn a_program_that_is_not_in_its_debian_package_is_named() {
    let sandbox = Sandbox::new();
    let recipe =
        "image: a\nsource:\n- debian:\n    packages: [busybox-static]\n    include: [/bin/busybox, /bin/*box, NAME]\n";
    let build = |name: &str| {
        sandbox.write("a/build.yml", recipe.replace("NAME", name));
        run(sandbox.kiln(["pkg", "build", "--cache"]).arg(images::store()).arg("a"))
    };
    let said = build("/usr/bin/toybox");
    assert_eq!(said.code(), 1);
    assert!(
        said.stderr.contains("`/usr/bin/toybox` of `include` is not in Debian's busybox-static"),
        "{}",
        said.stderr
    );
    // Patterns may fit nothing, and either name of a merged folder is good.
    build("/usr/bin/toy*").ok();
    build("/usr/bin/busybox").ok();
}
