//! The network of a machine, from outside and from inside: a guest of busybox and the kernel's own drivers, under the
//! fallback and on a real KVM.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::fixtures::{debian_kernel, static_program};
use crate::harness::initrd::{Initrd, NETWORK, VIRTIO_PCI};
use crate::harness::kiln::{Running, Sandbox, run};
use crate::harness::kvm::KvmJob;
use crate::harness::pcap;

const LIMIT: Duration = Duration::from_secs(240);

/// First program of the guest. It gets an address, asks the web server behind the gateway whose port is on the kernel's
/// command line, and serves: a file on port 80 and over IPv6 alone on port 81, echoes on TCP port 7 and UDP port 9, its own
/// end or a reset on port 13.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module.ko; done
ip link set lo up
ip link set eth0 up
udhcpc -q -f -n -i eth0 -s /dhcp
echo "features $(cat /sys/class/net/eth0/device/features)"
echo "mac $(cat /sys/class/net/eth0/address) mtu $(cat /sys/class/net/eth0/mtu)"
echo "name $(nslookup gateway.kiln.internal 10.0.2.3 | grep -c 'Address.*: 10.0.2.2')"
port=$(sed -n 's/.*web=\([0-9]*\).*/\1/p' /proc/cmdline)
[ -z "$port" ] || echo "fetched $(wget -q -O - http://10.0.2.2:$port/)"
mkdir /www
echo "from the guest" > /www/index.html
httpd -p 80 -h /www
own() { ip -6 addr show dev eth0 scope global | grep -v tentative | sed -n 's/.*inet6 \(fd6b:[^/]*\).*/\1/p' | head -n 1; }
(until [ -n "$(own)" ]; do sleep 0.2; done; httpd -p "[$(own)]:81" -h /www; echo "serving over IPv6") &
nc -ll -p 7 -e cat &
/bin/udp echo 0.0.0.0:9 &
echo "serving"
case $(nc -l -p 13) in
reset) reboot -f ;;
*) poweroff -f ;;
esac
"#;

const DHCP: &str = r#"#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev $interface
ip route add default via $router
echo "address $ip/$mask gateway $router dns $dns"
"#;

/// What busybox lacks: `udp echo ADDRESS` answers datagrams, `udp ask ADDRESS` sends until it is answered.
const UDP: &str = r#"
use std::{env::args, net::UdpSocket, time::Duration};
fn main() {
    let words: Vec<String> = args().collect();
    let mut buffer = [0; 1024];
    if words[1] == "echo" {
        let socket = UdpSocket::bind(&words[2]).unwrap();
        loop {
            let (len, from) = socket.recv_from(&mut buffer).unwrap();
            socket.send_to(&buffer[..len], from).unwrap();
        }
    }
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    for _ in 0..30 {
        socket.send_to(b"hello", &words[2]).unwrap();
        if let Ok((len, _)) = socket.recv_from(&mut buffer) {
            return println!("{}", String::from_utf8_lossy(&buffer[..len]));
        }
    }
}
"#;

/// The guest's initial RAM disk; the program for datagrams is beside it.
fn initrd() -> &'static Path {
    static MADE: OnceLock<(Sandbox, PathBuf)> = OnceLock::new();
    let (_, path) = MADE.get_or_init(|| {
        let sandbox = Sandbox::new();
        let udp = static_program(&sandbox, "udp", UDP);
        let path = sandbox.path().join("initrd");
        let initrd = Initrd::new().modules(&VIRTIO_PCI).modules(&NETWORK);
        initrd.text("init", INIT).text("dhcp", DHCP).file("bin/udp", &udp).pack(&path);
        (sandbox, path)
    });
    path
}

/// `kiln run` of the guest under the fallback, with further words.
fn guest(sandbox: &Sandbox, cmdline: &str, words: &[&str]) -> Running {
    let mut kiln = sandbox.kiln(["run", "-accel", "qemu", "-mem", "256", "-state", "s", "-kernel"]);
    kiln.arg(debian_kernel().vmlinuz).arg("-initrd").arg(initrd());
    kiln.args(["-cmdline", &format!("console=ttyS0 quiet {cmdline}")]).args(words);
    Running::start(&mut kiln)
}

