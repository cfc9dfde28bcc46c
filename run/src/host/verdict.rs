//! What follows from the facts: whether KVM serves, what runs the machine, and what the user can do about it.

use super::facts::{Facts, KvmDevice};
use crate::qemu;

/// What the user asked to run the guest's instructions with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// KVM where it serves, else QEMU.
    Auto,
    /// KVM or nothing.
    Kvm,
    /// QEMU's software CPU.
    Qemu,
}

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// This process, over KVM.
    Kvm,
    /// QEMU's software CPU.
    Qemu,
}

/// A back end, and why it is not the one that one would expect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// What runs the guest's instructions.
    pub backend: Backend,
    /// Why KVM was not taken although it might have been.
    pub fell_back: Option<KvmTrouble>,
}

/// Why KVM does not serve on this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvmTrouble {
    /// No device, and a processor that could.
    #[error("there is no /dev/kvm, although this processor could have one")]
    NotLoaded,
    /// No device, and a processor that says it cannot.
    #[error("there is no /dev/kvm, and this processor (or the machine around it) does not offer virtualization")]
    NoHardware,
    /// The device belongs to a group.
    #[error("/dev/kvm may be opened only by members of the group `{group}`")]
    NotInGroup {
        /// The group's name.
        group: String,
        /// The user is in it from the next login on.
        from_next_login: bool,
    },
    /// The device is for its owner alone.
    #[error("/dev/kvm may not be opened by this user")]
    Forbidden,
    /// The device does not open.
    #[error("/dev/kvm does not open: {reason}")]
    Broken {
        /// What the system said.
        reason: String,
    },
    /// The device opens and lacks something.
    #[error("/dev/kvm cannot serve: {reason}")]
    Unfit {
        /// What it lacks.
        reason: String,
    },
    /// KVM without hardware behind it.
    #[error("this host's KVM (kvm_pvm) works without hardware virtualization and cannot run stock kernels")]
    NoStockKernels,
}

impl KvmTrouble {
    /// What the user can do, when anything.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotLoaded => Some("`sudo modprobe kvm_intel` or `sudo modprobe kvm_amd` loads it".into()),
            Self::NotInGroup { group, from_next_login: false } => {
                Some(format!("`sudo usermod -aG {group} $USER` lets you in, from the next login on"))
            }
            Self::NotInGroup { group, from_next_login: true } => {
                Some(format!("you are a member of `{group}` from the next login on; `newgrp {group}` does it now"))
            }
            Self::Forbidden => Some("`sudo setfacl -m u:$USER:rw /dev/kvm` lets you in until the next boot".into()),
            Self::NoHardware => Some("look for virtualization (VT-x, SVM, nested) in the settings around it".into()),
            Self::Broken { .. } | Self::Unfit { .. } | Self::NoStockKernels => None,
        }
    }
}

