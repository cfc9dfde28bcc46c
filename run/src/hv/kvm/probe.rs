//! Whether this host's KVM can run a stock kernel, found out before anything is made with it.

use std::io;
use std::path::{Path, PathBuf};

use kvm_ioctls::Cap;

use super::{Kvm, KvmFd};

/// The only version of the interface since 2007.
const API_VERSION: i32 = 12;

/// What the machine cannot do without.
const NEEDED: [(Cap, &str); 6] = [
    (Cap::SplitIrqchip, "KVM_CAP_SPLIT_IRQCHIP"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::IrqRouting, "KVM_CAP_IRQ_ROUTING"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::SignalMsi, "KVM_CAP_SIGNAL_MSI"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
];

/// Why KVM cannot serve here.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The device is missing: no hardware support, switched off in the firmware, module not loaded, or a container.
    #[error("there is no `{}` on this host", device.display())]
    Missing {
        /// The device.
        device: PathBuf,
    },
    /// The device may not be opened by this user.
    #[error("no permission to open `{}`; its group is usually `kvm`: `sudo usermod -aG kvm $USER`, then log in again", device.display())]
    NoPermission {
        /// The device.
        device: PathBuf,
    },
    /// The device cannot be opened for another reason.
    #[error("cannot open `{}`", device.display())]
    Open {
        /// The device.
        device: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// KVM works without the processor's virtualization: stock 64-bit kernels never get anywhere on it.
    #[error("this host's KVM (`{module}`) works without hardware virtualization and cannot run stock kernels")]
    Software {
        /// The kernel module that provides it.
        module: &'static str,
    },
    /// An interface of another version than the only known one.
    #[error("this host's KVM has interface version {version}, kiln needs {API_VERSION}")]
    Version {
        /// Its version.
        version: i32,
    },
    /// A needed capability is missing.
    #[error("this host's KVM lacks {capability}")]
    Lacks {
        /// Its name in KVM's documentation.
        capability: &'static str,
    },
}

/// Opens KVM if it can run a stock kernel.
pub fn probe() -> Result<Kvm, Unusable> {
    probe_at(Path::new("/dev/kvm"), Path::new("/sys/module"))
}

fn probe_at(device: &Path, modules: &Path) -> Result<Kvm, Unusable> {
    let file = std::fs::File::options().read(true).write(true).open(device).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Unusable::Missing { device: device.into() },
        io::ErrorKind::PermissionDenied => Unusable::NoPermission { device: device.into() },
        _ => Unusable::Open { device: device.into(), source },
    })?;
    let is_loaded = |module: &str| modules.join(module).exists();
    if is_loaded("kvm_pvm") && !is_loaded("kvm_intel") && !is_loaded("kvm_amd") {
        return Err(Unusable::Software { module: "kvm_pvm" });
    }
    // SAFETY: the descriptor was just opened and is given away here; whether it is KVM's is checked right below.
    let fd = unsafe { <KvmFd as std::os::fd::FromRawFd>::from_raw_fd(std::os::fd::IntoRawFd::into_raw_fd(file)) };
    let version = fd.get_api_version();
    if version != API_VERSION {
        return Err(Unusable::Version { version });
    }
    for (capability, name) in NEEDED {
        if !fd.check_extension(capability) {
            return Err(Unusable::Lacks { capability: name });
        }
    }
    Ok(Kvm { fd })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("kvm");
        let error = probe_at(&device, folder.path()).unwrap_err();
        assert_eq!(error.to_string(), format!("there is no `{}` on this host", device.display()));
    }

    #[test]
    fn kvm_without_hardware_is_refused_by_its_module() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("kvm");
        std::fs::write(&device, "").unwrap();
        std::fs::create_dir(folder.path().join("kvm_pvm")).unwrap();
        assert!(matches!(probe_at(&device, folder.path()), Err(Unusable::Software { module: "kvm_pvm" })));
        std::fs::create_dir(folder.path().join("kvm_amd")).unwrap();
        assert!(matches!(probe_at(&device, folder.path()), Err(Unusable::Version { .. })));
    }
}
