//! One block after another, packed on its own as Linux unpacks it.

use std::io;

use flate2::{Compress, FlushCompress, Status};
use liblzma::stream::{Action, Check, Filters, LzmaOptions, Stream};

use super::compression::{Compression, Compressor};

/// In front of lengths of data blocks: it stands there as it is.
const AS_IT_IS: u32 = 1 << 24;

/// Smallest dictionary that the xz format knows.
const LEAST_DICTIONARY_BYTES: u32 = 4096;

/// The hands of one thread.
pub(super) struct Packer {
    method: Method,
    /// Where a block goes before it is known whether it got any shorter.
    packed: Vec<u8>,
}

enum Method {
    Gzip(Compress),
    Xz(Filters),
    Lz4(Box<lz4_flex::block::CompressTable>),
    Zstd(zstd::bulk::Compressor<'static>),
    None,
}

/// How a block stands in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) len_bytes: u32,
    pub(super) is_packed: bool,
}

impl Stored {
    /// As block lists and fragment tables tell it.
    pub(super) fn word(self) -> u32 {
        self.len_bytes | if self.is_packed { 0 } else { AS_IT_IS }
    }
}

impl Packer {
    /// Packs blocks of at most `block_bytes`.
    pub(super) fn new(compression: Compression, block_bytes: u32) -> io::Result<Self> {
        let level = compression.level();
        let method = match compression.compressor() {
            Compressor::Gzip => Method::Gzip(Compress::new(flate2::Compression::new(level), true)),
            Compressor::Xz => {
                let mut options = LzmaOptions::new_preset(level).map_err(io::Error::other)?;
                options.dict_size(block_bytes.max(LEAST_DICTIONARY_BYTES));
                let mut filters = Filters::new();
                filters.lzma2(&options);
                Method::Xz(filters)
            }
            // Always the large one: what a table makes of a short block must not depend on the blocks before it.
            Compressor::Lz4 => Method::Lz4(Box::new(lz4_flex::block::CompressTable::large())),
            Compressor::Zstd => Method::Zstd(zstd::bulk::Compressor::new(level.try_into().map_err(io::Error::other)?)?),
            Compressor::None => Method::None,
        };
        Ok(Self { method, packed: Vec::new() })
    }

    /// Appends `plain`, packed if that makes it shorter.
    pub(super) fn pack(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<Stored> {
        // It must get shorter by a byte at least; whoever needs more room need not go on.
        let most = plain.len().saturating_sub(1);
        self.packed.resize(most, 0);
        let packed_len = match &mut self.method {
            Method::Gzip(deflate) => gzip(deflate, plain, &mut self.packed)?,
            Method::Xz(filters) => xz(filters, plain, &mut self.packed)?,
            Method::Lz4(table) => lz4(table, plain, &mut self.packed),
            Method::Zstd(zstd) => {
                self.packed.resize(zstd::zstd_safe::compress_bound(plain.len()), 0);
                Some(zstd.compress_to_buffer(plain, &mut self.packed[..])?).filter(|&len| len <= most)
            }
            Method::None => None,
        };
        let bytes = packed_len.and_then(|len| self.packed.get(..len));
        let (bytes, is_packed) = bytes.map_or((plain, false), |packed| (packed, true));
        out.extend_from_slice(bytes);
        Ok(Stored { len_bytes: u32::try_from(bytes.len()).map_err(io::Error::other)?, is_packed })
    }
}

fn gzip(deflate: &mut Compress, plain: &[u8], out: &mut [u8]) -> io::Result<Option<usize>> {
    deflate.reset();
    let status = deflate.compress(plain, out, FlushCompress::Finish).map_err(io::Error::other)?;
    Ok((status == Status::StreamEnd).then(|| usize::try_from(deflate.total_out()).unwrap_or(usize::MAX)))
}

fn xz(filters: &Filters, plain: &[u8], out: &mut [u8]) -> io::Result<Option<usize>> {
    let mut stream = Stream::new_stream_encoder(filters, Check::Crc32).map_err(io::Error::other)?;
    match stream.process(plain, out, Action::Finish) {
        Ok(liblzma::stream::Status::StreamEnd) => Ok(usize::try_from(stream.total_out()).ok()),
        Ok(_) => Ok(None),
        Err(error) => Err(io::Error::other(error)),
    }
}

fn lz4(table: &mut lz4_flex::block::CompressTable, plain: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    // The library wants room for the worst case.
    out.resize(lz4_flex::block::get_maximum_output_size(plain.len()), 0);
    lz4_flex::block::compress_into_with_table(plain, out, table).ok().filter(|&len| len < plain.len())
}
