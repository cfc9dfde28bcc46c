//! The output formats that are ISOs.

use super::{bios, efi, kernel_iso};
use crate::format::{FormatError, Material, Sink, Watch};

/// An ISO that a build can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IsoFormat {
    /// `NAME.iso`, beside kernel and command line: the root less `boot/*`.
    Kernel,
    /// `NAME.iso`, or `NAME-bios.iso` beside [`Kernel`](Self::Kernel): the root, for a BIOS.
    Bios,
    /// `NAME-efi.iso`: the root, for EFI firmware.
    Efi,
    /// `NAME-efi-initrd.iso`: kernel and initrd, for EFI firmware.
    EfiInitrd,
}

impl IsoFormat {
    /// Its format's name on the command line.
    pub(in crate::format) fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel+iso",
            Self::Bios => "iso-bios",
            Self::Efi => "iso-efi",
            Self::EfiInitrd => "iso-efi-initrd",
        }
    }

    /// The name of its file in a build called `name`.
    pub(in crate::format) fn file_name(self, name: &str) -> String {
        match self {
            Self::Kernel | Self::Bios => format!("{name}.iso"),
            Self::Efi => format!("{name}-efi.iso"),
            Self::EfiInitrd => format!("{name}-efi-initrd.iso"),
        }
    }

    /// Writes it.
    pub(in crate::format) fn write(
        self,
        material: &Material<'_>,
        sink: &mut dyn Sink,
        watch: Watch<'_>,
    ) -> Result<(), FormatError> {
        let extents = match self {
            Self::Kernel => kernel_iso::kernel_iso(material.tree)?,
            Self::Bios => bios::bios(material, watch)?,
            Self::Efi => efi::efi(material, watch)?,
            Self::EfiInitrd => efi::efi_initrd(material, watch)?,
        };
        extents.write(sink, watch)
    }
}
