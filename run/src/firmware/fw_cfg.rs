//! The firmware's configuration: named items behind two ports, or copied into memory at once (QEMU's
//! `docs/specs/fw_cfg.rst`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use vm_memory::{Bytes, GuestAddress};

use crate::bus::BusDevice;
use crate::mem::GuestMemory;

const DATA: u64 = 1;
const DMA_HIGH: u64 = 4;
const DMA_LOW: u64 = 8;
/// What the DMA registers read as.
const DMA_SIGNATURE: [u8; 8] = *b"QEMU CFG";

/// Keys of items that have no names.
pub(super) const KERNEL: [u16; 2] = [0x08, 0x11];
pub(super) const INITRD: [u16; 2] = [0x0B, 0x12];
pub(super) const COMMAND_LINE: [u16; 2] = [0x14, 0x15];
pub(super) const SETUP: [u16; 2] = [0x17, 0x18];
const SIGNATURE: u16 = 0x00;
const INTERFACE: u16 = 0x01;
const CPUS: u16 = 0x05;
const BOOT_MENU: u16 = 0x0E;
const MAX_CPUS: u16 = 0x0F;
const DIRECTORY: u16 = 0x19;
/// Keys of files begin here.
const FIRST_FILE: u16 = 0x20;
/// Interface: ports, and DMA.
const INTERFACE_WITH_DMA: u32 = 0b11;
/// Bytes of a file's name with its closing zero.
const NAME_BYTES: usize = 56;

/// Bits of a DMA request's control word; the key is in the upper half.
const FAILED: u32 = 1;
const READ: u32 = 1 << 1;
const SKIP: u32 = 1 << 2;
const SELECT: u32 = 1 << 3;
const WRITE: u32 = 1 << 4;
/// Bytes are copied in pieces of this size.
const PIECE: usize = 64 << 10;

/// Contents of an item.
pub enum Contents {
    /// Known from the start.
    Bytes(Vec<u8>),
    /// Made when firmware asks, of this length in bytes.
    Late(usize, Box<dyn Fn() -> Vec<u8> + Send>),
    /// So many bytes of a file, from an offset on.
    File(File, u64, usize),
}

impl Contents {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Late(len, _) | Self::File(_, _, len) => *len,
        }
    }
}

/// The device.
pub struct FwCfg {
    memory: GuestMemory,
    items: BTreeMap<u16, Contents>,
    /// Contents of the selected item, if it is made late.
    made: Vec<u8>,
    selected: u16,
    at: usize,
    dma_high: u32,
}

impl FwCfg {
    /// The configuration of a machine with `cpus` vCPUs and these files. A name has at most 55 bytes. With
    /// [`super::BOOT_MENU_WAIT_FILE`] among them firmware waits for the key to its menu.
    #[must_use]
    pub fn new(memory: GuestMemory, cpus: u32, files: Vec<(String, Contents)>) -> Self {
        let cpus = u16::try_from(cpus).unwrap_or(u16::MAX).to_le_bytes();
        let has_menu = files.iter().any(|(name, _)| name == super::BOOT_MENU_WAIT_FILE);
        let mut items: BTreeMap<_, _> = [
            (SIGNATURE, b"QEMU".to_vec()),
            (INTERFACE, INTERFACE_WITH_DMA.to_le_bytes().to_vec()),
            (CPUS, cpus.to_vec()),
            (MAX_CPUS, cpus.to_vec()),
            (BOOT_MENU, u16::from(has_menu).to_le_bytes().to_vec()),
            (DIRECTORY, directory(&files)),
        ]
        .map(|(key, bytes)| (key, Contents::Bytes(bytes)))
        .into();
        items.extend((FIRST_FILE..).zip(files.into_iter().map(|(_, contents)| contents)));
        Self { memory, items, made: vec![], selected: SIGNATURE, at: 0, dma_high: 0 }
    }

    /// With an item whose length and contents have these keys.
    #[must_use]
    pub(super) fn with(mut self, [len, contents]: [u16; 2], item: Contents) -> Self {
        let bytes = u32::try_from(item.len()).unwrap_or(u32::MAX).to_le_bytes();
        self.items.insert(len, Contents::Bytes(bytes.into()));
        self.items.insert(contents, item);
        self
    }

    fn select(&mut self, key: u16) {
        self.selected = key;
        self.at = 0;
        self.made = match self.items.get(&key) {
            Some(Contents::Late(len, make)) => {
                let mut made = make();
                made.resize(*len, 0);
                made
            }
            _ => vec![],
        };
    }

