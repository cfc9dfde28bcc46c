//! Mounts as fstab writes them: words become the kernel's flags, the rest is passed to the file system.

pub mod table;

use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::StatVfsMountFlags;
use rustix::mount::{FsOpenFlags, MountFlags, MountPropagationFlags, UnmountFlags};

/// Longest option text that the kernel takes: one page, with its NUL.
pub const DATA_LIMIT_BYTES: usize = 4095;

/// A mount that did not work.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The options contain a NUL or are longer than [`DATA_LIMIT_BYTES`].
    #[error("mount options for `{}` are no text of at most {DATA_LIMIT_BYTES} bytes", target.display())]
    Data {
        /// Where it was to be mounted.
        target: PathBuf,
    },
    /// The kernel refused.
    #[error("cannot mount {what} on `{}`", target.display())]
    Mount {
        /// File system and source, or what is changed.
        what: String,
        /// Where.
        target: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Options of one mount, sorted by who acts on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Flags of mount(2) without those of propagation.
    pub flags: MountFlags,
    /// `remount` was among them.
    pub remount: bool,
    /// Change of propagation, done last.
    pub propagation: Option<MountPropagationFlags>,
    /// For the file system: joined by commas.
    pub data: String,
}

impl Options {
    /// Sorts fstab words. Words that fstab knows and the kernel does not (`auto`, `_netdev`, …) are dropped.
    pub fn parse<W: AsRef<str>>(words: impl IntoIterator<Item = W>) -> Self {
        let mut options = Self { flags: MountFlags::empty(), remount: false, propagation: None, data: String::new() };
        for word in words {
            for word in word.as_ref().split(',').filter(|word| !word.is_empty()) {
                options.add(word);
            }
        }
        options
    }

    fn add(&mut self, word: &str) {
        if let Some((flag, set)) = flag(word) {
            self.flags.set(flag, set);
        } else if let Some(propagation) = propagation(word) {
            self.propagation = Some(propagation);
        } else if word == "remount" {
            self.remount = true;
        } else if !FSTAB_ONLY.contains(&word) {
            if !self.data.is_empty() {
                self.data.push(',');
            }
            self.data.push_str(word);
        }
    }

    /// Values of `key=` among the file system's own options, such as overlay's `upperdir`.
    pub fn data_values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.data.split(',').filter_map(move |word| word.strip_prefix(key)?.strip_prefix('='))
    }
}

/// Words of fstab for other programs than the kernel.
const FSTAB_ONLY: [&str; 9] =
    ["defaults", "auto", "noauto", "user", "nouser", "users", "_netdev", "nofail", "x-mount.mkdir"];

fn flag(word: &str) -> Option<(MountFlags, bool)> {
    let flag = match word {
        "ro" => (MountFlags::RDONLY, true),
        "rw" => (MountFlags::RDONLY, false),
        "bind" => (MountFlags::BIND, true),
        "rbind" => (MountFlags::BIND.union(MountFlags::REC), true),
        "nosuid" => (MountFlags::NOSUID, true),
        "suid" => (MountFlags::NOSUID, false),
        "nodev" => (MountFlags::NODEV, true),
        "dev" => (MountFlags::NODEV, false),
        "noexec" => (MountFlags::NOEXEC, true),
        "exec" => (MountFlags::NOEXEC, false),
        "sync" => (MountFlags::SYNCHRONOUS, true),
        "async" => (MountFlags::SYNCHRONOUS, false),
        "dirsync" => (MountFlags::DIRSYNC, true),
        "mand" => (MountFlags::PERMIT_MANDATORY_FILE_LOCKING, true),
        "nomand" => (MountFlags::PERMIT_MANDATORY_FILE_LOCKING, false),
        "noatime" => (MountFlags::NOATIME, true),
        "atime" => (MountFlags::NOATIME, false),
        "nodiratime" => (MountFlags::NODIRATIME, true),
        "diratime" => (MountFlags::NODIRATIME, false),
        "relatime" => (MountFlags::RELATIME, true),
        "norelatime" => (MountFlags::RELATIME, false),
        "strictatime" => (MountFlags::STRICTATIME, true),
        "nostrictatime" => (MountFlags::STRICTATIME, false),
        "lazytime" => (MountFlags::LAZYTIME, true),
        "silent" => (MountFlags::SILENT, true),
        "loud" => (MountFlags::SILENT, false),
        _ => return None,
    };
    Some(flag)
}

fn propagation(word: &str) -> Option<MountPropagationFlags> {
    Some(match word {
        "shared" => MountPropagationFlags::SHARED,
        "rshared" => MountPropagationFlags::SHARED.union(MountPropagationFlags::REC),
        "slave" => MountPropagationFlags::DOWNSTREAM,
        "rslave" => MountPropagationFlags::DOWNSTREAM.union(MountPropagationFlags::REC),
        "private" => MountPropagationFlags::PRIVATE,
        "rprivate" => MountPropagationFlags::PRIVATE.union(MountPropagationFlags::REC),
        "unbindable" => MountPropagationFlags::UNBINDABLE,
        "runbindable" => MountPropagationFlags::UNBINDABLE.union(MountPropagationFlags::REC),
        _ => return None,
    })
}

