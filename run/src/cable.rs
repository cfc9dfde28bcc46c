//! The cable of a network card: what is at its other end outlasts the card, as a network does.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use kiln_net::link::Link;
use kiln_net::port::Abilities;

/// The other end of a card's cable. A machine that starts again finds it as it was.
#[derive(Clone)]
pub struct Cable {
    link: Arc<Mutex<Option<Box<dyn Link>>>>,
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
        Self { takes: link.takes(), link: Arc::new(Mutex::new(Some(link))), start: Instant::now() }
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
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Taken { link: Some(link), cable: self.clone() })
    }
}

/// The end of a cable. It goes back when this is dropped, unless a panic is the reason: then nobody knows what it is in.
pub struct Taken {
    /// Always there but in `drop`.
    link: Option<Box<dyn Link>>,
    cable: Cable,
}

/// Stands in for a link that is not there.
const HELD: &str = "a taken link is held until it is dropped";

impl Deref for Taken {
    type Target = dyn Link;

    fn deref(&self) -> &Self::Target {
        self.link.as_deref().expect(HELD)
    }
}

impl DerefMut for Taken {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.link.as_deref_mut().expect(HELD)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            *self.cable.link.lock().unwrap_or_else(PoisonError::into_inner) = self.link.take();
        }
    }
}
