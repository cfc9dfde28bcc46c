//! Mixed traffic between this machine's kernel as a guest, in a network of its own, and this machine as the outside, over
//! a stack whose link loses, doubles and delays frames: `soak [SECONDS]`. Needs `unshare`, `ip` and /dev/net/tun. Says at
//! the end what was done, and fails if a byte was wrong, memory grew or a descriptor was left.
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use kiln_net::chance::Chance;
use kiln_net::faulty::{Faults, Faulty};
use kiln_net::link::{Link, Tap};
use kiln_net::publish::{Published, Transport};
use kiln_net::serve::serve;
use kiln_net::stack::{Network, NetworkV6, Stack};
use kiln_net::stream::{Framing, Incoming, StreamPort};

use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};

type Failure = Box<dyn Error + Send + Sync>;

const GUEST_PORT: u16 = 7_000;
const WORKERS: u64 = 6;
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.first().map(String::as_str) {
        Some("guest") => guest(&words[1..]),
        seconds => host(seconds.and_then(|word| word.parse().ok()).unwrap_or(600)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "soak: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What was done, by kind.
#[derive(Debug, Default)]
struct Done {
    transfers: AtomicU64,
    bytes: AtomicU64,
    short: AtomicU64,
    aborted: AtomicU64,
    refused: AtomicU64,
    datagrams: AtomicU64,
    lost: AtomicU64,
    names: AtomicU64,
}

/// The outside: the stack, servers, and those who connect to the published port.
fn host(seconds: u64) -> Result<(), Failure> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let ports = servers()?;
    // Bound by us, and so by nobody else, but nobody listens.
    let silent = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&silent, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let closed = SocketAddr::try_from(getsockname(&silent)?).map_err(io::Error::from)?.port();
    let mut stack = Stack::new(Network { host_loopback: true, ..Network::default() })?;
    let host = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let published = stack.publish(Published::at(host, GUEST_PORT, Transport::Tcp))?.ip().ok_or("an address")?;
    let before = descriptors()?;
    let mut child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--"])
        .arg(std::env::current_exe()?)
        .arg("guest")
        .arg(seconds.to_string())
        .args(ports.iter().chain([&closed]).map(u16::to_string))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    let turning = thread::spawn(move || turn(stack, ours));
    let inwards = Arc::new(Done::default());
    let callers: Vec<_> = (0..2)
        .map(|number| {
            let done = Arc::clone(&inwards);
            thread::spawn(move || call(published, seconds, number, &done))
        })
        .collect();
    let mut memory = Vec::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        thread::sleep(Duration::from_secs(seconds.clamp(10, 600) / 10));
        memory.push(resident_kib()?);
        writeln!(io::stdout(), "memory {} KiB, descriptors {}", memory[memory.len() - 1], descriptors()?)?;
    }
    for caller in callers {
        caller.join().map_err(|_| "a caller fell")??;
    }
    let status = child.wait()?;
    let (stack, start) = turning.join().map_err(|_| "the stack fell")??;
    writeln!(io::stdout(), "calls {inwards:?}")?;
    let is_clean = ends(stack, start, before)?;
    let (early, late) = (memory[memory.len() / 3], memory[memory.len() - 1]);
    if !status.success() || !is_clean || late > early + early / 5 + 2_048 {
        return Err(format!("the guest failed, something was left, or memory grew from {early} to {late} KiB").into());
    }
    Ok(())
}

/// Echo servers: TCP and UDP, each over both families.
fn servers() -> Result<[u16; 4], Failure> {
    let streams = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("[::1]:0")?];
    let datagrams = [UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("[::1]:0")?];
    let [tcp4, tcp6] = &streams;
    let [udp4, udp6] = &datagrams;
    let ports = [tcp4.local_addr()?, tcp6.local_addr()?, udp4.local_addr()?, udp6.local_addr()?].map(|at| at.port());
    for listener in streams {
        thread::spawn(move || echo_streams(&listener));
    }
    for socket in datagrams {
        thread::spawn(move || echo_datagrams(&socket));
    }
    Ok(ports)
}

/// Turns the stack until the guest is gone.
fn turn(stack: Stack, guest: UnixStream) -> Result<(Stack, Instant), Failure> {
    let faults = Faults { lost: 10, doubled: 5, late: 20, late_ms: 5, seed: 7 };
    let mut port = StreamPort::new(guest.into(), Framing::Plain);
    let start = Instant::now();
    let mut link = Faulty::new(stack, faults);
    match serve(&mut link, &mut port, &mut Incoming::new(Framing::Plain), start, |_| {}) {
        // The guest is gone.
        Ok(()) => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {}
        Err(error) => return Err(error.into()),
    }
    Ok((link.into_link(), start))
}

