//! A packed kernel to what is in it: gzip as a whole, or the payload of a bzImage (Linux' `Documentation/arch/x86/boot.rst`),
//! which is packed by gzip, xz, LZMA, LZ4 or zstd.

use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;

use crate::tree::{Body, Spool};

/// Longest unpacked kernel: ten times what distributions have.
const LIMIT_BYTES: u64 = 512 << 20;
/// The legacy LZ4 format's blocks unpack to at most this many bytes.
const LZ4_BLOCK_BYTES: usize = 8 << 20;
/// Memory that xz and LZMA may ask for: kernels use dictionaries of up to 128 MiB.
const XZ_MEMORY_BYTES: u64 = 160 << 20;
/// Largest window of zstd, as a power of two: kernels use 128 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;
/// First version of the boot protocol that tells where the payload is.
const PROTOCOL: u16 = 0x0208;

/// Why a kernel cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum KernelPacking {
    /// Nothing that is known.
    #[error(
        "it is neither gzip nor a bzImage, so it is not compressed in a way that is known; leave out `--decompress-kernel`"
    )]
    Unknown,
    /// A bzImage that is too old.
    #[error("it is a bzImage of boot protocol {}.{:02}; 2.08 is the first that tells where the kernel in it is", .0 >> 8, .0 & 0xff)]
    Protocol(u16),
    /// A bzImage whose payload is packed in another way.
    #[error("it is a bzImage whose payload is compressed in an unknown way; gzip, xz, LZMA, LZ4 and zstd are known")]
    Payload,
    /// It ends too early, or its payload is damaged.
    #[error("it is damaged")]
    Damaged(#[source] io::Error),
    /// Longer than any kernel.
    #[error("it unpacks to more than {LIMIT_BYTES} bytes")]
    TooLong,
    /// The result cannot be kept on disk.
    #[error("there is no room for it")]
    Spool(#[source] io::Error),
}

/// The unpacked kernel. It goes to an unlinked file in `folder`.
pub(super) fn unpacked(kernel: &Body, folder: &Path) -> Result<Body, KernelPacking> {
    let (payload, has_size) = payload(kernel)?;
    let spool = Spool::create(folder).map_err(KernelPacking::Spool)?;
    let mut reader = reader(&payload, has_size)?;
    let mut piece = vec![0; 128 << 10];
    let mut len = 0;
    loop {
        let count = reader.read(&mut piece).map_err(KernelPacking::Damaged)?;
        if count == 0 {
            break;
        }
        len += count as u64;
        if len > LIMIT_BYTES {
            return Err(KernelPacking::TooLong);
        }
        spool.file().write_all(&piece[..count]).map_err(KernelPacking::Spool)?;
    }
    drop(reader);
    Ok(Body::Spooled { spool: Arc::new(spool), start: 0, len })
}

/// What is packed, and whether a bzImage is around it.
fn payload(kernel: &Body) -> Result<(Body, bool), KernelPacking> {
    const HEADER_BYTES: u64 = 0x250;
    let start =
        kernel.slice(0, kernel.len().min(HEADER_BYTES)).and_then(|start| start.read_up_to(HEADER_BYTES).ok()?);
    let start = start.unwrap_or_default();
    if start.starts_with(&[0x1f, 0x8b]) {
        return Ok((kernel.clone(), false));
    }
    let byte = |at: usize| start.get(at).copied().unwrap_or_default();
    let word = |at: usize| u16::from_le_bytes([byte(at), byte(at + 1)]);
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 2)) << 16;
    if word(0x1fe) != 0xaa55 || start.get(0x202..0x206) != Some(b"HdrS") {
        return Err(KernelPacking::Unknown);
    }
    if word(0x206) < PROTOCOL {
        return Err(KernelPacking::Protocol(word(0x206)));
    }
    // Zero sectors of setup code mean four, for history's sake.
    let setup = if byte(0x1f1) == 0 { 4 } else { u64::from(byte(0x1f1)) };
    let offset = (setup + 1) * 512 + long(0x248);
    let ends_early = || KernelPacking::Damaged(io::ErrorKind::UnexpectedEof.into());
    Ok((kernel.slice(offset, long(0x24c)).ok_or_else(ends_early)?, true))
}

fn reader<'a>(payload: &'a Body, in_bzimage: bool) -> Result<Box<dyn Read + 'a>, KernelPacking> {
    let mut magic = [0; 6];
    payload.read_exact_at(&mut magic, 0).map_err(KernelPacking::Damaged)?;
    let packed = BufReader::with_capacity(128 << 10, payload.reader());
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::GzDecoder::new(packed)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] if in_bzimage => {
            let mut decoder = zstd::Decoder::with_buffer(packed).map_err(KernelPacking::Damaged)?.single_frame();
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(KernelPacking::Damaged)?;
            Box::new(decoder)
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_BYTES, 0);
            let stream = stream.map_err(|error| KernelPacking::Damaged(error.into()))?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(packed, stream))
        }
        [0x5d, 0, 0, ..] => {
            let stream = liblzma::stream::Stream::new_lzma_decoder(XZ_MEMORY_BYTES);
            let stream = stream.map_err(|error| KernelPacking::Damaged(error.into()))?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(packed, stream))
        }
        [0x02, 0x21, 0x4c, 0x18, ..] => Box::new(Lz4 { payload, at: 4, block: Vec::new(), given: 0 }),
        _ => return Err(KernelPacking::Payload),
    })
}

