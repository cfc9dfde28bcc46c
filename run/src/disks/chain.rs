//! What an image is an overlay of, down to the last file. A name in an image is followed only where the user has named the
//! same file.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::block::{Qcow2Error, Qcow2Header};
use crate::config::{Disk, DiskFormat};

/// Most files below one another.
const MAX_FILES: usize = 16;

/// A file below an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Below {
    pub(crate) path: PathBuf,
    pub(crate) format: DiskFormat,
}

/// Why an image cannot be had with what is below it.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// One of the images.
    #[error("cannot use image `{}`", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Qcow2Error,
    },
    /// The user said nothing of the file below.
    #[error(
        "image `{}` is an overlay of `{}`; add `backing={}` to the disk if that file may be read", path.display(), below.display(), below.display()
    )]
    NotNamed {
        /// The image.
        path: PathBuf,
        /// What it names.
        below: PathBuf,
    },
    /// It does not say how to read the file below.
    #[error(
        "image `{}` does not say which format `{}` below it has; `qemu-img rebase -u -b {} -F raw {}` (or `-F qcow2`) makes it say so",
        path.display(), below.display(), below.display(), path.display()
    )]
    NoFormat {
        /// The image.
        path: PathBuf,
        /// What it names.
        below: PathBuf,
    },
    /// It names a format that is not read.
    #[error("image `{}` has a file of format `{format}` below it; `raw` and `qcow2` are known", path.display())]
    Format {
        /// The image.
        path: PathBuf,
        /// The format.
        format: String,
    },
    /// It names something that is no file.
    #[error("image `{}` names `{}` as what it is an overlay of, which is no file's name", path.display(), below.display())]
    NotAFile {
        /// The image.
        path: PathBuf,
        /// What it names.
        below: PathBuf,
    },
    /// Too many, or in a circle.
    #[error("more than {MAX_FILES} files are below image `{}`, or they are in a circle", path.display())]
    TooDeep {
        /// The uppermost image.
        path: PathBuf,
    },
}

/// The size of the disk in a qcow2 image, and the files below it, the nearest first.
pub(crate) fn of(disk: &Disk) -> Result<(u64, Vec<Below>), ChainError> {
    let allowed: Vec<_> = disk.backing.iter().filter_map(|path| identity(path)).collect();
    let mut files: Vec<Below> = vec![];
    let mut size_bytes = None;
    let mut path = disk.path.clone();
    loop {
        let header =
            Qcow2Header::read_path(&path).map_err(|source| ChainError::Image { path: path.clone(), source })?;
        size_bytes.get_or_insert(header.size_bytes);
        let Some(backing) = header.backing else { break };
        if files.len() == MAX_FILES {
            return Err(ChainError::TooDeep { path: disk.path.clone() });
        }
        let below = beside(&path, &backing.name);
        // QEMU takes a name with a colon in front of the first slash for a protocol's.
        let first = backing.name.to_string_lossy().split('/').next().unwrap_or_default().to_owned();
        if first.contains(':') {
            return Err(ChainError::NotAFile { path, below: backing.name });
        }
        if identity(&below).is_none_or(|file| !allowed.contains(&file)) {
            return Err(ChainError::NotNamed { path, below });
        }
        let format = match backing.format.as_deref() {
            Some("raw") => DiskFormat::Raw,
            Some("qcow2") => DiskFormat::Qcow2,
            Some(other) => return Err(ChainError::Format { path, format: other.into() }),
            None => return Err(ChainError::NoFormat { path, below }),
        };
        files.push(Below { path: below.clone(), format });
        if format == DiskFormat::Raw {
            break;
        }
        path = below;
    }
    Ok((size_bytes.unwrap_or(0), files))
}

/// A name as the image at `path` means it.
fn beside(path: &Path, name: &Path) -> PathBuf {
    path.parent().map_or_else(|| name.to_owned(), |folder| folder.join(name))
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::block::HostFile;

    /// An image over `name`, which need not be there.
    fn overlay(path: &Path, name: &str, format: Option<&str>) {
        let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
        drop(crate::block::new_layer(HostFile::cached(file.try_clone().unwrap()), None, 1 << 20).unwrap());
        let mut extension = vec![];
        if let Some(format) = format {
            extension.extend(0xE279_2ACA_u32.to_be_bytes());
            extension.extend(u32::try_from(format.len()).unwrap().to_be_bytes());
            extension.extend(format.bytes());
            extension.resize(extension.len().next_multiple_of(8), 0);
        }
        extension.extend([0; 8]);
        file.write_all_at(&extension, 104).unwrap();
        file.write_all_at(&4096_u64.to_be_bytes(), 8).unwrap();
        file.write_all_at(&u32::try_from(name.len()).unwrap().to_be_bytes(), 16).unwrap();
        file.write_all_at(name.as_bytes(), 4096).unwrap();
    }

    #[test]
    fn what_an_image_names_is_followed_only_when_its_user_named_it_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("base"), [0; 512]).unwrap();
        overlay(&path("middle"), "base", Some("raw"));
        overlay(&path("top"), path("middle").to_str().unwrap(), Some("qcow2"));
        let of = |backing: &[&str]| {
            of(&Disk { backing: backing.iter().map(|name| path(name)).collect(), ..Disk::of(path("top")) })
        };
        assert!(of(&[]).unwrap_err().to_string().contains("middle` to the disk"));
        assert!(of(&["base"]).unwrap_err().to_string().contains("middle` to the disk"));
        assert!(of(&["middle"]).unwrap_err().to_string().contains("base` to the disk"));
        let (size, files) = of(&["base", "middle"]).unwrap();
        let names = files.iter().map(|file| (file.path.clone(), file.format)).collect::<Vec<_>>();
        assert_eq!(
            (size, names),
            (1 << 20, vec![(path("middle"), DiskFormat::Qcow2), (path("base"), DiskFormat::Raw)])
        );
    }

    #[test]
    fn names_that_lead_nowhere_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("base"), [0; 512]).unwrap();
        for (name, below, format, wanted) in [
            ("a", "a", Some("qcow2"), "in a circle"),
            ("b", "nbd://host/x", Some("raw"), "no file's name"),
            ("c", "json:{}", Some("raw"), "no file's name"),
            ("d", "nowhere", Some("raw"), "to the disk"),
            ("e", "base", None, "which format"),
            ("f", "base", Some("vmdk"), "format `vmdk`"),
        ] {
            overlay(&path(name), below, format);
            let disk = Disk { backing: vec![path(below)], ..Disk::of(path(name)) };
            let error = of(&disk).unwrap_err().to_string();
            assert!(error.contains(wanted), "{name}: {error}");
        }
    }
}
