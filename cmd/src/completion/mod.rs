//! `kiln completion`: the parser's own script for a shell, and behind it the names of machines, which the shell asks
//! `kiln ps --names` for.

use std::collections::BTreeSet;

use clap::{Command, ValueHint};
use clap_complete::Shell;

use crate::args;

const BASH: &str = include_str!("machines.bash");
const ZSH: &str = include_str!("machines.zsh");
const FISH: &str = include_str!("machines.fish");

/// Commands whose positional arguments are machines.
const OF_MACHINES: [&str; 10] =
    ["console", "exec", "inspect", "kill", "logs", "memory", "pause", "resume", "rm", "stop"];
/// What zsh's script says of an argument with this hint, which nothing else here has.
const ZSH_HINT: (ValueHint, &str) = (ValueHint::Username, ":_users'");

/// The script.
pub fn script(shell: Shell) -> Vec<u8> {
    match shell {
        Shell::Bash => plain(shell, args::command()) + BASH,
        Shell::Fish => plain(shell, args::command()) + FISH,
        Shell::Zsh => {
            let script = plain(shell, hinted(args::command())).replace(ZSH_HINT.1, ":_kiln_machines'");
            // The first line is zsh's; what is behind the script is not read when it is loaded by its name.
            match script.split_once('\n') {
                Some((first, rest)) => format!("{first}\n{ZSH}{rest}"),
                None => script,
            }
        }
        _ => plain(shell, args::command()),
    }
    .into_bytes()
}

fn plain(shell: Shell, mut command: Command) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "kiln", &mut script);
    let script = String::from_utf8_lossy(&script);
    // Bash's has the words that are hidden too.
    let [hidden, shown] = [true, false].map(|is_hidden| words(&command, is_hidden));
    let is_offered = |word: &&str| !hidden.contains(*word) || shown.contains(*word);
    let line = |line: &str| match line.trim_start().strip_prefix("opts=\"").and_then(|opts| opts.strip_suffix('"')) {
        Some(opts) => format!("opts=\"{}\"\n", opts.split(' ').filter(is_offered).collect::<Vec<_>>().join(" ")),
        None => format!("{line}\n"),
    };
    script.lines().map(line).collect()
}

/// Names of the commands and flags that are hidden somewhere, or that are shown somewhere.
fn words(command: &Command, is_hidden: bool) -> BTreeSet<String> {
    let flags = command.get_arguments().filter(|arg| arg.is_hide_set() == is_hidden);
    let flags = flags.filter_map(|arg| arg.get_long()).map(|flag| format!("--{flag}"));
    let below = command.get_subcommands().flat_map(|below| {
        let own = (below.is_hide_set() == is_hidden).then(|| below.get_name().to_owned());
        own.into_iter().chain(words(below, is_hidden))
    });
    flags.chain(below).collect()
}

/// With [`ZSH_HINT`] at each argument that is a machine.
fn hinted(command: Command) -> Command {
    let hint = |command: Command| {
        command.mut_args(|arg| {
            if arg.is_positional() && arg.get_id() != "command" { arg.value_hint(ZSH_HINT.0) } else { arg }
        })
    };
    let hint_name = |command: Command| command.mut_arg("name", |arg| arg.value_hint(ZSH_HINT.0));
    let command = OF_MACHINES.iter().fold(command, |command, name| command.mut_subcommand(name, hint));
    let port = |port: Command| ["add", "rm", "ls"].iter().fold(port, |port, name| port.mut_subcommand(name, hint_name));
    command.mut_subcommand("port", port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(shell: Shell) -> String {
        String::from_utf8(script(shell)).unwrap()
    }

    #[test]
    fn words_that_are_hidden_are_not_offered() {
        let [hidden, shown] = [true, false].map(|is_hidden| words(&args::command(), is_hidden));
        let script = text(Shell::Bash);
        let offered: Vec<&str> = script.lines().filter(|line| line.starts_with("opts=")).collect();
        assert!(offered.len() > 10 && offered.iter().any(|line| line.contains("--arch ")));
        assert!(hidden.contains("--arch") && shown.contains("--arch") && hidden.contains("__tied"));
        for word in hidden.difference(&shown) {
            assert!(!offered.iter().any(|line| line.split([' ', '"']).any(|offered| offered == word)), "{word}");
        }
    }

    #[test]
    fn every_command_that_takes_a_machine_asks_for_their_names() {
        let zsh = text(Shell::Zsh);
        assert!(zsh.starts_with("#compdef kiln\n"), "{}", &zsh[..40]);
        // One for each command, three of `kiln port`, and the function itself.
        assert_eq!(zsh.matches("_kiln_machines").count(), OF_MACHINES.len() + 3 + 1);
        let command = args::command();
        for name in OF_MACHINES.iter().chain(&["cp", "port"]) {
            assert!(command.find_subcommand(name).is_some(), "{name}");
            for script in [BASH, FISH] {
                let words: Vec<&str> = script.split(|c: char| !c.is_ascii_alphanumeric()).collect();
                assert!(words.contains(name), "{name} is not in\n{script}");
            }
        }
    }
}
