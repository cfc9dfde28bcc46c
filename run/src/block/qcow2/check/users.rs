//! How often each cluster of a file is referred to.

use std::ops::Range;

/// Most users of one cluster that are counted: what is left of 16 bits.
pub(super) const MAX_USERS: u16 = VISITED - 1;

/// The one user writes to it in place.
const SOLE: u16 = 1 << 15;
/// It was looked into.
const VISITED: u16 = 1 << 14;

/// Whether others may refer to the same cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    Allowed,
    /// Its user writes to it without asking.
    Sole,
}

/// A cluster that cannot have one more user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It has one that must be the only one, or the new one must be.
    Taken,
    /// [`MAX_USERS`] are there.
    TooMany,
}

/// The users of each cluster, two bytes a cluster. Memory is only taken where there are users.
pub(super) struct Users(Vec<u16>);

impl Users {
    pub fn of_none(clusters: usize) -> Self {
        // All zeros: the system gives pages when they are written to.
        Self(vec![0; clusters])
    }

    /// So many more users of a cluster, which is in the file.
    pub fn add(&mut self, cluster: usize, times: u16, sharing: Sharing) -> Result<(), Refused> {
        let Some(state) = self.0.get_mut(cluster) else { return Ok(()) };
        let count = *state & MAX_USERS;
        let is_sole = sharing == Sharing::Sole;
        if *state & SOLE != 0 || is_sole && count + times > 1 {
            return Err(Refused::Taken);
        }
        if times > MAX_USERS - count {
            return Err(Refused::TooMany);
        }
        *state += times | if is_sole { SOLE } else { 0 };
        Ok(())
    }

    pub fn count(&self, cluster: usize) -> u16 {
        self.0.get(cluster).map_or(0, |state| state & MAX_USERS)
    }

    /// Whether this is the first visit to a cluster.
    pub fn visit(&mut self, cluster: usize) -> bool {
        self.0.get_mut(cluster).is_some_and(|state| {
            let is_first = *state & VISITED == 0;
            *state |= VISITED;
            is_first
        })
    }

    pub fn forget_visits(&mut self) {
        for state in self.0.iter_mut().filter(|state| **state & VISITED != 0) {
            *state &= !VISITED;
        }
    }

    /// The first of these clusters with more users than `counted` says.
    pub fn first_above(&self, clusters: Range<usize>, counted: impl Fn(usize) -> u64) -> Option<usize> {
        let start = clusters.start;
        let states = self.0.get(clusters)?;
        let is_above = |at: usize, state: u16| state != 0 && u64::from(state & MAX_USERS) > counted(at);
        states.iter().enumerate().find(|(at, state)| is_above(*at, **state)).map(|(at, _)| start + at)
    }
}
