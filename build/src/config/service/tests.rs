use super::super::tests::{check_refused, good};
use super::super::{Config, ConfigError, MetadataFormat, Source, merge, parse};

/// A service with this line.
fn service(line: &str) -> String {
    format!("services:\n- name: s\n  image: x\n  {line}\n")
}

#[track_caller]
fn check_line(cases: &[(&str, &str, &str)]) {
    for (line, position, expected) in cases {
        check_refused(&[(&service(line), position, expected)]);
    }
}

fn merged(texts: &[&str]) -> Result<Config, ConfigError> {
    let part = |(number, text): (usize, &&str)| {
        let name = format!("{number}.yml");
        parse(Source { name: &name, text }, &mut |folder| Ok(folder.into())).unwrap_or_else(|e| panic!("{text}\n{e}"))
    };
    merge(texts.iter().enumerate().map(part))
}

#[test]
fn how_services_run_is_checked_where_it_is_written() {
    check_line(&[
        (
            "restart: never-ever",
            "4:12, services[0].restart",
            "`never-ever` is no restart policy; use no, on-failure or always",
        ),
        (
            "restart: on-failur",
            "4:12, services[0].restart",
            "`on-failur` is no restart policy; use no, on-failure or always, did you mean `on-failure`?",
        ),
        ("restart: [always]", "4:12, services[0].restart", "expected no, on-failure, always, or a mapping"),
        ("restart: {limit: 3}", "4:12, services[0].restart", "field `policy` is missing"),
        (
            "restart: {policy: always, limit: -1}",
            "4:36, services[0].restart.limit",
            "expected a number from 0 to 4294967295",
        ),
        ("restart: {policy: alway}", "4:21, services[0].restart.policy", "`alway` is no restart policy"),
        (
            "restart: {policy: always, maxDelay: 1d}",
            "4:39, services[0].restart.maxDelay",
            "expected a time from 10ms to 1h",
        ),
        ("restart: {policy: always, delay: 1ms}", "4:36, services[0].restart.delay", "expected a time from 10ms to 1h"),
        (
            "restart: {policy: always, limits: 1}",
            "4:29, services[0].restart",
            "unknown field `limits`, did you mean `limit`?",
        ),
        (
            "stopTimeout: soon",
            "4:16, services[0].stopTimeout",
            "expected a time up to 1h, such as 500ms, 10s or 2m, found the text `soon`",
        ),
        ("stopTimeout: 3601", "4:16, services[0].stopTimeout", "expected a time up to 1h"),
        ("stopTimeout: 1.5", "4:16, services[0].stopTimeout", "expected a time up to 1h"),
        (
            "stopSignal: SIGTREM",
            "4:15, services[0].stopSignal",
            "`SIGTREM` is no signal; use a name such as SIGTERM, a number from 1 to 64, or image, did you mean `SIGTERM`?",
        ),
        ("stopSignal: SIGRTMIN+99", "4:15, services[0].stopSignal", "`SIGRTMIN+99` is no signal; use a name"),
        ("ready: {}", "4:10, services[0].ready", "give exactly one of `exec`, `tcp`, `unix` and `file`"),
        ("ready: {file: /a, unix: /b}", "4:10, services[0].ready", "give exactly one of"),
        ("ready: {tcp: '80'}", "4:16, services[0].ready.tcp", "`80` is no address; write 127.0.0.1:80 or [::1]:80"),
        ("ready: {file: run/x}", "4:17, services[0].ready.file", "`run/x` is no absolute path"),
        ("ready: {exec: []}", "4:17, services[0].ready.exec", "`exec` is empty"),
        ("ready: {exec: /bin/true}", "4:17, services[0].ready.exec", "expected a list, found the text"),
        ("ready: {file: /x, interval: 1ms}", "4:31, services[0].ready.interval", "expected a time from 10ms to 1h"),
        ("ready: {http: /}", "4:11, services[0].ready", "unknown field `http`, expected one of exec, tcp"),
        ("user: ''", "4:9, services[0].user", "`` is no user; write image, USER or USER:GROUP"),
        ("user: a:b:c", "4:9, services[0].user", "`a:b:c` is no user"),
        ("user: image\n  uid: 5", "5:8, services[0].uid", "`user` and `uid` exclude each other"),
        ("after: web", "4:10, services[0].after", "expected a list"),
        ("after: [a, b, a]", "4:17, services[0].after[2]", "duplicate service `a`; the first one is at x.yml:4:11"),
        (
            "annotations: {org.kiln.restart: sometimes}",
            "4:35, services[0].annotations.org.kiln.restart",
            "annotation `org.kiln.restart` is `sometimes`",
        ),
        (
            "annotations: {org.kiln.after: a}",
            "4:33, services[0].annotations.org.kiln.after",
            "`org.kiln.after` is written by the field `after`",
        ),
    ]);
}