/// A web server that answers everybody the same.
fn web_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _request = stream.read(&mut [0; 1024]);
            let _gone = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nfrom the host");
        }
    });
    port
}

/// A port that nobody has at this moment.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn fetched(address: impl Into<SocketAddr>) -> String {
    let mut stream = TcpStream::connect_timeout(&address.into(), LIMIT).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Sends until it is answered: datagrams may be lost.
fn echoed(port: u16) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let until = Instant::now() + LIMIT;
    let mut buffer = [0; 64];
    while Instant::now() < until {
        socket.send_to(b"hello", local(port)).unwrap();
        if let Ok((len, _)) = socket.recv_from(&mut buffer) {
            return buffer[..len].to_vec();
        }
    }
    panic!("no answer from UDP port {port}");
}

fn tell(port: u16, word: &str) {
    TcpStream::connect(local(port)).unwrap().write_all(word.as_bytes()).unwrap();
}

#[test]
fn networks_and_ports_that_cannot_be_are_refused_before_anything_is_made() {
    let sandbox = Sandbox::new();
    let kernel = debian_kernel().vmlinuz;
    let refused = |words: &[&str]| {
        let mut kiln = sandbox.kiln(["run", "-accel", "qemu", "-kernel"]);
        let said = run(kiln.arg(&kernel).args(words).args(["-state", "s"]));
        (said.code(), said.stderr)
    };
    for (words, status, wanted) in [
        (&["-publish", "99999:1"][..], 2, "`99999` is no port"),
        (&["-publish", "8000-8002:1-2"], 2, "3 ports of the host cannot lead to 2 of the guest"),
        (&["-networking", "bridged"], 2, "no network is called `bridged`; there are user"),
        (&["-networking", "none", "-publish", "80:80"], 2, "no card is on it"),
        (&["-publish", "8080:1", "-publish", "8080:2"], 1, "TCP port 8080 of the host is published twice"),
        (&["-mtu", "67"], 1, "not 67"),
        (&["-ip", "10.0.2.2"], 1, "the guest cannot have the address 10.0.2.2"),
        (&["-mac", "53:54:00:00:00:01"], 1, "its first byte is odd"),
        (&["-networking", "fd,1000"], 1, "descriptor 1000 is not open"),
    ] {
        let (code, said) = refused(words);
        assert!(code == status && said.contains(wanted), "{words:?}: {code} {said}");
        assert!(!sandbox.path().join("s").exists(), "{words:?}");
    }
    for (words, wanted) in [
        (&["-networking", "tap,kiln-none"][..], "there is no tap `kiln-none`"),
        (&["-networking", "unixstream,./nobody"], "cannot connect to the network's socket"),
    ] {
        let (code, said) = refused(words);
        assert!(code == 1 && said.contains(wanted), "{words:?}: {code} {said}");
    }
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = busy.local_addr().unwrap().port();
    let (code, said) = refused(&["-publish", &format!("{port}:80")]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!("cannot publish TCP port {port} of 127.0.0.1: `")), "{said}");
    assert!(said.contains(&format!("process {}, has it", std::process::id())), "{said}");
}

