//! From the flags about the network to the cards of a machine.

use kiln_run::config::{CableEnd, Card, DEFAULT_MTU};

use crate::args::{Attachment, Networking};

/// The cards that are asked for; one on the user-mode network if nothing was said.
pub fn cards(asked: &Networking) -> Vec<Card> {
    let default = [Attachment::User];
    let attachments = if asked.networking.is_empty() { &default[..] } else { &asked.networking };
    attachments.iter().filter_map(card).collect()
}

fn card(attachment: &Attachment) -> Option<Card> {
    match attachment {
        Attachment::None => None,
        Attachment::User => Some(Card { mac: None, mtu: DEFAULT_MTU, end: CableEnd::User(Box::default()) }),
    }
}
