//! The flash that variables are in: Intel's command set (JEDEC 68.01, "CFI" 0x0001), as much of it as firmware uses. It is
//! memory to the guest until it asks for something else than contents.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bus::BusDevice;
use crate::hv::Roms;
use crate::mem::Rom;

/// Bytes that are erased at once: a block of EDK II's flash (`PcdOvmfFirmwareBlockSize`).
const BLOCK: u64 = 4096;
/// What erased flash holds.
const ERASED: [u8; 4096] = [0xFF; 4096];
/// Status: ready, no fault.
const READY: u8 = 0x80;
/// Status after it was cleared; the next command makes it ready.
const CLEARED: u8 = 0;

/// Commands.
const PROGRAM: u8 = 0x10;
const PROGRAM_TOO: u8 = 0x40;
const ERASE: u8 = 0x20;
const ERASE_CONFIRM: u8 = 0xD0;
const CLEAR_STATUS: u8 = 0x50;
const READ_STATUS: u8 = 0x70;
const READ_ARRAY: u8 = 0xFF;

/// The file is made safe at most this often while the guest writes, and when the machine ends.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// What the next access means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Reads give contents; writes are commands.
    Array,
    /// Reads give the status.
    Status,
    /// The next write is data.
    Program,
    /// The next write confirms.
    Erase,
}

/// The flash. What the guest wrote is in its file after each burst of commands.
pub struct Flash {
    rom: Arc<Rom>,
    roms: Arc<dyn Roms>,
    file: Arc<File>,
    mode: Mode,
    status: u8,
    /// The guest reads it without us.
    is_shown: bool,
    /// What is not in the file yet.
    unsaved: Option<Range<u64>>,
    /// When the file was made safe last, unless it is.
    synced: Option<Instant>,
}

impl Flash {
    /// Flash with the contents of `rom`, which is shown, and which `file` holds too.
    pub fn new(rom: Arc<Rom>, roms: Arc<dyn Roms>, file: Arc<File>) -> Self {
        Self { rom, roms, file, mode: Mode::Array, status: READY, is_shown: true, unsaved: None, synced: None }
    }

    fn store(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset.saturating_add(bytes.len() as u64).min(self.rom.len());
        if offset >= end {
            return;
        }
        self.rom.write(offset, bytes);
        let unsaved = self.unsaved.take().unwrap_or(offset..end);
        self.unsaved = Some(unsaved.start.min(offset)..unsaved.end.max(end));
    }

    fn command(&mut self, command: u8) {
        match command {
            PROGRAM | PROGRAM_TOO => self.mode = Mode::Program,
            ERASE => self.mode = Mode::Erase,
            CLEAR_STATUS => self.status = CLEARED,
            READ_STATUS => {
                self.mode = Mode::Status;
                self.show(false);
            }
            READ_ARRAY => {
                self.mode = Mode::Array;
                self.save();
                self.show(true);
            }
            _ => self.mode = Mode::Array,
        }
    }

    /// A hypervisor that refuses leaves it as it was, and the firmware finds no flash.
    fn show(&mut self, wanted: bool) {
        if wanted != self.is_shown {
            let result = if wanted { self.roms.show(&self.rom) } else { self.roms.hide(&self.rom) };
            self.is_shown = if result.is_ok() { wanted } else { self.is_shown };
        }
    }

    /// Brings the file up to date. What the host refuses is tried again with the next burst.
    fn save(&mut self) {
        let Some(unsaved) = self.unsaved.take() else { return };
        let mut bytes = vec![0; usize::try_from(unsaved.end - unsaved.start).unwrap_or(0)];
        self.rom.read(unsaved.start, &mut bytes);
        if self.file.write_all_at(&bytes, unsaved.start).is_err() {
            self.unsaved = Some(unsaved);
            return;
        }
        if self.synced.is_none_or(|at| at.elapsed() > SYNC_EVERY) {
            let _refused = self.file.sync_data();
            self.synced = Some(Instant::now());
        }
    }
}

