//! Firmware volumes (UEFI Platform Initialization 1.8, volume 3, 3.2.1) and the store of variables in one (EDK II,
//! `MdeModulePkg/Include/Guid/VariableFormat.h`): as much as tells whether a file is what it should be.

/// Bytes of a volume's header without its map of blocks.
const HEADER_BYTES: usize = 0x38;
const SIGNATURE: (usize, &[u8]) = (0x28, b"_FVH");
const GUID: usize = 0x10;
const LENGTH: usize = 0x20;
const HEADER_LENGTH: usize = 0x30;

/// `gEfiSystemNvDataFvGuid`: the volume holds variables.
const NV_DATA: [u8; 16] =
    [0x8D, 0x2B, 0xF1, 0xFF, 0x96, 0x76, 0x8B, 0x4C, 0xA9, 0x85, 0x27, 0x47, 0x07, 0x5B, 0x4F, 0x50];
/// `gEfiAuthenticatedVariableGuid`: they have a time and a signer.
const AUTHENTICATED: [u8; 16] =
    [0x78, 0x2C, 0xF3, 0xAA, 0x7B, 0x94, 0x9A, 0x43, 0xA1, 0x80, 0x2E, 0x14, 0x4E, 0xC3, 0x77, 0x92];
/// Bytes of the store's header: GUID, length, format, state.
const STORE_HEADER_BYTES: usize = 28;
/// Format and state of a store that can be used.
const STORE_GOOD: [u8; 2] = [0x5A, 0xFE];
/// First bytes of each variable.
const VARIABLE: [u8; 2] = [0xAA, 0x55];
/// Bytes of a variable's header; the lengths of name and data are in it.
const VARIABLE_HEADER_BYTES: usize = 60;
const NAME_LENGTH: usize = 36;

/// What is wrong with a file of firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadFirmware {
    /// Not firmware at all.
    #[error("it is no EFI firmware: there is no firmware volume at byte {at:#x}")]
    NoVolume {
        /// Where one should be.
        at: usize,
    },
    /// It ends too early.
    #[error("it is cut off: its volumes have {needed} bytes, the file has {len}")]
    Truncated {
        /// The file's length.
        len: usize,
        /// Bytes that its volumes say they have.
        needed: usize,
    },
    /// For another processor, or padded for another machine.
    #[error("it does not end with the first instruction of an x86 processor; firmware of another architecture?")]
    NoReset,
    /// Larger than there is room for.
    #[error("it has {len} bytes; at most {most} fit")]
    Size {
        /// The file's length.
        len: usize,
        /// The limit.
        most: usize,
    },
}

/// What is wrong with a store of variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadVariables {
    /// Not a store at all.
    #[error("it holds no EFI variables")]
    NoStore,
    /// Of another length than the firmware's own.
    #[error("it has {len} bytes, and this firmware's has {wanted}")]
    Length {
        /// Its length.
        len: usize,
        /// What the firmware's template has.
        wanted: usize,
    },
    /// A variable that runs out of the store.
    #[error("its variable at byte {at:#x} runs past the end")]
    Variable {
        /// Where it begins.
        at: usize,
    },
}

/// The length of the volume at the start of `bytes`, if there is one.
fn volume_len(bytes: &[u8]) -> Option<usize> {
    let header_len = usize::from(u16_at(bytes, HEADER_LENGTH)?);
    let header = bytes.get(..header_len).filter(|header| header.len() >= HEADER_BYTES)?;
    let sum = header.chunks(2).fold(0_u16, |sum, word| match word {
        [low, high] => sum.wrapping_add(u16::from_le_bytes([*low, *high])),
        _ => sum.wrapping_add(1),
    });
    let (at, signature) = SIGNATURE;
    let is_one = header.get(at..)?.starts_with(signature) && sum == 0;
    let len = header.get(LENGTH..)?.first_chunk().map(|len| u64::from_le_bytes(*len))?;
    usize::try_from(len).ok().filter(|len| is_one && *len >= header_len)
}

/// The length of the store of variables that `bytes` begin with, if they do.
pub(super) fn variables_len(bytes: &[u8]) -> Option<usize> {
    bytes.get(GUID..).filter(|guid| guid.starts_with(&NV_DATA)).and_then(|_| volume_len(bytes))
}

/// Checks the part of firmware that runs.
pub(super) fn check_code(bytes: &[u8], most: usize) -> Result<(), BadFirmware> {
    if bytes.len() > most || !bytes.len().is_multiple_of(4096) && volume_len(bytes).is_none() {
        return Err(BadFirmware::Size { len: bytes.len(), most });
    }
    let mut at = 0;
    while at < bytes.len() {
        let len = bytes.get(at..).and_then(volume_len).ok_or(BadFirmware::NoVolume { at })?;
        at = at.saturating_add(len);
    }
    if at != bytes.len() || !at.is_multiple_of(4096) || at == 0 {
        return Err(BadFirmware::Truncated { len: bytes.len(), needed: at });
    }
    // Whatever comes first after power-on, it is neither erased flash nor padding.
    let reset = bytes.last_chunk::<16>().unwrap_or(&[0; 16]);
    if reset.iter().all(|byte| matches!(byte, 0 | 0xFF)) { Err(BadFirmware::NoReset) } else { Ok(()) }
}

