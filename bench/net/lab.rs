//! Two namespaces and a stack between them; every test once for each stack and round.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::stacks::{STACKS, Stack};

const GATEWAY: &str = "10.0.2.2";
/// Each test and its numbers: streams, connections or threads, and milliseconds.
const TESTS: [(&str, &str); 10] = [
    ("up", "1 1200"),
    ("down", "1 1200"),
    ("up", "8 1200"),
    ("down", "8 1200"),
    ("rr", "1 1000"),
    ("rr", "64 1000"),
    ("crr", "1 1000"),
    ("crr", "16 1000"),
    ("udprr", "1000"),
    ("udp64", "1000"),
];
const CONNECTIONS: &str = "1000";

/// A process that ends with the lab.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The namespaces of one stack; gone with it.
struct Namespaces {
    host: String,
    guest: String,
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in [&self.host, &self.guest] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn shell(line: &str) {
    let status = Command::new("sh").args(["-ec", line]).status().expect("a shell");
    assert!(status.success(), "{line}");
}

fn inside(namespace: &str, words: &[String]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).args(words).stdin(Stdio::null()).stderr(Stdio::null());
    command
}

fn own(words: &str) -> Vec<String> {
    let program = std::env::current_exe().expect("a path").display().to_string();
    std::iter::once(program).chain(words.split_whitespace().map(str::to_owned)).collect()
}

impl Namespaces {
    fn new() -> Self {
        // Known to whoever started this, to be removed if this is killed.
        let number = std::os::unix::process::parent_id();
        let made = Self { host: format!("kiln-bench-h{number}"), guest: format!("kiln-bench-g{number}") };
        let Self { host, guest } = &made;
        // Buffers and congestion control are the same on every host; passt wants a device with a route.
        shell(&format!(
            "for n in {host} {guest}; do ip netns add $n; ip -n $n link set lo up; ip netns exec $n sh -c '
                 cd /proc/sys/net/ipv4; for c in cubic reno; do echo $c > tcp_congestion_control 2> /dev/null && break; done
                 echo 4096 131072 6291456 > tcp_rmem; echo 4096 16384 4194304 > tcp_wmem; echo 1024 65535 > ip_local_port_range
                 echo 1 > ../ipv6/conf/all/disable_ipv6 || true'; done
             ip -n {host} link add up0 type veth peer name up1; ip -n {host} link set up1 up; ip -n {host} addr add 192.0.2.2/24 dev up0
             ip -n {host} link set up0 up; ip -n {host} route add default via 192.0.2.1"
        ));
        made
    }
}

struct Lab {
    stack: Process,
    _others: Vec<Process>,
    namespaces: Namespaces,
}

fn wait_for(what: &str, is_there: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_there() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what} never came");
        sleep(Duration::from_millis(5));
    }
}

/// Starts a program that says `ready`.
fn start(mut command: Command) -> Process {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    let output = child.stdout.as_mut().expect("piped above");
    BufReader::new(output).read_line(&mut line).expect("its first line");
    assert_eq!(line.trim(), "ready");
    Process(child)
}

impl Lab {
    fn new(stack: &Stack, serve: &str, folder: &Path) -> Self {
        let namespaces = Namespaces::new();
        let Namespaces { host, guest } = &namespaces;
        let socket = folder.join("socket").display().to_string();
        let _ = fs::remove_file(&socket);
        // The far end's names of `pid` and CPU time are the stack's: `ip netns exec` becomes what it starts.
        let words = stack.words(serve, &socket, guest);
        let child = inside(host, &words).stdout(Stdio::null()).spawn().expect("the stack starts");
        let process = Process(child);
        let mut others = Vec::new();
        if stack.has_tap {
            wait_for("the stack's tap", || {
                let out = Command::new("ip").args(["-n", guest, "route"]).output().expect("ip");
                String::from_utf8_lossy(&out.stdout).contains("default")
            });
        } else {
            wait_for("the stack's socket", || Path::new(&socket).exists());
            let headers = if stack.has_headers { "vnet_hdr" } else { "" };
            shell(&format!("ip netns exec {guest} ip tuntap add dev tap0 mode tap {headers}"));
            let headers = if stack.has_headers { "virtio" } else { "" };
            others.push(start(inside(guest, &own(&format!("bridge tap0 {socket} {headers}")))));
            shell(&format!(
                "ip -n {guest} addr add {}/24 dev tap0; ip -n {guest} link set tap0 txqueuelen 20000 mtu {} up
                 ip -n {guest} route add default via {GATEWAY} dev tap0",
                stack.guest, stack.mtu
            ));
        }
        others.push(start(inside(host, &own("serve 127.0.0.1"))));
        Self { stack: process, _others: others, namespaces }
    }

