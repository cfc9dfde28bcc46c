//! The known word that a mistyped one is most like.

/// The one of `known` that takes the fewest edits, if these are at most a third of the word (and at least one is always
/// granted). Compared without case. Words of more than 64 characters have none: nobody mistypes those.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    const LONGEST: usize = 64;
    let word: Vec<char> = word.chars().take(LONGEST + 1).flat_map(char::to_lowercase).collect();
    if word.len() > LONGEST {
        return None;
    }
    let granted = (word.len() / 3).max(1);
    let distances = known.iter().map(|candidate| {
        let letters: Vec<char> = candidate.chars().flat_map(char::to_lowercase).collect();
        (edits(&word, &letters), *candidate)
    });
    let (distance, candidate) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= granted).then_some(candidate)
}

/// Fewest insertions, removals, replacements and swaps of neighbours (optimal string alignment).
fn edits(a: &[char], b: &[char]) -> usize {
    let width = b.len() + 1;
    let mut table = vec![0; (a.len() + 1) * width];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            let cell = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = table[(i - 1) * width + j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = replaced.min(table[(i - 1) * width + j] + 1).min(table[i * width + j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(table[(i - 2) * width + j - 2] + 1);
                }
                best
            };
            table[i * width + j] = cell;
        }
    }
    table[a.len() * width + b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_word_is_matched_with_what_it_is_most_like_or_with_nothing() {
        const KNOWN: [&str; 5] = ["kernel", "init", "services", "files", "capabilities.add"];
        for (word, expected) in [
            ("", None),
            ("network", None),
            ("xx", None),
            (&"s".repeat(1_000_000), None),
            ("servics", Some("services")),
            ("Services", Some("services")),
            ("kernal", Some("kernel")),
            ("inti", Some("init")),
            ("file", Some("files")),
            ("capabilitiesadd", Some("capabilities.add")),
        ] {
            assert_eq!(nearest(word, &KNOWN), expected, "{}", &word[..word.len().min(20)]);
        }
    }
}
