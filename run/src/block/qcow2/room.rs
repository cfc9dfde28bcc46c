//! Gives the room of clusters that hold nothing any more back to the host. The crate frees them in the image, for later data; the
//! file stays as large as it was.

use std::io;

use imago::Mapping;

use super::Layer;
use crate::block::HostFile;

/// Data that was in the image's own file.
#[derive(Debug)]
pub(super) struct Piece {
    file: HostFile,
    /// Where in the file, in bytes.
    at: u64,
    /// Where on the disk.
    offset: u64,
    len: u64,
}

/// The data of a range that is in the image's own file, and that nothing else has.
pub(super) fn pieces(layer: &Layer, offset: u64, len: u64) -> io::Result<Vec<Piece>> {
    let mut pieces = vec![];
    let mut done = 0;
    while done < len {
        let (mapping, found) = layer.get_mapping(offset + done, len - done)?;
        let len = found.min(len - done);
        if len == 0 {
            break;
        }
        if let Mapping::Raw { storage, offset: at, writable: true, .. } = mapping {
            pieces.push(Piece { file: storage.file().clone(), at, offset: offset + done, len });
        }
        done += len;
    }
    Ok(pieces)
}

/// Gives back what of the pieces the disk does not have there any more. Nobody may have freed clusters in between, and so given
/// them to others.
pub(super) fn give_back(layer: &Layer, pieces: &[Piece]) -> io::Result<()> {
    for Piece { file, at, offset, len } in pieces {
        let mut done = 0;
        while done < *len {
            let (mapping, found) = layer.get_mapping(offset + done, len - done)?;
            let count = found.min(len - done);
            if count == 0 {
                break;
            }
            if !matches!(mapping, Mapping::Raw { .. }) {
                match file.punch(at + done, count) {
                    Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(()),
                    result => result?,
                }
            }
            done += count;
        }
    }
    Ok(())
}
