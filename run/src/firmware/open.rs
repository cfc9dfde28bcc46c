//! Reads the firmware, and opens the file that keeps the machine's variables.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};

use super::find::needs_smm;
use super::volume::{BadFirmware, BadVariables, check_code, check_variables, variables_len};
use crate::config::Firmware;
use crate::layout::FIRMWARE_MAX;

/// Files that cannot be used as firmware.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareError {
    /// A file cannot be read, made or written.
    #[error("cannot {action} {role} `{}`", path.display())]
    System {
        /// What was tried.
        action: &'static str,
        /// What the file is for.
        role: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is no firmware.
    #[error("firmware `{}` cannot be used", path.display())]
    Code {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: BadFirmware,
    },
    /// It would wait for ever for what this machine has not.
    #[error("firmware `{}` wants memory that the chipset protects (SMM), which this machine has not: take the one without, such as `OVMF_CODE_4M.fd`", .0.display())]
    NeedsSmm(PathBuf),
    /// There are no first variables.
    #[error("there are no EFI variables beside firmware `{}`: its package has a file like `OVMF_VARS_4M.fd`, which belongs into the same folder", .0.display())]
    NoTemplate(PathBuf),
    /// The first variables are none.
    #[error("`{}` cannot be the machine's first EFI variables", path.display())]
    Template {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: BadVariables,
    },
    /// Another machine has the variables.
    #[error("the EFI variables `{}` are in use by another machine", .0.display())]
    InUse(PathBuf),
}

/// Firmware as read from its files, and found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What runs; it ends at 4 GiB.
    pub code: Vec<u8>,
    /// Where that begins in its file.
    pub code_offset: usize,
    /// What variables are at first; in the machine they are right below.
    pub template: Vec<u8>,
}

impl Image {
    /// Reads the files that `firmware` names.
    ///
    /// # Errors
    /// One cannot be read or is something else.
    pub fn read(firmware: &Firmware) -> Result<Self, FirmwareError> {
        let most = usize::try_from(FIRMWARE_MAX).unwrap_or(0);
        let path = &firmware.code;
        let bad = |source| FirmwareError::Code { path: path.clone(), source };
        let mut code = read(path, "firmware")?;
        if needs_smm(path) {
            return Err(FirmwareError::NeedsSmm(path.clone()));
        }
        let own = variables_len(&code).filter(|len| *len < code.len());
        let (template, template_path) = match (own, &firmware.template) {
            (Some(len), _) => (code.drain(..len).collect(), path),
            (None, Some(template)) => (read(template, "EFI variables")?, template),
            (None, None) => {
                check_code(&code, most).map_err(bad)?;
                return Err(FirmwareError::NoTemplate(path.clone()));
            }
        };
        check_code(&code, most.saturating_sub(template.len())).map_err(bad)?;
        check_variables(&template, template.len())
            .and_then(|()| if template.len().is_multiple_of(4096) { Ok(()) } else { Err(BadVariables::NoStore) })
            .map_err(|source| FirmwareError::Template { path: template_path.clone(), source })?;
        Ok(Self { code, code_offset: own.unwrap_or(0), template })
    }
}

