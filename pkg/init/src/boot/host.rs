//! What makes the machine a host: limits, name, loopback, the file that resolvers read.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use kiln_guest::netlink::{LinkError, Links};
use rustix::process::{Resource, Rlimit, setrlimit};

const OPEN_FILES: u64 = 1_048_576;
const ETH0_ADDRESS: &str = "/sys/class/net/eth0/address";

/// Release of the running kernel, as in `/lib/modules/RELEASE`.
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Limits, module helper, Ctrl-Alt-Del, resolv.conf. Returns what went wrong.
pub fn set_up() -> Vec<String> {
    let mut problems = Vec::new();
    let mut note = |what: &str, result: io::Result<()>| {
        if let Err(error) = result {
            problems.push(format!("cannot {what}: {error}"));
        }
    };
    let files = Rlimit { current: Some(OPEN_FILES), maximum: Some(OPEN_FILES) };
    note("raise the limit of open files", setrlimit(Resource::Nofile, files).map_err(Into::into));
    let processes = Rlimit { current: None, maximum: None };
    note("raise the limit of processes", setrlimit(Resource::Nproc, processes).map_err(Into::into));
    note("take over Ctrl-Alt-Del", kiln_guest::power::deliver_ctrl_alt_del());
    note("make the folder of the machine's state", fs::create_dir_all(kiln_abi::RUN_DIR));
    note("become the kernel's module loader", become_modprobe());
    note("make the target of `/etc/resolv.conf`", resolv_conf(Path::new("/etc/resolv.conf")));
    problems
}

/// The kernel asks for file systems, protocols and ciphers by running a program named modprobe.
fn become_modprobe() -> io::Result<()> {
    let link = format!("{}/modprobe", kiln_abi::RUN_DIR);
    std::os::unix::fs::symlink(fs::read_link("/proc/self/exe")?, &link)?;
    match fs::write("/proc/sys/kernel/modprobe", &link) {
        // A kernel without modules.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// If `/etc/resolv.conf` is a link, its target is made, empty, so that it can be bound into containers.
fn resolv_conf(link: &Path) -> io::Result<()> {
    let Ok(target) = fs::read_link(link) else { return Ok(()) };
    let target = normal(&link.parent().unwrap_or(Path::new("/")).join(target));
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder)?;
    }
    match fs::File::create_new(target) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn normal(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            component => clean.push(component),
        }
    }
    clean
}

/// Sets the loopback interface up.
///
/// # Errors
/// The kernel's.
pub fn loopback_up() -> Result<(), LinkError> {
    Links::open()?.up("lo")
}

/// Names the machine by `/etc/hostname`, else after the first network card.
pub fn set_name() {
    let file = fs::read_to_string("/etc/hostname").ok();
    let address = fs::read_to_string(ETH0_ADDRESS).ok();
    // A name that the kernel does not take leaves its own.
    let _ = rustix::system::sethostname(name(file.as_deref(), address.as_deref()).as_bytes());
}

fn name(file: Option<&str>, eth0_address: Option<&str>) -> String {
    let given =
        file.and_then(|text| text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')));
    match (given, eth0_address) {
        (Some(name), _) => name.to_owned(),
        (None, Some(address)) => format!("linuxkit-{}", address.trim().replace(':', "")),
        (None, None) => "kiln".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_hostname_file_gives_no_name() {
        assert_eq!(name(Some(" \n# x\n"), Some("52:54:00:12:34:56\n")), "linuxkit-525400123456");
        assert_eq!(name(None, None), "kiln");
        assert_eq!(name(Some("\nbox\n"), None), "box");
    }

    #[test]
    fn a_link_that_leads_upwards_ends_at_the_root() {
        assert_eq!(normal(Path::new("/etc/../../run/./a")), Path::new("/run/a"));
    }

    #[test]
    fn the_target_of_a_link_is_made_and_a_file_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("resolv.conf");
        std::os::unix::fs::symlink(folder.path().join("run/deep/resolv.conf"), &link).unwrap();
        resolv_conf(&link).unwrap();
        resolv_conf(&link).unwrap();
        assert_eq!(fs::read_to_string(&link).unwrap(), "");
    }
}
