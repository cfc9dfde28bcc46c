//! What becomes of a machine whose guest does not feed its watchdog any more.

use super::OnReset;
use crate::exit::ExitReason;

/// What a watchdog that ran out does. One that no program of the guest has opened never runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnHang {
    /// The machine starts again, if a reset may do that.
    #[default]
    Reboot,
    /// The run ends as if the guest had powered off.
    PowerOff,
    /// The run ends, and has failed.
    Stop,
    /// Nothing.
    Ignore,
}

/// What follows when a machine has stopped for `reason`: the end of the run, or `None` if it starts again.
#[must_use]
pub fn end_of_run(reason: ExitReason, on_reset: OnReset, on_hang: OnHang) -> Option<ExitReason> {
    match (reason, on_reset, on_hang) {
        (ExitReason::Reset, OnReset::Reboot, _) | (ExitReason::Hung, OnReset::Reboot, OnHang::Reboot) => None,
        (ExitReason::Hung, _, OnHang::PowerOff) => Some(ExitReason::PowerOff),
        (reason, ..) => Some(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hang_starts_the_machine_again_only_where_a_reset_may() {
        let after = |on_reset, on_hang| end_of_run(ExitReason::Hung, on_reset, on_hang);
        assert_eq!(after(OnReset::Stop, OnHang::Reboot), Some(ExitReason::Hung));
        assert_eq!(after(OnReset::Reboot, OnHang::Reboot), None);
        assert_eq!(after(OnReset::Reboot, OnHang::Stop), Some(ExitReason::Hung));
        assert_eq!(after(OnReset::Reboot, OnHang::PowerOff), Some(ExitReason::PowerOff));
        assert_eq!(end_of_run(ExitReason::Panic, OnReset::Reboot, OnHang::Reboot), Some(ExitReason::Panic));
        assert_eq!(end_of_run(ExitReason::Reset, OnReset::Stop, OnHang::Reboot), Some(ExitReason::Reset));
    }
}
