//! The program `modprobe`, as the kernel and YAMLs call it: `modprobe -q -- NAME`, `modprobe -a NAME…`.

use super::load::{LoadError, Loader};
use crate::cmdline::Cmdline;

/// What modprobe was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Asked {
    names: Vec<String>,
    parameters: Vec<String>,
    quiet: bool,
}

impl Asked {
    /// Reads its arguments. Without `-a`, `PARAMETER=VALUE` words are for the module in front of them. Other options are passed over.
    #[must_use]
    pub fn read(arguments: &[String]) -> Self {
        let mut asked = Self::default();
        for word in arguments {
            if let Some(option) = word.strip_prefix('-') {
                asked.quiet |= option == "-quiet" || (!option.starts_with('-') && option.contains('q'));
            } else if word.contains('=') && asked.names.len() == 1 {
                asked.parameters.push(word.clone());
            } else {
                asked.names.push(word.clone());
            }
        }
        asked
    }

    /// Whether nobody wants to hear what failed.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Loads what was asked for; gives what failed.
    ///
    /// # Errors
    /// [`LoadError::Index`] when depmod's files cannot be read.
    pub fn load(&self) -> Result<Vec<LoadError>, LoadError> {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let mut loader = Loader::new(&release, &Cmdline::of_kernel());
        if let [name] = self.names.as_slice() {
            for parameter in &self.parameters {
                loader.parameter(name, parameter);
            }
        }
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let unknown = loader.unknown(&names)?;
        let (_, mut failures) = loader.load(&names)?;
        failures.extend(unknown.into_iter().map(|module| LoadError::Unknown { module }));
        Ok(failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Asked {
        Asked::read(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options_names_and_parameters_are_told_apart() {
        let asked = read(&["-q", "--", "fs-ext4"]);
        assert_eq!((asked.names.as_slice(), asked.quiet), (&["fs-ext4".to_owned()][..], true));
        let asked = read(&["--all", "ip_vs", "nf_nat"]);
        assert_eq!((asked.names.len(), asked.quiet), (2, false));
        let asked = read(&["dummy", "numdummies=2"]);
        assert_eq!((asked.names, asked.parameters), (vec!["dummy".to_owned()], vec!["numdummies=2".to_owned()]));
    }
}
