//! Flags of `kiln run` for machines that start with EFI firmware.

use std::path::PathBuf;

use clap::Args;
use kiln_run::config::Firmware;

/// The firmware, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct FirmwareFlags {
    /// Start with EFI firmware, which boots NAME, an ISO or a disk image, or else the first disk that it can. This is what
    /// happens anyway where nothing else can boot NAME
    #[arg(long)]
    pub uefi: bool,
    /// The firmware: EDK II's OVMF_CODE_4M.fd or its like, or one with variables in it [default: that of the package `ovmf`]
    #[arg(long, visible_alias = "fw", value_name = "FILE")]
    pub firmware: Option<PathBuf>,
    /// Keep the machine's EFI variables there; the file is made when it is missing [default: efi-vars.fd in the state folder]
    #[arg(long, visible_alias = "firmware-vars", value_name = "FILE", value_parser = without_create)]
    pub variable_store: Option<PathBuf>,
    /// Let the firmware wait so long for Esc or F2, the keys to its menu
    #[arg(long, value_name = "SECONDS",
        value_parser = clap::value_parser!(u16).range(1..=i64::from(Firmware::MOST_MENU_WAIT_S)))]
    pub boot_menu: Option<u16>,
}

impl FirmwareFlags {
    /// Whether firmware is asked for.
    pub fn is_wanted(&self) -> bool {
        self.uefi || self.firmware.is_some()
    }
}

/// vfkit's word `,create` says what happens anyway.
#[expect(clippy::unnecessary_wraps, reason = "the parser wants a Result")]
fn without_create(text: &str) -> Result<PathBuf, String> {
    Ok(text.strip_suffix(",create").unwrap_or(text).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vfkits_word_is_no_part_of_the_name() {
        assert_eq!(without_create("a,create"), Ok("a".into()));
        assert_eq!(without_create("a,b"), Ok("a,b".into()));
    }
}
