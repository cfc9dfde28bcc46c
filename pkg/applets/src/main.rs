//! One binary for the small programs of a machine: what it is called by says which one it is.

use std::process::ExitCode;

use kiln_applets::{Failure, PROGRAMS};

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let called = arguments.next().unwrap_or_default();
    let called = called.rsplit('/').next().unwrap_or_default();
    let Some(program) = PROGRAMS.iter().find(|program| program.names.contains(&called)) else {
        let names: Vec<&str> = PROGRAMS.iter().map(|program| program.names[0]).collect();
        say(&format!("this is one of these programs, by its name: {}", names.join(", ")));
        return ExitCode::from(2);
    };
    let arguments: Vec<String> = arguments.collect();
    let failure = match (program.run)(&arguments, &mut say) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(failure) => failure,
    };
    match failure {
        Failure::Use(wrong) => {
            say(&format!("{called}: {wrong}\nusage: {called} {}", program.usage));
            ExitCode::from(2)
        }
        Failure::Failed(error) => {
            say(&format!("{called}: {}", kiln_applets::chain(error.as_ref())));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a program's own voice")]
fn say(text: &str) {
    eprintln!("{text}");
}
