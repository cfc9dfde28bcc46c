//! The `kernel` section.

use super::Place;

/// Kernel image, what to take from it, and the command line. Without `image` there is no kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Reference of the image that holds the kernel.
    pub image: Option<String>,
    /// Words for the kernel; empty if not given.
    pub cmdline: Option<String>,
    /// `binary` as it is written; see [`Kernel::binary_name`].
    pub binary: Option<String>,
    /// `tar` as it is written; see [`Kernel::tar_name`].
    pub tar: Option<String>,
    /// `ucode` as it is written; see [`Kernel::ucode_name`].
    pub ucode: Option<String>,
    /// Where the image (or, without one, the section) is written.
    pub place: Option<Place>,
}

impl Kernel {
    /// The kernel's file in the image: `kernel` if nothing else is said.
    pub fn binary_name(&self) -> &str {
        self.binary.as_deref().filter(|name| !name.is_empty()).unwrap_or("kernel")
    }

    /// The archive with the modules: `kernel.tar` if nothing else is said. [`None`] if there is to be none.
    pub fn tar_name(&self) -> Option<&str> {
        wanted(self.tar.as_deref().unwrap_or("kernel.tar"))
    }

    /// The CPU microcode archive, none if nothing is said.
    pub fn ucode_name(&self) -> Option<&str> {
        wanted(self.ucode.as_deref()?)
    }

    /// Takes over each field that `later` says something about.
    pub(super) fn override_with(&mut self, later: Self) {
        let some = |field: Option<String>| field.filter(|text| !text.is_empty());
        if let Some(image) = some(later.image) {
            self.image = Some(image);
            self.place = later.place;
        }
        self.cmdline = some(later.cmdline).or(self.cmdline.take());
        self.binary = some(later.binary).or(self.binary.take());
        self.ucode = some(later.ucode).or(self.ucode.take());
        // Empty means something here: no archive at all.
        self.tar = later.tar.or(self.tar.take());
    }
}

/// A file's name, unless it is one of the two ways to say that there is none.
fn wanted(name: &str) -> Option<&str> {
    (!name.is_empty() && name != "none").then_some(name)
}