/// What is left ends in time: whether it does.
fn ends(mut stack: Stack, start: Instant, before: usize) -> Result<bool, Failure> {
    let mut port = kiln_net::memory::MemoryPort::new(0);
    let mut now = u64::try_from(start.elapsed().as_millis())?;
    for _ in 0..100 {
        // The clock goes on by itself.
        now += 60_000;
        stack.turn(&mut port, now)?;
    }
    let (drops, connections) = (stack.drops(), stack.connections());
    drop(stack);
    let after = settled(before)?;
    writeln!(
        io::stdout(),
        "dropped {drops:?}\nconnections left {connections}, descriptors {before} before and {after} after"
    )?;
    Ok(connections == 0 && after <= before)
}

/// Descriptors, once connections of the servers' are gone.
fn settled(before: usize) -> Result<usize, Failure> {
    for _ in 0..100 {
        if descriptors()? <= before {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    descriptors()
}

fn descriptors() -> Result<usize, Failure> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}

fn resident_kib() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().next().ok_or("no number")?.parse()?)
}

fn echo_streams(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        thread::spawn(move || {
            let mut buffer = vec![0; 32 << 10];
            while let Ok(len @ 1..) = (&stream).read(&mut buffer) {
                if (&stream).write_all(&buffer[..len]).is_err() {
                    return;
                }
            }
            let _ = stream.shutdown(Shutdown::Write);
        });
    }
}

fn echo_datagrams(socket: &UdpSocket) {
    let mut buffer = vec![0; 65_536];
    loop {
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..len], from);
        }
    }
}

