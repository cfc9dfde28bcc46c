//! The software bill of materials of what is really built: from attestations in a registry, from Debian's databases.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::images;
use crate::harness::kiln::{Sandbox, run};
use crate::harness::registry::{Registry, skopeo};
use crate::harness::tree;

fn of_tar(tar: &Path) -> Value {
    let said = run(Command::new("tar").arg("-xOf").arg(tar).arg("sbom.spdx.json")).ok();
    serde_json::from_str(&said.stdout).unwrap()
}

fn names<'a>(bill: &'a Value, list: &str, key: &str) -> Vec<&'a str> {
    bill[list].as_array().unwrap().iter().map(|element| element[key].as_str().unwrap()).collect()
}

#[test]
fn what_was_attested_in_a_registry_is_in_the_bill_also_without_the_registry() {
    let registry = Registry::start();
    let sandbox = Sandbox::new();
    let layout = tree().join("tests/conformance/linuxkit/images");
    let from = format!("oci:{}:docker.io/golden/sbom:1", layout.display());
    let to = format!("docker://{}/sbom:1", registry.host);
    skopeo(&["copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false", &from, &to]).ok();
    sandbox.write("a.yml", format!("init:\n  - {}/sbom:1\n", registry.host));
    let build = |name: &str| {
        run(&mut sandbox.kiln(["build", "-format", "tar", "-name", name, "-cache", "store", "a.yml"])).ok();
        of_tar(&sandbox.path().join(name).with_extension("tar"))
    };
    let bill = build("online");
    assert_eq!(names(&bill, "packages", "name"), [&format!("{}/sbom:1", registry.host), "app"]);
    assert_eq!(names(&bill, "files", "fileName"), ["app"]);
    drop(registry);
    assert_eq!(build("offline"), bill);
}

#[test]
fn debian_packages_of_native_images_are_in_the_bill_and_the_kernel_too() {
    let sandbox = Sandbox::new();
    let yaml = tree().join("examples/minimal.yml");
    run(sandbox.kiln(["build", "-format", "tar", "-name", "it", "--cache"]).arg(images::store()).arg(yaml)).ok();
    let bill = of_tar(&sandbox.path().join("it.tar"));
    let listed = names(&bill, "packages", "name");
    for wanted in ["busybox-static", "linux-image-"] {
        assert!(listed.iter().any(|name| name.starts_with(wanted)), "no {wanted} in {listed:?}");
    }
    let urls: Vec<_> = bill["packages"].as_array().unwrap().iter().map(|package| &package["externalRefs"][0]).collect();
    let is_purl = |url: &&Value| url["referenceLocator"].as_str().unwrap().starts_with("pkg:");
    assert!(urls.iter().all(is_purl), "{urls:?}");
}
