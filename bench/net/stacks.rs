//! The stacks, each as a user would start it. All give the guest 10.0.2.0/24, and at 10.0.2.2 the host's loopback.

/// How a stack is started and reached.
pub struct Stack {
    pub name: &'static str,
    pub mtu: u32,
    /// Frames have virtio-net's header: checksums and segments are left to the other side.
    pub has_headers: bool,
    /// It opens a tap by itself, so that no socket is between: an advantage that no guest of a machine has.
    pub has_tap: bool,
    pub guest: &'static str,
    command: &'static str,
}

const fn stack(name: &'static str, mtu: u32, command: &'static str) -> Stack {
    Stack { name, mtu, has_headers: false, has_tap: false, guest: "10.0.2.15", command }
}

const PASST: &str = "passt --foreground --quiet --ipv4-only --socket SOCKET --mtu MTU --interface up0 --address GUEST \
                     --netmask 24 --gateway 10.0.2.2";
const SLIRP4NETNS: &str = "slirp4netns --configure --mtu MTU --netns-type=path /run/netns/NAMESPACE tap0";
const QEMU: &str = "qemu-system-x86_64 -M none -nodefaults -display none -netdev user,id=user \
                    -netdev stream,id=wire,server=on,addr.type=unix,addr.path=SOCKET \
                    -netdev hubport,id=a,hubid=0,netdev=user -netdev hubport,id=b,hubid=0,netdev=wire";

pub const STACKS: [Stack; 8] = [
    Stack { has_headers: true, ..stack("kiln-65520", 65_520, "SERVE SOCKET virtio MTU") },
    stack("passt-65520", 65_520, PASST),
    Stack { has_tap: true, guest: "10.0.2.100", ..stack("slirp-65520", 65_520, SLIRP4NETNS) },
    stack("kiln-65520-plain", 65_520, "SERVE SOCKET plain MTU"),
    Stack { has_headers: true, ..stack("kiln-1500", 1_500, "SERVE SOCKET virtio MTU") },
    stack("passt-1500", 1_500, PASST),
    stack("slirp-1500", 1_500, QEMU),
    stack("kiln-1500-plain", 1_500, "SERVE SOCKET plain MTU"),
];

impl Stack {
    /// Its command line.
    pub fn words(&self, serve: &str, socket: &str, namespace: &str) -> Vec<String> {
        let fill = |word: &str| {
            word.replace("SERVE", serve)
                .replace("SOCKET", socket)
                .replace("MTU", &self.mtu.to_string())
                .replace("GUEST", self.guest)
                .replace("NAMESPACE", namespace)
        };
        self.command.split_whitespace().map(fill).collect()
    }
}
