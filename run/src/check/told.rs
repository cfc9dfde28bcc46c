//! What can be wrong with what a guest is told by tables.

use std::fs;
use std::io;
use std::path::PathBuf;

use rustix::fs::{Access, access};

use super::Fault;
use crate::config::Told;

/// One thing that is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum ToldFault {
    /// Strings that no table can hold.
    #[error(
        "a machine has at most {} OEM strings of together {} bytes, not {count} of {bytes}",
        Told::MOST_OEM_STRINGS,
        Told::MOST_OEM_BYTES
    )]
    TooMuch {
        /// How many.
        count: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// A string that would end the list.
    #[error("OEM string {number} is empty or holds a zero byte")]
    Empty {
        /// Which one, from 1.
        number: usize,
    },
    /// A file that cannot be read.
    #[error("cannot read `{}` for Ignition", path.display())]
    Ignition {
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// A file without contents, or with too much.
    #[error("`{}` for Ignition has {bytes} bytes; it is to have 1 to {}", path.display(), Told::MOST_IGNITION_BYTES)]
    IgnitionSize {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
}

pub(super) fn check(told: &Told, faults: &mut Vec<Fault>) {
    let mut add = |fault: ToldFault| faults.push(Fault::Told(fault));
    let strings = &told.oem_strings;
    let bytes = strings.iter().map(String::len).sum();
    if strings.len() > Told::MOST_OEM_STRINGS || bytes > Told::MOST_OEM_BYTES {
        add(ToldFault::TooMuch { count: strings.len(), bytes });
    }
    for (at, string) in strings.iter().enumerate() {
        if string.is_empty() || string.contains('\0') {
            add(ToldFault::Empty { number: at + 1 });
        }
    }
    let Some(path) = &told.ignition else { return };
    let found = fs::metadata(path).and_then(|found| access(path, Access::READ_OK).map(|()| found).map_err(Into::into));
    match found
        .and_then(|found| if found.is_file() { Ok(found.len()) } else { Err(io::ErrorKind::InvalidInput.into()) })
    {
        Err(source) => add(ToldFault::Ignition { path: path.clone(), source }),
        Ok(1..=Told::MOST_IGNITION_BYTES) => {}
        Ok(bytes) => add(ToldFault::IgnitionSize { path: path.clone(), bytes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(told: &Told) -> Vec<String> {
        let mut faults = vec![];
        check(told, &mut faults);
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn strings_that_no_table_holds_and_files_that_are_none_are_refused() {
        let strings = |strings: Vec<String>| Told { oem_strings: strings, ignition: None };
        let file = |path: &str| Told { oem_strings: vec![], ignition: Some(path.into()) };
        for (told, wanted) in [
            (strings(vec!["a".into(); 256]), "not 256 of 256"),
            (strings(vec!["a".repeat(Told::MOST_OEM_BYTES + 1)]), "not 1 of 61441"),
            (strings(vec!["a".into(), String::new()]), "OEM string 2 is empty"),
            (strings(vec!["a\0b".into()]), "OEM string 1 is empty or holds a zero byte"),
            (file("/nowhere"), "cannot read `/nowhere` for Ignition"),
            (file("/"), "cannot read `/` for Ignition"),
            (file("/proc/self/stat"), "has 0 bytes"),
        ] {
            let said = said(&told);
            assert!(said.len() == 1 && said[0].contains(wanted), "{said:?}: no `{wanted}`");
        }
        assert!(said(&strings(vec!["a".into(); 255])).is_empty());
        assert!(said(&file("/etc/passwd")).is_empty());
    }
}
