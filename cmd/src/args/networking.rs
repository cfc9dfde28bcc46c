//! Flags of `kiln run` about the network.

use std::net::{IpAddr, Ipv4Addr};
use std::num::ParseIntError;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use kiln_run::config::Subnet;
use kiln_run::net::link::Greeting;
use kiln_run::net::policy::Block;
use kiln_run::net::wire::{Mac, NoMac};

use super::publish::PublishSpec;

const HEADING: &str = "Network";

/// The network of a machine, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Networking {
    /// What a network card is connected to. `user` (or `default`): a network in this process that needs no rights, with
    /// net=NAME one for all machines that name it, and with subnet=ADDRESS/BITS, ip=ADDRESS, name=HOSTNAME. tap,DEVICE;
    /// bridge,DEVICE; unixgram,PATH (vfkit's form; greeting=none leaves out its first word); unixstream,PATH (QEMU's form);
    /// fd,NUMBER: a socket or tap that is open. `none`: no card. All but none take mac= and mtu=. Repeatable, a card each
    /// [default: user]
    #[arg(long, value_name = "KIND[,NAME][,KEY=VALUE]", help_heading = HEADING)]
    pub networking: Vec<Attachment>,
    /// A port of this machine that leads to one of the guest's, on 127.0.0.1 and ::1 unless IP says otherwise: 8080:80,
    /// 0.0.0.0:2222:22, 53:53/udp, 8000-8010:80-90, ./web.sock:80. With 0, one is chosen and told. `,proxy`
    /// behind it tells the guest's program who called (PROXY protocol 2). Repeatable
    #[arg(long, value_name = "[IP:]HOST:GUEST[/tcp|udp]", help_heading = HEADING)]
    pub publish: Vec<PublishSpec>,
    /// The guest's address on the user-mode network [default: 10.0.2.15]
    #[arg(long, value_name = "ADDRESS", help_heading = HEADING)]
    pub ip: Option<Ipv4Addr>,
    /// Largest packet of network cards, in bytes: 68 to 65520 [default: 1500]
    #[arg(long, value_name = "BYTES", help_heading = HEADING)]
    pub mtu: Option<u16>,
    /// Hardware address of the first network card [default: one that the state folder keeps]
    #[arg(long, value_name = "ADDRESS", help_heading = HEADING)]
    pub mac: Option<Mac>,
    /// Let the guest reach this machine's own loopback, under the gateway's address and as host.kiln.internal
    #[arg(long, help_heading = HEADING)]
    pub host_loopback: bool,
    /// Let the guest go only there, and where other --allow say. Repeatable
    #[arg(long, value_name = "ADDRESS[/BITS][:PORT]", help_heading = HEADING)]
    pub allow: Vec<Block>,
    /// Never let the guest go there, whatever is allowed. Repeatable
    #[arg(long, value_name = "ADDRESS[/BITS][:PORT]", help_heading = HEADING)]
    pub deny: Vec<Block>,
    /// Ask this name server, or give this name an address. Repeatable [default: the servers of /etc/resolv.conf]
    #[arg(long, value_name = "ADDRESS|NAME=ADDRESS", help_heading = HEADING)]
    pub dns: Vec<DnsSpec>,
    /// Write the frames of the first network card to this file, for Wireshark and tcpdump
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    pub pcap: Option<PathBuf>,
}

/// One `-networking`, as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// What the card is connected to.
    pub kind: Kind,
    /// Its address.
    pub mac: Option<Mac>,
    /// Its largest packet.
    pub mtu: Option<u16>,
}

/// What a card is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: there is no card.
    None,
    /// The user-mode network.
    User {
        /// The name of a network of several machines, or the path of its folder.
        net: Option<String>,
        /// Its addresses.
        subnet: Option<Subnet>,
        /// The guest's address.
        address: Option<Ipv4Addr>,
        /// The guest's name.
        host_name: Option<String>,
        /// What LinuxKit calls it, if that is something of macOS.
        instead_of: Option<String>,
    },
    /// A tap of the host's.
    Tap(String),
    /// A tap that is put on a bridge of the host's.
    Bridge(String),
    /// A socket of datagrams.
    UnixGram(PathBuf, Greeting),
    /// A stream socket.
    UnixStream(PathBuf),
    /// A descriptor that is open.
    Fd(i32),
}