/// Checks a store of variables that should be as long as `wanted`.
pub(super) fn check_variables(bytes: &[u8], wanted: usize) -> Result<(), BadVariables> {
    if bytes.len() != wanted {
        return Err(BadVariables::Length { len: bytes.len(), wanted });
    }
    if variables_len(bytes).is_none_or(|len| len > bytes.len()) {
        return Err(BadVariables::NoStore);
    }
    let start = usize::from(u16_at(bytes, HEADER_LENGTH).unwrap_or(0));
    let store = bytes.get(start..).unwrap_or_default();
    let len = u32_at(store, 16).and_then(|len| usize::try_from(len).ok()).unwrap_or(0);
    let store = store.get(..len).filter(|store| store.starts_with(&AUTHENTICATED)).ok_or(BadVariables::NoStore)?;
    if store.get(20..22) != Some(&STORE_GOOD) {
        return Err(BadVariables::NoStore);
    }
    let mut at = STORE_HEADER_BYTES;
    while store.get(at..).is_some_and(|rest| rest.starts_with(&VARIABLE)) {
        let fault = BadVariables::Variable { at: start + at };
        let length = |field| u32_at(store, at + field).and_then(|len| usize::try_from(len).ok());
        let name = length(NAME_LENGTH).ok_or(fault)?;
        let data = length(NAME_LENGTH + 4).ok_or(fault)?;
        // A variable whose header was not written whole has lengths of all ones: nothing follows it.
        if name == 0xFFFF_FFFF && data == 0xFFFF_FFFF {
            break;
        }
        let end = at.checked_add(VARIABLE_HEADER_BYTES).and_then(|end| end.checked_add(name)?.checked_add(data));
        at = end.and_then(|end| end.checked_next_multiple_of(4)).filter(|end| *end <= store.len()).ok_or(fault)?;
    }
    Ok(())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A volume of `len` bytes with this GUID, its contents all ones.
    fn volume(guid: [u8; 16], len: usize) -> Vec<u8> {
        let mut bytes = vec![0xFF; len];
        bytes[..0x48].fill(0);
        bytes[GUID..GUID + 16].copy_from_slice(&guid);
        bytes[LENGTH..LENGTH + 8].copy_from_slice(&(len as u64).to_le_bytes());
        bytes[0x28..0x2C].copy_from_slice(b"_FVH");
        bytes[HEADER_LENGTH] = 0x48;
        let sum = bytes[..0x48].chunks(2).fold(0_u16, |sum, w| sum.wrapping_add(u16::from_le_bytes([w[0], w[1]])));
        bytes[0x32..0x34].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
        bytes
    }

    /// Firmware of two volumes that does nothing but start.
    pub(crate) fn code() -> Vec<u8> {
        let mut bytes = [volume([1; 16], 0x2000), volume([2; 16], 0x1000)].concat();
        let reset = bytes.len() - 16;
        bytes[reset..].copy_from_slice(&[0x90; 16]);
        bytes
    }

    /// A store of variables with one in it.
    pub(crate) fn variables() -> Vec<u8> {
        let mut bytes = volume(NV_DATA, 0x4000);
        let store = &mut bytes[0x48..];
        store[..16].copy_from_slice(&AUTHENTICATED);
        store[16..20].copy_from_slice(&0x1000_u32.to_le_bytes());
        store[20..22].copy_from_slice(&STORE_GOOD);
        store[28..30].copy_from_slice(&VARIABLE);
        store[28 + NAME_LENGTH..28 + NAME_LENGTH + 8].copy_from_slice(&[4, 0, 0, 0, 1, 0, 0, 0]);
        bytes
    }

    #[test]
    fn what_is_no_whole_firmware_of_this_architecture_is_refused() {
        let most = 0x10_0000;
        let whole = code();
        let check = |bytes: &[u8]| check_code(bytes, most);
        assert_eq!(check(&[]), Err(BadFirmware::Truncated { len: 0, needed: 0 }));
        assert_eq!(check(b"MZ"), Err(BadFirmware::Size { len: 2, most }));
        assert_eq!(check(&[0; 4096]), Err(BadFirmware::NoVolume { at: 0 }));
        assert_eq!(check(&vec![0; most + 4096]), Err(BadFirmware::Size { len: most + 4096, most }));
        assert_eq!(check(&whole[..0x1000]), Err(BadFirmware::Truncated { len: 0x1000, needed: 0x2000 }));
        assert_eq!(check(&whole[..0x2FFF]), Err(BadFirmware::Truncated { len: 0x2FFF, needed: 0x3000 }));
        assert_eq!(check(&[whole.clone(), vec![0; 4096]].concat()), Err(BadFirmware::NoVolume { at: 0x3000 }));
        let mut other = whole.clone();
        other[0x2FF0..].fill(0);
        assert_eq!(check(&other), Err(BadFirmware::NoReset));
        assert_eq!(check(&whole), Ok(()));
    }

    #[test]
    fn a_store_that_is_damaged_anywhere_is_told_or_harmless() {
        let whole = variables();
        let check = |bytes: &[u8]| check_variables(bytes, 0x4000);
        assert_eq!(check(&whole), Ok(()));
        assert_eq!(check(&whole[..0x3FFF]), Err(BadVariables::Length { len: 0x3FFF, wanted: 0x4000 }));
        assert_eq!(check(&[0; 0x4000]), Err(BadVariables::NoStore));
        let damaged = |at: usize, byte: u8| {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            check(&bytes)
        };
        for at in (0x10..0x38).chain(0x48..0x58).chain(0x5B..0x5E) {
            assert!(damaged(at, 0x71).is_err(), "{at:#x}");
        }
        assert_eq!(damaged(0x48 + 28 + NAME_LENGTH + 3, 0x7F), Err(BadVariables::Variable { at: 0x64 }));
        for at in 0x5E..0x100 {
            let _harmless = damaged(at, 0xFF);
        }
    }
}
