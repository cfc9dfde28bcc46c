//! Metadata on a block device: any disk, partition or CD whose file system is labelled for it, or else an ISO 9660 image that
//! holds the right files. Nothing is mounted: the few files are read here, so that a hostile disc meets no driver of the
//! kernel's.

use std::fs::File;
use std::io;
use std::path::Path;

use kiln_guest::block::superblock;
use kiln_guest::block::{Device, Devices};
use kiln_guest::host_name;

use crate::Voice;

use super::files::Files;
use super::yaml::{self, Yaml};
use super::{Found, fat, iso};

/// Labels in the order of their worth: cloud-init's NoCloud (in both its spellings), and what `linuxkit metadata create` writes.
const LABELS: [&str; 2] = ["cidata", "config"];

/// The first disc that has something; of several the one with the better label.
pub(super) fn find(devices: &Devices, say: Voice<'_>) -> Option<Found> {
    let mut candidates: Vec<(usize, Device, &'static str)> = devices
        .names()
        .iter()
        .filter_map(|name| {
            let device = devices.open(name)?;
            let found = superblock::read(&device.file).ok().flatten()?;
            let label = found.label.unwrap_or_default().to_ascii_lowercase();
            let worth = LABELS.iter().position(|known| *known == label);
            let worth = worth.or_else(|| (found.kind == "iso9660").then_some(LABELS.len()))?;
            Some((worth, device, found.kind))
        })
        .collect();
    candidates.sort_by_key(|(worth, ..)| *worth);
    candidates.into_iter().find_map(|(_, device, kind)| read_found(&device.path, device.file, kind, say))
}

/// What one disc has, whatever its label.
pub(super) fn look(path: &Path, device: File, say: Voice<'_>) -> Option<Found> {
    let kind = superblock::read(&device).ok().flatten()?.kind;
    read_found(path, device, kind, say)
}

fn read_found(path: &Path, device: File, kind: &str, say: Voice<'_>) -> Option<Found> {
    let path = path.display().to_string();
    match read(device, kind) {
        Ok(files) if files.is_for_us() => Some(found(&path, files, say)),
        Ok(_) => None,
        Err(error) => {
            say(&format!("{path}: {error}"));
            None
        }
    }
}

fn read(device: File, kind: &str) -> io::Result<Files> {
    match kind {
        "iso9660" => iso::read(&device),
        "vfat" => fat::read(device),
        _ => Ok(Files::default()),
    }
}

fn found(path: &str, files: Files, say: Voice<'_>) -> Found {
    let mut found = Found { provider: format!("CDROM {path}"), ..Found::default() };
    found.user_data = files.user_data.or(files.config);
    let meta_data = files.meta_data.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    match yaml::read(&meta_data) {
        Ok(meta) => {
            let name = ["local-hostname", "hostname"].iter().find_map(|key| meta.get(key)?.text());
            found.host_name = name.and_then(|name| host_name::plain(name.as_bytes()));
            found.keys = meta.get("public-keys").map(keys).unwrap_or_default();
        }
        Err(error) => say(&format!("{path}: meta-data: {error}")),
    }
    found
}

/// A list of keys, or a mapping to keys or lists of them.
fn keys(node: &Yaml) -> Vec<String> {
    match node {
        Yaml::Text(text) => text.lines().map(str::to_owned).collect(),
        Yaml::List(items) => items.iter().flat_map(keys).collect(),
        Yaml::Map(entries) => entries.iter().flat_map(|(_, node)| keys(node)).collect(),
        Yaml::Null | Yaml::Binary(_) => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_goes_before_linuxkits_config_and_meta_data_names_the_machine() {
        let files = |user_data: Option<&str>, meta: &str| Files {
            user_data: user_data.map(Into::into),
            meta_data: Some(meta.into()),
            config: Some("config".into()),
        };
        let both = found("/dev/x", files(Some("user"), "local-hostname: web-1\nhostname: other\n"), &mut |_| {});
        assert_eq!((both.user_data.as_deref(), both.host_name.as_deref()), (Some(&b"user"[..]), Some("web-1")));
        let config = found("/dev/x", files(None, "public-keys: {a: [k1, k2], b: {openssh-key: k3}}\n"), &mut |_| {});
        assert_eq!(
            (config.user_data.as_deref(), config.keys),
            (Some(&b"config"[..]), ["k1", "k2", "k3"].map(String::from).into())
        );
        let mut said = vec![];
        let bad = found("/dev/x", files(None, "a: [\nhostname: ../x"), &mut |text| said.push(text.to_owned()));
        assert_eq!((bad.host_name, said.len()), (None, 1));
    }
}
