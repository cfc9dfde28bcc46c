use std::collections::BTreeSet;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::*;
use crate::progress::{Meter, Silent};
use crate::tree::{Attributes, Kind};

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Progress for Notes {
    fn begin(&self, _what: &str, _total_bytes: Option<u64>) -> Box<dyn Meter> {
        Box::new(Silent)
    }

    fn note(&self, line: &str) {
        self.0.lock().unwrap().push(line.into());
    }
}

fn tree(files: &[(&str, &[u8])]) -> Tree {
    let mut tree = Tree::new(0);
    for (path, content) in files {
        let kind = match content.strip_prefix(b"->") {
            Some(target) => Kind::Symlink(target.into()),
            None => Kind::file(content),
        };
        tree.put(&TreePath::from_user(path).unwrap(), Attributes::of_root(0o644, 0), kind).unwrap();
    }
    tree
}

fn placed<'a>(role: &'a str, folder: &'a str) -> Placed<'a> {
    Placed { reference: "docker.io/library/a:1", manifest: Digest::from_bytes([7; 32]), role, folder }
}

fn bill(fill: impl FnOnce(&mut Bill)) -> Value {
    let mut bill = Bill::new(0, "amd64");
    fill(&mut bill);
    let document: Value = serde_json::from_slice(&bill.finish()).unwrap();
    check_references(&document);
    document
}

/// Every identifier is there once, and every relationship leads to one.
fn check_references(document: &Value) {
    let elements = ["packages", "files"].iter().filter_map(|key| document.get(key)?.as_array()).flatten();
    let ids: Vec<&str> = elements.map(|element| element["SPDXID"].as_str().unwrap()).collect();
    let mut known = BTreeSet::from(["SPDXRef-DOCUMENT", "NONE", "NOASSERTION"]);
    for id in ids {
        assert!(known.insert(id), "{id} is there twice");
    }
    for relationship in document["relationships"].as_array().unwrap() {
        for end in ["spdxElementId", "relatedSpdxElement"] {
            assert!(known.contains(relationship[end].as_str().unwrap()), "{relationship}");
        }
    }
}

fn names(document: &Value) -> Vec<String> {
    let name =
        |package: &Value| format!("{} {}", package["SPDXID"].as_str().unwrap(), package["name"].as_str().unwrap());
    document["packages"].as_array().unwrap().iter().map(name).collect()
}

const DPKG: &[u8] = b"Package: libc6\nVersion: 2.36-9\nArchitecture: amd64\nMaintainer: A (x) <a@b>\n";
const APK: &[u8] = b"P:busybox\nV:1.36.1-r15\nA:x86_64\nL:GPL-2.0-only\n\nP:odd\nV:1\nL:public domain\n";

#[test]
fn a_hostile_database_is_left_out_and_named() {
    let mut large = tree(&[]);
    let folder = tempfile::tempdir().unwrap();
    let spool = std::sync::Arc::new(crate::tree::Spool::create(folder.path()).unwrap());
    spool.file().set_len(1 << 40).unwrap();
    let body = crate::tree::Body::Spooled { spool, start: 0, len: 1 << 40 };
    let path = TreePath::from_user("var/lib/dpkg/status").unwrap();
    large.put(&path, Attributes::default(), Kind::File(body)).unwrap();
    let many = b"P:a\nV:1\n\n".repeat(100_001);
    for (tree, packages, fault) in [
        (large, 0, "`var/lib/dpkg/status` has 1099511627776 bytes"),
        (tree(&[("var/lib/dpkg/status", b"\xff\xfe\n\nPackage: x\n\n: :\n")]), 0, "3 entries of `var/lib/dpkg/status`"),
        (tree(&[("var/lib/dpkg/status.d/a\x1b", b"x")]), 0, "1 entries of `var/lib/dpkg/status.d/a\u{fffd}`"),
        (tree(&[("lib/apk/db/installed", &many)]), 1, "more than 100000 packages"),
        (tree(&[("lib/apk/db/installed", b"->installed"), ("etc/os-release", b"->os-release")]), 0, ""),
        (tree(&[("lib", b"->usr/../lib"), ("var/lib/dpkg/status.d", b"a file")]), 0, ""),
    ] {
        let found = look(&tree);
        let faults: String = found.faults.iter().map(ToString::to_string).collect();
        assert!(faults.contains(fault) && faults.is_empty() == fault.is_empty(), "{fault}: {faults}");
        assert_eq!(found.packages.len(), packages, "{fault}");
        let notes = Notes::default();
        bill(|bill| bill.add_found(&placed("init[0]", ""), &found, &notes));
        assert_eq!(notes.0.lock().unwrap().len(), found.faults.len());
    }
}

