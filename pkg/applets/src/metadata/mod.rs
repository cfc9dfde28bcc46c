//! `metadata [PROVIDER…]`: what somebody outside wants this machine to know. Finds it on a disk or CD (or in a file, or asks a
//! cloud for it), and lays it out below `/run/config`, where other containers find it.
//!
//! `disc` and `cloud` find, `cloud_config` and `tree` read, `apply` writes. All of it is somebody else's data: sizes, depths and
//! counts are limited, and nothing leaves `/run/config` but what `write_files` asks for.

mod apply;
mod cloud;
mod cloud_config;
mod disc;
mod encoding;
mod fat;
mod files;
mod http;
mod iso;
mod multipart;
mod place;
mod tree;
mod yaml;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use kiln_guest::block::Devices;

use crate::arguments::WrongUse;
use crate::{Failure, Voice};

use apply::Places;
use cloud::Cloud;

/// What it takes.
pub const USAGE: &str = "[cdrom | file=PATH | aws | gcp | openstack | hetzner | digitalocean | vultr | metaldata]…";

/// Most user data. Clouds have 64 KiB at most.
const DATA_LIMIT_BYTES: u64 = 16 << 20;
/// Where LinuxKit's program knows a provider that this one does not.
const NOT_HERE: [&str; 5] = ["azure", "equinixmetal", "packet", "scaleway", "vmware"];

/// Why there is no metadata, or not all of it is done.
#[derive(Debug, thiserror::Error)]
enum MetadataError {
    #[error("cannot read `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` is longer than {DATA_LIMIT_BYTES} bytes", .0.display())]
    Long(PathBuf),
    #[error("{0} of the things that were asked for are not done")]
    Partly(usize),
}

/// Who has the data.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Provider {
    Disc,
    File(PathBuf),
    Cloud(&'static Cloud),
    /// One of LinuxKit's.
    NotHere(String),
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// Who had it, as `/run/config/provider` tells.
    provider: String,
    user_data: Option<Vec<u8>>,
    host_name: Option<String>,
    keys: Vec<String>,
}

/// Runs the program. That there is no metadata is no failure.
///
/// # Errors
/// What is there cannot be read, or something that it asks for cannot be done.
pub fn run(arguments: &[String], say: Voice<'_>) -> Result<(), Failure> {
    let providers = providers(arguments)?;
    let Some(found) = find(&providers, &Devices::of_machine(), say).map_err(Failure::of)? else {
        say("no metadata and no user data");
        return Ok(());
    };
    say(&format!("from {}", found.provider));
    let failed = apply::apply(&found, &Places::of_machine(), say);
    if failed > 0 { Err(Failure::of(MetadataError::Partly(failed))) } else { Ok(()) }
}

fn providers(arguments: &[String]) -> Result<Vec<Provider>, WrongUse> {
    if arguments.is_empty() {
        return Ok(vec![Provider::Disc]);
    }
    let provider = |word: &String| {
        if let Some(path) = word.strip_prefix("file=") {
            return Ok(Provider::File(path.into()));
        }
        if let Some(cloud) = cloud::CLOUDS.iter().find(|cloud| cloud.word == word) {
            return Ok(Provider::Cloud(cloud));
        }
        match word.as_str() {
            "cdrom" => Ok(Provider::Disc),
            word if NOT_HERE.contains(&word) => Ok(Provider::NotHere(word.to_owned())),
            _ => Err(WrongUse::Unknown(word.clone())),
        }
    };
    arguments.iter().map(provider).collect()
}

/// Lays user data out as [`run`] does, in a machine whose root is `root` and which is not named. Gives how many things that are
/// asked for are not done.
pub fn lay_out(user_data: &[u8], root: &Path, say: Voice<'_>) -> usize {
    let found = Found { provider: "FILE".into(), user_data: Some(user_data.to_vec()), ..Found::default() };
    apply::apply(&found, &Places::below(root), say)
}

/// The user data of a disc that a machine may be given, if it has any.
pub fn of_disc(disc: File, say: Voice<'_>) -> Option<Vec<u8>> {
    disc::look(Path::new("disc"), disc, say)?.user_data
}

/// The first provider that has something.
fn find(providers: &[Provider], devices: &Devices, say: Voice<'_>) -> Result<Option<Found>, MetadataError> {
    for provider in providers {
        let found = match provider {
            Provider::Disc => disc::find(devices, say),
            Provider::File(path) => Some(file(path)?),
            Provider::Cloud(cloud) => cloud.ask(say),
            Provider::NotHere(word) => {
                say(&format!("provider `{word}` is passed over: this program does not have it"));
                None
            }
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn file(path: &Path) -> Result<Found, MetadataError> {
    let read = |source| MetadataError::Read { path: path.to_owned(), source };
    let mut data = vec![];
    File::open(path).map_err(read)?.take(DATA_LIMIT_BYTES + 1).read_to_end(&mut data).map_err(read)?;
    if data.len() > usize::try_from(DATA_LIMIT_BYTES).unwrap_or(usize::MAX) {
        return Err(MetadataError::Long(path.to_owned()));
    }
    Ok(Found { provider: format!("FILE {}", path.display()), user_data: Some(data), ..Found::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Vec<Provider>, WrongUse> {
        providers(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn providers_are_linuxkits_and_without_any_only_discs_are_looked_at() {
        assert_eq!(read(&["cloud"]), Err(WrongUse::Unknown("cloud".into())));
        assert_eq!(read(&[]), Ok(vec![Provider::Disc]));
        let all = ["aws", "gcp", "hetzner", "openstack", "scaleway", "vultr", "digitalocean", "equinixmetal"];
        assert_eq!(read(&all).unwrap().len(), all.len());
        let rest = read(&["metaldata", "vmware", "file=/a=b"]).unwrap();
        assert_eq!(rest[1..], [Provider::NotHere("vmware".into()), Provider::File("/a=b".into())]);
    }

    #[test]
    fn a_file_that_is_not_there_is_named_and_one_that_is_there_read() {
        let nothing = Devices::of_machine();
        let missing = [Provider::NotHere("azure".into()), Provider::File("/no/such/file".into())];
        let error = find(&missing, &nothing, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("/no/such/file"), "{error}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hello").unwrap();
        let found = find(&[Provider::File(file.path().into())], &nothing, &mut |_| {}).unwrap().unwrap();
        assert_eq!(found.user_data.as_deref(), Some(&b"hello"[..]));
    }
}
