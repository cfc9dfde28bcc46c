//! Flags of `kiln run` about the machine's end.

use std::time::Duration;

use clap::{Args, ValueEnum};

/// How a machine may end, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Power {
    /// End when the guest resets, instead of starting it again
    #[arg(long)]
    pub no_reboot: bool,
    /// What happens when the guest opened its watchdog and then stopped feeding it
    #[arg(long, value_enum, value_name = "ACTION", default_value_t = OnHang::Reboot)]
    pub on_hang: OnHang,
    /// Time in which an operating system must have started; the run ends with status 1 otherwise. For what may find nothing to boot,
    /// or wait for a key
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub boot_timeout: Option<Duration>,
    /// Time that a guest has to power off after SIGTERM or SIGINT, before it is stopped
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub stop_timeout: Duration,
}

/// What happens to a guest that hangs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum OnHang {
    #[default]
    /// It starts again; with -no-reboot the run ends with status 1
    Reboot,
    /// The run ends with status 0
    Poweroff,
    /// The run ends with status 1
    Stop,
    /// Nothing
    Ignore,
}

impl From<OnHang> for kiln_run::config::OnHang {
    fn from(typed: OnHang) -> Self {
        match typed {
            OnHang::Reboot => Self::Reboot,
            OnHang::Poweroff => Self::PowerOff,
            OnHang::Stop => Self::Stop,
            OnHang::Ignore => Self::Ignore,
        }
    }
}

pub fn seconds(text: &str) -> Result<Duration, String> {
    let whole = text.strip_suffix('s').unwrap_or(text);
    whole.parse().map(Duration::from_secs).map_err(|_| format!("`{text}` is no whole number of seconds"))
}
