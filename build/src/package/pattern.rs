//! Patterns for paths and names: `*` and `?` stand for anything but `/`, `**` for anything.

/// Whether `text` fits `pattern` as a whole.
pub(super) fn fits(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', b'*', rest @ ..] => (0..=text.len()).any(|skip| fits(rest, &text[skip..])),
        [b'*', rest @ ..] => {
            let reach = text.iter().position(|&byte| byte == b'/').unwrap_or(text.len());
            (0..=reach).any(|skip| fits(rest, &text[skip..]))
        }
        [wanted, rest @ ..] => match text {
            [byte, more @ ..] if byte == wanted || (*wanted == b'?' && *byte != b'/') => fits(rest, more),
            _ => false,
        },
    }
}

/// Whether `path` fits `pattern`, or is below what fits it. A `/` in front of the pattern means nothing.
pub(super) fn covers(pattern: &str, path: &[u8]) -> bool {
    let pattern = pattern.trim_matches('/').as_bytes();
    let mut ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    fits(pattern, path) || ends.any(|end| fits(pattern, &path[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_in_its_folder_and_two_do_not() {
        for (pattern, text, expected) in [
            ("virtio*", "virtio_blk", true),
            ("virtio*", "xvirtio", false),
            ("nls_*", "nls_utf8", true),
            ("a/*/c", "a/b/c", true),
            ("a/*/c", "a/b/b/c", false),
            ("a/**/c", "a/b/b/c", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("", "a", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_folder_covers_what_is_in_it() {
        assert!(covers("/usr/share/doc", b"usr/share/doc/x/copyright"));
        assert!(covers("usr/share/*", b"usr/share/doc/x"));
        assert!(!covers("usr/share/do", b"usr/share/doc"));
    }
}
