//! What can be wrong with shared folders.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use rustix::fs::{Access, access};

use super::Fault;
use crate::config::{IdRange, MAX_SHARES, Share, TAG_LIMIT_BYTES};

/// One thing that is wrong with a shared folder.
#[derive(Debug, thiserror::Error)]
pub enum ShareFault {
    /// Too many of them.
    #[error("a machine has at most {MAX_SHARES} shared folders, not {shares}")]
    TooMany {
        /// Asked for.
        shares: usize,
    },
    /// There is none, or it may not be looked into.
    #[error("cannot share folder `{}`", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// A tag that a guest cannot mount.
    #[error("`{tag}` is no tag for a shared folder: 1 to {TAG_LIMIT_BYTES} bytes, without blanks, commas and zeros")]
    Tag {
        /// The tag.
        tag: String,
    },
    /// Two folders under one tag.
    #[error("two shared folders have the tag `{tag}`: give one of them another, such as `tag={tag}-2`")]
    TagTwice {
        /// The tag.
        tag: String,
    },
    /// Ranges that say two things about one number.
    #[error("in the share `{tag}`, the {kind} ranges overlap or are empty: each number may be in one range only")]
    Ranges {
        /// The share's tag.
        tag: String,
        /// `uid` or `gid`.
        kind: &'static str,
    },
}

pub(super) fn check(shares: &[Share], faults: &mut Vec<Fault>) {
    let mut add = |fault: ShareFault| faults.push(Fault::Share(fault));
    if shares.len() > MAX_SHARES {
        add(ShareFault::TooMany { shares: shares.len() });
    }
    let mut tags = BTreeSet::new();
    for Share { folder, tag, users, groups, .. } in shares {
        let readable = fs::metadata(folder).and_then(|found| {
            if !found.is_dir() {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            Ok(access(folder, Access::READ_OK | Access::EXEC_OK)?)
        });
        if let Err(source) = readable {
            add(ShareFault::Folder { path: folder.clone(), source });
        }
        let is_odd = |character: char| character.is_whitespace() || matches!(character, ',' | '\0');
        if tag.is_empty() || tag.len() > TAG_LIMIT_BYTES || tag.contains(is_odd) {
            add(ShareFault::Tag { tag: tag.clone() });
        } else if !tags.insert(tag) {
            add(ShareFault::TagTwice { tag: tag.clone() });
        }
        for (kind, ranges) in [("uid", users), ("gid", groups)] {
            if !are_apart(ranges) {
                add(ShareFault::Ranges { tag: tag.clone(), kind });
            }
        }
    }
}

/// Whether no number is in two of the ranges, on either side.
fn are_apart(ranges: &[IdRange]) -> bool {
    let sides: [fn(&IdRange) -> u32; 2] = [|range| range.guest, |range| range.host];
    sides.iter().all(|start| {
        let mut spans: Vec<(u32, u32)> = ranges.iter().map(|range| (start(range), range.count)).collect();
        spans.sort_unstable();
        let ends = spans.iter().map(|(start, count)| start.checked_add(count.checked_sub(1)?));
        let Some(ends) = ends.collect::<Option<Vec<u32>>>() else { return false };
        ends.iter().zip(spans.iter().skip(1)).all(|(end, (next, _))| end < next)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(shares: &[Share]) -> Vec<String> {
        let mut faults = Vec::new();
        check(shares, &mut faults);
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn shares_that_no_machine_can_have_are_all_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let share = |tag: &str| Share { folder: folder.path().into(), tag: tag.into(), ..Share::default() };
        let at = |path: PathBuf| Share { folder: path, ..share("gone") };
        assert_eq!(faults(&[share("virtiofs0"), share("b")]), [""; 0]);
        assert_eq!(faults(&[at(file.clone())]), [format!("cannot share folder `{}`", file.display())]);
        assert_eq!(faults(&[at("/nowhere".into())]), ["cannot share folder `/nowhere`"]);
        for bad in ["", "a b", "a,b", "a\0", &"x".repeat(37)] {
            assert_eq!(faults(&[share(bad)]).len(), 1, "{bad:?}");
        }
        let twice = faults(&[share("a"), share("a")]);
        assert_eq!(twice, ["two shared folders have the tag `a`: give one of them another, such as `tag=a-2`"]);
        let many: Vec<Share> = (0..9).map(|number| share(&number.to_string())).collect();
        assert_eq!(faults(&many), ["a machine has at most 8 shared folders, not 9"]);
    }

    #[test]
    fn each_number_is_in_one_range_only() {
        let range = |guest, host, count| IdRange { guest, host, count };
        for (ranges, expected) in [
            (&[][..], true),
            (&[range(0, 1000, 1), range(1, 5, 1)], true),
            (&[range(0, 1000, 2), range(1, 5, 1)], false),
            (&[range(0, 1000, 2), range(7, 1001, 1)], false),
            (&[range(0, 0, u32::MAX)], true),
            (&[range(1, 0, u32::MAX)], true),
            (&[range(2, 0, u32::MAX)], false),
            (&[range(0, 0, 0)], false),
        ] {
            assert_eq!(are_apart(ranges), expected, "{ranges:?}");
        }
    }
}
