use super::*;
use crate::config::{FileContent, Id, MetadataFormat};

/// Files by name; the first is read, with these values from outside. The package `p` is known.
fn read_files(files: &[(&str, &str)], set: &[(&str, &str)], env: &[(&str, &str)]) -> Result<ReadConfig, ConfigError> {
    let source = |(name, text): &(&str, &str)| YamlSource {
        name: (*name).into(),
        text: (*text).into(),
        folder: Path::new(name).parent().map(Path::to_owned),
    };
    let include = |from: &YamlSource, written: &str| {
        let path = from.folder.clone().unwrap_or_default().join(written);
        let found = files.iter().find(|(name, _)| Path::new(name) == Path::new(&identity(&path.to_string_lossy())));
        let mut found = found.map(source).ok_or("no such file")?;
        found.name = path.to_string_lossy().into_owned();
        Ok(found)
    };
    let packages = |from: &YamlSource, folder: &str| match folder {
        "p" => Ok(format!("local/p-of-{}:1", from.name)),
        _ => Err("no such package".into()),
    };
    let environment = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let set = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = ReadOptions {
        packages: Some(&packages),
        include: Some(&include),
        set,
        environment: Some(&environment),
        ..ReadOptions::default()
    };
    read(&[source(&files[0])], &options)
}

#[track_caller]
fn check_refused(files: &[(&str, &str)], position: &str, expected: &str) {
    let error = read_files(files, &[], &[]).expect_err(expected);
    let found = format!("{}, {}", error.place, error.place.field());
    assert!(error.fault.to_string().starts_with(expected), "{error}");
    assert_eq!(found, position, "{error}");
}

#[test]
fn variables_are_checked_where_they_stand() {
    for (text, position, expected) in [
        ("variables: [a]", "x.yml:1:1, variables", "`variables` is a mapping of names to default values"),
        ("variables: x", "x.yml:1:1, variables", "`variables` is a mapping"),
        ("variables: {A: [x]}", "x.yml:1:16, variables", "a variable's default is text, or nothing"),
        ("variables: {a-b: x}", "x.yml:1:13, variables", "`a-b` cannot be a variable's name"),
        ("variables: {9: x}", "x.yml:1:13, variables", "`9` cannot be a variable's name"),
        ("variables: {A: }\ninit: ['x:${A}']", "x.yml:2:8, ", "variable `A` has no value; give one with --set A=VALUE"),
        ("variables: {A: ''}\ninit: ['x:${A:?name the tag}']", "x.yml:2:8, ", "variable `A`: name the tag"),
        ("variables: {A: a b}\ninit: ['x:${A}']", "x.yml:2:8, init[0]", "`x:a b` is no image reference"),
        (
            "variables: {A: x}\ninit: ['x:${B}']",
            "x.yml:2:8, init[0]",
            "`x:${B}` is no image reference; write NAME[:TAG][@DIGEST]; a variable must be",
        ),
        ("init: ['x:${B}']", "x.yml:1:8, init[0]", "`x:${B}` is no image reference"),
        (
            "variables: {A: x}\nservices: [{name: s, image: x, uid: '${A}', gid: []}]",
            "x.yml:2:50, services[0].gid",
            "expected a number",
        ),
    ] {
        check_refused(&[("x.yml", text)], position, expected);
    }
}

