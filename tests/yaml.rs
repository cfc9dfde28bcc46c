//! Configurations from everywhere: several files, standard input, a server, included ones, variables.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::thread;

use crate::harness::kiln::{Sandbox, run};

/// A server on this machine that gives each path's text; ends with the tests.
fn server(texts: &'static [(&'static str, &'static str)]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut request = [0; 4096];
            let len = connection.read(&mut request).unwrap_or_default();
            let request = String::from_utf8_lossy(&request[..len]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let answer = match texts.iter().find(|(known, _)| *known == path) {
                Some((_, text)) => {
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}", text.len())
                }
                None => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".into(),
            };
            // The client may have gone.
            let _ = connection.write_all(answer.as_bytes());
        }
    });
    format!("http://{address}")
}

const MAIN: &str = "
include: [parts/base.yml]
variables: {TEXT: default, FILE: hello}
files:
  - {path: '${FILE}', contents: '${TEXT} ${HOME} $$'}
  - {path: link, symlink: \"/${FILE:-x}\"}
";

#[test]
fn a_printed_configuration_builds_the_same_result() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path().join("parts")).unwrap();
    sandbox.write("main.yml", MAIN);
    sandbox.write(
        "parts/base.yml",
        "kernel: {cmdline: 'quiet', tar: none}\nvolumes: [{name: v}]\nfiles: [{path: first, directory: true}]\n",
    );
    sandbox.write(
        "more.yml",
        "files: [{path: etc/kiln, metadata: yaml}]\nkernel: {cmdline: 'console=ttyS0 # no comment'}\n",
    );
    let words = ["main.yml", "more.yml", "-set", "TEXT=from the flag"];
    let printed = run(sandbox.kiln(["build", "-dry-run"]).args(words).env("FILE", "named")).ok();
    assert!(printed.stdout.contains("from the flag ${HOME} $$"), "{}", printed.stdout);
    assert!(!printed.stdout.contains("include") && !printed.stdout.contains("variables"), "{}", printed.stdout);
    sandbox.write("printed.yml", &printed.stdout);
    run(sandbox.kiln(["build", "-no-sbom", "-o", "a.tar"]).args(words).env("FILE", "named")).ok();
    run(&mut sandbox.kiln(["build", "-no-sbom", "-o", "b.tar", "printed.yml"])).ok();
    let read = |name: &str| fs::read(sandbox.path().join(name)).unwrap();
    assert!(read("a.tar") == read("b.tar"), "the two tars differ\n{}", printed.stdout);
    let again = run(&mut sandbox.kiln(["build", "-dry-run", "printed.yml"])).ok();
    assert_eq!(again.stdout, printed.stdout);
}

#[test]
fn a_configuration_may_come_from_a_server_and_from_standard_input() {
    let server = server(&[
        ("/dir/main.yml", "include: [part.yml]\nfiles: [{path: a, contents: main}]\n"),
        ("/dir/part.yml", "files: [{path: b, contents: part}]\n"),
        ("/pkg.yml", "init: ['@pkg:here']\n"),
        ("/wrong.yml", "fils: []\n"),
    ]);
    let sandbox = Sandbox::new();
    sandbox.write("local.yml", "files: [{path: c, contents: local}]\n");
    let url = format!("{server}/dir/main.yml");
    let mut child =
        sandbox.kiln(["build", "-dry-run", &url, "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"include: [local.yml]\nfiles: [{path: d, contents: stdin}]\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let paths: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("- path: ")).collect();
    assert_eq!(paths, ["b", "a", "c", "d"], "{text}");

    for (path, expected) in [
        ("/gone.yml", "the server answers 404 Not Found"),
        ("/wrong.yml", "unknown field `fils`, did you mean `files`?"),
        ("/pkg.yml", "a YAML from a URL has no folder beside it"),
    ] {
        let said = run(&mut sandbox.kiln(["build", &format!("{server}{path}")]));
        assert_eq!(said.code(), 1);
        assert!(said.stderr.contains(expected) && said.stderr.contains(&server), "{}", said.stderr);
    }
    assert_eq!(sandbox.files(), ["local.yml"]);
}

#[test]
fn a_value_for_a_variable_that_nobody_has_is_an_error() {
    let sandbox = Sandbox::new();
    sandbox.write("x.yml", "variables: {TAG: a}\nfiles: [{path: a, contents: '${TAG}'}]\n");
    let said = run(&mut sandbox.kiln(["build", "-set", "TGA=x", "x.yml"]));
    assert_eq!(said.code(), 1);
    assert!(said.stderr.contains("no file has `TGA` under `variables`; there are TAG"), "{}", said.stderr);
    let said = run(&mut sandbox.kiln(["build", "-set", "TAG", "x.yml"]));
    assert_eq!(said.code(), 2, "{}", said.stderr);
    assert_eq!(sandbox.files(), ["x.yml"]);
}

#[test]
fn the_schema_goes_to_standard_output() {
    let said = run(&mut Sandbox::new().kiln(["schema"])).ok();
    let schema: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(schema["properties"]["services"]["items"]["$ref"], "#/definitions/Container");
    assert_eq!(said.stderr, "");
}