#[test]
fn databases_become_packages_with_urls_and_licences() {
    let files = tree(&[
        ("var/lib/dpkg/status", DPKG),
        ("var/lib/dpkg/status.d/libc6", DPKG),
        ("var/lib/dpkg/status.d/libc6.md5sums", b"0 x"),
        ("lib", b"->usr/lib"),
        ("usr/lib/apk/db/installed", APK),
        ("etc/os-release", b"->../usr/lib/os-release"),
        ("usr/lib/os-release", b"NAME=x\nID=debian\nVERSION_ID=\"12\"\n"),
    ]);
    let document =
        bill(|bill| bill.add_found(&placed("services[0]", "containers/services/a/lower"), &look(&files), &Silent));
    assert_eq!(
        names(&document),
        [
            "SPDXRef-Image-services-0 docker.io/library/a:1",
            "SPDXRef-apk-busybox busybox",
            "SPDXRef-apk-odd odd",
            "SPDXRef-deb-libc6 libc6"
        ]
    );
    let [image, busybox, odd, libc] = document["packages"].as_array().unwrap().as_slice() else { panic!("four") };
    assert!(image["externalRefs"][0]["referenceLocator"].as_str().unwrap().starts_with("pkg:oci/a@sha256%3A0707"));
    assert_eq!(busybox["licenseDeclared"], "GPL-2.0-only");
    assert_eq!(odd["licenseDeclared"], document["hasExtractedLicensingInfos"][0]["licenseId"]);
    assert_eq!(document["hasExtractedLicensingInfos"][0]["extractedText"], "public domain");
    assert_eq!(libc["externalRefs"][0]["referenceLocator"], "pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12");
    assert_eq!(libc["supplier"], "Person: A x (a@b)");
    assert_eq!(libc["sourceInfo"], "listed in containers/services/a/lower/var/lib/dpkg/status");
    let contains =
        json!({"spdxElementId": image["SPDXID"], "relatedSpdxElement": libc["SPDXID"], "relationshipType": "CONTAINS"});
    assert!(document["relationships"].as_array().unwrap().contains(&contains));
}

fn statement(predicate: &Value) -> Attested {
    Attested::parse(
        json!({"predicateType": "https://spdx.dev/Document", "predicate": predicate}).to_string().as_bytes(),
    )
    .unwrap()
}