#[test]
fn a_guest_is_on_the_network_reached_where_its_user_says_and_after_a_reset_too() {
    let sandbox = Sandbox::new();
    let web = web_server();
    let [http, udp, end, told] = [(); 4].map(|()| free_port());
    let ports = [format!("{http}:80"), format!("{udp}:9/udp"), format!("{end}:13"), format!("{told}:7,proxy")];
    let words = ports.iter().flat_map(|port| ["-publish", port]).chain(["-host-loopback"]).collect::<Vec<_>>();
    let words = [&words[..], &["-publish", "./web.sock:80", "-mac", "52:54:00:00:00:2a", "-pcap", "frames"]].concat();
    let mut machine = guest(&sandbox, &format!("web={web}"), &words);
    for start in ["reset", "poweroff"] {
        machine.wait_for("address 10.0.2.15/24 gateway 10.0.2.2 dns 10.0.2.3", LIMIT);
        machine.wait_for("mac 52:54:00:00:00:2a mtu 1500", LIMIT);
        machine.wait_for("name 1", LIMIT);
        machine.wait_for("fetched from the host", LIMIT);
        machine.wait_for("serving", LIMIT);
        let page = fetched(local(http));
        assert!(page.ends_with("from the guest\n"), "{page}");
        assert_eq!(echoed(udp), b"hello");
        if start == "reset" {
            who_called_is_told(told);
            ports_come_and_go(&sandbox);
        }
        tell(end, start);
    }
    let (status, console) = machine.wait(LIMIT);
    assert!(status.success(), "{status:?}\n{console}");
    let frames = pcap::frames(&sandbox.path().join("frames"));
    let has = |bytes: &[u8]| frames.iter().any(|frame| frame.windows(bytes.len()).any(|part| part == bytes));
    assert!(has(b"from the guest\n") && has(b"from the host"), "{} frames", frames.len());
    assert!(frames.iter().all(|frame| frame.len() >= 42), "a frame is no shorter than its headers");
    for left in ["s/control.sock", "web.sock"] {
        assert!(!sandbox.path().join(left).exists(), "{left}");
    }
}

