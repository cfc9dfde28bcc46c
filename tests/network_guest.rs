//! A machine on the network as its users see it: ssh, scp and curl on the host, Redis' protocol, and what the machine itself
//! reaches.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::harness::fixtures::{newer_kernel, static_program};
use crate::harness::images;
use crate::harness::initrd::{Initrd, NETWORK};
use crate::harness::kiln::{Running, Said, Sandbox, run};
use crate::harness::kvm::KvmJob;
use crate::harness::roots::noise;
use crate::harness::tree;

/// A machine that does not answer by then has failed.
const LIMIT: Duration = Duration::from_secs(300);
/// What is carried there and back.
const BIG_BYTES: usize = 32 << 20;

/// `examples/sshd.yml` with more servers, the key to it, and what was built.
fn built() -> &'static Sandbox {
    static BUILT: OnceLock<Sandbox> = OnceLock::new();
    BUILT.get_or_init(|| {
        let sandbox = Sandbox::new();
        let key = sandbox.write("key", "").with_file_name("key");
        fs::remove_file(&key).unwrap();
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key)).ok();
        sandbox.write("home/.ssh/id_ed25519.pub", fs::read(sandbox.path().join("key.pub")).unwrap());
        let files = ["examples/sshd.yml", "tests/fixtures/network-check.yml"].map(|file| tree().join(file));
        let words = ["build", "--no-sbom", "--name", "machine", "--cache"];
        run(sandbox.kiln(words).arg(images::store()).args(files)).ok();
        sandbox
    })
}

/// Ports of the host that nobody has now.
fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    let held = [(); COUNT].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    held.each_ref().map(|listener| listener.local_addr().unwrap().port())
}

/// A machine that runs, and the ports that lead to it.
struct Machine {
    running: Running,
    ssh: u16,
    web: u16,
    redis: u16,
    echo: u16,
    known_hosts: PathBuf,
    _state: Sandbox,
}

impl Machine {
    fn start() -> Self {
        let [ssh, web, redis, echo] = free_ports();
        let state = Sandbox::new();
        let mut command = built().kiln([
            "run",
            "-accel",
            "qemu",
            "-mem",
            "1024",
            "-cpus",
            "2",
            "-host-loopback",
            "-networking",
            "user,name=guest-box",
            "-state",
        ]);
        command.arg(state.path());
        for (host, guest) in [(ssh, "22"), (web, "80/tcp"), (redis, "6379"), (echo, "7/udp")] {
            command.args(["-publish", &format!("{host}:{guest}")]);
        }
        let mut running = Running::start(command.arg("machine"));
        running.wait_for("up: all servers answer", LIMIT);
        Self { running, ssh, web, redis, echo, known_hosts: state.path().join("known_hosts"), _state: state }
    }

    /// `ssh` or `scp`, which see none of the user's own settings and say what they do.
    fn client(&self, program: &str, port: &str) -> Command {
        let mut command = Command::new(program);
        let known = format!("UserKnownHostsFile={}", self.known_hosts.display());
        command.args([
            "-v",
            "-F",
            "/dev/null",
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=accept-new",
            "-o",
            &known,
        ]);
        command.args(["-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=300", port, &self.ssh.to_string()]);
        command
    }

    fn ssh(&self, script: &str) -> Said {
        run(self.client("ssh", "-p").arg("-i").arg(built().path().join("key")).args(["root@localhost", script]))
    }

    fn scp(&self, from: &str, to: &str) {
        run(self.client("scp", "-P").arg("-i").arg(built().path().join("key")).args([from, to])).ok();
    }
}

/// Answers each request with the same bytes, for as long as the test runs.
fn web_server(content: Vec<u8>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", content.len());
            // A client that goes away has its own trouble.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&content));
        }
    });
    port
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_machine_is_reached_by_ssh_scp_curl_and_redis_and_reaches_the_host() {
    let machine = Machine::start();
    check_ssh(&machine);
    check_copies(&machine);
    let page =
        run(Command::new("curl").args(["-sS", "--max-time", "300", &format!("http://localhost:{}/", machine.web)]))
            .ok();
    assert_eq!(page.stdout, "hello from nginx\n");
    check_redis(machine.redis);
    check_echo(machine.echo);
    check_from_inside(&machine);
    // The connection may end before the answer does.
    machine.ssh("poweroff");
    let (status, console) = machine.running.wait(LIMIT);
    assert!(status.success() && console.contains("kiln: power off"), "{console}");
}

