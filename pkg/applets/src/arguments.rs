//! Arguments as LinuxKit's programs take them: `-word value`, `-word=value` or two dashes, in front of plain words.

/// A program that was called wrongly.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongUse {
    /// A flag that it does not have.
    #[error("`{0}` is not known")]
    Unknown(String),
    /// A flag without what belongs to it.
    #[error("`-{0}` needs a value")]
    NoValue(&'static str),
    /// A flag that takes none.
    #[error("`-{0}` takes no value")]
    Value(&'static str),
    /// A value that is not understood.
    #[error("`{value}` is no {what}")]
    Bad {
        /// What was given.
        value: String,
        /// What it should be.
        what: &'static str,
    },
    /// Something is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// More words than it takes.
    #[error("`{0}` is too much")]
    TooMuch(String),
}

/// The flags that a program has.
#[derive(Debug, Clone, Copy)]
pub struct Flags {
    /// Those with a value.
    pub valued: &'static [&'static str],
    /// Those that stand alone.
    pub alone: &'static [&'static str],
}

/// What a program was called with.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Given {
    valued: Vec<(&'static str, String)>,
    alone: Vec<&'static str>,
    /// The plain words.
    pub words: Vec<String>,
}

impl Flags {
    /// Sorts the arguments. `--` ends the flags.
    ///
    /// # Errors
    /// [`WrongUse`] for a flag that is not known or has a value too few or too many.
    pub fn read(self, arguments: &[String]) -> Result<Given, WrongUse> {
        let mut given = Given::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let Some(flag) = argument.strip_prefix('-').filter(|flag| !flag.is_empty()) else {
                given.words.push(argument.clone());
                continue;
            };
            if flag == "-" {
                given.words.extend(arguments.cloned());
                break;
            }
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (name, value) =
                flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value.to_owned())));
            if let Some(name) = self.valued.iter().find(|known| **known == name) {
                let value = value.or_else(|| arguments.next().cloned()).ok_or(WrongUse::NoValue(name))?;
                given.valued.push((name, value));
            } else if let Some(name) = self.alone.iter().find(|known| **known == name) {
                match value.as_deref() {
                    None | Some("true") => given.alone.push(name),
                    Some("false") => {}
                    Some(_) => return Err(WrongUse::Value(name)),
                }
            } else {
                return Err(WrongUse::Unknown(argument.clone()));
            }
        }
        Ok(given)
    }
}

impl Given {
    /// The last value of a flag.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values(name).last()
    }

    /// All values of a flag.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.valued.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// Whether a flag without a value is there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.alone.contains(&name)
    }

    /// A flag's value as a number.
    ///
    /// # Errors
    /// [`WrongUse::Bad`].
    pub fn number(&self, name: &str, default: u64) -> Result<u64, WrongUse> {
        let Some(value) = self.value(name) else { return Ok(default) };
        let number = match value.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => value.parse(),
        };
        number.map_err(|_| WrongUse::Bad { value: value.to_owned(), what: "number" })
    }
}

/// A size in bytes, with LinuxKit's units K, M and G of 1024 each.
///
/// # Errors
/// [`WrongUse::Bad`], also when it is beyond 64 bits.
pub fn size(text: &str) -> Result<u64, WrongUse> {
    let bad = || WrongUse::Bad { value: text.to_owned(), what: "size, such as 512M or 2G" };
    let (digits, unit) = match text.strip_suffix(['K', 'M', 'G']) {
        None => (text, 1),
        Some(digits) if text.ends_with('K') => (digits, 1 << 10),
        Some(digits) if text.ends_with('M') => (digits, 1 << 20),
        Some(digits) => (digits, 1 << 30),
    };
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(unit).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: Flags = Flags { valued: &["type", "path"], alone: &["force"] };

    fn read(words: &[&str]) -> Result<Given, WrongUse> {
        FLAGS.read(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn flags_that_are_wrong_are_named() {
        assert_eq!(read(&["-typ", "ext4"]), Err(WrongUse::Unknown("-typ".into())));
        assert_eq!(read(&["--type"]), Err(WrongUse::NoValue("type")));
        assert_eq!(read(&["-force=yes"]), Err(WrongUse::Value("force")));
        for text in ["", "G", "-1", "1T", "1 G", "99999999999G"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_dash_or_two_with_a_value_before_or_behind_the_sign() {
        let given = read(&["-type", "xfs", "--type=ext4", "--force", "/dev/vda", "--", "-x"]).unwrap();
        assert_eq!((given.value("type"), given.has("force")), (Some("ext4"), true));
        assert_eq!(given.words, ["/dev/vda", "-x"]);
        assert!(!read(&["-force=false", "-"]).unwrap().has("force"));
        assert_eq!((size("5670K"), size("2G"), size("8765432")), (Ok(5670 << 10), Ok(2 << 30), Ok(8_765_432)));
    }
}
