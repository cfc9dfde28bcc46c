//! TCP's sequence numbers, which wrap around (RFC 9293 section 3.4).

use std::ops::{Add, AddAssign, Sub};

/// A sequence number. Two of them can be compared when they are less than 2³¹ apart, as all of one connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Seq(pub u32);

impl Seq {
    /// How far this is behind `earlier`; negative if it is before.
    pub fn since(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0).cast_signed()
    }

    /// Whether this comes before `other`.
    pub fn is_before(self, other: Self) -> bool {
        self.since(other) < 0
    }

    /// The later of two.
    pub fn max(self, other: Self) -> Self {
        if self.is_before(other) { other } else { self }
    }
}

impl Add<u32> for Seq {
    type Output = Self;

    fn add(self, bytes: u32) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

impl AddAssign<u32> for Seq {
    fn add_assign(&mut self, bytes: u32) {
        *self = *self + bytes;
    }
}

impl Sub for Seq {
    type Output = u32;

    /// How many bytes lie between `earlier` and this, which comes no earlier.
    fn sub(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}