/// A file's bytes, as far as they can be firmware.
fn read(path: &Path, role: &'static str) -> Result<Vec<u8>, FirmwareError> {
    let failed = |source| FirmwareError::System { action: "read", role, path: path.into(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(FIRMWARE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Variables that could not be used any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedAside {
    /// Where they are now.
    pub to: PathBuf,
    /// What was wrong with them.
    pub why: BadVariables,
}

/// Firmware, and the open file that keeps the machine's variables. It outlasts resets; clones are the same.
#[derive(Debug, Clone)]
pub struct OpenFirmware {
    /// What runs.
    pub image: Arc<Image>,
    /// What keeps the variables, as long as the template is.
    pub variables: Arc<File>,
    /// What was in the way of it.
    pub moved_aside: Option<MovedAside>,
}

impl OpenFirmware {
    /// Reads the firmware, and opens the variables: made from the template where they are missing, and where they are
    /// damaged or another firmware's, which then are kept under another name.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn open(firmware: &Firmware) -> Result<Self, FirmwareError> {
        let image = Arc::new(Image::read(firmware)?);
        let path = &firmware.variables;
        let failed =
            |action| move |source| FirmwareError::System { action, role: "EFI variables", path: path.clone(), source };
        let mut moved_aside = None;
        match read(path, "EFI variables") {
            Ok(bytes) => {
                if let Err(why) = check_variables(&bytes, image.template.len()) {
                    let to = free_name(path);
                    fs::rename(path, &to).map_err(failed("move aside"))?;
                    moved_aside = Some(MovedAside { to, why });
                    make(path, &image.template).map_err(failed("make"))?;
                }
            }
            Err(FirmwareError::System { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                make(path, &image.template).map_err(failed("make"))?;
            }
            Err(error) => return Err(error),
        }
        let file = File::options().read(true).write(true).open(path).map_err(failed("open"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(FirmwareError::InUse(path.clone())),
            Err(error) => return Err(failed("lock")(error.into())),
        }
        Ok(Self { image, variables: Arc::new(file), moved_aside })
    }
}

/// Makes the file with these contents, whole or not at all.
fn make(path: &Path, contents: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// `PATH.bad`, `PATH.bad1`, …: the first that is free.
fn free_name(path: &Path) -> PathBuf {
    let named = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(if number == 0 { ".bad".to_owned() } else { format!(".bad{number}") });
        PathBuf::from(name)
    };
    (0..1000).map(named).find(|path| !path.exists()).unwrap_or_else(|| named(1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firmware::tests::{code, variables};

    fn files() -> (tempfile::TempDir, Firmware) {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("code.fd"), code()).unwrap();
        fs::write(at("vars.fd"), variables()).unwrap();
        let firmware = Firmware {
            code: at("code.fd"),
            template: Some(at("vars.fd")),
            variables: at("efi-vars.fd"),
            menu_wait_s: None,
            kernel: None,
        };
        (folder, firmware)
    }

    #[test]
    fn files_that_are_something_else_are_refused_by_name() {
        let (folder, firmware) = files();
        let refused = |firmware: &Firmware| OpenFirmware::open(firmware).unwrap_err().to_string();
        let swapped = Firmware { code: folder.path().join("vars.fd"), ..firmware.clone() };
        assert!(refused(&swapped).contains("vars.fd"), "{}", refused(&swapped));
        let no_template = Firmware { template: None, ..firmware.clone() };
        assert!(refused(&no_template).contains("no EFI variables beside"));
        let no_variables = Firmware { template: Some(firmware.code.clone()), ..firmware.clone() };
        assert!(refused(&no_variables).contains("cannot be the machine's first"));
        let missing = Firmware { code: "/nowhere.fd".into(), ..firmware.clone() };
        assert_eq!(refused(&missing), "cannot read firmware `/nowhere.fd`");
        assert!(!firmware.variables.exists());
    }

    #[test]
    fn damaged_variables_are_kept_aside_and_made_anew_and_good_ones_stay() {
        let (_folder, firmware) = files();
        fs::write(&firmware.variables, "torn").unwrap();
        fs::write(format!("{}.bad", firmware.variables.display()), "older").unwrap();
        let opened = OpenFirmware::open(&firmware).unwrap();
        let MovedAside { to, why } = opened.moved_aside.clone().unwrap();
        assert_eq!((fs::read(&to).unwrap(), why), (b"torn".into(), BadVariables::Length { len: 4, wanted: 0x4000 }));
        assert!(to.ends_with("efi-vars.fd.bad1"));
        assert!(matches!(OpenFirmware::open(&firmware), Err(FirmwareError::InUse(_))));
        drop(opened);
        let mut kept = variables();
        kept[0x200] = 7;
        fs::write(&firmware.variables, &kept).unwrap();
        assert_eq!(OpenFirmware::open(&firmware).unwrap().moved_aside, None);
        assert_eq!(fs::read(&firmware.variables).unwrap(), kept);
    }

    #[test]
    fn a_file_of_both_is_taken_apart() {
        let (_folder, firmware) = files();
        fs::write(&firmware.code, [variables(), code()].concat()).unwrap();
        let image = Image::read(&Firmware { template: None, ..firmware }).unwrap();
        assert_eq!(image, Image { code: code(), code_offset: 0x4000, template: variables() });
    }
}
