//! Machines that run detached, as those see them who reach them by name: lists, consoles, logs, programs, copies, ends.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::images;
use crate::harness::kiln::{KILN, Running, Said, Sandbox, run};
use crate::harness::kvm::KvmJob;
use crate::harness::roots::noise;
use crate::harness::tree;
use crate::shares::posix;

/// A machine that does not answer by then has failed.
const LIMIT: Duration = Duration::from_secs(300);

/// On top of `examples/getty.yml`. The command line is for the lab.
const YAML: &str = r#"
kernel: {image: "@pkg:TREE/pkg/kernel", cmdline: "console=ttyS0 quiet loglevel=3 no_timer_check"}
services:
- name: web
  image: "@pkg:TREE/pkg/busybox"
  net: new
  after: [agent]
  command: [sh, -c, "echo web is up; exec sleep 100000"]
"#;

/// The example with an agent and a shell, and a service, built once.
fn built() -> &'static Sandbox {
    static BUILT: OnceLock<Sandbox> = OnceLock::new();
    BUILT.get_or_init(|| {
        let sandbox = Sandbox::new();
        let yaml = sandbox.write_yaml("vm.yml", YAML);
        let mut build = sandbox.kiln(["build", "--no-sbom", "--name", "vm", "--cache"]);
        run(build.arg(images::store()).args([tree().join("examples/getty.yml"), yaml])).ok();
        sandbox
    })
}

/// Everything by name.
fn kiln(words: &[&str]) -> Said {
    run(&mut built().kiln(words))
}

fn json(words: &[&str]) -> Value {
    serde_json::from_str(&kiln(words).ok().stdout).unwrap()
}

