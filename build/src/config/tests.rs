use super::{Config, ConfigError, Fault, FileContent, Id, MetadataFormat, Role, Source, merge, parse, parse_label};

pub(super) fn read(text: &str) -> Result<Config, ConfigError> {
    let mut packages = |folder: &str| match folder {
        "gone" => Err("no such folder".into()),
        folder => Ok(format!("local/{folder}:1")),
    };
    parse(Source { name: "x.yml", text }, &mut packages)
}

pub(super) fn good(text: &str) -> Config {
    read(text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

/// Each text must be refused at `LINE:COLUMN, FIELD` with words that `expected` begins.
#[track_caller]
pub(super) fn check_refused(cases: &[(&str, &str, &str)]) {
    for (text, position, expected) in cases {
        let error = match read(text) {
            Ok(config) => panic!("accepted: {text}\n{config:?}"),
            Err(error) => error,
        };
        let place = &error.place;
        let separator = if place.field().is_empty() { "" } else { ", " };
        let found = format!("{}:{}{separator}{}", place.line(), place.column(), place.field());
        assert_eq!(&found, position, "{text}\n{error}");
        assert!(error.fault.to_string().starts_with(expected), "{text}\n{error}");
    }
}

#[test]
fn what_is_no_yaml_is_refused_where_it_breaks() {
    check_refused(&[
        ("", "1:1", "the configuration is empty"),
        ("# only a comment\n", "1:1", "the configuration is empty"),
        ("---\n", "1:1", "the configuration is empty"),
        ("kernel: [\n", "1:10", "not valid YAML: "),
        ("kernel: {image: 'x}\n", "1:17", "not valid YAML: "),
        ("services:\n\t- name: a\n", "2:1", "a tab cannot indent YAML"),
        ("services:\n  - name: a\n  \timage: b\n", "3:3", "a tab cannot indent YAML"),
        ("a: b: c\n", "1:5", "not valid YAML: "),
        ("init: []\n---\ninit: []\n", "2:1", "not valid YAML: a second document"),
        ("init: []\nkernel: {}\ninit: []\n", "3:1", "duplicate field `init`; the first one is in line 1"),
        ("? [a]\n: b\n", "1:3", "not valid YAML: a key must be a word"),
        ("init: *nowhere\n", "1:7", "not valid YAML: "),
        ("init: &a [*a]\n", "1:11", "not valid YAML: an alias inside of what it stands for"),
        ("init: !secret x\n", "1:7", "the tag `!secret` has no meaning here"),
        ("init: !!int x\n", "1:7", "`x` is no `!!int`"),
        ("kernel: {<<: 5}\n", "1:14", "not valid YAML: `<<` takes a mapping"),
    ]);
}

#[test]
fn unknown_missing_and_mistyped_fields_are_refused_with_their_path() {
    check_refused(&[
        ("- a\n", "1:1", "expected a mapping, found a list"),
        ("hello\n", "1:1", "expected a mapping, found the text `hello`"),
        ("kernal: {image: x}\n", "1:1", "unknown field `kernal`, did you mean `kernel`?"),
        ("network: {}\n", "1:1", "unknown field `network`, expected one of kernel, init, onboot"),
        ("kernel:\n  imag: x\n", "2:3, kernel", "unknown field `imag`, did you mean `image`?"),
        (
            "services: [{name: s, image: x, bind: [/a:/b]}]\n",
            "1:32, services[0]",
            "unknown field `bind`, did you mean `binds`?",
        ),
        ("onboot: [{name: x}]\n", "1:10, onboot[0]", "field `image` is missing"),
        ("services:\n  - image: x\n", "2:5, services[0]", "field `name` is missing"),
        ("services:\n  -\n", "2:4, services[0]", "field `name` is missing"),
        ("init: 5\n", "1:7, init", "expected a list, found the number 5"),
        ("init: [{image: x}]\n", "1:8, init[0]", "expected text, found a mapping"),
        ("init: [5]\n", "1:8, init[0]", "expected text, found `5`; put it in quotes"),
        ("init: [true]\n", "1:8, init[0]", "expected text, found `true`; put it in quotes"),
        ("init:\n  - \n", "2:5, init[0]", "expected text, found nothing"),
        ("kernel: [x]\n", "1:9, kernel", "expected a mapping, found a list"),
        (
            "services: [{name: s, image: x, readonly: 'yes'}]\n",
            "1:42, services[0].readonly",
            "expected true or false, found the text `yes`",
        ),
        (
            "services: [{name: s, image: x, sysctl: {a: 1}}]\n",
            "1:44, services[0].sysctl.a",
            "expected text, found `1`; put it in",
        ),
        (
            "services: [{name: s, image: x, uid: -1}]\n",
            "1:37, services[0].uid",
            "expected a number from 0 to 4294967295 or the name",
        ),
        (
            "services: [{name: s, image: x, uid: 4294967296}]\n",
            "1:37, services[0].uid",
            "expected a number from 0 to 4294967295 or",
        ),
        (
            "services: [{name: s, image: x, gid: 1.5}]\n",
            "1:37, services[0].gid",
            "expected a number from 0 to 4294967295 or",
        ),
        (
            "services: [{name: s, image: x, resources: {cpu: {shares: -1}}}]\n",
            "1:58, services[0].resources.cpu.shares",
            "expected a number from 0 to",
        ),
        (
            "services: [{name: s, image: x, resources: {memory: {max: 1}}}]\n",
            "1:53, services[0].resources.memory",
            "unknown field `max`",
        ),
    ]);
}

#[test]
fn names_and_references_are_checked_where_they_stand() {
    check_refused(&[
        (
            "services: [{name: s, image: x}, {name: s, image: y}]\n",
            "1:40, services[1].name",
            "duplicate service `s`; the first one is at x.yml:1:19",
        ),
        ("volumes: [{name: v}, {name: v}]\n", "1:29, volumes[1].name", "duplicate volume `v`"),
        ("services: [{name: '../s', image: x}]\n", "1:19, services[0].name", "`../s` cannot be a container's name"),
        ("services: [{name: '', image: x}]\n", "1:19, services[0].name", "`` cannot be a container's name"),
        ("volumes: [{name: V}]\n", "1:18, volumes[0].name", "`V` cannot be a volume's name"),
        ("volumes: [{name: v, format: raw}]\n", "1:29, volumes[0].format", "`raw` is no volume format"),
        ("init: ['']\n", "1:8, init[0]", "`` is no image reference"),
        ("init: ['a b']\n", "1:8, init[0]", "`a b` is no image reference"),
        ("init:\n  - \"@pkg:gone\"\n", "2:5", "cannot resolve package `gone`"),
    ]);
}

#[test]
fn capabilities_and_mounts_that_mean_nothing_are_refused_where_they_stand() {
    check_refused(&[
        (
            "services: [{name: s, image: x, capabilities: [CAP_FLY]}]\n",
            "1:47, services[0].capabilities[0]",
            "unknown capability `CAP_FLY`",
        ),
        (
            "services: [{name: s, image: x, ambient: [net_admin]}]\n",
            "1:42, services[0].ambient[0]",
            "unknown capability `net_admin`, did you mean `CAP_NET_ADMIN`?",
        ),
        (
            "services: [{name: s, image: x, binds: ['/a:/b:ro:x']}]\n",
            "1:40, services[0].binds[0]",
            "bind `/a:/b:ro:x` has too many `:`",
        ),
        ("services: [{name: s, image: x, binds: [/a]}]\n", "1:40, services[0].binds[0]", "bind `/a` has no `:`"),
        (
            "services: [{name: s, image: x, binds: ['/a:']}]\n",
            "1:40, services[0].binds[0]",
            "bind `/a:` has an empty part",
        ),
        (
            "services: [{name: s, image: x, tmpfs: ['/a:b:c']}]\n",
            "1:40, services[0].tmpfs[0]",
            "cannot read tmpfs `/a:b:c`",
        ),
        (
            "services: [{name: s, image: x, mounts: [{source: /a, destination: /b}]}]\n",
            "1:41, services[0].mounts[0]",
            "mount `/b` has no `type`",
        ),
        (
            "services: [{name: s, image: x, mounts: [{type: ext4}]}]\n",
            "1:41, services[0].mounts[0]",
            "mount of type `ext4` has no `destination`",
        ),
    ]);
}

#[test]
fn limits_and_words_that_mean_nothing_are_refused_where_they_stand() {
    check_refused(&[
        (
            "services: [{name: s, image: x, rlimits: ['nofile,1']}]\n",
            "1:42, services[0].rlimits[0]",
            "cannot read limit `nofile,1`",
        ),
        (
            "services: [{name: s, image: x, rlimits: ['nofiles,1,2']}]\n",
            "1:42, services[0].rlimits[0]",
            "unknown limit `nofiles`, did you mean `nofile`?",
        ),
        (
            "services: [{name: s, image: x, rlimits: ['nofile,1,many']}]\n",
            "1:42, services[0].rlimits[0]",
            "limit `nofile,1,many`: `many` is neither",
        ),
        (
            "services: [{name: s, image: x, rlimits: ['nofile,2,1']}]\n",
            "1:42, services[0].rlimits[0]",
            "limit `nofile,2,1`: the soft limit is above",
        ),
        ("services: [{name: s, image: x, net: hots}]\n", "1:37, services[0].net", "`hots` is no namespace"),
        ("services: [{name: s, image: x, cwd: tmp}]\n", "1:37, services[0].cwd", "`tmp` is no absolute path"),
        ("services: [{name: s, image: x, env: [A]}]\n", "1:38, services[0].env[0]", "`A` is no variable"),
        (
            "services: [{name: s, image: x, oomScoreAdj: 1001}]\n",
            "1:45, services[0].oomScoreAdj",
            "1001 is out of range",
        ),
        (
            "services: [{name: s, image: x, devices: [{path: /d, type: x}]}]\n",
            "1:59, services[0].devices[0].type",
            "expected one of a, b, c, p, u, found `x`",
        ),
    ]);
}

#[test]
fn files_that_cannot_be_made_are_refused_where_they_stand() {
    check_refused(&[
        ("files: [{contents: a}]\n", "1:9, files[0]", "field `path` is missing"),
        ("files: [{path: x}]\n", "1:9, files[0]", "the file has no content"),
        (
            "files: [{path: x, contents: a, metadata: yaml}]\n",
            "1:42, files[0].metadata",
            "`contents` and `metadata` exclude each other",
        ),
        (
            "files: [{path: x, source: b, metadata: yaml}]\n",
            "1:40, files[0].metadata",
            "`source` and `metadata` exclude each other",
        ),
        ("files: [{path: x, metadata: xml}]\n", "1:29, files[0].metadata", "`xml` is no metadata format"),
        ("files: [{path: ../x, contents: a}]\n", "1:16, files[0].path", "`../x` is no path in the root"),
        ("files: [{path: /, directory: true}]\n", "1:16, files[0].path", "`/` is no path in the root"),
        ("files: [{path: x, contents: a, mode: '0888'}]\n", "1:38, files[0].mode", "`0888` is no file mode"),
        ("files: [{path: x, contents: a, mode: '17777'}]\n", "1:38, files[0].mode", "`17777` is no file mode"),
        (
            "files: [{path: x, contents: a, mode: 0644}]\n",
            "1:38, files[0].mode",
            "expected text, found `0644`; put it in quotes",
        ),
    ]);
}

#[test]
fn what_grows_without_bound_is_refused() {
    let billion = (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| {
        let below = n - 1;
        text + &format!("a{n}: &a{n} [*a{below}, *a{below}]\n")
    });
    let long_words = format!("a: &a {}\ninit: [{}]\n", "x".repeat(1 << 20), "*a,".repeat(100));
    let keys = format!("kernel: {{{}}}", (0..600).map(|n| format!("k{n}: v,")).collect::<String>());
    type IsExpected = fn(&Fault) -> bool;
    let cases: [(&str, String, IsExpected); 6] = [
        ("aliases of aliases", billion, |fault| matches!(fault, Fault::TooMuch { what: "values", .. })),
        ("aliases of a long text", long_words, |fault| matches!(fault, Fault::TooMuch { what: "bytes", .. })),
        ("keys", keys, |fault| matches!(fault, Fault::TooMuch { .. })),
        ("depth of blocks", "- ".repeat(100_000), |fault| matches!(fault, Fault::TooDeep { .. })),
        ("depth of brackets", "[".repeat(100_000), |fault| {
            matches!(fault, Fault::TooDeep { .. } | Fault::Syntax { .. })
        }),
        ("text", " ".repeat(super::MAX_TEXT_BYTES + 1), |fault| matches!(fault, Fault::TooLong { .. })),
    ];
    for (name, text, is_expected) in cases {
        let error = read(&text).expect_err(name);
        assert!(is_expected(&error.fault), "{name}: {error}");
        assert!(error.to_string().len() < 1_000, "{name}: the message is too long");
    }
}

#[test]
fn a_fault_is_shown_with_its_line_and_carets() {
    for (text, expected) in [
        (
            "kernel:\n  image: k\nservics:\n  - name: a\n",
            "unknown field `servics`, did you mean `services`?\n --> x.yml:3:1\n  |\n3 | servics:\n  | ^^^^^^^",
        ),
        (
            "\n\n\n\n\n\n\n\n\ninit: [ü, 5]\r\n",
            "expected text, found `5`; put it in quotes\n  --> x.yml:10:11, init[1]\n   |\n10 | init: [ü, 5]\n   |           ^",
        ),
        (
            "kernel: {cmdline: \"a\tb\u{1b}[0m\", imag: q}",
            "unknown field `imag`, did you mean `image`?\n --> x.yml:1:30, kernel\n  |\n1 | kernel: {cmdline: \"a\tb\u{fffd}[0m\", imag: q}\n  |                     \t        ^^^^",
        ),
    ] {
        assert_eq!(read(text).unwrap_err().to_string(), expected);
    }
    for hostile in ["\u{1b}[2J", &"z".repeat(100_000)] {
        let text = serde_json::json!({ "binds": [hostile], hostile: 1 }).to_string();
        let error = parse_label(&text, "x").unwrap_err().to_string();
        assert!(error.len() < 3_000 && !error.contains('\u{1b}'), "{error}");
    }
    let long = format!("kernel: {{cmdline: {}, imag: q}}", "y".repeat(5_000));
    let shown = read(&long).unwrap_err().to_string();
    assert!(shown.lines().all(|line| line.len() < 120), "{shown}");
    assert!(shown.ends_with("^^^^"), "{shown}");
}

#[test]
fn a_label_is_read_by_the_same_rules() {
    for (text, expected) in [
        ("", "the configuration is empty"),
        ("[\"a\"]", "expected a mapping, found a list"),
        ("{{{", "not valid YAML: "),
        (r#"{"name": "n"}"#, "field `name` cannot be set in a label"),
        (r#"{"image": "n"}"#, "field `image` cannot be set in a label"),
        (r#"{"after": ["n"]}"#, "field `after` cannot be set in a label"),
        (r#"{"nosuchfield": 1}"#, "unknown field `nosuchfield`"),
        (r#"{"capabilities": "CAP_CHOWN"}"#, "expected a list, found the text `CAP_CHOWN`"),
        (r#"{"oomScoreAdj": 2000}"#, "2000 is out of range"),
    ] {
        let error = parse_label(text, "a/b:1").expect_err(text);
        assert!(error.to_string().starts_with(expected), "{text}\n{error}");
        assert!(error.place.to_string().starts_with("label org.mobyproject.config of a/b:1:1:"), "{error}");
    }
    let options = parse_label("{\"command\": [\"@pkg:x\"],\n\t\"readonly\": true}", "a/b:1").unwrap();
    assert_eq!(options.command.unwrap(), ["@pkg:x"]);
    assert_eq!(options.readonly, Some(true));
}

#[test]
fn anchors_merge_keys_and_block_texts_work() {
    let config = good(
        "---\nservices:\n  - &base\n    name: a\n    image: img\n    command: &cmd [x, \"5\"]\n    env: &env\n      - A=1\n  \
         - <<: *base\n    name: b\n    env: []\nfiles:\n  - path: /etc//./motd\n    contents: |\n      one\n      two\n    mode: \"0644\"\n",
    );
    let [a, b] = &config.services[..] else { panic!("{config:?}") };
    assert_eq!((a.name.as_str(), b.name.as_str(), b.image.as_str()), ("a", "b", "img"));
    assert_eq!(b.options.command, a.options.command);
    assert_eq!(b.options.env, Some(Vec::new()));
    assert_eq!(config.files[0].path, "etc/motd");
    assert_eq!(config.files[0].content, FileContent::Contents("one\ntwo\n".into()));
    assert_eq!(config.files[0].mode().bits(), 0o644);
}

#[test]
fn sections_may_be_empty() {
    for text in
        ["{}", "kernel:\ninit:\nonboot:\nservices:\nfiles:\nvolumes:\n", "\u{feff}init: []", "trust: {org: [x]}\n"]
    {
        let config = good(text);
        assert!(config.image_references().is_empty(), "{text}");
    }
}

#[test]
fn package_references_become_what_the_caller_answers() {
    let config =
        good("kernel: {image: '@pkg:../k'}\ninit: ['@pkg:i', '@other:x']\nfiles: [{path: f, contents: '@pkg:c'}]\n");
    assert_eq!(config.kernel.image.as_deref(), Some("local/../k:1"));
    assert_eq!(config.init[0].image, "local/i:1");
    assert_eq!(config.init[1].image, "@other:x");
    assert_eq!(config.files[0].content, FileContent::Contents("local/c:1".into()));
}

#[test]
fn every_image_is_listed_with_its_role_and_place() {
    let config = good(
        "kernel: {image: k}\ninit: [i, i]\nonboot: [{name: a, image: x}]\nonshutdown: [{name: b, image: y}]\n\
         services:\n  - name: c\n    image: z\nvolumes: [{name: v}, {name: w, image: q}]\n",
    );
    let found: Vec<_> =
        config.image_references().iter().map(|r| format!("{} {} {}", r.role, r.reference, r.place)).collect();
    let expected = [
        "kernel k x.yml:1:17",
        "init[0] i x.yml:2:8",
        "init[1] i x.yml:2:11",
        "volume[1] q x.yml:8:39",
        "onboot[0] x x.yml:3:27",
        "onshutdown[0] y x.yml:4:31",
        "services[0] z x.yml:7:12",
    ];
    assert_eq!(found, expected);
    assert_eq!(config.containers().map(|(role, _)| role).last(), Some(Role::Service(0)));
}

#[test]
fn names_of_containers_are_numbers_from_100_on() {
    let config = good(
        "onboot: [{name: a, image: x}, {name: a, image: x}]\nonshutdown: [{name: b, image: x}]\nservices: [{name: c, image: x}]\n",
    );
    let number = |name: &str| config.id_number(&Id::Name(name.into()));
    assert_eq!([number("nobody"), number("1000")], [None, None]);
    assert_eq!([number(""), number("root")], [Some(0), Some(0)]);
    assert_eq!([number("a"), number("b"), number("c")], [Some(101), Some(102), Some(103)]);
    assert_eq!(config.id_number(&Id::Number(7)), Some(7));
}

#[test]
fn several_files_are_joined() {
    let same = "services: [{name: s, image: x}]\n";
    let error = merge([good(same), good(same)]).unwrap_err();
    assert!(
        error.to_string().starts_with("duplicate service `s`; the first one is at x.yml:1:19\n --> x.yml:1:19"),
        "{error}"
    );

    let first = good("kernel: {image: k, cmdline: one, ucode: u}\ninit: [a]\nonboot: [{name: same, image: x}]\n");
    let second = good("kernel: {cmdline: two, tar: ''}\ninit: [b]\nonboot: [{name: same, image: y}]\n");
    let all = merge([first, second, good("kernel: {binary: bzImage}")]).unwrap();
    assert_eq!(all.kernel.image.as_deref(), Some("k"));
    assert_eq!(all.kernel.cmdline.as_deref(), Some("two"));
    assert_eq!(
        (all.kernel.binary_name(), all.kernel.tar_name(), all.kernel.ucode_name()),
        ("bzImage", None, Some("u"))
    );
    assert_eq!(all.init.iter().map(|i| i.image.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(all.onboot.len(), 2);
}

#[test]
fn the_kernel_has_usual_names() {
    for (text, binary, tar, ucode) in [
        ("kernel: {image: k}", "kernel", Some("kernel.tar"), None),
        ("kernel: {image: k, binary: '', tar: none, ucode: none}", "kernel", None, None),
        ("kernel: {image: k, binary: b, tar: t, ucode: u}", "b", Some("t"), Some("u")),
    ] {
        let kernel = good(text).kernel;
        assert_eq!((kernel.binary_name(), kernel.tar_name(), kernel.ucode_name()), (binary, tar, ucode), "{text}");
    }
}

/// Has most kinds of fields.
const FULL: &str = include_str!("testdata/full.yml");

#[test]
fn what_is_written_out_is_read_as_the_same_configuration() {
    let config = good(FULL);
    for format in [MetadataFormat::Yaml, MetadataFormat::Json] {
        let text = config.metadata(format, str::to_owned).unwrap();
        let again = good(&text);
        // Places differ, so the comparison is by what both are written out as.
        let json = |config: &Config| config.metadata(MetadataFormat::Json, str::to_owned).unwrap();
        assert_eq!(json(&again), json(&config), "{text}");
    }
    let expanded = config.metadata(MetadataFormat::Yaml, |reference| format!("registry/{reference}")).unwrap();
    assert!(expanded.contains("image: registry/kernel:1\n"), "{expanded}");
}

#[test]
fn damaged_texts_never_panic() {
    // xorshift64: the same texts each time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(below).unwrap()).unwrap()
    };
    let pieces = [
        "\t", "\n", ": ", "- ", "[", "]", "{", "}", "&a ", "*a", "<<: ", "'", "\"", "|", ">", "!!int ", "#", "@pkg:",
        "\u{fffd}", "\0", "%", "? ",
    ];
    for _ in 0..4_000 {
        let mut text: Vec<char> = FULL.chars().collect();
        for _ in 0..=random(4) {
            let at = random(text.len());
            match random(4) {
                0 => text.truncate(at.max(1)),
                1 => drop(text.drain(at..(at + random(40)).min(text.len()))),
                2 => drop(text.splice(at..at, pieces[random(pieces.len())].chars())),
                _ => text[at] = char::from_u32(u32::try_from(random(0x250)).unwrap()).unwrap_or(' '),
            }
            if text.is_empty() {
                break;
            }
        }
        let text: String = text.into_iter().collect();
        if let Err(error) = read(&text) {
            assert!(error.place.line() >= 1 && !error.to_string().is_empty());
        }
    }
    for _ in 0..2_000 {
        let text: String = (0..random(60)).map(|_| pieces[random(pieces.len())]).collect();
        drop(read(&text));
        drop(parse_label(&text, "x"));
    }
}

#[test]
fn the_reference_has_every_field_and_its_first_example_is_right() {
    let docs = include_str!("../../../docs/yaml.md");
    let example = docs.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert_eq!(good(example).services[0].name, "web");
    let section = |heading: &str| docs.split(heading).nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    for (text, heading) in [
        ("?: 1", "\n## Top level\n"),
        ("kernel: {?: 1}", "\n## kernel\n"),
        ("services: [{?: 1}]", "\n## Containers\n"),
        ("services: [{name: s, image: x, mounts: [{?: 1}]}]", "\n## Containers\n"),
        ("services: [{name: s, image: x, devices: [{?: 1}]}]", "\n## Containers\n"),
        ("services: [{name: s, image: x, runtime: {?: 1}}]", "\n## Containers\n"),
        ("services: [{name: s, image: x, runtime: {bindNS: {?: 1}}}]", "\n## Containers\n"),
        ("services: [{name: s, image: x, runtime: {interfaces: [{?: 1}]}}]", "\n## Containers\n"),
        ("services: [{name: s, image: x, uidMappings: [{?: 1}]}]", "\n## Containers\n"),
        ("services: [{name: s, image: x, restart: {?: 1}}]", "\n## Services\n"),
        ("services: [{name: s, image: x, ready: {?: 1}}]", "\n## Services\n"),
        ("files: [{?: 1}]", "\n## files\n"),
        ("volumes: [{?: 1}]", "\n## volumes\n"),
    ] {
        let error = read(&text.replace('?', "no-such-field-at-all")).unwrap_err();
        let Fault::UnknownField { known, .. } = error.fault else { panic!("{error}") };
        assert!(!known.is_empty(), "{text}");
        const OF_SERVICES: [&str; 5] = ["after", "ready", "restart", "stopSignal", "stopTimeout"];
        for field in known.iter().filter(|field| !["uidMappings", "containerid", "hostid"].contains(&field.as_str())) {
            let heading = if OF_SERVICES.contains(&field.as_str()) { "\n## Services\n" } else { heading };
            assert!(section(heading).contains(field.as_str()), "{heading} has nothing about `{field}`");
        }
    }
}