#[test]
fn only_what_is_declared_is_replaced() {
    let text = "
variables:
  TAG: 1.10
  ID: 7
  EMPTY: ''
  NONE:
  DIR: '@pkg:p'
init: ['a:${TAG}', \"b:${NONE:-2}\", '${DIR}']
services:
  - name: s
    image: c:${EMPTY:-3}
    uid: ${ID}
    hostname: '${ID}'
    command: [sh, -c, 'echo $TAG ${OTHER:-x} ${TAG%.*} $(id) $$ $${TAG} ${TAG:+y} ${TAG ${ ${TAG}']
    env: ['A=${EMPTY}', 'B=$${NONE:-x}']
files:
  - {path: f, contents: \"${UNKNOWN} ${TAG:-unused}\"}
";
    let config = read_files(&[("x.yml", text)], &[], &[]).unwrap().config;
    let images: Vec<&str> = config.init.iter().map(|entry| entry.image.as_str()).collect();
    assert_eq!(images, ["a:1.10", "b:2", "local/p-of-x.yml:1"]);
    let service = &config.services[0];
    assert_eq!((service.image.as_str(), &service.options.uid), ("c:3", &Some(Id::Number(7))));
    assert_eq!(service.options.hostname.as_deref(), Some("7"));
    let command = service.options.command.as_ref().unwrap();
    assert_eq!(command[2], "echo $TAG ${OTHER:-x} ${TAG%.*} $(id) $$ ${TAG} ${TAG:+y} ${TAG ${ 1.10");
    assert_eq!(service.options.env.as_ref().unwrap()[..], ["A=", "B=${NONE:-x}"]);
    assert_eq!(config.files[0].content, FileContent::Contents("${UNKNOWN} 1.10".into()));

    // Without the section nothing changes at all.
    let plain = "services: [{name: s, image: x, command: ['${TAG}', '$${TAG:-x}']}]";
    let config = read_files(&[("x.yml", plain)], &[], &[("TAG", "no")]).unwrap().config;
    assert_eq!(config.services[0].options.command.as_ref().unwrap()[..], ["${TAG}", "$${TAG:-x}"]);
}

#[test]
fn values_come_from_the_flag_then_the_environment_then_the_including_file_then_the_default() {
    let files = [
        ("x.yml", "include: [y.yml]\nvariables: {A: xa, B: xb, C: xc}"),
        ("y.yml", "variables: {A: ya, B: yb, C: yc, D: yd}\ninit: ['${A}', '${B}', '${C}', '${D}']"),
    ];
    let read = read_files(&files, &[("A", "set")], &[("A", "env"), ("B", "env")]).unwrap();
    let images: Vec<&str> = read.config.init.iter().map(|entry| entry.image.as_str()).collect();
    assert_eq!(images, ["set", "env", "xc", "yd"]);
    let set = |name: &str| BTreeMap::from([(name.to_owned(), String::new())]);
    read.check_set(&set("D")).unwrap();
    let error = read.check_set(&set("E")).unwrap_err().to_string();
    assert_eq!(error, "no file has `E` under `variables`; there are A, B, C, D");
}

#[test]
fn a_value_that_grows_without_end_is_refused() {
    let text = format!("variables: {{A: '{}'}}\nkernel: {{cmdline: '{}'}}", "x".repeat(100_000), "${A}".repeat(1000));
    check_refused(&[("x.yml", &text)], "x.yml:2:19, ", "more than 16777216 bytes of one value");
    let line = format!("- '{}'\n", "${A}".repeat(100));
    let text = format!("variables: {{A: '{}'}}\ninit:\n{}", "x".repeat(100_000), line.repeat(4));
    check_refused(&[("x.yml", &text)], "x.yml:6:3, ", "more than 33554432 bytes");
}

#[test]
fn what_is_included_comes_first_and_names_its_own_file_in_messages() {
    let files = [
        ("dir/x.yml", "include: [sub/a.yml, ../b.yml]\ninit: [x]\nkernel: {cmdline: x}\nvolumes: [{name: v}]"),
        ("dir/sub/a.yml", "init: [a, '@pkg:p']\nkernel: {image: k, cmdline: a}"),
        ("b.yml", "include: [dir/c.yml]\ninit: [b]"),
        ("dir/c.yml", "init: [c]\nservices: [{name: s, image: s, binds: ['v:/v']}]"),
    ];
    let config = read_files(&files, &[], &[]).unwrap().config;
    let images: Vec<&str> = config.init.iter().map(|entry| entry.image.as_str()).collect();
    assert_eq!(images, ["a", "local/p-of-dir/sub/a.yml:1", "c", "b", "x"]);
    assert_eq!((config.kernel.image.as_deref(), config.kernel.cmdline.as_deref()), (Some("k"), Some("x")));
    let written = config.metadata(MetadataFormat::Yaml, str::to_owned).unwrap();
    assert_eq!(read_files(&[("y.yml", &written)], &[], &[]).unwrap().config.init.len(), 5, "{written}");

    check_refused(&[("x.yml", "include: [y.yml]"), ("y.yml", "init: [5]")], "y.yml:1:8, init[0]", "expected text");
    check_refused(
        &[("x.yml", "include: [y.yml]\nvolumes: [{name: v}]"), ("y.yml", "volumes: [{name: v}]")],
        "x.yml:2:18, volumes[0].name",
        "duplicate volume `v`; the first one is at y.yml:1:18",
    );
}

#[test]
fn includes_that_lead_nowhere_or_back_are_refused() {
    check_refused(&[("x.yml", "init: []\ninclude: [y.yml]")], "x.yml:2:11, include[0]", "cannot include `y.yml`");
    check_refused(&[("x.yml", "include: y.yml")], "x.yml:1:10, include", "expected a list");
    check_refused(
        &[("x.yml", "include: [x.yml]")],
        "x.yml:1:11, include[0]",
        "files include each other: x.yml includes x.yml",
    );
    check_refused(
        &[
            ("x.yml", "include: [d/y.yml]"),
            ("d/y.yml", "init: [a]\ninclude: [z.yml]"),
            ("d/z.yml", "include: [../d/y.yml]"),
        ],
        "d/z.yml:1:11, include[0]",
        "files include each other: d/y.yml includes d/z.yml includes d/y.yml",
    );
    let names: Vec<(String, String)> =
        (0..20).map(|n| (format!("{n}.yml"), format!("include: [{}.yml]", n + 1))).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    check_refused(&files, "15.yml:1:11, include[0]", "files include each other deeper than 16 levels");
    // Each twice the next: without a limit that is 65,536 files.
    let names: Vec<(String, String)> =
        (0..15).map(|n| (format!("{n}.yml"), format!("include: [{0}.yml, ./{0}.yml]", n + 1))).collect();
    let mut files: Vec<(&str, &str)> = names.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    files.push(("15.yml", "init: []"));
    let error = read_files(&files, &[], &[]).unwrap_err().to_string();
    assert!(error.starts_with("more than 256 files"), "{error}");
}