fn check_ssh(machine: &Machine) {
    let stranger = run(machine.client("ssh", "-p").args(["-o", "IdentityFile=none", "root@localhost", "true"]));
    // Any trouble on the way is a 255, too.
    assert!(stranger.code() == 255 && stranger.stderr.contains("Permission denied (publickey)"), "{}", stranger.stderr);
    let said = machine.ssh("cat /proc/1/comm; id -u").ok();
    assert_eq!(said.stdout, "init\n0\n");
}

fn check_copies(machine: &Machine) {
    let folder = Sandbox::new();
    let content = noise(41, BIG_BYTES);
    let there = folder.write("there", &content);
    machine.scp(&there.to_string_lossy(), "root@localhost:/var/tmp/big");
    let sum = machine.ssh("sha256sum /var/tmp/big").ok().stdout;
    assert_eq!(sum.split(' ').next(), Some(sha256(&content).as_str()));
    let back = folder.path().join("back");
    machine.scp("root@localhost:/var/tmp/big", &back.to_string_lossy());
    assert!(fs::read(back).unwrap() == content, "it came back changed");
}

/// Ten thousand requests in one go, as a pipe of `redis-cli` sends them, and an answer to each.
fn check_redis(port: u16) {
    const REQUESTS: usize = 10_000;
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let requests: String = (0..REQUESTS).map(|number| format!("SET key:{number} {number}\r\n")).collect();
    let mut writer = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || writer.write_all(requests.as_bytes()));
    let mut answers = vec![0; REQUESTS * b"+OK\r\n".len()];
    stream.read_exact(&mut answers).unwrap();
    sender.join().unwrap().unwrap();
    assert!(answers.chunks(5).all(|answer| answer == b"+OK\r\n"));
    stream.write_all(b"GET key:9999\r\nDBSIZE\r\nQUIT\r\n").unwrap();
    let mut last = String::new();
    stream.read_to_string(&mut last).unwrap();
    assert_eq!(last, "$4\r\n9999\r\n:10000\r\n+OK\r\n");
}

/// A datagram may be lost, so it is sent until it comes back.
fn check_echo(port: u16) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    for len in [1, 1000, 1472] {
        let sent = noise(u64::from(port), len);
        let came_back = (0..20).any(|_| {
            let mut back = [0; 2000];
            socket.send(&sent).unwrap();
            socket.recv(&mut back).is_ok_and(|count| back[..count] == sent)
        });
        assert!(came_back, "{len} bytes");
    }
}

fn check_from_inside(machine: &Machine) {
    let content = noise(43, 8 << 20);
    let port = web_server(content.clone());
    let fetched = machine.ssh(&format!("wget -qO- http://10.0.2.2:{port}/ | sha256sum")).ok();
    assert_eq!(fetched.stdout.split(' ').next(), Some(sha256(&content).as_str()));
    let said = machine
        .ssh("ping -c 1 -w 60 gateway.kiln.internal; uname -n; cat /etc/resolv.conf; ip addr show eth0")
        .ok()
        .stdout;
    for wanted in
        ["1 packets received", "\nguest-box\n", "nameserver 10.0.2.3\n", "inet 10.0.2.15/24", "/64 scope global"]
    {
        assert!(said.contains(wanted), "no `{wanted}` in:\n{said}");
    }
    let nobody = machine.ssh("nslookup nobody.kiln.internal");
    assert!(nobody.code() != 0, "{}", nobody.stdout);
}

/// `ssh` and `scp` of this machine in one tar file, with what they are linked to: the lab has no libraries.
fn clients(sandbox: &Sandbox) -> PathBuf {
    let path = sandbox.path().join("clients.tar");
    let pack = r#"for program in ssh scp; do
            command -v $program; ldd "$(command -v $program)" | grep -o '/[^ ]*'
        done | sort -u | tar -cf "$1" --dereference --transform 's|.*/||' --files-from - --absolute-names"#;
    run(Command::new("sh").args(["-euc", pack, "sh"]).arg(&path)).ok();
    path
}

/// A program that is linked starts by its loader where there is nothing but it.
const KVM_SCRIPT: &str = r#"
mkdir clients www
tar -xf clients.tar -C clients
[ -e /etc/passwd ] || { mkdir -p /etc; echo root:x:0:0:root:/:/bin/sh > /etc/passwd; }
for program in ssh scp; do
    printf '#!/bin/sh\nexec %s --library-path %s %s/%s "$@"\n' \
        $PWD/clients/ld-linux* $PWD/clients $PWD/clients $program > $program
    chmod +x $program
