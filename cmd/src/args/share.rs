//! `-virtiofs DIR[,tag=TAG][,ro][,watch][,cache=SECONDS][,uid=GUEST:HOST[:COUNT]][,gid=GUEST:HOST[:COUNT]]`.

use std::path::PathBuf;
use std::str::FromStr;

use kiln_run::config::{IdRange, Share};

/// One `-virtiofs`, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShareSpec {
    folder: PathBuf,
    tag: Option<String>,
    read_only: bool,
    watch: bool,
    cache_s: Option<u32>,
    users: Vec<IdRange>,
    groups: Vec<IdRange>,
}

/// What is wrong with a `-virtiofs`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShareSpecError {
    /// Nothing was said.
    #[error("a share needs a folder: `-virtiofs DIR`")]
    Empty,
    /// A word that means nothing here.
    #[error("`{0}` is unknown in a share; known are `tag=`, `ro`, `watch`, `cache=`, `uid=` and `gid=`")]
    Unknown(String),
    /// The same thing twice.
    #[error("`{0}` stands twice in one share")]
    Twice(&'static str),
    /// A time that is none.
    #[error("`{0}` is no number of whole seconds, as in `cache=1`")]
    Seconds(String),
    /// A range that is none.
    #[error("`{0}` is no range of numbers; write `GUEST:HOST` or `GUEST:HOST:COUNT`, as in `uid=0:1000`")]
    Range(String),
}

impl FromStr for ShareSpec {
    type Err = ShareSpecError;

    fn from_str(text: &str) -> Result<Self, ShareSpecError> {
        let mut words = text.split(',');
        let folder = words.next().filter(|folder| !folder.is_empty()).ok_or(ShareSpecError::Empty)?;
        let mut spec = Self { folder: folder.into(), ..Self::default() };
        for word in words {
            match word.split_once('=') {
                Some(("tag", _)) if spec.tag.is_some() => return Err(ShareSpecError::Twice("tag")),
                Some(("tag", tag)) => spec.tag = Some(tag.into()),
                Some(("cache", _)) if spec.cache_s.is_some() => return Err(ShareSpecError::Twice("cache")),
                Some(("cache", text)) => {
                    spec.cache_s = Some(text.parse().map_err(|_| ShareSpecError::Seconds(text.into()))?);
                }
                Some(("uid", text)) => spec.users.push(range(text)?),
                Some(("gid", text)) => spec.groups.push(range(text)?),
                None if matches!(word, "ro" | "readonly") => spec.read_only = true,
                None if word == "watch" => spec.watch = true,
                _ => return Err(ShareSpecError::Unknown(word.into())),
            }
        }
        Ok(spec)
    }
}

impl ShareSpec {
    /// The share number `index` of a machine; without a tag it has LinuxKit's: `virtiofs0`, `virtiofs1`, ….
    pub fn share(&self, index: usize) -> Share {
        Share {
            folder: self.folder.clone(),
            tag: self.tag.clone().unwrap_or_else(|| format!("virtiofs{index}")),
            read_only: self.read_only,
            watch: self.watch,
            cache_s: self.cache_s.unwrap_or(0),
            users: self.users.clone(),
            groups: self.groups.clone(),
        }
    }
}

fn range(text: &str) -> Result<IdRange, ShareSpecError> {
    let numbers: Option<Vec<u32>> = text.split(':').map(|number| number.parse().ok()).collect();
    match numbers.as_deref() {
        Some([guest, host]) => Ok(IdRange { guest: *guest, host: *host, count: 1 }),
        Some([guest, host, count]) => Ok(IdRange { guest: *guest, host: *host, count: *count }),
        _ => Err(ShareSpecError::Range(text.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ShareSpec, ShareSpecError> {
        text.parse()
    }

    #[test]
    fn a_share_that_cannot_be_meant_is_refused() {
        assert_eq!(parse(""), Err(ShareSpecError::Empty));
        assert_eq!(parse(",ro"), Err(ShareSpecError::Empty));
        assert_eq!(parse("a,b"), Err(ShareSpecError::Unknown("b".into())));
        assert_eq!(parse("a,cache=none"), Err(ShareSpecError::Seconds("none".into())));
        assert_eq!(parse("a,tag=b,tag=c"), Err(ShareSpecError::Twice("tag")));
        for range in ["", "1", "1:", "a:b", "1:2:3:4", "-1:0", "0:4294967296"] {
            assert_eq!(parse(&format!("a,uid={range}")), Err(ShareSpecError::Range(range.into())));
        }
    }

    #[test]
    fn shares_are_numbered_as_linuxkits_unless_they_have_a_tag() {
        assert_eq!(
            parse("dir=x").unwrap().share(1),
            Share { folder: "dir=x".into(), tag: "virtiofs1".into(), ..Share::default() }
        );
        let all = parse("/src,ro,tag=src,watch,cache=5,uid=0:1000,uid=1:100000:65535,gid=5:6").unwrap().share(0);
        let range = |guest, host, count| IdRange { guest, host, count };
        assert_eq!(
            all,
            Share {
                folder: "/src".into(),
                tag: "src".into(),
                read_only: true,
                watch: true,
                cache_s: 5,
                users: vec![range(0, 1000, 1), range(1, 100_000, 65_535)],
                groups: vec![range(5, 6, 1)],
            }
        );
    }
}
