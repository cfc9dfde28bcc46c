//! `-format oci`: what `kiln push` sends, in a file that other tools copy.

use std::fs;

use crate::harness::images;
use crate::harness::kiln::{Sandbox, run};
use crate::harness::registry::{Registry, skopeo};
use crate::harness::tree;

#[test]
fn a_machine_without_a_kernel_or_with_another_architectures_is_refused_before_a_file_is_there() {
    let sandbox = Sandbox::new();
    sandbox.write("none.yml", "files: [{path: a, contents: b}]\n");
    let said = run(&mut sandbox.kiln(["build", "-format", "oci", "none.yml"]));
    assert!(said.code() == 1 && said.stderr.contains("there is no kernel to boot"), "{}", said.stderr);
    assert!(said.stderr.contains("cannot make oci"), "{}", said.stderr);
    assert_eq!(sandbox.files(), ["none.yml"]);
    let said = run(&mut sandbox.kiln(["run", "oci-archive:none.yml"]));
    assert!(said.code() == 1 && said.stderr.contains("none.yml"), "{}", said.stderr);
}

#[test]
fn an_archive_is_what_push_sends_and_boots_without_a_registry() {
    let sandbox = Sandbox::new();
    let yaml = tree().join("examples/minimal.yml");
    let words = ["build", "--format", "oci,kernel+initrd", "--dir", "out", "--cache"];
    run(sandbox.kiln(words).arg(images::store()).arg(&yaml)).ok();
    let archive = sandbox.path().join("out/minimal.oci.tar");
    let source = format!("oci-archive:{}", archive.display());

    // The same bytes again, as a stream.
    let words = ["build", "--format", "oci", "-o", "again.tar", "--cache"];
    run(sandbox.kiln(words).arg(images::store()).arg(&yaml)).ok();
    assert!(fs::read(sandbox.path().join("again.tar")).unwrap() == fs::read(&archive).unwrap());

    let registry = Registry::start();
    let (pushed, copied) = (format!("{}/m/pushed:1", registry.host), format!("{}/m/copied:1", registry.host));
    run(&mut sandbox.kiln(["--cache", "one", "push", "out/minimal", &format!("oci://{pushed}")])).ok();
    skopeo(&["copy", "--quiet", "--dest-tls-verify=false", &source, &format!("docker://{copied}")]).ok();
    let raw = |what: &str| skopeo(&["inspect", "--raw", "--tls-verify=false", what]).ok().stdout;
    let manifest = raw(&source);
    assert!(manifest.contains("application/vnd.kiln.machine.v1"), "{manifest}");
    assert_eq!(manifest, raw(&format!("docker://{pushed}")));
    assert_eq!(manifest, raw(&format!("docker://{copied}")));

    let words =
        ["--cache", "two", "--offline", "run", "-accel", "qemu", "-mem", "512", "oci-archive:out/minimal.oci.tar"];
    let said = run(&mut sandbox.kiln(words)).ok();
    assert!(said.stdout.contains("hello from a service"), "{}", said.stdout);
    assert!(sandbox.path().join("out/minimal-state").is_dir());
}
