//! What a build lays out runs alike under kiln's init and under one that follows LinuxKit's contract: busybox, Debian's
//! runc, and `tests/linuxkit-init` between them. Under both the power button ends the machine, by way of `acpid`.

use std::process::Command;
use std::time::Duration;

use crate::harness::images;
use crate::harness::kiln::{Running, Sandbox, run};

/// A machine that does not power off has failed.
const LIMIT: Duration = Duration::from_secs(300);

const YAML: &str = r#"
kernel: {image: "@pkg:TREE/pkg/kernel", cmdline: "console=ttyS0 loglevel=3 no_timer_check"}
init: [INIT]
volumes:
- {name: shared}
- {name: fixed, image: "@pkg:TREE/pkg/busybox", readonly: true}
onboot:
- name: first
  image: "@pkg:TREE/pkg/busybox"
  binds: ["shared:/data", "fixed:/fixed:ro"]
  command: [sh, -ec, "echo one >/data/file; test -x /fixed/bin/sh; touch /x; echo the first has run"]
- name: broken
  image: "@pkg:TREE/pkg/busybox"
  command: [sh, -c, "echo the broken has run; exit 3"]
- name: around
  image: "@pkg:TREE/pkg/busybox"
  net: new
  readonly: true
  capabilities: [CAP_NET_ADMIN]
  binds: ["shared:/root"]
  tmpfs: ["/tmp:size=1m"]
  runtime:
    cgroups: [made]
    mkdir: [/var/made/deep]
    mounts: [{type: tmpfs, source: scratch, destination: /var/scratch, options: [nodev, size=1m]}]
    interfaces: [{name: inside, add: veth, peer: outside}, {name: bridge7, add: bridge}]
    bindNS: {net: /run/netns/kept}
  command: [sh, -ec, "! touch /x 2>/dev/null; touch /tmp/x; ip link set bridge7 up; read -r seen </root/file;
    echo file $seen, links $(ls /sys/class/net)"]
- name: look
  image: "@pkg:TREE/pkg/busybox"
  net: /run/netns/kept
  pid: host
  capabilities: [all]
  binds: ["/var:/machine", "/sys/fs/cgroup:/groups", "/:/root-of-it:ro"]
  command: [sh, -c, "echo $(grep -c '^scratch ' /proc/1/mounts) scratch, $(ls -d /machine/made/deep /groups/made);
    echo bridge is $(cat /sys/class/net/bridge7/flags);
    touch /root-of-it/containers/volumes/fixed/merged/x 2>/dev/null && echo fixed is writable || echo fixed stays"]
- name: modprobe
  image: "@pkg:TREE/pkg/modprobe"
  command: [modprobe, -a, button, evdev]
services:
- name: web
  image: "@pkg:TREE/pkg/busybox"
  uid: web
  gid: 5
  env: ["COLOUR=green", "PATH=/bin"]
  capabilities: [CAP_NET_BIND_SERVICE, CAP_CHOWN]
  noNewPrivileges: true
  resources: {pids: {limit: 77}}
  rlimits: ["nofile,100,200"]
  binds: ["/sys/fs/cgroup:/groups", "/tmp:/shared"]
  command: [sh, -c, "echo $COLOUR $(id -u):$(id -g) files $(ulimit -n);
    echo bounded by $(grep CapBnd /proc/self/status | cut -f2), $(grep NoNewPrivs /proc/self/status | cut -f2);
    echo at most $(cat /groups$(cut -d: -f3 /proc/self/cgroup)/pids.max) processes; touch /shared/web-runs; sleep 1000"]
- name: acpid
  image: "@pkg:TREE/pkg/acpid"
- name: end
  image: "@pkg:TREE/pkg/busybox"
  binds: ["/tmp:/shared", "/var/log:/logs:ro"]
  # What a service prints goes to the logs, and who runs it may keep it off the machine's console: runc does, crun does not.
  devices: [{path: /dev/console, type: c, major: 5, minor: 1, mode: "0600"}]
  command: [sh, -c, "until test -e /shared/web-runs && grep -q listening /logs/acpid.log; do sleep 0.1; done;
    echo ready for the button >/dev/console; sleep 1000"]
onshutdown:
- name: last
  image: "@pkg:TREE/pkg/busybox"
  binds: ["/var/log:/logs:ro", "shared:/data:ro"]
  command: [sh, -c, "echo logged $(cat /logs/web.out.log); echo data still $(cat /data/file)"]
"#;

/// In this order.
const EXPECTED: &[&str] = &[
    "first: the first has run",
    "broken: the broken has run",
    "around: file one, links bridge7",
    "look: 1 scratch, /groups/made /machine/made/deep",
    "look: bridge is 0x1003",
    // CAP_CHOWN and CAP_NET_BIND_SERVICE; the container's own number is the seventh that has one.
    "last: logged green 106:5 files 100 bounded by 0000000000000401, 1 at most 77 processes",
    "last: data still one",
];

fn console(init: &str, words: &[&str]) -> String {
    let sandbox = Sandbox::new();
    let yaml = sandbox.write_yaml("contract.yml", &YAML.replace("INIT", init));
    run(sandbox.kiln(["build", "--cache"]).arg(images::store()).args(words).arg(yaml)).ok();
    let mut machine = Running::start(&mut sandbox.kiln(["run", "-accel", "qemu", "-mem", "768", "contract"]));
    machine.wait_for("ready for the button", LIMIT);
    run(Command::new("kill").args(["-TERM", &machine.pid().to_string()])).ok();
    let (status, console) = machine.wait(LIMIT);
    assert!(status.success(), "{status:?}\n{console}");
    console
}

#[track_caller]
fn check(console: &str) {
    let mut lines = console.lines();
    for text in EXPECTED {
        assert!(lines.any(|line| line.contains(text)), "no `{text}` at its place in:\n{console}");
    }
}

#[test]
fn what_is_built_runs_under_the_own_init() {
    let console = console("\"@pkg:TREE/pkg/init\"", &[]);
    check(&console);
    assert!(console.contains("look: fixed stays"), "{console}");
}

#[test]
fn what_is_built_runs_under_linuxkits_contract() {
    let console = console("\"@pkg:TREE/tests/linuxkit-init\"", &[]);
    check(&console);
    assert!(console.contains("look: fixed stays"), "{console}");
}

/// The original lays out every volume as a writable one.
#[test]
fn what_is_built_as_the_original_does_runs_under_linuxkits_contract() {
    check(&console("\"@pkg:TREE/tests/linuxkit-init\"", &["--compat", "linuxkit"]));
}
