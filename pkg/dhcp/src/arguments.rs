//! The words on the command line: this program's own, and those of dhcpcd that YAMLs for LinuxKit have.

use std::time::Duration;

/// What is written when the words are wrong.
pub const USAGE: &str = "usage: dhcp [-1] [-4 | -6] [-t SECONDS] [-p] [-h NAME] [[-i] INTERFACE]...";

/// How long a first lease may take where that ends it.
const TIMEOUT_S: u64 = 30;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    /// End when there is a lease.
    pub once: bool,
    /// With `once`: how long to wait for it. `None` is for ever.
    pub timeout: Option<Duration>,
    /// Use DHCPv4.
    pub v4: bool,
    /// Use DHCPv6 and router advertisements.
    pub v6: bool,
    /// Names or patterns (`eth*`); none for every card.
    pub interfaces: Vec<String>,
    /// Names or patterns to leave alone.
    pub denied: Vec<String>,
    /// Keep address and lease at the end.
    pub keep: bool,
    /// What servers are told the machine's name is.
    pub host_name: Option<String>,
}

/// A word that is wrong.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// No such option.
    #[error("`{0}` is no option")]
    Unknown(String),
    /// Something has to follow.
    #[error("`{0}` wants a value behind it")]
    NoValue(String),
    /// Not a number of seconds.
    #[error("`{1}` behind `{0}` is no number of seconds")]
    Seconds(String, String),
    /// Nothing would be left to do.
    #[error("`-4` and `-6` exclude each other")]
    NoFamily,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            once: false,
            timeout: Some(Duration::from_secs(TIMEOUT_S)),
            v4: true,
            v6: true,
            interfaces: vec![],
            denied: vec![],
            keep: false,
            host_name: None,
        }
    }
}

/// dhcpcd's options that change nothing here: it stays in the foreground, and looks after ARP and configuration by itself.
const IGNORED: [&str; 16] = [
    "-B",
    "--nobackground",
    "-q",
    "--quiet",
    "-d",
    "--debug",
    "-b",
    "--background",
    "-w",
    "-L",
    "--noipv4ll",
    "-A",
    "--noarp",
    "-M",
    "--manager",
    "--master",
];
const IGNORED_WITH_VALUE: [&str; 10] =
    ["-f", "--config", "-c", "--script", "-C", "--nohook", "-o", "--option", "-O", "--nooption"];

impl Arguments {
    /// Reads the words behind the program's name.
    ///
    /// # Errors
    /// [`Wrong`].
    pub fn read(words: impl IntoIterator<Item = String>) -> Result<Self, Wrong> {
        let mut read = Self::default();
        let (mut only4, mut only6) = (false, false);
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let (name, given) = match word.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
                _ => (word, None),
            };
            let mut value = || given.clone().or_else(|| words.next()).ok_or_else(|| Wrong::NoValue(name.clone()));
            match name.as_str() {
                "-1" | "--oneshot" | "--wait" => read.once = true,
                "-4" | "--ipv4only" => only4 = true,
                "-6" | "--ipv6only" => only6 = true,
                "-p" | "--persistent" => read.keep = true,
                "-t" | "--timeout" => {
                    let text = value()?;
                    let seconds = text.parse::<u32>().map_err(|_| Wrong::Seconds(name.clone(), text))?;
                    read.timeout = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
                }
                "-h" | "--hostname" => read.host_name = Some(value()?),
                "-i" | "--interface" => read.interfaces.push(value()?),
                "-z" | "--allowinterfaces" => read.interfaces.extend(value()?.split([',', ' ']).map(str::to_owned)),
                "-Z" | "--denyinterfaces" => read.denied.extend(value()?.split([',', ' ']).map(str::to_owned)),
                _ if IGNORED.contains(&name.as_str()) => {}
                _ if IGNORED_WITH_VALUE.contains(&name.as_str()) => drop(value()?),
                _ if name.starts_with('-') => return Err(Wrong::Unknown(name)),
                _ => read.interfaces.push(name),
            }
        }
        if only4 && only6 {
            return Err(Wrong::NoFamily);
        }
        (read.v4, read.v6) = (!only6, !only4);
        Ok(read)
    }

    /// Whether the card of this name is meant. Cards that software made are meant only by name.
    pub fn means(&self, name: &str, is_virtual: bool) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| fits(pattern.as_bytes(), name.as_bytes()));
        let is_asked = if self.interfaces.is_empty() { !is_virtual } else { any(&self.interfaces) };
        is_asked && !any(&self.denied)
    }
}

/// Whether a name fits a pattern with `*` and `?`.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|from| fits(rest, &name[from..])),
        ([b'?', rest @ ..], [_, name @ ..]) => fits(rest, name),
        ([first, rest @ ..], [letter, name @ ..]) if first == letter => fits(rest, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str) -> Result<Arguments, Wrong> {
        Arguments::read(words.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn wrong_words_are_named() {
        assert_eq!(read("-x"), Err(Wrong::Unknown("-x".into())));
        assert_eq!(read("-t"), Err(Wrong::NoValue("-t".into())));
        assert_eq!(read("-t soon"), Err(Wrong::Seconds("-t".into(), "soon".into())));
        assert_eq!(read("--timeout=-1"), Err(Wrong::Seconds("--timeout".into(), "-1".into())));
        assert_eq!(read("-4 -6"), Err(Wrong::NoFamily));
    }

    #[test]
    fn the_words_of_linuxkits_yamls_are_understood() {
        let once = read("--nobackground -f /dhcpcd.conf -1").unwrap();
        assert_eq!(once, Arguments { once: true, ..Arguments::default() });
        let more = read("-B -4 -t 0 --hostname=web eth0 -Z docker*,veth*").unwrap();
        assert!(more.v4 && !more.v6 && more.timeout.is_none() && !more.once);
        assert_eq!((more.host_name.as_deref(), more.interfaces.len(), more.denied.len()), (Some("web"), 1, 2));
    }

    #[test]
    fn cards_are_meant_by_name_or_by_being_cards() {
        let all = read("").unwrap();
        assert!(all.means("eth0", false) && !all.means("docker0", true));
        let some = read("eth* tap? -Z eth1").unwrap();
        assert!(some.means("eth0", false) && some.means("tap0", true));
        assert!(!some.means("eth1", false) && !some.means("tap10", true) && !some.means("wlan0", false));
    }
}