    /// The next bytes of the selected item, at most `most`. Behind it there are zeros without end.
    fn next(&self, most: usize) -> io::Result<Cow<'_, [u8]>> {
        let bytes = match self.items.get(&self.selected) {
            Some(Contents::Bytes(bytes)) => bytes.as_slice(),
            Some(Contents::Late(..)) => &self.made,
            Some(Contents::File(file, offset, len)) => {
                let mut bytes = vec![0; most.min(len.saturating_sub(self.at))];
                file.read_exact_at(&mut bytes, offset.saturating_add(self.at as u64))?;
                return Ok(bytes.into());
            }
            None => &[],
        };
        let rest = bytes.get(self.at..).unwrap_or_default();
        Ok(rest.get(..most).unwrap_or(rest).into())
    }

    /// Serves the request at `address`, and says there how it went.
    fn dma(&mut self, address: u64) {
        let mut request = [0; 16];
        if self.memory.read_slice(&mut request, GuestAddress(address)).is_err() {
            return;
        }
        let [c0, c1, c2, c3, l0, l1, l2, l3, target @ ..] = request;
        let control = u32::from_be_bytes([c0, c1, c2, c3]);
        let len = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(0);
        if control & SELECT != 0 {
            let [key_high, key_low, ..] = control.to_be_bytes();
            self.select(u16::from_be_bytes([key_high, key_low]));
        }
        let result = if control & READ != 0 {
            self.copy(u64::from_be_bytes(target), len)
        } else {
            self.at = if control & SKIP != 0 { self.at.saturating_add(len) } else { self.at };
            // Nothing here can be written.
            if control & WRITE != 0 { FAILED } else { 0 }
        };
        // A request that lies in no memory was not read above.
        let _answered = self.memory.write_slice(&result.to_be_bytes(), GuestAddress(address));
    }

    /// Copies `len` bytes to guest memory; what cannot be read or written ends it.
    fn copy(&mut self, target: u64, len: usize) -> u32 {
        let mut done = 0;
        while done < len {
            let most = (len - done).min(PIECE);
            let Ok(bytes) = self.next(most) else { return FAILED };
            let bytes = if bytes.is_empty() { vec![0_u8; most].into() } else { bytes };
            let address = GuestAddress(target.saturating_add(done as u64));
            if self.memory.write_slice(&bytes, address).is_err() {
                return FAILED;
            }
            let copied = bytes.len();
            done += copied;
            self.at = self.at.saturating_add(copied);
        }
        0
    }
}

/// The list of files: how many, then of each length, key and name.
fn directory(files: &[(String, Contents)]) -> Vec<u8> {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes();
    let mut directory = number(files.len()).to_vec();
    for (key, (name, contents)) in (FIRST_FILE..).zip(files) {
        directory.extend(number(contents.len()));
        directory.extend(key.to_be_bytes());
        directory.extend([0; 2]);
        let name = name.as_bytes().get(..NAME_BYTES - 1).unwrap_or(name.as_bytes());
        directory.extend(name);
        directory.extend(vec![0; NAME_BYTES - name.len()]);
    }
    directory
}

