//! Mounts, and the way from the boot initrd into the root.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, unmount};

use crate::wanted::Wanted;

/// Where the root is mounted at first.
const ROOT: &str = "/root";
/// Where init is, in the kernel's order; a LinuxKit root has its own at `/init` too.
const INITS: [&str; 5] = ["/sbin/init", "/init", "/etc/init", "/bin/init", "/bin/sh"];
/// What the boot initrd holds and nobody needs any more.
const USED_UP: [&str; 3] = ["/init", "/modules", "/lib"];

/// Why the root is not entered.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// A file system of the kernel's own.
    #[error("cannot mount {kind} on `{target}`")]
    First {
        /// Its type.
        kind: &'static str,
        /// Where.
        target: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The root itself.
    #[error("cannot mount `{}` as {kind} root", device.display())]
    Root {
        /// The device.
        device: PathBuf,
        /// Its type.
        kind: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The root is mounted, but cannot become `/`.
    #[error("cannot make the root `/`")]
    Enter(#[source] io::Error),
    /// The program that the command line names.
    #[error("cannot start `{}`, which `init=` names", init.display())]
    Asked {
        /// The program.
        init: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// None of the usual programs.
    #[error("the root has no init that starts; looked for {}", INITS.join(", "))]
    NoInit(#[source] io::Error),
}

/// proc, sysfs and the devices.
pub fn mount_first() -> Result<(), SwitchError> {
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let dev = MountFlags::NOSUID | MountFlags::NOEXEC;
    for (kind, target, flags) in [("proc", "/proc", safe), ("sysfs", "/sys", safe), ("devtmpfs", "/dev", dev)] {
        match mount(kind, target, kind, flags, None) {
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(errno) => return Err(SwitchError::First { kind, target, source: errno.into() }),
        }
    }
    Ok(())
}

/// Mounts the root.
pub fn mount_root(device: &Path, kind: &str, wanted: &Wanted) -> Result<(), SwitchError> {
    let failed = |source| SwitchError::Root { device: device.into(), kind: kind.into(), source };
    let data = CString::new(wanted.options.as_str()).map_err(|_| failed(io::ErrorKind::InvalidInput.into()))?;
    let data = (!wanted.options.is_empty()).then_some(data.as_c_str());
    let writable = wanted.writable && wanted.roothash.is_none();
    let mut last = io::Error::from(io::ErrorKind::InvalidInput);
    for kind in kind.split(',') {
        let flags = if writable { MountFlags::empty() } else { MountFlags::RDONLY };
        let mounted = match mount(device, ROOT, kind, flags, data) {
            // It is never written, as squashfs and CDs.
            Err(rustix::io::Errno::ROFS | rustix::io::Errno::ACCESS) if writable => {
                mount(device, ROOT, kind, MountFlags::RDONLY, data)
            }
            mounted => mounted,
        };
        match mounted {
            Ok(()) => return Ok(()),
            Err(errno) => last = errno.into(),
        }
    }
    Err(failed(last))
}

/// Makes the mounted root `/` and becomes its init, with the words and variables that the kernel gave. Returns only the
/// reason why that failed.
pub fn into_root(asked: Option<&Path>) -> SwitchError {
    if let Err(error) = enter() {
        return SwitchError::Enter(error);
    }
    let start = |program: &Path| Command::new(program).args(std::env::args_os().skip(1)).exec();
    if let Some(init) = asked {
        return SwitchError::Asked { init: init.into(), source: start(init) };
    }
    let mut reason = io::Error::from(io::ErrorKind::NotFound);
    for init in INITS.map(Path::new) {
        let error = start(init);
        // One that is there and does not start is told of, not the last that is missing.
        if error.kind() != io::ErrorKind::NotFound {
            reason = error;
        }
    }
    SwitchError::NoInit(reason)
}

fn enter() -> io::Result<()> {
    // As it is when the kernel mounts a root: devices at most. An init that finds proc takes itself to be in a container.
    for target in ["/proc", "/sys"] {
        unmount(target, UnmountFlags::DETACH)?;
    }
    let dev = Path::new(ROOT).join("dev");
    if dev.is_dir() {
        mount_move("/dev", &dev)?;
    } else {
        unmount("/dev", UnmountFlags::DETACH)?;
    }
    for path in USED_UP.map(Path::new) {
        // Memory that is not given back is no reason to stop.
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }
    rustix::process::chdir(ROOT)?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    Ok(rustix::process::chdir("/")?)
}
