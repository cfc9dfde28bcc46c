//! Lets every long flag be written with one dash too: `-cpus 2`, `-cpus=2`, `-disk size=1G`. Works from the parser's own
//! description, so that a new flag needs nothing here. Values are never touched, nor is what follows `--`.

use std::ffi::{OsStr, OsString};

use clap::{Arg, Command};

/// Rewrites `-name` to `--name` wherever `name` is a long flag of the command that the words have reached by then.
pub fn with_two_dashes(root: &Command, words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words = words.into_iter().peekable();
    let mut rewritten: Vec<OsString> = words.next().into_iter().collect();
    let mut reached = vec![root];
    // Words of the command reached that are no flags.
    let mut positional = 0;
    while let Some(word) = words.next() {
        if word == "--" {
            rewritten.push(word);
            break;
        }
        if !word.as_encoded_bytes().starts_with(b"-") || word == "-" {
            if let Some(below) = reached.last().and_then(|command| command.find_subcommand(&word)) {
                reached.push(below);
                positional = 0;
            } else {
                positional += 1;
            }
            rewritten.push(word);
            if reached.last().is_some_and(|command| begins_trailing(command, positional)) {
                break;
            }
            continue;
        }
        let takes_next = match long_flag(&reached, &word) {
            Some(arg) => {
                let one_dash = !word.as_encoded_bytes().starts_with(b"--");
                let can_do_without = arg.get_num_args().is_some_and(|count| count.min_values() == 0);
                let is_flag_next = words.peek().is_some_and(|next| next.as_encoded_bytes().starts_with(b"-"));
                let does_without = can_do_without && is_flag_next;
                let takes_next = arg.get_action().takes_values()
                    && !arg.is_require_equals_set()
                    && !does_without
                    && !word.as_encoded_bytes().contains(&b'=');
                rewritten.push(if one_dash { prefixed(&word) } else { word });
                takes_next
            }
            None => {
                let takes_next = short_flag_wants_value(&reached, &word);
                // Named whole in the parser's message, which then knows what is near it.
                rewritten.push(if is_unknown_word(&reached, &word) { prefixed(&word) } else { word });
                takes_next
            }
        };
        if takes_next {
            rewritten.extend(words.next());
        }
    }
    rewritten.extend(words);
    rewritten
}

/// Whether this word is the first of those that are all for another program.
fn begins_trailing(command: &Command, positional: usize) -> bool {
    let trailing = command.get_positionals().find(|arg| arg.is_trailing_var_arg_set());
    trailing.and_then(Arg::get_index).is_some_and(|index| index == positional)
}

fn prefixed(word: &OsStr) -> OsString {
    let mut longer = OsString::from("-");
    longer.push(word);
    longer
}

/// The long flag that `word` spells with one dash or two, when it is one.
fn long_flag<'a>(reached: &[&'a Command], word: &OsStr) -> Option<&'a Arg> {
    let text = word.to_string_lossy();
    let dashes = text.len() - text.trim_start_matches('-').len();
    let name = text.get(dashes..)?.split('=').next()?;
    // `-q` is the short flag, whatever long flag of one letter there may be.
    if dashes > 2 || (dashes == 1 && name.chars().count() < 2) {
        return None;
    }
    let is_alias = |arg: &Arg| arg.get_all_aliases().is_some_and(|names| names.contains(&name));
    flags(reached).find(|arg| arg.get_long() == Some(name) || is_alias(arg))
}

/// Whether `-docker` is neither a long flag nor begins with a short one.
fn is_unknown_word(reached: &[&Command], word: &OsStr) -> bool {
    let text = word.to_string_lossy();
    let mut letters = text.strip_prefix('-').unwrap_or_default().chars();
    let first = letters.next();
    first.is_some_and(|first| first != '-' && flags(reached).all(|arg| arg.get_short() != Some(first)))
        && letters.next().is_some()
}