/// An echo of the guest's begins with what was put before the first byte (PROXY protocol, version 2).
fn who_called_is_told(port: u16) {
    let mut stream = TcpStream::connect(local(port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"hello").unwrap();
    let mut bytes = [0; 33];
    stream.read_exact(&mut bytes).unwrap();
    let own = stream.local_addr().unwrap().port().to_be_bytes();
    assert_eq!(bytes[..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
    assert_eq!(
        (&bytes[16..24], &bytes[24..26], &bytes[28..]),
        (&[127, 0, 0, 1, 127, 0, 0, 1][..], &own[..], &b"hello"[..])
    );
}

/// `kiln port` on the machine that runs in `sandbox`.
fn ports_come_and_go(sandbox: &Sandbox) {
    let added = run(&mut sandbox.kiln(["port", "add", "s", "127.0.0.1:0:80"])).ok().stdout;
    let (host, guest) = added.trim().split_once(" -> ").expect("host -> guest");
    assert_eq!(guest, "80/tcp");
    let address: SocketAddr = host.parse().unwrap();
    assert!(fetched(address).ends_with("from the guest\n"));
    let listed = run(&mut sandbox.kiln(["port", "ls", "s"])).ok().stdout;
    assert!(listed.contains(&added) && listed.contains("./web.sock -> 80/tcp"), "{listed}");
    run(&mut sandbox.kiln(["port", "rm", "s", host])).ok();
    TcpStream::connect(address).unwrap_err();
    let said = run(&mut sandbox.kiln(["port", "rm", "s", host]));
    assert!(said.code() == 1 && said.stderr.contains("is no published port"), "{}", said.stderr);
    let said = run(&mut sandbox.kiln(["port", "ls", "nowhere"]));
    assert!(said.code() == 1 && said.stderr.contains("no machine called"), "{}", said.stderr);
}

/// A process's parent and state (proc_pid_stat(5)).
fn stat(pid: u32) -> Option<(u32, char)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind) = stat.rsplit_once(')')?;
    let mut words = behind.split_whitespace();
    let state = words.next()?.chars().next()?;
    Some((words.next()?.parse().ok()?, state))
}

/// The one process that `parent` started.
fn child_of(parent: u32) -> u32 {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let children: Vec<u32> = pids.filter(|pid| stat(*pid).is_some_and(|(owner, _)| owner == parent)).collect();
    assert_eq!(children.len(), 1, "{children:?}");
    children[0]
}

#[test]
fn a_killed_machine_leaves_nothing_that_the_next_one_minds() {
    let sandbox = Sandbox::new();
    let http = free_port();
    let publish = format!("{http}:80");
    let mut machine = guest(&sandbox, "", &["-publish", &publish]);
    machine.wait_for("serving", LIMIT);
    let page = fetched(local(http));
    assert!(page.ends_with("from the guest\n"), "{page}");
    let qemu = child_of(machine.pid());
    // As SIGKILL ends it, and QEMU with it.
    drop(machine);
    let until = Instant::now() + LIMIT;
    while stat(qemu).is_some_and(|(_, state)| !matches!(state, 'Z' | 'X')) {
        assert!(Instant::now() < until, "process {qemu} lives on");
        thread::yield_now();
    }
    let said = run(&mut sandbox.kiln(["port", "ls", "s"]));
    assert!(said.code() == 1 && said.stderr.contains("no machine called"), "{}", said.stderr);
    let mut machine = guest(&sandbox, "", &["-publish", &publish, "-v", "2"]);
    machine.wait_for("serving", LIMIT);
    assert!(fetched(local(http)).ends_with("from the guest\n"));
}

#[test]
fn a_machine_without_a_network_has_no_card() {
    let sandbox = Sandbox::new();
    let mut machine = guest(&sandbox, "", &["-networking", "none"]);
    machine.wait_for("can't open '/sys/class/net/eth0/address'", LIMIT);
}

/// Everything at once under KVM: the lab is slow to start. Busybox is the client there.
#[test]
fn a_guest_on_kvm_is_on_the_network_reached_where_its_user_says_and_after_a_reset_too() {
    let said = KvmJob::new(
        "mkdir www && echo from the host > www/index.html && httpd -p 127.0.0.1:8099 -h www\n\
         kiln run -accel kvm -mem 128 -kernel kernel -initrd guest -cmdline 'console=ttyS0 quiet web=8099' -state s \
         -host-loopback -publish 8080:80 -publish 8013:13 -publish 8009:9/udp -publish 8086:81 > out 2>&1 < /dev/null &\n\
         wait_for 'serving over IPv6' out 60\n\
         echo six $(wget -q -O - http://127.0.0.1:8086/)\n\
         echo six on six $(wget -q -O - 'http://[::1]:8086/')\n\
         echo page $(wget -q -O - http://127.0.0.1:8080/)\n\
         echo v6 $(wget -q -O - 'http://[::1]:8080/')\n\
         echo udp $(./udp ask 127.0.0.1:8009)\n\
         kiln port add s 127.0.0.1:8081:80\n\
         echo added $(wget -q -O - http://127.0.0.1:8081/)\n\
         kiln port rm s 8081\n\
         wget -q -O - http://127.0.0.1:8081/ || echo gone\n\
         echo reset | nc -w 5 127.0.0.1 8013\n\
         tries=600; until [ $(grep -c 'serving[^ ]*$' out) = 2 ] || [ $tries = 0 ]; do tries=$((tries - 1)); sleep 0.1; done\n\
         echo again $(wget -q -O - http://127.0.0.1:8080/)\n\
         echo poweroff | nc -w 5 127.0.0.1 8013\n\
         wait $! && echo ended\n\
         cat out; ls s",
    )
    .file(&debian_kernel().vmlinuz, "kernel")
    .file(initrd(), "guest")
    .file(&initrd().with_file_name("udp"), "udp")
    .run()
    .ok();
    for wanted in [
        "page from the guest",
        "v6 from the guest",
        "six from the guest",
        "six on six from the guest",
        "udp hello",
        "127.0.0.1:8081 -> 80/tcp",
        "added from the guest",
        "gone",
        "again from the guest",
        "ended",
        "address 10.0.2.15/24 gateway 10.0.2.2 dns 10.0.2.3",
        "name 1",
        "fetched from the host",
    ] {
        assert!(said.stdout.contains(wanted), "no `{wanted}` in:\n{}", said.stdout);
    }
    assert!(!said.stdout.contains("control.sock"), "{}", said.stdout);
    // Checksums both ways, a change of offloads, MTU, address, segments both ways, mergeable buffers, status, commands;
    // indirect descriptors, event indexes, version 1.
    let (_, features) = said.stdout.split_once("features ").expect("the guest tells");
    for bit in [0, 1, 2, 3, 5, 7, 8, 11, 12, 15, 16, 17, 28, 29, 32] {
        assert_eq!(features.as_bytes()[bit], b'1', "feature {bit} of {features:.64}");
    }
}
