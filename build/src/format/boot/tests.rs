//! Refusals, and the layout of what is made.

use super::*;
use crate::cancel::Cancel;
use crate::format::{FormatError, Watch};
use crate::progress::Silent;

/// The headers of an EFI kernel with one section, and what is in it.
fn efi_kernel(machine: u16) -> Vec<u8> {
    let mut file = vec![0; 0x1800];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &[0x40]);
    put(0x40, b"PE\0\0");
    put(0x44, &machine.to_le_bytes());
    put(0x46, &[1]);
    put(0x54, &[240]);
    put(0x58, &0x20b_u16.to_le_bytes());
    put(0x58 + 16, &0x1010_u32.to_le_bytes());
    put(0x58 + 32, &0x1000_u32.to_le_bytes());
    put(0x58 + 44, &[1]);
    put(0x58 + 56, &0x8001_u32.to_le_bytes());
    put(0x58 + 60, &0x200_u32.to_le_bytes());
    let section = 0x58 + 240;
    put(section, b".text");
    put(section + 8, &0x4000_u32.to_le_bytes());
    put(section + 12, &0x1000_u32.to_le_bytes());
    put(section + 16, &0x1000_u32.to_le_bytes());
    put(section + 20, &0x800_u32.to_le_bytes());
    file
}

fn uki_of(kernel: &[u8], architecture: &str, cmdline: &[u8]) -> Result<Vec<u8>, FormatError> {
    let parts = Uki {
        architecture,
        kernel: Body::Inline(kernel.into()),
        initrd: Some(Body::Inline(b"initrd".as_slice().into())),
        cmdline,
        os_release: b"ID=x\n".to_vec(),
        signer: None,
    };
    let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: &std::env::temp_dir() };
    let image = uki(&parts, watch)?.extents;
    let mut bytes = vec![0; usize::try_from(image.len_bytes()).unwrap()];
    image.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[test]
fn what_efi_firmware_cannot_start_is_refused_with_what_to_do() {
    let changed = |at: usize, value: u8| {
        let mut kernel = efi_kernel(0x8664);
        kernel[at] = value;
        kernel
    };
    let long_line = [b'x'; 2048];
    let cases: &[(Vec<u8>, &str, &[u8], &str)] = &[
        (vec![], "amd64", b"", "name an image under `kernel:`"),
        (b"FAKE-KERNEL".into(), "amd64", b"", "`CONFIG_EFI_STUB`"),
        (b"MZ but short".into(), "amd64", b"", "`CONFIG_EFI_STUB`"),
        (b"\x7fELF\x02".into(), "amd64", b"", "leave out `--decompress-kernel`"),
        (b"\x1f\x8b\x08".into(), "arm64", b"", "use `--decompress-kernel`"),
        (efi_kernel(0xaa64), "amd64", b"", "the kernel is for `arm64`, but the image is built for `amd64`"),
        (efi_kernel(0x8664), "riscv64", b"", "`amd64` and `arm64` are possible"),
        (efi_kernel(0x8664), "amd64", &long_line, "2048 bytes, more than the 2047"),
        (efi_kernel(0x8664), "amd64", b" a\0b", "the byte 0x00 at 1"),
        (changed(0x58 + 44, 0), "amd64", b"", "Linux 5.8"),
        (changed(0x58 + 59, 0x80), "amd64", b"", "length in memory"),
        (changed(0x58 + 18, 0x80), "amd64", b"", "length in memory"),
        (changed(0x58 + 34, 0x30), "amd64", b"", "alignment in memory"),
        (changed(0x58 + 240 + 14, 0x80), "amd64", b"", "section table"),
        (changed(0x58 + 240 + 21, 0x09), "amd64", b"", "section table"),
        (changed(0x47, 0xff), "amd64", b"", "section table"),
    ];
    for (kernel, architecture, cmdline, part) in cases {
        let error = uki_of(kernel, architecture, cmdline).expect_err(part).to_string();
        assert!(error.contains(part), "{error}\n{part}");
    }
}

