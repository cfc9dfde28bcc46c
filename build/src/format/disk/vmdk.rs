//! VMware's *Virtual Disk Format 5.0*, "streamOptimized": what OVF packages and vSphere's import take. Grains of 64 KiB,
//! each packed on its own; one that holds nothing is not there. All numbers are little-endian, in sectors.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::{Disk, SECTOR_BYTES, SECTOR_LEN, units};
use crate::format::in_order::in_order;
use crate::format::{Extents, FormatError, Sink, Threads, Watch};

const GRAIN_SECTORS: u64 = 128;
const GRAIN_BYTES: u64 = GRAIN_SECTORS * SECTOR_BYTES;

/// Grains of one table.
const TABLE_ENTRIES: u32 = 512;

/// Header and descriptor come before this; then grains.
const OVERHEAD_SECTORS: u64 = 128;

/// Room for the descriptor.
const DESCRIPTOR_SECTORS: u64 = 20;

/// Where the directory is, if it is not known yet.
const AT_END: u64 = u64::MAX;

/// As the other packed formats: fast first.
const LEVEL: u32 = 1;

/// Kinds of markers; a grain has none.
const END_OF_STREAM: u32 = 0;
const TABLE: u32 = 1;
const DIRECTORY: u32 = 2;
const FOOTER: u32 = 3;

pub(super) fn write(disk: &Disk, threads: Threads, sink: &mut dyn Sink, watch: Watch<'_>) -> Result<(), FormatError> {
    let capacity = disk.extents.len_bytes() / SECTOR_BYTES;
    let mut stream = Stream { sink, at: 0, table: Vec::new(), table_number: 0, directory: Vec::new() };
    stream.put(&header(capacity, AT_END))?;
    stream.put(descriptor(disk, capacity).as_bytes())?;
    stream.pad_to(OVERHEAD_SECTORS * SECTOR_BYTES)?;
    let grains = units(&disk.extents, GRAIN_BYTES).into_iter().flatten();
    let worker = || |grain| pack(&disk.extents, grain).map(|packed| (grain, packed));
    in_order(threads, grains, worker, |done: io::Result<_>| {
        watch.cancel.check()?;
        let (grain, packed) = done?;
        watch.meter.advance(GRAIN_BYTES);
        Ok::<_, FormatError>(stream.grain(grain, packed)?)
    })?;
    Ok(stream.finish(capacity)?)
}

/// A packed grain; `None` if there are only zeros in it.
fn pack(disk: &Extents, grain: u64) -> io::Result<Option<Vec<u8>>> {
    let mut plain = vec![0; usize::try_from(GRAIN_BYTES).unwrap_or(0)];
    disk.read_at(&mut plain, grain * GRAIN_BYTES)?;
    if plain.iter().all(|&byte| byte == 0) {
        return Ok(None);
    }
    let mut packer = ZlibEncoder::new(Vec::with_capacity(plain.len()), Compression::new(LEVEL));
    packer.write_all(&plain)?;
    packer.finish().map(Some)
}

struct Stream<'a> {
    sink: &'a mut dyn Sink,
    /// Bytes so far.
    at: u64,
    /// Where the grains of the current table are.
    table: Vec<u32>,
    table_number: u64,
    /// Where the tables are.
    directory: Vec<u32>,
}

