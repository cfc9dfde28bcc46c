//! The `kiln` program: words to requests, messages, exit codes.

mod args;
mod failure;
mod printer;
mod reference;
mod run;

use std::process::ExitCode;

use args::Command;
use failure::Failure;
use printer::{Level, Printer};

fn main() -> ExitCode {
    let cli = match args::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(refusal) => {
            // Help and version too: to standard output, with status 0. Nobody can be told when that fails.
            let _ = refusal.print();
            return ExitCode::from(u8::try_from(refusal.exit_code()).unwrap_or(failure::USAGE));
        }
    };
    let printer = Printer::new(level(&cli.global));
    match obey(&cli, &printer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            printer.failure(&failure);
            ExitCode::from(failure.status)
        }
    }
}

fn level(global: &args::Global) -> Level {
    match global.verbose {
        _ if global.quiet => Level::Quiet,
        0 => Level::Quiet,
        1 => Level::Normal,
        _ => Level::Detail,
    }
}

fn obey(cli: &args::Cli, printer: &Printer) -> Result<(), Failure> {
    match &cli.command {
        Command::Run(asked) => run::run(asked, printer),
        Command::Version => Ok(printer.data(concat!("kiln ", env!("CARGO_PKG_VERSION"), "\n").as_bytes())?),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut args::command(), "kiln", &mut script);
            Ok(printer.data(&script)?)
        }
        Command::HelpMarkdown => Ok(printer.data(reference::markdown(&args::command()).as_bytes())?),
        Command::Tied { parent, program } => Err(Failure::new(kiln_run::qemu::exec_tied(*parent, program))),
        Command::Build(_) | Command::Pkg(_) | Command::Doctor(_) => Err(Failure::new("not built in yet")),
    }
}
