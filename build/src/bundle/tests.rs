use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::{Access, Bundle, Manner, Root, bundles};
use crate::config::{Config, Source, merge, parse};
use crate::oci::{Digest, Image, ImageConfig};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bundle/testdata")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn images() -> BTreeMap<String, Image> {
    let list = |config: &Value, name: &str| -> Vec<String> {
        let words = config[name].as_array().cloned().unwrap_or_default();
        words.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let image = |(name, config): (&String, &Value)| {
        let labels = config["Labels"].as_object().cloned().unwrap_or_default();
        let config = ImageConfig {
            entrypoint: list(config, "Entrypoint"),
            cmd: list(config, "Cmd"),
            env: list(config, "Env"),
            working_dir: config["WorkingDir"].as_str().unwrap_or_default().into(),
            user: config["User"].as_str().unwrap_or_default().into(),
            stop_signal: config["StopSignal"].as_str().unwrap_or_default().into(),
            labels: labels.iter().map(|(key, value)| (key.clone(), value.as_str().unwrap().into())).collect(),
        };
        let reference = format!("docker.io/{name}");
        (name.clone(), Image { reference, manifest: Digest::from_bytes([0; 32]), config, layers: Vec::new() })
    };
    json(&testdata().join("images.json")).as_object().unwrap().iter().map(image).collect()
}

fn config(name: &str, text: &str) -> Config {
    parse(Source { name, text }, &mut |folder| panic!("no package {folder} here")).unwrap_or_else(|e| panic!("{e}"))
}

fn built(config: &Config) -> Result<Vec<Bundle>, String> {
    let images = images();
    let chain = |error: super::BundleError| match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    bundles(config, &Manner::default(), |written| images.get(written)).map_err(chain)
}

#[test]
fn what_cannot_run_is_refused_with_its_place() {
    for (text, expected) in [
        ("services: [{name: s, image: 'no:1'}]", "image `no:1` was not resolved\n --> x.yml:1:29, services[0].image"),
        (
            "services: [{name: s, image: 'golden/plain:1', uid: nobody}]",
            "uid `nobody` of services[0] is no container's",
        ),
        (
            "onboot: [{name: s, image: 'golden/plain:1', gid: '1000'}]",
            "gid `1000` of onboot[0] is no container's name; for a",
        ),
        ("services: [{name: s, image: 'golden/plain:1', additionalGids: [x]}]", "additionalGids `x` of services[0]"),
        ("services: [{name: s, image: 'golden/plain:1', binds: ['v:/v']}]", "services[0] uses volume `v`, which"),
        (
            "services: [{name: s, image: 'golden/plain:1', mounts: [{type: bind, source: v, destination: /v}]}]",
            "services[0] uses volume `v`, which",
        ),
        (
            "volumes: [{name: v, readonly: true}]\nservices: [{name: s, image: 'golden/plain:1', binds: ['v:/v']}]",
            "services[0] would write to volume `v`, which is read-only",
        ),
        (
            "volumes: [{name: v, readonly: true}]\n\
             services: [{name: s, image: 'golden/plain:1', mounts: [{type: bind, source: v, destination: /v, options: [rw]}]}]",
            "services[0] would write to volume `v`, which is read-only",
        ),
        (
            "services: [{name: s, image: 'golden/label-unknown:1'}]",
            "cannot use the defaults of image `golden/label-unknown:1`: unknown field `nosuchfield`",
        ),
        ("services: [{name: s, image: 'golden/label-name:1'}]", "field `name` cannot be set in a label"),
        ("services: [{name: s, image: 'golden/label-badtype:1'}]", "expected a list, found the text `CAP_CHOWN`"),
        ("services: [{name: s, image: 'golden/label-array:1'}]", "expected a mapping, found a list"),
        (
            "services: [{name: s, image: 'golden/label-notyaml:1'}]",
            "label org.mobyproject.config of golden/label-notyaml:1:1:",
        ),
        ("services: [{name: s, image: 'golden/label-yaml:1'}]", "uid `svc-a` of services[0] is no container's name"),
    ] {
        let error = built(&config("x.yml", text)).expect_err(text);
        assert!(error.contains(expected), "{text}\n{error}");
    }
}

#[test]
fn each_recorded_case_gives_the_same_documents() {
    let mut cases = 0;
    for entry in std::fs::read_dir(testdata()).unwrap() {
        let case = entry.unwrap().path();
        if !case.is_dir() {
            continue;
        }
        cases += 1;
        let files = (0..).map(|n| case.join(format!("{n}.yml"))).take_while(|file| file.exists());
        let parts = files.map(|file| config(&file.display().to_string(), &std::fs::read_to_string(&file).unwrap()));
        let bundles = built(&merge(parts).unwrap()).unwrap();
        let expected = json(&case.join("expected.json"));
        assert_eq!(bundles.len(), expected.as_object().unwrap().len(), "{}", case.display());
        for bundle in bundles {
            let documents = [("config", &bundle.config_json), ("runtime", &bundle.runtime_json)];
            for (name, document) in documents {
                let found: Value = serde_json::from_slice(document).unwrap();
                assert_eq!(found, expected[&bundle.dir][name], "{name} of {} in {}", bundle.dir, case.display());
            }
        }
    }
    assert!(cases >= 11, "only {cases} cases were found");
}

