use std::path::Path;

use boon::{Compiler, SchemaIndex, Schemas};

use super::super::check::ConfigFields;
use super::super::node::{self, Node};
use super::super::variables::Variables;
use super::super::{ContainerOptions, Resources};
use super::*;

fn compiled() -> (Schemas, SchemaIndex) {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.enable_format_assertions();
    compiler.add_resource("kiln.json", serde_json::from_str(&schema().unwrap()).unwrap()).unwrap();
    let index = compiler.compile("kiln.json", &mut schemas).unwrap_or_else(|error| panic!("{error}"));
    (schemas, index)
}

fn json(node: &Node) -> Value {
    match &node.value {
        node::Value::Null => Value::Null,
        node::Value::Bool(value) => (*value).into(),
        node::Value::Unsigned(number) => (*number).into(),
        node::Value::Signed(number) => (*number).into(),
        node::Value::Float(number) => (*number).into(),
        node::Value::Text(text) => text.as_str().into(),
        node::Value::List(items) => items.iter().map(json).collect(),
        node::Value::Map(entries) => entries.iter().map(|(key, value)| (key.text.clone(), json(value))).collect(),
    }
}

fn yaml(text: &str) -> Value {
    let read = node::read(text, &Variables::default(), &mut |_| Ok(None));
    json(&read.unwrap_or_else(|(fault, mark)| panic!("{fault} at {mark:?} of\n{text}")))
}

/// All YAML files right below `folder` of the tree.
fn files(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.unwrap().path());
    let yaml = paths.filter(|path| path.extension().is_some_and(|extension| extension == "yml"));
    yaml.map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap())).collect()
}

#[test]
fn wrong_fields_and_kinds_are_refused() {
    let (schemas, index) = compiled();
    for text in [
        "[]",
        "kernal: {}",
        "kernel: [x]",
        "kernel: {imag: x}",
        "init: x",
        "init: [5]",
        "onboot: [{name: x}]",
        "services: [{image: x}]",
        "services: [{name: s, image: x, bind: ['/a:/b']}]",
        "services: [{name: s, image: x, binds: ['/a']}]",
        "services: [{name: s, image: x, capabilities: CAP_CHOWN}]",
        "services: [{name: s, image: x, capabilities: [CAP_FLY]}]",
        "services: [{name: s, image: x, capabilities: [cap_chown]}]",
        "services: [{name: s, image: x, readonly: 'yes'}]",
        "services: [{name: s, image: x, rlimits: ['nofile,1']}]",
        "services: [{name: s, image: x, resources: {memory: {max: 1}}}]",
        "services: [{name: s, image: x, resources: {cpu: {shares: -1}}}]",
        "services: [{name: s, image: x, net: hots}]",
        "services: [{name: s, image: x, runtime: {bindns: {}}}]",
        "services: [{name: s, image: x, devices: [{path: /dev/x, type: q}]}]",
        "services: [{name: s, image: x, devices: [{type: c}]}]",
        "services: [{name: s, image: x, restart: sometimes}]",
        "services: [{name: s, image: x, restart: {limit: 1}}]",
        "services: [{name: s, image: x, ready: {http: /}}]",
        "services: [{name: s, image: x, stopTimeout: soon}]",
        "services: [{name: s, image: x, after: web}]",
        "files: [{contents: a}]",
        "files: [{path: x, mode: 0644}]",
        "files: [{path: x, mode: '0888'}]",
        "files: [{path: x, metadata: toml}]",
        "volumes: [{name: V}]",
        "volumes: [{name: v, format: tar}]",
        "include: x.yml",
        "variables: {A: [x]}",
    ] {
        assert!(schemas.validate(&yaml(text), index).is_err(), "{text}");
    }
}

