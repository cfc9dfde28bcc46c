//! How a run ends: the same few reasons whatever ran the guest's instructions.

/// Why a machine stopped. The first reason wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExitReason {
    /// The guest powered the machine off.
    PowerOff,
    /// The guest asked for a reset and the configuration says that a reset ends the run.
    Reset,
    /// The guest's kernel said that it cannot go on.
    Panic,
    /// A processor met a fault while it was handling a fault while it was handling a fault: the guest lost its way.
    TripleFault,
    /// The guest stopped feeding its watchdog.
    Hung,
    /// No operating system started in time.
    NotBooted,
    /// The host ended it, by request.
    Stopped,
}
