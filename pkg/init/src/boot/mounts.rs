//! The file systems every machine has, as LinuxKit's contract lists them.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::Path;

use kiln_guest::mount::{Options, mount};
use rustix::mount::{MountFlags, MountPropagationFlags};

use super::keep::mount_keeping_files;
use super::root::{Storage, storage};
use crate::cmdline::Cmdline;

/// Type, target, options. The source is named like the type.
type Entry = (&'static str, &'static str, &'static str);

/// Without these nothing works.
const FIRST: [Entry; 3] = [
    ("proc", "/proc", "nosuid,nodev,noexec"),
    ("sysfs", "/sys", "nosuid,nodev,noexec"),
    ("devtmpfs", "/dev", "nosuid,noexec,mode=755"),
];

const DEVICES: [Entry; 3] = [
    ("devpts", "/dev/pts", "nosuid,noexec,gid=5,mode=620,ptmxmode=666"),
    ("mqueue", "/dev/mqueue", "nosuid,nodev,noexec"),
    ("tmpfs", "/dev/shm", "nosuid,nodev,noexec,mode=1777"),
];

/// In memory, and yet what the image has there stays visible.
const MEMORY: [Entry; 3] = [
    ("tmpfs", "/run", "nosuid,nodev,mode=755,size=10%"),
    ("tmpfs", "/tmp", "nosuid,nodev,mode=1777,size=10%"),
    ("tmpfs", "/var", "nosuid,nodev,mode=755,size=50%"),
];

/// Mounted where the kernel has the folder.
const IF_THERE: [Entry; 9] = [
    ("securityfs", "/sys/kernel/security", "nosuid,nodev,noexec"),
    ("debugfs", "/sys/kernel/debug", "nosuid,nodev,noexec"),
    ("configfs", "/sys/kernel/config", "nosuid,nodev,noexec"),
    ("fusectl", "/sys/fs/fuse/connections", "nosuid,nodev,noexec"),
    ("selinuxfs", "/sys/fs/selinux", "nosuid,noexec"),
    ("pstore", "/sys/fs/pstore", "nosuid,nodev,noexec"),
    ("bpf", "/sys/fs/bpf", "nosuid,nodev,noexec,mode=700"),
    ("efivarfs", "/sys/firmware/efi/efivars", "nosuid,nodev,noexec,ro"),
    ("binfmt_misc", "/proc/sys/fs/binfmt_misc", "nosuid,nodev,noexec"),
];

const DEVICE_LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/proc/kcore", "/dev/core"),
];

const VAR_FOLDERS: [&str; 9] = ["cache", "empty", "lib", "local", "lock", "log", "opt", "spool", "tmp"];
const CGROUPS: &str = "/sys/fs/cgroup";

/// proc, sysfs and /dev. Returns what went wrong, for a console that can only be opened afterwards.
pub fn first() -> Vec<String> {
    let mut problems = Vec::new();
    mount_all(&FIRST, &mut problems);
    problems
}

/// All the others; `/` becomes read-only unless `kiln.root=rw`.
pub fn rest(cmdline: &Cmdline) -> Vec<String> {
    let mut problems = Vec::new();
    for (target, link) in DEVICE_LINKS {
        note(&mut problems, link, symlink(target, link).or_else(|e| exists(&e).then_some(()).ok_or(e)));
    }
    mount_all(&DEVICES, &mut problems);
    for (_, target, options) in MEMORY {
        note(&mut problems, target, mount_keeping_files(Path::new(target), options));
    }
    for folder in VAR_FOLDERS {
        let mode = if folder == "tmp" { 0o1777 } else { 0o755 };
        let path = format!("/var/{folder}");
        note(&mut problems, &path, make_folder(Path::new(&path), mode));
    }
    // Folders of the same names may come from the image.
    let _ = symlink("/run", "/var/run");
    for (kind, target, options) in IF_THERE {
        // A folder without its file system is common, and a kernel without it nothing to worry about.
        if Path::new(target).is_dir() {
            let _ = mount(kind, kind, Path::new(target), &Options::parse([options]));
        }
    }
    let cgroups =
        if cmdline.value("linuxkit.unified_cgroup_hierarchy") == Some("0") { cgroups_v1() } else { cgroups_v2() };
    note(&mut problems, CGROUPS, cgroups);
    if cmdline.value("kiln.root") != Some("rw") {
        note(&mut problems, "/", root_read_only());
    }
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    note(&mut problems, "/", rustix::mount::mount_change("/", shared).map_err(io::Error::from));
    problems
}

fn mount_all(entries: &[Entry], problems: &mut Vec<String>) {
    for (kind, target, options) in entries {
        let result = make_folder(Path::new(target), 0o755).and_then(|()| {
            match rustix::mount::mount(*kind, *target, *kind, flags(options), data(options).as_deref()) {
                // The kernel has mounted it already.
                Err(rustix::io::Errno::BUSY) => Ok(()),
                result => Ok(result?),
            }
        });
        note(problems, target, result);
    }
}

fn flags(options: &str) -> MountFlags {
    Options::parse([options]).flags
}

fn data(options: &str) -> Option<std::ffi::CString> {
    std::ffi::CString::new(Options::parse([options]).data).ok().filter(|data| !data.is_empty())
}

fn note<E: Into<io::Error>>(problems: &mut Vec<String>, target: &str, result: Result<(), E>) {
    if let Err(error) = result {
        problems.push(format!("cannot set up `{target}`: {}", error.into()));
    }
}

fn exists(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AlreadyExists
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(mode).create(path)?;
    // The umask does not apply to what everybody may write.
    rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(mode))?;
    Ok(())
}

fn cgroups_v2() -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(rustix::mount::mount("cgroup2", CGROUPS, "cgroup2", flags, c"nsdelegate,memory_recursiveprot")
        .or_else(|_| rustix::mount::mount("cgroup2", CGROUPS, "cgroup2", flags, None))?)
}

fn cgroups_v1() -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("cgroup_root", CGROUPS, "tmpfs", flags, c"mode=755,size=10m")?;
    let hierarchy = |name: &str, data: &str| -> io::Result<()> {
        let path = Path::new(CGROUPS).join(name);
        make_folder(&path, 0o755)?;
        let data = std::ffi::CString::new(data).map_err(io::Error::other)?;
        if let Err(errno) = rustix::mount::mount("cgroup", &path, "cgroup", flags, data.as_c_str()) {
            fs::remove_dir(&path)?;
            return Err(errno.into());
        }
        Ok(())
    };
    for controller in v1_controllers(&fs::read_to_string("/proc/cgroups")?) {
        hierarchy(controller, controller)?;
    }
    hierarchy("systemd", "none,name=systemd")
}

/// Names of the enabled controllers in `/proc/cgroups`.
fn v1_controllers(table: &str) -> impl Iterator<Item = &str> {
    table.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let name = words.next()?;
        (words.next_back()? == "1").then_some(name)
    })
}

fn root_read_only() -> io::Result<()> {
    // In memory only this mount becomes read-only, so that what is below /var, /run and /tmp can be bound writable.
    let bind = if storage(Path::new("/")) == Storage::Other { MountFlags::empty() } else { MountFlags::BIND };
    Ok(rustix::mount::mount_remount("/", bind | MountFlags::RDONLY, c"")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_enabled_controllers_are_mounted() {
        let table = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t0\t1\t1\nmemory\t0\t1\t0\nbroken\n";
        assert_eq!(v1_controllers(table).collect::<Vec<_>>(), ["cpuset"]);
    }
}
