//! The files in the root of a FAT file system, which cloud-init's documentation also allows for its discs.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};

use fatfs::{FileSystem, FsOptions};

use super::DATA_LIMIT_BYTES;
use super::files::Files;

/// Most entries of the root folder that are looked at; a chain of clusters may lead round in a circle.
const ENTRY_LIMIT: usize = 1024;

/// Reads the files that count.
///
/// # Errors
/// The device's, or structures that are damaged.
pub(super) fn read(device: File) -> io::Result<Files> {
    // The library trusts some of what it reads.
    catch_unwind(AssertUnwindSafe(|| inner(device))).unwrap_or_else(|_| Err(io::ErrorKind::InvalidData.into()))
}

fn inner(mut device: File) -> io::Result<Files> {
    device.rewind()?;
    let volume = FileSystem::new(device, FsOptions::new())?;
    let mut files = Files::default();
    for entry in volume.root_dir().iter().take(ENTRY_LIMIT) {
        let entry = entry?;
        let name = entry.file_name().to_ascii_lowercase();
        let Some(slot) = files.slot(&name).filter(|_| entry.is_file()) else { continue };
        if entry.len() > DATA_LIMIT_BYTES {
            let text = format!("`{name}` is longer than {DATA_LIMIT_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let mut data = vec![];
        entry.to_file().take(DATA_LIMIT_BYTES).read_to_end(&mut data)?;
        *slot = Some(data);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    use fatfs::{FormatVolumeOptions, format_volume};

    use super::*;

    fn disk() -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(2 << 20).unwrap();
        format_volume(&file, FormatVolumeOptions::new().volume_label(*b"CIDATA     ")).unwrap();
        (&file).rewind().unwrap();
        let volume = FileSystem::new(&file, FsOptions::new()).unwrap();
        for (name, text) in [("user-data", "#!/bin/sh\n"), ("meta-data", "hostname: x\n"), ("other", "")] {
            volume.root_dir().create_file(name).unwrap().write_all(text.as_bytes()).unwrap();
        }
        drop(volume);
        file
    }

    #[test]
    fn the_files_of_a_cloud_images_disk_are_read() {
        let files = read(disk()).unwrap();
        assert_eq!(files.user_data.as_deref(), Some(&b"#!/bin/sh\n"[..]));
        assert_eq!(files.meta_data.as_deref(), Some(&b"hostname: x\n"[..]));
        assert_eq!(files.config, None);
    }

    #[test]
    fn a_disk_that_lies_ends_with_an_error_or_with_nothing() {
        assert!(read(tempfile::tempfile().unwrap()).is_err());
        for (at, value) in
            [(11, 0_u8), (13, 0), (13, 255), (14, 255), (16, 0), (17, 255), (22, 255), (32, 255), (510, 0)]
        {
            let file = disk();
            file.write_all_at(&[value], at).unwrap();
            let _ = read(file);
        }
    }
}
