//! A running containerd's images, by way of its own `ctr`, which knows its store better than anybody could from outside.

use std::io::{self, Read};
use std::process::{Child, Command, Stdio};

use super::files::Files;
use super::{ImportError, Importing};
use crate::oci::{Platform, Reference};

const PROGRAM: &str = "containerd";
/// Shown of what it says.
const WORDS_BYTES_MAX: u64 = 64 << 10;

/// What `ctr images export` writes of an image. `CONTAINERD_ADDRESS` and `CONTAINERD_NAMESPACE` are `ctr`'s to read.
pub fn exported(reference: &Reference, to: &Importing<'_>) -> Result<Files, ImportError> {
    run("ctr", reference, to)
}

fn run(program: &str, reference: &Reference, to: &Importing<'_>) -> Result<Files, ImportError> {
    let failed = |hint: &str, source: io::Error| ImportError::Program {
        program: PROGRAM,
        what: reference.to_string(),
        hint: hint.into(),
        source: source.into(),
    };
    let platform = to.platform.map_or_else(|| Platform::linux("amd64").to_string(), Platform::to_string);
    let mut name = reference.to_string();
    if reference.tag().is_none() && reference.digest().is_none() {
        name.push_str(":latest");
    }
    let mut command = Command::new(program);
    command.args(["images", "export", "--platform", &platform, "-", &name]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = Ended(child.map_err(|source| failed("; is `ctr` installed?", source))?);
    let (output, words) = (child.0.stdout.take(), child.0.stderr.take());
    let said = std::thread::spawn(move || {
        let mut said = Vec::new();
        let read = words.map_or(Ok(0), |words| words.take(WORDS_BYTES_MAX).read_to_end(&mut said));
        read.map(|_| String::from_utf8_lossy(&said).trim().to_owned())
    });
    let mut output = output.ok_or_else(|| failed("", io::ErrorKind::BrokenPipe.into()))?;
    let files = Files::stream(&mut output, to.store, to.cancel, to.meter);
    drop(output);
    if to.cancel.check().is_err() {
        return Err(ImportError::Cancelled);
    }
    let status = child.0.wait().map_err(|source| failed("", source))?;
    let said = said.join().ok().and_then(Result::ok).unwrap_or_default();
    match status.success() {
        true => files.map_err(|fault| to.fault(fault)),
        false if said.contains("not found") => {
            let answer = "; `ctr images ls` lists what it has, CONTAINERD_NAMESPACE says where it looks".into();
            Err(ImportError::NotThere { program: PROGRAM, what: reference.to_string(), answer })
        }
        false => {
            let words: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
            Err(failed("; is it running, and may you use it?", io::Error::other(words)))
        }
    }
}

/// A program that does not outlive its owner.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // An error says that it is gone already.
        let _gone = self.0.kill().and_then(|()| self.0.wait());
    }
}
