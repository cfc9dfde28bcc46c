//! The modules of the boot initrd, in the order in which the build listed them.

use std::ffi::CString;
use std::fs::File;
use std::io;

use kiln_guest::cmdline::Cmdline;

/// One module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its file.
    pub path: String,
    /// It is of no more use when the root has appeared.
    pub until_root: bool,
}

/// Reads the list of [`kiln_abi::ROOT_MODULES`]. Lines that make no sense are passed over.
pub fn parse(list: &str) -> Vec<Module> {
    let modules = list.lines().filter_map(|line| line.split_once(' '));
    let modules = modules.filter(|(when, path)| ["always", "disk"].contains(when) && path.starts_with('/'));
    modules.map(|(when, path)| Module { path: path.to_owned(), until_root: when == "disk" }).collect()
}

/// The module's name, as the kernel writes it.
fn name(module: &Module) -> &str {
    let file = module.path.rsplit('/').next().unwrap_or_default();
    file.strip_suffix(".ko").unwrap_or(file)
}

/// Loads one, with its parameters from the command line. One that is there already is no error.
///
/// # Errors
/// The kernel's.
pub fn load(module: &Module, cmdline: &Cmdline) -> io::Result<()> {
    let name = name(module);
    let parameters = cmdline.module_parameters().filter(|(of, _)| of.replace('-', "_") == name);
    let parameters: Vec<&str> = parameters.map(|(_, parameter)| parameter).collect();
    let parameters = CString::new(parameters.join(" ")).unwrap_or_default();
    match rustix::system::finit_module(File::open(&module.path)?, &parameters, 0) {
        Err(rustix::io::Errno::EXIST) => Ok(()),
        loaded => Ok(loaded?),
    }
}

/// Whether `modprobe.blacklist=` names it.
pub fn is_blacklisted(module: &Module, cmdline: &Cmdline) -> bool {
    cmdline.list("modprobe.blacklist").any(|named| named.replace('-', "_") == name(module))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_another_kind_are_passed_over() {
        let list = "always /lib/a.ko\nlater /lib/b.ko\ndisk\ndisk c.ko\n\ndisk /lib/d.ko\n";
        let module = |path: &str, until_root| Module { path: path.into(), until_root };
        assert_eq!(parse(list), [module("/lib/a.ko", false), module("/lib/d.ko", true)]);
    }

    #[test]
    fn a_module_on_the_blacklist_is_known_by_either_spelling() {
        let module = &parse("disk /lib/virtio_pci.ko")[0];
        assert!(is_blacklisted(module, &Cmdline::parse("modprobe.blacklist=x,virtio-pci")));
        assert!(!is_blacklisted(module, &Cmdline::parse("modprobe.blacklist=virtio")));
    }
}
