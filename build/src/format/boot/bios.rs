//! The boot loader for BIOS firmware: a boot record, and a second stage that is also the boot image of a CD. It knows by
//! numbers where kernel and initrd are, and starts Linux by its boot protocol (Linux' `Documentation/arch/x86/boot.rst`).

use super::{BootError, cmdline, head, stranger};
use crate::format::FormatError;
use crate::tree::Body;

const FIRMWARE: &str = "a BIOS";
const WANTS: &str = "it has to be a bzImage";

const RECORD: &[u8; RECORD_BYTES] = include_bytes!("code/mbr.bin");
const STAGE: &[u8; STAGE_BYTES] = include_bytes!("code/bios.bin");

const RECORD_BYTES: usize = 440;
const STAGE_BYTES: usize = 2048;

/// Where the record has the number of the second stage's first block, with eight bytes.
const RECORD_LBA: usize = RECORD_BYTES - 8;

/// Where the second stage has its table: nine numbers and a text.
const TABLE: usize = STAGE_BYTES - 100;
const TEXT_BYTES: usize = 64;

/// What the second stage takes on disk: itself and the command line.
const BODY_BYTES: usize = STAGE_BYTES + 2048;

/// Where the kernel's file goes.
const HIGH: u64 = 0x10_0000;

/// Version of the boot protocol that tells how much memory the kernel takes: Linux 2.6.31.
const PROTOCOL: u16 = 0x020a;

/// What a BIOS loads. The numbers of blocks are of 512 bytes, also on a CD, where they are multiples of four.
#[derive(Debug, Clone)]
pub struct BiosFiles<'a> {
    /// A bzImage.
    pub kernel: Body,
    /// Where the kernel is: its first block.
    pub kernel_lba: u32,
    /// Where the initrd is, its first block, and its length in bytes.
    pub initrd: Option<(u32, u64)>,
    /// Kernel command line; white space around it is left out.
    pub cmdline: &'a [u8],
}

/// The loader of one image.
#[derive(Debug, Clone)]
pub struct Loader {
    lba: u32,
    body: Vec<u8>,
}

impl Loader {
    /// Blocks of 512 bytes that [`body`](Self::body) takes.
    pub const BODY_BLOCKS: u32 = 8;

    /// How many blocks of 512 bytes of the body the boot catalog of a CD names as those to load.
    pub const CATALOG_BLOCKS: u16 = 4;

    /// A loader of which the second stage stands at block `lba`.
    ///
    /// # Errors
    /// [`FormatError::Boot`] says why this kernel, command line or initrd cannot be started so.
    pub fn at(lba: u32, files: &BiosFiles<'_>) -> Result<Self, FormatError> {
        let head = head(&files.kernel)?;
        let kernel = BiosKernel::parse(&head, files.kernel.len())?;
        let table = kernel.table(lba, files)?;
        let line = cmdline(files.cmdline)?;
        if line.len() as u64 > kernel.cmdline_bytes {
            let (len_bytes, limit_bytes) = (line.len() as u64, kernel.cmdline_bytes);
            return Err(BootError::LongCmdline { len_bytes, limit_bytes }.into());
        }
        let mut body = STAGE[..TABLE].to_vec();
        body.extend(table);
        body.resize(STAGE_BYTES, 0);
        body.extend(line);
        body.resize(BODY_BYTES, 0);
        Ok(Self { lba, body })
    }

    /// What stands in front of the partition table in a disk's first block.
    pub fn boot_record(&self) -> [u8; 440] {
        let mut record = *RECORD;
        record[RECORD_LBA..].copy_from_slice(&u64::from(self.lba).to_le_bytes());
        record
    }

    /// The second stage, 4096 bytes; also the boot image (El Torito, no emulation) of a CD.
    pub fn body(&self) -> Vec<u8> {
        self.body.clone()
    }
}

/// What a bzImage says about itself.
#[derive(Debug)]
struct BiosKernel {
    /// Its real mode code.
    setup_bytes: u32,
    /// End of the memory that it takes, its file included.
    end: u64,
    /// End of the memory where it finds an initrd.
    initrd_limit: u64,
    /// Longest command line, without the zero byte behind it.
    cmdline_bytes: u64,
}

impl BiosKernel {
    fn parse(head: &[u8], len_bytes: u64) -> Result<Self, BootError> {
        const LOADED_HIGH: u8 = 1;
        /// Kernels take less than a hundredth of it; more could not be loaded below 4 GiB.
        const LIMIT_BYTES: u64 = 1 << 30;
        let byte = |at: usize| head.get(at).copied().unwrap_or_default();
        let word = |at: usize| u16::from_le_bytes([byte(at), byte(at + 1)]);
        let long = |at: usize| u32::from_le_bytes([byte(at), byte(at + 1), byte(at + 2), byte(at + 3)]);
        if word(0x1fe) != 0xaa55 || head.get(0x202..0x206) != Some(b"HdrS") {
            return Err(stranger(head, FIRMWARE, WANTS));
        }
        if word(0x206) < PROTOCOL || byte(0x211) & LOADED_HIGH == 0 {
            return Err(BootError::TooOld { firmware: FIRMWARE, needed: "Linux 2.6.31" });
        }
        // Zero sectors of setup code mean four, for history's sake.
        let setup_blocks = if byte(0x1f1) == 0 { 4 } else { u32::from(byte(0x1f1)) };
        let setup_bytes = (setup_blocks + 1) * 512;
        // More would reach into the heap behind it.
        if setup_blocks > 64 || u64::from(setup_bytes) >= len_bytes || len_bytes > LIMIT_BYTES {
            return Err(BootError::Damaged { what: "length" });
        }
        let runs_at = u64::from(long(0x258)) | u64::from(long(0x25c)) << 32;
        let end = runs_at.checked_add(u64::from(long(0x260))).filter(|end| *end <= LIMIT_BYTES);
        let end = end.ok_or(BootError::Damaged { what: "place in memory" })?;
        Ok(Self {
            setup_bytes,
            end: end.max(HIGH + len_bytes).next_multiple_of(4096),
            initrd_limit: (u64::from(long(0x22c)) + 1).min(0xffff_f000),
            cmdline_bytes: long(0x238).into(),
        })
    }

    /// What the second stage knows.
    fn table(&self, lba: u32, files: &BiosFiles<'_>) -> Result<Vec<u8>, BootError> {
        let (initrd_lba, initrd_bytes) = files.initrd.unwrap_or_default();
        let limit_bytes = self.initrd_limit.saturating_sub(self.end) & !0xfff;
        if initrd_bytes > limit_bytes {
            return Err(BootError::LargeInitrd { firmware: FIRMWARE, initrd_bytes, limit_bytes });
        }
        let room = initrd_bytes.next_multiple_of(4096);
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let numbers = [
            files.kernel_lba,
            small(files.kernel.len()),
            self.setup_bytes,
            small(self.end),
            initrd_lba,
            small(initrd_bytes),
            small(room),
            small(self.initrd_limit),
            lba.saturating_add(4),
        ];
        let mut table: Vec<u8> = numbers.into_iter().flat_map(u32::to_le_bytes).collect();
        let needed_mib = (self.end + room).div_ceil(1 << 20) + 1;
        let mut text = format!("\r\nkiln: too little memory: {needed_mib} MiB are needed").into_bytes();
        text.resize(TEXT_BYTES, 0);
        table.extend(text);
        Ok(table)
    }
}
