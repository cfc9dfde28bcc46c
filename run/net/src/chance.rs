//! Numbers that look random and are the same on each run: for faults, and for tests. Nobody is kept out by them.

/// Where chance stands.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, which is below `limit`; 0 below nothing.
    pub fn below(&mut self, limit: u64) -> u64 {
        // Knuth's constants; the high bits are the better ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }

    /// An index of `items`; 0 if there are none.
    pub fn index<T>(&mut self, items: &[T]) -> usize {
        usize::try_from(self.below(items.len() as u64)).unwrap_or(0)
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.below(256).to_le_bytes()[0]
    }

    /// So many bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            self.below(1);
            bytes.extend(self.0.rotate_left(29).to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// Makes one of `bytes` any other, or the same.
    pub fn change(&mut self, bytes: &mut [u8]) {
        let index = self.index(bytes);
        if let Some(place) = bytes.get_mut(index) {
            *place = self.byte();
        }
    }
}
