//! Machines whose cables end elsewhere than in the user-mode network alone: on a network of several machines, and in other
//! people's programs.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::harness::fixtures::debian_kernel;
use crate::harness::initrd::{Initrd, NETWORK, VIRTIO_PCI};
use crate::harness::kiln::{Running, Sandbox, run};
use crate::harness::kvm::KvmJob;
use crate::harness::pcap;

/// Two machines on a software CPU, on a busy host.
const LIMIT: Duration = Duration::from_secs(300);

/// Finds the card, then does the job.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module.ko; done
mkdir /www
ip link set lo up
ip link set eth0 up
dhcp() { udhcpc -i eth0 -q -n -t 20 -T 1 -s /lease || echo 'NO LEASE'; }
. /job
echo "END OF JOB"
poweroff -f
"#;

const LEASE: &str = r#"#!/bin/busybox sh
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev eth0
ip route add default via $router
echo "nameserver $dns" > /etc/resolv.conf
echo "LEASE $ip $hostname"
"#;

/// An initial RAM disk that does `job`.
fn initrd(sandbox: &Sandbox, name: &str, job: &str) -> PathBuf {
    let packed = sandbox.path().join(name);
    let initrd = Initrd::new().modules(&VIRTIO_PCI).modules(&NETWORK);
    initrd.text("init", INIT).text("lease", LEASE).text("job", job).pack(&packed);
    packed
}

/// `kiln run` of a guest that does `job` on the network `networking`.
fn machine(sandbox: &Sandbox, name: &str, networking: &str, job: &str) -> Command {
    let mut command =
        sandbox.kiln(["run", "-accel", "qemu", "-mem", "256", "-cmdline", "console=ttyS0 quiet panic=-1"]);
    command.args(["-networking", networking, "-state", &format!("{name}-state"), "-kernel"]);
    command.arg(debian_kernel().vmlinuz).arg("-initrd").arg(initrd(sandbox, name, job));
    command
}

#[test]
fn two_machines_talk_by_name() {
    let sandbox = Sandbox::new();
    let web = "dhcp; echo 'hello from the web' > /www/index.html; httpd -h /www; echo SERVING; sleep 100000";
    let mut web = Running::start(&mut machine(&sandbox, "web", "user,net=./lan,name=web", web));
    let client = "dhcp; nslookup web.kiln.internal\n\
                  ip=$(nslookup web.kiln.internal | sed -n 's/^Address.* \\(10\\.0\\.2\\.1[0-9]\\).*/\\1/p' | tail -n 1)\n\
                  echo \"web is at $ip\"\n\
                  wget -q -O - http://$ip/\n\
                  ping -c 3 -W 5 $ip | grep received\n\
                  dd if=/dev/zero of=/www/big bs=1M count=8 2>/dev/null; httpd -h /www; echo READY; sleep 100000";
    web.wait_for("LEASE 10.0.2.15 web", LIMIT);
    web.wait_for("SERVING", LIMIT);
    let mut client = Running::start(&mut machine(&sandbox, "client", "user,net=./lan,name=client", client));
    client.wait_for("LEASE 10.0.2.16 client", LIMIT);
    client.wait_for("web is at 10.0.2.15", LIMIT);
    client.wait_for("hello from the web", LIMIT);
    client.wait_for("3 packets received", LIMIT);
    client.wait_for("READY", LIMIT);
    // One that is killed is missed by nobody, and its address is free.
    run(Command::new("kill").args(["-9", &web.pid().to_string()])).ok();
    drop(web);
    let third = "dhcp; wget -q -O - http://10.0.2.16/big | wc -c | sed 's/^/BYTES /'";
    let mut third = Running::start(&mut machine(&sandbox, "third", "user,net=./lan,name=web", third));
    third.wait_for("LEASE 10.0.2.15 web", LIMIT);
    third.wait_for("BYTES 8388608", LIMIT);
    let (status, _) = third.wait(LIMIT);
    assert!(status.success(), "{status:?}");
}