#[test]
fn what_services_have_is_refused_elsewhere() {
    for (line, field) in [
        ("after: [s]", "after"),
        ("ready: {file: /x}", "ready"),
        ("restart: always", "restart"),
        ("stopSignal: SIGINT", "stopSignal"),
        ("stopTimeout: 5s", "stopTimeout"),
    ] {
        for section in ["onboot", "onshutdown"] {
            let text = service(line).replace("services", section);
            let position = format!("4:3, {section}[0]");
            check_refused(&[(&text, &position, &format!("`{field}` is for services only"))]);
        }
    }
}

#[test]
fn services_wait_for_services_that_exist_and_never_in_a_circle() {
    for (texts, expected) in [
        (
            &["services: [{name: web, image: x, after: [bd]}, {name: db, image: x}]"][..],
            "no service is named `bd`, did you mean `db`?\n --> 0.yml:1:42, services[0].after[0]",
        ),
        (
            &["services: [{name: web, image: x, after: [net]}]", "onboot: [{name: net, image: x}]"],
            "no service is named `net`; containers of onboot have ended before services start, so leave it out",
        ),
        (
            &["services: [{name: a, image: x, after: [a]}]"],
            "services wait for each other: a after a\n --> 0.yml:1:40, services[0].after[0]",
        ),
        (
            &[
                "services: [{name: z, image: x, after: [a]}, {name: a, image: x, after: [b]}]",
                "services: [{name: b, image: x, after: [ok, c]}, {name: c, image: x, after: [a]}, {name: ok, image: x}]",
            ],
            "services wait for each other: a after b after c after a\n --> 0.yml:1:73, services[1].after[0]",
        ),
    ] {
        let error = merged(texts).expect_err(expected).to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    let texts = [
        "services: [{name: a, image: x, after: [b, c]}]",
        "services: [{name: c, image: x, after: [b]}, {name: b, image: x}]",
    ];
    merged(&texts).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_row_of_many_services_takes_no_time_and_no_stack() {
    let mut text = "services:\n- {name: s0, image: x}\n".to_owned();
    for number in 1..20_000 {
        text.push_str(&format!("- {{name: s{number}, image: x, after: [s{}]}}\n", number - 1));
    }
    // And one that waits for all of them.
    let names: Vec<String> = (0..20_000).map(|number| format!("s{number}")).collect();
    text.push_str(&format!("- {{name: last, image: x, after: [{}]}}\n", names.join(",")));
    assert_eq!(merged(&[&text]).unwrap().services.len(), 20_001);
}

#[test]
fn how_services_run_is_written_out_as_it_was_read() {
    let lines = [
        "restart: no",
        "restart: {policy: on-failure, limit: 5, delay: 1s, maxDelay: 90}",
        "ready: {exec: [/bin/check, now], interval: 50ms}",
        "ready: {tcp: '[::1]:80', timeout: 2m}",
        "ready: {unix: /run/x.sock}",
        "stopSignal: image",
        "stopSignal: rtmin+3",
        "stopTimeout: 7",
        "user: image",
        "user: 33",
        "user: www-data:33",
    ];
    for line in lines {
        let text = service(line) + "- {name: other, image: x, after: [s]}\n";
        let config = good(&text);
        for format in [MetadataFormat::Yaml, MetadataFormat::Json] {
            let written = config.metadata(format, str::to_owned).unwrap();
            let again = good(&written);
            assert_eq!(config.services[0].options, again.services[0].options, "{written}");
            assert_eq!(again.services[1].after[0].name, "s", "{written}");
        }
    }
}
