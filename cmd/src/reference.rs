//! The help of every command as Markdown: what docs/cli.md holds.

use std::fmt::Write as _;

use clap::Command;

/// Columns that the help is set in.
const COLUMNS: usize = 110;

/// The whole reference.
pub fn markdown(root: &Command) -> String {
    let mut text = String::from(
        "# Command line\n\nThis is the help of every command, written by `kiln help-markdown > docs/cli.md`; a test keeps it \
         so.\n\nExit status: 0 done, 1 failed, 2 wrong usage, 130 a build that SIGINT or SIGTERM ended. Data goes to \
         standard output, talk\nto standard error. `NO_COLOR` and `-q` are honoured.\n",
    );
    section(root, root.get_name(), &mut text);
    text
}

fn section(command: &Command, path: &str, text: &mut String) {
    let mut shown = command.clone().term_width(COLUMNS).max_term_width(COLUMNS).bin_name(path).display_name(path);
    let help = shown.render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    // Writing to a string cannot fail.
    let _ = write!(text, "\n## {path}\n\n```text\n{}\n```\n", help.join("\n").trim_end());
    // `help` says what is here already.
    for below in command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help") {
        section(below, &format!("{path} {}", below.get_name()), text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_the_help() {
        let written = include_str!("../../docs/cli.md");
        let help = markdown(&crate::args::command());
        let other = written.lines().zip(help.lines()).position(|(written, help)| written != help);
        let first = other.map(|at| (at + 1, help.lines().nth(at)));
        assert!(written == help, "first other line: {first:?}; run `kiln help-markdown > docs/cli.md`");
    }
}