#[test]
fn the_second_container_of_an_image_shares_the_first_ones_tree() {
    let text = "onboot:\n  - {name: a, image: 'golden/base:1', readonly: true}\n  - {name: b, image: 'golden/base:1'}\n\
                services:\n  - {name: c, image: 'golden/plain:1'}\n  - {name: d, image: 'golden/plain:1', readonly: true}\n";
    let found: Vec<_> = built(&config("x.yml", text)).unwrap().into_iter().map(|b| (b.dir, b.root, b.access)).collect();
    let own = |tree: &str| Root::Own { tree: tree.into() };
    let shared = |tree: &str| Root::Shared { tree: tree.into() };
    let expected = [
        ("containers/onboot/000-a", own("containers/onboot/000-a/rootfs"), Access::ReadOnly),
        ("containers/onboot/001-b", shared("containers/onboot/000-a/rootfs"), Access::Writable),
        ("containers/services/c", own("containers/services/c/lower"), Access::Writable),
        ("containers/services/d", shared("containers/services/c/lower"), Access::ReadOnly),
    ];
    assert_eq!(found, expected.map(|(dir, root, access)| (dir.to_owned(), root, access)));
}

#[test]
fn a_volume_is_bound_by_its_name() {
    let text = "volumes: [{name: v, readonly: true}, {name: w}]\n\
                services:\n  - name: s\n    image: golden/plain:1\n    binds: ['v:/v:ro,nosuid', 'w:/w']\n    \
                mounts: [{type: bind, source: w, destination: /m, options: [rbind]}]\n";
    let bundle = built(&config("x.yml", text)).unwrap().remove(0);
    let found: Value = serde_json::from_slice(&bundle.config_json).unwrap();
    let source = |destination: &str| {
        let mounts = found["mounts"].as_array().unwrap();
        mounts.iter().find(|mount| mount["destination"] == destination).unwrap()["source"].clone()
    };
    assert_eq!(source("/v"), "/containers/volumes/v/merged");
    assert_eq!(source("/w"), "/containers/volumes/w/merged");
    assert_eq!(source("/m"), "/containers/volumes/w/merged");
}

#[test]
fn a_label_may_name_the_container_that_uses_it() {
    let text = "services: [{name: other, image: 'golden/plain:1'}, {name: svc-a, image: 'golden/label-yaml:1'}]";
    let bundle = built(&config("x.yml", text)).unwrap().remove(1);
    let found: Value = serde_json::from_slice(&bundle.config_json).unwrap();
    assert_eq!(found["process"]["user"]["uid"], 101);
    assert_eq!(found["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 41);
    assert_eq!(bundle.access, Access::ReadOnly);
}

#[test]
fn how_a_service_runs_reaches_the_guest_as_annotations() {
    let text = "services:\n- name: db\n  image: golden/plain:1\n- name: web\n  image: golden/plain:1\n  after: [db]\n  \
                annotations: {own: note, org.kiln.stop-timeout: 1s}\n  ready: {tcp: '127.0.0.1:80', interval: 1}\n  \
                restart: {policy: always, limit: 3, delay: 1s}\n  stopSignal: quit\n  stopTimeout: 2m\n";
    let bundles = built(&config("x.yml", text)).unwrap();
    let annotations = |bundle: &Bundle| {
        let document: Value = serde_json::from_slice(&bundle.config_json).unwrap();
        serde_json::from_value::<BTreeMap<String, String>>(document["annotations"].clone()).unwrap_or_default()
    };
    assert_eq!(annotations(&bundles[0]), BTreeMap::new());
    let own = annotations(&bundles[1]);
    assert_eq!(own["own"], "note");
    let conditions = kiln_abi::StartConditions::from_annotations(&own).unwrap();
    assert_eq!(conditions.after, ["db"]);
    let ready = conditions.ready.unwrap();
    assert_eq!(ready.check, kiln_abi::ReadyCheck::tcp("127.0.0.1:80").unwrap());
    assert_eq!(ready.interval, Duration::from_secs(1));
    let policy = kiln_abi::ServicePolicy::from_annotations(&own).unwrap();
    assert_eq!((policy.restart, policy.restart_limit), (kiln_abi::RestartPolicy::Always, Some(3)));
    assert_eq!(policy.restart_delay, Duration::from_secs(1));
    assert_eq!(policy.stop_signal.to_string(), "SIGQUIT");
    assert_eq!(policy.stop_timeout, Duration::from_secs(120));
}

#[test]
fn the_images_stop_signal_counts_when_it_is_asked_for() {
    let text = "services: [{name: s, image: 'golden/plain:1', stopSignal: image}, {name: t, image: 'golden/plain:1'}]";
    let built = |signal: &str| {
        let mut images = images();
        images.get_mut("golden/plain:1").unwrap().config.stop_signal = signal.into();
        bundles(&config("x.yml", text), &Manner::default(), |written| images.get(written))
    };
    let error = built("SIGNONE").unwrap_err().to_string();
    assert!(error.contains("names the stop signal `SIGNONE`, which is none"), "{error}");
    for (signal, expected) in [("", Value::Null), ("37", "SIGRTMIN+3".into())] {
        let bundles = built(signal).unwrap();
        let found: Vec<Value> = bundles
            .iter()
            .map(|bundle| {
                let document: Value = serde_json::from_slice(&bundle.config_json).unwrap();
                document["annotations"]["org.kiln.stop-signal"].clone()
            })
            .collect();
        assert_eq!(found, [expected, Value::Null]);
    }
}
