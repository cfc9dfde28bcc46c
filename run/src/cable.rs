//! The cable of a network card: what is at its other end outlasts the card, as a network does.

use std::fmt;
use std::time::Instant;

use kiln_net::link::Link;
use kiln_net::port::Abilities;

use crate::lent::{self, Lent};

/// The end of a cable, while somebody has it.
pub type Taken = lent::Taken<dyn Link>;

/// The other end of a card's cable. A machine that starts again finds it as it was.
#[derive(Clone)]
pub struct Cable {
    link: Lent<dyn Link>,
    /// The link's clock, whoever turns it.
    start: Instant,
    takes: Abilities,
}

impl fmt::Debug for Cable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cable").field("takes", &self.takes).finish_non_exhaustive()
    }
}

impl Cable {
    /// A cable with `link` at its end.
    #[must_use]
    pub fn new(link: Box<dyn Link>) -> Self {
        Self { takes: link.takes(), link: Lent::new(link), start: Instant::now() }
    }

    /// What frames may lack that go into it.
    #[must_use]
    pub fn takes(&self) -> Abilities {
        self.takes
    }

    /// When the link's clock began.
    #[must_use]
    pub fn start(&self) -> Instant {
        self.start
    }

    /// The end of the cable, until the value is dropped. `None` while somebody has it.
    #[must_use]
    pub fn take(&self) -> Option<Taken> {
        self.link.take()
    }
}
