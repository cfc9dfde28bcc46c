//! What a kernel runs on, by its first bytes.

use std::io;

/// Linux' boot protocol of x86 (`Documentation/arch/x86/boot.rst`, "header").
const BZIMAGE_MAGIC: (u64, &[u8]) = (0x202, b"HdrS");
/// That of arm64 (`Documentation/arch/arm64/booting.rst`).
const ARM64_MAGIC: (u64, &[u8]) = (56, b"ARM\x64");
/// That of riscv (`Documentation/arch/riscv/boot-image-header.rst`).
const RISCV_MAGIC: (u64, &[u8]) = (56, b"RSC\x05");
const ELF_MAGIC: &[u8] = b"\x7fELF";
/// A kernel for EFI that unpacks itself (`drivers/firmware/efi/libstub/zboot-header.S`): a PE with this behind its `MZ`.
const ZBOOT_MAGIC: (u64, &[u8]) = (4, b"zimg");
/// Where a PE says where its header is, of which the machine is the first field behind four bytes of magic.
const PE_OFFSET_AT: u64 = 0x3c;

/// Go's name of the architecture that a kernel is for: of x86's, arm64's and riscv's own formats, EFI's and ELF. `None` if
/// it is none of them. `read` fills a buffer from an offset on.
pub fn architecture(read: &dyn Fn(&mut [u8], u64) -> io::Result<()>) -> io::Result<Option<&'static str>> {
    let has = |(at, magic): (u64, &[u8])| {
        let mut bytes = vec![0; magic.len()];
        match read(&mut bytes, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            read => read.map(|()| bytes == magic),
        }
    };
    let elf_machine = |number: u8| Ok::<_, io::Error>(has((0, ELF_MAGIC))? && has((18, &[number, 0]))?);
    if has(BZIMAGE_MAGIC)? || elf_machine(62)? {
        return Ok(Some("amd64"));
    }
    if has(ARM64_MAGIC)? || elf_machine(183)? {
        return Ok(Some("arm64"));
    }
    if has(RISCV_MAGIC)? || elf_machine(243)? {
        return Ok(Some("riscv64"));
    }
    if !has((0, b"MZ"))? || !has(ZBOOT_MAGIC)? {
        return Ok(None);
    }
    let mut offset = [0; 4];
    read(&mut offset, PE_OFFSET_AT)?;
    let header = u64::from(u32::from_le_bytes(offset));
    let machine =
        |number: u16| Ok::<_, io::Error>(has((header, b"PE\0\0"))? && has((header + 4, &number.to_le_bytes()))?);
    Ok(match () {
        () if machine(0x8664)? => Some("amd64"),
        () if machine(0xaa64)? => Some("arm64"),
        () if machine(0x5064)? => Some("riscv64"),
        () => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pieces: &[(usize, &[u8])]) -> Option<&'static str> {
        let mut kernel = vec![0; 1024];
        for (at, bytes) in pieces {
            kernel[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        let read = |buffer: &mut [u8], offset: u64| {
            let start = usize::try_from(offset).unwrap();
            let part = kernel.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(part);
            Ok(())
        };
        architecture(&read).unwrap()
    }

    #[test]
    fn what_is_no_kernel_tells_nothing() {
        let cases: [&[(usize, &[u8])]; 4] =
            [&[], &[(0, b"MZ")], &[(0, b"\x7fELF"), (18, &[3, 0])], &[(0, b"MZ"), (4, b"zimg"), (0x3c, &[0xff; 4])]];
        for pieces in cases {
            assert_eq!(told(pieces), None, "{pieces:?}");
        }
    }

    #[test]
    fn every_kind_of_kernel_tells_what_it_is_for() {
        let zboot = |machine: &'static [u8]| {
            told(&[(0, b"MZ"), (4, b"zimg"), (0x3c, &[0x80]), (0x80, b"PE\0\0"), (0x84, machine)])
        };
        assert_eq!(told(&[(0x202, b"HdrS")]), Some("amd64"));
        assert_eq!(told(&[(56, b"ARM\x64")]), Some("arm64"));
        assert_eq!(told(&[(0, b"\x7fELF"), (18, &[243, 0])]), Some("riscv64"));
        assert_eq!((zboot(&[0x64, 0xaa]), zboot(&[0x64, 0x50])), (Some("arm64"), Some("riscv64")));
    }
}
