//! Something that one thread at a time has, and that outlasts each of them.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// The place where it is while nobody has it. Clones are the same.
pub struct Lent<T: ?Sized>(Arc<Mutex<Option<Box<T>>>>);

impl<T: ?Sized> Clone for Lent<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: ?Sized> fmt::Debug for Lent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").finish_non_exhaustive()
    }
}

impl<T: ?Sized> Lent<T> {
    /// Puts it there.
    #[must_use]
    pub fn new(value: Box<T>) -> Self {
        Self(Arc::new(Mutex::new(Some(value))))
    }

    /// Takes it until the result is dropped. `None` while somebody has it.
    #[must_use]
    pub fn take(&self) -> Option<Taken<T>> {
        let value = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Taken { value: Some(value), home: self.clone() })
    }
}

/// It goes back when this is dropped, unless a panic is the reason: then nobody knows what it is in.
pub struct Taken<T: ?Sized> {
    /// Always there but in `drop`.
    value: Option<Box<T>>,
    home: Lent<T>,
}

/// Stands in for what is not there.
const HELD: &str = "what was taken is held until it is dropped";

impl<T: ?Sized> Deref for Taken<T> {
    type Target = T;

    fn deref(&self) -> &Self::Target {
        self.value.as_deref().expect(HELD)
    }
}

impl<T: ?Sized> DerefMut for Taken<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.value.as_deref_mut().expect(HELD)
    }
}

impl<T: ?Sized> Drop for Taken<T> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            *self.home.0.lock().unwrap_or_else(PoisonError::into_inner) = self.value.take();
        }
    }
}
