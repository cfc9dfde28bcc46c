//! The `kiln` program: words to requests, messages, exit codes.

mod args;
mod build;
mod cache;
mod completion;
mod crash;
mod doctor;
mod failure;
mod hand;
mod inspect;
mod interrupt;
mod machines;
mod metadata;
mod net;
mod pkg;
mod port;
mod printer;
mod progress;
mod push;
mod reference;
mod run;
mod surroundings;
mod timings;

use std::process::ExitCode;

use args::Command;
use failure::Failure;
use printer::{Level, Printer};

fn main() -> ExitCode {
    if kiln_run::console::watch_if_asked() {
        return ExitCode::SUCCESS;
    }
    let as_linuxkit = surroundings::asks_for_linuxkit(std::env::args_os(), &surroundings::variable);
    // LinuxKit knows no status of its own for wrong usage.
    let status = |status: u8| if as_linuxkit && status == failure::USAGE { failure::FAILED } else { status };
    let cli = match args::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(refusal) => {
            // Help and version too: to standard output, with status 0. Nobody can be told when that fails.
            let _ = refusal.print();
            return ExitCode::from(status(u8::try_from(refusal.exit_code()).unwrap_or(failure::USAGE)));
        }
    };
    let printer = Printer::new(level(&cli.global));
    crash::tell_through(&printer);
    match crash::caught(|| obey(&cli, &printer)) {
        None => ExitCode::from(failure::FAILED),
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(failure)) => {
            if !failure.is_told {
                printer.failure(&failure);
            }
            ExitCode::from(status(failure.status))
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
        Command::Run(asked) => run::run(asked, &cli.global, printer),
        Command::Ps(asked) => machines::list::list(asked, printer),
        Command::Console(asked) => machines::attach::console(asked, printer),
        Command::Logs(asked) => machines::logs::logs(asked, printer),
        Command::Exec(asked) => machines::exec::exec(asked),
        Command::Cp(asked) => machines::copy::copy(asked, printer),
        Command::Stop(asked) => machines::stop::stop(asked, printer),
        Command::Kill(asked) => machines::stop::kill(asked),
        Command::Rm(asked) => machines::remove::remove(asked),
        Command::Port(asked) => port::port(asked, printer),
        Command::Pause(asked) => hand::pause(asked),
        Command::Resume(asked) => hand::resume(asked),
        Command::Memory(asked) => hand::memory(asked, printer),
        Command::Metadata(asked) => metadata::metadata(asked),
        Command::Cache(asked) => cache::cache(asked, &cli.global, printer),
        Command::Push(asked) => push::push(asked, &cli.global, printer),
        Command::Version { short: true } => Ok(printer.data(concat!(env!("CARGO_PKG_VERSION"), "\n").as_bytes())?),
        Command::Version { short: false } => {
            Ok(printer.data(concat!("kiln ", env!("CARGO_PKG_VERSION"), "\n").as_bytes())?)
        }
        Command::Completion { shell } => Ok(printer.data(&completion::script(*shell))?),
        Command::Schema => Ok(printer.data(kiln_build::config::schema()?.as_bytes())?),
        Command::HelpMarkdown => Ok(printer.data(reference::markdown(&args::command()).as_bytes())?),
        Command::Tied { parent, program } => Err(Failure::new(kiln_run::qemu::exec_tied(*parent, program))),
        Command::Build(asked) => build::build(asked, &cli.global, printer),
        Command::Inspect(asked) => inspect::inspect(asked, printer),
        Command::Net(asked) => net::net(asked, printer),
        Command::Doctor(asked) => doctor::doctor(asked, &cli.global, printer),
        Command::Pkg(asked) => pkg::pkg(asked, &cli.global, printer),
    }
}