/// What is wrong with a `-networking`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachmentError {
    /// No such network.
    #[error(
        "no network is called `{0}`; there are user (or default), none, tap, bridge, unixgram, unixstream and fd, such as `user,net=lan` or `tap,tap0`"
    )]
    Unknown(String),
    /// A kind that needs a name, without one.
    #[error("`{0}` needs {1} behind a comma: `{0},{2}`")]
    Nameless(String, &'static str, &'static str),
    /// A word that means nothing here.
    #[error("`{word}` means nothing for `{kind}`; known are {known}")]
    Key {
        /// The word.
        word: String,
        /// What it stands behind.
        kind: String,
        /// What may stand there.
        known: &'static str,
    },
    /// The same thing twice.
    #[error("`{0}` stands twice in one network")]
    Twice(&'static str),
    /// No hardware address.
    #[error(transparent)]
    Mac(#[from] NoMac),
    /// No number of bytes.
    #[error("`{0}` is no MTU: write a number of bytes from 68 to 65520")]
    Mtu(String, #[source] ParseIntError),
    /// No subnet.
    #[error("`{0}` is no network of addresses: write one as 10.0.2.0/24")]
    Subnet(String),
    /// No address.
    #[error("`{0}` is no IPv4 address")]
    Address(String),
    /// No descriptor.
    #[error("`{0}` is no number of an open descriptor")]
    Fd(String, #[source] ParseIntError),
    /// No name of a network.
    #[error(
        "`{0}` is no name of a network: it has letters, digits, `-`, `_` and `.`, and at most 63; or it is the path of a folder"
    )]
    Net(String),
    /// No such greeting.
    #[error("no greeting is called `{0}`; there are `vfkit` and `none`")]
    Greeting(String),
}

impl Attachment {
    /// The user-mode network of which nothing was said.
    pub fn user() -> Self {
        let kind = Kind::User { net: None, subnet: None, address: None, host_name: None, instead_of: None };
        Self { kind, mac: None, mtu: None }
    }
}

/// What stands behind the kind.
#[derive(Default)]
struct Keys<'a> {
    mac: Option<Mac>,
    mtu: Option<u16>,
    net: Option<&'a str>,
    subnet: Option<Subnet>,
    address: Option<Ipv4Addr>,
    host_name: Option<&'a str>,
    greeting: Option<Greeting>,
}

const USER_KEYS: &str = "`net=`, `subnet=`, `ip=`, `name=`, `mac=` and `mtu=`";
const GRAM_KEYS: &str = "`greeting=`, `mac=` and `mtu=`";
const CARD_KEYS: &str = "`mac=` and `mtu=`";

impl FromStr for Attachment {
    type Err = AttachmentError;

    fn from_str(text: &str) -> Result<Self, AttachmentError> {
        let (kind, rest) = text.split_once(',').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
        let named = |what, example| {
            let rest = rest.unwrap_or_default();
            let (name, keys) = rest.split_once(',').map_or((rest, None), |(name, keys)| (name, Some(keys)));
            if name.is_empty() { Err(AttachmentError::Nameless(kind.into(), what, example)) } else { Ok((name, keys)) }
        };
        let of_card = |keys| Keys::read(kind, keys, CARD_KEYS);
        let (kind, keys) = match kind {
            "none" => (Kind::None, Keys::read(kind, rest, "nothing")?),
            "user" | "default" => Keys::read(kind, rest, USER_KEYS)?.user(None),
            // LinuxKit's on macOS; what stands behind them is about that.
            "vmnet" | "vpnkit" | "docker-for-mac" => Keys::default().user(Some(kind.into())),
            "tap" => {
                let (name, keys) = named("the name of a device", "tap0")?;
                (Kind::Tap(name.into()), of_card(keys)?)
            }
            "bridge" => {
                let (name, keys) = named("the name of a device", "br0")?;
                (Kind::Bridge(name.into()), of_card(keys)?)
            }
            "unixgram" => {
                let (path, keys) = named("the path of a socket", "./network.sock")?;
                let keys = Keys::read(kind, keys, GRAM_KEYS)?;
                (Kind::UnixGram(path.into(), keys.greeting.unwrap_or(Greeting::Vfkit)), keys)
            }
            "unixstream" => {
                let (path, keys) = named("the path of a socket", "./network.sock")?;
                (Kind::UnixStream(path.into()), of_card(keys)?)
            }
            "fd" => {
                let (number, keys) = named("a number", "3")?;
                let number = number.parse().map_err(|error| AttachmentError::Fd(number.into(), error))?;
                (Kind::Fd(number), of_card(keys)?)
            }
            other => return Err(AttachmentError::Unknown(other.into())),
        };
        Ok(Self { kind, mac: keys.mac, mtu: keys.mtu })
    }
}

