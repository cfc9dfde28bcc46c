//! Services as they live in a real machine: order, readiness, restarts, stops.

use std::time::Duration;

use crate::harness::images;
use crate::harness::kiln::{Running, Sandbox, run};

/// A machine that does not power off has failed.
const LIMIT: Duration = Duration::from_secs(300);

/// Builds a machine from packages of the tree and runs it until it powers off; gives its console.
#[track_caller]
fn console(sandbox: &Sandbox, name: &str, yaml: &str) -> String {
    let yaml = sandbox.write_yaml(&format!("{name}.yml"), yaml);
    run(sandbox.kiln(["build", "--cache"]).arg(images::store()).arg(yaml)).ok();
    let machine = Running::start(&mut sandbox.kiln(["run", "-accel", "qemu", "-mem", "512", name]));
    let (status, console) = machine.wait(LIMIT);
    assert!(status.success(), "{status:?}\n{console}");
    console
}

/// Lines that hold these words are there, in this order.
#[track_caller]
fn check_order(console: &str, wanted: &[&str]) {
    let mut lines = console.lines();
    for text in wanted {
        assert!(lines.any(|line| line.contains(text)), "no `{text}` at its place in:\n{console}");
    }
}

const ORDER: &str = r#"
kernel: {image: "@pkg:TREE/pkg/kernel", cmdline: "console=ttyS0 loglevel=3 no_timer_check kiln.verbose"}
init: ["@pkg:TREE/pkg/init", "@pkg:TREE/pkg/busybox"]
services:
# By name the last one would start first.
- name: a-web
  image: "@pkg:TREE/pkg/busybox"
  after: [b-api, c-slow]
  stopSignal: SIGUSR1
  command: [sh, -c, "trap 'echo web got USR1; exit 0' USR1; echo web runs; sleep 1000 & wait"]
- name: b-api
  image: "@pkg:TREE/pkg/busybox"
  net: new
  capabilities: [CAP_NET_ADMIN, CAP_NET_BIND_SERVICE]
  after: [d-db]
  ready: {tcp: "127.0.0.1:80", interval: 20ms}
  command: [sh, -c, "ip link set lo up; trap 'echo api stops; exit 0' TERM; sleep 1; echo api listens;
    httpd -f -p 80 & wait"]
- name: c-slow
  image: "@pkg:TREE/pkg/busybox"
  ready: {file: /tmp/never, timeout: 500ms}
  stopTimeout: 200ms
  command: [sh, -c, "trap '' TERM; while :; do sleep 1000; done"]
- name: d-db
  image: "@pkg:TREE/pkg/busybox"
  uid: 7
  env: ["COLOUR=green"]
  ready: {exec: [sh, -c, "test $COLOUR = green && test $(id -u) = 7 && test -e /tmp/up"], interval: 20ms}
  command: [sh, -c, "trap 'echo db stops; exit 0' TERM; sleep 1; echo db is up; touch /tmp/up; sleep 1000 & wait"]
- name: e-end
  image: "@pkg:TREE/pkg/busybox"
  pid: host
  capabilities: [CAP_KILL]
  after: [a-web]
  command: [poweroff]
onshutdown:
- name: last
  image: "@pkg:TREE/pkg/busybox"
  binds: ["/run/kiln:/state"]
  command: [sh, -c, "echo $(grep -c '\"ended\"' /state/status.json) have ended"]
"#;

#[test]
fn services_start_when_those_before_them_are_ready_and_stop_before_them() {
    let console = console(&Sandbox::new(), "order", ORDER);
    check_order(
        &console,
        &[
            "service a-web: waits for `b-api`, `c-slow`",
            "d-db: db is up",
            "service d-db: ready",
            "service b-api: started",
            "b-api: api listens",
            "service b-api: ready",
            "service a-web: started",
            "poweroff: stopping",
            "a-web: web got USR1",
            "service a-web: stopped: exit code 0",
            "b-api: api stops",
            "service b-api: stopped",
            "d-db: db stops",
            "service d-db: stopped",
            "last: 5 have ended",
            "kiln: power off",
        ],
    );
    check_order(&console, &["service c-slow: not ready", "service a-web: started"]);
    // A service's first words and init's word about it take different ways to the console.
    check_order(&console, &["service b-api: ready", "a-web: web runs", "poweroff: stopping"]);
    assert!(console.contains("`/tmp/never` is not there"), "{console}");
    check_order(
        &console,
        &["service c-slow: takes too long to end, killed", "service c-slow: stopped: killed by SIGKILL"],
    );
}

const RESTARTS: &str = r#"
kernel: {image: "@pkg:TREE/pkg/kernel", cmdline: "console=ttyS0 quiet loglevel=3 no_timer_check"}
init: ["@pkg:TREE/pkg/init", "@pkg:TREE/pkg/busybox"]
services:
- name: crash
  image: "@pkg:TREE/pkg/busybox"
  net: new
  runtime: {bindNS: {net: /run/netns/crash}}
  restart: {policy: on-failure, limit: 3}
  command: [sh, -c, "echo turn $(ls /tmp | wc -l); mktemp -p /tmp >/dev/null; exit 3"]
- name: down
  image: "@pkg:TREE/pkg/busybox"
  restart: "no"
  command: [sh, -c, "echo once; exit 4"]
- name: killed
  image: "@pkg:TREE/pkg/busybox"
  pid: host
  restart: {policy: on-failure, limit: 0}
  command: [sh, -c, "kill -SEGV $$"]
- name: round
  image: "@pkg:TREE/pkg/busybox"
  restart: {policy: always, delay: 10ms, maxDelay: 20ms}
  binds: ["/run:/shared"]
  command: [sh, -c, "echo >>/shared/rounds"]
- name: end
  image: "@pkg:TREE/pkg/busybox"
  pid: host
  capabilities: [CAP_KILL]
  binds: ["/run:/shared:ro"]
  command: [sh, -c, "until [ $(grep -c '\"state\": \"ended\"' /shared/kiln/status.json) = 3 ] &&
    grep -q '\"restarts\": 3' /shared/kiln/status.json && [ $(wc -l </shared/rounds) -gt 2 ]; do sleep 0.1; done;
    poweroff"]
"#;

#[test]
fn a_service_comes_back_as_its_policy_says() {
    let console = console(&Sandbox::new(), "restarts", RESTARTS);
    check_order(
        &console,
        &[
            "crash: turn 0",
            ", again in 100 ms",
            // What it wrote is still there.
            "crash: turn 1",
            ", again in 200 ms",
            "crash: turn 2",
            ", again in 400 ms",
            "crash: turn 3",
            ", stays down",
            "kiln: power off",
        ],
    );
    assert_eq!(console.matches("down: once").count(), 1, "{console}");
    assert_eq!(console.matches("crash: turn").count(), 4, "{console}");
    for wanted in ["service down: failed: exit code 4", "service killed: failed: killed by SIGSEGV"] {
        let line = console.lines().find(|line| line.contains(wanted)).unwrap_or_else(|| panic!("{wanted}:\n{console}"));
        assert!(line.ends_with("stays down"), "{line}");
    }
}
