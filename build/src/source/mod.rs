//! The texts of configurations: files, standard input, URLs, and what they include.

mod url;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::config::{MAX_TEXT_BYTES, YamlSource};

pub use url::UrlFault;

/// What stands for standard input.
const STDIN: &str = "-";

/// Reads the texts of configurations. A text is at most [`MAX_TEXT_BYTES`] long.
#[derive(Debug, Clone, Default)]
pub struct SourceReader {
    /// PEM files with certificates that are trusted besides the system's.
    pub certificates: Vec<PathBuf>,
    /// Nothing is asked over the network.
    pub offline: bool,
    /// What the files that standard input includes are relative to.
    pub working_folder: PathBuf,
}

/// Why there is no text.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be read.
    #[error("cannot read `{name}`")]
    Unreadable {
        /// As the user named it.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is too long.
    #[error("`{0}` is longer than {MAX_TEXT_BYTES} bytes, so it is no configuration")]
    TooLong(String),
    /// It is no text.
    #[error("`{0}` is no UTF-8 text, so it is no configuration")]
    NoText(String),
    /// Nobody gives it out.
    #[error("cannot get `{url}`")]
    Url {
        /// Without a password.
        url: String,
        /// Why not.
        #[source]
        source: UrlFault,
    },
    /// It cannot be relative to what includes it.
    #[error("`{name}` cannot be included from `{from}`; {why}")]
    Include {
        /// As it is written.
        name: String,
        /// Who includes it.
        from: String,
        /// Why not, and what to do.
        why: &'static str,
    },
}

impl SourceReader {
    /// The text of `file`: a path, `-`, or an http or https URL.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub fn read(&self, file: &Path) -> Result<YamlSource, SourceError> {
        let name = file.to_string_lossy().into_owned();
        if url::is_url(&name) {
            return self.fetch(&name);
        }
        let is_stdin = file == Path::new(STDIN);
        let bytes = if is_stdin { up_to_limit(io::stdin().lock()) } else { File::open(file).and_then(up_to_limit) };
        let bytes = bytes.map_err(|source| SourceError::Unreadable { name: name.clone(), source })?;
        let folder = file.parent().filter(|_| !is_stdin);
        let folder = folder.map(|folder| if folder == Path::new("") { Path::new(".") } else { folder }.to_owned());
        text(name, bytes, folder)
    }

    /// The text that `from` includes as `written`: a path relative to its folder, or a URL. What comes from the network
    /// never includes a file of this machine.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub fn include(&self, from: &YamlSource, written: &str) -> Result<YamlSource, SourceError> {
        let refuse = |why| SourceError::Include { name: written.into(), from: from.name.clone(), why };
        if url::is_url(&from.name) {
            let joined = url::joined(&from.name, written);
            return self.fetch(&joined.ok_or_else(|| refuse("use a path relative to it, or an http or https URL"))?);
        }
        if url::is_url(written) {
            return self.fetch(written);
        }
        if written == STDIN || written.is_empty() {
            return Err(refuse("name a file"));
        }
        let folder = from.folder.as_deref().unwrap_or(&self.working_folder);
        let path = folder.join(written);
        self.read(path.strip_prefix(".").unwrap_or(&path))
    }

    fn fetch(&self, url: &str) -> Result<YamlSource, SourceError> {
        let shown = url::without_password(url);
        if self.offline {
            return Err(SourceError::Url { url: shown, source: UrlFault::Offline });
        }
        match url::fetch(url, &self.certificates, MAX_TEXT_BYTES) {
            Ok(bytes) => text(shown, bytes, None),
            Err(source) => Err(SourceError::Url { url: shown, source }),
        }
    }
}

fn up_to_limit(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_TEXT_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn text(name: String, bytes: Vec<u8>, folder: Option<PathBuf>) -> Result<YamlSource, SourceError> {
    if bytes.len() > MAX_TEXT_BYTES {
        return Err(SourceError::TooLong(name));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(YamlSource { name, text, folder }),
        Err(_) => Err(SourceError::NoText(name)),
    }
}

#[cfg(test)]
mod tests;
