//! `agent`: listens for the host, for ever. With a word of its own first, it is the process that does one request.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use kiln_abi::AGENT_PORT;
use kiln_agent::enter::{self, ENTER};
use kiln_agent::session::{self, Place};
use kiln_guest::vsock::{CID_HOST, Listener};

/// Most requests at once: each has six threads and a process.
const MAX_SESSIONS: usize = 64;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some(ENTER) {
        let [pid, request] = [words.next(), words.next()].map(Option::unwrap_or_default);
        return enter::enter(&pid, &request);
    }
    let listener = match Listener::bind(AGENT_PORT) {
        Ok(listener) => listener,
        Err(error) => {
            say(&format!("cannot listen for the host: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let running = Arc::new(AtomicUsize::new(0));
    loop {
        match listener.accept() {
            // Programs of this machine can connect too, and are nobody to be obeyed.
            Ok((stream, CID_HOST)) if running.load(Ordering::SeqCst) < MAX_SESSIONS => {
                running.fetch_add(1, Ordering::SeqCst);
                let counts = Arc::clone(&running);
                let serve = move || {
                    session::serve(stream, &Place::of_machine());
                    counts.fetch_sub(1, Ordering::SeqCst);
                };
                if let Err(error) = thread::Builder::new().name("session".into()).spawn(serve) {
                    running.fetch_sub(1, Ordering::SeqCst);
                    say(&format!("cannot serve the host: {error}"));
                }
            }
            Ok((stream, CID_HOST)) => session::refuse(&stream, &format!("{MAX_SESSIONS} requests are served already")),
            Ok(_) => {}
            // The one who connected is gone again, or there are no descriptors left for now.
            Err(_) => thread::sleep(std::time::Duration::from_millis(10)),
        }
    }
}

#[expect(clippy::print_stderr, reason = "a program's own voice")]
fn say(text: &str) {
    eprintln!("{text}");
}