/// Nothing can run the machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoBackend {
    /// KVM was insisted on.
    #[error("cannot run with KVM")]
    Kvm(#[source] KvmTrouble),
    /// QEMU was insisted on.
    #[error("cannot run with QEMU: `{}` is not in PATH", qemu::program())]
    Qemu,
    /// Neither is there.
    #[error("nothing here can run a machine: KVM does not serve, and `{}` is not in PATH", qemu::program())]
    Neither(#[source] KvmTrouble),
}

impl NoBackend {
    /// What the user can do, one line each.
    pub fn hints(&self) -> Vec<String> {
        let install =
            || "`sudo apt-get install --no-install-recommends qemu-system-x86` installs a software CPU".into();
        match self {
            Self::Kvm(trouble) => {
                let way_out = "without `-accel kvm`, QEMU's software CPU runs the same machine".into();
                trouble.hint().into_iter().chain([way_out]).collect()
            }
            Self::Qemu => vec![install()],
            Self::Neither(trouble) => trouble.hint().into_iter().chain([install()]).collect(),
        }
    }
}

/// Why KVM does not serve, or `None` when it does.
pub fn kvm_trouble(facts: &Facts) -> Option<KvmTrouble> {
    match &facts.kvm_device {
        KvmDevice::Missing if facts.cpu_virtualizes => Some(KvmTrouble::NotLoaded),
        KvmDevice::Missing => Some(KvmTrouble::NoHardware),
        KvmDevice::Forbidden { group: Some(group), group_is_given } => {
            Some(KvmTrouble::NotInGroup { group: group.clone(), from_next_login: *group_is_given })
        }
        KvmDevice::Forbidden { group: None, .. } => Some(KvmTrouble::Forbidden),
        KvmDevice::Broken { reason } => Some(KvmTrouble::Broken { reason: reason.clone() }),
        KvmDevice::Unfit { reason } => Some(KvmTrouble::Unfit { reason: reason.clone() }),
        KvmDevice::Opens if facts.kvm_modules == ["kvm_pvm"] => Some(KvmTrouble::NoStockKernels),
        KvmDevice::Opens => None,
    }
}

/// Chooses what runs the machine.
pub fn choose(asked: Accel, facts: &Facts) -> Result<Choice, NoBackend> {
    let trouble = kvm_trouble(facts);
    let has_qemu = facts.qemu.is_some();
    match (asked, trouble) {
        (Accel::Auto | Accel::Kvm, None) => Ok(Choice { backend: Backend::Kvm, fell_back: None }),
        (Accel::Kvm, Some(trouble)) => Err(NoBackend::Kvm(trouble)),
        (Accel::Auto, trouble @ Some(_)) if has_qemu => Ok(Choice { backend: Backend::Qemu, fell_back: trouble }),
        (Accel::Auto, Some(trouble)) => Err(NoBackend::Neither(trouble)),
        (Accel::Qemu, _) if has_qemu => Ok(Choice { backend: Backend::Qemu, fell_back: None }),
        (Accel::Qemu, _) => Err(NoBackend::Qemu),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::Qemu;

    fn facts(kvm_device: KvmDevice, modules: &[&str], has_qemu: bool) -> Facts {
        Facts {
            kvm_device,
            kvm_modules: modules.iter().map(|name| (*name).into()).collect(),
            cpu_virtualizes: true,
            qemu: has_qemu.then(|| Qemu { path: "/usr/bin/qemu".into(), version: "7.2.0".into() }),
        }
    }

    #[test]
    fn every_way_in_which_kvm_fails_is_told_apart() {
        let in_group = |given| KvmDevice::Forbidden { group: Some("kvm".into()), group_is_given: given };
        let cases = [
            (facts(KvmDevice::Missing, &[], true), Some(KvmTrouble::NotLoaded)),
            (Facts { cpu_virtualizes: false, ..facts(KvmDevice::Missing, &[], true) }, Some(KvmTrouble::NoHardware)),
            (
                facts(in_group(false), &["kvm_amd"], true),
                Some(KvmTrouble::NotInGroup { group: "kvm".into(), from_next_login: false }),
            ),
            (
                facts(KvmDevice::Forbidden { group: None, group_is_given: false }, &["kvm_amd"], true),
                Some(KvmTrouble::Forbidden),
            ),
            (
                facts(KvmDevice::Unfit { reason: "old".into() }, &["kvm_amd"], true),
                Some(KvmTrouble::Unfit { reason: "old".into() }),
            ),
            (facts(KvmDevice::Opens, &["kvm_pvm"], true), Some(KvmTrouble::NoStockKernels)),
            (facts(KvmDevice::Opens, &["kvm_intel"], true), None),
            (facts(KvmDevice::Opens, &["kvm_intel", "kvm_pvm"], true), None),
            // Built into the kernel: no module to see.
            (facts(KvmDevice::Opens, &[], true), None),
        ];
        for (facts, expected) in cases {
            assert_eq!(kvm_trouble(&facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn the_choice_follows_what_is_there_and_what_was_asked() {
        let good = |qemu| facts(KvmDevice::Opens, &["kvm_amd"], qemu);
        let bad = |qemu| facts(KvmDevice::Opens, &["kvm_pvm"], qemu);
        let trouble = KvmTrouble::NoStockKernels;
        let run = |backend, fell_back| Ok(Choice { backend, fell_back });
        let cases = [
            (Accel::Auto, good(true), run(Backend::Kvm, None)),
            (Accel::Auto, good(false), run(Backend::Kvm, None)),
            (Accel::Auto, bad(true), run(Backend::Qemu, Some(trouble.clone()))),
            (Accel::Auto, bad(false), Err(NoBackend::Neither(trouble.clone()))),
            (Accel::Kvm, good(true), run(Backend::Kvm, None)),
            (Accel::Kvm, bad(true), Err(NoBackend::Kvm(trouble))),
            (Accel::Qemu, good(true), run(Backend::Qemu, None)),
            (Accel::Qemu, good(false), Err(NoBackend::Qemu)),
        ];
        for (asked, facts, expected) in cases {
            assert_eq!(choose(asked, &facts), expected, "{asked:?} {facts:?}");
        }
    }

    #[test]
    fn every_refusal_says_what_to_do() {
        for refusal in [
            NoBackend::Kvm(KvmTrouble::NoStockKernels),
            NoBackend::Qemu,
            NoBackend::Neither(KvmTrouble::NotInGroup { group: "kvm".into(), from_next_login: false }),
        ] {
            assert!(!refusal.hints().is_empty(), "{refusal}");
        }
    }
}