#[test]
fn a_statement_without_packages_is_refused() {
    for text in [
        "",
        "{}",
        "[]",
        r#"{"predicate":{}}"#,
        r#"{"predicate":{"packages":[{"name":7}]}}"#,
        r#"{"predicate":{"packages":7}}"#,
    ] {
        assert!(Attested::parse(text.as_bytes()).is_err(), "{text}");
    }
    let deep = format!(r#"{{"predicate":{}"#, "[".repeat(1 << 20));
    assert!(Attested::parse(deep.as_bytes()).is_err());
}

#[test]
fn what_was_stated_is_taken_over_with_identifiers_of_its_own() {
    let list = statement(&json!({
        "packages": [
            {"name": "app", "SPDXID": "SPDXRef-Package-app", "versionInfo": "1.0", "packageFileName": "app-1.0.apk",
             "licenseDeclared": "MIT AND LicenseRef-x", "filesAnalyzed": false, "unknown": {"a": [1]}, "hasFiles": ["SPDXRef-f"]},
            {"name": "same", "SPDXID": "SPDXRef-Package-app"},
            {"name": "odd", "SPDXID": "§"},
        ],
        "files": [{"fileName": "/app", "SPDXID": "SPDXRef-f", "checksums": []}],
        "hasExtractedLicensingInfos": [{"licenseId": "LicenseRef-x", "extractedText": "do what you like"}],
        "relationships": [
            {"spdxElementId": "SPDXRef-DOCUMENT", "relatedSpdxElement": "SPDXRef-Package-app", "relationshipType": "DESCRIBES"},
            {"spdxElementId": "SPDXRef-nowhere", "relatedSpdxElement": "SPDXRef-Package-app", "relationshipType": "CONTAINS"},
            {"spdxElementId": "SPDXRef-f", "relatedSpdxElement": "NOASSERTION", "relationshipType": "OTHER", "comment": "c"},
        ]
    }));
    let document = bill(|bill| {
        bill.add_attested(&placed("init[0]", ""), std::slice::from_ref(&list), &Silent);
        bill.add_attested(&placed("services[0]", "containers/services/s/lower"), std::slice::from_ref(&list), &Silent);
    });
    assert_eq!(
        names(&document)[..5],
        [
            "SPDXRef-Image-init-0 docker.io/library/a:1",
            "SPDXRef-Package-app app",
            "SPDXRef-Package-app-2 same",
            "SPDXRef-x odd",
            "SPDXRef-Image-services-0 docker.io/library/a:1"
        ]
    );
    let files: Vec<&Value> = document["files"].as_array().unwrap().iter().map(|file| &file["fileName"]).collect();
    assert_eq!(files, ["app", "containers/services/s/lower/app"]);
    let app = &document["packages"][5];
    assert_eq!(app["packageFileName"], "containers/services/s/lower/app-1.0.apk");
    let licence = document["hasExtractedLicensingInfos"][0]["licenseId"].as_str().unwrap();
    assert_eq!(app["licenseDeclared"], format!("MIT AND {licence}"));
    assert!(app.get("unknown").is_none() && app.get("hasFiles").is_none());
    assert_eq!(document["hasExtractedLicensingInfos"].as_array().unwrap().len(), 1);
    // Per image: itself, what it contains, what was stated, the file that a package has.
    assert_eq!(document["relationships"].as_array().unwrap().len(), 2 * (1 + 1 + 2 + 1));
}

#[test]
fn too_many_elements_are_left_out_and_told_once() {
    let package = json!({"name": "a", "SPDXID": "SPDXRef-a"});
    let list = statement(&json!({"packages": vec![package; ELEMENTS_MAX / 2]}));
    let notes = Notes::default();
    let document = bill(|bill| {
        for role in ["init[0]", "init[1]", "init[2]"] {
            bill.add_attested(&placed(role, ""), std::slice::from_ref(&list), &notes);
        }
    });
    assert!(document["packages"].as_array().unwrap().len() <= ELEMENTS_MAX);
    assert_eq!(notes.0.lock().unwrap().len(), 1);
}

#[test]
fn the_name_of_a_document_is_made_of_its_content() {
    let found = look(&tree(&[("lib/apk/db/installed", APK)]));
    let namespace = |role: &str, created_s: i64| {
        let mut bill = Bill::new(created_s, "amd64");
        bill.add_found(&placed(role, ""), &found, &Silent);
        let bytes = bill.finish();
        let document: Value = serde_json::from_slice(&bytes).unwrap();
        document["documentNamespace"].as_str().unwrap().to_owned()
    };
    assert_eq!(namespace("init[0]", 1), namespace("init[0]", 1));
    assert_ne!(namespace("init[0]", 1), namespace("init[0]", 2));
    assert_ne!(namespace("init[0]", 1), namespace("init[1]", 1));
    let uuid = namespace("init[0]", 1).rsplit_once("sbom-").unwrap().1.to_owned();
    assert_eq!((uuid.len(), &uuid[14..15]), (36, "8"));
}
