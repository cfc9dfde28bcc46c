//! `kiln net`: the user-mode network on a socket, for guests of other programs. It stays until a signal ends it.

use std::thread;

use kiln_run::cards::open_network;
use kiln_run::check::check_cards;
use kiln_run::config::CableEnd;
use kiln_run::net::listen::Listener;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::args::Net;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::run::{names, networking, state};
use crate::surroundings;

/// Serves guests until SIGTERM, SIGINT or SIGHUP.
pub fn net(asked: &Net, printer: &Printer) -> Result<(), Failure> {
    let networks = surroundings::networks(&surroundings::variable);
    let cards = networking::cards(&asked.networking, "net", networks.as_deref())?;
    let [card] = cards.as_slice() else {
        return Err(Failure::usage("`kiln net` offers one network: give at most one `-networking`"));
    };
    if !matches!(card.end, CableEnd::User(_)) {
        return Err(Failure::usage("`kiln net` offers the user-mode network: `-networking user`"));
    }
    check_cards(&cards).map_err(Failure::new)?;
    let state_dir = asked.state.clone().unwrap_or_else(|| names::with_suffix(&asked.socket, "-state"));
    // From here on a signal ends what was begun.
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let listener = Listener::bind(&asked.socket).map_err(Failure::new)?;
    let _state = state::take(&state_dir).map_err(Failure::new)?;
    let open = open_network(card, &state_dir)?;
    networking::tell(&asked.networking, &cards, std::slice::from_ref(&open), printer);
    let Some(mut link) = open.cable.take() else { return Ok(()) };
    let (stopper, handle) = (listener.stopper(), signals.handle());
    let watch = thread::Builder::new().name("signals".into()).spawn(move || {
        if signals.forever().next().is_some() {
            stopper.stop();
        }
    })?;
    printer.detail(&format!("guests are served at {}", asked.socket.display()));
    let served = listener.serve(&mut *link, |error| printer.note(&format!("a guest was sent away: {error}")));
    handle.close();
    // It has nothing to say.
    let _ = watch.join();
    Ok(served?)
}
