//! What is wrong with the tables of an image.

use std::fmt;

use super::users::MAX_USERS;

/// The first fault that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub(super) user: User,
    /// Where in the file, in bytes.
    pub(super) at: u64,
    pub(super) what: What,
}

/// Who refers to a place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct User {
    pub kind: Kind,
    /// What it is for, in bytes from the start of the disk.
    pub guest: Option<u64>,
    /// The snapshot that it belongs to, counted from 1.
    pub snapshot: Option<u32>,
}

impl User {
    pub fn of(kind: Kind) -> Self {
        Self { kind, guest: None, snapshot: None }
    }
}

/// What is at such a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Header,
    FirstTable,
    SecondTable,
    Data,
    CountTable,
    Counts { index: u64 },
    Snapshots,
}

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Misaligned,
    Outside,
    Reserved,
    Taken,
    TooMany,
    Counted { users: u16, counted: u64 },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, at, what } = self;
        match user.kind {
            Kind::Header => f.write_str("the header")?,
            Kind::FirstTable => f.write_str("the L1 table")?,
            Kind::SecondTable => f.write_str("the L2 table")?,
            Kind::Data => f.write_str("the data")?,
            Kind::CountTable => f.write_str("the refcount table")?,
            Kind::Counts { index } => write!(f, "refcount block {index}")?,
            Kind::Snapshots => f.write_str("the snapshot table")?,
        }
        if let Some(guest) = user.guest {
            write!(f, " for offset {guest:#x} of the disk")?;
        }
        if let Some(snapshot) = user.snapshot {
            write!(f, " in snapshot {snapshot}")?;
        }
        write!(f, " (at {at:#x} of the file) ")?;
        match what {
            Misaligned => f.write_str("is not at the start of a cluster"),
            Outside => f.write_str("is behind the end of the file"),
            Reserved => f.write_str("is pointed to with bits that mean nothing"),
            Taken => f.write_str("is in a cluster that has another user"),
            TooMany => write!(f, "is in a cluster with more than {MAX_USERS} users"),
            Counted { counted: 0, .. } => f.write_str("is in a cluster that is counted as free"),
            Counted { users, counted } => {
                write!(f, "is in a cluster that has {users} users and is counted for {counted}")
            }
        }
    }
}

use What::{Counted, Misaligned, Outside, Reserved, Taken, TooMany};
