//! What Google Cloud imports: a tar packed by gzip that holds one file, `disk.raw`.

use tar::{EntryType, Header};

use crate::format::{Extents, FormatError, Packing, Sink, Watch, gzip};

const BLOCK_BYTES: u64 = 512;

pub(super) fn write(
    disk: &Extents,
    time_s: i64,
    packing: Packing<'_>,
    sink: &mut dyn Sink,
    watch: Watch<'_>,
) -> Result<(), FormatError> {
    // The old GNU format is what the importer asks for; it tells any length.
    let mut header = Header::new_gnu();
    header.set_path("disk.raw")?;
    header.set_entry_type(EntryType::Regular);
    header.set_size(disk.len_bytes());
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(time_s).unwrap_or(0));
    header.set_cksum();
    gzip::compress(sink, packing, |packer| {
        packer.write_all(header.as_bytes())?;
        disk.write(packer, watch)?;
        packer.skip(disk.len_bytes().next_multiple_of(BLOCK_BYTES) - disk.len_bytes() + 2 * BLOCK_BYTES)?;
        Ok::<_, FormatError>(())
    })?;
    Ok(sink.flush()?)
}
