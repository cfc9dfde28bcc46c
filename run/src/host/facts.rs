//! The reader of facts. It opens `/dev/kvm`, asks QEMU for its version, and changes nothing.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::path::find_program;
use crate::qemu::{self, Qemu};

const KVM_DEVICE: &str = "/dev/kvm";

/// What was seen on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The state of `/dev/kvm`.
    pub kvm_device: KvmDevice,
    /// Names of the loaded kernel modules that KVM needs one of: `kvm_intel`, `kvm_amd`, `kvm_pvm`.
    pub kvm_modules: Vec<String>,
    /// The processor says that it can virtualize (`vmx` or `svm` in `/proc/cpuinfo`).
    pub cpu_virtualizes: bool,
    /// The QEMU that would run this architecture's guests.
    pub qemu: Option<Qemu>,
}

/// The state of `/dev/kvm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvmDevice {
    /// It opens for reading and writing.
    Opens,
    /// There is none.
    Missing,
    /// It is there and not for this user.
    Forbidden {
        /// The group that may open it, by name or number, when its mode lets a group other than root's.
        group: Option<String>,
        /// The user has been put into that group and must log in again to be in it.
        group_is_given: bool,
    },
    /// It is there and does not open.
    Broken {
        /// What the system said.
        reason: String,
    },
    /// It opens and lacks what a machine needs.
    Unfit {
        /// What it lacks.
        reason: String,
    },
}

impl Facts {
    /// Reads them all from this host. What cannot be read counts as absent.
    pub fn read() -> Self {
        let search_path = std::env::var_os("PATH").unwrap_or_default();
        let loaded = |name: &&str| Path::new("/sys/module").join(name).exists();
        Self {
            kvm_device: match kvm_device(Path::new(KVM_DEVICE)) {
                KvmDevice::Opens => fitness(),
                other => other,
            },
            kvm_modules: ["kvm_intel", "kvm_amd", "kvm_pvm"]
                .iter()
                .filter(|n| loaded(n))
                .map(|n| (*n).into())
                .collect(),
            cpu_virtualizes: cpu_virtualizes(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            qemu: find_program(&qemu::program(), &search_path).and_then(qemu::ask),
        }
    }
}

fn kvm_device(path: &Path) -> KvmDevice {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => KvmDevice::Opens,
        Err(error) if error.kind() == io::ErrorKind::NotFound => KvmDevice::Missing,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => forbidden(path),
        Err(error) => KvmDevice::Broken { reason: error.to_string() },
    }
}

/// What the hypervisor's own probe says of a device that opens.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn fitness() -> KvmDevice {
    use crate::hv::kvm::{Unusable, probe};
    match probe() {
        // That it is KVM without hardware is told from the modules.
        Ok(_) | Err(Unusable::Software { .. }) => KvmDevice::Opens,
        Err(unusable) => KvmDevice::Unfit { reason: unusable.to_string() },
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn fitness() -> KvmDevice {
    KvmDevice::Unfit { reason: format!("kiln runs no {} machines over KVM yet", std::env::consts::ARCH) }
}

fn forbidden(path: &Path) -> KvmDevice {
    let Ok(metadata) = path.metadata() else { return KvmDevice::Forbidden { group: None, group_is_given: false } };
    let group_may = metadata.mode() & 0o060 == 0o060 && metadata.gid() != 0;
    if !group_may {
        return KvmDevice::Forbidden { group: None, group_is_given: false };
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let line = group_line(&groups, metadata.gid());
    let user = std::env::var("USER").unwrap_or_default();
    KvmDevice::Forbidden {
        group: Some(line.as_ref().map_or_else(|| metadata.gid().to_string(), |(name, _)| name.clone())),
        group_is_given: line.is_some_and(|(_, members)| !user.is_empty() && members.contains(&user)),
    }
}

/// Name and members of the group with this number, out of `/etc/group`.
fn group_line(groups: &str, gid: u32) -> Option<(String, Vec<String>)> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number: u32 = fields.nth(1)?.parse().ok()?;
        let members = fields.next().unwrap_or_default();
        (number == gid).then(|| (name.to_owned(), members.split(',').map(str::to_owned).collect()))
    })
}

fn cpu_virtualizes(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    flags.split_ascii_whitespace().any(|flag| flag == "vmx" || flag == "svm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_is_missing_and_one_that_is_a_folder_is_broken() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(kvm_device(&folder.path().join("kvm")), KvmDevice::Missing);
        assert!(matches!(kvm_device(folder.path()), KvmDevice::Broken { .. }));
        std::fs::write(folder.path().join("kvm"), "").unwrap();
        assert_eq!(kvm_device(&folder.path().join("kvm")), KvmDevice::Opens);
    }

    #[test]
    fn groups_are_found_by_number_and_damaged_lines_passed_over() {
        let groups = "root:x:0:\nbroken\nkvm:x:x:eve\nkvm:x:104:ada,bob\n";
        assert_eq!(group_line(groups, 104), Some(("kvm".into(), vec!["ada".into(), "bob".into()])));
        assert_eq!(group_line(groups, 105), None);
    }

    #[test]
    fn only_whole_words_of_the_processors_flags_count() {
        assert!(!cpu_virtualizes("model name : svm\nflags : fpu svm_lock vmxnet\n"));
        assert!(cpu_virtualizes("flags\t\t: fpu svm nx\n"));
        assert!(!cpu_virtualizes(""));
    }
}