/// A machine that is killed when the test ends, however that ends.
struct Left(&'static str);

impl Drop for Left {
    fn drop(&mut self) {
        let _ended = built().kiln(["kill", self.0]).stderr(Stdio::null()).status();
    }
}

const START: [&str; 7] = ["run", "-d", "-accel", "qemu", "-mem", "512", "-networking"];

#[test]
fn a_detached_machine_is_reached_by_its_name_and_a_list_never_lies() {
    let start = [&START[..], &["none", "-virtiofs", "shared,ro,watch", "-name", "box", "vm"]].concat();
    built().write("shared/d/f", "one");
    assert_eq!(kiln(&start).ok().stdout, "box\n");
    let _left = Left("box");
    check_taken(&start);
    let listed = &json(&["ps", "--json"])[0];
    assert_eq!((listed["name"].as_str(), listed["state"].as_str()), (Some("box"), Some("running")));
    let mut logs = Running::start(&mut built().kiln(["logs", "-f", "box"]));
    logs.wait_for("web is up", LIMIT);
    check_console();
    check_programs();
    check_many_programs();
    check_terminal();
    check_without_agent();
    check_copies();
    check_watched();
    check_inspect();
    check_completion();
    kiln(&["stop", "-timeout", "120", "box"]).ok();
    let (status, printed) = logs.wait(LIMIT);
    assert!(status.success() && printed.contains("kiln: power off"), "{printed}");
    assert_eq!(kiln(&["ps"]).ok().stdout.lines().count(), 1);
    assert_eq!(json(&["ps", "-a", "--json"])[0]["ended"]["how"], "powered off");
    check_killed(&start);
}

/// Neither its name nor its folder.
fn check_taken(start: &[&str]) {
    let said = kiln(start);
    assert!(said.code() == 1 && said.stderr.contains("in use by another machine, process"), "{}", said.stderr);
    let elsewhere: Vec<&str> = start.iter().copied().chain(["-state", "other"]).collect();
    let said = kiln(&elsewhere);
    assert!(said.code() == 1 && said.stderr.contains("a machine called `box` runs already"), "{}", said.stderr);
    let said = kiln(&["rm", "box"]);
    assert!(said.code() == 1 && said.stderr.contains("kiln stop"), "{}", said.stderr);
    for words in [&["stop", "nobody"][..], &["console", "nobody"], &["logs", "nobody"], &["cp", "nobody:/x", "y"]] {
        let said = kiln(words);
        assert!(said.code() == 1 && said.stderr.contains("no machine called `nobody` runs"), "{}", said.stderr);
    }
    assert_eq!(kiln(&["exec", "nobody", "true"]).code(), 125);
}

/// Two at once, one of whom comes later.
fn check_console() {
    let mut first = Running::start(&mut built().kiln(["console", "box"]));
    // What was printed before comes first.
    first.wait_for("root shell", LIMIT);
    first.type_in("echo the answer is $((6 * 7))\n");
    first.wait_for("the answer is 42", LIMIT);
    let mut second = Running::start(&mut built().kiln(["console", "vm"]));
    second.wait_for("the answer is 42", LIMIT);
    second.type_in("echo and now $((6 * 8))\n");
    first.wait_for("and now 48", LIMIT);
    let mut left = Running::at_terminal(&built().kiln(["console", "box"]), (80, 24));
    left.wait_for("Ctrl-] leaves the console", LIMIT);
    left.type_in("echo then $((6 * 9))\n");
    left.wait_for("then 54", LIMIT);
    left.type_in("\x1d");
    let (status, said) = left.wait(LIMIT);
    assert!(status.success() && said.ends_with("left the console; the machine runs on\n"), "{status:?} {said}");
}

fn check_programs() {
    wait_for_agent();
    let said = kiln(&["exec", "box", "sh", "-c", "cat /proc/1/comm; echo oh >&2; id -u; pwd; exit 7"]);
    assert_eq!((said.code(), said.stdout.as_str(), said.stderr.as_str()), (7, "init\n0\n/\n", "oh\n"));
    assert_eq!(kiln(&["exec", "box", "no-such-program"]).code(), 127);
    let said =
        kiln(&["exec", "-e", "A=b c", "-w", "/usr", "-u", "7:8", "box", "sh", "-c", "echo $A; pwd; id -u; id -g"]);
    assert_eq!(said.ok().stdout, "b c\n/usr\n7\n8\n");
    let in_service =
        kiln(&["exec", "-s", "web", "box", "sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '; ls /sys/class/net"]);
    assert_eq!(in_service.ok().stdout, "sleep 100000 lo\n");
    let nowhere = kiln(&["exec", "-s", "none", "box", "true"]);
    assert!(nowhere.code() == 125 && nowhere.stderr.contains("agent, getty, web"), "{}", nowhere.stderr);
    assert_eq!(kiln(&["exec", "-t", "box", "sh", "-c", "tty"]).ok().stdout.split('/').nth(1), Some("dev"));
    let content = noise(61, 4 << 20);
    let file = built().write("content", &content);
    let said = run(built().kiln(["exec", "-i", "box", "sha256sum"]).stdin(fs::File::open(file).unwrap())).ok();
    assert_eq!(said.stdout.split(' ').next(), Some(sha256(&content).as_str()));
    let mut waits = Running::start(&mut built().kiln([
        "exec",
        "box",
        "sh",
        "-c",
        "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.1; done",
    ]));
    waits.wait_for("ready", LIMIT);
    let pid = rustix::process::Pid::from_raw(i32::try_from(waits.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let (status, said) = waits.wait(LIMIT);
    assert!(status.code() == Some(3) && said.contains("got it"), "{status:?} {said}");
}

/// Each at the same time as all others.
fn check_many_programs() {
    let start = |number: i32| {
        let program = format!("sleep 0.5; echo {number}; exit {number}");
        (number, Running::start(&mut built().kiln(["exec", "box", "sh", "-c", &program])))
    };
    let all: Vec<_> = (0..20).map(start).collect();
    for (number, program) in all {
        let (status, said) = program.wait(LIMIT);
        assert_eq!((status.code(), said), (Some(number), format!("{number}\n")));
    }
}

/// Its size, also when that changes, and its keys.
fn check_terminal() {
    let program = "trap 'stty size' WINCH; trap 'echo stopped; exit 4' INT; stty size; while :; do sleep 0.1; done";
    let exec = built().kiln(["exec", "-it", "box", "sh", "-c", program]);
    let mut at = Running::at_terminal(&exec, (132, 43));
    at.wait_for("43 132", LIMIT);
    at.resize(100, 30);
    at.wait_for("30 100", LIMIT);
    at.type_in("\x03");
    let (status, said) = at.wait(LIMIT);
    assert!(status.code() == Some(4) && said.contains("stopped"), "{status:?} {said}");
}

/// The agent dies while a program runs: that is told, and the agent comes back.
fn check_without_agent() {
    let mut waits = Running::start(&mut built().kiln(["exec", "box", "sh", "-c", "echo ready; sleep 100000"]));
    waits.wait_for("ready", LIMIT);
    let killed = kiln(&["exec", "box", "sh", "-c", "kill -9 $(pidof agent)"]);
    assert!(killed.code() == 125 && killed.stderr.contains("before the program ended"), "{}", killed.stderr);
    let (status, said) = waits.wait(LIMIT);
    assert!(status.code() == Some(125) && said.contains("before the program ended"), "{status:?} {said}");
    wait_for_agent();
}

/// It has been started; it listens a moment later.
fn wait_for_agent() {
    let until = Instant::now() + LIMIT;
    while kiln(&["exec", "box", "true"]).status.code() == Some(125) && Instant::now() < until {}
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check_copies() {
    let folder = built().path().join("from");
    fs::create_dir_all(folder.join("deep")).unwrap();
    let content = noise(67, 1 << 20);
    fs::write(folder.join("deep/file"), &content).unwrap();
    fs::set_permissions(folder.join("deep/file"), fs::Permissions::from_mode(0o751)).unwrap();
    symlink("deep/file", folder.join("link")).unwrap();
    kiln(&["cp", "from", "box:/tmp"]).ok();
    let said =
        kiln(&["exec", "box", "sh", "-c", "cd /tmp/from; stat -c %a deep/file; readlink link; sha256sum < link"]).ok();
    assert_eq!(said.stdout, format!("751\ndeep/file\n{}  -\n", sha256(&content)));
    kiln(&["cp", "box:/tmp/from", "back"]).ok();
    let back = built().path().join("back");
    assert!(fs::read(back.join("link")).unwrap() == content);
    assert_eq!(fs::metadata(back.join("deep/file")).unwrap().permissions().mode() & 0o777, 0o751);
    assert_eq!(fs::read_link(back.join("link")).unwrap(), Path::new("deep/file"));
    kiln(&["cp", "-s", "web", "vm.yml", "box:/tmp/new"]).ok();
    assert!(kiln(&["exec", "-s", "web", "box", "cat", "/tmp/new"]).ok().stdout.contains("web is up"));
    let said = kiln(&["cp", "box:/no/such", "there"]);
    assert!(said.code() == 1 && said.stderr.contains("/no/such"), "{}", said.stderr);
    assert!(!built().path().join("there").exists());
}

/// A program that watches a shared folder hears of what the host does there.
fn check_watched() {
    fs::copy(posix(), built().path().join("posix")).unwrap();
    kiln(&["cp", "posix", "box:/tmp/posix"]).ok();
    kiln(&["exec", "box", "sh", "-c", "mkdir /tmp/w && mount -t virtiofs virtiofs0 /tmp/w && cat /tmp/w/d/f"]).ok();
    let mut watches = Running::start(&mut built().kiln(["exec", "box", "/tmp/posix", "watch", "/tmp/w/d"]));
    watches.wait_for("WATCHING", LIMIT);
    built().write("shared/d/f", "two");
    watches.wait_for("CHANGED f\n", LIMIT);
    fs::create_dir(built().path().join("shared/d/new")).unwrap();
    watches.wait_for("CHANGED new\n", LIMIT);
    fs::remove_file(built().path().join("shared/d/f")).unwrap();
    watches.wait_for("CHANGED .\n", LIMIT);
}

/// bash knows what runs, and where its name belongs.
fn check_completion() {
    let script = r#"PATH=${1%/*}:$PATH; source <(kiln completion bash)
        try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _kiln_and_machines kiln "${!#}" "${COMP_WORDS[COMP_CWORD-1]}"; echo "${COMPREPLY[*]}"; }
        try kiln stop b; try kiln kill nobody b; try kiln exec -i b; try kiln exec box b; try kiln cp b; try kiln port ls b; try kiln build b"#;
    let mut bash = Command::new("bash");
    bash.args(["-c", script, "bash", KILN]).env("XDG_RUNTIME_DIR", built().path().join("home/run"));
    assert_eq!(run(&mut bash).ok().stdout, "box\nbox\nbox\n\nbox:\nbox\n\n");
}

fn check_inspect() {
    let shown = json(&["inspect", "-machine", "--json", "vm"]);
    assert_eq!((shown["name"].as_str(), shown["memory_mib"].as_u64()), (Some("box"), Some(512)));
    assert!(shown["memory_used_bytes"].as_u64().is_some_and(|bytes| bytes > 32 << 20), "{shown}");
    // `vm` is also what was built, and `box` is not.
    assert!(json(&["inspect", "--json", "vm"])["contents"].is_object());
    assert_eq!(json(&["inspect", "--json", "box"])["name"], "box");
}

fn check_killed(start: &[&str]) {
    kiln(start).ok();
    let pid = json(&["ps", "--json"])[0]["pid"].as_i64().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    // It is no child of ours: its socket ends with it.
    let until = Instant::now() + LIMIT;
    while kiln(&["ps"]).ok().stdout.lines().count() > 1 && Instant::now() < until {}
    assert_eq!(json(&["ps", "--json"]).as_array().map(Vec::len), Some(0));
    assert_eq!(json(&["ps", "-a", "--json"])[0]["state"], "was killed");
    kiln(&["rm", "box"]).ok();
    assert_eq!(json(&["ps", "-a", "--json"]).as_array().map(Vec::len), Some(0));
    assert!(!built().path().join("vm-state").exists());
}

#[test]
fn a_machine_that_cannot_start_is_told_of_where_its_user_is() {
    let sandbox = Sandbox::new();
    let said = run(&mut sandbox.kiln(["run", "-d", "nosuch"]));
    assert!(said.code() == 1 && said.stdout.is_empty() && said.stderr.contains("nosuch-kernel"), "{}", said.stderr);
    let said = run(&mut sandbox.kiln(["run", "-d", "-name", "a/b", "-kernel", "x"]));
    assert!(said.code() != 0 && said.stdout.is_empty(), "{}", said.stderr);
    assert!(sandbox.files().is_empty());
}

/// The same under KVM, with much more to carry.
const KVM_SCRIPT: &str = r#"
export XDG_RUNTIME_DIR=$PWD/run
[ "$(kiln run -d -accel kvm -mem 512 -cpus 2 -networking none -console pty \
    -cmdline "console=hvc0 $(cat vm-cmdline)" vm 2> notes)" = vm ]
cat notes
kiln ps
kiln logs -f vm > printed 2>&1 &
logs=$!
wait_for 'web is up' printed 300
until kiln exec vm true 2> /dev/null; do sleep 0.2; done
code=0; kiln exec vm sh -c 'exit 7' || code=$?
echo "code $code"
head -c 50000000 /dev/urandom > big
sha256sum < big > here
kiln exec -i vm sha256sum < big > there
cmp here there
kiln exec -i vm cat < big | cmp - big
echo 50 MB there and back
kiln exec -s web vm cat /proc/1/comm
# The machine's /tmp has a tenth of its memory.
head -c 20000000 big > part
kiln cp part vm:/tmp/part
kiln cp vm:/tmp/part back
cmp part back
echo copied
kiln exec vm sh -c "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.1; done" > trapped &
trapped=$!
wait_for ready trapped 60
kill -TERM $trapped
code=0; wait $trapped || code=$?
cat trapped; echo "trapped $code"
# Somebody at the pseudoterminal, whose window has a size, and somebody beside.
stty -F vm-state/tty rows 33 cols 101
echo 'echo typed at $((40 + 2))' > vm-state/tty
mkfifo keys
kiln console vm < keys > seen &
exec 9> keys
sized() { kiln exec vm sh -c "until stty size | grep '$1'; do sleep 0.1; done < /dev/hvc0"; }
sized '33 101'
stty -F vm-state/tty rows 20 cols 60
echo > vm-state/tty
sized '20 60'
echo 'echo typed beside $((40 + 4))' >&9
wait_for 'typed at 42' printed 60
wait_for 'typed beside 44' printed 60
wait_for 'typed beside 44' seen 60
kiln stop vm
wait $logs
grep 'power off' printed
kiln ps -a
ls -1 vm-state
kiln run -d -accel kvm -mem 512 -networking none vm
kill -9 $(cat vm-state/lock)
while [ $(kiln ps | wc -l) != 1 ]; do :; done
kiln ps -a
"#;

#[test]
fn a_detached_machine_on_kvm_is_reached_by_its_name() {
    let mut job = KvmJob::new(KVM_SCRIPT);
    for name in ["vm-kernel", "vm-initrd.img", "vm-cmdline"] {
        job = job.file(&built().path().join(name), name);
    }
    let said = job.memory_mib(2048).run().ok();
    for wanted in [
        "the console is /dev/pts/",
        "running",
        "code 7\n",
        "50 MB there and back\n",
        "sleep\n",
        "copied\n",
        "got it\ntrapped 3\n",
        "33 101\n20 60\n",
        "kiln: power off",
        "powered off",
        "console.log\nkiln.log\nlock\nmachine.json\n",
        "was killed",
    ] {
        assert!(said.stdout.contains(wanted), "no `{wanted}` in:\n{}\n{}", said.stdout, said.stderr);
    }
}
