//! What the command line says about the root.

use std::path::PathBuf;
use std::time::Duration;

use kiln_guest::block::DeviceName as Root;
use kiln_guest::cmdline::Cmdline;

/// How long a root is waited for that nobody asked to wait for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Length of a SHA-256 digest in hexadecimal digits.
const ROOTHASH_DIGITS: usize = 64;

/// What is wrong with the command line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WantedError {
    /// No `root=`.
    #[error("the kernel's command line has no `root=`, such as `root=/dev/vda` or `root=LABEL=name`")]
    NoRoot,
    /// A root that is not understood.
    #[error(
        "`root={0}` is not understood; it is a device below /dev, MAJOR:MINOR, LABEL=, UUID=, PARTLABEL= or PARTUUID="
    )]
    Root(String),
    /// A root hash that is none.
    #[error("`roothash={0}` is no SHA-256 digest of {ROOTHASH_DIGITS} hexadecimal digits")]
    Roothash(String),
    /// A time that is none.
    #[error("`{word}={value}` is no number of seconds")]
    Seconds {
        /// Which word.
        word: &'static str,
        /// What it says.
        value: String,
    },
    /// What is to happen to a damaged root.
    #[error("`kiln.verity={0}` is not known; there are `error`, `panic` and `reboot`")]
    OnDamage(String),
}

/// What happens when a block is read that is not what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDamage {
    /// Whoever reads it gets an error.
    Error,
    /// The kernel panics.
    Panic,
    /// The machine starts again.
    Reboot,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which device.
    pub root: Root,
    /// How long it is waited for; `None` is for ever.
    pub patience: Option<Duration>,
    /// How long nobody looks for it.
    pub delay: Duration,
    /// Its file system, if that is told.
    pub file_system: Option<String>,
    /// Options of its file system.
    pub options: String,
    /// Whether it may be written, as far as its file system can.
    pub writable: bool,
    /// Root hash of its dm-verity tree, if it has one.
    pub roothash: Option<String>,
    /// What happens when it is damaged.
    pub on_damage: OnDamage,
    /// The program that is started in it, if it is told.
    pub init: Option<PathBuf>,
    /// Whether everything that does not go well is told.
    pub verbose: bool,
}

impl Wanted {
    /// Reads the command line.
    pub fn read(cmdline: &Cmdline) -> Result<Self, WantedError> {
        let text = |word: &str| cmdline.value(word).filter(|text| !text.is_empty()).map(str::to_owned);
        let seconds = |word: &'static str| -> Result<Option<Duration>, WantedError> {
            let Some(value) = text(word) else { return Ok(None) };
            match value.parse() {
                Ok(seconds) => Ok(Some(Duration::from_secs(seconds))),
                Err(_) => Err(WantedError::Seconds { word, value }),
            }
        };
        let root = root(&text("root").ok_or(WantedError::NoRoot)?)?;
        let patience = match seconds("rootwait")? {
            None if cmdline.has("rootwait") => None,
            None => Some(PATIENCE),
            some => some,
        };
        let on_damage = match text("kiln.verity").as_deref() {
            None | Some("error") => OnDamage::Error,
            Some("panic") => OnDamage::Panic,
            Some("reboot") => OnDamage::Reboot,
            Some(other) => return Err(WantedError::OnDamage(other.into())),
        };
        Ok(Self {
            root,
            patience,
            delay: seconds("rootdelay")?.unwrap_or_default(),
            file_system: text("rootfstype"),
            options: text("rootflags").unwrap_or_default(),
            writable: cmdline.has("rw"),
            roothash: text("roothash").map(roothash).transpose()?,
            on_damage,
            init: text("init").map(PathBuf::from),
            verbose: cmdline.has("kiln.verbose"),
        })
    }
}