fn call(published: SocketAddr, seconds: u64, seed: u64, done: &Done) -> Result<(), Failure> {
    // Done while the guest is there.
    let end = Instant::now() + Duration::from_secs(seconds.saturating_sub(5));
    let mut chance = Chance::new(seed);
    while Instant::now() < end {
        // Until the guest listens, connections are refused or end.
        if transfer(published, &mut chance, 1 << 20, done).is_err() {
            done.refused.fetch_add(1, Relaxed);
            thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// Sends bytes and gets the same back; wrong ones are a failure that says so.
fn transfer(to: SocketAddr, chance: &mut Chance, limit: u64, done: &Done) -> Result<(), Failure> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let len = usize::try_from(chance.below(limit))?;
    let sent = chance.bytes(len);
    thread::scope(|scope| -> Result<(), Failure> {
        let writer = scope.spawn(|| -> io::Result<()> {
            (&stream).write_all(&sent)?;
            stream.shutdown(Shutdown::Write)
        });
        let mut got = Vec::with_capacity(len);
        (&stream).read_to_end(&mut got)?;
        writer.join().map_err(|_| "a writer fell")??;
        if got != sent {
            wrong(&format!("{len} bytes to {to} came back as {} others", got.len()));
        }
        Ok(())
    })?;
    done.transfers.fetch_add(1, Relaxed);
    done.bytes.fetch_add(2 * u64::try_from(len)?, Relaxed);
    Ok(())
}

/// The one thing that must never be.
fn wrong(text: &str) -> ! {
    let _ = writeln!(io::stderr(), "soak: {text}");
    std::process::exit(3);
}

/// The guest: a tap of a network of its own, and programs on it.
fn guest(words: &[String]) -> Result<(), Failure> {
    let [seconds, ports @ ..] = words else { return Err("no time".into()) };
    let seconds: u64 = seconds.parse()?;
    let ports = ports.iter().map(|port| port.parse()).collect::<Result<Vec<u16>, _>>()?;
    let [tcp4, tcp6, udp4, udp6, closed] = *ports else { return Err("no ports".into()) };
    let ip = |words: &str| -> Result<(), Failure> {
        let status = Command::new("ip").args(words.split(' ')).stdin(Stdio::null()).status()?;
        if status.success() { Ok(()) } else { Err(format!("ip {words} failed").into()) }
    };
    ip("tuntap add dev tap0 mode tap vnet_hdr")?;
    let mut tap = Tap::open("tap0")?;
    for words in
        ["link set lo up", "link set tap0 up", "addr add 10.0.2.15/24 dev tap0", "route add default via 10.0.2.2"]
    {
        ip(words)?;
    }
    let v6 = NetworkV6::default();
    ip(&format!("-6 addr add {}/64 dev tap0 nodad", v6.address))?;
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    thread::spawn(move || {
        let mut port = StreamPort::new(socket, Framing::Plain);
        serve(&mut tap, &mut port, &mut Incoming::new(Framing::Plain), Instant::now(), |_| {})
    });
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, GUEST_PORT))?;
    thread::spawn(move || echo_streams(&listener));
    let (done, failures) = (Arc::new(Done::default()), Arc::new(Mutex::new(Vec::new())));
    let end = Instant::now() + Duration::from_secs(seconds);
    let streams = [(Ipv4Addr::new(10, 0, 2, 2), tcp4).into(), (v6.gateway, tcp6).into()];
    let datagrams = [(Ipv4Addr::new(10, 0, 2, 2), udp4).into(), (v6.gateway, udp6).into()];
    let workers: Vec<_> = (0..WORKERS)
        .map(|number| {
            let (done, failures) = (Arc::clone(&done), Arc::clone(&failures));
            thread::spawn(move || {
                let mut chance = Chance::new(number + 100);
                while Instant::now() < end {
                    if let Err(error) = work(&mut chance, (streams, datagrams, closed), &done)
                        && let Ok(mut failures) = failures.lock()
                    {
                        failures.push(error.to_string());
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().map_err(|_| "a worker fell")?;
    }
    let failures = failures.lock().map_err(|_| "a worker fell")?;
    writeln!(
        io::stdout(),
        "guest {done:?}, {} failures {:?}",
        failures.len(),
        failures.iter().take(5).collect::<Vec<_>>()
    )?;
    if failures.is_empty() { Ok(()) } else { Err("not all went well".into()) }
}

type Places = ([SocketAddr; 2], [SocketAddr; 2], u16);

fn work(chance: &mut Chance, (streams, datagrams, closed): Places, done: &Done) -> Result<(), Failure> {
    let family = usize::try_from(chance.below(2))?;
    match chance.below(10) {
        0 => transfer(streams[family], chance, 8 << 20, done),
        1..=4 => {
            let short = Done::default();
            transfer(streams[family], chance, 2_000, &short)?;
            done.short.fetch_add(1, Relaxed);
            Ok(())
        }
        5 => {
            // Gone before it reads what comes back: a reset.
            let mut stream = TcpStream::connect(streams[family])?;
            stream.write_all(&chance.bytes(30_000))?;
            done.aborted.fetch_add(1, Relaxed);
            Ok(())
        }
        6 => {
            let closed = SocketAddr::from((Ipv4Addr::new(10, 0, 2, 2), closed));
            match TcpStream::connect(closed).map_err(|error| error.kind()) {
                Err(io::ErrorKind::ConnectionRefused) => done.refused.fetch_add(1, Relaxed),
                other => return Err(format!("a closed port: {other:?}").into()),
            };
            Ok(())
        }
        7 => name(done),
        _ => datagram(datagrams[family], chance, done),
    }
}

fn datagram(to: SocketAddr, chance: &mut Chance, done: &Done) -> Result<(), Failure> {
    let any: SocketAddr =
        if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let longest = if chance.below(4) == 0 { 20_000 } else { 1_400 };
    let len = usize::try_from(1 + chance.below(longest))?;
    let sent = chance.bytes(len);
    let mut buffer = vec![0; 65_536];
    socket.send(&sent)?;
    match socket.recv(&mut buffer) {
        Ok(len) if buffer[..len] == sent => done.datagrams.fetch_add(1, Relaxed),
        Ok(len) => wrong(&format!("a datagram of {} bytes came back as {len} others", sent.len())),
        Err(_) => done.lost.fetch_add(1, Relaxed),
    };
    Ok(())
}

fn name(done: &Done) -> Result<(), Failure> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((Ipv4Addr::new(10, 0, 2, 3), 53))?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let question = b"ab\x01\0\0\x01\0\0\0\0\0\0\x07gateway\x04kiln\x08internal\0\0\x01\0\x01";
    socket.send(question)?;
    let mut buffer = [0; 600];
    match socket.recv(&mut buffer) {
        Ok(len) if buffer[..len].ends_with(&[10, 0, 2, 2]) => done.names.fetch_add(1, Relaxed),
        Ok(_) => wrong("the gateway's name has another address"),
        Err(_) => done.lost.fetch_add(1, Relaxed),
    };
    Ok(())
}