/// LZ4's legacy format: after a magic number blocks, each behind its packed length. The kernel's build appends the unpacked
/// length in four bytes.
struct Lz4<'a> {
    payload: &'a Body,
    at: u64,
    block: Vec<u8>,
    given: usize,
}

impl Lz4<'_> {
    fn next_block(&mut self) -> io::Result<bool> {
        if self.payload.len().saturating_sub(self.at) <= 4 {
            return Ok(false);
        }
        let mut len = [0; 4];
        self.payload.read_exact_at(&mut len, self.at)?;
        let len = u64::from(u32::from_le_bytes(len));
        let packed = self.payload.slice(self.at + 4, len).ok_or(io::ErrorKind::UnexpectedEof)?;
        // Data that does not shrink grows by one byte in 255.
        let limit = (LZ4_BLOCK_BYTES + LZ4_BLOCK_BYTES / 255 + 16) as u64;
        let packed = packed.read_up_to(limit)?.ok_or(io::ErrorKind::InvalidData)?;
        self.block.resize(LZ4_BLOCK_BYTES, 0);
        let filled = lz4_flex::block::decompress_into(&packed, &mut self.block).map_err(io::Error::other)?;
        self.block.truncate(filled);
        (self.at, self.given) = (self.at + 4 + len, 0);
        Ok(true)
    }
}

impl Read for Lz4<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.given == self.block.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let count = (&self.block[self.given..]).read(out)?;
        self.given += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> Vec<u8> {
        (0..300_000_u32).flat_map(|word| (word / 7).to_le_bytes()).collect()
    }

    fn with_size(mut packed: Vec<u8>) -> Vec<u8> {
        packed.extend(1_200_000_u32.to_le_bytes());
        packed
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(content).unwrap();
        packer.finish().unwrap()
    }

    fn xz(content: &[u8], stream: liblzma::stream::Stream) -> Vec<u8> {
        let mut packer = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        packer.write_all(content).unwrap();
        with_size(packer.finish().unwrap())
    }

    fn lz4(content: &[u8]) -> Vec<u8> {
        let mut packed = vec![0x02, 0x21, 0x4c, 0x18];
        let block = lz4_flex::block::compress(content);
        packed.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
        packed.extend(block);
        with_size(packed)
    }

    fn payloads() -> Vec<Vec<u8>> {
        let content = content();
        let options = liblzma::stream::LzmaOptions::new_preset(1).unwrap();
        let check = liblzma::stream::Check::Crc32;
        vec![
            gzip(&content),
            xz(&content, liblzma::stream::Stream::new_easy_encoder(1, check).unwrap()),
            xz(&content, liblzma::stream::Stream::new_lzma_encoder(&options).unwrap()),
            lz4(&content),
            with_size(zstd::encode_all(&content[..], 1).unwrap()),
        ]
    }

    fn bzimage(payload: &[u8], protocol: u16) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&protocol.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        [&image[..], &[0; 16], payload, b"tail"].concat()
    }

    fn unpack(kernel: &[u8]) -> Result<Vec<u8>, KernelPacking> {
        let body = unpacked(&Body::Inline(kernel.into()), &std::env::temp_dir())?;
        Ok(body.read_up_to(u64::MAX).unwrap().unwrap())
    }

    #[test]
    fn what_is_not_packed_or_is_damaged_is_refused() {
        assert!(matches!(unpack(b"FAKE-KERNEL"), Err(KernelPacking::Unknown)));
        assert!(matches!(unpack(b""), Err(KernelPacking::Unknown)));
        assert!(matches!(unpack(&bzimage(&gzip(b"x"), 0x207)), Err(KernelPacking::Protocol(0x207))));
        assert!(matches!(unpack(&bzimage(b"BZh9 or so", 0x208)), Err(KernelPacking::Payload)));
        assert!(matches!(unpack(&bzimage(&gzip(b"x"), 0x208)[..0x260]), Err(KernelPacking::Damaged(_))));
        for payload in payloads() {
            let cut = bzimage(&payload[..payload.len() / 2], 0x20f);
            assert!(matches!(unpack(&cut), Err(KernelPacking::Damaged(_))), "{:x?}", &payload[..6]);
        }
    }

    #[test]
    fn every_packing_gives_the_kernel_back() {
        assert!(unpack(&gzip(&content())).unwrap() == content());
        for payload in payloads() {
            assert!(unpack(&bzimage(&payload, 0x20f)).unwrap() == content(), "{:x?}", &payload[..6]);
        }
    }
}