#[test]
fn what_is_right_passes() {
    let (schemas, index) = compiled();
    let mut all = files("examples");
    for case in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bundle/testdata")).unwrap() {
        let case = case.unwrap();
        if case.path().is_dir() {
            all.extend(files(&format!("build/src/bundle/testdata/{}", case.file_name().display())));
        }
    }
    assert!(all.len() > 15, "only {} files were found", all.len());
    let docs = include_str!("../../../../docs/yaml.md");
    let blocks = docs.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    all.extend(blocks.map(|block| ("docs/yaml.md".to_owned(), block.to_owned())));
    for text in [
        "kernel:\ninit:\nservices:\nfiles:\nvolumes:\ntrust:\nvariables:\ninclude:\n",
        "services: [{name: s, image: x, resources: {blockIO: {leafWeight: 1}, blockio: {leafweight: 1}, memory: }}]",
        "services: [{name: s, image: x, uid: web, gid: 5, restart: no, ready: {file: /x}, stopTimeout: 5, user: 33}]",
        "services: [{name: s, image: x, restart: {policy: always, delay: 1s}, runtime: {bindNS: {net: /x}}}]",
        "variables: {A: 1.10, B: yes, C: true, D: }",
        "trust: {org: [x]}",
    ] {
        all.push(("here".into(), text.into()));
    }
    for (name, text) in all {
        let instance = yaml(&text);
        let checked = schemas.validate(&instance, index).map_err(|error| format!("{error:#}"));
        assert!(checked.is_ok(), "{name}: {}\n{text}", checked.unwrap_err());
    }
}

#[test]
fn the_corpus_of_linuxkit_passes_and_fails_as_it_does_there() {
    let (schemas, index) = compiled();
    let (mut passed, mut failed) = (0, 0);
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance/linuxkit/cases");
    for case in std::fs::read_dir(cases).unwrap() {
        let case = case.unwrap();
        let name = case.file_name().into_string().unwrap();
        let said = std::fs::read_to_string(case.path().join("expected.stdout")).unwrap_or_default();
        let wrong = said.contains("The configuration file is invalid");
        if !name.starts_with('v') && !wrong {
            continue;
        }
        for (file, text) in files(&format!("tests/conformance/linuxkit/cases/{name}")) {
            let instance = yaml(&text);
            if instance.is_null() {
                continue;
            }
            let checked = schemas.validate(&instance, index).map_err(|error| format!("{error:#}"));
            assert_eq!(checked.is_err(), wrong, "{file}: {checked:?}\n{text}");
            *(if wrong { &mut failed } else { &mut passed }) += 1;
        }
    }
    assert!(passed >= 25 && failed >= 5, "{passed} passed, {failed} failed");
}

#[test]
fn every_field_of_the_decoder_is_there_with_its_description() {
    let schema: Value = serde_json::from_str(&schema().unwrap()).unwrap();
    let names = |properties: &Value| -> Vec<String> { properties.as_object().unwrap().keys().cloned().collect() };
    for (fields, object) in [
        (field_names::<ConfigFields>(), &schema),
        (field_names::<ContainerOptions>(), &schema["definitions"]["Container"]),
        (field_names::<Resources>(), &schema["definitions"]["Resources"]),
    ] {
        assert!(fields.len() >= 9, "{fields:?}");
        let known = names(&object["properties"]);
        for field in fields {
            assert!(known.iter().any(|name| name == field), "no `{field}` in {known:?}");
        }
        assert_eq!(known.len(), fields.len(), "{known:?}");
        assert_eq!(object["additionalProperties"], false);
    }
    // What the guest is not asked to know by heart: an editor shows it.
    for (definition, properties) in schema["definitions"].as_object().unwrap() {
        let own = ["Container", "Kernel", "File", "Volume", "Ready", "Runtime", "Restart"];
        if !own.contains(&definition.as_str()) {
            continue;
        }
        for (field, property) in properties["properties"].as_object().unwrap() {
            let described = property["description"].as_str().is_some_and(|text| !text.is_empty());
            assert!(described, "{definition}.{field}: {property}");
        }
    }
}

#[test]
fn the_schema_is_draft_7_and_always_the_same() {
    let text = schema().unwrap();
    assert!(text.contains("\"$schema\": \"http://json-schema.org/draft-07/schema#\""));
    assert!(text.ends_with("}\n") && text == schema().unwrap());
}