/// The same on a real KVM, where long segments pass from one machine's queue to the other's as they are.
#[test]
fn two_machines_talk_by_name_on_kvm() {
    let sandbox = Sandbox::new();
    let web = "dhcp; dd if=/dev/zero of=/www/big bs=1M count=32 2>/dev/null; httpd -h /www; echo SERVING; sleep 100000";
    let client = "dhcp\n\
                  ip=$(nslookup web.kiln.internal | sed -n 's/^Address.* \\(10\\.0\\.2\\.1[0-9]\\).*/\\1/p' | tail -n 1)\n\
                  echo \"web is at $ip\"\n\
                  wget -q -O - http://$ip/big | wc -c | sed 's/^/BYTES /'";
    let said = KvmJob::new(
        "for name in web client; do mkdir $name-state; done\n\
         machine() { kiln run -accel kvm -mem 160 -networking user,net=./lan,name=$1 -state $1-state -kernel kernel \\\n\
         -initrd $1 -cmdline 'console=ttyS0 quiet panic=-1' < /dev/null; }\n\
         machine web > web.out 2>&1 &\n\
         wait_for SERVING web.out 120 || { cat web.out; exit 1; }\n\
         machine client > client.out 2>&1 || { cat web.out client.out; exit 1; }\n\
         cat client.out",
    )
    .file(&debian_kernel().vmlinuz, "kernel")
    .file(&initrd(&sandbox, "web", web), "web")
    .file(&initrd(&sandbox, "client", client), "client")
    .run()
    .ok();
    for wanted in ["LEASE 10.0.2.16 client", "web is at 10.0.2.15", "BYTES 33554432"] {
        assert!(said.stdout.contains(wanted), "no `{wanted}` in:\n{}", said.stdout);
    }
}

/// Answers a guest's question for an address, as the peer of gvproxy's form does, and hears the greeting first.
fn answer_arp(peer: &UnixDatagram) -> PathBuf {
    let mut frame = [0; 2_000];
    let (len, from) = peer.recv_from(&mut frame).unwrap();
    assert_eq!(&frame[..len], b"VFKT");
    let guest = from.as_pathname().unwrap().to_owned();
    loop {
        let (len, _) = peer.recv_from(&mut frame).unwrap();
        let arp = &frame[..len];
        if arp.get(12..14) == Some(&[8, 6]) && arp.get(38..42) == Some(&[192, 168, 127, 1]) {
            let mac = [0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xdd];
            let answer = [&arp[6..12], &mac, &arp[12..20], &[0, 2], &mac, &arp[38..42], &arp[22..32]].concat();
            peer.send_to(&answer, &guest).unwrap();
            return guest;
        }
    }
}

#[test]
fn a_machine_on_a_socket_of_datagrams_outlives_its_peer() {
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("peer.sock");
    let job = "ip addr add 192.168.127.2/24 dev eth0\n\
               try() { until arping -c 1 -w 2 -I eth0 192.168.127.1 > /dev/null; do :; done; echo \"ANSWERED $1\"; }\n\
               carrier() { until [ \"$(cat /sys/class/net/eth0/carrier)\" = $1 ]; do sleep 0.1; done; echo \"CARRIER $1\"; }\n\
               try first; carrier 0; carrier 1; try again";
    let said = run(&mut machine(&sandbox, "gram", "unixgram,peer.sock", job));
    assert_eq!(said.code(), 1);
    assert!(said.stderr.contains("cannot connect to the network's socket `peer.sock`"), "{}", said.stderr);
    let peer = UnixDatagram::bind(&path).unwrap();
    let mut machine = Running::start(&mut machine(&sandbox, "gram", "unixgram,peer.sock", job));
    let own = answer_arp(&peer);
    machine.wait_for("ANSWERED first", LIMIT);
    drop(peer);
    std::fs::remove_file(&path).unwrap();
    machine.wait_for("CARRIER 0", LIMIT);
    let peer = UnixDatagram::bind(&path).unwrap();
    answer_arp(&peer);
    machine.wait_for("ANSWERED again", LIMIT);
    let (status, text) = machine.wait(LIMIT);
    assert!(status.success() && text.contains("END OF JOB"), "{text}");
    assert!(!own.exists(), "its socket went with it");
}

/// Waits until something listens at `path`.
fn wait_for_socket(path: &Path) {
    let start = std::time::Instant::now();
    while UnixStream::connect(path).is_err() {
        assert!(start.elapsed() < LIMIT, "nobody listens at {}", path.display());
        std::thread::yield_now();
    }
}