fn root(text: &str) -> Result<Root, WantedError> {
    let refuse = || WantedError::Root(text.to_owned());
    let plain = |value: &str| match value.trim_matches('"') {
        "" => Err(refuse()),
        value => Ok(value.to_owned()),
    };
    let lower = |value: &str| plain(value).map(|value| value.to_ascii_lowercase());
    if let Some((key, value)) = text.split_once('=') {
        return match key {
            "LABEL" => plain(value).map(Root::Label),
            "UUID" => lower(value).map(Root::Uuid),
            "PARTLABEL" => plain(value).map(Root::PartLabel),
            "PARTUUID" => lower(value).map(Root::PartUuid),
            _ => Err(refuse()),
        };
    }
    if let Some(name) = text.strip_prefix("/dev/") {
        let strange = name.is_empty() || name.split('/').any(|part| ["", ".", ".."].contains(&part));
        return if strange { Err(refuse()) } else { Ok(Root::Name(name.to_owned())) };
    }
    let numbers = text.split_once(':').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    numbers.map(|(major, minor)| Root::Number(major, minor)).ok_or_else(refuse)
}

fn roothash(text: String) -> Result<String, WantedError> {
    match text.len() == ROOTHASH_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err(WantedError::Roothash(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Wanted, WantedError> {
        Wanted::read(&Cmdline::parse(text))
    }

    #[test]
    fn what_is_not_understood_is_refused_by_its_word() {
        for (text, error) in [
            ("quiet", WantedError::NoRoot),
            ("root=", WantedError::NoRoot),
            ("root=vda", WantedError::Root("vda".into())),
            ("root=/dev/../etc", WantedError::Root("/dev/../etc".into())),
            ("root=/dev/", WantedError::Root("/dev/".into())),
            ("root=LABEL=", WantedError::Root("LABEL=".into())),
            ("root=ID=1", WantedError::Root("ID=1".into())),
            ("root=8:", WantedError::Root("8:".into())),
            ("root=/dev/x roothash=12", WantedError::Roothash("12".into())),
            ("root=/dev/x kiln.verity=off", WantedError::OnDamage("off".into())),
            ("root=/dev/x rootdelay=long", WantedError::Seconds { word: "rootdelay", value: "long".into() }),
        ] {
            assert_eq!(read(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn roots_are_read_as_the_kernel_writes_them() {
        for (text, root) in [
            ("/dev/vda", Root::Name("vda".into())),
            ("/dev/cciss/c0d0", Root::Name("cciss/c0d0".into())),
            ("8:17", Root::Number(8, 17)),
            ("LABEL=A b", Root::Label("A b".into())),
            ("UUID=ABCD-1", Root::Uuid("abcd-1".into())),
            ("PARTLABEL=root", Root::PartLabel("root".into())),
            ("PARTUUID=AB", Root::PartUuid("ab".into())),
        ] {
            let wanted = read(&format!("\"root={text}\"")).unwrap();
            assert_eq!(wanted.root, root);
            assert_eq!(wanted.root.to_string().to_lowercase(), text.to_lowercase());
        }
    }

    #[test]
    fn the_other_words_are_read() {
        let hash = "A".repeat(64);
        let wanted = read(&format!(
            "root=/dev/sda rootwait rootdelay=3 rootfstype=erofs rootflags=a,b rw roothash={hash} init=/x kiln.verity=panic"
        ))
        .unwrap();
        assert_eq!((wanted.patience, wanted.delay), (None, Duration::from_secs(3)));
        assert_eq!(
            (wanted.file_system.as_deref(), wanted.options.as_str(), wanted.writable),
            (Some("erofs"), "a,b", true)
        );
        assert_eq!(wanted.roothash, Some("a".repeat(64)));
        assert_eq!((wanted.on_damage, wanted.init), (OnDamage::Panic, Some("/x".into())));
        let plain = read("root=/dev/sda ro").unwrap();
        assert_eq!((plain.patience, plain.writable, plain.roothash), (Some(PATIENCE), false, None));
        assert_eq!(read("root=/dev/sda rootwait=5").unwrap().patience, Some(Duration::from_secs(5)));
    }
}
