//! The stack alone, for the bench: `serve SOCKET [plain|virtio] [MTU] [FIRST-LAST:GUEST]`. Waits for one connection.
use std::os::unix::net::UnixListener;
use std::time::Instant;

use kiln_net::publish::{Published, Transport};
use kiln_net::serve::serve;
use kiln_net::stack::{Network, Stack};
use kiln_net::stream::{Framing, Incoming, StreamPort};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let framing = if words.get(1).is_some_and(|word| word == "virtio") { Framing::Virtio } else { Framing::Plain };
    let mut network = Network { host_loopback: true, ..Network::default() };
    network.lease.mtu = words.get(2).map_or(Ok(1500), |word| word.parse())?;
    let mut stack = Stack::new(network)?;
    if let Some(ports) = words.get(3) {
        let (host, guest) = ports.split_once(':').ok_or("no guest port")?;
        let (first, last) = host.split_once('-').ok_or("no range")?;
        let (first, last, guest): (u16, u16, u16) = (first.parse()?, last.parse()?, guest.parse()?);
        for offset in 0..=last - first {
            let host = ([127, 0, 0, 1], first + offset).into();
            stack.publish(Published::at(host, guest + offset, Transport::Tcp))?;
        }
    }
    let listener = UnixListener::bind(&words[0])?;
    let socket = listener.accept()?.0;
    socket.set_nonblocking(true)?;
    let mut port = StreamPort::new(socket.into(), framing);
    serve(&mut stack, &mut port, &mut Incoming::new(framing), Instant::now(), |_| {})?;
    Ok(())
}