impl Drop for Flash {
    fn drop(&mut self) {
        self.save();
        if self.synced.is_some() {
            let _refused = self.file.sync_data();
        }
    }
}

impl BusDevice for Flash {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match self.mode {
            Mode::Status => data.fill(self.status),
            _ => self.rom.read(offset, data),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let Some(first) = data.first().copied().filter(|_| offset < self.rom.len()) else { return };
        match self.mode {
            Mode::Array | Mode::Status => self.command(first),
            Mode::Program => {
                self.store(offset, data);
                self.status |= READY;
                self.mode = Mode::Status;
            }
            Mode::Erase => {
                if first == ERASE_CONFIRM {
                    self.store(offset - offset % BLOCK, &ERASED);
                }
                self.status |= READY;
                self.mode = Mode::Status;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hv::scripted::Scripted;
    use crate::hv::{Hypervisor, Vm};
    use crate::mem::GuestRam;

    const START: u64 = 0xFFC0_0000;

    fn flash() -> (Flash, Scripted, Arc<File>) {
        let hypervisor = Scripted::new(vec![]);
        let ram = GuestRam::new(4096).unwrap();
        let roms = hypervisor.create_vm(ram.memory(), 1).unwrap().roms();
        let rom = Arc::new(Rom::new(START, &[1; 8192]).unwrap());
        roms.show(&rom).unwrap();
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.write_all_at(&[1; 8192], 0).unwrap();
        (Flash::new(rom, roms, Arc::clone(&file)), hypervisor, file)
    }

    fn read(flash: &mut Flash, offset: u64) -> u8 {
        let mut byte = [0xEE];
        flash.read(offset, &mut byte);
        byte[0]
    }

    #[test]
    fn every_command_at_every_place_and_width_is_harmless() {
        let (mut flash, _, file) = flash();
        for command in 0..=u8::MAX {
            for offset in [0, 4095, 8191, 8192, u64::MAX] {
                for len in [0, 1, 2, 4, 8] {
                    flash.write(offset, &vec![command; len]);
                    flash.read(offset, &mut vec![0; len]);
                }
            }
        }
        drop(flash);
        assert_eq!(file.metadata().unwrap().len(), 8192);
    }

    #[test]
    fn it_answers_as_firmware_expects_of_flash_and_of_nothing_else() {
        let (mut flash, hypervisor, _) = flash();
        let shown = || hypervisor.record.lock().unwrap().shown.clone();
        flash.write(5, &[CLEAR_STATUS]);
        assert_eq!((read(&mut flash, 5), shown()), (1, vec![START]));
        flash.write(5, &[READ_STATUS]);
        assert_eq!((read(&mut flash, 5), shown()), (CLEARED, vec![]));
        flash.write(5, &[READ_ARRAY]);
        assert_eq!((read(&mut flash, 5), shown()), (1, vec![START]));
    }

    #[test]
    fn what_was_programmed_and_erased_is_in_the_file_when_the_burst_ends() {
        let (mut flash, _, file) = flash();
        let in_file = |at| {
            let mut bytes = [0; 2];
            file.read_exact_at(&mut bytes, at).unwrap();
            bytes
        };
        flash.write(4096, &[PROGRAM]);
        flash.write(4096, &[0x5A]);
        flash.write(4097, &[PROGRAM_TOO]);
        flash.write(4097, &[0x5B]);
        assert_eq!((in_file(4096), read(&mut flash, 0)), ([1, 1], READY));
        flash.write(4097, &[READ_ARRAY]);
        assert_eq!((in_file(4096), read(&mut flash, 4097)), ([0x5A, 0x5B], 0x5B));
        flash.write(4100, &[ERASE]);
        flash.write(4100, &[0x11]);
        flash.write(4100, &[READ_ARRAY]);
        assert_eq!(in_file(4096), [0x5A, 0x5B], "nobody confirmed");
        flash.write(4100, &[ERASE]);
        flash.write(4100, &[ERASE_CONFIRM]);
        drop(flash);
        assert_eq!((in_file(4096), in_file(8190), in_file(4094)), ([0xFF; 2], [0xFF; 2], [1, 1]));
    }
}