/// Whether the last letter of `-q` or `-vf` is a short flag whose value is the next word.
fn short_flag_wants_value(reached: &[&Command], word: &OsStr) -> bool {
    let text = word.to_string_lossy();
    let Some(letters) = text.strip_prefix('-').filter(|rest| !rest.starts_with('-')) else { return false };
    for (at, letter) in letters.char_indices() {
        let known = flags(reached).find(|arg| arg.get_short() == Some(letter));
        if known.is_some_and(|arg| arg.get_action().takes_values()) {
            // The rest of the word is the value; only an empty rest leaves it to the next word.
            return at + letter.len_utf8() == letters.len();
        }
    }
    false
}

/// Flags of the command that was reached, and the global ones above it.
fn flags<'a>(reached: &[&'a Command]) -> impl Iterator<Item = &'a Arg> {
    let (here, above) = reached.split_last().map_or((None, &[][..]), |(here, above)| (Some(*here), above));
    let own = here.into_iter().flat_map(Command::get_arguments);
    let global: Vec<&'a Arg> =
        above.iter().flat_map(|command| command.get_arguments()).filter(|arg| arg.is_global_set()).collect();
    own.chain(global)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::Cli;
    use super::*;

    #[test]
    fn one_dash_spells_what_two_dashes_do_and_values_stay() {
        // (as typed, as clap gets it)
        let cases = [
            ("kiln run -cpus 2 minimal", "kiln run --cpus 2 minimal"),
            ("kiln run -cpus=2 -mem=1G minimal", "kiln run --cpus=2 --mem=1G minimal"),
            ("kiln run --cpus 2 minimal", "kiln run --cpus 2 minimal"),
            ("kiln run -disk size=1G minimal", "kiln run --disk size=1G minimal"),
            ("kiln run -cmdline -disk minimal", "kiln run --cmdline -disk minimal"),
            ("kiln run -append -cpus -cpus 1 x", "kiln run --append -cpus --cpus 1 x"),
            ("kiln run -kernel -mem 1G minimal", "kiln run --kernel --mem 1G minimal"),
            ("kiln run -kernel -mem minimal", "kiln run --kernel --mem minimal"),
            // Also names that the help does not tell.
            ("kiln run -detached minimal", "kiln run --detached minimal"),
            ("kiln run -no-reboot minimal", "kiln run --no-reboot minimal"),
            ("kiln run -- -cpus", "kiln run -- -cpus"),
            ("kiln build -format tar x.yml", "kiln build --format tar x.yml"),
            ("kiln build -f tar -q x.yml", "kiln build -f tar -q x.yml"),
            ("kiln build -ftar x.yml", "kiln build -ftar x.yml"),
            ("kiln build -qf -name x.yml", "kiln build -qf -name x.yml"),
            ("kiln build -o - -", "kiln build -o - -"),
            ("kiln -cache run build -name a x.yml", "kiln --cache run build --name a x.yml"),
            ("kiln build -cache d x.yml", "kiln build --cache d x.yml"),
            ("kiln -quiet build x.yml", "kiln --quiet build x.yml"),
            ("kiln -cpus 2 run x", "kiln --cpus 2 run x"),
            ("kiln build -docker x.yml", "kiln build --docker x.yml"),
            ("kiln build -x x.yml", "kiln build -x x.yml"),
            ("kiln pkg show-tag -hash d", "kiln pkg show-tag --hash d"),
            ("kiln run ---cpus x", "kiln run ---cpus x"),
            ("kiln exec -tty -e A=b vm ls -la -tty", "kiln exec --tty -e A=b vm ls -la -tty"),
            ("kiln exec vm -tty ls -user", "kiln exec vm --tty ls -user"),
            ("kiln -help", "kiln --help"),
            ("kiln run -version", "kiln run -version"),
        ];
        let mut root = Cli::command();
        root.build();
        for (typed, expected) in cases {
            let words = with_two_dashes(&root, typed.split(' ').map(OsString::from));
            assert_eq!(words, expected.split(' ').map(OsString::from).collect::<Vec<_>>(), "{typed}");
        }
    }
}
