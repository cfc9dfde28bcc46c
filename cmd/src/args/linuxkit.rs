//! Flags that are there because LinuxKit has them, or to be like it.

use std::path::PathBuf;

use clap::Args;
use kiln_build::compat::Compat;

/// How much of LinuxKit a build is to be.
#[derive(Debug, Clone, Args)]
pub struct Linuxkit {
    /// Give the result of `linuxkit` also where it is a defect [env: KILN_COMPAT]
    #[arg(long, value_name = "PROGRAM")]
    pub compat: Option<Compat>,
    /// Unpack a packed kernel: one that is gzip, or a bzImage
    #[arg(long)]
    pub decompress_kernel: bool,
    /// Look for images in a running Docker first
    #[arg(long)]
    pub docker: bool,
    /// Size of disk images, with a unit: 512M, 4G; without one it is in GiB
    #[arg(long, value_name = "SIZE", default_value = "1024M", value_parser = disk_bytes)]
    pub size: u64,
    /// The tar of a former build of the same configuration, to take unchanged parts from
    #[arg(long, value_name = "FILE", conflicts_with = "pull")]
    pub input_tar: Option<PathBuf>,
}

/// Flags of `linuxkit run` that mean nothing here, or something that is said in another way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct LinuxkitRun {
    /// Of `qemu`: the guest's architecture.
    #[arg(long, hide = true)]
    pub arch: Option<String>,
    /// Of `qemu`: a window.
    #[arg(long, hide = true)]
    pub gui: bool,
    /// Of `qemu`: USB.
    #[arg(long, hide = true)]
    pub usb: bool,
    /// Of `qemu`: words for it.
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub device: Vec<String>,
    /// Of `qemu`: the program.
    #[arg(long, hide = true)]
    pub qemu: Option<PathBuf>,
    /// Of `qemu`: the program that serves shares.
    #[arg(long, hide = true)]
    pub virtiofsd: Option<PathBuf>,
    /// Of `hyperkit`: the program.
    #[arg(long, hide = true)]
    pub hyperkit: Option<PathBuf>,
    /// Of `hyperkit`: the program.
    #[arg(long, hide = true)]
    pub vpnkit: Option<PathBuf>,
    /// Of `hyperkit`: the console goes to a file of the state folder.
    #[arg(long, hide = true)]
    pub console_file: bool,
}

/// A flag of `linuxkit run` that cannot be obeyed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`-{flag}`: {why}")]
pub struct NotHere {
    flag: &'static str,
    why: String,
    /// What to do instead.
    pub instead: &'static str,
}

impl LinuxkitRun {
    /// What is to be said of flags that change nothing here; `own` is this machine's architecture.
    ///
    /// # Errors
    /// The first flag that would have to change something.
    pub fn notes(&self, own: &str) -> Result<Vec<String>, NotHere> {
        let refuse = |flag, why: &str, instead| Err(NotHere { flag, why: why.into(), instead });
        let is_own = |arch: &str| arch == own || arch == std::env::consts::ARCH;
        if let Some(arch) = self.arch.as_deref().filter(|arch| !is_own(arch)) {
            let why = format!("machines here are {own}, and not {arch}");
            return refuse(
                "arch",
                &why,
                "QEMU itself boots what `kiln build -arch` made: docs/formats.md has its words",
            );
        }
        if self.gui {
            return refuse("gui", "machines have no screen", "leave it out: the console is this terminal");
        }
        if self.usb || !self.device.is_empty() {
            let flag = if self.usb { "usb" } else { "device" };
            return refuse(
                flag,
                "machines have only devices of ours",
                "`-disk`, `-networking` and `-vsock-ports` add some",
            );
        }
        if self.qemu.is_some() {
            return refuse("qemu", "the first QEMU of the PATH is used", "put the folder of the other one first there");
        }
        if self.console_file {
            return refuse("console-file", "the file has to be named", "`-console file:PATH`");
        }
        let unneeded = [("virtiofsd", &self.virtiofsd), ("hyperkit", &self.hyperkit), ("vpnkit", &self.vpnkit)];
        let given = unneeded.into_iter().filter(|(_, path)| path.is_some());
        Ok(given.map(|(flag, _)| format!("`-{flag}` is not needed: this program does it itself")).collect())
    }
}

/// A disk's size in bytes. `M` is MiB, `G` or nothing GiB.
fn disk_bytes(text: &str) -> Result<u64, String> {
    let refuse = || format!("`{text}` is no size; write it like 512M or 4G");
    let (number, shift) = match text.strip_suffix(['M', 'm']) {
        Some(number) => (number, 20),
        None => (text.strip_suffix(['G', 'g']).unwrap_or(text), 30),
    };
    let number: u64 = number.parse().map_err(|_| refuse())?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0 && *bytes <= 8 << 60).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_that_cannot_be_obeyed_is_refused_and_one_that_changes_nothing_is_told_of() {
        let path = || Some(PathBuf::from("x"));
        for (flags, flag) in [
            (LinuxkitRun { arch: Some("s390x".into()), ..LinuxkitRun::default() }, "arch"),
            (LinuxkitRun { gui: true, ..LinuxkitRun::default() }, "gui"),
            (LinuxkitRun { usb: true, ..LinuxkitRun::default() }, "usb"),
            (LinuxkitRun { device: vec!["x".into()], ..LinuxkitRun::default() }, "device"),
            (LinuxkitRun { qemu: path(), ..LinuxkitRun::default() }, "qemu"),
            (LinuxkitRun { console_file: true, ..LinuxkitRun::default() }, "console-file"),
        ] {
            assert_eq!(flags.notes("amd64").unwrap_err().flag, flag);
        }
        assert_eq!(LinuxkitRun::default().notes("amd64"), Ok(vec![]));
        for arch in ["amd64", std::env::consts::ARCH] {
            let flags = LinuxkitRun { arch: Some(arch.into()), vpnkit: path(), ..LinuxkitRun::default() };
            assert_eq!(flags.notes("amd64").map(|notes| notes.len()), Ok(1));
        }
    }

    #[test]
    fn what_is_no_size_is_refused_by_name() {
        for text in ["big", "", "M", "-1G", "0", "1T", "1.5G", "99999999999G"] {
            assert!(disk_bytes(text).unwrap_err().contains(text), "{text}");
        }
        assert_eq!((disk_bytes("1024M"), disk_bytes("1G"), disk_bytes("1")), (Ok(1 << 30), Ok(1 << 30), Ok(1 << 30)));
    }
}
