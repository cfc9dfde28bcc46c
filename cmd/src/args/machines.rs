//! Commands for machines that run, as their user typed them.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::power::seconds;

/// `kiln ps`.
#[derive(Debug, Clone, Args)]
pub struct Ps {
    /// Those that ended too
    #[arg(long, short)]
    pub all: bool,
    /// Print them as JSON
    #[arg(long)]
    pub json: bool,
    /// Print only their names
    #[arg(long, conflicts_with = "json")]
    pub names: bool,
}

/// `kiln console`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "On a terminal Ctrl-] leaves, and the machine runs on; every other key is the guest's.")]
pub struct Console {
    /// The machine: its name, what `kiln run` was given, or its state folder
    pub name: PathBuf,
}

/// `kiln logs`.
#[derive(Debug, Clone, Args)]
pub struct Logs {
    /// Print also what comes, until the machine ends
    #[arg(long, short)]
    pub follow: bool,
    /// Only the last lines
    #[arg(long, short = 'n', visible_alias = "tail", value_name = "COUNT")]
    pub lines: Option<usize>,
    /// The machine: its name, what `kiln run` was given, or its state folder
    pub name: PathBuf,
}

/// `kiln stop`.
#[derive(Debug, Clone, Args)]
pub struct Stop {
    /// Time that the guests have to power off, before they are ended
    #[arg(long, short, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub timeout: Duration,
    /// The machines: names, what `kiln run` was given, or state folders
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<PathBuf>,
}

/// `kiln kill`.
#[derive(Debug, Clone, Args)]
pub struct Kill {
    /// The machines: names, what `kiln run` was given, or state folders
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<PathBuf>,
}

/// `kiln rm`.
#[derive(Debug, Clone, Args)]
pub struct Rm {
    /// The machines: names, what `kiln run` was given, or state folders
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<PathBuf>,
}

/// `kiln exec`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "The machine needs the service `agent`, of pkg/agent.\n\n\
                  Exit status: the program's own, or 128 + the number of the signal that ended it; 125 it could not be \
                  asked for, 126 it could not be started, 127 it is not there.")]
pub struct Exec {
    /// Pass standard input on
    #[arg(long, short)]
    pub interactive: bool,
    /// Give the program a terminal, of the size of this one
    #[arg(long, short)]
    pub tty: bool,
    /// Set an environment variable. Repeatable
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Working folder [default: /]
    #[arg(long, short, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Who runs it, by the names or numbers there [default: root]
    #[arg(long, short, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Run it in this service's root and namespaces, instead of the machine's own
    #[arg(long, short, value_name = "SERVICE")]
    pub service: Option<String>,
    /// The machine: its name, what `kiln run` was given, or its state folder
    pub name: PathBuf,
    /// The program and its words
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// `kiln cp`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Into a folder that is there, or else under the new name. Modes, times and links stay; owners are those who \
                  copy. The machine needs the service `agent`, of pkg/agent."
)]
pub struct Cp {
    /// A service's root, instead of the machine's own
    #[arg(long, short, value_name = "SERVICE")]
    pub service: Option<String>,
    /// What is copied: a path here, or NAME:PATH in a machine
    #[arg(value_name = "FROM")]
    pub from: String,
    /// Where to: NAME:PATH in a machine, or a path here
    #[arg(value_name = "TO")]
    pub to: String,
}
