//! Names inside a tree: relative, normalised, and unable to point outside of it.

use std::borrow::Cow;
use std::fmt;

/// Longest path, in bytes: Linux' `PATH_MAX` less the final NUL. A longer one could be unpacked nowhere.
pub const PATH_LIMIT_BYTES: usize = 4095;

/// Longest component, in bytes: Linux' `NAME_MAX`.
pub const NAME_LIMIT_BYTES: usize = 255;

/// A path below the root of a tree: components joined by one `/`, none of them empty, `.` or `..`. The empty path is
/// the root itself. Names are bytes; they need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TreePath(Box<[u8]>);

/// Why a name cannot be a path in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// It starts with `/`.
    #[error("the name is absolute")]
    Absolute,
    /// It has a component `..`.
    #[error("the name has a component `..`, which could lead outside")]
    Parent,
    /// It has a NUL byte.
    #[error("the name has a NUL byte")]
    Nul,
    /// The whole is longer than [`PATH_LIMIT_BYTES`].
    #[error("the name is longer than {PATH_LIMIT_BYTES} bytes")]
    PathTooLong,
    /// One component is longer than [`NAME_LIMIT_BYTES`].
    #[error("a component of the name is longer than {NAME_LIMIT_BYTES} bytes")]
    NameTooLong,
}

impl TreePath {
    /// The root.
    pub fn root() -> Self {
        Self::default()
    }

    /// A name from an archive: `./` and doubled slashes are dropped, what could lead outside is refused.
    pub fn from_member(name: &[u8]) -> Result<Self, PathFault> {
        match name {
            [b'/', ..] if name.iter().any(|&byte| byte != b'/') => Err(PathFault::Absolute),
            _ => Self::normalise(name),
        }
    }

    /// A path that a user wrote: as [`from_member`](Self::from_member), but `/etc/hosts` means `etc/hosts`.
    pub fn from_user(name: &str) -> Result<Self, PathFault> {
        Self::normalise(name.as_bytes())
    }

    fn normalise(name: &[u8]) -> Result<Self, PathFault> {
        if name.len() > PATH_LIMIT_BYTES {
            return Err(PathFault::PathTooLong);
        }
        let mut path = Vec::with_capacity(name.len());
        for component in name.split(|&byte| byte == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err(PathFault::Parent),
                long if long.len() > NAME_LIMIT_BYTES => return Err(PathFault::NameTooLong),
                with_nul if with_nul.contains(&0) => return Err(PathFault::Nul),
                fine => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(fine);
                }
            }
        }
        Ok(Self(path.into()))
    }

    /// The bytes, with no `/` in front or behind.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its components, first to last; none for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/').filter(|component| !component.is_empty())
    }

    /// The folder and the name in it, or `None` for the root.
    pub fn split(&self) -> Option<(TreePath, &[u8])> {
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => Some((Self(self.0[..slash].into()), &self.0[slash + 1..])),
            None if self.0.is_empty() => None,
            None => Some((Self::root(), &self.0)),
        }
    }

    /// The path of `name` in this folder. `name` must be one component.
    pub fn join(&self, name: &[u8]) -> Self {
        match (self.0.is_empty(), name.is_empty()) {
            (true, _) => Self(name.into()),
            (_, true) => self.clone(),
            _ => Self([&self.0, &b"/"[..], name].concat().into()),
        }
    }

    /// The text of a symbolic link at `link` that leads to this path.
    pub fn seen_from(&self, link: &TreePath) -> Vec<u8> {
        let (here, there): (Vec<_>, Vec<_>) = (self.components().collect(), link.components().collect());
        let folders = there.len().saturating_sub(1);
        let shared = here.iter().zip(there.iter().take(folders)).take_while(|(a, b)| a == b).count();
        let up = std::iter::repeat_n(&b".."[..], folders - shared);
        up.chain(here.into_iter().skip(shared)).collect::<Vec<_>>().join(&b"/"[..])
    }

    /// What `path` is called when its root is this folder.
    pub fn append(&self, path: &TreePath) -> Self {
        self.join(&path.0)
    }
}

/// For messages: what is no UTF-8 or would move the cursor is replaced, and a long name is cut.
pub fn printable(name: &[u8]) -> Cow<'_, str> {
    const SHOWN_CHARS: usize = 200;
    let text = String::from_utf8_lossy(name);
    if text.len() <= SHOWN_CHARS && !text.contains(char::is_control) {
        return text;
    }
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut shown: String = text.chars().take(SHOWN_CHARS).map(clean).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    Cow::Owned(shown)
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "." } else { "" })?;
        f.write_str(&printable(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_lead_outside_are_refused() {
        for (name, fault) in [
            (&b"/etc/passwd"[..], PathFault::Absolute),
            (b"//etc", PathFault::Absolute),
            (b"../etc", PathFault::Parent),
            (b"a/../../b", PathFault::Parent),
            (b"a/..", PathFault::Parent),
            (b"a\0b", PathFault::Nul),
            (&[b'a'; 256], PathFault::NameTooLong),
            (&b"a/".repeat(2048), PathFault::PathTooLong),
        ] {
            assert_eq!(TreePath::from_member(name), Err(fault), "{}", printable(name));
        }
    }

    #[test]
    fn names_are_normalised() {
        for (name, path) in [("./a//b/", "a/b"), (".", ""), ("", ""), ("/", ""), ("./", ""), ("..a/b..", "..a/b..")] {
            assert_eq!(TreePath::from_member(name.as_bytes()).unwrap().as_bytes(), path.as_bytes(), "{name}");
        }
        assert_eq!(TreePath::from_user("/etc/x").unwrap().as_bytes(), b"etc/x");
    }

    #[test]
    fn a_link_leads_up_and_down() {
        let path = |name| TreePath::from_user(name).unwrap();
        for (target, link, text) in
            [("odd/a", "odd/b", "a"), ("odd/a", "b", "odd/a"), ("a", "x/y/b", "../../a"), ("x/a", "x/y/b", "../a")]
        {
            assert_eq!(path(target).seen_from(&path(link)), text.as_bytes(), "{link}");
        }
    }

    #[test]
    fn a_path_splits_into_folder_and_name() {
        assert_eq!(TreePath::root().split(), None);
        let path = TreePath::from_user("a/b/c").unwrap();
        let (folder, name) = path.split().unwrap();
        assert_eq!((folder.as_bytes(), name), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(folder.join(name), path);
        assert_eq!(path.components().collect::<Vec<_>>(), [b"a", b"b", b"c"]);
    }

    #[test]
    fn a_name_in_a_message_moves_no_cursor() {
        assert_eq!(printable(b"a\x1b[2Jb"), "a\u{fffd}[2Jb");
        assert_eq!(printable(&[b'x'; 999]).chars().count(), 201);
    }
}