/// Mounts `source` on `target` with everything that `options` ask for, in as many calls as the kernel needs.
///
/// # Errors
/// [`MountError`] with the kernel's reason.
pub fn mount(kind: &str, source: &str, target: &Path, options: &Options) -> Result<(), MountError> {
    let data_error = || MountError::Data { target: target.to_owned() };
    if options.data.len() > DATA_LIMIT_BYTES {
        return Err(data_error());
    }
    let data = CString::new(options.data.as_str()).map_err(|_| data_error())?;
    let fail = |what: &str, errno: rustix::io::Errno| MountError::Mount {
        what: what.to_owned(),
        target: target.to_owned(),
        source: errno.into(),
    };
    let bind = options.flags.contains(MountFlags::BIND);
    if options.remount {
        rustix::mount::mount_remount(target, options.flags, data).map_err(|e| fail("again", e))?;
    } else if bind {
        let recursive = options.flags & (MountFlags::BIND | MountFlags::REC);
        rustix::mount::mount(source, target, c"", recursive, None).map_err(|e| fail(&format!("`{source}`"), e))?;
        // A bind takes over the flags of its source; others need a second call, which takes away what it does not name.
        let own = options.flags - MountFlags::REC;
        if own != MountFlags::BIND {
            let own = own | guarding(target);
            rustix::mount::mount_remount(target, own, c"").map_err(|e| fail("with its flags", e))?;
        }
    } else if !kind.is_empty() || options.propagation.is_none() {
        let data = (!options.data.is_empty()).then_some(data.as_c_str());
        rustix::mount::mount(source, target, kind, options.flags, data)
            .map_err(|e| fail(&format!("{kind} `{source}`"), e))?;
    }
    options.propagation.map_or(Ok(()), |propagation| propagate(target, propagation))
}

/// Those flags of what is mounted on `target` that keep something away.
fn guarding(target: &Path) -> MountFlags {
    let Ok(now) = rustix::fs::statvfs(target) else { return MountFlags::empty() };
    let flags = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
    ];
    flags.into_iter().filter(|(there, _)| now.f_flag.contains(*there)).map(|(_, flag)| flag).collect()
}

/// Changes where mounts on `target` go and come from.
///
/// # Errors
/// [`MountError`] with the kernel's reason.
pub fn propagate(target: &Path, propagation: MountPropagationFlags) -> Result<(), MountError> {
    rustix::mount::mount_change(target, propagation).map_err(|errno| MountError::Mount {
        what: "propagation".to_owned(),
        target: target.to_owned(),
        source: errno.into(),
    })
}

/// Whether the kernel has the file system, or gets it as a module when it is asked. `true` also when it does not say, as to
/// callers without CAP_SYS_ADMIN.
#[must_use]
pub fn is_known(kind: &str) -> bool {
    !matches!(rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC), Err(rustix::io::Errno::NODEV))
}

/// Unmounts `target`: at once, or else as soon as nobody uses it any more.
///
/// # Errors
/// The kernel's: `target` is not mounted or cannot be reached.
pub fn unmount(target: &Path) -> io::Result<()> {
    match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
        Err(rustix::io::Errno::BUSY) => {
            Ok(rustix::mount::unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?)
        }
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_too_long_for_the_kernel_are_refused_before_it_sees_them() {
        for data in ["x".repeat(DATA_LIMIT_BYTES + 1), "a\0b".to_owned()] {
            let options = Options::parse([data]);
            let error = mount("tmpfs", "tmpfs", Path::new("/nowhere"), &options).unwrap_err();
            assert!(matches!(error, MountError::Data { .. }));
        }
    }

    #[test]
    fn words_go_to_the_kernel_the_file_system_or_nowhere() {
        let options = Options::parse(["rw,nosuid", "size=1m", "auto", "", "mode=755", "rshared", "noexec"]);
        assert_eq!(options.flags, MountFlags::NOSUID | MountFlags::NOEXEC);
        assert_eq!(options.data, "size=1m,mode=755");
        assert_eq!(options.propagation, Some(MountPropagationFlags::SHARED | MountPropagationFlags::REC));
        assert!(!options.remount);
    }

    #[test]
    fn the_last_of_two_contrary_words_wins() {
        assert_eq!(Options::parse(["ro", "rw"]).flags, MountFlags::empty());
        assert_eq!(Options::parse(["rw", "ro"]).flags, MountFlags::RDONLY);
    }

    #[test]
    fn a_value_is_found_by_its_whole_key() {
        let options = Options::parse(["lowerdir=/l", "upperdir=/u", "xupperdir=/x", "upperdirs=/y"]);
        assert_eq!(options.data_values("upperdir").collect::<Vec<_>>(), ["/u"]);
    }
}