    fn status(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.stack.0.id())).unwrap_or_default()
    }

    fn resident_kib(&self) -> u64 {
        let status = self.status("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }

    fn cpu_s(&self) -> f64 {
        ticks(&self.status("stat"))
    }

    /// Segments that the guest sent again; how often its timer made it do so, how often its probe after a pause; and how
    /// often it learnt that the first had arrived.
    fn resent(&self) -> [u64; 4] {
        let words = ["cat", "/proc/net/snmp", "/proc/net/netstat"].map(str::to_owned);
        let output = inside(&self.namespaces.guest, &words).output().expect("cat");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        // Pairs of lines: names, values.
        let counters =
            lines.chunks_exact(2).flat_map(|pair| pair[0].split_whitespace().zip(pair[1].split_whitespace()));
        let counters: std::collections::HashMap<&str, &str> = counters.collect();
        let names = ["RetransSegs", "TCPTimeouts", "TCPLossProbes", "TCPDSACKRecv"];
        names.map(|name| counters.get(name).and_then(|value| value.parse().ok()).unwrap_or(0))
    }

    fn load(&self, words: &str) -> Command {
        let mut command = inside(&self.namespaces.guest, &own(&format!("load {words}")));
        command.stdout(Stdio::piped()).stdin(Stdio::piped()).stderr(Stdio::inherit());
        command
    }

    fn test(&self, test: &str, numbers: &str) -> String {
        let (cpu_s, resent) = (self.cpu_s(), self.resent());
        let output = self.load(&format!("{test} {GATEWAY} {numbers}")).output().expect("the load starts");
        if !output.status.success() {
            return "failed=1".to_owned();
        }
        let row = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let [again, timeouts, probes, needless] = self.resent();
        format!(
            "{row} cpu_s={:.2} resent={} timeouts={} probes={} needless={} rss_kib={}",
            self.cpu_s() - cpu_s,
            again - resent[0],
            timeouts - resent[1],
            probes - resent[2],
            needless - resent[3],
            self.resident_kib()
        )
    }

    fn hold(&self) -> String {
        let before = self.resident_kib();
        let mut child = self.load(&format!("hold {GATEWAY} {CONNECTIONS}")).spawn().expect("the load starts");
        let (mut opened, mut alive) = (String::new(), String::new());
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        output.read_line(&mut opened).expect("its first line");
        let during = self.resident_kib();
        let _ = child.stdin.take().expect("piped").write_all(b"\n");
        output.read_line(&mut alive).expect("its last line");
        let _ = child.wait();
        format!("{} {} rss_before_kib={before} rss_kib={during}", opened.trim(), alive.trim())
    }
}

fn ticks(stat: &str) -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<f64> = fields.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
    (fields.get(11).unwrap_or(&0.0) + fields.get(12).unwrap_or(&0.0)) / TICKS_PER_SECOND
}

/// Seconds that all processors of the host were busy.
fn busy_s() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> =
        text.lines().next().unwrap_or_default().split_whitespace().skip(1).map(|n| n.parse().unwrap_or(0.0)).collect();
    let idle = fields.get(3).unwrap_or(&0.0) + fields.get(4).unwrap_or(&0.0);
    (fields.iter().take(8).sum::<f64>() - idle) / 100.0
}

/// Seconds of the lab's own processes that have ended, and of those that have not.
fn own_s() -> f64 {
    // Fields 16 and 17 are those of ended children.
    let own = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = own.rsplit(')').next().unwrap_or_default();
    let fields: Vec<f64> = fields.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
    fields.iter().skip(11).take(4).sum::<f64>() / 100.0
}

pub fn run(rounds: u32, serve: &str, names: &[&str]) {
    let folder = std::env::temp_dir().join(format!("kiln-bench-net-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for sockets");
    // passt makes its socket as nobody.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777)).expect("a folder of our own");
    // A connection is a descriptor of the stack, and one of the load.
    let wanted: Vec<&Stack> = STACKS.iter().filter(|stack| names.is_empty() || names.contains(&stack.name)).collect();
    let wanted_tests = std::env::var("TESTS").unwrap_or_default();
    let wanted_tests: Vec<&str> = wanted_tests.split_whitespace().collect();
    for round in 0..rounds {
        for stack in &wanted {
            let (start, busy, own) = (Instant::now(), busy_s(), own_s());
            let lab = Lab::new(stack, serve, &folder);
            let first_kib = {
                lab.test("rr", "1 100");
                lab.resident_kib()
            };
            let print = |test: &str, row: &str| println!("row {} {test} round={round} {row}", stack.name);
            print("hold", &lab.hold());
            for (test, numbers) in
                TESTS.iter().filter(|(test, _)| wanted_tests.is_empty() || wanted_tests.contains(test))
            {
                let count = numbers.split(' ').next().filter(|_| numbers.contains(' ')).unwrap_or_default();
                print(&format!("{test}{count}"), &lab.test(test, numbers));
            }
            sleep(Duration::from_secs(1));
            print("memory", &format!("first_kib={first_kib} last_kib={}", lab.resident_kib()));
            drop(lab);
            // What others did meanwhile, in cores.
            let others = (busy_s() - busy - (own_s() - own)) / start.elapsed().as_secs_f64();
            print("noise", &format!("cores={others:.2}"));
        }
    }
    let _ = fs::remove_dir_all(folder);
}
