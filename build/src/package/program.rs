//! Other people's programs: cargo, git, apt-get and depmod. Nothing else of a build starts any.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// How much of a failed program's messages is shown.
const TAIL_LINES: usize = 20;
/// System administrators' programs such as `depmod` are here, and not in everybody's `PATH`.
const SYSTEM_FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// One call of a program.
#[derive(Debug)]
pub(super) struct Program {
    command: Command,
    name: String,
    package: &'static str,
}

/// Why a program gave no result.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It is not installed.
    #[error("program `{name}` is missing; install it, on Debian with `apt-get install {package}`")]
    Missing {
        /// Its name.
        name: String,
        /// Debian's package that has it.
        package: &'static str,
    },
    /// It could not be started.
    #[error("cannot start `{name}`")]
    Start {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It failed.
    #[error("`{call}` failed ({status}){}{tail}", if tail.is_empty() { "" } else { "; it said:\n" })]
    Failed {
        /// The program and its arguments.
        call: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its messages.
        tail: String,
    },
}

impl Program {
    /// `name`, which Debian has in `package`. It speaks English and reads nothing.
    pub fn new(name: impl AsRef<OsStr>, package: &'static str) -> Self {
        let name = name.as_ref();
        let mut command = Command::new(find(name));
        command.env("LC_ALL", "C").stdin(Stdio::null());
        Self { command, name: name.to_string_lossy().into_owned(), package }
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// More arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Takes a variable out of its environment.
    pub fn without_env(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// The folder that it starts in.
    pub fn folder(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Runs it to its end and returns what it wrote to stdout.
    ///
    /// Errors: [`ProgramError`] with the last lines of stderr.
    pub fn run(mut self) -> Result<Vec<u8>, ProgramError> {
        let output = self.command.output().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ProgramError::Missing { name: self.name.clone(), package: self.package },
            _ => ProgramError::Start { name: self.name.clone(), source },
        })?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(ProgramError::Failed { call: self.call(), status: output.status, tail: tail(&output.stderr) })
    }

    fn call(&self) -> String {
        let words: Vec<_> = self.command.get_args().map(|word| word.to_string_lossy()).collect();
        format!("{} {}", self.name, words.join(" ")).trim_end().to_owned()
    }
}

/// The program's path where `PATH` does not lead to it.
fn find(name: &OsStr) -> OsString {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let mut in_path = std::env::split_paths(&folders).map(|folder| folder.join(name));
    if in_path.any(|path| path.is_file()) {
        return name.into();
    }
    let found = SYSTEM_FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
    found.map_or_else(|| name.into(), PathBuf::into_os_string)
}

/// The last lines, with what could move the terminal's cursor replaced.
fn tail(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let shown = lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default().join("\n");
    shown.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_the_package_that_has_it() {
        let error = Program::new("kiln-no-such-program", "kmod").run().unwrap_err();
        assert!(error.to_string().contains("apt-get install kmod"), "{error}");
    }

    #[test]
    fn a_failed_program_shows_its_last_words() {
        let script = "for n in $(seq 50); do printf 'line %s\\033[2J\\n' $n >&2; done; exit 3";
        let error = Program::new("sh", "dash").arg("-c").arg(script).run().unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("line 31\u{fffd}[2J\n"), "{error}");
        assert!(!error.contains("line 30\u{fffd}"), "{error}");
    }

    #[test]
    fn stdout_is_the_result() {
        assert_eq!(Program::new("sh", "dash").args(["-c", "echo $A"]).env("A", "7").run().unwrap(), b"7\n");
    }
}
