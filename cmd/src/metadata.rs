//! `kiln metadata`, and the CD of `kiln run -data`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use kiln_build::metadata::{Metadata, MetadataError};
use kiln_run::config::{Disk, DiskFormat};

use crate::args;
use crate::failure::Failure;

/// The CD's file in the state folder.
const FILE: &str = "data.iso";

/// Writes an image.
pub fn metadata(asked: &args::Metadata) -> Result<(), Failure> {
    let args::Metadata::Create(asked) = asked;
    let Some(found) = found(asked.text.as_deref(), asked.file.as_deref())? else {
        return Err(Failure::usage("a metadata CD needs a text or `--file FILE`"));
    };
    write(&asked.image, &found.iso()?)
        .map_err(|error| Failure::new(format!("cannot write `{}`: {error}", asked.image.display())))
}

/// The disk by which a machine is told of itself, if it is told anything.
pub fn cd(asked: &args::Data, state_dir: &Path) -> Result<Option<Disk>, Failure> {
    let Some(found) = found(asked.data.as_deref(), asked.data_file.as_deref())? else { return Ok(None) };
    Ok(Some(Disk {
        format: Some(DiskFormat::Raw),
        read_only: true,
        contents: Some(Arc::from(found.iso()?)),
        ..Disk::of(state_dir.join(FILE))
    }))
}

fn found(text: Option<&str>, file: Option<&Path>) -> Result<Option<Metadata>, MetadataError> {
    match (text, file) {
        (Some(text), _) => Metadata::of_data(text.as_bytes()).map(Some),
        (None, Some(file)) => Metadata::read(file).map(Some),
        (None, None) => Ok(None),
    }
}

/// Puts a file in place, or nothing.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut unfinished = OsString::from(path);
    unfinished.push(format!(".{}", std::process::id()));
    let unfinished = Path::new(&unfinished);
    let written = File::create_new(unfinished).and_then(|mut file| {
        file.write_all(bytes)?;
        std::fs::rename(unfinished, path)
    });
    if written.is_err() {
        // The first error is the one to tell.
        let _left_behind = std::fs::remove_file(unfinished);
    }
    written
}
