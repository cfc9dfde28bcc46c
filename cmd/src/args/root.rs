//! Flags of `kiln run` for a root that is on a disk.

use clap::Args;

use crate::run::roots::RootForm;

/// Which of the files that a build left is the root. Without these it is the first that is there, NAME-initrd.img before
/// all others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[group(multiple = false)]
pub struct RootFlags {
    /// The root is NAME-squashfs.img: the first disk, read-only
    #[arg(long)]
    pub squashfs: bool,
    /// The root is NAME-erofs.img
    #[arg(long)]
    pub erofs: bool,
    /// The root is NAME.iso
    #[arg(long)]
    pub iso: bool,
}

impl RootFlags {
    /// What is asked for, if anything.
    pub fn form(&self) -> Option<RootForm> {
        let forms = [(self.squashfs, RootForm::Squashfs), (self.erofs, RootForm::Erofs), (self.iso, RootForm::Iso)];
        forms.into_iter().find_map(|(is_set, form)| is_set.then_some(form))
    }
}