#[test]
fn an_efi_program_holds_its_parts_as_sections_with_a_table_of_them() {
    for (architecture, machine) in [("amd64", 0x8664), ("arm64", 0xaa64)] {
        let image = uki_of(&efi_kernel(machine), architecture, b" quiet console=ttyS0\n").unwrap();
        let long = |at: usize| u32::from_le_bytes(*image[at..].first_chunk().unwrap()) as usize;
        let mut sections = vec![];
        for at in (0..usize::from(image[0x46])).map(|index| 0x58 + 240 + index * 40) {
            let name = String::from_utf8_lossy(&image[at..at + 8]).trim_end_matches('\0').to_owned();
            assert_eq!(long(at + 12), long(at + 20), "offsets in memory are those in the file");
            assert_eq!(long(at + 20) % 4096, 0);
            sections.push((name, long(at + 20), long(at + 8)));
        }
        let names: Vec<_> = sections.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, [".text", ".reloc", ".sbat", ".osrel", ".cmdline", ".initrd", ".linux"]);
        let content = |index: usize| &image[sections[index].1..][..sections[index].2];
        assert_eq!(content(4), b"quiet console=ttyS0");
        assert_eq!(content(5), b"initrd");
        assert_eq!(content(6), efi_kernel(machine));

        let text = content(0);
        let table: Vec<_> =
            text[text.len() - 128..].as_chunks().0.iter().map(|long| u32::from_le_bytes(*long)).collect();
        assert_eq!(table[..4], [9, 0x1000, 0x9000, 0x1010], "pages, alignment, length and entry of the kernel");
        let offset = |index: usize| u32::try_from(sections[index].1 - sections[0].1).unwrap();
        assert_eq!(table[4..8], [offset(4), 19, offset(5), 6]);
        assert_eq!(table[8..14], [0, offset(6), 0x200, 0x1000, offset(6) + 0x800, 0x1000], "what is copied where");
        assert!(table[14..].iter().all(|number| *number == 0));
    }
}

/// The start of a bzImage of two sectors of setup code and what follows it.
fn bzimage() -> Vec<u8> {
    let mut file = vec![0; 0x3000];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1fe, &[0x55, 0xaa]);
    put(0x202, b"HdrS");
    put(0x206, &0x20f_u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x238, &2047_u32.to_le_bytes());
    put(0x258, &0x100_0000_u32.to_le_bytes());
    put(0x260, &0x300_0800_u32.to_le_bytes());
    file
}

fn loader(kernel: &[u8], initrd_bytes: u64, cmdline: &[u8]) -> Result<bios::Loader, FormatError> {
    let kernel = Body::Inline(kernel.into());
    bios::Loader::at(2048, &bios::BiosFiles { kernel, kernel_lba: 3000, initrd: Some((4000, initrd_bytes)), cmdline })
}

#[test]
fn what_a_bios_cannot_start_is_refused_with_what_to_do() {
    let changed = |at: usize, value: u8| {
        let mut kernel = bzimage();
        kernel[at] = value;
        kernel
    };
    let cases: &[(Vec<u8>, u64, &[u8], &str)] = &[
        (vec![], 0, b"", "name an image under `kernel:`"),
        (b"FAKE-KERNEL".into(), 0, b"", "it has to be a bzImage"),
        (b"\x7fELF\x02".into(), 0, b"", "leave out `--decompress-kernel`"),
        (efi_kernel(0xaa64), 0, b"", "it has to be a bzImage"),
        (changed(0x206, 9), 0, b"", "older than Linux 2.6.31"),
        (changed(0x211, 0), 0, b"", "older than Linux 2.6.31"),
        (changed(0x1f1, 65), 0, b"", "its length cannot be right"),
        (changed(0x1f1, 0x17), 0, b"", "its length cannot be right"),
        (changed(0x25c, 1), 0, b"", "its place in memory cannot be right"),
        (changed(0x239, 0), 0, &[b'x'; 256], "256 bytes, more than the 255"),
        (bzimage(), (0x8000_0000 - 0x400_1000) + 1, b"", "more than the 2080370688 that a BIOS can start"),
        (bzimage(), 0, b"\xff", "the byte 0xff at 0"),
    ];
    for (kernel, initrd_bytes, cmdline, part) in cases {
        let error = loader(kernel, *initrd_bytes, cmdline).expect_err(part).to_string();
        assert!(error.contains(part), "{error}\n{part}");
    }
}

#[test]
fn a_bios_loader_knows_where_everything_is() {
    let loader = loader(&bzimage(), 5000, b"quiet\n").unwrap();
    assert_eq!(loader.boot_record()[424..], [16, 0, 0, 0, 0, 0x7c, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0]);
    let body = loader.body();
    assert_eq!(body.len(), 4096);
    let table: Vec<_> = body[1948..1984].as_chunks().0.iter().map(|long| u32::from_le_bytes(*long)).collect();
    assert_eq!(table, [3000, 0x3000, 1024, 0x400_1000, 4000, 5000, 8192, 0x8000_0000, 2052]);
    assert!(body[1984..2048].starts_with(b"\r\nkiln: too little memory: 66 MiB are needed\0"));
    assert!(body[2048..].starts_with(b"quiet\0\0"));
}
