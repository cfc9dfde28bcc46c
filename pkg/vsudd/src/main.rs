//! `vsudd -inport PORT:unix:PATH…`: joins vsock ports with sockets of the machine.

mod arguments;
mod forward;

use std::process::ExitCode;
use std::thread;

use forward::Open;

fn main() -> ExitCode {
    let forwards = match arguments::read(std::env::args().skip(1)) {
        Ok(forwards) => forwards,
        Err(wrong) => {
            say(&format!("{wrong}\n{}", arguments::USAGE));
            return ExitCode::from(2);
        }
    };
    let mut open = Vec::new();
    for forward in &forwards {
        match Open::new(forward) {
            Ok(opened) => open.push(opened),
            Err(error) => {
                say(&format!("cannot listen for {forward:?}: {error}"));
                return ExitCode::FAILURE;
            }
        }
    }
    thread::scope(|scope| {
        for forward in &open {
            scope.spawn(|| forward.serve(&say));
        }
    });
    ExitCode::SUCCESS
}

#[expect(clippy::print_stderr, reason = "a program's own voice")]
fn say(text: &str) {
    eprintln!("{text}");
}
