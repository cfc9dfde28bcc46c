//! `kiln inspect` on what is really built, and on what is no image.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::images;
use crate::harness::kiln::{Sandbox, run};
use crate::harness::tree;

#[test]
fn what_is_no_image_is_refused_by_name() {
    let sandbox = Sandbox::new();
    sandbox.write("text", "no archive at all");
    for (name, text) in [("none", "`none-initrd.img`"), ("text", "`text`"), (".", "`.")] {
        let said = run(&mut sandbox.kiln(["inspect", "-svg", "x.svg", name]));
        assert_eq!(said.code(), 1, "{name}");
        assert!(said.stderr.contains(text) && said.stdout.is_empty(), "{name}: {}", said.stderr);
    }
    assert_eq!(sandbox.files(), ["text"], "no picture of nothing");
}

#[test]
fn an_initrd_is_told_by_image_package_and_folder() {
    let built = images::minimal();
    let sandbox = Sandbox::new();
    let name = built.path().join("minimal");
    let said = run(sandbox.kiln(["inspect", "-json", "-svg", "map.svg"]).arg(&name)).ok();
    let told: Value = serde_json::from_str(&said.stdout).unwrap();
    let contents = &told["contents"];
    let sum =
        |list: &str| contents[list].as_array().unwrap().iter().map(|part| part["bytes"].as_u64().unwrap()).sum::<u64>();
    let total = contents["bytes"].as_u64().unwrap();
    assert_eq!(sum("sections"), total);
    assert_eq!(sum("packages") + contents["bytes_without_package"].as_u64().unwrap(), total);
    assert_eq!(told["on_disk"].as_array().unwrap().len(), 2, "initrd and kernel");
    let section = |name: &str| contents["sections"].as_array().unwrap().iter().find(|section| section["name"] == name);
    assert!(section("kernel").unwrap()["images"][0].as_str().unwrap().contains("kernel"), "{contents}");
    assert!(!section("init").unwrap()["images"].as_array().unwrap().is_empty());
    let picture = fs::read_to_string(sandbox.path().join("map.svg")).unwrap();
    assert!(picture.starts_with("<svg ") && picture.contains("busybox") && picture.ends_with("</svg>\n"));
    assert_eq!(sandbox.files(), ["map.svg"]);

    let said = run(sandbox.kiln(["inspect"]).arg(&name)).ok();
    for wanted in ["by image", "by folder", "largest files", "boot/kernel"] {
        assert!(said.stdout.contains(wanted), "no `{wanted}` in:\n{}", said.stdout);
    }
}

#[test]
fn a_tar_and_its_initrd_hold_the_same_packages() {
    let sandbox = Sandbox::new();
    run(Command::new("cp")
        .arg("-r")
        .arg(tree().join("tests/conformance/linuxkit/images"))
        .arg(sandbox.path().join("store")))
    .ok();
    sandbox.write(
        "it.yml",
        "init: ['golden/sbom:1']\nfiles:\n  - {path: etc/motd, contents: hello}\n  \
         - {path: var/lib/dpkg/info/greeting.list, contents: \"/.\\n/etc\\n/etc/motd\\n\"}\n",
    );
    let words = ["build", "-timings=json", "-format", "tar,kernel+initrd", "-cache", "store", "it.yml"];
    let said = run(&mut sandbox.kiln(words)).ok();
    let timings = said.stderr.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{}", said.stderr));
    let timings: Value = serde_json::from_str(timings).unwrap();
    assert!(timings["total"]["wall_s"].as_f64().unwrap() > 0.0);
    let expected = json!([{"system": "deb", "name": "greeting", "root": "", "bytes": 5, "files": 1}]);
    for name in ["it", "it.tar"] {
        let said = run(&mut sandbox.kiln(["inspect", "-json", name])).ok();
        let told: Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!(told["contents"]["packages"], expected, "{name}");
    }
}
