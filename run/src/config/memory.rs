//! How guest memory is had from the host, and given back to it.

/// What guest memory is made of, and what becomes of what the guest does not use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryOptions {
    /// What the host backs it with.
    pub pages: Pages,
    /// Whether the guest can give memory back.
    pub balloon: Balloon,
}

impl MemoryOptions {
    /// Whether the machine has a balloon. Reserved huge pages are never given back one by one, so that with them a
    /// balloon would only take memory from the guest and give it to nobody.
    #[must_use]
    pub fn has_balloon(self) -> bool {
        self.balloon == Balloon::Present && self.pages == Pages::Ordinary
    }
}

/// What the host backs guest memory with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pages {
    /// Memory as any program has it, in huge pages where the host finds some.
    #[default]
    Ordinary,
    /// Huge pages that were reserved on the host (hugetlbfs), all of them taken before the guest starts.
    Reserved,
}

/// Whether there is a device by which the guest gives back memory that it does not use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balloon {
    /// There is one.
    #[default]
    Present,
    /// There is none: what the guest once touched stays with it.
    Absent,
}