#[test]
fn the_network_serves_guests_of_other_programs() {
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("net.sock");
    let net = Running::start(&mut sandbox.kiln(["net", "-socket", "net.sock", "-publish", "0:80"]));
    wait_for_socket(&path);
    let initrd = initrd(&sandbox, "plain", "dhcp; ping -c 1 -W 5 10.0.2.2 | grep received");
    for _ in 0..2 {
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-M", "q35", "-accel", "tcg", "-m", "256", "-nographic", "-nodefaults", "-no-reboot"])
            .args(["-serial", "stdio", "-append", "console=ttyS0 quiet panic=-1", "-kernel"])
            .arg(debian_kernel().vmlinuz)
            .arg("-initrd")
            .arg(&initrd)
            .args(["-device", "virtio-net-pci,netdev=n", "-netdev"])
            .arg(format!("stream,id=n,server=off,addr.type=unix,addr.path={}", path.display()));
        let (status, console) = Running::start(&mut qemu).wait(LIMIT);
        assert!(status.success() && console.contains("LEASE 10.0.2.15"), "{status:?}\n{console}");
        assert!(console.contains("1 packets received"), "{console}");
    }
    run(Command::new("kill").args(["-TERM", &net.pid().to_string()])).ok();
    let (status, text) = net.wait(LIMIT);
    assert!(status.success() && !path.exists(), "{status:?} {text}");
}

/// The network of one process is that of another's machine, over a socket which that inherits.
#[test]
fn a_machine_is_on_the_network_of_a_descriptor() {
    let sandbox = Sandbox::new();
    let _net = Running::start(&mut sandbox.kiln(["net", "-socket", "net.sock"]));
    let path = sandbox.path().join("net.sock");
    wait_for_socket(&path);
    let socket = UnixStream::connect(&path).unwrap();
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::empty()).unwrap();
    let job = "dhcp; ping -c 1 -W 5 10.0.2.2 | grep received";
    let networking = format!("fd,{}", socket.as_raw_fd());
    let machine = Running::start(&mut machine(&sandbox, "heir", &networking, job));
    drop(socket);
    let (status, console) = machine.wait(LIMIT);
    assert!(status.success() && console.contains("LEASE 10.0.2.15"), "{status:?}\n{console}");
    assert!(console.contains("1 packets received"), "{console}");
}

/// In a network of its own, where this user may do everything.
#[test]
fn a_machine_on_a_bridge_is_a_neighbour_of_the_host() {
    let sandbox = Sandbox::new();
    let job = "ip addr add 10.9.0.2/24 dev eth0; ping -c 3 -W 5 10.9.0.1 | grep received\n\
               wget -q -O - http://10.9.0.1:8000/";
    sandbox.write("index.html", "over the bridge\n");
    let machine = machine(&sandbox, "bridged", "bridge,kb0", job);
    let script = "ip link set lo up; ip link add kb0 type bridge; ip addr add 10.9.0.1/24 dev kb0; ip link set kb0 up\n\
                  busybox httpd -p 10.9.0.1:8000; exec \"$@\"";
    let mut own = Command::new("unshare");
    own.args(["--map-root-user", "--net", "sh", "-euc", script, "sh"]).arg(machine.get_program());
    own.args(machine.get_args()).current_dir(sandbox.path());
    for (name, value) in machine.get_envs() {
        match value {
            Some(value) => own.env(name, value),
            None => own.env_remove(name),
        };
    }
    let (status, console) = Running::start(&mut own).wait(LIMIT);
    assert!(status.success() && console.contains("packets received"), "{status:?}\n{console}");
    assert!(console.contains("over the bridge"), "{console}");
}

#[test]
fn frames_of_another_programs_guest_are_written_down() {
    let sandbox = Sandbox::new();
    let net = Running::start(&mut sandbox.kiln(["net", "-socket", "net.sock", "-pcap", "frames"]));
    let path = sandbox.path().join("net.sock");
    wait_for_socket(&path);
    let guest = [0x52, 0x54, 0, 0, 0, 9];
    // Who has 10.0.2.2?
    let arp = [&[0, 1, 8, 0, 6, 4, 0, 1], &guest[..], &[10, 0, 2, 15], &[0; 6], &[10, 0, 2, 2]].concat();
    let question = [&[0xff; 6][..], &guest, &[8, 6], &arp].concat();
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(&[&[0, 0, 0, 42][..], &question].concat()).unwrap();
    let mut answer = [0; 46];
    stream.read_exact(&mut answer).unwrap();
    run(Command::new("kill").args(["-TERM", &net.pid().to_string()])).ok();
    assert!(net.wait(LIMIT).0.success());
    assert_eq!(pcap::frames(&sandbox.path().join("frames")), [question, answer[4..].to_vec()]);
}

#[test]
fn a_path_where_something_is_is_no_socket_for_the_network() {
    let sandbox = Sandbox::new();
    sandbox.write("precious", "precious");
    let said = run(&mut sandbox.kiln(["net", "-socket", "precious"]));
    assert_eq!(said.code(), 1);
    assert_eq!(said.stderr, "error: `precious` is there, and no socket: give another path\n");
    assert_eq!(run(&mut sandbox.kiln(["net"])).code(), 2);
}