done
options='-F /dev/null -i key -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=known'
cp key.pub www/page
busybox httpd -p 127.0.0.1:8099 -h www
kiln run -accel kvm -mem 512 -cpus 2 -host-loopback -networking user,name=guest-box -state s \
    -publish 8080:80 -publish 6379:6379 -publish 2222:22 machine > out 2>&1 < /dev/null &
wait_for 'up: all servers answer' out 300
grep -e 'dhcp: eth0' out
busybox wget -q -O - http://127.0.0.1:8080/
printf 'SET a 1\r\nGET a\r\nQUIT\r\n' | busybox nc 127.0.0.1 6379
ssh $options -p 2222 root@127.0.0.1 'cat /proc/1/comm; uname -n; wget -q -O - http://host.kiln.internal:8099/page
    ping -c 1 -w 60 gateway.kiln.internal'
scp $options -S $PWD/ssh -P 2222 big root@127.0.0.1:/var/tmp/big
scp $options -S $PWD/ssh -P 2222 root@127.0.0.1:/var/tmp/big back
cmp big back
echo it came back as it was
ssh $options -p 2222 root@127.0.0.1 poweroff || true
wait $!
echo ended
grep 'power off' out
"#;

/// Everything at once under KVM: the lab is slow to start.
#[test]
fn a_machine_on_kvm_is_reached_by_ssh_and_scp_and_reaches_the_host() {
    let sandbox = Sandbox::new();
    let mut job = KvmJob::new(KVM_SCRIPT)
        .file(&clients(&sandbox), "clients.tar")
        .file(&sandbox.write("big", noise(47, 4 << 20)), "big");
    for name in ["machine-kernel", "machine-initrd.img", "machine-cmdline", "key", "key.pub"] {
        job = job.file(&built().path().join(name), name);
    }
    let said = job.memory_mib(2048).run().ok();
    let key = fs::read_to_string(built().path().join("key.pub")).unwrap();
    for wanted in [
        "dhcp: eth0: 10.0.2.15/24 by 10.0.2.2",
        "hello from nginx\n",
        "+OK\n$1\n1\n+OK\n",
        &format!("init\nguest-box\n{key}"),
        "1 packets received",
        "it came back as it was\n",
        "kiln: power off",
        "ended\n",
    ] {
        assert!(said.stdout.contains(wanted), "no `{wanted}` in:\n{}\n{}", said.stdout, said.stderr);
    }
}

/// Several datagrams of one length go as one frame: the guest's kernel leaves it to the card to cut them.
const RUNS_SCRIPT: &str = r#"
chmod +x runs
./runs echo 127.0.0.1:7070 > echo.out &
kiln run -accel kvm -mem 256 -host-loopback -pcap frames -kernel vmlinuz -initrd initrd -state s \
    -cmdline 'console=ttyS0 quiet panic=-1' < /dev/null
kill $!
./runs longest frames
"#;

const RUNS_INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
while read -r module; do /bin/busybox insmod /modules/$module.ko; done < /modules/order
/bin/busybox ip addr add 10.0.2.15/24 dev eth0
/bin/busybox ip link set eth0 up
runs card eth0
runs ask 10.0.2.2:7070
/bin/busybox poweroff -f
"#;

#[test]
fn datagrams_go_in_runs_both_ways_where_the_guests_kernel_can() {
    let sandbox = Sandbox::new();
    let runs = static_program(&sandbox, "runs", include_str!("fixtures/datagram-runs.rs"));
    let (kernel, initrd) = (newer_kernel(), sandbox.path().join("initrd"));
    let packed = Initrd::new().modules_of(&kernel, &NETWORK).text("init", RUNS_INIT);
    packed.file("bin/runs", &runs).pack(&initrd);
    let job = KvmJob::new(RUNS_SCRIPT).file(&kernel.vmlinuz, "vmlinuz").file(&initrd, "initrd").file(&runs, "runs");
    let said = job.run().ok().stdout;
    for wanted in ["tx-udp-segmentation: can true is true", "all of a run came back"] {
        assert!(said.contains(wanted), "{said}");
    }
    let longest = said.lines().find_map(|line| line.strip_prefix("longest out ")?.split_once(" in "));
    let [out, back] = longest.map(|(out, back)| [out, back].map(|len| len.trim().parse().unwrap())).unwrap_or([0; 2]);
    let run_bytes = 40 * 1_000 + 42;
    assert_eq!([out, back], [run_bytes; 2], "{said}");
}