impl Stream<'_> {
    fn grain(&mut self, grain: u64, packed: Option<Vec<u8>>) -> io::Result<()> {
        let Some(packed) = packed else { return Ok(()) };
        let entries = u64::from(TABLE_ENTRIES);
        while self.table_number < grain / entries {
            self.finish_table()?;
        }
        self.table.resize(usize::try_from(grain % entries).unwrap_or(0), 0);
        self.table.push(self.sector()?);
        let len = u32::try_from(packed.len()).map_err(io::Error::other)?;
        self.put(&(grain * GRAIN_SECTORS).to_le_bytes())?;
        self.put(&len.to_le_bytes())?;
        self.put(&packed)?;
        self.pad()
    }

    fn finish_table(&mut self) -> io::Result<()> {
        let mut table = std::mem::take(&mut self.table);
        let mut place = 0;
        if !table.is_empty() {
            table.resize(TABLE_ENTRIES as usize, 0);
            let bytes = numbers(&table);
            self.marker(bytes.len(), TABLE)?;
            place = self.sector()?;
            self.put(&bytes)?;
        }
        self.directory.push(place);
        self.table_number += 1;
        Ok(())
    }

    fn finish(mut self, capacity: u64) -> io::Result<()> {
        while self.table_number < capacity.div_ceil(GRAIN_SECTORS * u64::from(TABLE_ENTRIES)) {
            self.finish_table()?;
        }
        let mut directory = numbers(&std::mem::take(&mut self.directory));
        directory.resize(directory.len().next_multiple_of(SECTOR_LEN), 0);
        self.marker(directory.len(), DIRECTORY)?;
        let directory_at = self.at / SECTOR_BYTES;
        self.put(&directory)?;
        self.marker(SECTOR_LEN, FOOTER)?;
        self.put(&header(capacity, directory_at))?;
        self.marker(0, END_OF_STREAM)?;
        self.sink.flush()
    }

    /// A sector that tells what follows and how long it is.
    fn marker(&mut self, len_bytes: usize, kind: u32) -> io::Result<()> {
        self.put(&(len_bytes as u64 / SECTOR_BYTES).to_le_bytes())?;
        self.put(&[0; 4])?;
        self.put(&kind.to_le_bytes())?;
        self.pad()
    }

    /// Where the next bytes go.
    fn sector(&self) -> io::Result<u32> {
        u32::try_from(self.at / SECTOR_BYTES).map_err(|_| io::ErrorKind::FileTooLarge.into())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.sink.write_all(bytes)
    }

    fn pad(&mut self) -> io::Result<()> {
        self.pad_to(self.at.next_multiple_of(SECTOR_BYTES))
    }

    fn pad_to(&mut self, end: u64) -> io::Result<()> {
        let zeros = vec![0; usize::try_from(end.saturating_sub(self.at)).unwrap_or(0)];
        self.put(&zeros)
    }
}

fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// The header, which is the footer too.
fn header(capacity: u64, directory_at: u64) -> [u8; 512] {
    /// Line ends can be checked; grains are packed; markers tell what is what.
    const FLAGS: u32 = 1 | 1 << 16 | 1 << 17;
    const DEFLATE: u16 = 1;
    let fields = [
        &b"KDMV"[..],
        &3_u32.to_le_bytes(),
        &FLAGS.to_le_bytes(),
        &capacity.to_le_bytes(),
        &GRAIN_SECTORS.to_le_bytes(),
        &1_u64.to_le_bytes(),
        &DESCRIPTOR_SECTORS.to_le_bytes(),
        &TABLE_ENTRIES.to_le_bytes(),
        // No second directory.
        &0_u64.to_le_bytes(),
        &directory_at.to_le_bytes(),
        &OVERHEAD_SECTORS.to_le_bytes(),
        // Closed as it should be.
        &[0],
        b"\n \r\n",
        &DEFLATE.to_le_bytes(),
    ];
    let mut header = [0; 512];
    for (to, from) in header.iter_mut().zip(fields.concat()) {
        *to = from;
    }
    header
}

/// For a SCSI controller of LSI Logic's, in machines of version 6 and later: what LinuxKit's are for.
fn descriptor(disk: &Disk, capacity: u64) -> String {
    let cid = u32::from_be_bytes(disk.fingerprint.number("VMDK"));
    let cylinders = (capacity / (255 * 63)).clamp(1, 65_535);
    format!(
        "# Disk DescriptorFile
version=1
CID={cid:08x}
parentCID=ffffffff
createType=\"streamOptimized\"

# Extent description
RW {capacity} SPARSE \"disk.vmdk\"

# The Disk Data Base
#DDB

ddb.adapterType = \"lsilogic\"
ddb.geometry.cylinders = \"{cylinders}\"
ddb.geometry.heads = \"255\"
ddb.geometry.sectors = \"63\"
ddb.virtualHWVersion = \"6\"
"
    )
}