impl<'a> Keys<'a> {
    fn read(kind: &str, text: Option<&'a str>, known: &'static str) -> Result<Self, AttachmentError> {
        let mut keys = Self::default();
        for word in text.into_iter().flat_map(|text| text.split(',')) {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            if !known.contains(&format!("`{key}=`")) || value.is_empty() {
                return Err(AttachmentError::Key { word: word.into(), kind: kind.into(), known });
            }
            match key {
                "mac" => once(&mut keys.mac, value.parse()?, "mac")?,
                "mtu" => {
                    let mtu = value.parse().map_err(|error| AttachmentError::Mtu(value.into(), error))?;
                    once(&mut keys.mtu, mtu, "mtu")?;
                }
                "net" => once(&mut keys.net, net_name(value)?, "net")?,
                "subnet" => once(&mut keys.subnet, subnet(value)?, "subnet")?,
                "ip" => {
                    let address = value.parse().map_err(|_| AttachmentError::Address(value.into()))?;
                    once(&mut keys.address, address, "ip")?;
                }
                "name" => once(&mut keys.host_name, value, "name")?,
                _ => {
                    let greeting = match value {
                        "vfkit" => Greeting::Vfkit,
                        "none" => Greeting::None,
                        other => return Err(AttachmentError::Greeting(other.into())),
                    };
                    once(&mut keys.greeting, greeting, "greeting")?;
                }
            }
        }
        Ok(keys)
    }

    fn user(self, instead_of: Option<String>) -> (Kind, Self) {
        let kind = Kind::User {
            net: self.net.map(Into::into),
            subnet: self.subnet,
            address: self.address,
            host_name: self.host_name.map(Into::into),
            instead_of,
        };
        (kind, self)
    }
}

fn once<T>(slot: &mut Option<T>, value: T, name: &'static str) -> Result<(), AttachmentError> {
    if slot.replace(value).is_some() { Err(AttachmentError::Twice(name)) } else { Ok(()) }
}

/// A path, or a name that is one file's.
fn net_name(text: &str) -> Result<&str, AttachmentError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = text.len() <= 63 && text.bytes().all(is_plain) && !text.starts_with('.');
    if is_name || text.contains('/') { Ok(text) } else { Err(AttachmentError::Net(text.into())) }
}

fn subnet(text: &str) -> Result<Subnet, AttachmentError> {
    let refuse = || AttachmentError::Subnet(text.into());
    let (address, bits) = text.split_once('/').ok_or_else(refuse)?;
    let address = address.parse().map_err(|_| refuse())?;
    let prefix_bits = bits.parse().ok().filter(|bits| *bits <= 32).ok_or_else(refuse)?;
    Ok(Subnet { address, prefix_bits })
}

/// One `--dns`, as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsSpec {
    /// A server to ask.
    Server(IpAddr),
    /// A name of our own.
    Name(String, IpAddr),
}

/// What is wrong with a `--dns`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no name server: write its address, or NAME=ADDRESS to give a name an address")]
pub struct NoDns(String);

impl FromStr for DnsSpec {
    type Err = NoDns;

