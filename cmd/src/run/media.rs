//! Files that boot by themselves: ISOs and disk images, and the firmware that boots them.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use kiln_run::config::{Boot, Disk, DiskFormat, Firmware};
use kiln_run::firmware::{self, BootsBy, Found, Unified};

use super::names::with_suffix;
use super::roots;
use crate::args;
use crate::failure::Failure;

/// Endings of what `kiln build` makes for EFI, without and with `-iso`.
const BUILT: [&str; 4] = ["-efi.img", "-efi.qcow2", "-efi.iso", "-efi-initrd.iso"];
const BUILT_ISO: [&str; 2] = ["-efi.iso", "-efi-initrd.iso"];

/// A machine that starts from a medium.
pub struct Medium {
    /// What `kiln build` put there to be started. Without it firmware finds what there is.
    pub unified: Option<Unified>,
    /// What it boots; `None` if that is among the other disks.
    pub disk: Option<Disk>,
    /// The prefix of its files.
    pub prefix: Option<PathBuf>,
}

/// A medium that cannot be looked into.
#[derive(Debug, thiserror::Error)]
#[error("cannot take the kernel out of `{}`", path.display())]
struct Unreadable {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Whether what was asked for starts from a medium, and from which.
pub fn find(asked: &args::Run, name: Option<&Path>) -> Result<Option<Medium>, Failure> {
    let wanted = asked.firmware.is_wanted();
    let Some(name) = name else {
        let is_medium = wanted && asked.kernel.is_none();
        return Ok(is_medium.then_some(Medium { unified: None, disk: None, prefix: None }));
    };
    let path = match named(asked, name) {
        Some(path) if wanted => path,
        None if wanted && !with_suffix(name, "-kernel").exists() => return Err(nothing(asked, name)),
        _ => name.to_owned(),
    };
    let belongs_to_kernel = || roots::of_file(&path).is_some_and(|(build, _)| with_suffix(&build, "-kernel").exists());
    if !path.is_file() || asked.kernel.is_some() || !wanted && belongs_to_kernel() {
        return Ok(None);
    }
    let mut unified = None;
    let disk = Disk { read_only: has_ending(&path, "iso"), ..Disk::of(path.clone()) };
    if disk.layout() == DiskFormat::Raw {
        // A file that cannot be read is told of by those who open it.
        match firmware::boots_by(&path).unwrap_or(BootsBy::Nothing) {
            BootsBy::Efi if wanted => {}
            BootsBy::Efi => {
                let failed = |error| Failure::new(Unreadable { path: path.clone(), source: error });
                unified = firmware::unified(&path).map_err(failed)?;
            }
            BootsBy::Bios => return Err(bios_only(&path)),
            BootsBy::Nothing if wanted => {
                let failure = Failure::new(format!("`{}` is no ISO or disk that EFI firmware boots", path.display()));
                return Err(
                    failure.hint("an image of another kind becomes one with `qemu-img convert -O qcow2 OLD NEW.qcow2`")
                );
            }
            BootsBy::Nothing => return Ok(None),
        }
    }
    if unified.is_none() && has_parts(asked) {
        return Err(parts_for_firmware());
    }
    let prefix = path.with_extension("");
    Ok(Some(Medium { unified, disk: Some(disk), prefix: Some(prefix) }))
}

fn has_parts(asked: &args::Run) -> bool {
    asked.initrd.is_some() || asked.cmdline.is_some()
}

fn parts_for_firmware() -> Failure {
    let text = "firmware boots what is on a disk or an ISO: it takes no `-kernel`, `-initrd` or `-cmdline`";
    Failure::usage(text).hint("leave out `-uefi`, or the others; what only firmware boots has its command line in it")
}

/// The file that is meant: NAME itself, or what a build called NAME left for EFI.
fn named(asked: &args::Run, name: &Path) -> Option<PathBuf> {
    std::iter::once(name.to_owned()).chain(built(asked, name)).find(|path| path.is_file())
}

fn built(asked: &args::Run, name: &Path) -> impl Iterator<Item = PathBuf> {
    let endings: &[&str] = if asked.root.iso { &BUILT_ISO } else { &BUILT };
    endings.iter().map(|ending| with_suffix(name, ending))
}

fn nothing(asked: &args::Run, name: &Path) -> Failure {
    let names: Vec<_> = built(asked, name).map(|path| format!("`{}`", path.display())).collect();
    let text = format!("nothing to boot: `{}` is not there, nor is {}", name.display(), names.join(", "));
    Failure::new(text).hint("`kiln build -format iso-efi` or `-format raw-efi` makes one")
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending))
}

fn bios_only(path: &Path) -> Failure {
    let failure =
        Failure::new(format!("`{}` boots by a BIOS only, and machines here have EFI firmware", path.display()));
    let plug = if has_ending(path, "iso") { "-cdrom" } else { "-hda" };
    failure
        .hint("`kiln build -format iso-efi` or `-format raw-efi` makes one that boots")
        .hint(format!("QEMU has a BIOS: `qemu-system-x86_64 -m 1G -nographic {plug} {}`", path.display()))
}

/// Starts a kernel without firmware, and what has to be held meanwhile: the files have no names, and are found by their numbers,
/// also by QEMU.
pub fn directly(asked: &args::Run, unified: Unified) -> (Boot, Vec<File>) {
    let Unified { kernel, initrd, cmdline } = unified;
    let path = |file: &File| PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
    let boot = Boot::Linux {
        kernel: path(&kernel),
        initrd: asked.initrd.clone().or(initrd.as_ref().map(path)),
        cmdline: asked.cmdline.clone().unwrap_or(cmdline),
    };
    (boot, std::iter::once(kernel).chain(initrd).collect())
}

/// The firmware that was asked for, or this host's.
pub fn firmware(flags: &args::FirmwareFlags, state_dir: &Path) -> Result<Firmware, Failure> {
    let Found { code, template } = match &flags.firmware {
        Some(code) => Found { code: code.clone(), template: firmware::template_of(code) },
        None => firmware::find().map_err(|error| Failure::new(error).hint(firmware::NotFound::HINT))?,
    };
    let variables = flags.variable_store.clone().unwrap_or_else(|| state_dir.join("efi-vars.fd"));
    Ok(Firmware { code, template, variables, menu_wait_s: flags.boot_menu, kernel: None })
}
