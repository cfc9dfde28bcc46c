//! Matching of a device's modalias against the patterns in `modules.alias`.

/// Modules whose pattern matches one of `wanted`, in the file's order, each once.
pub fn matching<'a>(alias_file: &'a str, wanted: &[&str]) -> Vec<&'a str> {
    let mut modules: Vec<&str> = Vec::new();
    for line in alias_file.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some("alias"), Some(pattern), Some(module)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        if !modules.contains(&module) && wanted.iter().any(|name| matches(pattern, name)) {
            modules.push(module);
        }
    }
    modules
}

/// Whether `name` fits `pattern` with `*`, `?` and `[a-f]` as in fnmatch(3); `-` and `_` are the same, as depmod has it.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where to go on when the rest does not fit: after the last star, one byte further in the name.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let step = match (pattern.get(p), name.get(n)) {
            (Some(b'*'), _) => {
                retry = Some((p + 1, n));
                p += 1;
                continue;
            }
            (None, None) => return true,
            (Some(b'?'), Some(_)) => Some(p + 1),
            (Some(b'['), Some(byte)) => class(pattern, p + 1, *byte),
            (Some(want), Some(byte)) if same(*want, *byte) => Some(p + 1),
            _ => None,
        };
        match (step, retry) {
            (Some(next), _) => {
                p = next;
                n += 1;
            }
            (None, Some((star, from))) if from < name.len() => {
                retry = Some((star, from + 1));
                p = star;
                n = from + 1;
            }
            _ => return false,
        }
    }
}

fn same(a: u8, b: u8) -> bool {
    let fold = |byte| if byte == b'-' { b'_' } else { byte };
    fold(a) == fold(b)
}

/// Position after a bracket expression that starts behind `[` at `at`, if it contains `byte`.
fn class(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    let end = at + pattern.get(at..)?.iter().position(|b| *b == b']')?;
    let set = pattern.get(at..end)?;
    let (set, negated) = match set.split_first() {
        Some((b'!' | b'^', rest)) => (rest, true),
        _ => (set, false),
    };
    let mut found = false;
    let mut rest = set;
    while let Some((first, tail)) = rest.split_first() {
        if let [b'-', last, tail @ ..] = tail {
            found |= (*first..=*last).contains(&byte);
            rest = tail;
        } else {
            found |= *first == byte;
            rest = tail;
        }
    }
    (found != negated).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_are_broken_match_nothing() {
        for pattern in ["[", "[a", "a[", "[]", "[!"] {
            assert!(!matches(pattern, "a"), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_matches_the_whole_name() {
        let cases = [
            ("pci:v00001AF4d*sv*sd*bc*sc*i*", "pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc00i00", true),
            ("pci:v00001AF4d*sv*sd*bc*sc*i*", "pci:v00001AF5d00001042sv00001AF4sd00001100bc01sc00i00", false),
            ("virtio:d00000002v*", "virtio:d00000002v00001AF4", true),
            ("virtio:d00000002v*", "virtio:d00000012v00001AF4", false),
            ("acpi*:PNP0C0C:*", "acpi:PNP0C0C:", true),
            ("acpi*:LNXPWRBN:*", "acpi:LNXPWRBN:", true),
            ("fs-overlay", "fs-overlay", true),
            ("fs-overlay", "fs-overlayfs", false),
            ("cpu:type:x86,ven*fam*mod*:feature:*00[0-3]?*", "cpu:type:x86,ven0fam6mod1:feature:,0021,", true),
            ("cpu:type:x86,ven*fam*mod*:feature:*00[0-3]?*", "cpu:type:x86,ven0fam6mod1:feature:,0041,", false),
            ("a[!b]c", "axc", true),
            ("a[!b]c", "abc", false),
            ("virtio_net", "virtio-net", true),
            ("", "", true),
            ("*", "", true),
            ("?", "", false),
        ];
        for (pattern, name, fits) in cases {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        let name = "a".repeat(5_000);
        assert!(!matches(&"*aa".repeat(200), &format!("{name}b")));
        assert!(matches(&"*aa".repeat(200), &name));
    }

    #[test]
    fn a_module_is_named_once_and_comments_are_passed_over() {
        let file = "# Aliases\nalias pci:v1* first\nalias pci:v1d2* second\nalias pci:v1d3* first\nalias broken\n";
        assert_eq!(matching(file, &["pci:v1d2", "pci:v1d3"]), ["first", "second"]);
    }
}
