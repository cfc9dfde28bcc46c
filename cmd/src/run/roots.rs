//! Roots on a disk of their own: which files a build leaves for one, and what the kernel must be told.

use std::path::{Path, PathBuf};

use super::names::with_suffix;

/// What a root is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootForm {
    /// `NAME-squashfs.img`.
    Squashfs,
    /// `NAME-erofs.img`.
    Erofs,
    /// `NAME.iso`.
    Iso,
}

/// A root on a disk, with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootFiles {
    /// What it is.
    pub form: RootForm,
    /// The disk.
    pub disk: PathBuf,
    /// What gets at it, where the kernel alone cannot. Need not be there.
    pub initrd: PathBuf,
    /// Its own command line. Need not be there.
    pub cmdline: PathBuf,
}

impl RootForm {
    /// All, in the order that they are looked for.
    pub const ALL: [Self; 3] = [Self::Squashfs, Self::Erofs, Self::Iso];

    /// What the name of its disk ends with.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Squashfs => "-squashfs.img",
            Self::Erofs => "-erofs.img",
            Self::Iso => ".iso",
        }
    }

    /// The files of a build called `name`.
    pub fn files(self, name: &Path) -> RootFiles {
        let word = match self {
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
            Self::Iso => "iso",
        };
        let with = |ending: &str| with_suffix(name, &format!("-{word}-{ending}"));
        RootFiles {
            form: self,
            disk: with_suffix(name, self.ending()),
            initrd: with("initrd.img"),
            cmdline: with("cmdline"),
        }
    }

    /// The command line with what it must say of a root that is the first disk.
    pub fn with_root(self, cmdline: &str) -> String {
        let has = |start: &str| cmdline.split_ascii_whitespace().any(|word| word.starts_with(start));
        if has("root=") {
            return cmdline.to_owned();
        }
        let kind = match self {
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
            Self::Iso => "iso9660",
        };
        let kind = if has("rootfstype=") { String::new() } else { format!(" rootfstype={kind}") };
        format!("{cmdline} root=/dev/vda{kind} ro").trim_start().to_owned()
    }
}

/// The build and the form that the file `path` belongs to, if its name says so and it is there: `vm-squashfs.img` is the root
/// of `vm`.
pub fn of_file(path: &Path) -> Option<(PathBuf, RootForm)> {
    let text = path.to_str().filter(|_| path.is_file())?;
    RootForm::ALL.into_iter().find_map(|form| {
        let name = text.strip_suffix(form.ending())?;
        let is_name = !name.is_empty() && !name.ends_with('/');
        is_name.then(|| (PathBuf::from(name), form))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_another_name_or_that_is_not_there_is_no_root() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["vm.img", "-squashfs.img", ".iso"] {
            let path = folder.path().join(name);
            std::fs::write(&path, "x").unwrap();
            assert_eq!(of_file(&path), None, "{name}");
        }
        assert_eq!(of_file(&folder.path().join("vm-erofs.img")), None);
    }

    #[test]
    fn a_file_leads_to_its_build() {
        let folder = tempfile::tempdir().unwrap();
        for form in RootForm::ALL {
            let path = folder.path().join(format!("vm{}", form.ending()));
            std::fs::write(&path, "x").unwrap();
            let (name, found) = of_file(&path).unwrap();
            assert_eq!((name.file_name().unwrap().to_str(), found), (Some("vm"), form));
            assert_eq!(form.files(&name).disk, path);
        }
    }

    #[test]
    fn a_root_that_the_command_line_names_stays() {
        let form = RootForm::Squashfs;
        assert_eq!(form.with_root("quiet"), "quiet root=/dev/vda rootfstype=squashfs ro");
        assert_eq!(form.with_root(""), "root=/dev/vda rootfstype=squashfs ro");
        assert_eq!(form.with_root("root=LABEL=x"), "root=LABEL=x");
        assert_eq!(RootForm::Iso.with_root("rootfstype=udf"), "rootfstype=udf root=/dev/vda ro");
    }
}