impl BusDevice for FwCfg {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let (DATA, [byte]) = (offset, &mut *data) {
            *byte = self.next(1).ok().and_then(|bytes| bytes.first().copied()).unwrap_or(0);
            self.at = self.at.saturating_add(1);
        } else if let Some(at) = offset.checked_sub(DMA_HIGH).and_then(|at| usize::try_from(at).ok()) {
            data.iter_mut().zip(DMA_SIGNATURE.iter().skip(at)).for_each(|(to, from)| *to = *from);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data) {
            (0, [low, high]) => self.select(u16::from_le_bytes([*low, *high])),
            (DMA_HIGH, [a, b, c, d]) => self.dma_high = u32::from_be_bytes([*a, *b, *c, *d]),
            (DMA_LOW, [a, b, c, d]) => {
                let low = u32::from_be_bytes([*a, *b, *c, *d]);
                let high = std::mem::take(&mut self.dma_high);
                self.dma(u64::from(high) << 32 | u64::from(low));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::GuestRam;

    fn device() -> (FwCfg, GuestMemory) {
        let memory = GuestRam::new(1 << 20).unwrap().memory().clone();
        let late = Contents::Late(3, Box::new(|| vec![7; 9]));
        let files = vec![("a".into(), Contents::Bytes(b"abc".to_vec())), ("late".into(), late)];
        (FwCfg::new(memory.clone(), 2, files), memory)
    }

    fn ask(device: &mut FwCfg, memory: &GuestMemory, control: u32, len: u32, target: u64) -> u32 {
        let mut request = control.to_be_bytes().to_vec();
        request.extend(len.to_be_bytes());
        request.extend(target.to_be_bytes());
        memory.write_slice(&request, GuestAddress(0x1000)).unwrap();
        device.write(DMA_HIGH, &[0; 4]);
        device.write(DMA_LOW, &0x1000_u32.to_be_bytes());
        u32::from_be_bytes(memory.read_obj(GuestAddress(0x1000)).unwrap())
    }

    #[test]
    fn accesses_of_any_place_and_width_are_harmless() {
        let (mut device, _) = device();
        for offset in (0..crate::layout::FW_CFG_PORTS).chain([u64::MAX]) {
            for len in [0, 1, 2, 3, 4, 8] {
                device.read(offset, &mut vec![0; len]);
                device.write(offset, &vec![0xFF; len]);
            }
        }
    }

    #[test]
    fn a_copy_past_memory_and_any_write_fail_and_end() {
        let (mut device, memory) = device();
        let select = SELECT | u32::from(FIRST_FILE) << 16;
        assert_eq!(ask(&mut device, &memory, select | READ, u32::MAX, 0x2000), FAILED);
        assert_eq!(ask(&mut device, &memory, select | READ, 1, u64::MAX), FAILED);
        assert_eq!(ask(&mut device, &memory, select | WRITE, 1, 0x2000), FAILED);
        assert_eq!(ask(&mut device, &memory, SKIP, u32::MAX, 0), 0);
    }

    #[test]
    fn items_are_read_by_port_and_by_copy_with_zeros_behind_them() {
        let (mut device, memory) = device();
        device.write(0, &SIGNATURE.to_le_bytes());
        let mut byte = || {
            let mut byte = [0xFF];
            device.read(DATA, &mut byte);
            byte[0]
        };
        assert_eq!([(); 6].map(|()| byte()), *b"QEMU\0\0");
        memory.write_slice(&[0xFF; 8], GuestAddress(0x2000)).unwrap();
        let key = u32::from(FIRST_FILE) << 16;
        assert_eq!(ask(&mut device, &memory, SELECT | READ | key, 5, 0x2000), 0);
        let copied: [u8; 6] = memory.read_obj(GuestAddress(0x2000)).unwrap();
        assert_eq!(copied, *b"abc\0\0\xFF");
        assert_eq!(ask(&mut device, &memory, SELECT | READ | (key + 0x1_0000), 4, 0x2000), 0);
        assert_eq!(memory.read_obj::<[u8; 4]>(GuestAddress(0x2000)).unwrap(), [7, 7, 7, 0]);
    }

    #[test]
    fn a_kernel_is_one_again_out_of_its_two_parts() {
        let (device, memory) = device();
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut image = vec![7; 5000];
        (image[0x1F1], image[1024]) = (1, 9);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        std::fs::write(at("kernel"), &image).unwrap();
        std::fs::write(at("initrd"), [5; 70_000]).unwrap();
        let kernel = crate::config::Kernel { image: at("kernel"), initrd: Some(at("initrd")), cmdline: "a b".into() };
        let mut device = device.with_kernel(&kernel).unwrap();
        let mut item = |[len, contents]: [u16; 2]| {
            let select = SELECT | READ;
            assert_eq!(ask(&mut device, &memory, select | u32::from(len) << 16, 4, 0x2000), 0);
            let len: u32 = memory.read_obj(GuestAddress(0x2000)).unwrap();
            assert_eq!(ask(&mut device, &memory, select | u32::from(contents) << 16, len, 0x2000), 0);
            let mut bytes = vec![0; len as usize];
            memory.read_slice(&mut bytes, GuestAddress(0x2000)).unwrap();
            bytes
        };
        let (setup, rest) = (item(SETUP), item(KERNEL));
        assert_eq!((setup.len(), [setup, rest].concat()), (1024, image));
        assert_eq!((item(INITRD), item(COMMAND_LINE)), (vec![5; 70_000], b"a b\0".to_vec()));
        std::fs::write(at("initrd"), [5; 10]).unwrap();
        let select = SELECT | READ | u32::from(INITRD[1]) << 16;
        assert_eq!(ask(&mut device, &memory, select, 70_000, 0x2000), FAILED, "cut short meanwhile");
    }

    #[test]
    fn the_directory_names_every_file() {
        let (device, _) = device();
        let Some(Contents::Bytes(directory)) = device.items.get(&DIRECTORY) else { panic!("no directory") };
        assert_eq!(directory.len(), 4 + 2 * 64);
        assert_eq!(directory[..14], [0, 0, 0, 2, 0, 0, 0, 3, 0, 0x20, 0, 0, b'a', 0]);
        assert_eq!(directory[68..81], *b"\0\0\0\x03\0\x21\0\0late\0");
    }
}