    fn from_str(text: &str) -> Result<Self, NoDns> {
        let refuse = || NoDns(text.into());
        match text.split_once('=') {
            None => text.parse().map(Self::Server).map_err(|_| refuse()),
            Some((name, address)) => {
                let is_name = !name.is_empty()
                    && name.len() <= 253
                    && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
                let address = address.parse().ok().filter(|_| is_name).ok_or_else(refuse)?;
                Ok(Self::Name(name.to_ascii_lowercase(), address))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Attachment, AttachmentError> {
        text.parse()
    }

    #[test]
    fn a_network_that_cannot_be_meant_is_refused_by_name() {
        for (text, wanted) in [
            ("", "no network is called ``"),
            ("bridged", "no network is called `bridged`; there are user"),
            ("none,mac=52:54:00:00:00:01", "means nothing for `none`"),
            ("tap", "`tap` needs the name of a device behind a comma: `tap,tap0`"),
            ("tap,", "`tap,tap0`"),
            ("unixgram", "the path of a socket"),
            ("unixstream,", "the path of a socket"),
            ("fd,x", "`x` is no number"),
            ("user,speed=9", "`speed=9` means nothing for `user`; known are `net=`"),
            ("user,net=", "`net=` means nothing"),
            ("user,net=a b", "`a b` is no name of a network"),
            ("user,net=..", "`..` is no name of a network"),
            ("user,mac=1", "`1` is no hardware address"),
            ("user,mtu=70000", "`70000` is no MTU"),
            ("user,mtu=1500,mtu=1500", "`mtu` stands twice"),
            ("user,subnet=10.0.2.0", "`10.0.2.0` is no network of addresses"),
            ("user,subnet=10.0.2.0/33", "is no network of addresses"),
            ("user,ip=fe80::1", "`fe80::1` is no IPv4 address"),
            ("tap,tap0,net=x", "known are `mac=` and `mtu=`"),
            ("unixgram,s,greeting=hello", "no greeting is called `hello`"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn each_network_is_read_with_what_stands_behind_it() {
        let kind = |text| parse(text).unwrap().kind;
        assert_eq!(parse("user"), Ok(Attachment::user()));
        assert_eq!(parse("default"), Ok(Attachment::user()));
        assert_eq!(kind("none"), Kind::None);
        assert_eq!(kind("tap,tap0"), Kind::Tap("tap0".into()));
        assert_eq!(kind("bridge,br0,mtu=9000"), Kind::Bridge("br0".into()));
        assert_eq!(kind("unixgram,/run/a=b.sock"), Kind::UnixGram("/run/a=b.sock".into(), Greeting::Vfkit));
        assert_eq!(kind("unixgram,s,greeting=none"), Kind::UnixGram("s".into(), Greeting::None));
        assert_eq!(kind("unixstream,s"), Kind::UnixStream("s".into()));
        assert_eq!(kind("fd,3"), Kind::Fd(3));
        let Kind::User { instead_of: Some(name), .. } = kind("vpnkit,/eth,/port") else { panic!("not user") };
        assert_eq!(name, "vpnkit");
        let all = parse("user,net=lan,subnet=10.9.0.0/16,ip=10.9.1.1,name=db,mac=52:54:00:00:00:09,mtu=9000").unwrap();
        assert_eq!((all.mac.map(|mac| mac.0[5]), all.mtu), (Some(9), Some(9000)));
        let Kind::User { net: Some(net), subnet: Some(subnet), address: Some(address), host_name: Some(name), .. } =
            all.kind
        else {
            panic!("not user")
        };
        assert_eq!((&net[..], subnet.prefix_bits, address.octets(), &name[..]), ("lan", 16, [10, 9, 1, 1], "db"));
    }

    #[test]
    fn a_name_server_is_an_address_and_a_name_has_one() {
        for text in ["", "dns.example", "=10.0.0.1", "a b=10.0.0.1", "x=", "x=y", "10.0.0.1:53"] {
            assert!(text.parse::<DnsSpec>().is_err(), "{text}");
        }
        let address = IpAddr::from([10, 0, 0, 1]);
        assert_eq!("10.0.0.1".parse(), Ok(DnsSpec::Server(address)));
        assert_eq!("DB.test=10.0.0.1".parse(), Ok(DnsSpec::Name("db.test".into(), address)));
    }
}
