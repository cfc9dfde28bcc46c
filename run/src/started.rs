//! The moment at which a machine runs, for those who wait for it.

use std::sync::{Arc, Mutex, PoisonError};

/// What is done then.
type Action = Box<dyn FnOnce() + Send>;

/// Tells once that the machine runs: its devices are there, and its processors begin. Cheap to clone.
#[derive(Clone, Default)]
pub struct Started(Arc<Mutex<Option<Action>>>);

impl Started {
    /// Does this then, on a thread of the machine.
    pub fn then(action: impl FnOnce() + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(action)))))
    }

    /// It runs. When it starts again after a reset, that is nothing new.
    pub(crate) fn tell(&self) {
        let action = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(action) = action {
            action();
        }
    }
}

impl std::fmt::Debug for Started {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Started").finish_non_exhaustive()
    }
}
