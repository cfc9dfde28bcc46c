//! Flags of `kiln run` about its console, and about a run that nobody waits for.

use clap::Args;
use kiln_run::console::ConsoleEnd;

const HEADING: &str = "Console";

/// The console, and whether its user stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ConsoleFlags {
    /// Where the console is: stdio; pty, a pseudoterminal with the link STATE/tty; file:PATH, to which output is added;
    /// unix:PATH, a socket for one client at a time; or none. Whatever it is, `kiln console` shows it too
    #[arg(long, value_name = "WHERE", default_value = "stdio", help_heading = HEADING)]
    pub console: ConsoleEnd,
    /// Return when the machine runs, and print its name; its console goes to STATE/console.log, its own messages to
    /// STATE/kiln.log
    #[arg(long, short, alias = "detached", help_heading = HEADING)]
    pub detach: bool,
    /// What `kiln ps` and its like call the machine [default: what its files are called]
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    pub name: Option<String>,
}
