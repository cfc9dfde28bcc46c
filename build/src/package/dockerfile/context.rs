//! The folder that a Dockerfile sees: the package's own, or a copy of it with its extra sources and the images that it
//! depends on.

use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Pins;
use super::archive::{Saved, save};
use super::scratch::Scratch;
use crate::oci::{Reference, Store};
use crate::package::error::io_error;
use crate::package::recipe::DockerImages;
use crate::package::{Package, PackageError};
use crate::tree::TreePath;

/// Deeper folders are a loop of links or a mistake.
const DEPTH_LIMIT: usize = 64;
/// Longest `from-file`, in bytes.
const LIST_BYTES_MAX: u64 = 1 << 20;
/// More images in one build context are a mistake.
const IMAGES_MAX: usize = 256;

/// The folder to build in. A copy, in `scratch`, only where something has to be added.
pub(super) fn context(package: &Package, pins: &Pins<'_>, scratch: &Scratch) -> Result<PathBuf, PackageError> {
    let images = package.recipe.depends.as_ref().map(|depends| &depends.docker_images);
    let images = images.filter(|images| **images != DockerImages::default());
    if package.extra_sources.is_empty() && images.is_none() {
        return fs::canonicalize(&package.folder).map_err(|source| io_error("open", &package.folder, source));
    }
    let folder = scratch.folder("context")?;
    copy(&package.folder, &folder, DEPTH_LIMIT)?;
    for source in &package.extra_sources {
        let place = place(&folder, &source.place);
        let parent = place.parent().unwrap_or(&folder);
        fs::create_dir_all(parent).map_err(|source| io_error("make folder", parent, source))?;
        copy(&source.folder, &place, DEPTH_LIMIT)?;
    }
    if let Some(images) = images {
        add_images(package, images, &folder, pins, scratch)?;
    }
    Ok(folder)
}

/// Copies a file, a link or a folder with all in it; what a folder has already stays.
fn copy(from: &Path, to: &Path, depth_left: usize) -> Result<(), PackageError> {
    let failed = |source| io_error("copy", from, source);
    let meta = from.symlink_metadata().map_err(failed)?;
    if meta.is_symlink() {
        let target = fs::read_link(from).map_err(failed)?;
        return std::os::unix::fs::symlink(target, to).map_err(failed);
    }
    if meta.is_file() {
        return fs::copy(from, to).map(drop).map_err(failed);
    }
    if !meta.is_dir() {
        return Err(failed(io::Error::other("it is no file, folder or symbolic link")));
    }
    let too_deep = || failed(io::Error::other(format!("nested deeper than {DEPTH_LIMIT} folders")));
    let depth_left = depth_left.checked_sub(1).ok_or_else(too_deep)?;
    fs::create_dir_all(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        copy(&from.join(&name), &to.join(&name), depth_left)?;
    }
    Ok(())
}

/// `path` of a package, below the folder that has its content.
pub(super) fn place(folder: &Path, path: &TreePath) -> PathBuf {
    path.components().fold(folder.to_owned(), |folder, name| folder.join(std::ffi::OsStr::from_bytes(name)))
}

/// Saves the images that the package depends on, as `docker save` would, to where it wants them.
fn add_images(
    package: &Package,
    images: &DockerImages,
    folder: &Path,
    pins: &Pins<'_>,
    scratch: &Scratch,
) -> Result<(), PackageError> {
    let refuse = |fault: &str| PackageError::Depends { folder: package.folder.clone(), fault: fault.to_owned() };
    let inside = |path: &str| {
        let path = TreePath::from_user(path).ok().filter(|path| *path != TreePath::root());
        path.ok_or_else(|| refuse("its paths are relative to the package, and in it"))
    };
    let names = match (&images.list[..], images.from_file.as_str()) {
        ([_, ..], "") => images.list.clone(),
        ([], file) if !file.is_empty() => listed(&place(folder, &inside(file)?))?,
        _ => return Err(refuse("it wants either `list` or `from-file`")),
    };
    if names.len() > IMAGES_MAX {
        return Err(refuse(&format!("more than {IMAGES_MAX} images are listed")));
    }
    let mut saved = Vec::new();
    for name in &names {
        let reference: Result<Reference, _> = name.parse();
        let reference = reference.ok().filter(|reference| reference.digest().is_some());
        let reference =
            reference.ok_or_else(|| refuse(&format!("`{name}` should end with its digest, `@sha256:…`")))?;
        let place = format!("{}: depends.docker-images", package.folder.display());
        let image = pins.pin(name, &place)?;
        saved.push(Saved { names: tagged(&reference).into_iter().collect(), image, reference });
    }
    match (images.target.as_str(), images.target_dir.as_str()) {
        (target, "") if !target.is_empty() => write(&saved, &place(folder, &inside(target)?), pins.store, scratch),
        ("", target) if !target.is_empty() => {
            let target = place(folder, &inside(target)?);
            if target.exists() {
                fs::remove_dir_all(&target).map_err(|source| io_error("remove", &target, source))?;
            }
            for image in &saved {
                let digest = image.reference.digest().map(|digest| digest.to_string()).unwrap_or_default();
                let name = image.reference.repository().rsplit('/').next().unwrap_or_default();
                let file = target.join(format!("{name}@{digest}.tar"));
                write(std::slice::from_ref(image), &file, pins.store, scratch)?;
            }
            Ok(())
        }
        _ => Err(refuse("it wants either `target` or `target-dir`")),
    }
}

/// A name that Docker can have for it: one with a tag.
fn tagged(reference: &Reference) -> Option<String> {
    let tag = reference.tag()?;
    Some(format!("{}/{}:{tag}", reference.registry(), reference.repository()))
}

fn write(images: &[Saved], path: &Path, store: &Store, scratch: &Scratch) -> Result<(), PackageError> {
    let failed = |source| io_error("write", path, source);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    save(images, store, &scratch.folder("save")?, fs::File::create(path).map_err(failed)?).map_err(failed)
}

/// One image a line; comments begin with `#`.
fn listed(path: &Path) -> Result<Vec<String>, PackageError> {
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(LIST_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|source| io_error("read", path, source))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(String::from).collect())
}
